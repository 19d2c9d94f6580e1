/* Attention on panels of bfloat16, as compute=bfloat16 has it where the processor multiplies them. */
#include "attention_scene.h"

static const char *const tile_paths[] = {"amx", "avx512_bf16"};
enum { N_TILE_PATHS = sizeof tile_paths / sizeof tile_paths[0] };

static bool path_is_there(int path)
{
    struct device *dev = device_of(ops_by_name("cpu"), tile_paths[path], 1, COMPUTE_BF16);
    if (dev != NULL)
        ops_by_name("cpu")->close(dev);
    return dev != NULL;
}
static void skip_without_paths(void)
{
    for (int p = 0; p < N_TILE_PATHS; p++)
        if (path_is_there(p))
            return;
    printf("this processor multiplies no bfloat16\n");
    skip();
}

/* The same scene with every operand rounded to bfloat16. */
static void scene_round(struct scene *rounded, const struct scene *s)
{
    *rounded = *s;
    float **arrays[] = {&rounded->q, &rounded->k, &rounded->v, &rounded->dout};
    const int64_t n[] = {s->n_q, s->n_kv, s->n_kv, s->n_q};
    for (int i = 0; i < 4; i++) {
        *arrays[i] = copy_floats(*arrays[i], n[i]);
        for (int64_t j = 0; j < n[i]; j++)
            (*arrays[i])[j] = bf16_to_f32(bf16_from_f32((*arrays[i])[j]));
    }
}
static void rounded_free(struct scene *rounded)
{
    guarded_free(rounded->q, rounded->n_q, "q");
    guarded_free(rounded->k, rounded->n_kv, "k");
    guarded_free(rounded->v, rounded->n_kv, "v");
    guarded_free(rounded->dout, rounded->n_q, "dout");
}

/* The error is small on the whole, and nowhere large: a P of 1/2 or a dS of 1 may be off by 2^-9, and a
 * gradient is large in a few places. */
static void assert_rounded(const char *what, const float *a, const float *b, int64_t n)
{
    double errors = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        errors += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        squares += (double)b[i] * (double)b[i];
    }
    if (!(sqrt(errors) <= 3e-3 * sqrt(squares) + 1e-5 * sqrt((double)n)))
        fail_msg("%s: off by %.3g in all, of %.3g", what, sqrt(errors), sqrt(squares));
    assert_close(what, a, b, n, 4e-2);
}

/* From rounded operands only P and dS are off, by up to 2^-9 of each (dS of a row that sees few keys is about
 * 1); from others the bits are the same. */
static void check_scene(const struct scene *s)
{
    struct scene rounded;
    struct result want, from_rounded, got[3];
    scene_round(&rounded, s);
    result_make(&want, "reference", NULL, COMPUTE_F32, 1, &rounded);
    for (int p = 0; p < N_TILE_PATHS; p++) {
        result_make(&from_rounded, "cpu", tile_paths[p], COMPUTE_BF16, 1, &rounded);
        for (int n_threads = 1; n_threads <= 3; n_threads++)
            result_make(&got[n_threads - 1], "cpu", tile_paths[p], COMPUTE_BF16, n_threads, s);
        if (from_rounded.out != NULL) {
            assert_close("lse", from_rounded.lse, want.lse, s->n_q / s->shape.head_dim, 5e-6);
            assert_rounded("out", from_rounded.out, want.out, s->n_q);
            assert_rounded("dq", from_rounded.dq, want.dq, s->n_q);
            assert_rounded("dk", from_rounded.dk, want.dk, s->n_kv);
            assert_rounded("dv", from_rounded.dv, want.dv, s->n_kv);
            for (int i = 0; i < 3; i++)
                result_same(&got[i], &from_rounded, s);
        }
        for (int i = 0; i < 3; i++)
            result_free(&got[i], s);
        result_free(&from_rounded, s);
    }
    result_free(&want, s);
    rounded_free(&rounded);
}

static void test_against_reference(void **state)
{
    skip_without_paths();
    for (int c = 0; c < 40; c++) {
        struct scene s;
        int h = c % N_HEADS;
        int32_t tokens = c < 4 ? c + 1 : (int32_t)random_int(5, c % 8 == 1 ? 450 : 200),
                window = c % 3 == 2 ? (int32_t)random_int(1, 70) : 0;
        scene_open(&s, tokens, heads[h].kv_heads, heads[h].group, heads[h].d, window, c % 4 != 1);
        check_scene(&s);
        scene_close(&s);
    }
}

