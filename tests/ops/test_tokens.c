/* Rows by index, the loss, flat sums and the optimizer; the tables themselves. */
#include "ops_test.h"
#include "util/dtype.h"

static void embed_case(enum dtype dtype, int64_t tokens, int64_t h, float scale)
{
    enum { ROWS = 50, NEW_FIRST = 48, NEW = 5 }; /* new rows may cover the end of the table */
    const struct ops *reference = ops_by_name("reference"), *ops = ops_by_name("cpu");
    float *values = random_floats(ROWS * h, 1), *new_rows = random_floats(NEW * h, 1),
          *x = guarded(tokens * h);
    float *dx = random_floats(tokens * h, 1), *start = random_floats(NEW * h, 1),
          *d_new = copy_floats(start, NEW * h);
    char *store = malloc((size_t)(ROWS * h) * dtype_bytes(dtype) + 1);
    int32_t *ids = malloc((size_t)tokens * sizeof *ids);
    dtype_from_f32(dtype, values, store + 1, (size_t)(ROWS * h));
    dtype_to_f32(dtype, store + 1, values, (size_t)(ROWS * h)); /* as rounded */
    for (int64_t t = 0; t < tokens; t++)
        ids[t] = (int32_t)random_int(t % 3 ? 0 : NEW_FIRST, NEW_FIRST + NEW - 1);
    struct weight table = {.n_out = ROWS, .n_in = h, .dtype = dtype, .data = store + 1};
    struct device *dev = device_of(reference, NULL, 1, COMPUTE_F32);
    reference->embed(dev, x, ids, tokens, &table, new_rows, NEW_FIRST, NEW, scale);
    reference->embed_back(dev, d_new, dx, ids, tokens, h, NEW_FIRST, NEW, scale);
    reference->close(dev);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < h; i++) {
            const float *row =
                ids[t] >= NEW_FIRST ? new_rows + (ids[t] - NEW_FIRST) * h : values + ids[t] * h;
            assert_true(x[t * h + i] == row[i] * scale);
        }
    for (int path = 0; path < N_TEST_PATHS; path++)
        for (int threads = 1; threads <= 3; threads++) {
            dev = device_of(ops, test_paths[path], threads, COMPUTE_F32);
            if (dev == NULL)
                continue;
            float *x2 = guarded(tokens * h), *d2 = copy_floats(start, NEW * h);
            ops->embed(dev, x2, ids, tokens, &table, new_rows, NEW_FIRST, NEW, scale);
            ops->embed_back(dev, d2, dx, ids, tokens, h, NEW_FIRST, NEW, scale);
            assert_same_bits("embed", x2, x, tokens * h);
            assert_same_bits("embed_back", d2, d_new, NEW * h);
            guarded_free(x2, tokens * h, "x"), guarded_free(d2, NEW * h, "d_new");
            ops->close(dev);
        }
    guarded_free(values, ROWS * h, "table"), guarded_free(new_rows, NEW * h, "new rows");
    guarded_free(x, tokens * h, "x"), guarded_free(dx, tokens * h, "dx");
    guarded_free(start, NEW * h, "start"), guarded_free(d_new, NEW * h, "d_new");
    free(store), free(ids);
}

static void test_embed(void **state)
{
    static const enum dtype dtypes[] = {DT_F32, DT_BF16, DT_F16, DT_F64};
    for (int i = 0; i < 12; i++)
        embed_case(dtypes[i % 4], random_int(1, 150), random_int(1, 700), i % 2 ? 1 : 25.25f);
}

/* Rows of a weight whose source is gone: as they were, wherever the packed form holds them exactly. No path:
 * the reference, which packs what it has to convert. */
