/* Activations that are computed again on the way back instead of kept: the same bits, whatever their number.
 */
#include "model/cost.h"
#include "tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 40, BASE = 37, NEW = 3 };

/* Loss of a sequence and its gradient, with what a budget of n_bytes leaves. */
static double run(struct tiny *t, size_t n_bytes, const struct packed *seq, float *grad)
{
    struct err err = ERR_INIT;
    double loss = 0;
    model_set_budget(t->model, n_bytes);
    memset(grad, 0, (size_t)t->params.n_values * sizeof *grad);
    if (model_loss(t->model, seq, 1.0F / 16, grad, &loss, NULL, &err))
        fail_msg("%s", err.what);
    return loss;
}

static void check_bits(const char *config, const char *ops, enum compute compute, bool shared)
{
    struct tiny t;
    struct err err = ERR_INIT;
    tiny_open_compute(&t, compute, ops, config, BASE, NEW, false, 4, 11);
    struct packed *seq = tiny_sequence(VOCAB, 3, shared), *other = tiny_sequence(VOCAB, 4, shared);
    const size_t n_bytes = (size_t)t.params.n_values * sizeof(float);
    float *kept = malloc(n_bytes), *again = malloc(n_bytes);
    assert_true(kept && again);
    const double loss = run(&t, 0, seq, kept);
    const int32_t n_layers = t.arch.n_layers;
    assert_true(seq->n_labels < seq->n_tokens); /* the last layer runs on fewer rows than the others */
    for (int32_t n = 1; n < n_layers; n++) {
        size_t budget = model_workspace_bytes(t.model, seq->n_tokens, seq->n_tokens, true, n);
        assert_int_equal(model_layers_again(t.model, seq->n_tokens, seq->n_tokens), 0);
        assert_true(run(&t, budget, seq, again) == loss);
        assert_int_equal(model_layers_again(t.model, seq->n_tokens, seq->n_tokens), n);
        assert_memory_equal(again, kept, n_bytes);
        /* Nothing of another sequence stays behind. */
        double unused = 0;
        assert_int_equal(model_loss(t.model, other, 1, again, &unused, NULL, &err), ST_OK);
        assert_int_not_equal(memcmp(again, kept, n_bytes), 0);
        memset(again, 0, n_bytes);
        unused = 0;
        assert_int_equal(model_loss(t.model, seq, 1.0F / 16, again, &unused, NULL, &err), ST_OK);
        assert_true(unused == loss);
        assert_memory_equal(again, kept, n_bytes);
        model_set_budget(t.model, 0);
    }
    free(kept);
    free(again);
    tiny_sequence_free(seq);
    tiny_sequence_free(other);
    tiny_close(&t);
}

static void test_same_bits(void **state)
{
    for (size_t i = 0; i < N_TINY_FAMILIES; i++)
        for (int shared = 0; shared < 2; shared++) {
            check_bits(tiny_families[i], "reference", COMPUTE_F32, shared);
            check_bits(tiny_families[i], "reference", COMPUTE_BF16, shared);
            check_bits(tiny_families[i], "cpu", COMPUTE_F32, shared);
            check_bits(tiny_families[i], "cpu", COMPUTE_BF16, shared);
        }
}

/* A longer sequence than the room was made for: the room grows, and less is kept. */
static void test_growth(void **state)
{
    struct tiny t;
    tiny_open(&t, "cpu", tiny_families[0], BASE, NEW, false, 4, 11);
    struct packed *seq = tiny_sequence(VOCAB, 3, false);
    const size_t n_bytes = (size_t)t.params.n_values * sizeof(float);
    float *kept = malloc(n_bytes), *again = malloc(n_bytes);
    const double loss = run(&t, 0, seq, kept);
    /* The first row alone. */
    struct packed one = *seq;
    one.n_segments = 1;
    one.n_tokens = seq->segments[0].n_tokens;
    const size_t budget = model_workspace_bytes(t.model, seq->n_tokens, seq->n_tokens, true, 2);
    run(&t, budget, &one, again);
    assert_int_equal(model_layers_again(t.model, one.n_tokens, one.n_tokens), 0);
    memset(again, 0, n_bytes);
    struct err err = ERR_INIT;
    double sum = 0;
    assert_int_equal(model_loss(t.model, seq, 1.0F / 16, again, &sum, NULL, &err), ST_OK);
    assert_true(sum == loss);
    assert_memory_equal(again, kept, n_bytes);
    free(kept);
    free(again);
    tiny_sequence_free(seq);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits), cmocka_unit_test(test_growth)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
