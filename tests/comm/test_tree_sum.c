/* The tree's arithmetic: any number of ranks, played one after the other in one process, gives the bits of a
 * plain recursion. */
#include "comm/tree_sum.h"
#include "tree_internal.h"
#include "util/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_LEAVES 70
#define MAX_VALUES 2500

static float leaf_value(int leaf, int64_t i)
{
    /* Magnitudes so far apart that nearly every other order rounds otherwise. */
    double u = rng_uniform(11, RNG_TEST, (uint32_t)leaf, (uint64_t)i) - 0.5;
    return (float)(u * (leaf % 3 == 0 ? 1e4 : leaf % 3 == 1 ? 1.0 : 1e-3));
}

/* The documented tree, written as it is documented. */
static float plain(int lo, int hi, int64_t i)
{
    if (hi - lo == 1)
        return leaf_value(lo, i);
    int power = 1;
    while (power * 2 < hi - lo)
        power *= 2;
    return plain(lo, lo + power, i) + plain(lo + power, hi, i);
}

static void test_ranges(void **state)
{
    for (int s = 1; s < 40; s++)
        for (int w = 1; w <= s; w++) {
            int at = 0, least = s, most = 0;
            for (int r = 0; r < w; r++) {
                int first, end;
                tree_sum_range(s, w, r, &first, &end);
                assert_int_equal(first, at);
                at = end;
                least = end - first < least ? end - first : least;
                most = end - first > most ? end - first : most;
            }
            assert_int_equal(at, s);
            assert_true(most - least <= 1);
        }
}

static void test_slices(void **state)
{
    static const int64_t sizes[] = {0, 1, 63, 64, 65, 1000, 4096, 100001};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int w = 1; w < 20; w++) {
            int64_t at = 0;
            for (int r = 0; r < w; r++) {
                int64_t first, end;
                tree__slice(sizes[k], w, r, &first, &end);
                assert_int_equal(first, at);
                assert_true(end >= first);
                assert_true(first % 64 == 0 || first == sizes[k]);
                at = end;
            }
            assert_int_equal(at, sizes[k]);
        }
}

/* Whole nodes of all ranks as tree_sum keeps them, then the rest of the tree on each rank's slice. */
static void play(int n_leaves, int w, int64_t n, float *total)
{
    struct operands all;
    struct err err = ERR_INIT;
    assert_int_equal(tree__all(&all, n_leaves, w, &err), ST_OK);
    float *nodes = calloc((size_t)all.n * (size_t)n, sizeof *nodes);
    assert_non_null(nodes);
    int k = 0;
    for (int r = 0; r < w; r++) {
        struct operands own;
        assert_int_equal(tree__own(&own, n_leaves, w, r, &err), ST_OK);
        int first, end;
        tree_sum_range(n_leaves, w, r, &first, &end);
        assert_int_equal(own.n, end - first);
        assert_true(tree__height(&own) <= 2 * 7 + 1);
        int top = 0;
        float *stack = calloc((size_t)tree__height(&own) * (size_t)n, sizeof *stack);
        assert_non_null(stack);
        for (int l = 0; l < own.n; l++) {
            assert_int_equal(own.items[l].first, first + l);
            for (int64_t i = 0; i < n; i++)
                stack[top * n + i] = leaf_value(first + l, i);
            top++;
            for (int a = 0; a < own.items[l].n_adds; a++, top--)
                for (int64_t i = 0; i < n; i++)
                    stack[(top - 2) * n + i] += stack[(top - 1) * n + i];
        }
        for (int node = 0; node < top; node++, k++) {
            assert_int_equal(all.items[k].owner, r);
            memcpy(nodes + k * n, stack + node * n, (size_t)n * sizeof *nodes);
        }
        free(stack);
        tree__release(&own);
    }
    assert_int_equal(k, all.n);
    const float **parts = calloc((size_t)all.n, sizeof *parts);
    assert_non_null(parts);
    for (int r = 0; r < w; r++) {
        int64_t first, end;
        tree__slice(n, w, r, &first, &end);
        for (int o = 0; o < all.n; o++)
            parts[o] = nodes + o * n + first;
        tree__combine(&all, parts, end - first, total + first);
    }
    free(parts);
    free(nodes);
    tree__release(&all);
}

static void test_every_world(void **state)
{
    static const int leaves[] = {1, 2, 3, 5, 7, 8, 11, 16, 33, 64, 70};
    const int64_t n = 130;
    float *total = malloc((size_t)n * sizeof *total);
    assert_non_null(total);
    for (size_t k = 0; k < sizeof leaves / sizeof leaves[0]; k++)
        for (int w = 1; w <= leaves[k]; w = w < 9 ? w + 1 : w * 2 - 3) {
            play(leaves[k], w, n, total);
            for (int64_t i = 0; i < n; i++) {
                float expected = plain(0, leaves[k], i);
                if (memcmp(&expected, &total[i], sizeof expected) != 0)
                    fail_msg("%d leaves on %d ranks: value %d is %.9g, plain tree %.9g", leaves[k], w, (int)i,
                             (double)total[i], (double)expected);
            }
        }
    free(total);
}

