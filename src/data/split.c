/* The division into training and evaluation rows that datasets.train_test_split makes: a permutation by
 * numpy's default_rng, which is PCG64 (O'Neill 2014) seeded through SeedSequence. */
#include "data/examples.h"
#include <math.h>
#include <stdlib.h>

__extension__ typedef unsigned __int128 u128;

struct pcg64 {
    u128 state, inc;
    uint32_t high; /* upper half of the last draw, kept for the next call */
    bool has_high;
};

/* SeedSequence's running hash constant, multiplied at each use. */
static uint32_t hash_mix(uint32_t value, uint32_t *constant)
{
    value ^= *constant;
    *constant *= 0x931e8875u;
    value *= *constant;
    return value ^ (value >> 16);
}

static uint32_t pool_mix(uint32_t x, uint32_t y)
{
    uint32_t r = 0xca01f9ddu * x - 0x4973f715u * y;
    return r ^ (r >> 16);
}

/* Four 64-bit words from a seed of at most 64 bits. */
static void seed_sequence(uint64_t seed, uint64_t words[4])
{
    uint32_t entropy[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), 0, 0};
    uint32_t pool[4], constant = 0x43b0d7e5u, out[8];
    for (int i = 0; i < 4; i++)
        pool[i] = hash_mix(entropy[i], &constant);
    for (int from = 0; from < 4; from++) {
        for (int to = 0; to < 4; to++) {
            if (from != to)
                pool[to] = pool_mix(pool[to], hash_mix(pool[from], &constant));
        }
    }
    constant = 0x8b51f9ddu;
    for (int i = 0; i < 8; i++) {
        uint32_t value = pool[i % 4] ^ constant;
        constant *= 0x58f38dedu;
        value *= constant;
        out[i] = value ^ (value >> 16);
    }
    for (int i = 0; i < 4; i++)
        words[i] = out[2 * i] | (uint64_t)out[2 * i + 1] << 32;
}

static void pcg64_step(struct pcg64 *g)
{
    const u128 multiplier = (u128)2549297995355413924u << 64 | 4865540595714422341u;
    g->state = g->state * multiplier + g->inc;
}

static void pcg64_init(struct pcg64 *g, uint64_t seed)
{
    uint64_t w[4];
    seed_sequence(seed, w);
    *g = (struct pcg64){.inc = ((u128)w[2] << 64 | w[3]) << 1 | 1};
    pcg64_step(g);
    g->state += (u128)w[0] << 64 | w[1];
    pcg64_step(g);
}

static uint64_t pcg64_u64(struct pcg64 *g)
{
    pcg64_step(g);
    uint64_t x = (uint64_t)(g->state >> 64) ^ (uint64_t)g->state;
    unsigned turn = (unsigned)(g->state >> 122);
    return x >> turn | x << (-turn & 63);
}

static uint32_t pcg64_u32(struct pcg64 *g)
{
    if (g->has_high) {
        g->has_high = false;
        return g->high;
    }
    uint64_t x = pcg64_u64(g);
    g->high = (uint32_t)(x >> 32);
    g->has_high = true;
    return (uint32_t)x;
}

/* Uniform in [0, max]: draws under the smallest mask until one fits. */
static uint64_t pcg64_upto(struct pcg64 *g, uint64_t max)
{
    uint64_t mask = max, value;
    for (int shift = 1; shift < 64; shift *= 2)
        mask |= mask >> shift;
    do
        value = (max <= UINT32_MAX ? pcg64_u32(g) : pcg64_u64(g)) & mask;
    while (value > max);
    return value;
}

enum status split_make(int64_t n_rows, double test_size, uint64_t seed, int64_t **train, int64_t *n_train,
                       int64_t **test, int64_t *n_test, struct err *err)
{
    *train = *test = NULL;
    *n_train = *n_test = 0;
    if (n_rows < 1)
        return err_set(err, ST_INPUT, "no rows to split");
    if (!(test_size >= 0 && test_size < 1))
        return err_set(err, ST_USAGE, "split_test_size is %g, must be at least 0 and below 1", test_size);
    int64_t for_test = (int64_t)ceil(test_size * (double)n_rows);
    if (for_test >= n_rows)
        for_test = n_rows - 1;
    size_t n_bytes;
    if (!size_mul((size_t)n_rows, sizeof **train, &n_bytes))
        return err_set(err, ST_INPUT, "%lld rows are too many to split", (long long)n_rows);
    int64_t *order = malloc(n_bytes);
    *test = malloc(((size_t)for_test + 1) * sizeof **test);
    *train = malloc((size_t)(n_rows - for_test) * sizeof **train);
    if (!order || !*test || !*train) {
        free(order);
        free(*test);
        free(*train);
        *train = *test = NULL;
        return err_memory(err, "the split", 2 * n_bytes);
    }
    struct pcg64 g;
    pcg64_init(&g, seed);
    for (int64_t i = 0; i < n_rows; i++)
        order[i] = i;
    for (int64_t i = n_rows - 1; i > 0; i--) {
        int64_t j = (int64_t)pcg64_upto(&g, (uint64_t)i), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    for (int64_t i = 0; i < for_test; i++)
        (*test)[i] = order[i];
    for (int64_t i = for_test; i < n_rows; i++)
        (*train)[i - for_test] = order[i];
    free(order);
    *n_test = for_test;
    *n_train = n_rows - for_test;
    return ST_OK;
}
