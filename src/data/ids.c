/* The growable list of token ids. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

void ids_release(struct ids *ids)
{
    free(ids->data);
    *ids = (struct ids)IDS_INIT;
}

void ids_clear(struct ids *ids)
{
    ids->n = 0;
}

enum status tokenizer__ids_reserve(struct ids *ids, size_t n, struct err *err)
{
    if (n <= (size_t)(ids->capacity - ids->n))
        return ST_OK;
    if (n > (size_t)(INT32_MAX - ids->n))
        return err_set(err, ST_INPUT, "more than %d token ids in one list", INT32_MAX);
    size_t capacity = (size_t)ids->n + n;
    if (capacity < 2 * (size_t)ids->capacity)
        capacity = 2 * (size_t)ids->capacity;
    if (capacity < 16)
        capacity = 16;
    if (capacity > INT32_MAX)
        capacity = INT32_MAX;
    int32_t *data = realloc(ids->data, capacity * sizeof *data);
    if (!data)
        return err_memory(err, "token ids", capacity * sizeof *data);
    ids->data = data;
    ids->capacity = (int)capacity;
    return ST_OK;
}

enum status ids_push(struct ids *ids, int32_t id, struct err *err)
{
    if (ids->n == ids->capacity)
        TRY(tokenizer__ids_reserve(ids, 1, err));
    ids->data[ids->n++] = id;
    return ST_OK;
}

enum status ids_append(struct ids *ids, const int32_t *data, int n, struct err *err)
{
    if (n <= 0)
        return ST_OK;
    TRY(tokenizer__ids_reserve(ids, (size_t)n, err));
    memcpy(ids->data + ids->n, data, (size_t)n * sizeof *data);
    ids->n += n;
    return ST_OK;
}
