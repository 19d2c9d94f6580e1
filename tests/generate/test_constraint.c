#include "generate/generate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (int32_t)(sizeof(a) / sizeof *(a))
#define N_CODES  8

static int32_t hello_codes[] = {1, 4, 7};
static char hello[] = "hello", bye[] = "bye";
static struct text_info infos[] = {
    {.text = bye, .median_len = 45, .codes = NULL, .n_codes = 0},
    {.text = hello, .median_len = 10, .codes = hello_codes, .n_codes = 3},
};
/* Ids far above the codes, so that the one can never pass for the other. */
static const struct motion_vocab vocab = {.base_vocab_size = 1000,
                                          .begin = 1000,
                                          .end = 1001,
                                          .motion_first = 1002,
                                          .n_codes = N_CODES,
                                          .vocab_size = 1014,
                                          .median_len = 21,
                                          .texts = infos,
                                          .n_texts = 2};

static void check_allowed(const struct constraint *c, const int32_t *expected, int32_t n)
{
    int32_t allowed[N_CODES + 1];
    assert_int_equal(constraint_allowed(c, allowed), n);
    assert_memory_equal(allowed, expected, (size_t)n * sizeof *expected);
}

static void test_lengths(void **state)
{
    static const struct {
        int32_t median, max_new, hard_min, soft, hard_max;
    } cases[] = {
        {1, 256, 1, 1, 5},         {2, 256, 1, 2, 5},
        {5, 256, 3, 5, 7},         {10, 256, 6, 10, 14},
        {16, 256, 9, 16, 22},      {45, 256, 27, 45, 62},
        {85, 256, 51, 85, 118},    {90, 256, 54, 90, 125},
        {165, 256, 99, 165, 230},  {0, 256, 9, 16, 22},
        {200, 256, 120, 200, 254}, {1000, 256, 254, 1000, 254},
        {10, 8, 6, 10, 6},         {10, 5, 3, 10, 3},
        {10, 3, 1, 10, 1},         {INT32_MAX, 256, 254, INT32_MAX, 254},
    };
    for (int32_t i = 0; i < COUNT(cases); i++) {
        struct motion_vocab v = {.n_codes = 4, .end = 1, .motion_first = 2, .median_len = cases[i].median};
        struct constraint c;
        constraint_init(&c, &v, "any", true, cases[i].max_new);
        if (c.hard_min != cases[i].hard_min || c.soft != cases[i].soft || c.hard_max != cases[i].hard_max)
            fail_msg("median %d, %d new: %d %d %d", cases[i].median, cases[i].max_new, c.hard_min, c.soft,
                     c.hard_max);
    }
}

static void test_text_gives_length_and_codes(void **state)
{
    struct constraint c;
    constraint_init(&c, &vocab, "hello", true, 256);
    assert_int_equal(c.soft, 10);
    assert_int_equal(c.n_codes, 3);
    constraint_init(&c, &vocab, "hello", false, 256);
    assert_int_equal(c.soft, 10);
    assert_int_equal(c.n_codes, N_CODES);
    constraint_init(&c, &vocab, "Hello", true, 256); /* unknown: exact texts only */
    assert_int_equal(c.soft, 21);
    assert_int_equal(c.n_codes, N_CODES);
    constraint_init(&c, &vocab, "bye", true, 256); /* known, without codes */
    assert_int_equal(c.soft, 45);
    assert_int_equal(c.n_codes, N_CODES);
}

static void test_walk(void **state)
{
    static const int32_t begin[] = {1000}, motion[] = {1003, 1006, 1009}, both[] = {1001, 1003, 1006, 1009},
                         end[] = {1001};
    struct constraint c;
    constraint_init(&c, &vocab, "hello", true, 256);
    check_allowed(&c, begin, 1);
    constraint_advance(&c, 1000);
    for (int32_t n = 0; n < 6; n++) {
        check_allowed(&c, motion, 3);
        constraint_advance(&c, motion[n % 3]);
    }
    for (int32_t n = 6; n < 14; n++) {
        check_allowed(&c, both, 4);
        constraint_advance(&c, 1009);
    }
    check_allowed(&c, end, 1);
    constraint_advance(&c, 1001);
    assert_int_equal(c.at, CONSTRAINT_DONE);
    check_allowed(&c, end, 1);
    assert_int_equal(c.n_motion, 14);
}

static void test_end_before_the_limit(void **state)
{
    static const int32_t end[] = {1001};
    struct constraint c;
    constraint_init(&c, &vocab, "hello", true, 256);
    constraint_advance(&c, 1000);
    for (int32_t n = 0; n < 6; n++)
        constraint_advance(&c, 1003);
    constraint_advance(&c, 1001);
    check_allowed(&c, end, 1);
}

static void test_end_bias(void **state)
{
    struct constraint c;
    constraint_init(&c, &vocab, "hello", true, 256);
    assert_true(constraint_end_bias(&c, 0.25) == 0);
    constraint_advance(&c, 1000);
    for (int32_t n = 0; n <= 14; n++) {
        assert_true(constraint_end_bias(&c, 0.25) == (n > 10 ? 0.25 * (n - 10) : 0));
        constraint_advance(&c, 1003);
    }
}

/* A vocabulary whose END lies behind the motion ids still gives rising ids. */
static void test_ids_rise(void **state)
{
    static const int32_t expected[] = {10, 11, 12, 40};
    struct motion_vocab v = {.begin = 41, .end = 40, .motion_first = 10, .n_codes = 3, .median_len = 1};
    struct constraint c;
    constraint_init(&c, &v, "", true, 100);
    constraint_advance(&c, 41);
    constraint_advance(&c, 12);
    check_allowed(&c, expected, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),  cmocka_unit_test(test_text_gives_length_and_codes),
        cmocka_unit_test(test_walk),     cmocka_unit_test(test_end_before_the_limit),
        cmocka_unit_test(test_end_bias), cmocka_unit_test(test_ids_rise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
