/* CRC-32 by eight tables (Kounavis and Berry, "Novel table lookup-based algorithms for high-performance CRC
 * generation", 2008): eight bytes a turn. */
#include "util/crc32.h"
#include "util_internal.h"

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

uint32_t util__crc32_tables(uint32_t state, const unsigned char *p, size_t n_bytes)
{
    for (; n_bytes >= 8; n_bytes -= 8, p += 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= state;
        state = tables[7][low & 0xff] ^ tables[6][(low >> 8) & 0xff] ^ tables[5][(low >> 16) & 0xff] ^
                tables[4][low >> 24] ^ tables[3][high & 0xff] ^ tables[2][(high >> 8) & 0xff] ^
                tables[1][(high >> 16) & 0xff] ^ tables[0][high >> 24];
    }
    for (; n_bytes > 0; n_bytes--, p++)
        state = (state >> 8) ^ tables[0][(state ^ *p) & 0xff];
    return state;
}

uint32_t crc32_add(uint32_t crc, const void *data, size_t n_bytes)
{
    const unsigned char *p = data;
    const size_t n_blocks = n_bytes >= 64 && util__crc32_has_clmul() ? n_bytes / 64 : 0;
    uint32_t state = ~crc;
    if (n_blocks > 0)
        state = util__crc32_blocks(state, p, n_blocks);
    return ~util__crc32_tables(state, p + 64 * n_blocks, n_bytes - 64 * n_blocks);
}
