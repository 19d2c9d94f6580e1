/* What must not depend on how tokens are laid out: shared prefixes, packing, caches, and other rows. */
#include "tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char qwen[] =
    "{\"model_type\":\"qwen3\",\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":12,\"vocab_size\":37,"
    "\"tie_word_embeddings\":true}";
static const char gemma[] =
    "{\"model_type\":\"gemma3_text\",\"hidden_size\":24,\"intermediate_size\":36,\"num_hidden_layers\":4,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":16,\"vocab_size\":37,\"sliding_"
    "window\":5,"
    "\"sliding_window_pattern\":3,\"query_pre_attn_scalar\":11}";

/* Labels for tokens that two rows share: two of them, one that only one row has, and twice the same. */
static void label_shared(struct packed *p)
{
    static const int32_t labels[][2] = {{5, 30}, {11, -1}, {8, 8}};
    int32_t *all = calloc((size_t)p->n_labels + 6, sizeof *all), n = 0, begin = 0;
    for (int32_t t = 0; t < p->n_tokens; t++) {
        int32_t end = p->first_label[t + 1], shared = t - (p->segments[0].n_tokens - 3);
        p->first_label[t] = n;
        for (int i = 0; i < 2 && shared >= 0 && shared < 3; i++)
            if (labels[shared][i] >= 0)
                all[n++] = labels[shared][i];
        while (begin < end)
            all[n++] = p->labels[begin++];
    }
    free(p->labels);
    p->labels = all;
    p->n_labels = p->first_label[p->n_tokens] = n;
}

/* The rows of a packed sequence with shared prefixes, each from its beginning, one segment a row. Which row
 * has which of a shared token's labels does not matter. */
static struct packed *unshare(const struct packed *p)
{
    struct packed *out = calloc(1, sizeof *out);
    size_t room = (size_t)p->n_tokens * (size_t)p->n_segments;
    int32_t *taken = calloc((size_t)p->n_tokens, sizeof *taken);
    out->ids = calloc(room, sizeof(int32_t));
    out->positions = calloc(room, sizeof(int32_t));
    out->first_label = calloc(room + 1, sizeof(int32_t));
    out->labels = calloc((size_t)p->n_labels, sizeof(int32_t));
    out->segments = calloc((size_t)p->n_segments, sizeof *out->segments);
    for (int32_t s = 0; s < p->n_segments; s++) {
        int32_t chain[8], n = 0;
        bool is_parent = false;
        for (int32_t q = 0; q < p->n_segments; q++)
            is_parent |= p->segments[q].parent == s;
        if (is_parent)
            continue;
        for (int32_t q = s; q >= 0; q = p->segments[q].parent)
            chain[n++] = q;
        struct segment *g = &out->segments[out->n_segments++];
        *g = (struct segment){.start = out->n_tokens, .parent = -1};
        while (n-- > 0)
            for (int32_t i = 0; i < p->segments[chain[n]].n_tokens; i++) {
                int32_t t = p->segments[chain[n]].start + i;
                out->ids[out->n_tokens] = p->ids[t];
                out->positions[out->n_tokens++] = g->n_tokens++;
                if (taken[t] < packed_n_labels(p, t))
                    out->labels[out->n_labels++] = p->labels[p->first_label[t] + taken[t]++];
                out->first_label[out->n_tokens] = out->n_labels;
            }
    }
    free(taken);
    return out;
}

static double loss_and_grad(struct tiny *t, const struct packed *p, float *grad)
{
    struct err err = ERR_INIT;
    double sum = 0;
    memset(grad, 0, (size_t)t->params.n_values * sizeof *grad);
    if (model_loss(t->model, p, 1.0f / 16, grad, &sum, NULL, &err))
        fail_msg("%s", err.what);
    return sum;
}

static void check_sharing(const char *config, const char *ops)
{
    struct tiny t;
    tiny_open(&t, ops, config, 37, 3, false, 4, 5);
    struct packed *shared = tiny_sequence(40, 3, true);
    label_shared(shared);
    struct packed *plain = unshare(shared);
    float *g1 = calloc((size_t)t.params.n_values, sizeof *g1),
          *g2 = calloc((size_t)t.params.n_values, sizeof *g2);
    double a = loss_and_grad(&t, shared, g1), b = loss_and_grad(&t, plain, g2), largest = 0, worst = 0;
    assert_true(plain->n_tokens > shared->n_tokens && plain->n_labels == shared->n_labels);
    for (int64_t i = 0; i < t.params.n_values; i++) {
        largest = fmax(largest, fabs(g2[i]));
        worst = fmax(worst, fabs((double)g1[i] - g2[i]));
    }
    if (fabs(a - b) > 1e-6 * b || worst > 3e-6 * largest)
        fail_msg("shared: loss %.9g against %.9g, gradient off by %.2e of the largest", a, b,
                 worst / largest);
    free(g1);
    free(g2);
    tiny_sequence_free(shared);
    tiny_sequence_free(plain);
    tiny_close(&t);
}