/* One row longer than what the way back takes at a time, in several parts; then such a row below a prefix. */
static void test_long_rows(void **state)
{
    skip_without_paths();
    for (int c = 0; c < 4; c++) {
        struct scene s;
        scene_open(&s, 1300, 1, c < 2 ? 1 : 3, 32, c % 2 ? 611 : 0, false);
        s.shape.n_segments = c < 2 ? 1 : 3;
        s.segments[0] = (struct segment){0, c < 2 ? 1300 : 170, -1, 0};
        s.segments[1] = (struct segment){170, 1030, 0, 0};
        s.segments[2] = (struct segment){1200, 100, 0, 1};
        for (int32_t t = 0; t < 1300; t++)
            s.positions[t] = c >= 2 && t >= 1200 ? t - 1030 : t;
        check_scene(&s);
        scene_close(&s);
    }
}

static void test_chosen_queries_same_bits(void **state)
{
    skip_without_paths();
    for (int c = 0; c < 24; c++) {
        struct scene s, some, whole;
        int32_t queries[400], tokens = c < 3 ? c + 1 : (int32_t)random_int(5, c % 8 == 1 ? 400 : 150);
        int h = c % N_HEADS;
        scene_open(&s, tokens, heads[h].kv_heads, heads[h].group, heads[h].d,
                   c % 3 == 2 ? (int32_t)random_int(1, 70) : 0, c % 4 != 1);
        scene_choose(&some, &whole, &s, queries);
        for (int p = 0; p < N_TILE_PATHS; p++)
            for (int n_threads = 1; n_threads <= 3; n_threads++)
                check_chosen("cpu", tile_paths[p], COMPUTE_BF16, n_threads, &some, &whole);
        guarded_free(some.q, some.n_q, "q");
        guarded_free(some.dout, some.n_q, "dout");
        guarded_free(whole.dout, whole.n_q, "dout");
        scene_close(&s);
    }
}

/* Whether segment s goes on from `from`, or is it. */
static bool is_below(const struct scene *scene, int32_t s, int32_t from)
{
    while (s >= 0 && s != from)
        s = scene->segments[s].parent;
    return s == from;
}
static void fill_tokens(float *x, int64_t row, const struct segment *s, float value)
{
    for (int64_t i = s->start * row; i < (s->start + s->n_tokens) * row; i++)
        x[i] = value;
}

/* With one segment not a number, what neither sees it nor is seen together with it keeps every bit. */
static void check_leak(const struct scene *s, int path, int32_t bad)
{
    struct scene spoilt;
    struct result before, after;
    int64_t q = s->n_q / s->shape.n_tokens, kv = s->n_kv / s->shape.n_tokens, n_heads = s->shape.n_q_heads;
    scene_round(&spoilt, s);
    fill_tokens(spoilt.q, q, &s->segments[bad], NAN);
    fill_tokens(spoilt.k, kv, &s->segments[bad], NAN);
    fill_tokens(spoilt.v, kv, &s->segments[bad], NAN);
    fill_tokens(spoilt.dout, q, &s->segments[bad], NAN);
    result_make(&before, "cpu", tile_paths[path], COMPUTE_BF16, 2, s);
    result_make(&after, "cpu", tile_paths[path], COMPUTE_BF16, 2, &spoilt);
    for (int32_t i = 0; before.out != NULL && i < s->shape.n_segments; i++) {
        int64_t t = s->segments[i].start, n = s->segments[i].n_tokens;
        if (!is_below(s, i, bad)) {
            assert_same_bits("out", after.out + t * q, before.out + t * q, n * q);
            assert_same_bits("lse", after.lse + t * n_heads, before.lse + t * n_heads, n * n_heads);
            assert_same_bits("dq", after.dq + t * q, before.dq + t * q, n * q);
        } else if (i == bad && n > 0) {
            assert_true(isnan(after.out[t * q]));
        }
        if (is_below(s, i, bad) || is_below(s, bad, i))
            continue;
        bool seen_by_bad = false; /* a segment's keys get gradients from all that goes on from it */
        for (int32_t j = 0; j < s->shape.n_segments; j++)
            seen_by_bad = seen_by_bad || (is_below(s, j, bad) && is_below(s, j, i));
        if (seen_by_bad)
            continue;
        assert_same_bits("dk", after.dk + t * kv, before.dk + t * kv, n * kv);
        assert_same_bits("dv", after.dv + t * kv, before.dv + t * kv, n * kv);
    }
    result_free(&before, s);
    result_free(&after, s);
    rounded_free(&spoilt);
}
static void test_no_leak(void **state)
{
    skip_without_paths();
    for (int c = 0; c < 16; c++) {
        struct scene s;
        int h = c % N_HEADS;
        scene_open(&s, (int32_t)random_int(40, 300), heads[h].kv_heads, heads[h].group, heads[h].d,
                   c % 3 == 2 ? (int32_t)random_int(1, 70) : 0, c % 4 != 1);
        for (int p = 0; p < N_TILE_PATHS; p++)
            check_leak(&s, p, (int32_t)random_int(0, s.shape.n_segments - 1));
        scene_close(&s);
    }
}

