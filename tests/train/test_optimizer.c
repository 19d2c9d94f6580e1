/* AdamW and clipping against the formulas in double precision. */
#include "train_internal.h"
#include "util/rng.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 700 };

static struct param items[3] = {{.name = "a", .rows = 10, .cols = 7, .offset = 0},
                                {.name = "b", .rows = 1, .cols = 130, .offset = 70},
                                {.name = "c", .rows = 20, .cols = 25, .offset = 200}};
static const struct params params = {.items = items, .n_items = 3, .n_values = N};

static double draw(uint32_t what, int64_t i)
{
    return rng_normal(3, RNG_TEST, what, (uint64_t)i);
}

static void open_table(const char *name, const struct ops **ops, struct device **dev)
{
    struct err err = ERR_INIT;
    const struct device_options d = {.n_threads = 1, .cpu_path = "auto"};
    *ops = ops_by_name(name);
    assert_non_null(*ops);
    if ((*ops)->open(dev, &d, &err) != ST_OK)
        fail_msg("%s", err.what);
}

/* Twenty updates of random gradients; the double-precision twin takes the same clip coefficients. */
static void follow(const char *table, double max_norm)
{
    const struct ops *ops;
    struct device *dev;
    struct optimizer opt;
    struct err err = ERR_INIT;
    const struct train_options o = {.weight_decay = 0.05,
                                    .adam_beta1 = 0.9,
                                    .adam_beta2 = 0.99,
                                    .adam_epsilon = 1e-6,
                                    .max_grad_norm = max_norm};
    open_table(table, &ops, &dev);
    assert_int_equal(optimizer__open(&opt, ops, dev, &params, &err), ST_OK);
    float *p = ops->alloc(dev, N * sizeof *p), *g = ops->alloc(dev, N * sizeof *g);
    double q[N], m[N] = {0}, v[N] = {0}, scale = 0, worst = 0;
    for (int i = 0; i < N; i++)
        q[i] = p[i] = (float)draw(0, i);
    for (int t = 1; t <= 20; t++) {
        double squares = 0, lr = 1e-2 / t;
        for (int i = 0; i < N; i++) {
            g[i] = (float)(draw((uint32_t)t, i) * (t % 2 ? 3 : 0.01));
            squares += (double)g[i] * (double)g[i];
        }
        float norm = optimizer__norm(&opt, g), clip = optimizer__clip(norm, max_norm);
        assert_true(fabs((double)norm - sqrt(squares)) < 1e-6 * sqrt(squares));
        scale = max_norm > 0 ? fmin(1, max_norm / (sqrt(squares) + 1e-6)) : 1;
        assert_true(fabs((double)clip - scale) < 1e-6 * scale);
        optimizer__update(&opt, &o, p, g, lr, clip, t);
        for (int i = 0; i < N; i++) {
            double x = (double)g[i] * scale;
            q[i] *= 1 - lr * o.weight_decay;
            m[i] = 0.9 * m[i] + 0.1 * x;
            v[i] = 0.99 * v[i] + 0.01 * x * x;
            q[i] -= lr / (1 - pow(0.9, t)) * m[i] / (sqrt(v[i]) / sqrt(1 - pow(0.99, t)) + 1e-6);
            worst = fmax(worst, fabs(q[i] - (double)p[i]));
        }
    }
    assert_true(worst < 3e-6);
    ops->release(dev, p);
    ops->release(dev, g);
    optimizer__close(&opt);
    ops->close(dev);
}

static void test_reference(void **state)
{
    follow("reference", 1.0);
    follow("reference", 0);
}

static void test_cpu(void **state)
{
    follow("cpu", 1.0);
    follow("cpu", 1e6);
    follow("cpu", 0);
}

static void test_clip(void **state)
{
    assert_true(optimizer__clip(0.5f, 1.0) == 1);
    assert_true(optimizer__clip(0, 1.0) == 1);
    assert_true(optimizer__clip(4, 0) == 1); /* off */
    assert_true(optimizer__clip(4, 1.0) == 1.0f / (4 + 1e-6f));
    assert_true(optimizer__clip(1, 1.0) <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
