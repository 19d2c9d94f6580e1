/* Names shared between the files of util and its tests; no other room includes this. */
#ifndef SMGPT_UTIL_INTERNAL_H
#define SMGPT_UTIL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* sha256: one compression function with plain C, one with the processor's SHA instructions. */
void util__sha256_blocks_plain(uint32_t state[8], const unsigned char *data, size_t n_blocks);
void util__sha256_blocks_ni(uint32_t state[8], const unsigned char *data, size_t n_blocks);
/* Two streams side by side. */
void util__sha256_two_blocks_ni(uint32_t a[8], uint32_t b[8], const unsigned char *data_a,
                                const unsigned char *data_b, size_t n_blocks);
bool util__sha256_has_ni(void);
extern const uint32_t util__sha256_k[64];

/* crc32: its two ways, on the inverted sum: by tables, and by n_blocks >= 1 of 64 bytes where the processor
 * can. */
uint32_t util__crc32_tables(uint32_t state, const unsigned char *p, size_t n_bytes);
uint32_t util__crc32_blocks(uint32_t state, const unsigned char *p, size_t n_blocks);
bool util__crc32_has_clmul(void);

/* limits: `root` stands in front of every path that is read, "" for the real machine. -1 or 0 for no limit.
 */
int64_t util__cgroup_memory_bytes(const char *root);
int util__cgroup_cpus(const char *root);

#endif