/* A packed sequence's rows have the same bits when another one's stand in front of them. */
static void check_place(const struct scene *front, const struct scene *s, int path)
{
    static struct scene both; /* holds the segments of both */
    struct result alone, behind;
    int32_t t = front->shape.n_tokens, n = front->shape.n_segments;
    int64_t q = s->n_q / s->shape.n_tokens, kv = s->n_kv / s->shape.n_tokens;
    scene_open(&both, t + s->shape.n_tokens, s->shape.n_kv_heads, s->shape.n_q_heads / s->shape.n_kv_heads,
               s->shape.head_dim, s->shape.window, false);
    both.shape.n_segments = n + s->shape.n_segments;
    for (int32_t i = 0; i < both.shape.n_segments; i++) {
        both.segments[i] = i < n ? front->segments[i] : s->segments[i - n];
        both.segments[i].start += i < n ? 0 : t;
        both.segments[i].parent += i < n || both.segments[i].parent < 0 ? 0 : n;
    }
    memcpy(both.positions, front->positions, (size_t)t * sizeof *both.positions);
    memcpy(both.positions + t, s->positions, (size_t)s->shape.n_tokens * sizeof *both.positions);
    memcpy(both.q + t * q, s->q, (size_t)s->n_q * sizeof(float));
    memcpy(both.dout + t * q, s->dout, (size_t)s->n_q * sizeof(float));
    memcpy(both.k + t * kv, s->k, (size_t)s->n_kv * sizeof(float));
    memcpy(both.v + t * kv, s->v, (size_t)s->n_kv * sizeof(float));
    result_make(&alone, "cpu", tile_paths[path], COMPUTE_BF16, 1, s);
    result_make(&behind, "cpu", tile_paths[path], COMPUTE_BF16, 2, &both);
    if (alone.out != NULL) {
        assert_same_bits("out", behind.out + t * q, alone.out, s->n_q);
        assert_same_bits("lse", behind.lse + t * s->shape.n_q_heads, alone.lse, s->n_q / s->shape.head_dim);
        assert_same_bits("dq", behind.dq + t * q, alone.dq, s->n_q);
        assert_same_bits("dk", behind.dk + t * kv, alone.dk, s->n_kv);
        assert_same_bits("dv", behind.dv + t * kv, alone.dv, s->n_kv);
    }
    result_free(&alone, s);
    result_free(&behind, &both);
    scene_close(&both);
}
static void test_place_in_the_sequence(void **state)
{
    skip_without_paths();
    for (int c = 0; c < 12; c++) {
        struct scene front, s;
        int h = c % N_HEADS;
        int32_t window = c % 3 == 2 ? (int32_t)random_int(1, 70) : 0;
        scene_open(&front, (int32_t)random_int(1, 150), heads[h].kv_heads, heads[h].group, heads[h].d, window,
                   true);
        scene_open(&s, (int32_t)random_int(1, 400), heads[h].kv_heads, heads[h].group, heads[h].d, window,
                   true);
        if (front.shape.n_segments + s.shape.n_segments <= MAX_SEGMENTS)
            for (int p = 0; p < N_TILE_PATHS; p++)
                check_place(&front, &s, p);
        scene_close(&front);
        scene_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),        cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_chosen_queries_same_bits), cmocka_unit_test(test_no_leak),
        cmocka_unit_test(test_place_in_the_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
