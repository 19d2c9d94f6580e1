/* The gated MLP as one operation: the cpu table against the reference, which makes it of others; equal bits
 * for any number of threads and any way to cut the tokens into calls, and the bits of the single operations.
 */
#include "ops_test.h"
#include "util/dtype.h"

enum { MATRICES = 3 };

struct scene {
    int64_t tokens, hidden, width, r;
    enum act_kind act;
    float *x, *base, *dy, *w[MATRICES], *a[MATRICES], *b[MATRICES];
};

static int64_t n_in(const struct scene *s, int i)
{
    return i == 2 ? s->width : s->hidden;
}
static int64_t n_out(const struct scene *s, int i)
{
    return i == 2 ? s->hidden : s->width;
}

static void scene_open(struct scene *s, int c)
{
    static const int64_t sizes[] = {1, 24, 33, 64, 100, 192, 300}, ranks[] = {0, 1, 8, 16, 40};
    *s = (struct scene){.act = c % 2 ? ACT_SILU : ACT_GELU_TANH, .r = ranks[c % 5]};
    s->tokens = c < 3 ? c + 1 : random_int(1, c % 6 == 0 ? 400 : 90);
    s->hidden = sizes[random_int(0, 6)];
    s->width = sizes[random_int(0, 6)];
    s->x = random_floats(s->tokens * s->hidden, 1);
    s->base = random_floats(s->tokens * s->hidden, 1);
    s->dy = random_floats(s->tokens * s->hidden, 1);
    for (int i = 0; i < MATRICES; i++) {
        double size = 1 / sqrt((double)n_in(s, i));
        s->w[i] = random_floats(n_in(s, i) * n_out(s, i), size);
        s->a[i] = random_floats(s->r * n_in(s, i), size);
        s->b[i] = random_floats(s->r * n_out(s, i), 0.3);
    }
}

static void scene_close(struct scene *s)
{
    guarded_free(s->x, s->tokens * s->hidden, "x");
    guarded_free(s->base, s->tokens * s->hidden, "base");
    guarded_free(s->dy, s->tokens * s->hidden, "dy");
    for (int i = 0; i < MATRICES; i++) {
        guarded_free(s->w[i], n_in(s, i) * n_out(s, i), "w");
        guarded_free(s->a[i], s->r * n_in(s, i), "a");
        guarded_free(s->b[i], s->r * n_out(s, i), "b");
    }
}

struct result {
    float *y, *u[MATRICES], *da[MATRICES], *db[MATRICES], *dx;
};

static void result_alloc(struct result *r, const struct scene *s)
{
    r->dx = guarded(s->tokens * s->hidden);
    r->y = guarded(s->tokens * s->hidden);
    for (int i = 0; i < MATRICES; i++) {
        r->u[i] = guarded(s->tokens * s->r);
        r->da[i] = copy_floats(s->a[i], s->r * n_in(s, i)); /* any numbers to add to */
        r->db[i] = copy_floats(s->b[i], s->r * n_out(s, i));
    }
}

static void result_free(struct result *r, const struct scene *s)
{
    guarded_free(r->dx, s->tokens * s->hidden, "dx");
    guarded_free(r->y, s->tokens * s->hidden, "y");
    for (int i = 0; i < MATRICES; i++) {
        guarded_free(r->u[i], s->tokens * s->r, "u");
        guarded_free(r->da[i], s->r * n_in(s, i), "da");
        guarded_free(r->db[i], s->r * n_out(s, i), "db");
    }
}

/* Whether the table rounds what it keeps. */
static bool keeps_bf16(const struct ops *ops, struct device *dev)
{
    return ops->mlp_kept_bytes(dev, 64, 64) < 2 * 64 * 64 * sizeof(float);
}

/* Memory for what m keeps, with rows of others in front and behind. */
static void *kept_alloc(const struct ops *ops, struct device *dev, struct mlp *m, const struct scene *s)
{
    m->kept_first = s->tokens % 5 * 11;
    m->kept_room = m->kept_first + s->tokens + s->tokens % 3;
    size_t n_bytes = ops->mlp_kept_bytes(dev, s->width, m->kept_room);
    m->kept = ops->alloc(dev, n_bytes);
    assert_non_null(m->kept);
    memset(m->kept, 0xff, n_bytes);
    return m->kept;
}

