/* What the files of this room share. */
#ifndef SMGPT_CHECKPOINT_INTERNAL_H
#define SMGPT_CHECKPOINT_INTERNAL_H

#include "util/err.h"
#include <stddef.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are mapped and written as they lie in memory: little-endian machines only"
#endif

/* Text from a file made fit for a one-line message: unprintable bytes as \xNN, long ones cut with "...". */
#define QUOTE_BYTES 128
struct quoted {
    char text[QUOTE_BYTES];
};
struct quoted checkpoint__quote(const char *text, size_t n_bytes);
struct quoted checkpoint__quote_z(const char *text);

/* ST_INPUT naming what lies under a name where something else was expected: nothing at all, a Git LFS
 * pointer, a web page, a file of another known format. `wanted` is e.g. "a safetensors file". ST_OK if none
 * of these. */
enum foreign_kind { FOREIGN_SAFETENSORS = 1, FOREIGN_ZIP = 2 };
enum status checkpoint__check_foreign(const unsigned char *data, size_t n_bytes, const char *path,
                                      enum foreign_kind expected, struct err *err);

#endif
