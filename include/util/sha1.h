/* SHA-1 (FIPS 180-4), for git's names of files; no protection against somebody who means harm. */
#ifndef SMGPT_UTIL_SHA1_H
#define SMGPT_UTIL_SHA1_H

#include "util/err.h"
#include <stddef.h>
#include <stdint.h>

#define SHA1_HEX_BYTES 41 /* 40 hex digits and NUL */

struct sha1 {
    uint32_t state[5];
    uint64_t n_bytes;
    unsigned char block[64];
};
void sha1_init(struct sha1 *h);
void sha1_update(struct sha1 *h, const void *data, size_t n_bytes);
void sha1_hex(struct sha1 *h, char hex[SHA1_HEX_BYTES]); /* ends it */
void sha1_buffer(const void *data, size_t n_bytes, char hex[SHA1_HEX_BYTES]);
/* Begins a hash as git does for a file of n_bytes: with "blob <n_bytes>" and a NUL. */
void sha1_init_blob(struct sha1 *h, int64_t n_bytes);
/* git's name of a file. ST_INPUT when it cannot be opened, ST_ENV when it cannot be read. */
enum status sha1_file_blob(const char *path, char hex[SHA1_HEX_BYTES], struct err *err);

#endif
