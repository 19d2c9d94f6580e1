/* The sum over virtual shards has the same bits on every rank and for every number of ranks. */
#include "comm/comm.h"
#include "comm/tree_sum.h"
#include "util/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct comm comm;

static float leaf_value(int leaf, int64_t i)
{
    double u = rng_uniform(23, RNG_TEST, (uint32_t)leaf, (uint64_t)i) - 0.5;
    return (float)(u * (leaf % 2 ? 1e3 : 1.0));
}

static float plain(int lo, int hi, int64_t i)
{
    if (hi - lo == 1)
        return leaf_value(lo, i);
    int power = 1;
    while (power * 2 < hi - lo)
        power *= 2;
    return plain(lo, lo + power, i) + plain(lo + power, hi, i);
}

static void sum_once(struct tree_sum *ts, int n_leaves, int64_t n, float *total)
{
    struct err err = ERR_INIT;
    int first, end;
    tree_sum_range(n_leaves, comm.world_size, comm.rank, &first, &end);
    tree_sum_reset(ts);
    for (int l = first; l < end; l++) {
        float *leaf = tree_sum_leaf(ts);
        assert_non_null(leaf);
        for (int64_t i = 0; i < n; i++)
            leaf[i] += leaf_value(l, i);
        tree_sum_push(ts);
    }
    assert_int_equal(tree_sum_finish(ts, &comm, total, &err), ST_OK);
    for (int64_t i = 0; i < n; i++) {
        float expected = plain(0, n_leaves, i);
        if (memcmp(&expected, &total[i], sizeof expected) != 0)
            fail_msg("%d leaves, %d values: value %d is %.9g, plain tree %.9g", n_leaves, (int)n, (int)i,
                     (double)total[i], (double)expected);
    }
}

static void test_vectors(void **state)
{
    static const int leaves[] = {4, 5, 7, 8, 13};
    static const int64_t sizes[] = {0, 1, 64, 65, 1000, 70001};
    for (size_t k = 0; k < sizeof leaves / sizeof leaves[0]; k++)
        for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
            struct tree_sum *ts;
            struct err err = ERR_INIT;
            float *total = malloc((size_t)(sizes[j] + 1) * sizeof *total);
            assert_non_null(total);
            assert_int_equal(tree_sum_open(&ts, &comm, sizes[j], leaves[k], &err), ST_OK);
            sum_once(ts, leaves[k], sizes[j], total);
            sum_once(ts, leaves[k], sizes[j], total);
            tree_sum_close(ts);
            free(total);
        }
}

/* A whole vector out in slices and one slice back to each: the volume that the header promises. */
static void test_volume(void **state)
{
    const int64_t n = 64 * 64;
    if (8 % comm.world_size != 0)
        skip(); /* then a rank has several whole nodes */
    struct tree_sum *ts;
    struct err err = ERR_INIT;
    float *total = malloc((size_t)n * sizeof *total);
    assert_non_null(total);
    assert_int_equal(tree_sum_open(&ts, &comm, n, 8, &err), ST_OK);
    sum_once(ts, 8, n, total);
    int64_t w = comm.world_size;
    assert_int_equal(tree_sum_bytes_sent(ts), 2 * (w - 1) * n / w * (int64_t)sizeof(float));
    tree_sum_close(ts);
    free(total);
}

static void test_doubles(void **state)
{
    enum { LEAVES = 7, EACH = 3 };
    double mine[LEAVES * EACH], total[EACH];
    struct err err = ERR_INIT;
    int first, end;
    tree_sum_range(LEAVES, comm.world_size, comm.rank, &first, &end);
    for (int l = first; l < end; l++)
        for (int j = 0; j < EACH; j++)
            mine[(l - first) * EACH + j] = l == 0 ? 1e17 : l == 4 ? -1e17 : 0.1 * l + j;
    assert_int_equal(tree_sum_doubles(&comm, mine, LEAVES, EACH, total, &err), ST_OK);
    for (int j = 0; j < EACH; j++) {
        double v[LEAVES];
        for (int l = 0; l < LEAVES; l++)
            v[l] = l == 0 ? 1e17 : l == 4 ? -1e17 : 0.1 * l + j;
        assert_true(total[j] == ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + v[6]));
    }
}

static void test_too_many_ranks(void **state)
{
    struct tree_sum *ts;
    struct err err = ERR_INIT;
    enum status st = tree_sum_open(&ts, &comm, 10, comm.world_size - 1, &err);
    assert_int_equal(st, ST_USAGE);
    assert_null(ts);
}

int main(void)
{
    struct err err = ERR_INIT;
    if (comm_open(&comm, "auto", &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.what);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_volume),
        cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_too_many_ranks),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&comm);
    return failed;
}
