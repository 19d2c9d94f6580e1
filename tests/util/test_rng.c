#include "util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Known answers that the authors of Random123 publish for philox4x32 with ten rounds. */
static void philox_known_answers(void **unused)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        rng_philox(known[i].key, known[i].counter, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void every_argument_counts(void **unused)
{
    uint64_t base = rng_u64(1, 2, 3, 4);
    assert_true(base == rng_u64(1, 2, 3, 4));
    assert_true(base != rng_u64(2, 2, 3, 4));
    assert_true(base != rng_u64(1 + ((uint64_t)1 << 32), 2, 3, 4));
    assert_true(base != rng_u64(1, 3, 3, 4));
    assert_true(base != rng_u64(1, 2, 4, 4));
    assert_true(base != rng_u64(1, 2, 3, 5));
    assert_true(base != rng_u64(1, 2, 3, 4 + ((uint64_t)1 << 32)));
    assert_true(rng_u64(0, 0, 0, 0) == 0xe169c58d6627e8d5u);
}

static void uniform_is_uniform(void **unused)
{
    enum { N = 200000 };
    double sum = 0, squares = 0, low = 1, high = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_uniform(42, RNG_TEST, 0, i);
        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
        low = fmin(low, u);
        high = fmax(high, u);
    }
    /* Five standard errors. */
    assert_true(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(squares / N - 1.0 / 3) < 5 * sqrt(4.0 / 45 / N));
    assert_true(low < 1e-4 && high > 1 - 1e-4);
}

/* Against the C library's functions on the same numbers, and the first moments. */
static void normal_is_box_muller(void **unused)
{
    enum { N = 200000 };
    double sums[4] = {0};
    for (uint64_t i = 0; i < N; i++) {
        uint32_t key[2] = {7, 0}, counter[4] = {(uint32_t)i, 0, 5, RNG_TEST}, x[4];
        rng_philox(key, counter, x);
        double u = ((double)(((uint64_t)x[1] << 32 | x[0]) >> 11) + 1) * 0x1p-53;
        double v = (double)(((uint64_t)x[3] << 32 | x[2]) >> 11) * 0x1p-53;
        double want = sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v);
        double got = rng_normal(7, RNG_TEST, 5, i);
        assert_true(isfinite(got));
        assert_true(fabs(got - want) <= 1e-14 * (1 + fabs(want)));
        for (int k = 0; k < 4; k++)
            sums[k] += pow(got, k + 1);
    }
    assert_true(fabs(sums[0] / N) < 5 * sqrt(1.0 / N));
    assert_true(fabs(sums[1] / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(sums[2] / N) < 5 * sqrt(15.0 / N));
    assert_true(fabs(sums[3] / N - 3) < 5 * sqrt(96.0 / N));
}

static void mersenne_twister(void **unused)
{
    static const uint32_t first[] = {3499211612u, 581869302u, 3890346734u, 3586334585u, 545404204u};
    struct mt19937 mt;
    mt19937_init(&mt, 5489);
    for (int i = 0; i < 5; i++)
        assert_int_equal(mt19937_u32(&mt), first[i]);
    for (int i = 5; i < 9999; i++)
        mt19937_u32(&mt);
    /* The C++ standard fixes the 10000th number of the default seed. */
    assert_int_equal(mt19937_u32(&mt), 4123659995u);
    mt19937_init(&mt, 1);
    assert_int_equal(mt19937_u32(&mt), 1791095845u);
    assert_int_equal(mt19937_u32(&mt), 4282876139u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers), cmocka_unit_test(every_argument_counts),
        cmocka_unit_test(uniform_is_uniform),   cmocka_unit_test(normal_is_box_muller),
        cmocka_unit_test(mersenne_twister),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
