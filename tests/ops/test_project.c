/* Projections with LoRA: the cpu table against the reference, equal bits for any number of threads and for
 * any tokens beside a token, sums over tokens added to what was there. */
#include "ops_test.h"
#include "util/dtype.h"

enum { MAX_TOKENS = 600 };

/* n projections of x with their operands and what the way back starts from. */
struct scene {
    int64_t tokens, n_in, r[MAX_PROJECTIONS], n_out[MAX_PROJECTIONS];
    int n;
    float scaling;
    float *x, *w[MAX_PROJECTIONS], *a[MAX_PROJECTIONS], *b[MAX_PROJECTIONS], *dy[MAX_PROJECTIONS];
    float *da[MAX_PROJECTIONS], *db[MAX_PROJECTIONS]; /* before */
};

static void scene_open(struct scene *s, int c)
{
    static const int64_t widths[] = {1, 31, 32, 33, 64, 100, 192, 576, 700}, ranks[] = {0, 1, 8, 16, 33, 64};
    *s = (struct scene){.scaling = c % 2 ? 0.5f : 2, .n = 1 + c % MAX_PROJECTIONS};
    s->tokens = c < 4 ? c + 1 : random_int(1, c % 7 == 0 ? MAX_TOKENS : 150);
    s->n_in = widths[random_int(0, 8)];
    if (c % 11 == 0)
        s->n_in = 1500;
    s->x = random_floats(s->tokens * s->n_in, 1);
    for (int i = 0; i < s->n; i++) {
        s->n_out[i] = widths[random_int(0, 8)];
        s->r[i] = ranks[random_int(0, 5)];
        s->w[i] = random_floats(s->n_out[i] * s->n_in, 1 / sqrt((double)s->n_in));
        s->a[i] = random_floats(s->r[i] * s->n_in, 1 / sqrt((double)s->n_in));
        s->b[i] = random_floats(s->n_out[i] * s->r[i], 0.3);
        s->dy[i] = random_floats(s->tokens * s->n_out[i], 1 / sqrt((double)s->n_out[i]));
        s->da[i] = random_floats(s->r[i] * s->n_in, 1);
        s->db[i] = random_floats(s->n_out[i] * s->r[i], 1);
    }
}

static void scene_close(struct scene *s)
{
    guarded_free(s->x, s->tokens * s->n_in, "x");
    for (int i = 0; i < s->n; i++) {
        guarded_free(s->w[i], s->n_out[i] * s->n_in, "w");
        guarded_free(s->a[i], s->r[i] * s->n_in, "a");
        guarded_free(s->b[i], s->n_out[i] * s->r[i], "b");
        guarded_free(s->dy[i], s->tokens * s->n_out[i], "dy");
        guarded_free(s->da[i], s->r[i] * s->n_in, "da before");
        guarded_free(s->db[i], s->n_out[i] * s->r[i], "db before");
    }
}

struct result {
    float *y[MAX_PROJECTIONS], *u[MAX_PROJECTIONS], *da[MAX_PROJECTIONS], *db[MAX_PROJECTIONS], *dx;
};

static struct projection part_of(const struct scene *s, const struct result *r, int i, int64_t n_tokens,
                                 const struct weight *w)
{
    struct projection p = {.w = w, .r = s->r[i], .scaling = s->scaling, .y = r->y[i], .dy = s->dy[i]};
    if (s->tokens % 3 == 1) { /* something of the right size to add to */
        p.base = s->dy[i];
    } else if (s->tokens % 3 == 2) {
        memcpy(p.y, s->dy[i], (size_t)(n_tokens * s->n_out[i]) * sizeof *p.y);
        p.base = p.y;
    }
    if (s->r[i] > 0) {
        p.a = s->a[i], p.b = s->b[i], p.u = r->u[i];
        p.da = r->da[i], p.db = r->db[i];
    }
    return p;
}