static void test_sharing(void **state)
{
    check_sharing(qwen, "reference");
    check_sharing(qwen, "cpu");
    check_sharing(gemma, "reference");
    check_sharing(gemma, "cpu");
}

/* Changing one row moves no logit of any other. */
static void test_no_leak(void **state)
{
    struct tiny t;
    struct err err = ERR_INIT;
    tiny_open(&t, "cpu", gemma, 37, 3, false, 4, 6);
    struct packed *p = tiny_sequence(40, 3, true);
    size_t n = (size_t)(p->n_tokens * model_vocab(t.model));
    float *before = malloc(n * sizeof *before), *after = malloc(n * sizeof *after);
    assert_int_equal(model_logits(t.model, p, before, &err), ST_OK);
    struct segment changed = p->segments[2]; /* a leaf that shares its prefix with others */
    p->ids[changed.start] = (p->ids[changed.start] + 1) % 40;
    assert_int_equal(model_logits(t.model, p, after, &err), ST_OK);
    for (int32_t i = 0; i < p->n_tokens; i++) {
        bool own = i >= changed.start && i < changed.start + changed.n_tokens;
        bool same = memcmp(before + i * 40, after + i * 40, 40 * sizeof(float)) == 0;
        assert_true(own ? !same : same);
    }
    free(before);
    free(after);
    tiny_sequence_free(p);
    tiny_close(&t);
}

/* The same for losses, which come from labelled tokens alone; and they are those of all tokens' logits. */
static void test_token_losses(void **state)
{
    enum { V = 40 };
    struct tiny t;
    struct err err = ERR_INIT;
    tiny_open(&t, "cpu", qwen, 37, 3, false, 4, 6);
    struct packed *p = tiny_sequence(V, 3, true);
    label_shared(p);
    size_t n = (size_t)p->n_tokens;
    float *logits = malloc(n * V * sizeof *logits), *before = malloc(n * sizeof *before),
          *after = malloc(n * sizeof *after);
    double sum = 0, again = 0;
    assert_int_equal(model_logits(t.model, p, logits, &err), ST_OK);
    assert_int_equal(model_loss(t.model, p, 0, NULL, &sum, before, &err), ST_OK);
    for (size_t i = 0; i < n; i++) {
        double total = 0, want = 0;
        for (int j = 0; j < V; j++)
            total += exp((double)logits[i * V + (size_t)j]);
        for (int32_t l = p->first_label[i]; l < p->first_label[i + 1]; l++)
            want += log(total) - (double)logits[i * V + (size_t)p->labels[l]];
        assert_true(fabs(before[i] - want) < 1e-5);
    }
    struct segment changed = p->segments[2];
    p->ids[changed.start] = (p->ids[changed.start] + 1) % V;
    assert_int_equal(model_loss(t.model, p, 0, NULL, &again, after, &err), ST_OK);
    assert_true(sum != again);
    for (int32_t i = 0; i < p->n_tokens; i++)
        if (i < changed.start || i >= changed.start + changed.n_tokens)
            assert_memory_equal(before + i, after + i, sizeof *before);
    memset(p->first_label, 0, (n + 1) * sizeof *p->first_label); /* no labels: nothing is computed */
    p->n_labels = 0;
    assert_int_equal(model_loss(t.model, p, 0, NULL, &again, after, &err), ST_OK);
    for (size_t i = 0; i < n; i++)
        assert_true(after[i] == 0);
    free(logits);
    free(before);
    free(after);
    tiny_sequence_free(p);
    tiny_close(&t);
}

