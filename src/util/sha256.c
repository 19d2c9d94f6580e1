#include "util/sha256.h"
#include "util/file.h"
#include "util_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* FIPS 180-4 section 4.2.2: first 32 bits of the fractions of the cube roots of the first 64 primes. */
const uint32_t util__sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static uint32_t load_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Section 6.2.2. Instead of moving a..h down by one each round, the names move: in round t the letter number
 * k is s[(k - t) mod 8], and the new a takes the place of the old h. Unrolled, all places are registers. */
static void compress_plain(uint32_t state[8], const unsigned char *block)
{
    uint32_t w[64], s[8];
    for (int t = 0; t < 16; t++)
        w[t] = load_be32(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3;
        uint32_t s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = s1 + w[t - 7] + s0 + w[t - 16];
    }
    memcpy(s, state, sizeof s);
#pragma GCC unroll 64
    for (unsigned t = 0; t < 64; t++) {
        uint32_t a = s[(0 - t) & 7], b = s[(1 - t) & 7], c = s[(2 - t) & 7];
        uint32_t e = s[(4 - t) & 7], f = s[(5 - t) & 7], g = s[(6 - t) & 7];
        uint32_t big1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        uint32_t t1 = s[(7 - t) & 7] + big1 + ((e & f) ^ (~e & g)) + util__sha256_k[t] + w[t];
        uint32_t big0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        s[(3 - t) & 7] += t1;
        s[(7 - t) & 7] = t1 + big0 + ((a & b) ^ (a & c) ^ (b & c));
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

void util__sha256_blocks_plain(uint32_t state[8], const unsigned char *data, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++)
        compress_plain(state, data + 64 * i);
}

static void compress(uint32_t state[8], const unsigned char *data, size_t n_blocks)
{
    if (util__sha256_has_ni())
        util__sha256_blocks_ni(state, data, n_blocks);
    else
        util__sha256_blocks_plain(state, data, n_blocks);
}

void sha256_init(struct sha256 *h)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(h->state, start, sizeof start);
    h->n_bytes = 0;
}

void sha256_update(struct sha256 *h, const void *data, size_t n_bytes)
{
    const unsigned char *p = data;
    size_t held = (size_t)(h->n_bytes % 64);
    h->n_bytes += n_bytes;
    if (held > 0) {
        size_t n = n_bytes < 64 - held ? n_bytes : 64 - held;
        if (n > 0)
            memcpy(h->block + held, p, n);
        p += n;
        n_bytes -= n;
        if (held + n < 64)
            return;
        compress(h->state, h->block, 1);
    }
    if (n_bytes >= 64)
        compress(h->state, p, n_bytes / 64);
    if (n_bytes % 64 > 0)
        memcpy(h->block, p + n_bytes / 64 * 64, n_bytes % 64);
}

void sha256_final(struct sha256 *h, unsigned char digest[32])
{
    uint64_t n_bits = h->n_bytes * 8;
    unsigned char tail[72] = {0x80};
    size_t held = (size_t)(h->n_bytes % 64);
    size_t n_pad = held < 56 ? 56 - held : 120 - held;
    for (int i = 0; i < 8; i++)
        tail[n_pad + (size_t)i] = (unsigned char)(n_bits >> (56 - 8 * i));
    sha256_update(h, tail, n_pad + 8);
    for (int i = 0; i < 32; i++)
        digest[i] = (unsigned char)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_hex(struct sha256 *h, char hex[SHA256_HEX_BYTES])
{
    unsigned char digest[32];
    sha256_final(h, digest);
    for (int i = 0; i < 32; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[64] = '\0';
}

void sha256_buffer(const void *data, size_t n_bytes, char hex[SHA256_HEX_BYTES])
{
    struct sha256 h;
    sha256_init(&h);
    sha256_update(&h, data, n_bytes);
    sha256_hex(&h, hex);
}

void sha256_two(const void *a, const void *b, size_t n_bytes, unsigned char digest_a[32],
                unsigned char digest_b[32])
{
    struct sha256 x, y;
    const unsigned char *p = a, *q = b;
    const size_t n_whole = n_bytes / 64 * 64;
    sha256_init(&x);
    sha256_init(&y);
    if (n_whole > 0 && util__sha256_has_ni()) {
        util__sha256_two_blocks_ni(x.state, y.state, p, q, n_whole / 64);
        x.n_bytes = y.n_bytes = n_whole;
    }
    sha256_update(&x, p + x.n_bytes, n_bytes - (size_t)x.n_bytes);
    sha256_update(&y, q + y.n_bytes, n_bytes - (size_t)y.n_bytes);
    sha256_final(&x, digest_a);
    sha256_final(&y, digest_b);
}

enum status sha256_file(const char *path, char hex[SHA256_HEX_BYTES], struct err *err)
{
    int64_t n_bytes;
    TRY(file_size(path, &n_bytes, err));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ST_INPUT, "cannot open \"%s\"", path);
    struct sha256 h;
    sha256_init(&h);
    enum status status = ST_OK;
    unsigned char chunk[65536];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = err_errno(err, ST_ENV, "cannot read \"%s\"", path);
        if (n <= 0)
            break;
        sha256_update(&h, chunk, (size_t)n);
    }
    close(fd);
    if (status == ST_OK)
        sha256_hex(&h, hex);
    return status;
}
