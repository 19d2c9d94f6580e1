/* Products: the cpu table against the reference on odd shapes; equal bits for any number of threads and for
 * any number of rows beside a row. */
#include "ops_test.h"
#include "util/dtype.h"

enum kind { LINEAR, LINEAR_BACK, GEMM };
struct sizes {
    int64_t m, n, k;
};
static const struct sizes table_of_sizes[] = {
    {1, 1, 1},
    {1, 576, 576},
    {2, 65, 3},
    {7, 64, 320},
    {3, 17, 769},
    {13, 130, 1537},
    {61, 48, 100},
    {200, 16, 576},
    {200, 576, 16},
    {16, 200, 333},
    {97, 100, 24},
    {5, 24, 3072},
    {241, 70, 65},
    {49, 64, 16},
    {576, 16, 150},
    {30, 1000, 8},
    {1, 49, 5000},
    {64, 16, 64},
    {16, 16, 20000},
    {127, 33, 31},
    /* large enough to be shared out among threads */
    {300, 130, 333},
    {530, 290, 1100},
    {17, 1000, 769},
    {1, 6000, 800},
    {700, 16, 576},
    {16, 577, 1000},
};
enum { N_SIZES = sizeof table_of_sizes / sizeof table_of_sizes[0] };

/* One product by one table; out is the guarded result of m rows with stride ldc. */
struct call {
    enum kind kind;
    struct sizes size;
    bool trans_a, trans_b, accumulate;
    float alpha, beta;
    int64_t lda, ldb, ldc;
    const float *a, *b, *c;
    struct weight weight; /* for the linear kinds */
};

/* Memory for a packed form, with a border behind it that nobody may write. */
struct packed_form {
    unsigned char *memory;
    size_t n_bytes;
};
enum { BORDER = 64 };

static struct packed_form packed_of(const struct ops *ops, struct device *dev, const struct weight *w)
{
    struct packed_form p;
    struct err err = ERR_INIT;
    if (ops->weight_bytes(dev, &p.n_bytes, w->n_out, w->n_in, w->dtype, &err) != ST_OK)
        fail_msg("%s", err.what);
    assert_int_equal(p.n_bytes % 64, 0);
    p.memory = aligned_alloc(64, p.n_bytes + BORDER);
    memset(p.memory, 0xA5, p.n_bytes + BORDER);
    return p;
}

static void packed_free(struct packed_form *p)
{
    for (size_t i = p->n_bytes; i < p->n_bytes + BORDER; i++)
        assert_int_equal(p->memory[i], 0xA5);
    free(p->memory);
}

/* What the products read was packed by another device, as by another process of the host. */
static void prepare_shared(const struct ops *ops, struct device *dev, struct device *other, struct weight *w,
                           struct packed_form *packed)
{
    struct err err = ERR_INIT;
    struct weight theirs = *w;
    *packed = packed_of(ops, dev, w);
    if (ops->weight_prepare(other, &theirs, packed->memory, true, &err) != ST_OK)
        fail_msg("%s", err.what);
    ops->weight_release(other, &theirs);
    unsigned char *before = malloc(packed->n_bytes + 1);
    memcpy(before, packed->memory, packed->n_bytes);
    if (ops->weight_prepare(dev, w, packed->memory, false, &err) != ST_OK)
        fail_msg("%s", err.what);
    assert_memory_equal(before, packed->memory, packed->n_bytes);
    free(before);
}

static float *call_run(const struct call *call, const char *table, const char *path, int n_threads,
                       enum compute compute)
{
    const struct ops *ops = ops_by_name(table);
    struct device *dev = device_of(ops, path, n_threads, compute);
    const struct sizes s = call->size;
    if (dev == NULL)
        return NULL;
    float *c = copy_floats(call->c, s.m * call->ldc);
    struct weight w = call->weight;
    struct packed_form packed = {0};
    if (call->kind != GEMM) {
        struct device *other = device_of(ops, path, n_threads % 3 + 1, compute);
        prepare_shared(ops, dev, other, &w, &packed);
        ops->close(other);
    }
    if (call->kind == LINEAR)
        ops->linear(dev, c, call->ldc, call->a, call->lda, &w, s.m, call->accumulate);
    else if (call->kind == LINEAR_BACK)
        ops->linear_back(dev, c, call->ldc, call->a, call->lda, &w, s.m, call->accumulate);
    else
        ops->gemm(dev, call->trans_a, call->trans_b, s.m, s.n, s.k, call->alpha, call->a, call->lda, call->b,
                  call->ldb, call->beta, c, call->ldc);
    if (call->kind != GEMM) {
        ops->weight_release(dev, &w);
        packed_free(&packed);
    }
    ops->close(dev);
    return c;
}

/* Columns of the result only; what lies between the rows must be as it was. */
static void check_rows(const char *what, const float *got, const float *want, const float *before,
                       const struct call *call, double tolerance)
{
    for (int64_t i = 0; i < call->size.m; i++) {
        const int64_t at = i * call->ldc;
        if (tolerance == 0)
            assert_same_bits(what, got + at, want + at, call->size.n);
        else
            assert_close(what, got + at, want + at, call->size.n, tolerance);
        assert_same_bits("between rows", got + at + call->size.n, before + at + call->size.n,
                         call->ldc - call->size.n);
    }
}