static void packed_rows_case(const char *path, enum dtype dtype, enum compute compute)
{
    const struct ops *ops = ops_by_name(path ? "cpu" : "reference");
    struct device *dev = device_of(ops, path, path ? 2 : 1, compute);
    struct err err = ERR_INIT;
    size_t n_bytes = 0;
    if (dev == NULL)
        return;
    const int64_t n_out = random_int(1, 200), n_in = random_int(1, 300), n = n_out * n_in;
    float *values = random_floats(n, 1), *row = guarded(n_in), *x = guarded(n_in);
    void *store = aligned_alloc(64, ((size_t)n * 4 + 63) / 64 * 64);
    dtype_from_f32(dtype, values, store, (size_t)n);
    dtype_to_f32(dtype, store, values, (size_t)n);
    struct weight w = {.n_out = n_out, .n_in = n_in, .dtype = dtype, .data = store};
    assert_int_equal(ops->weight_bytes(dev, &n_bytes, n_out, n_in, dtype, &err), ST_OK);
    void *packed = ops->alloc(dev, n_bytes);
    assert_int_equal(ops->weight_prepare(dev, &w, packed, true, &err), ST_OK);
    const bool exact = dtype == DT_BF16 || compute == COMPUTE_F32;
    assert_int_equal(w.source_unused, n_bytes > 0);
    assert_int_equal(w.packed_row != NULL, n_bytes > 0 && exact);
    assert_true(n_bytes > 0 || path == NULL);
    if (w.packed_row != NULL) {
        memset(store, 0xff, (size_t)n * dtype_bytes(dtype));
        w.data = NULL;
    }
    assert_true(weight_has_rows(&w));
    for (int32_t i = 0; i < n_out; i++) {
        weight_row(&w, i, row);
        assert_same_bits("a row", row, values + i * n_in, n_in);
        ops->embed(dev, x, &i, 1, &w, NULL, 0, 0, 1);
        assert_same_bits("an embedded row", x, values + i * n_in, n_in);
    }
    ops->weight_release(dev, &w);
    ops->release(dev, packed);
    ops->close(dev);
    free(store);
    guarded_free(values, n, "values"), guarded_free(row, n_in, "row"), guarded_free(x, n_in, "x");
}

static void test_packed_rows(void **state)
{
    static const char *const paths[] = {NULL, "baseline", "avx2", "avx512", "avx512_bf16", "amx"};
    for (int i = 0; i < 48; i++) {
        packed_rows_case(paths[i % 6], i / 6 % 2 ? DT_BF16 : DT_F32, COMPUTE_BF16);
        if (i % 6 < 4)
            packed_rows_case(paths[i % 6], i / 6 % 2 ? DT_BF16 : DT_F32, COMPUTE_F32);
    }
}

static void test_gather_scatter(void **state)
{
    enum { SOURCE = 90 };
    for (int c = 0; c < 8; c++) {
        int64_t rows = random_int(1, SOURCE), n = random_int(1, 900);
        int32_t index[SOURCE];
        for (int i = 0; i < SOURCE; i++)
            index[i] = i;
        for (int i = SOURCE - 1; i > 0; i--) {
            int j = (int)random_int(0, i), swap = index[i];
            index[i] = index[j], index[j] = swap;
        }
        float *src = random_floats(SOURCE * n, 1), *before = random_floats(SOURCE * n, 1);
        for (int table = 0; table < 4; table++) {
            const struct ops *ops = ops_by_name(table ? "cpu" : "reference");
            struct device *dev = device_of(ops, "auto", table ? table : 1, COMPUTE_F32);
            float *picked = guarded(rows * n), *sums = copy_floats(before, SOURCE * n);
            ops->gather_rows(dev, picked, src, index, rows, n);
            ops->scatter_add_rows(dev, sums, picked, index, rows, n);
            for (int64_t r = 0; r < rows; r++)
                assert_same_bits("gather", picked + r * n, src + index[r] * n, n);
            for (int64_t r = 0; r < SOURCE; r++)
                for (int64_t i = 0; i < n; i++) {
                    int64_t at = index[r] * n + i;
                    assert_true(sums[at] == (r < rows ? before[at] + src[at] : before[at]));
                }
            guarded_free(picked, rows * n, "dst"), guarded_free(sums, SOURCE * n, "dst");
            ops->close(dev);
        }
        guarded_free(src, SOURCE * n, "src"), guarded_free(before, SOURCE * n, "before");
    }
}

enum { MOST_LABELS = 5 };

