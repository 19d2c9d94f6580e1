/* Attention: the cpu table against the reference, the reference against finite differences. */
#include "attention_scene.h"

static void test_against_reference(void **state)
{
    for (int c = 0; c < 40; c++) {
        struct scene s;
        struct result want, got[3];
        int h = c % N_HEADS;
        int32_t tokens = c < 4 ? c + 1 : (int32_t)random_int(5, c % 8 == 1 ? 450 : 200),
                window = c % 3 == 2 ? (int32_t)random_int(1, 70) : 0;
        scene_open(&s, tokens, heads[h].kv_heads, heads[h].group, heads[h].d, window, c % 4 != 1);
        result_make(&want, "reference", NULL, COMPUTE_F32, 1, &s);
        for (int p = 0; p < N_TEST_PATHS; p++) {
            for (int n_threads = 1; n_threads <= 3; n_threads++)
                result_make(&got[n_threads - 1], "cpu", test_paths[p], COMPUTE_F32, n_threads, &s);
            if (got[0].out != NULL) {
                assert_close("out", got[0].out, want.out, s.n_q, 1e-5);
                assert_close("lse", got[0].lse, want.lse, s.n_q / s.shape.head_dim, 5e-6);
                assert_close("dq", got[0].dq, want.dq, s.n_q, 4e-5);
                assert_close("dk", got[0].dk, want.dk, s.n_kv, 4e-5);
                assert_close("dv", got[0].dv, want.dv, s.n_kv, 4e-5);
                result_same(&got[0], &got[1], &s);
                result_same(&got[0], &got[2], &s);
            }
            for (int i = 0; i < 3; i++)
                result_free(&got[i], &s);
        }
        result_free(&want, &s);
        scene_close(&s);
    }
}

/* Some of the queries alone get the bits that they get among all. */
static void test_chosen_queries_same_bits(void **state)
{
    for (int c = 0; c < 24; c++) {
        struct scene s, some, whole;
        int32_t queries[400], tokens = c < 3 ? c + 1 : (int32_t)random_int(5, c % 8 == 1 ? 400 : 150);
        int h = c % N_HEADS;
        scene_open(&s, tokens, heads[h].kv_heads, heads[h].group, heads[h].d,
                   c % 3 == 2 ? (int32_t)random_int(1, 70) : 0, c % 4 != 1);
        scene_choose(&some, &whole, &s, queries);
        check_chosen("reference", NULL, COMPUTE_F32, 1, &some, &whole);
        for (int p = 0; p < N_TEST_PATHS; p++)
            for (int n_threads = 1; n_threads <= 3; n_threads++)
                check_chosen("cpu", test_paths[p], COMPUTE_F32, n_threads, &some, &whole);
        guarded_free(some.q, some.n_q, "q");
        guarded_free(some.dout, some.n_q, "dout");
        guarded_free(whole.dout, whole.n_q, "dout");
        scene_close(&s);
    }
}

/* One tree, one key/value head: one thread goes through whole trees, four threads split; long enough for
 * several blocks and tiles. */
static void test_plans_same_bits(void **state)
{
    for (int32_t window = 0; window <= 300; window += 150) {
        struct scene s;
        struct result one, four;
        scene_open(&s, 700, 1, 3, 32, window, true);
        for (int32_t i = 1; i < s.shape.n_segments; i++)
            s.segments[i].parent = i > 2 && i % 2 ? 2 : 0;
        for (int32_t i = 0; i < s.shape.n_segments; i++) {
            int32_t before = 0;
            for (int32_t p = s.segments[i].parent; p >= 0; p = s.segments[p].parent)
                before += s.segments[p].n_tokens;
            for (int32_t j = 0; j < s.segments[i].n_tokens; j++)
                s.positions[s.segments[i].start + j] = before + j;
        }
        result_make(&one, "cpu", "auto", COMPUTE_F32, 1, &s);
        result_make(&four, "cpu", "auto", COMPUTE_F32, 4, &s);
        result_same(&one, &four, &s);
        result_free(&one, &s);
        result_free(&four, &s);
        scene_close(&s);
    }
}

/* A prefix of 37 tokens and two rows of 50, once shared and once written out twice: the rows' outputs have
 * the same bits. */
