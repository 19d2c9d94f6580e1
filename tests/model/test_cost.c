/* Work counted from shapes against what the operations do, and the workspace against what is allocated. */
#include "model/cost.h"
#include "ops/timing.h"
#include "tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char config[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 16, \"intermediate_size\": 24, \"num_hidden_layers\": 3,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 40, \"tie_word_embeddings\": "
    "true}";

enum { H = 16, I = 24, Q = 16, K = 8, V = 44, NEW = 8, R = 2, L = 3 };

static void count(struct model_load *load, const struct tiny *t, const struct packed *seq)
{
    *load = (struct model_load){0};
    model_load_add(load, seq, NULL, 0, &t->arch, &t->params);
}

static void test_load(void **state)
{
    struct tiny t;
    struct model_load l;
    int32_t ids[5] = {1, 36, 2, 43, 3}, positions[5] = {0, 1, 2, 2, 3};
    int32_t first_label[6] = {0, 0, 0, 1, 1, 3}, labels[3] = {7, 9, 9};
    struct segment segments[3] = {{0, 2, -1, -1}, {2, 1, 0, 0}, {3, 2, 0, 1}};
    struct packed seq = {5, 3, 3, ids, positions, first_label, labels, segments};
    tiny_open(&t, "reference", config, 36, NEW, false, R, 3);
    count(&l, &t, &seq);
    assert_int_equal(l.n_sequences, 1);
    assert_int_equal(l.n_tokens, 5);
    assert_int_equal(l.n_labels, 3);
    assert_int_equal(l.n_labelled, 2);
    assert_int_equal(l.n_new, 2);
    assert_int_equal(l.longest, 5);
    assert_int_equal(l.n_positions, 4);
    assert_true(l.pairs == 1 + 2 + 3 + 3 + 4 && l.window_pairs == l.pairs);
    assert_true(l.label_pairs == 3 + 4);
    t.arch.window = 2;
    count(&l, &t, &seq);
    assert_true(l.window_pairs == 1 + 2 + 2 + 2 + 2 && l.label_window_pairs == 4 && l.pairs == 13);
    tiny_close(&t);
}

/* By hand for three layers: one that is first, one plain, one that is last. */
static void test_flops(void **state)
{
    struct tiny t;
    struct model_flops f;
    const struct model_load l = {
        .n_tokens = 100, .n_labels = 12, .n_labelled = 10, .n_new = 30, .pairs = 1000, .label_pairs = 70};
    tiny_open(&t, "reference", config, 36, NEW, false, R, 3);
    model_flops(&f, &t.arch, &t.params, &l);
    double qkv = H * (Q + 2 * K), rest = Q * H + 3 * H * I;
    double first = 2 * qkv * (100 + 30) + 2 * rest * 200, plain = 2 * (qkv + rest) * 200;
    double last = 2 * H * 2 * K * 200 + 2 * (H * Q + rest) * 20;
    assert_true(f.projections == first + plain + last);
    assert_true(f.attention == 2.0 * 6 * Q * (1000 + 1000 + 70));
    assert_true(f.head == 2.0 * 10 * H * (2 * V + NEW));
    assert_true(f.total == f.projections + f.lora + f.attention + f.head);
    tiny_close(&t);
}

/* What is needed is not more than what was done, nor much less: attention makes its scores again. */
static void test_done(void **state)
{
    struct tiny t;
    struct model_load l;
    struct model_flops f;
    struct op_time times[128];
    struct err err = ERR_INIT;
    double loss = 0, done = 0;
    ops_timing_install("reference");
    tiny_open(&t, "reference", config, 36, NEW, false, R, 3);
    struct packed *seq = tiny_sequence(V, 5, true);
    float *grad = calloc((size_t)t.params.n_values, sizeof *grad);
    assert_non_null(grad);
    ops_timing_reset();
    assert_int_equal(model_loss(t.model, seq, 0.1F, grad, &loss, NULL, &err), ST_OK);
    for (int i = ops_timing_read(times, 128) - 1; i >= 0; i--)
        done += times[i].flops;
    count(&l, &t, seq);
    model_flops(&f, &t.arch, &t.params, &l);
    assert_true(f.total <= done);
    assert_true(f.total >= 0.8 * done);
    free(grad);
    tiny_sequence_free(seq);
    tiny_close(&t);
}