static void loss_case(int64_t rows, int64_t v, int64_t ld, double size, float grad_scale)
{
    const struct ops *reference = ops_by_name("reference"), *ops = ops_by_name("cpu");
    float *logits = random_floats(rows * ld, size), *want = copy_floats(logits, rows * ld),
          *loss = guarded(rows);
    float *bits = guarded(rows * ld), *loss_bits = guarded(rows);
    int32_t *labels = malloc((size_t)(rows * MOST_LABELS) * sizeof *labels),
            *first = malloc((size_t)(rows + 1) * sizeof *first);
    first[0] = 0;
    for (int64_t r = 0; r < rows; r++) { /* rising, some of them the same */
        int32_t n = r % 3 == 1 ? (int32_t)random_int(2, MOST_LABELS) : 1, *at = labels + first[r];
        for (int32_t l = 0; l < n; l++)
            at[l] = l % 3 == 1 ? at[l - 1] : (int32_t)random_int(l > 0 ? at[l - 1] : 0, v - 1);
        first[r + 1] = first[r] + n;
    }
    if (v > 10) { /* a row that is far off and one that is nearly sure */
        for (int64_t i = 0; i < v; i++)
            logits[i] += 1e4f;
        logits[(rows - 1) * ld + labels[first[rows - 1]]] += 30;
        memcpy(want, logits, (size_t)(rows * ld) * sizeof *want);
    }
    struct device *dev = device_of(reference, NULL, 1, COMPUTE_F32);
    reference->cross_entropy(dev, want, ld, labels, first, loss, rows, v, grad_scale);
    reference->close(dev);
    for (int path = 0; path < N_TEST_PATHS; path++)
        for (int threads = 1; threads <= 3; threads++) {
            dev = device_of(ops, test_paths[path], threads, COMPUTE_F32);
            if (dev == NULL)
                continue;
            float *got = copy_floats(logits, rows * ld), *loss2 = guarded(rows);
            ops->cross_entropy(dev, got, ld, labels, first, loss2, rows, v, grad_scale);
            if (threads == 1) {
                memcpy(bits, got, (size_t)(rows * ld) * sizeof *bits);
                memcpy(loss_bits, loss2, (size_t)rows * sizeof *bits);
            }
            assert_same_bits("logits", got, bits, rows * ld);
            assert_same_bits("loss", loss2, loss_bits, rows);
            for (int64_t r = 0; r < rows; r++)
                if (!(fabs((double)loss2[r] - (double)loss[r]) <= 1e-6 * (1 + fabs((double)loss[r]))))
                    fail_msg("loss of row %lld: %.9g, not %.9g", (long long)r, (double)loss2[r],
                             (double)loss[r]);
            for (int64_t i = 0; i < rows * ld; i++)
                if (!(fabs((double)got[i] - (double)want[i]) <=
                      1e-6 * (fabs((double)want[i]) +
                              0.1 * fabs((double)grad_scale) *
                                  (first[i / ld + 1] - first[i / ld])))) /* each label's */
                    fail_msg("gradient %lld: %.9g, not %.9g", (long long)i, (double)got[i], (double)want[i]);
            guarded_free(got, rows * ld, "logits"), guarded_free(loss2, rows, "loss");
            ops->close(dev);
        }
    guarded_free(logits, rows * ld, "logits"), guarded_free(want, rows * ld, "logits");
    guarded_free(bits, rows * ld, "bits"), guarded_free(loss, rows, "loss"),
        guarded_free(loss_bits, rows, "loss");
    free(labels);
    free(first);
}

static void test_cross_entropy(void **state)
{
    loss_case(1, 1, 1, 1, 1);
    loss_case(3, 2, 5, 1, 0.25f);
    loss_case(17, 513, 520, 3, 1);
    loss_case(9, 4099, 4099, 6, 0);
    loss_case(5, 49155, 49160, 2, 0.125f);
    loss_case(2, 262144, 262144, 4, 1);
}