/* Forward and back by mlp, mlp_back. */
static void run_whole(const struct ops *ops, struct device *dev, struct mlp *m, const struct scene *s,
                      float *dx)
{
    void *kept = kept_alloc(ops, dev, m, s);
    ops->mlp(dev, m, s->x, s->tokens);
    ops->mlp_back(dev, m, dx, s->x, s->tokens);
    ops->release(dev, kept);
}

/* The last tokens first, in a call of their own. */
static void run_cut(const struct ops *ops, struct device *dev, struct mlp *m, const struct scene *s,
                    float *dx)
{
    void *kept = kept_alloc(ops, dev, m, s);
    int64_t cut = s->tokens * 2 / 3;
    struct mlp last = *m;
    struct projection *parts[] = {&last.gate, &last.up, &last.down};
    for (int i = 0; i < MATRICES && s->r > 0; i++)
        parts[i]->u += cut * s->r;
    last.down.y += cut * s->hidden;
    last.down.base += cut * s->hidden;
    last.kept_first += cut;
    ops->mlp(dev, &last, s->x + cut * s->hidden, s->tokens - cut);
    ops->mlp(dev, m, s->x, cut);
    ops->mlp_back(dev, m, dx, s->x, s->tokens);
    ops->release(dev, kept);
}

static bool reference_rounds; /* gate and up as a table that keeps bfloat16 */

/* The operations that they are made of. */
static void run_parts(const struct ops *ops, struct device *dev, struct mlp *m, const struct scene *s,
                      float *dx)
{
    int64_t n = s->tokens * s->width;
    struct projection both[] = {m->gate, m->up};
    float *act = guarded(n), *dact = guarded(n), *dgate = guarded(n), *dup = guarded(n);
    float *gate = both[0].y = guarded(n), *up = both[1].y = guarded(n);
    ops->project(dev, both, 2, s->x, s->tokens);
    ops->act_mul(dev, s->act, act, gate, up, n);
    ops->project(dev, &m->down, 1, act, s->tokens);
    for (int64_t i = 0; i < n && (reference_rounds || keeps_bf16(ops, dev)); i++) {
        gate[i] = bf16_to_f32(bf16_from_f32(gate[i]));
        up[i] = bf16_to_f32(bf16_from_f32(up[i]));
    }
    ops->act_mul(dev, s->act, act, gate, up, n);
    ops->project_back(dev, &m->down, 1, dact, act, s->tokens);
    ops->act_mul_back(dev, s->act, dgate, dup, dact, gate, up, n);
    both[0].dy = dgate, both[1].dy = dup;
    ops->project_back(dev, both, 2, dx, s->x, s->tokens);
    guarded_free(act, n, "act"), guarded_free(dact, n, "dact");
    guarded_free(dgate, n, "dgate"), guarded_free(dup, n, "dup");
    guarded_free(gate, n, "gate"), guarded_free(up, n, "up");
}

typedef void run_fn(const struct ops *ops, struct device *dev, struct mlp *m, const struct scene *s,
                    float *dx);