/* In the bfloat16 mode also what the processor multiplies natively. */
static const char *const product_paths[] = {"avx512", "avx2", "baseline", "amx", "avx512_bf16"};

static void check_call(const struct call *call, enum compute compute, const char *what)
{
    double tolerance = 4e-7 * sqrt((double)call->size.k) + 1e-6;
    int64_t n_c = call->size.m * call->ldc;
    float *want = call_run(call, "reference", NULL, 1, compute);
    for (int p = 0; p < (compute == COMPUTE_BF16 ? 5 : 3); p++) {
        float *got = call_run(call, "cpu", product_paths[p], 1, compute);
        if (got == NULL)
            continue;
        check_rows(what, got, want, call->c, call, tolerance);
        for (int n_threads = 2; n_threads <= 5; n_threads += n_threads == 3 ? 2 : 1) {
            float *other = call_run(call, "cpu", product_paths[p], n_threads, compute);
            check_rows("other number of threads", other, got, call->c, call, 0);
            guarded_free(other, n_c, what);
        }
        /* The last row by itself. */
        if (call->kind != GEMM && call->size.m > 1) {
            struct call last = *call;
            last.size.m = 1;
            last.a += (call->size.m - 1) * call->lda;
            last.c += (call->size.m - 1) * call->ldc;
            float *other = call_run(&last, "cpu", product_paths[p], 2, compute);
            assert_same_bits("row alone", other, got + (call->size.m - 1) * call->ldc, call->size.n);
            guarded_free(other, call->ldc, what);
        }
        guarded_free(got, n_c, what);
    }
    guarded_free(want, n_c, what);
}

static void test_gemm(void **state)
{
    for (int i = 0; i < N_SIZES; i++)
        for (int form = 0; form < 4; form++) {
            struct call call = {
                .kind = GEMM, .size = table_of_sizes[i], .trans_a = form & 1, .trans_b = form & 2};
            const struct sizes s = call.size;
            static const float alphas[] = {1, 2, 0.5f, -1}, betas[] = {0, 1, 1, 0.25f};
            call.alpha = alphas[(i + form) % 4];
            call.beta = betas[(i + form) % 4];
            call.lda = (call.trans_a ? s.m : s.k) + (i + form) % 3;
            call.ldb = (call.trans_b ? s.k : s.n) + i % 4;
            call.ldc = s.n + form % 2 * 5;
            int64_t n_a = call.lda * (call.trans_a ? s.k : s.m), n_b = call.ldb * (call.trans_b ? s.n : s.k);
            float *a = random_floats(n_a, 1 / sqrt((double)s.k)), *b = random_floats(n_b, 1);
            float *c = random_floats(s.m * call.ldc, 1);
            if (call.beta == 0) /* unset memory must not come through */
                for (int64_t j = 0; j < s.m; j++)
                    c[j * call.ldc] = NAN;
            call.a = a, call.b = b, call.c = c;
            check_call(&call, COMPUTE_F32, "gemm");
            guarded_free(a, n_a, "a"), guarded_free(b, n_b, "b"), guarded_free(c, s.m * call.ldc, "c");
        }
}

static void linear_cases(enum compute compute)
{
    static const enum dtype dtypes[] = {DT_F32, DT_BF16, DT_F16};
    for (int i = 0; i < 3 * N_SIZES; i++) {
        struct call call = {.kind = i % 2 ? LINEAR_BACK : LINEAR, .size = table_of_sizes[i % N_SIZES]};
        const struct sizes s = call.size;
        enum dtype dtype = dtypes[(i / N_SIZES + i) % 3];
        int64_t n_w = s.n * s.k;
        float *a = random_floats(s.m * (s.k + 3), 1 / sqrt((double)s.k)),
              *c = random_floats(s.m * (s.n + 2), 1);
        float *values = random_floats(n_w, 1);
        /* One element off: nothing may count on more than the alignment of elements. */
        size_t element = dtype_bytes(dtype);
        char *store = malloc(((size_t)n_w + 1) * element);
        dtype_from_f32(dtype, values, store + element, (size_t)n_w);
        call.weight = (struct weight){.n_out = i % 2 ? s.k : s.n, .n_in = i % 2 ? s.n : s.k, .dtype = dtype};
        call.weight.data = store + element;
        call.a = a, call.c = c;
        call.lda = s.k + 3, call.ldc = s.n + 2;
        call.accumulate = i % 5 < 2;
        check_call(&call, compute, i % 2 ? "linear_back" : "linear");
        guarded_free(a, s.m * call.lda, "a"), guarded_free(c, s.m * call.ldc, "c");
        guarded_free(values, n_w, "weight");
        free(store);
    }
}

static void test_linear_f32(void **state)
{
    linear_cases(COMPUTE_F32);
}

static void test_linear_bf16(void **state)
{
    linear_cases(COMPUTE_BF16);
}