static void test_shared_prefix_same_bits(void **state)
{
    enum { PREFIX = 37, ROW = 50, D = 24, Q = 3, K = 1 };
    struct segment shared[] = {{0, PREFIX, -1, -1}, {PREFIX, ROW, 0, 0}, {PREFIX + ROW, ROW, 0, 1}};
    struct segment apart[] = {{0, PREFIX + ROW, -1, 0}, {PREFIX + ROW, PREFIX + ROW, -1, 1}};
    enum { T1 = PREFIX + 2 * ROW, T2 = 2 * (PREFIX + ROW) };
    int32_t positions1[T1], positions2[T2], from[T2];
    for (int i = 0; i < T2; i++) {
        positions2[i] = i % (PREFIX + ROW);
        from[i] = i < PREFIX + ROW || positions2[i] >= PREFIX ? i : positions2[i];
        if (i >= PREFIX + ROW && positions2[i] >= PREFIX)
            from[i] = i - PREFIX;
    }
    for (int i = 0; i < T2; i++)
        positions1[from[i]] = positions2[i];
    const struct ops *ops = ops_by_name("cpu");
    for (int32_t window = 0; window <= 40; window += 20) {
        float *q1 = random_floats(T1 * Q * D, 1), *k1 = random_floats(T1 * K * D, 1),
              *v1 = random_floats(T1 * K * D, 1);
        float *q2 = guarded(T2 * Q * D), *k2 = guarded(T2 * K * D), *v2 = guarded(T2 * K * D);
        for (int i = 0; i < T2; i++) {
            memcpy(q2 + i * Q * D, q1 + from[i] * Q * D, Q * D * sizeof *q1);
            memcpy(k2 + i * K * D, k1 + from[i] * K * D, K * D * sizeof *q1);
            memcpy(v2 + i * K * D, v1 + from[i] * K * D, K * D * sizeof *q1);
        }
        struct attention_shape a = {T1, 3, shared, positions1, Q, K, D, window, 0.2f, NULL, 0};
        struct attention_shape b = {T2, 2, apart, positions2, Q, K, D, window, 0.2f, NULL, 0};
        float *out1 = guarded(T1 * Q * D), *out2 = guarded(T2 * Q * D), *lse1 = guarded(T1 * Q),
              *lse2 = guarded(T2 * Q);
        struct device *dev = device_of(ops, "auto", 2, COMPUTE_F32);
        ops->attention(dev, out1, lse1, q1, k1, v1, &a);
        ops->attention(dev, out2, lse2, q2, k2, v2, &b);
        ops->close(dev);
        for (int i = 0; i < T2; i++) {
            assert_same_bits("out", out2 + i * Q * D, out1 + from[i] * Q * D, Q * D);
            assert_same_bits("lse", lse2 + i * Q, lse1 + from[i] * Q, Q);
        }
        guarded_free(q1, T1 * Q * D, "q"), guarded_free(k1, T1 * K * D, "k"),
            guarded_free(v1, T1 * K * D, "v");
        guarded_free(q2, T2 * Q * D, "q"), guarded_free(k2, T2 * K * D, "k"),
            guarded_free(v2, T2 * K * D, "v");
        guarded_free(out1, T1 * Q * D, "out"), guarded_free(out2, T2 * Q * D, "out");
        guarded_free(lse1, T1 * Q, "lse"), guarded_free(lse2, T2 * Q, "lse");
    }
}

/* L = sum(dout * out), by the definition, in double. */
static double loss(const struct scene *s, const double *q, const double *k, const double *v)
{
    const struct attention_shape *a = &s->shape;
    int32_t d = a->head_dim;
    double total = 0;
    for (int32_t si = 0; si < a->n_segments; si++)
        for (int32_t t = s->segments[si].start; t < s->segments[si].start + s->segments[si].n_tokens; t++)
            for (int32_t h = 0; h < a->n_q_heads; h++) {
                double sum = 0, value = 0;
                for (int32_t c = si; c >= 0; c = s->segments[c].parent)
                    for (int32_t j = s->segments[c].start; j < s->segments[c].start + s->segments[c].n_tokens;
                         j++) {
                        if (j > t || (a->window > 0 && s->positions[j] <= s->positions[t] - a->window))
                            continue;
                        int64_t key = ((int64_t)j * a->n_kv_heads + h / (a->n_q_heads / a->n_kv_heads)) * d;
                        int64_t row = ((int64_t)t * a->n_q_heads + h) * d;
                        double score = 0, along = 0;
                        for (int32_t e = 0; e < d; e++) {
                            score += q[row + e] * k[key + e];
                            along += v[key + e] * (double)s->dout[row + e];
                        }
                        double p = exp(score * (double)a->scale);
                        sum += p;
                        value += p * along;
                    }
                total += value / sum;
            }
    return total;
}