/* Runs the scene's first n_tokens tokens both ways; false where the processor has not got the path. */
static bool result_make(struct result *r, const struct scene *s, int64_t n_tokens, const char *table,
                        const char *path, int n_threads, enum compute compute)
{
    const struct ops *ops = ops_by_name(table);
    struct device *dev = device_of(ops, path, n_threads, compute);
    struct err err = ERR_INIT;
    struct weight w[MAX_PROJECTIONS];
    struct projection parts[MAX_PROJECTIONS];
    void *memory[MAX_PROJECTIONS] = {0};
    *r = (struct result){.dx = NULL};
    if (dev == NULL)
        return false;
    r->dx = guarded(n_tokens * s->n_in);
    for (int i = 0; i < s->n; i++) {
        r->y[i] = guarded(n_tokens * s->n_out[i]);
        r->u[i] = guarded(n_tokens * s->r[i]);
        r->da[i] = copy_floats(s->da[i], s->r[i] * s->n_in);
        r->db[i] = copy_floats(s->db[i], s->n_out[i] * s->r[i]);
        w[i] = (struct weight){.n_out = s->n_out[i], .n_in = s->n_in, .dtype = DT_F32, .data = s->w[i]};
        size_t n_bytes;
        assert_int_equal(ops->weight_bytes(dev, &n_bytes, w[i].n_out, w[i].n_in, DT_F32, &err), ST_OK);
        memory[i] = n_bytes > 0 ? aligned_alloc(64, n_bytes) : NULL;
        assert_int_equal(ops->weight_prepare(dev, &w[i], memory[i], true, &err), ST_OK);
        parts[i] = part_of(s, r, i, n_tokens, &w[i]);
    }
    ops->project(dev, parts, s->n, s->x, n_tokens);
    ops->project_back(dev, parts, s->n, r->dx, s->x, n_tokens);
    for (int i = 0; i < s->n; i++) {
        ops->weight_release(dev, &w[i]);
        free(memory[i]);
    }
    ops->close(dev);
    return true;
}

static void result_free(struct result *r, const struct scene *s, int64_t n_tokens)
{
    guarded_free(r->dx, n_tokens * s->n_in, "dx");
    for (int i = 0; i < s->n; i++) {
        guarded_free(r->y[i], n_tokens * s->n_out[i], "y");
        guarded_free(r->u[i], n_tokens * s->r[i], "u");
        guarded_free(r->da[i], s->r[i] * s->n_in, "da");
        guarded_free(r->db[i], s->n_out[i] * s->r[i], "db");
    }
}

/* tolerance 0: the same bits. u is rounded between two products: a last bit of it may fall to the other side.
 */
static void check(const struct scene *s, const struct result *got, const struct result *want,
                  int64_t n_tokens, bool sums, double tolerance)
{
#define CHECK(what, n)                                                                                       \
    do                                                                                                       \
        if (tolerance > 0)                                                                                   \
            assert_close(#what, got->what, want->what, n, tolerance);                                        \
        else                                                                                                 \
            assert_same_bits(#what, got->what, want->what, n);                                               \
    while (0)
    CHECK(dx, n_tokens * s->n_in);
    for (int i = 0; i < s->n; i++) {
        CHECK(y[i], n_tokens * s->n_out[i]);
        if (s->r[i] > 0)
            CHECK(u[i], n_tokens * s->r[i]);
        if (sums) {
            CHECK(da[i], s->r[i] * s->n_in);
            CHECK(db[i], s->n_out[i] * s->r[i]);
        }
    }
#undef CHECK
}

static void cases(enum compute compute, const char *const *paths, int n_paths, double tolerance)
{
    for (int c = 0; c < 30; c++) {
        struct scene s;
        struct result want, got, other;
        scene_open(&s, c);
        int64_t few = random_int(1, s.tokens);
        assert_true(result_make(&want, &s, s.tokens, "reference", NULL, 1, compute));
        for (int p = 0; p < n_paths; p++) {
            if (!result_make(&got, &s, s.tokens, "cpu", paths[p], 1, compute))
                continue;
            check(&s, &got, &want, s.tokens, true, tolerance);
            for (int n_threads = 2; n_threads <= 4; n_threads++) {
                assert_true(result_make(&other, &s, s.tokens, "cpu", paths[p], n_threads, compute));
                check(&s, &other, &got, s.tokens, true, 0);
                result_free(&other, &s, s.tokens);
            }
            assert_true(result_make(&other, &s, few, "cpu", paths[p], 2, compute));
            check(&s, &other, &got, few, false, 0);
            result_free(&other, &s, few);
            result_free(&got, &s, s.tokens);
        }
        result_free(&want, &s, s.tokens);
        scene_close(&s);
    }
}

static void test_float32(void **state)
{
    cases(COMPUTE_F32, test_paths, N_TEST_PATHS, 2e-5);
}

static void test_bfloat16_in_tiles(void **state)
{
    static const char *const paths[] = {"amx", "avx512_bf16"};
    cases(COMPUTE_BF16, paths, 2, 4e-3);
}

/* Here LoRA's operands are not rounded. */
static void test_bfloat16_elsewhere(void **state)
{
    cases(COMPUTE_BF16, test_paths, N_TEST_PATHS, 3e-2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float32),
        cmocka_unit_test(test_bfloat16_in_tiles),
        cmocka_unit_test(test_bfloat16_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
