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

/* The rows of a packed sequence with shared prefixes, each from its beginning, one segment a row. */
static struct packed *unshare(const struct packed *p)
{
    struct packed *out = calloc(1, sizeof *out);
    size_t room = (size_t)p->n_tokens * (size_t)p->n_segments;
    out->ids = calloc(room, sizeof(int32_t));
    out->positions = calloc(room, sizeof(int32_t));
    out->targets = calloc(room, sizeof(int32_t));
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
                out->positions[out->n_tokens] = g->n_tokens++;
                out->targets[out->n_tokens++] = p->targets[t];
                out->n_labels += p->targets[t] >= 0;
            }
    }
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
    struct packed *shared = tiny_sequence(40, 3, true), *plain = unshare(shared);
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
    size_t n = (size_t)p->n_tokens;
    float *logits = malloc(n * V * sizeof *logits), *before = malloc(n * sizeof *before),
          *after = malloc(n * sizeof *after);
    double sum = 0, again = 0;
    assert_int_equal(model_logits(t.model, p, logits, &err), ST_OK);
    assert_int_equal(model_loss(t.model, p, 0, NULL, &sum, before, &err), ST_OK);
    for (size_t i = 0; i < n; i++) {
        double total = 0;
        for (int j = 0; j < V; j++)
            total += exp((double)logits[i * V + (size_t)j]);
        double want = p->targets[i] < 0 ? 0 : log(total) - (double)logits[i * V + (size_t)p->targets[i]];
        assert_true(fabs(before[i] - want) < 1e-5);
    }
    struct segment changed = p->segments[2];
    p->ids[changed.start] = (p->ids[changed.start] + 1) % V;
    assert_int_equal(model_loss(t.model, p, 0, NULL, &again, after, &err), ST_OK);
    assert_true(sum != again);
    for (int32_t i = 0; i < p->n_tokens; i++)
        if (i < changed.start || i >= changed.start + changed.n_tokens)
            assert_memory_equal(before + i, after + i, sizeof *before);
    memset(p->targets, 0xff, n * sizeof *p->targets); /* no labels: nothing is computed */
    assert_int_equal(model_loss(t.model, p, 0, NULL, &again, after, &err), ST_OK);
    for (size_t i = 0; i < n; i++)
        assert_true(after[i] == 0);
    free(logits);
    free(before);
    free(after);
    tiny_sequence_free(p);
    tiny_close(&t);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sharing), cmocka_unit_test(test_no_leak),
                                       cmocka_unit_test(test_token_losses), cmocka_unit_test(test_cache),
                                       cmocka_unit_test(test_bad_ids)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