static void test_finite_differences(void **state)
{
    for (int c = 0; c < 4; c++) {
        struct scene s;
        struct result r;
        scene_open(&s, 17, 1 + c % 2, 2, 6, c >= 2 ? 5 : 0, true);
        result_make(&r, "reference", NULL, COMPUTE_F32, 1, &s);
        double *x[3];
        const float *from[3] = {s.q, s.k, s.v}, *grad[3] = {r.dq, r.dk, r.dv};
        const int64_t n[3] = {s.n_q, s.n_kv, s.n_kv};
        for (int i = 0; i < 3; i++) {
            x[i] = malloc((size_t)n[i] * sizeof **x);
            for (int64_t j = 0; j < n[i]; j++)
                x[i][j] = (double)from[i][j];
        }
        for (int i = 0; i < 3; i++)
            for (int64_t j = 0; j < n[i]; j += 3) {
                const double step = 1e-5;
                double at = x[i][j];
                x[i][j] = at + step;
                double up = loss(&s, x[0], x[1], x[2]);
                x[i][j] = at - step;
                double down = loss(&s, x[0], x[1], x[2]);
                x[i][j] = at;
                double slope = (up - down) / (2 * step);
                if (fabs(slope - (double)grad[i][j]) > 1e-5 * (1 + fabs(slope)))
                    fail_msg("case %d, gradient %d, element %lld: %.9g, differences say %.9g", c, i,
                             (long long)j, (double)grad[i][j], slope);
            }
        for (int i = 0; i < 3; i++)
            free(x[i]);
        result_free(&r, &s);
        scene_close(&s);
    }
}

/* Decoding the last token of each sequence gives what attention over the whole gives. */
static void test_decode(void **state)
{
    for (int c = 0; c < 24; c++) {
        int h = c % N_HEADS;
        int64_t n = random_int(1, 5), capacity = random_int(3, 90), n_kv = heads[h].kv_heads, d = heads[h].d;
        int64_t n_q = n_kv * heads[h].group;
        int32_t lens[5], window = c % 3 == 1 ? (int32_t)random_int(1, 20) : 0;
        for (int i = 0; i < n; i++)
            lens[i] = (int32_t)random_int(1, capacity);
        float *q = random_floats(n * n_q * d, 1), *k = random_floats(n * capacity * n_kv * d, 1);
        float *v = random_floats(n * capacity * n_kv * d, 1), *want = guarded(n * n_q * d);
        const struct ops *reference = ops_by_name("reference"), *ops = ops_by_name("cpu");
        struct device *dev = device_of(reference, NULL, 1, COMPUTE_F32);
        reference->attention_decode(dev, want, q, k, v, n, capacity, lens, (int32_t)n_q, (int32_t)n_kv,
                                    (int32_t)d, window, 0.3f);
        for (int64_t i = 0; i < n; i++) {
            int32_t positions[90], t = lens[i];
            struct segment all = {0, t, -1, 0};
            struct attention_shape shape = {
                t, 1, &all, positions, (int32_t)n_q, (int32_t)n_kv, (int32_t)d, window, 0.3f, NULL, 0};
            float *qs = random_floats(t * n_q * d, 1), *out = guarded(t * n_q * d);
            for (int32_t j = 0; j < t; j++)
                positions[j] = j;
            memcpy(qs + (t - 1) * n_q * d, q + i * n_q * d, (size_t)(n_q * d) * sizeof *q);
            reference->attention(dev, out, NULL, qs, k + i * capacity * n_kv * d, v + i * capacity * n_kv * d,
                                 &shape);
            assert_close("decode", want + i * n_q * d, out + (t - 1) * n_q * d, n_q * d, 1e-6);
            guarded_free(qs, t * n_q * d, "q");
            guarded_free(out, t * n_q * d, "out");
        }
        reference->close(dev);
        for (int p = 0; p < N_TEST_PATHS; p++)
            for (int n_threads = 1; n_threads <= 3; n_threads++) {
                dev = device_of(ops, test_paths[p], n_threads, COMPUTE_F32);
                if (dev == NULL)
                    continue;
                float *got = guarded(n * n_q * d);
                ops->attention_decode(dev, got, q, k, v, n, capacity, lens, (int32_t)n_q, (int32_t)n_kv,
                                      (int32_t)d, window, 0.3f);
                assert_close("decode", got, want, n * n_q * d, 1e-5); /* scores reach 20: the error of exp */
                guarded_free(got, n * n_q * d, "out");
                ops->close(dev);
            }
        guarded_free(q, n * n_q * d, "q");
        guarded_free(k, n * capacity * n_kv * d, "k");
        guarded_free(v, n * capacity * n_kv * d, "v");
        guarded_free(want, n * n_q * d, "out");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chosen_queries_same_bits), cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_plans_same_bits),          cmocka_unit_test(test_shared_prefix_same_bits),
        cmocka_unit_test(test_finite_differences),       cmocka_unit_test(test_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