static bool result_make(struct result *r, const struct scene *s, const char *table, const char *path,
                        int n_threads, enum compute compute, run_fn *run)
{
    const struct ops *ops = ops_by_name(table);
    struct device *dev = device_of(ops, path, n_threads, compute);
    struct err err = ERR_INIT;
    struct weight w[MATRICES];
    void *memory[MATRICES];
    struct mlp m = {.act = s->act};
    struct projection *parts[] = {&m.gate, &m.up, &m.down};
    if (dev == NULL)
        return false;
    result_alloc(r, s);
    for (int i = 0; i < MATRICES; i++) {
        w[i] = (struct weight){.n_out = n_out(s, i), .n_in = n_in(s, i), .dtype = DT_F32, .data = s->w[i]};
        size_t n_bytes;
        assert_int_equal(ops->weight_bytes(dev, &n_bytes, w[i].n_out, w[i].n_in, DT_F32, &err), ST_OK);
        memory[i] = n_bytes > 0 ? aligned_alloc(64, n_bytes) : NULL;
        assert_int_equal(ops->weight_prepare(dev, &w[i], memory[i], true, &err), ST_OK);
        *parts[i] = (struct projection){.w = &w[i], .r = s->r, .scaling = 2};
        if (s->r > 0) {
            parts[i]->a = s->a[i], parts[i]->b = s->b[i], parts[i]->u = r->u[i];
            parts[i]->da = r->da[i], parts[i]->db = r->db[i];
        }
    }
    m.down.y = r->y;
    m.down.base = s->base;
    m.down.dy = s->dy;
    run(ops, dev, &m, s, r->dx);
    for (int i = 0; i < MATRICES; i++) {
        ops->weight_release(dev, &w[i]);
        free(memory[i]);
    }
    ops->close(dev);
    return true;
}

/* tolerance 0: the same bits. */
static void check(const struct scene *s, const struct result *got, const struct result *want,
                  double tolerance)
{
#define CHECK(what, n)                                                                                       \
    do                                                                                                       \
        if (tolerance > 0)                                                                                   \
            assert_close(#what, got->what, want->what, n, tolerance);                                        \
        else                                                                                                 \
            assert_same_bits(#what, got->what, want->what, n);                                               \
    while (0)
    CHECK(dx, s->tokens * s->hidden);
    CHECK(y, s->tokens * s->hidden);
    for (int i = 0; i < MATRICES; i++) {
        CHECK(da[i], s->r * n_in(s, i));
        CHECK(db[i], s->r * n_out(s, i));
    }
#undef CHECK
}

/* The reference; rounding what gate and up give where the other table does. */
static void want_make(struct result *want, const struct scene *s, const char *path, enum compute compute)
{
    struct device *dev = device_of(ops_by_name("cpu"), path, 1, compute);
    reference_rounds = keeps_bf16(ops_by_name("cpu"), dev);
    ops_by_name("cpu")->close(dev);
    assert_true(
        result_make(want, s, "reference", NULL, 1, compute, reference_rounds ? run_parts : run_whole));
    reference_rounds = false;
}

static void cases(enum compute compute, const char *const *paths, int n_paths, double tolerance)
{
    for (int c = 0; c < 24; c++) {
        struct scene s;
        struct result want, got, other;
        scene_open(&s, c);
        for (int p = 0; p < n_paths; p++) {
            if (!result_make(&got, &s, "cpu", paths[p], 1, compute, run_whole))
                continue;
            want_make(&want, &s, paths[p], compute);
            check(&s, &got, &want, tolerance);
            for (int n_threads = 2; n_threads <= 3; n_threads++) {
                assert_true(result_make(&other, &s, "cpu", paths[p], n_threads, compute, run_whole));
                check(&s, &other, &got, 0);
                result_free(&other, &s);
            }
            run_fn *const others[] = {run_parts, run_cut};
            for (int i = 0; i < 2; i++) {
                assert_true(result_make(&other, &s, "cpu", paths[p], 2, compute, others[i]));
                check(&s, &other, &got, 0);
                result_free(&other, &s);
            }
            result_free(&got, &s);
            result_free(&want, &s);
        }
        scene_close(&s);
    }
}

static void test_float32(void **state)
{
    cases(COMPUTE_F32, test_paths, N_TEST_PATHS, 3e-5);
}

/* Intermediate values are rounded between products: a last bit of one may fall to the other side. */
static void test_bfloat16(void **state)
{
    static const char *const paths[] = {"amx", "avx512_bf16"};
    cases(COMPUTE_BF16, paths, 2, 1.5e-2);
    cases(COMPUTE_BF16, test_paths, N_TEST_PATHS, 5e-2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float32),
        cmocka_unit_test(test_bfloat16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
