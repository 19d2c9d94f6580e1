/* SHA-256 (FIPS 180-4). */
#ifndef SMGPT_UTIL_SHA256_H
#define SMGPT_UTIL_SHA256_H

#include "util/err.h"
#include <stddef.h>
#include <stdint.h>

#define SHA256_HEX_BYTES 65 /* 64 hex digits and NUL */

struct sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    unsigned char block[64];
};
void sha256_init(struct sha256 *h);
void sha256_update(struct sha256 *h, const void *data, size_t n_bytes);
void sha256_final(struct sha256 *h, unsigned char digest[32]);
void sha256_hex(struct sha256 *h, char hex[SHA256_HEX_BYTES]); /* final, as lower-case hex */
void sha256_buffer(const void *data, size_t n_bytes, char hex[SHA256_HEX_BYTES]);
/* Two buffers of one length, nearly twice as fast as one after the other where the processor has SHA
 * instructions. */
void sha256_two(const void *a, const void *b, size_t n_bytes, unsigned char digest_a[32],
                unsigned char digest_b[32]);
enum status sha256_file(const char *path, char hex[SHA256_HEX_BYTES], struct err *err);

#endif
