/* Steps and orders against torch.randperm and the rules of Hugging Face's Trainer. */
#include "data/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void plan_of(struct plan *p, int64_t n, int32_t batch, int32_t accum, uint64_t seed, bool shuffle,
                    double epochs, int64_t max_steps)
{
    struct err err = ERR_INIT;
    if (plan_init(p, n, batch, accum, seed, shuffle, epochs, max_steps, &err) != ST_OK)
        fail_msg("%s", err.what);
}

static int32_t step_of(struct plan *p, int64_t step, int64_t *rows)
{
    struct err err = ERR_INIT;
    int32_t n;
    if (plan_step(p, step, rows, &n, &err) != ST_OK)
        fail_msg("%s", err.what);
    return n;
}

static void orders_are_torchs(void **unused)
{
    static const struct {
        uint64_t seed;
        int64_t n, want[10];
    } cases[] = {{42, 10, {2, 6, 1, 8, 4, 5, 0, 9, 3, 7}},
                 {43, 10, {8, 4, 9, 0, 5, 1, 6, 7, 2, 3}},
                 {0, 7, {4, 0, 5, 3, 2, 6, 1}},
                 {4294967338u, 10, {2, 6, 1, 8, 4, 5, 0, 9, 3, 7}}}; /* the low 32 bits count */
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct plan p;
        int64_t rows[16];
        plan_of(&p, cases[c].n, 4, 4, cases[c].seed, true, 1, 0);
        assert_int_equal(step_of(&p, 0, rows), cases[c].n);
        assert_memory_equal(rows, cases[c].want, (size_t)cases[c].n * sizeof *rows);
        plan_release(&p);
    }
}

/* Epoch e is seeded seed + e; the whole of a long order by its digest. */
static void each_epoch_has_its_order(void **unused)
{
    struct plan p;
    int64_t rows[64];
    plan_of(&p, 10, 3, 2, 42, true, 2, 0);
    assert_int_equal(p.steps_per_epoch, 2);
    assert_int_equal(p.max_steps, 4);
    static const int64_t first[] = {2, 6, 1, 8, 4, 5}, rest[] = {0, 9, 3, 7}, second[] = {8, 4, 9, 0, 5, 1};
    assert_int_equal(step_of(&p, 0, rows), 6);
    assert_memory_equal(rows, first, sizeof first);
    assert_int_equal(step_of(&p, 1, rows), 4); /* the epoch's ragged end is a step of its own */
    assert_memory_equal(rows, rest, sizeof rest);
    assert_int_equal(step_of(&p, 2, rows), 6);
    assert_memory_equal(rows, second, sizeof second);
    assert_int_equal(step_of(&p, 0, rows), 6); /* steps can be asked for in any order */
    assert_memory_equal(rows, first, sizeof first);
    plan_release(&p);

    uint64_t digest = 0;
    plan_of(&p, 7290, 8, 8, 42, true, 3, 0);
    for (int64_t s = 0; s < p.steps_per_epoch; s++) {
        int32_t n = step_of(&p, s, rows);
        for (int32_t i = 0; i < n; i++)
            digest = digest * 1000003 + (uint64_t)rows[i];
    }
    assert_true(digest == 10302976496363485839u);
    plan_release(&p);

    digest = 0;
    plan_of(&p, 1000, 8, 8, 42, true, 4, 0);
    for (int64_t s = 3 * p.steps_per_epoch; s < p.max_steps; s++) { /* epoch 3: seed 45 */
        int32_t n = step_of(&p, s, rows);
        for (int32_t i = 0; i < n; i++)
            digest = digest * 1000003 + (uint64_t)rows[i];
    }
    assert_true(digest == 5265948862201104564u);
    plan_release(&p);
}

static void counts_follow_the_trainer(void **unused)
{
    static const struct {
        int64_t n;
        int32_t batch, accum;
        double epochs;
        int64_t max_steps, want_per_epoch, want_max;
    } cases[] = {{201, 4, 2, 1, 0, 26, 26},   {201, 4, 2, 1.2, 0, 26, 32}, {201, 4, 2, 3, 30, 26, 30},
                 {1, 8, 8, 3, 0, 1, 3},       {64, 8, 8, 0.5, 0, 1, 1},    {65, 8, 8, 0.5, 0, 2, 1},
                 {7290, 8, 8, 3, 0, 114, 342}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct plan p;
        plan_of(&p, cases[c].n, cases[c].batch, cases[c].accum, 1, false, cases[c].epochs,
                cases[c].max_steps);
        assert_int_equal(p.steps_per_epoch, cases[c].want_per_epoch);
        assert_int_equal(p.max_steps, cases[c].want_max);
    }
}

static void file_order_goes_round(void **unused)
{
    struct plan p;
    int64_t rows[8];
    plan_of(&p, 201, 4, 2, 9, false, 1, 30);
    assert_int_equal(step_of(&p, 24, rows), 8);
    assert_int_equal(rows[0], 192);
    assert_int_equal(step_of(&p, 25, rows), 1);
    assert_int_equal(rows[0], 200);
    assert_int_equal(step_of(&p, 26, rows), 8);
    assert_int_equal(rows[7], 7);
    /* 201 rows are 51 micro-batches */
    assert_true(plan_epoch(&p, 0) == 0);
    assert_true(plan_epoch(&p, 1) == 2.0 / 51);
    assert_true(plan_epoch(&p, 25) == 50.0 / 51);
    assert_true(plan_epoch(&p, 26) == 1);
    assert_true(plan_epoch(&p, 30) == 1 + 8.0 / 51);
    plan_release(&p);
}

static void bad_input_is_named(void **unused)
{
    static const struct {
        int64_t n;
        int32_t batch, accum;
        double epochs;
        int64_t max_steps;
        enum status status;
        const char *what;
    } cases[] = {
        {0, 1, 1, 1, 0, ST_INPUT, "no rows"},
        {INT64_C(1) << 40, 1, 1, 1, 0, ST_INPUT, "rows, must be below"},
        {10, 0, 1, 1, 0, ST_USAGE, "batch_train is 0"},
        {10, 1, -1, 1, 0, ST_USAGE, "grad_accum is -1"},
        {10, 1 << 20, 1 << 20, 1, 0, ST_USAGE, "is more than"},
        {10, 1, 1, 0, 0, ST_USAGE, "epochs is 0"},
        {10, 1, 1, __builtin_nan(""), 0, ST_USAGE, "epochs is"},
        {10, 1, 1, 1e300, 0, ST_USAGE, "too many"},
        {10, 1, 1, 1, -5, ST_USAGE, "max_steps is -5"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct plan p;
        struct err err = ERR_INIT;
        assert_int_equal(plan_init(&p, cases[c].n, cases[c].batch, cases[c].accum, 1, true, cases[c].epochs,
                                   cases[c].max_steps, &err),
                         cases[c].status);
        if (!strstr(err.what, cases[c].what))
            fail_msg("\"%s\" lacks \"%s\"", err.what, cases[c].what);
        plan_release(&p);
    }
    struct plan p;
    struct err err = ERR_INIT;
    int64_t rows[1];
    int32_t n;
    plan_of(&p, 3, 1, 1, 1, true, 1, 0);
    assert_int_equal(plan_step(&p, 3, rows, &n, &err), ST_DEFECT);
    plan_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_are_torchs),         cmocka_unit_test(each_epoch_has_its_order),
        cmocka_unit_test(counts_follow_the_trainer), cmocka_unit_test(file_order_goes_round),
        cmocka_unit_test(bad_input_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
