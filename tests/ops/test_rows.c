/* Norm, rotary embedding, activations: cpu against reference, reference against finite differences. */
#include "cpu/kernels/kernels.h"
#include "ops_test.h"

static const int64_t widths[] = {1, 7, 16, 24, 64, 100, 576, 1023};
enum { N_WIDTHS = sizeof widths / sizeof widths[0] };

static const struct kernels *const kernel_tables[] = {
#if defined(__x86_64__)
    &ops__kernels_avx512, &ops__kernels_avx2,
#endif
    &ops__kernels_baseline};

/* Calls body with every path and 1 to 3 threads; `first` is true for the first device of a path. */
#define FOR_DEVICES(ops, dev, first)                                                                         \
    for (int path_ = 0; path_ < N_TEST_PATHS; path_++)                                                       \
        for (int threads_ = 1; threads_ <= 3; threads_++)                                                    \
            for (struct device *dev = device_of(ops, test_paths[path_], threads_, COMPUTE_F32); dev != NULL; \
                 ops->close(dev), dev = NULL)                                                                \
                for (bool first = threads_ == 1, once_ = true; once_; once_ = false)

static void norm_case(int64_t rows, int64_t n, float offset, bool accumulate)
{
    const struct ops *reference = ops_by_name("reference"), *ops = ops_by_name("cpu");
    int64_t size = rows * n;
    float *x = random_floats(size, 2), *w = random_floats(n, 1), *dy = random_floats(size, 1);
    float *before = random_floats(size, 1), *y = guarded(size), *inv = guarded(rows),
          *dx = copy_floats(before, size);
    struct device *dev = device_of(reference, NULL, 1, COMPUTE_F32);
    reference->rms_norm(dev, y, inv, x, w, rows, n, 1e-5f, offset);
    reference->rms_norm_back(dev, dx, dy, x, inv, w, rows, n, offset, accumulate);
    reference->close(dev);
    float *y1 = guarded(size), *dx1 = guarded(size);
    FOR_DEVICES(ops, cpu, first)
    {
        float *y2 = copy_floats(x, size), *inv2 = guarded(rows), *dx2 = copy_floats(before, size);
        ops->rms_norm(cpu, y2, inv2, y2, w, rows, n, 1e-5f, offset); /* in place */
        ops->rms_norm_back(cpu, dx2, dy, x, inv2, w, rows, n, offset, accumulate);
        assert_close("rms_norm", y2, y, size, 4e-7);
        assert_close("inv_rms", inv2, inv, rows, 4e-7);
        assert_close("rms_norm_back", dx2, dx, size, 4e-6);
        if (first) {
            memcpy(y1, y2, (size_t)size * sizeof *y1);
            memcpy(dx1, dx2, (size_t)size * sizeof *y1);
        }
        assert_same_bits("rms_norm", y2, y1, size);
        assert_same_bits("rms_norm_back", dx2, dx1, size);
        if (!accumulate) { /* dy may be dx */
            float *both = copy_floats(dy, size);
            ops->rms_norm_back(cpu, both, both, x, inv2, w, rows, n, offset, false);
            assert_same_bits("rms_norm_back in place", both, dx2, size);
            guarded_free(both, size, "dx");
        }
        ops->rms_norm(cpu, y2, NULL, x, w, rows, n, 1e-5f, offset);
        guarded_free(y2, size, "y");
        guarded_free(inv2, rows, "inv_rms");
        guarded_free(dx2, size, "dx");
    }
    float *all[] = {x, dy, before, y, dx, y1, dx1};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        guarded_free(all[i], size, "norm");
    guarded_free(w, n, "w");
    guarded_free(inv, rows, "inv_rms");
}

static void test_norm(void **state)
{
    for (int i = 0; i < N_WIDTHS; i++)
        norm_case(random_int(1, i < 6 ? 3000 / widths[i] : 70), widths[i], i % 2 ? 1 : 0, i % 3 == 1);
    norm_case(333, 576, 0, true);
}

