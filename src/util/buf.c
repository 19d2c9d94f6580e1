#include "util/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Bool size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

_Bool size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

void buf_release(struct buf *b)
{
    free(b->data);
    *b = (struct buf)BUF_INIT;
}

void buf_clear(struct buf *b)
{
    b->n_bytes = 0;
    if (b->data)
        b->data[0] = '\0';
}

enum status buf_reserve(struct buf *b, size_t n_bytes, struct err *err)
{
    size_t need;
    if (!size_add(b->n_bytes, n_bytes, &need) || !size_add(need, 1, &need) || need > PTRDIFF_MAX)
        return err_memory(err, "a buffer", n_bytes);
    if (need <= b->capacity)
        return ST_OK;
    size_t grown = b->capacity < 64 ? 64 : b->capacity;
    if (!size_add(grown, grown / 2, &grown) || grown < need)
        grown = need;
    char *data = realloc(b->data, grown);
    if (!data)
        return err_memory(err, "a buffer", grown);
    b->data = data;
    b->capacity = grown;
    b->data[b->n_bytes] = '\0';
    return ST_OK;
}

enum status buf_append(struct buf *b, const void *data, size_t n_bytes, struct err *err)
{
    TRY(buf_reserve(b, n_bytes, err));
    if (n_bytes > 0)
        memcpy(b->data + b->n_bytes, data, n_bytes);
    b->n_bytes += n_bytes;
    b->data[b->n_bytes] = '\0';
    return ST_OK;
}

enum status buf_puts(struct buf *b, const char *text, struct err *err)
{
    return buf_append(b, text, strlen(text), err);
}

enum status buf_printf(struct buf *b, struct err *err, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    enum status status = ST_OK;
    if (n < 0)
        status = err_set(err, ST_DEFECT, "text could not be formatted: %s", fmt);
    if (status == ST_OK)
        status = buf_reserve(b, (size_t)n, err);
    if (status == ST_OK) {
        vsnprintf(b->data + b->n_bytes, (size_t)n + 1, fmt, again);
        b->n_bytes += (size_t)n;
    }
    va_end(again);
    return status;
}

enum status buf_take(struct buf_reader *r, void *out, size_t n_bytes, struct err *err)
{
    if (r->at > r->n_bytes || n_bytes > r->n_bytes - r->at)
        return err_set(err, ST_DEFECT, "message too short: %zu bytes wanted at byte %zu of %zu", n_bytes,
                       r->at, r->n_bytes);
    if (n_bytes > 0)
        memcpy(out, r->data + r->at, n_bytes);
    r->at += n_bytes;
    return ST_OK;
}
