/* Activations that are taken over from the sequence before: how many, and that no bit changes for it. */
#include "model/cost.h"
#include "model_internal.h"
#include "prompted.h"
#include "tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = PROMPTED_VOCAB, BASE = 37, NEW = 3, MOST = PROMPTED_TOKENS };

static const int32_t first_lengths[] = {9, 4, 40}, second_lengths[] = {11, 3};

static void test_common(void **state)
{
    static struct prompted a, b;
    prompted_make(&a, 30, 1, first_lengths, 3, 10);
    prompted_make(&b, 30, 1, second_lengths, 2, 20);
    b.ids[30] = (a.ids[30] + 1) % VOCAB;
    assert_int_equal(model_common(&a.p, &b.p), 30);
    assert_int_equal(model_common(&b.p, &a.p), 30);
    /* The first row's first token is unlabelled, so it may be taken over too, its second one never. */
    b.ids[30] = a.ids[30];
    assert_int_equal(model_common(&a.p, &b.p), 31);
    b.ids[31] = a.ids[31];
    assert_int_equal(model_common(&a.p, &b.p), 31);
    b.ids[17] = (a.ids[17] + 1) % VOCAB;
    assert_int_equal(model_common(&a.p, &b.p), 17);
    b.ids[17] = a.ids[17];
    b.positions[5]++;
    assert_int_equal(model_common(&a.p, &b.p), 5);
    b.positions[5]--;
    for (int32_t t = 9; t <= b.p.n_tokens; t++) /* token 8 gets a label */
        b.first_label[t]++;
    assert_int_equal(model_common(&a.p, &b.p), 8);
    /* A longer prompt that begins with the shorter one: nothing behind the shorter one's end. */
    prompted_make(&b, 34, 1, second_lengths, 2, 20);
    assert_int_equal(model_common(&a.p, &b.p), 30);
    assert_int_equal(model_common(&b.p, &a.p), 30);
    /* The same tokens, but the row stands on its own. */
    prompted_make(&b, 30, 1, first_lengths, 3, 10);
    assert_int_equal(model_common(&a.p, &b.p), 31);
    b.segments[1].parent = -1;
    assert_int_equal(model_common(&a.p, &b.p), 30);
    b.segments[0].parent = 7;
    assert_int_equal(model_common(&a.p, &b.p), 0);
    a.p.n_segments = 0;
    assert_int_equal(model_common(&a.p, &b.p), 0);
}

struct pass {
    double loss;
    float token_loss[MOST];
    float *grad; /* [n_values] */
};

static void run(struct tiny *t, const struct prompted *m, struct pass *p)
{
    struct err err = ERR_INIT;
    p->loss = 0;
    memset(p->grad, 0, (size_t)t->params.n_values * sizeof *p->grad);
    if (model_loss(t->model, &m->p, 1.0F / 16, p->grad, &p->loss, p->token_loss, &err))
        fail_msg("%s", err.what);
}

/* b after a, against b alone; and the loss alone, without a gradient, after a. */
static void check_pair(struct tiny *t, const struct prompted *a, const struct prompted *b, int64_t expected)
{
    const size_t n_bytes = (size_t)t->params.n_values * sizeof(float);
    struct pass alone = {.grad = malloc(n_bytes)}, after = {.grad = malloc(n_bytes)},
                other = {.grad = malloc(n_bytes)};
    struct err err = ERR_INIT;
    assert_true(alone.grad && after.grad && other.grad);
    model_set_values(t->model, t->values);
    assert_int_equal(model__kept(t->model, &b->p), 0);
    run(t, b, &alone);
    run(t, a, &other);
    assert_int_equal(model__kept(t->model, &b->p), expected);
    run(t, b, &after);
    assert_true(after.loss == alone.loss);
    assert_memory_equal(after.token_loss, alone.token_loss, (size_t)b->p.n_tokens * sizeof(float));
    assert_memory_equal(after.grad, alone.grad, n_bytes);
    double loss = 0;
    run(t, a, &other);
    assert_int_equal(model_loss(t->model, &b->p, 0, NULL, &loss, NULL, &err), ST_OK);
    assert_true(loss == alone.loss);
    run(t, b, &after); /* after itself */
    assert_memory_equal(after.grad, alone.grad, n_bytes);
    /* A reader that is told not to, and one whose values changed, computes all. */
    model_set_reuse(t->model, false);
    assert_int_equal(model__kept(t->model, &b->p), 0);
    run(t, b, &after);
    assert_memory_equal(after.grad, alone.grad, n_bytes);
    model_set_reuse(t->model, true);
    assert_true(model__kept(t->model, &b->p) > 0);
    model_set_values(t->model, t->values);
    assert_int_equal(model__kept(t->model, &b->p), 0);
    free(alone.grad);
    free(after.grad);
    free(other.grad);
}