static size_t n_live; /* bytes taken through the counting table below and not given back */

static void *counted_alloc(struct device *dev, size_t n_bytes)
{
    size_t *p = calloc(1, n_bytes + 128);
    assert_non_null(p);
    char *at = (char *)p + 64;
    at += (64 - (uintptr_t)at % 64) % 64;
    ((size_t *)(void *)at)[-1] = n_bytes;
    ((void **)(void *)at)[-2] = p;
    n_live += n_bytes;
    return at;
}

static void counted_release(struct device *dev, void *p)
{
    if (!p)
        return;
    n_live -= ((size_t *)p)[-1];
    free(((void **)p)[-2]);
}

static void test_workspace(void **state)
{
    struct tiny t;
    struct err err = ERR_INIT;
    double loss = 0;
    tiny_open(&t, "reference", config, 36, NEW, false, R, 3);
    struct ops counting = *t.ops;
    counting.alloc = counted_alloc;
    counting.release = counted_release;
    struct model *m = NULL;
    struct model_config c = {
        .ops = &counting, .dev = t.dev, .arch = &t.arch, .weights = &t.weights, .params = &t.params};
    assert_int_equal(model_open(&m, &c, &err), ST_OK);
    model_set_values(m, t.values);
    struct packed *seq = tiny_sequence(V, 5, true);
    float *grad = calloc((size_t)t.params.n_values, sizeof *grad);
    assert_non_null(grad);
    size_t before = n_live;
    assert_int_equal(model_loss(m, seq, 0.1F, NULL, &loss, NULL, &err), ST_OK);
    assert_int_equal(n_live - before, model_workspace_bytes(m, seq->n_tokens, 1, false, 0));
    assert_int_equal(model_loss(m, seq, 0.1F, grad, &loss, NULL, &err), ST_OK);
    assert_int_equal(n_live - before, model_workspace_bytes(m, seq->n_tokens, 1, true, 0));
    assert_true(model_workspace_bytes(m, seq->n_tokens, 1, true, 0) >
                model_workspace_bytes(m, seq->n_tokens, 1, false, 0));
    /* Within a budget: what is computed again is not kept, and what is allocated is what was said. */
    for (int32_t again = 0; again < L; again++) {
        size_t n_bytes = model_workspace_bytes(m, seq->n_tokens, 1, true, again);
        assert_true(again == 0 || n_bytes < model_workspace_bytes(m, seq->n_tokens, 1, true, again - 1));
        model_set_budget(m, n_bytes);
        assert_int_equal(model_layers_again(m, seq->n_tokens, 1), again);
        assert_int_equal(model_loss(m, seq, 0.1F, grad, &loss, NULL, &err), ST_OK);
        assert_int_equal(n_live - before, n_bytes);
        model_set_budget(m, n_bytes - 1);
        assert_int_equal(model_layers_again(m, seq->n_tokens, 1), again < L - 1 ? again + 1 : -1);
    }
    struct err refused = ERR_INIT;
    assert_int_equal(model_loss(m, seq, 0.1F, grad, &loss, NULL, &refused), ST_ENV);
    assert_non_null(strstr(refused.what, "memory_limit"));
    /* Asking changes nothing. */
    double again = 0;
    assert_int_equal(model_loss(m, seq, 0, NULL, &again, NULL, &err), ST_OK);
    assert_true(again > 0);
    free(grad);
    tiny_sequence_free(seq);
    model_close(m);
    assert_int_equal(n_live, 0);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_load), cmocka_unit_test(test_flops),
                                       cmocka_unit_test(test_workspace), cmocka_unit_test(test_done)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