/* More labels than tokens: those of one token, against a pass for each of them. */
static void check_many_labels(const char *ops)
{
    enum { T = 6, V = 40, N = 70, AT = 3 };
    struct tiny t;
    tiny_open(&t, ops, qwen, 37, 3, false, 4, 6);
    int32_t ids[T] = {3, 1, 4, 1, 5, 38}, positions[T] = {0, 1, 2, 3, 4, 5}, first_label[T + 1], labels[N];
    struct segment whole = {0, T, -1, 0};
    struct packed p = {T, 1, N, ids, positions, first_label, labels, &whole};
    size_t n_values = (size_t)t.params.n_values;
    float *all = calloc(n_values, sizeof *all), *one = calloc(n_values, sizeof *one);
    double *sum = calloc(n_values, sizeof *sum), loss_sum = 0, largest = 0, worst = 0;
    for (int32_t l = 0; l < N; l++)
        labels[l] = l * V / N;
    for (int32_t i = 0; i <= T; i++)
        first_label[i] = i > AT ? N : 0;
    double loss = loss_and_grad(&t, &p, all);
    for (int32_t l = 0; l < N; l++) {
        p.labels = labels + l;
        p.n_labels = 1;
        for (int32_t i = 0; i <= T; i++)
            first_label[i] = i > AT;
        loss_sum += loss_and_grad(&t, &p, one);
        for (size_t i = 0; i < n_values; i++)
            sum[i] += (double)one[i];
    }
    for (size_t i = 0; i < n_values; i++) {
        largest = fmax(largest, fabs(sum[i]));
        worst = fmax(worst, fabs(sum[i] - (double)all[i]));
    }
    assert_true(fabs(loss - loss_sum) < 1e-6 * loss_sum);
    assert_true(largest > 0 && worst < 1e-5 * largest);
    free(all);
    free(one);
    free(sum);
    tiny_close(&t);
}

static void test_many_labels(void **state)
{
    check_many_labels("reference");
    check_many_labels("cpu");
}

/* Prefill and token-by-token decoding of several sequences at once against one full pass each. */
static void check_cache(const char *config)
{
    enum { N = 3, LEN = 17, PROMPT = 6 };
    struct tiny t;
    struct err err = ERR_INIT;
    struct kv_cache *cache;
    int32_t ids[N][LEN], positions[LEN], which[N] = {0, 1, 2}, next[N];
    tiny_open(&t, "cpu", config, 37, 3, false, 4, 8);
    int64_t v = model_vocab(t.model);
    float *full = malloc((size_t)(N * LEN * v) * sizeof *full),
          *step = malloc((size_t)(N * v) * sizeof *step);
    for (int i = 0; i < N * LEN; i++)
        ids[i / LEN][i % LEN] = (int32_t)((i * 7919 + 13) % v);
    for (int i = 0; i < LEN; i++)
        positions[i] = i;
    struct segment s = {.n_tokens = LEN, .parent = -1};
    for (int k = 0; k < N; k++) {
        struct packed p = {
            .n_tokens = LEN, .n_segments = 1, .ids = ids[k], .positions = positions, .segments = &s};
        assert_int_equal(model_logits(t.model, &p, full + k * LEN * v, &err), ST_OK);
    }
    assert_int_equal(kv_cache_open(&cache, t.model, N, LEN, &err), ST_OK);
    for (int k = 0; k < N; k++)
        assert_int_equal(model_prefill(t.model, cache, k, ids[k], PROMPT, step + k * v, &err), ST_OK);
    for (int at = PROMPT; at <= LEN; at++) {
        for (int k = 0; k < N; k++)
            for (int64_t j = 0; j < v; j++)
                if (fabs(step[k * v + j] - full[(k * LEN + at - 1) * v + j]) > 2e-5)
                    fail_msg("sequence %d, token %d: %g against %g", k, at, step[k * v + j],
                             full[(k * LEN + at - 1) * v + j]);
        for (int k = 0; k < N && at < LEN; k++)
            next[k] = ids[k][at];
        if (at < LEN)
            assert_int_equal(model_decode(t.model, cache, which, next, N, step, &err), ST_OK);
    }
    assert_int_equal(model_decode(t.model, cache, which, next, 1, step, &err), ST_INPUT); /* full */
    kv_cache_close(cache);
    free(full);
    free(step);
    tiny_close(&t);
}

static void test_cache(void **state)
{
    check_cache(qwen);
    check_cache(gemma);
}

static void test_bad_ids(void **state)
{
    struct tiny t;
    struct err err = ERR_INIT;
    double sum = 0;
    tiny_open(&t, "cpu", qwen, 37, 3, false, 4, 9);
    struct packed *p = tiny_sequence(40, 3, false);
    p->ids[4] = 40;
    assert_int_equal(model_loss(t.model, p, 0, NULL, &sum, NULL, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "token id 40"));
    tiny_sequence_free(p);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharing),      cmocka_unit_test(test_no_leak),
        cmocka_unit_test(test_token_losses), cmocka_unit_test(test_many_labels),
        cmocka_unit_test(test_cache),        cmocka_unit_test(test_bad_ids)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
