/* Random numbers as pure functions of (seed, stream, index): no state to save, any order of evaluation,
 * equal on every rank. Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
 * mt19937 is here because torch and Python draw their permutations with it. */
#ifndef SMGPT_UTIL_RNG_H
#define SMGPT_UTIL_RNG_H

#include <stdint.h>

/* Streams in use; one number a purpose, so that no two purposes share numbers. */
enum rng_stream {
    RNG_LORA_A = 1,
    RNG_NEW_ROWS,
    RNG_STAGE2_TASK,
    RNG_DENOISE,
    RNG_SAMPLER,
    RNG_INIT_MODEL,
    RNG_TEST,
    RNG_BACKOFF
};

void rng_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);
/* 64 bits; sub is free for a second index (a row, a tensor). */
uint64_t rng_u64(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index);
double rng_uniform(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index); /* [0, 1), 53 bits */
double rng_normal(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index);  /* Box-Muller */

/* Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), init_genrand seeding. */
struct mt19937 {
    uint32_t state[624];
    int at;
};
void mt19937_init(struct mt19937 *mt, uint32_t seed);
uint32_t mt19937_u32(struct mt19937 *mt);

#endif
