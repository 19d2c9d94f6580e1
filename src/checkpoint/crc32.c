/* CRC-32 by eight tables (Kounavis and Berry, "Novel table lookup-based algorithms for high-performance CRC
 * generation", 2008): eight bytes a turn. */
#include "zip_internal.h"

#include <string.h>

static uint32_t tables[8][256];

/* Runs before main, so that the tables need no lock. */
__attribute__((constructor)) static void fill_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t x = i;
        for (int bit = 0; bit < 8; bit++)
            x = (x >> 1) ^ (x & 1 ? 0xedb88320u : 0);
        tables[0][i] = x;
    }
    for (int t = 1; t < 8; t++) {
        for (int i = 0; i < 256; i++)
            tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xff];
    }
}

uint32_t checkpoint__crc32(uint32_t crc, const void *data, size_t n_bytes)
{
    const unsigned char *p = data;
    crc = ~crc;
    for (; n_bytes >= 8; n_bytes -= 8, p += 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= crc;
        crc = tables[7][low & 0xff] ^ tables[6][(low >> 8) & 0xff] ^ tables[5][(low >> 16) & 0xff] ^
              tables[4][low >> 24] ^ tables[3][high & 0xff] ^ tables[2][(high >> 8) & 0xff] ^
              tables[1][(high >> 16) & 0xff] ^ tables[0][high >> 24];
    }
    for (; n_bytes > 0; n_bytes--, p++)
        crc = (crc >> 8) ^ tables[0][(crc ^ *p) & 0xff];
    return ~crc;
}
