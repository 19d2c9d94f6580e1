/* A growable byte buffer; always one NUL behind the last byte, so that text can be used as a C string. */
#ifndef SMGPT_UTIL_BUF_H
#define SMGPT_UTIL_BUF_H

#include "util/err.h"
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data;     /* owned; NULL only before the first append */
    size_t n_bytes; /* without the NUL */
    size_t capacity;
};

#define BUF_INIT                                                                                             \
    {                                                                                                        \
        0                                                                                                    \
    }

void buf_release(struct buf *b);
void buf_clear(struct buf *b); /* n_bytes = 0, memory kept */
/* Room for n_bytes behind those that are there. */
enum status buf_reserve(struct buf *b, size_t n_bytes, struct err *err);
enum status buf_append(struct buf *b, const void *data, size_t n_bytes, struct err *err);
enum status buf_puts(struct buf *b, const char *text, struct err *err);
enum status buf_printf(struct buf *b, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Binary messages between ranks: little helpers that append / take fixed-size values in host order.
 * buf_take fails with ST_DEFECT when fewer bytes are left than asked for. */
struct buf_reader {
    const char *data;
    size_t n_bytes, at;
};
enum status buf_take(struct buf_reader *r, void *out, size_t n_bytes, struct err *err);

/* a * b and a + b for sizes that come from outside; false on overflow. */
_Bool size_mul(size_t a, size_t b, size_t *out);
_Bool size_add(size_t a, size_t b, size_t *out);

#endif
