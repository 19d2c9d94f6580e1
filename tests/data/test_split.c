/* The split against numbers that numpy's default_rng and datasets.train_test_split gave. */
#include "data/examples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct split {
    int64_t *train, *test, n_train, n_test;
};

static void split_of(struct split *s, int64_t n, double test_size, uint64_t seed)
{
    struct err err = ERR_INIT;
    if (split_make(n, test_size, seed, &s->train, &s->n_train, &s->test, &s->n_test, &err) != ST_OK)
        fail_msg("%s", err.what);
    assert_int_equal(s->n_train + s->n_test, n);
}

static void split_free(struct split *s)
{
    free(s->train);
    free(s->test);
}

/* The permutation: the test part, then the training part. */
static int64_t split_at(const struct split *s, int64_t i)
{
    return i < s->n_test ? s->test[i] : s->train[i - s->n_test];
}

static void short_permutations_are_numpys(void **unused)
{
    static const struct {
        uint64_t seed;
        int n;
        int want[20];
    } cases[] = {
        {0, 12, {9, 2, 7, 4, 5, 11, 0, 3, 6, 10, 8, 1}},
        {42, 10, {5, 6, 0, 7, 3, 2, 4, 9, 1, 8}},
        {42, 20, {15, 9, 14, 7, 12, 10, 6, 19, 3, 0, 16, 5, 11, 18, 2, 4, 17, 1, 13, 8}},
        {12345678901234u, 12, {5, 1, 0, 10, 11, 8, 3, 2, 9, 7, 6, 4}},
        {4294967296u, 9, {1, 3, 6, 7, 8, 0, 4, 2, 5}},
        {UINT64_MAX, 9, {8, 7, 3, 0, 4, 6, 1, 2, 5}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct split s;
        split_of(&s, cases[c].n, 0.25, cases[c].seed);
        for (int i = 0; i < cases[c].n; i++)
            assert_int_equal(split_at(&s, i), cases[c].want[i]);
        split_free(&s);
    }
}

static void long_permutations_are_numpys(void **unused)
{
    static const struct {
        uint64_t seed, digest; /* of all items: h = 1000003 h + item */
        int64_t n;
    } cases[] = {{42, 4215256001943429236u, 7364},
                 {7, 12244143847441824324u, 5000},
                 {42, 3588291593368028682u, 70001}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct split s;
        uint64_t digest = 0;
        split_of(&s, cases[c].n, 0.01, cases[c].seed);
        for (int64_t i = 0; i < cases[c].n; i++)
            digest = digest * 1000003 + (uint64_t)split_at(&s, i);
        assert_true(digest == cases[c].digest);
        split_free(&s);
    }
}

static void parts_are_those_of_datasets(void **unused)
{
    static const int64_t test[] = {120, 50, 54}, train[] = {46, 245, 135, 171, 3};
    struct split s;
    split_of(&s, 250, 0.01, 42);
    assert_int_equal(s.n_test, 3);
    assert_memory_equal(s.test, test, sizeof test);
    assert_memory_equal(s.train, train, sizeof train);
    split_free(&s);
}

static void sizes_round_up_and_leave_a_row(void **unused)
{
    static const struct {
        int64_t n;
        double test_size;
        int64_t n_test;
    } cases[] = {{99, 0.01, 1}, {100, 0.01, 1},       {101, 0.01, 2}, {7364, 0.3, 2210}, {7364, 0.01, 74},
                 {10, 0, 0},    {200000, 0.01, 2000}, {1, 0.01, 0},   {2, 0.9, 1},       {3, 0.01, 1}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct split s;
        split_of(&s, cases[c].n, cases[c].test_size, 1);
        assert_int_equal(s.n_test, cases[c].n_test);
        split_free(&s);
    }
}

static void bad_sizes_are_named(void **unused)
{
    static const double sizes[] = {1, -0.1, 2, __builtin_nan("")};
    struct split s;
    for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++) {
        struct err err = ERR_INIT;
        assert_int_equal(split_make(10, sizes[c], 1, &s.train, &s.n_train, &s.test, &s.n_test, &err),
                         ST_USAGE);
        assert_non_null(strstr(err.what, "split_test_size"));
        assert_null(s.train);
    }
    struct err err = ERR_INIT;
    assert_int_equal(split_make(0, 0.1, 1, &s.train, &s.n_train, &s.test, &s.n_test, &err), ST_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_permutations_are_numpys), cmocka_unit_test(long_permutations_are_numpys),
        cmocka_unit_test(parts_are_those_of_datasets),   cmocka_unit_test(sizes_round_up_and_leave_a_row),
        cmocka_unit_test(bad_sizes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
