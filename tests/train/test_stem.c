/* How long a step's stem may be: what flows into it is summed and exchanged beside the gradient. */
#include "train_internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_bound(void **state)
{
    const struct arch a = {.n_layers = 28, .n_kv_heads = 8, .head_dim = 128};
    struct params p = {.n_values = 1000};
    /* 64 MiB, whatever is trained; then as much as is trained. */
    assert_int_equal(train__most_stem(&a, &p), (1 << 24) / (28 * 2 * 8 * 128));
    p.n_values = 100000000;
    assert_int_equal(train__most_stem(&a, &p), 100000000 / (28 * 2 * 8 * 128));
    const struct arch small = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 1};
    p.n_values = (int64_t)1 << 40;
    assert_int_equal(train__most_stem(&small, &p), INT32_MAX);
}

static void test_cut(void **state)
{
    enum { LENGTH = 100 };
    static int32_t ids[LENGTH], labels[LENGTH];
    for (int t = 0; t < LENGTH; t++)
        labels[t] = t < 80 ? -100 : 0;
    struct batch_row rows[2] = {{ids, labels, LENGTH}, {ids, labels, LENGTH}};
    assert_int_equal(train__stem(rows, 2, 2, 1000), 79);
    assert_int_equal(train__stem(rows, 2, 2, 50), 50);
    assert_int_equal(train__stem(rows, 2, 2, 3), 3);
    assert_int_equal(train__stem(rows, 2, 3, 1000), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bound), cmocka_unit_test(test_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