static void test_cross_entropy_differences(void **state)
{
    enum { V = 9 };
    const struct ops *ops = ops_by_name("reference");
    struct device *dev = device_of(ops, NULL, 1, COMPUTE_F32);
    float *from = random_floats(V, 2), grad[V], loss;
    const int32_t labels[] = {2, 4, 4}, first[] = {0, 3};
    memcpy(grad, from, sizeof grad);
    ops->cross_entropy(dev, grad, V, labels, first, &loss, 1, V, 3);
    for (int i = 0; i < V; i++) {
        double l[2];
        for (int side = 0; side < 2; side++) {
            double sum = 0, moved[V];
            for (int j = 0; j < V; j++) {
                moved[j] = (double)from[j] + (i == j ? (side ? 1e-5 : -1e-5) : 0);
                sum += exp(moved[j]);
            }
            l[side] = 3 * log(sum) - moved[2] - 2 * moved[4];
        }
        assert_true(fabs((double)loss - (l[0] + l[1]) / 2) < 1e-6);
        assert_true(fabs(3 * (l[1] - l[0]) / 2e-5 - (double)grad[i]) < 1e-5);
    }
    guarded_free(from, V, "logits");
    ops->close(dev);
}

/* sum_squares and adamw on lengths around the blocks; AdamW against the formulas, ten steps. */
static void test_flat(void **state)
{
    static const size_t lengths[] = {1, 15, 16, 17, 16384, 16385, 100003};
    const struct ops *ops = ops_by_name("cpu");
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        size_t count = lengths[l];
        int64_t n = (int64_t)count;
        float *g = random_floats(n, 1), *p0 = random_floats(n, 1);
        double squares = 0, first_sum = 0, *p = malloc(count * sizeof *p), *m = calloc(count, sizeof *m);
        double *v = calloc(count, sizeof *v);
        for (int64_t i = 0; i < n; i++)
            squares += (double)g[i] * (double)g[i], p[i] = (double)p0[i];
        for (int t = 1; t <= 10; t++)
            for (int64_t i = 0; i < n; i++) {
                double grad = (double)g[i] * 0.5 * t;
                p[i] *= 1 - 1e-3 * 0.1;
                m[i] += (grad - m[i]) * (1 - 0.9);
                v[i] = 0.999 * v[i] + 0.001 * grad * grad;
                p[i] -= 1e-3 / (1 - pow(0.9, t)) * m[i] / (sqrt(v[i]) / sqrt(1 - pow(0.999, t)) + 1e-8);
            }
        float *bits = guarded(n);
        for (int threads = 0; threads <= 3; threads++) { /* 0: the reference */
            const struct ops *table = threads ? ops : ops_by_name("reference");
            struct device *dev = device_of(table, "auto", threads, COMPUTE_F32);
            double sum = table->sum_squares(dev, g, n);
            assert_true(fabs(sum - squares) <= 1e-12 * squares);
            float *p1 = copy_floats(p0, n), *m1 = guarded(n), *v1 = guarded(n), *sums = copy_floats(p0, n);
            table->zero(dev, m1, (size_t)n * sizeof *m1);
            table->zero(dev, v1, (size_t)n * sizeof *v1);
            for (int t = 1; t <= 10; t++) {
                struct adamw a = {
                    1e-3, 0.9, 0.999, 1e-8, 0.1, 1 - pow(0.9, t), sqrt(1 - pow(0.999, t)), 0.5f * (float)t};
                table->adamw(dev, p1, g, m1, v1, n, &a);
            }
            for (int64_t i = 0; i < n; i++) {
                assert_true(fabs((double)p1[i] - p[i]) <= 6e-7 * fabs(p[i]) + 2e-8);
                assert_true(fabs((double)m1[i] - m[i]) <= 1e-6 * fabs(m[i]) + 1e-12);
                assert_true(fabs((double)v1[i] - v[i]) <= 1e-6 * v[i] + 1e-20);
            }
            table->add(dev, sums, g, n);
            for (int64_t i = 0; i < n; i++)
                assert_true(sums[i] == p0[i] + g[i]);
            if (threads == 1) {
                memcpy(bits, p1, (size_t)n * sizeof *bits);
                first_sum = sum;
            } else if (threads > 1) {
                assert_same_bits("adamw", p1, bits, n);
                assert_true(sum == first_sum);
            }
            guarded_free(p1, n, "p"), guarded_free(m1, n, "m"), guarded_free(v1, n, "v"),
                guarded_free(sums, n, "sums");
            table->close(dev);
        }
        guarded_free(g, n, "g"), guarded_free(p0, n, "p"), guarded_free(bits, n, "bits");
        free(p), free(m), free(v);
    }
}