/* The numbers are chosen so that the order matters: else the test above would show nothing. */
static void test_order_matters(void **state)
{
    int differ = 0;
    for (int64_t i = 0; i < 130; i++) {
        float in_order = 0;
        for (int l = 0; l < 11; l++)
            in_order += leaf_value(l, i);
        differ += in_order != plain(0, 11, i);
    }
    assert_true(differ > 20);
}

/* Vectors of a device's own, which counts its calls. */
struct counted {
    int n_zeroed, n_added;
};
static void counted_zero(const void *of, float *x, int64_t n)
{
    struct counted *counted = (struct counted *)(uintptr_t)of;
    counted->n_zeroed++;
    memset(x, 0, (size_t)n * sizeof *x);
}
static void counted_add(const void *of, float *dst, const float *src, int64_t n)
{
    struct counted *counted = (struct counted *)(uintptr_t)of;
    counted->n_added++;
    for (int64_t i = 0; i < n; i++)
        dst[i] += src[i];
}

static void test_one_rank(void **state)
{
    struct comm c;
    struct err err = ERR_INIT;
    struct tree_sum *ts;
    assert_int_equal(comm_open_self(&c, &err), ST_OK);
    assert_int_equal(tree_sum_open(&ts, &c, MAX_VALUES, 13, &err), ST_OK);
    float *total = malloc(2 * MAX_VALUES * sizeof *total);
    assert_non_null(total);
    /* Shorter, as long, longer than there was room for, and shorter again. */
    static const int64_t sizes[] = {MAX_VALUES, MAX_VALUES / 3, MAX_VALUES, 2 * MAX_VALUES, 5};
    for (int round = 0; round < 5; round++) {
        const int64_t n = sizes[round];
        assert_int_equal(tree_sum_resize(ts, n, &err), ST_OK);
        struct counted counted = {0};
        if (round >= 2)
            tree_sum_use(ts, &(struct tree_vectors){counted_zero, counted_add, &counted});
        for (int l = 0; l < 13; l++) {
            float *leaf = tree_sum_leaf(ts);
            assert_non_null(leaf);
            for (int64_t i = 0; i < n; i++) {
                assert_true(leaf[i] == 0);
                leaf[i] += leaf_value(l, i);
            }
            struct err early = ERR_INIT;
            if (l == 5)
                assert_int_equal(tree_sum_finish(ts, &c, total, &early), ST_DEFECT);
            tree_sum_push(ts);
        }
        assert_null(tree_sum_leaf(ts));
        assert_int_equal(counted.n_zeroed, round >= 2 ? 13 : 0);
        assert_int_equal(counted.n_added, round >= 2 ? 12 : 0);
        assert_int_equal(tree_sum_finish(ts, &c, total, &err), ST_OK);
        float *place = tree_sum_place(ts);
        assert_non_null(place);
        for (int64_t i = 0; i < n; i++)
            assert_true(total[i] == plain(0, 13, i));
        assert_int_equal(tree_sum_finish(ts, &c, place, &err), ST_OK);
        assert_memory_equal(place, total, (size_t)n * sizeof *total);
    }
    struct err memory = ERR_INIT, negative = ERR_INIT;
    assert_int_equal(tree_sum_resize(ts, INT64_MAX / 2, &memory), ST_ENV);
    assert_int_equal(tree_sum_resize(ts, -1, &negative), ST_DEFECT);
    assert_non_null(tree_sum_leaf(ts)); /* still good */
    assert_int_equal(tree_sum_bytes_sent(ts), 0);
    free(total);
    tree_sum_close(ts);
    comm_close(&c);
}

static void test_doubles(void **state)
{
    struct comm c;
    struct err err = ERR_INIT;
    assert_int_equal(comm_open_self(&c, &err), ST_OK);
    const double values[] = {1e16, 1.0, -1e16, 1.0, 3.0};
    double total = 0;
    assert_int_equal(tree_sum_doubles(&c, values, 5, 1, &total, &err), ST_OK);
    assert_true(total == ((1e16 + 1.0) + (-1e16 + 1.0)) + 3.0);
    const double pairs[] = {1, 10, 2, 20, 3, 30};
    double both[2];
    assert_int_equal(tree_sum_doubles(&c, pairs, 3, 2, both, &err), ST_OK);
    assert_true(both[0] == 6 && both[1] == 60);
    comm_close(&c);
}

static void test_refused(void **state)
{
    struct comm c;
    struct err err = ERR_INIT;
    struct tree_sum *ts;
    assert_int_equal(comm_open_self(&c, &err), ST_OK);
    c.world_size = 9;
    assert_int_equal(tree_sum_open(&ts, &c, 10, 8, &err), ST_USAGE);
    assert_null(ts);
    assert_non_null(strstr(err.what, "9 ranks"));
    assert_non_null(strstr(err.hint, "virtual_shards to 9"));
    c.world_size = 1;
    struct err memory = ERR_INIT;
    assert_int_equal(tree_sum_open(&ts, &c, INT64_MAX / 2, 8, &memory), ST_ENV);
    comm_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),      cmocka_unit_test(test_slices),
        cmocka_unit_test(test_every_world), cmocka_unit_test(test_order_matters),
        cmocka_unit_test(test_one_rank),    cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