static void test_norm_differences(void **state)
{
    enum { N = 11 };
    const struct ops *ops = ops_by_name("reference");
    struct device *dev = device_of(ops, NULL, 1, COMPUTE_F32);
    for (int c = 0; c < 4; c++) {
        float x[N], w[N], dy[N], y[N], dx[N], inv;
        float *from = random_floats(3 * N, 1), offset = c % 2 ? 1 : 0, eps = c < 2 ? 1e-5f : 0.3f;
        memcpy(x, from, sizeof x), memcpy(w, from + N, sizeof w), memcpy(dy, from + 2 * N, sizeof dy);
        ops->rms_norm(dev, y, &inv, x, w, 1, N, eps, offset);
        ops->rms_norm_back(dev, dx, dy, x, &inv, w, 1, N, offset, false);
        for (int i = 0; i < N; i++) {
            double l[2];
            for (int side = 0; side < 2; side++) {
                double sum = 0, squares = 0, value[N];
                for (int j = 0; j < N; j++) {
                    value[j] = (double)x[j] + (j == i ? (side ? 1e-5 : -1e-5) : 0);
                    squares += value[j] * value[j];
                }
                for (int j = 0; j < N; j++)
                    sum += (double)dy[j] * value[j] * ((double)w[j] + (double)offset);
                l[side] = sum / sqrt(squares / N + (double)eps);
            }
            assert_true(fabs((l[1] - l[0]) / 2e-5 - (double)dx[i]) < 1e-5);
        }
        guarded_free(from, 3 * N, "values");
    }
    ops->close(dev);
}

static void rope_case(int64_t tokens, int32_t heads, int32_t d)
{
    enum { POSITIONS = 300 };
    const struct ops *reference = ops_by_name("reference"), *ops = ops_by_name("cpu");
    int64_t size = tokens * heads * d;
    float *x = random_floats(size, 1), *y = copy_floats(x, size), *table = guarded((int64_t)POSITIONS * d);
    float *y1 = guarded(size);
    int32_t *positions = malloc((size_t)tokens * sizeof *positions);
    for (int64_t i = 0; i < tokens; i++)
        positions[i] = (int32_t)random_int(0, POSITIONS - 1);
    for (int64_t p = 0; p < POSITIONS; p++)
        for (int32_t j = 0; j < d / 2; j++) {
            double angle = (double)p * pow(1e4, -2.0 * j / d);
            table[p * d + j] = (float)cos(angle);
            table[p * d + d / 2 + j] = (float)sin(angle);
        }
    struct device *dev = device_of(reference, NULL, 1, COMPUTE_F32);
    reference->rope(dev, y, tokens, heads, d, positions, table, false);
    for (int64_t t = 0; t < tokens; t++) { /* by the definition, one pair of one token */
        int64_t j = random_int(0, d / 2 - 1), at = (t * heads + random_int(0, heads - 1)) * d + j;
        double angle = positions[t] * pow(1e4, -2.0 * (double)j / d), a = (double)x[at],
               b = (double)x[at + d / 2];
        assert_true(fabs((double)y[at] - (a * cos(angle) - b * sin(angle))) < 1e-6);
        assert_true(fabs((double)y[at + d / 2] - (b * cos(angle) + a * sin(angle))) < 1e-6);
    }
    FOR_DEVICES(ops, cpu, first)
    {
        float *y2 = copy_floats(x, size);
        ops->rope(cpu, y2, tokens, heads, d, positions, table, false);
        assert_close("rope", y2, y, size, 3e-7);
        if (first)
            memcpy(y1, y2, (size_t)size * sizeof *y1);
        assert_same_bits("rope", y2, y1, size);
        ops->rope(cpu, y2, tokens, heads, d, positions, table, true);
        assert_close("rope and back", y2, x, size, 1e-6);
        guarded_free(y2, size, "x");
    }
    reference->rope(dev, y, tokens, heads, d, positions, table, true);
    assert_close("reference: rope and back", y, x, size, 1e-6);
    reference->close(dev);
    guarded_free(x, size, "x"), guarded_free(y, size, "y"), guarded_free(y1, size, "y");
    guarded_free(table, (int64_t)POSITIONS * d, "table");
    free(positions);
}

static void test_rope(void **state)
{
    static const int32_t sizes[] = {2, 8, 20, 24, 64, 80, 128, 256};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        rope_case(random_int(1, 90), (int32_t)random_int(1, 9), sizes[i]);
}

static void act_case(enum act_kind kind, int64_t n, double size)
{
    const struct ops *reference = ops_by_name("reference"), *ops = ops_by_name("cpu");
    float *gate = random_floats(n, size), *up = random_floats(n, 1), *dout = random_floats(n, 1), *want[3],
          *bits[3];
    if (n > 8)
        gate[0] = -200, gate[1] = 200, gate[2] = 0, gate[3] = -88, gate[4] = -1e30f, gate[5] = -0.0f,
        gate[6] = 1e18f;
    for (int i = 0; i < 3; i++)
        want[i] = guarded(n), bits[i] = guarded(n);
    struct device *dev = device_of(reference, NULL, 1, COMPUTE_F32);
    reference->act_mul(dev, kind, want[0], gate, up, n);
    reference->act_mul_back(dev, kind, want[1], want[2], dout, gate, up, n);
    reference->close(dev);
    FOR_DEVICES(ops, cpu, first)
    {
        float *out = guarded(n), *dgate = copy_floats(gate, n), *dup = copy_floats(up, n);
        ops->act_mul(cpu, kind, out, gate, up, n);
        ops->act_mul_back(cpu, kind, dgate, dup, dout, dgate, dup, n); /* in place */
        float *got[] = {out, dgate, dup};
        for (int i = 0; i < 3; i++) {
            for (int64_t j = 0; j < n; j++)
                if (!(fabs((double)got[i][j] - (double)want[i][j]) <= 1e-6 + 1e-6 * fabs((double)want[i][j])))
                    fail_msg("act %d, result %d, x %.9g: %.9g, not %.9g", (int)kind, i, (double)gate[j],
                             (double)got[i][j], (double)want[i][j]);
            if (first)
                memcpy(bits[i], got[i], (size_t)n * sizeof(float));
            assert_same_bits("act", got[i], bits[i], n);
            guarded_free(got[i], n, "act");
        }
    }
    guarded_free(gate, n, "gate"), guarded_free(up, n, "up"), guarded_free(dout, n, "dout");
    for (int i = 0; i < 3; i++)
        guarded_free(want[i], n, "want"), guarded_free(bits[i], n, "bits");
}