/* bfloat16 operands are really rounded: 1 + 2^-9 becomes 1. */
static void test_bf16_rounds(void **state)
{
    for (int table = 0; table < 2; table++) {
        const struct ops *ops = ops_by_name(table ? "cpu" : "reference");
        struct device *dev = device_of(ops, "auto", 1, COMPUTE_BF16);
        float w[2] = {1.001953125f, 3}, x[2] = {1.001953125f, 0.001953125f}, y;
        struct weight weight = {.n_out = 1, .n_in = 2, .dtype = DT_F32, .data = w};
        struct err err = ERR_INIT;
        struct packed_form packed = packed_of(ops, dev, &weight);
        assert_int_equal(ops->weight_prepare(dev, &weight, packed.memory, true, &err), ST_OK);
        ops->linear(dev, &y, 1, x, 2, &weight, 1, false);
        assert_true(y == 1.005859375f);
        ops->weight_release(dev, &weight);
        packed_free(&packed);
        ops->close(dev);
    }
}

/* avx2 and avx512 do the same multiply-adds in the same order. */
static void test_paths_same_bits(void **state)
{
    struct sizes s = {50, 333, 2000};
    struct call call = {.kind = GEMM, .size = s, .trans_b = true, .alpha = 1, .beta = 1};
    call.lda = call.ldb = s.k, call.ldc = s.n;
    float *a = random_floats(s.m * s.k, 1), *b = random_floats(s.n * s.k, 1),
          *c = random_floats(s.m * s.n, 1);
    call.a = a, call.b = b, call.c = c;
    float *wide = call_run(&call, "cpu", "avx512", 2, COMPUTE_F32),
          *narrow = call_run(&call, "cpu", "avx2", 1, COMPUTE_F32);
    if (wide != NULL && narrow != NULL)
        assert_same_bits("avx2 and avx512", wide, narrow, s.m * s.n);
    if (wide != NULL)
        guarded_free(wide, s.m * s.n, "c");
    if (narrow != NULL)
        guarded_free(narrow, s.m * s.n, "c");
    guarded_free(a, s.m * s.k, "a"), guarded_free(b, s.n * s.k, "b"), guarded_free(c, s.m * s.n, "c");
}

static void test_bad_weights(void **state)
{
    float data[4] = {0};
    _Alignas(64) char memory[4096];
    const struct {
        struct weight weight;
        void *memory;
        enum status status, of_bytes; /* what prepare and weight_bytes say */
        const char *text;
    } cases[] = {
        {{.n_out = 2, .n_in = 2, .dtype = DT_F32, .data = NULL}, memory, ST_DEFECT, ST_OK, "without data"},
        {{.n_out = 0, .n_in = 2, .dtype = DT_F32, .data = data}, memory, ST_DEFECT, ST_DEFECT, "0 x 2"},
        {{.n_out = 2, .n_in = 2, .dtype = DT_I32, .data = data}, memory, ST_INPUT, ST_INPUT, "I32"},
        {{.n_out = INT64_MAX / 2, .n_in = 9, .dtype = DT_BF16, .data = data},
         memory,
         ST_INPUT,
         ST_INPUT,
         "too large"},
        {{.n_out = 1, .n_in = INT64_MAX / 64, .dtype = DT_BF16, .data = data},
         memory,
         ST_INPUT,
         ST_INPUT,
         "too large"},
        {{.n_out = 2, .n_in = 2, .dtype = DT_BF16, .data = (char *)data + 1},
         memory,
         ST_DEFECT,
         ST_OK,
         "does not begin on a whole BF16"},
        {{.n_out = 2, .n_in = 2, .dtype = DT_F32, .data = data}, NULL, ST_DEFECT, ST_OK, "without memory"},
        {{.n_out = 2, .n_in = 2, .dtype = DT_F32, .data = data},
         memory + 32,
         ST_DEFECT,
         ST_OK,
         "aligned to 64"},
    };
    for (int table = 0; table < 2; table++) {
        const struct ops *ops = ops_by_name(table ? "cpu" : "reference");
        struct device *dev = device_of(ops, "auto", 1, COMPUTE_BF16);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct weight w = cases[i].weight;
            struct err err = ERR_INIT;
            assert_int_equal(ops->weight_prepare(dev, &w, cases[i].memory, true, &err), cases[i].status);
            assert_non_null(strstr(err.what, cases[i].text));
            assert_null(w.prepared);
            ops->weight_release(dev, &w);
            size_t n = 1;
            err = (struct err)ERR_INIT;
            assert_int_equal(ops->weight_bytes(dev, &n, w.n_out, w.n_in, w.dtype, &err), cases[i].of_bytes);
            if (cases[i].of_bytes == ST_OK)
                assert_true(n >= 64 && n % 64 == 0);
            else
                assert_int_equal(n, 0);
        }
        ops->close(dev);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_linear_f32),
        cmocka_unit_test(test_linear_bf16),
        cmocka_unit_test(test_bf16_rounds),
        cmocka_unit_test(test_paths_same_bits),
        cmocka_unit_test(test_bad_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