static void test_tables(void **state)
{
    char text[400];
    assert_null(ops_by_name("no such table"));
    assert_null(ops_by_name(NULL));
    for (int table = 0; table < 2; table++) {
        const struct ops *ops = ops_by_name(table ? "cpu" : "reference");
        assert_string_equal(ops->name, table ? "cpu" : "reference");
        assert_int_equal(ops_missing(ops, text, sizeof text), 0);
        assert_string_equal(text, "");
    }
    struct ops some = *ops_by_name("cpu");
    some.rope = NULL, some.adamw = NULL, some.open = NULL;
    assert_int_equal(ops_missing(&some, text, sizeof text), 3);
    assert_string_equal(text, "open rope adamw");
    assert_int_equal(ops_missing(&some, text, 7), 3);
    assert_string_equal(text, "open r");
    struct ops none = {.name = "none"};
    assert_int_equal(ops_missing(&none, text, sizeof text), 37);
}

static void test_open(void **state)
{
    const struct {
        const char *table, *path;
        int n_threads;
        enum compute compute;
        enum status status;
        const char *text;
    } cases[] = {
        {"cpu", "auto", 2, COMPUTE_F32, ST_OK, ", float32"},
        {"cpu", NULL, 1, COMPUTE_BF16, ST_OK, ", bfloat16"},
        {"cpu", "baseline", 1, COMPUTE_F32, ST_OK, "baseline, float32"},
        {"reference", "auto", 7, COMPUTE_F32, ST_OK, "reference, float32"},
        {"reference", "avx2", 1, COMPUTE_F32, ST_USAGE, "no path \"avx2\""},
        {"cpu", "mmx", 1, COMPUTE_F32, ST_USAGE, "no path \"mmx\""},
        {"cpu", "auto", -1, COMPUTE_F32, ST_USAGE, "number of threads -1"},
        {"cpu", "auto", 1 << 20, COMPUTE_F32, ST_USAGE, "number of threads 1048576"},
        {"cpu", "auto", 1, COMPUTE_F16, ST_USAGE, "float16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct ops *ops = ops_by_name(cases[i].table);
        struct device_options options = {cases[i].n_threads, cases[i].path, cases[i].compute};
        struct device *dev = NULL;
        struct err err = ERR_INIT;
        assert_int_equal(ops->open(&dev, &options, &err), cases[i].status);
        if (cases[i].status != ST_OK)
            assert_null(dev);
        const char *text = cases[i].status == ST_OK ? ops->describe(dev) : err.what;
        if (strstr(text, cases[i].text) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", text, cases[i].text);
        ops->close(dev);
    }
}

static void test_memory(void **state)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 100000, 5 << 20, 33 << 20};
    const struct ops *ops = ops_by_name("cpu");
    struct device *dev = device_of(ops, "auto", 2, COMPUTE_F32);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *p = ops->alloc(dev, sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(p[j], 0);
        memset(p, 0x5a, sizes[i]);
        ops->release(dev, p);
        p = ops->alloc(dev, sizes[i]); /* zeroed also when the memory was in use before */
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(p[j], 0);
        ops->release(dev, p);
    }
    ops->release(dev, NULL);
    assert_null(ops->alloc(dev, SIZE_MAX));
    assert_null(ops->alloc(dev, SIZE_MAX / 4));
    char a[40] = "upload and download", b[40] = "", c[40] = "";
    ops->upload(dev, b, a, sizeof a);
    ops->download(dev, c, b, sizeof b);
    assert_string_equal(c, a);
    ops->copy(dev, b, "copied", 7);
    assert_string_equal(b, "copied");
    ops->zero(dev, b, sizeof b);
    assert_string_equal(b, "");
    ops->close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_packed_rows),
        cmocka_unit_test(test_gather_scatter),
        cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_cross_entropy_differences),
        cmocka_unit_test(test_flat),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