static void test_act(void **state)
{
    for (int i = 0; i < 14; i++)
        act_case(i % 2 ? ACT_SILU : ACT_GELU_TANH, i < 4 ? i + 1 : random_int(9, 300000), i < 8 ? 2 : 9);
}

static void test_act_differences(void **state)
{
    const struct ops *ops = ops_by_name("reference");
    struct device *dev = device_of(ops, NULL, 1, COMPUTE_F32);
    for (int kind = 0; kind < 2; kind++)
        for (float x = -6; x <= 6; x += 0.37f) {
            float up = 1.7f, dout = 0.6f, dgate, dup, value;
            ops->act_mul_back(dev, kind ? ACT_GELU_TANH : ACT_SILU, &dgate, &dup, &dout, &x, &up, 1);
            ops->act_mul(dev, kind ? ACT_GELU_TANH : ACT_SILU, &value, &x, &up, 1);
            double f[3];
            for (int i = 0; i < 3; i++) {
                double at = (double)x + (i - 1) * 1e-5;
                f[i] = kind
                           ? 0.5 * at *
                                 (1 + tanh(sqrt(2 / 3.14159265358979323846) * (at + 0.044715 * at * at * at)))
                           : at / (1 + exp(-at));
            }
            assert_true(fabs((double)value - f[1] * (double)up) < 1e-6);
            assert_true(fabs((double)dup - f[1] * (double)dout) < 1e-6);
            assert_true(fabs((double)dgate - (f[2] - f[0]) / 2e-5 * (double)up * (double)dout) < 1e-6);
        }
    ops->close(dev);
}

/* The exponential of every path against libm: within one unit in the last place (of a float), and 0 below
 * -86. */
static void test_exp(void **state)
{
    enum { N = 4096 };
    float x[N], y[N];
    const struct ops *ops = ops_by_name("cpu");
    for (size_t table = 0; table < sizeof kernel_tables / sizeof kernel_tables[0]; table++) {
        struct device *dev = device_of(ops, kernel_tables[table]->name, 1, COMPUTE_F32);
        if (dev == NULL)
            continue;
        ops->close(dev);
        double worst = 0;
        for (int round = 0; round < 300; round++) {
            for (int i = 0; i < N; i++)
                x[i] = round < 100
                           ? (float)(-86 + 174.7 * rng_uniform(5, RNG_TEST, 2, (uint64_t)(round * N + i)))
                           : (float)(rng_normal(6, RNG_TEST, 2, (uint64_t)(round * N + i)) * (round % 10));
            memcpy(y, x, sizeof y);
            kernel_tables[table]->prob(y, 0, N, N, 1, 0);
            for (int i = 0; i < N; i++) {
                double want = exp((double)x[i]), unit = ldexp(1, ilogb(want) - 23);
                worst = fmax(worst, fabs((double)y[i] - want) / unit);
            }
        }
        if (worst > 1)
            fail_msg("%s: exp is %.3f units off", kernel_tables[table]->name, worst);
        float special[] = {-INFINITY, -200, 0, -0.0f, 89, INFINITY, NAN, -86.01f, -87, -88, -100, -104};
        kernel_tables[table]->prob(special, 0, 12, 12, 1, 0);
        assert_true(special[0] == 0 && special[1] == 0 && special[2] == 1 && special[3] == 1);
        assert_true(isinf(special[4]) && isinf(special[5]) && isnan(special[6]));
        for (int i = 7; i < 12; i++)
            assert_true(special[i] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm), cmocka_unit_test(test_norm_differences), cmocka_unit_test(test_rope),
        cmocka_unit_test(test_act),  cmocka_unit_test(test_act_differences),  cmocka_unit_test(test_exp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
