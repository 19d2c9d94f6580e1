/* CRC-32 as zip and PNG have it (polynomial 0xEDB88320). */
#ifndef SMGPT_UTIL_CRC32_H
#define SMGPT_UTIL_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* That of data, going on from crc (0 at the start). */
uint32_t crc32_add(uint32_t crc, const void *data, size_t n_bytes);

#endif