static void check_bits(const char *config, const char *ops, enum compute compute)
{
    static struct prompted a, b;
    struct tiny t;
    tiny_open_compute(&t, compute, ops, config, BASE, NEW, false, 4, 11);
    for (int32_t n_prompt = 1; n_prompt <= 70; n_prompt += 23) {
        prompted_make(&a, n_prompt, 1, first_lengths, 3, 10);
        prompted_make(&b, n_prompt, 1, second_lengths, 2, 20);
        b.ids[n_prompt] = (a.ids[n_prompt] + 1) % VOCAB;
        check_pair(&t, &a, &b, n_prompt);
        check_pair(&t, &b, &a, n_prompt);
        prompted_make(&b, n_prompt + 9, 1, second_lengths, 2, 20); /* the rest of its prompt is a's no more */
        check_pair(&t, &a, &b, n_prompt);
        check_pair(&t, &b, &a, n_prompt);
    }
    tiny_close(&t);
}

static void test_same_bits(void **state)
{
    for (size_t i = 0; i < N_TINY_FAMILIES; i++) {
        check_bits(tiny_families[i], "reference", COMPUTE_F32);
        check_bits(tiny_families[i], "reference", COMPUTE_BF16);
        check_bits(tiny_families[i], "cpu", COMPUTE_F32);
        check_bits(tiny_families[i], "cpu", COMPUTE_BF16);
    }
}

/* Nothing is taken over where the block does not hold it: after logits, decoding, a budget that has layers
 * computed again, or a longer sequence that made it grow. */
static void test_not_held(void **state)
{
    static struct prompted a, b;
    struct tiny t;
    struct err err = ERR_INIT;
    tiny_open(&t, "cpu", tiny_families[0], BASE, NEW, false, 4, 11);
    struct pass p = {.grad = malloc((size_t)t.params.n_values * sizeof(float))};
    prompted_make(&a, 30, 1, second_lengths, 2, 10);
    prompted_make(&b, 30, 1, first_lengths, 3, 20);
    float *logits = malloc(MOST * (size_t)model_vocab(t.model) * sizeof *logits);
    assert_true(p.grad && logits);
    run(&t, &a, &p);
    assert_true(model__kept(t.model, &a.p) > 0);
    assert_int_equal(model_logits(t.model, &a.p, logits, &err), ST_OK);
    assert_int_equal(model__kept(t.model, &a.p), 0);
    struct kv_cache *cache;
    assert_int_equal(kv_cache_open(&cache, t.model, 1, 64, &err), ST_OK);
    run(&t, &a, &p);
    assert_int_equal(model_prefill(t.model, cache, 0, a.ids, 30, logits, &err), ST_OK);
    assert_int_equal(model__kept(t.model, &a.p), 0);
    const int32_t which = 0, id = 5;
    run(&t, &a, &p);
    assert_int_equal(model_decode(t.model, cache, &which, &id, 1, logits, &err), ST_OK);
    assert_int_equal(model__kept(t.model, &a.p), 0);
    kv_cache_close(cache);
    run(&t, &a, &p);
    run(&t, &b, &p); /* longer: the block is made anew */
    const double loss = p.loss;
    model_set_budget(t.model, model_workspace_bytes(t.model, b.p.n_tokens, b.p.n_tokens, true, 2));
    run(&t, &a, &p);
    run(&t, &b, &p);
    assert_int_equal(model__kept(t.model, &b.p), 0);
    assert_true(p.loss == loss);
    free(p.grad);
    free(logits);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_common), cmocka_unit_test(test_same_bits),
                                       cmocka_unit_test(test_not_held)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
