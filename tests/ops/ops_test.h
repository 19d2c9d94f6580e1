/* Helpers of the tests of operations: guarded arrays, random values, devices of all paths. */
#ifndef SMGPT_TESTS_OPS_TEST_H
#define SMGPT_TESTS_OPS_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "ops/ops.h"
#include "util/rng.h"

enum { GUARD = 64 }; /* elements in front of and behind each array */
static const float GUARD_VALUE = -1.2345e30f;

/* n floats between guards; release with guarded_free, which checks them. */
static inline float *guarded(int64_t n)
{
    float *base = malloc((size_t)(n + 2 * GUARD) * sizeof *base);
    assert_non_null(base);
    for (int64_t i = 0; i < n + 2 * GUARD; i++)
        base[i] = GUARD_VALUE;
    return base + GUARD;
}
static inline void guarded_free(float *p, int64_t n, const char *what)
{
    for (int64_t i = -GUARD; i < n + GUARD; i++)
        if ((i < 0 || i >= n) && p[i] != GUARD_VALUE)
            fail_msg("%s: element %lld of %lld was written", what, (long long)i, (long long)n);
    free(p - GUARD);
}

static uint64_t test_draws; /* every array of a program gets its own numbers */

static inline float *random_floats(int64_t n, double size)
{
    float *p = guarded(n);
    uint64_t seed = ++test_draws;
    for (int64_t i = 0; i < n; i++)
        p[i] = (float)(size * rng_normal(seed, RNG_TEST, 0, (uint64_t)i));
    return p;
}
static inline float *copy_floats(const float *from, int64_t n)
{
    float *p = guarded(n);
    memcpy(p, from, (size_t)n * sizeof *p);
    return p;
}
/* In [low, high]. */
static inline int64_t random_int(int64_t low, int64_t high)
{
    return low + (int64_t)(rng_u64(77, RNG_TEST, 1, ++test_draws) % (uint64_t)(high - low + 1));
}

/* |a - b| <= tolerance * (|b| + root mean square of b, or 0.5 where that is less), each element: the terms of
 * the sums that are tested are about 1 in size. */
static inline void assert_close(const char *what, const float *a, const float *b, int64_t n, double tolerance)
{
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += (double)b[i] * (double)b[i];
    double size = n > 0 ? fmax(sqrt(squares / (double)n), 0.5) : 0;
    for (int64_t i = 0; i < n; i++) {
        double limit = tolerance * (size + fabs((double)b[i]));
        if (!(fabs((double)a[i] - (double)b[i]) <= limit))
            fail_msg("%s: element %lld of %lld is %.9g, not %.9g (limit %.3g)", what, (long long)i,
                     (long long)n, (double)a[i], (double)b[i], limit);
    }
}
static inline void assert_same_bits(const char *what, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s: element %lld of %lld is %.9g and %.9g", what, (long long)i, (long long)n,
                     (double)a[i], (double)b[i]);
}

static const char *const test_paths[] = {"avx512", "avx2", "baseline"};
enum { N_TEST_PATHS = sizeof test_paths / sizeof test_paths[0] };

/* NULL when the processor has not got the path. */
static inline struct device *device_of(const struct ops *ops, const char *path, int n_threads,
                                       enum compute compute)
{
    struct device_options options = {.n_threads = n_threads, .cpu_path = path, .compute = compute};
    struct err err = ERR_INIT;
    struct device *dev = NULL;
    enum status status = ops->open(&dev, &options, &err);
    if (status == ST_ENV)
        return NULL;
    if (status != ST_OK)
        fail_msg("open: %s", err.what);
    return dev;
}

#endif
