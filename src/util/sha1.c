#include "util/sha1.h"
#include "util/file.h"

#include <stdio.h>
#include <string.h>

static uint32_t rotate_left(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

/* FIPS 180-4 section 6.1.2. */
static void compress(uint32_t state[5], const unsigned char *p)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int t = 0; t < 16; t++)
        w[t] = (uint32_t)p[4 * t] << 24 | (uint32_t)p[4 * t + 1] << 16 | (uint32_t)p[4 * t + 2] << 8 |
               p[4 * t + 3];
    for (int t = 16; t < 80; t++)
        w[t] = rotate_left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (int t = 0; t < 80; t++) {
        uint32_t f, k;
        if (t < 20)
            f = (b & c) ^ (~b & d), k = 0x5a827999;
        else if (t < 40)
            f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (t < 60)
            f = (b & c) ^ (b & d) ^ (c & d), k = 0x8f1bbcdc;
        else
            f = b ^ c ^ d, k = 0xca62c1d6;
        uint32_t next = rotate_left(a, 5) + f + e + k + w[t];
        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

void sha1_init(struct sha1 *h)
{
    static const uint32_t start[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    memcpy(h->state, start, sizeof start);
    h->n_bytes = 0;
}

void sha1_update(struct sha1 *h, const void *data, size_t n_bytes)
{
    const unsigned char *p = data;
    while (n_bytes > 0) {
        size_t held = (size_t)(h->n_bytes % 64), n = 64 - held < n_bytes ? 64 - held : n_bytes;
        memcpy(h->block + held, p, n);
        h->n_bytes += n;
        p += n;
        n_bytes -= n;
        if (held + n == 64)
            compress(h->state, h->block);
    }
}

void sha1_hex(struct sha1 *h, char hex[SHA1_HEX_BYTES])
{
    static const unsigned char pad[64] = {0x80};
    unsigned char length[8];
    size_t held = (size_t)(h->n_bytes % 64);
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(h->n_bytes * 8 >> (56 - 8 * i));
    sha1_update(h, pad, held < 56 ? 56 - held : 120 - held);
    sha1_update(h, length, 8);
    for (int i = 0; i < 5; i++)
        snprintf(hex + 8 * i, 9, "%08x", h->state[i]);
}

void sha1_buffer(const void *data, size_t n_bytes, char hex[SHA1_HEX_BYTES])
{
    struct sha1 h;
    sha1_init(&h);
    sha1_update(&h, data, n_bytes);
    sha1_hex(&h, hex);
}

void sha1_init_blob(struct sha1 *h, int64_t n_bytes)
{
    char head[32];
    int n = snprintf(head, sizeof head, "blob %lld", (long long)n_bytes);
    sha1_init(h);
    sha1_update(h, head, (size_t)n + 1);
}

enum status sha1_file_blob(const char *path, char hex[SHA1_HEX_BYTES], struct err *err)
{
    struct file_map map;
    struct sha1 h;
    TRY(file_map(&map, path, err));
    sha1_init_blob(&h, (int64_t)map.n_bytes);
    sha1_update(&h, map.data, map.n_bytes);
    sha1_hex(&h, hex);
    file_unmap(&map);
    return ST_OK;
}
