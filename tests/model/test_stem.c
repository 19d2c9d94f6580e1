/* The way back through a stem, once for several sequences, against the way back through each of them. */
#include "model/cost.h"
#include "model_internal.h"
#include "prompted.h"
#include "tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = PROMPTED_VOCAB, BASE = 37, NEW = 3, N_SEQUENCES = 3 };

static const char one_layer[] =
    "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":4,\"vocab_size\":37,\"tie_word_embeddings\":true}";

static const int32_t lengths[N_SEQUENCES][3] = {{9, 4, 30}, {11, 3, 1}, {2, 20, 7}};

static void sequences_make(struct prompted all[N_SEQUENCES], int32_t n_prompt)
{
    for (int i = 0; i < N_SEQUENCES; i++)
        prompted_make(&all[i], n_prompt, 1, lengths[i], 3, 10 * (uint64_t)i + 10);
}

/* Loss and gradient of all; n_stem 0: without a stem. anew: nothing of the sequences is there when the stem's
 * turn comes. */
static double run(struct tiny *t, struct prompted all[N_SEQUENCES], int64_t n_stem, bool anew, float *grad)
{
    struct err err = ERR_INIT;
    double loss = 0;
    const int64_t n = t->params.n_values + model_stem_values(&t->arch, n_stem);
    memset(grad, 0, (size_t)n * sizeof *grad);
    model_set_values(t->model, t->values);
    for (int i = 0; i < N_SEQUENCES; i++)
        if (model_loss_above(t->model, &all[i].p, n_stem, 1.0F / 16, grad, &loss, NULL, &err))
            fail_msg("%s", err.what);
    if (anew)
        model_set_values(t->model, t->values);
    assert_int_equal(model_stem_back(t->model, all[0].ids, n_stem, grad, &err), ST_OK);
    return loss;
}

static void assert_near(const char *what, const float *got, const float *want, int64_t n, double tolerance)
{
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)want[i]));
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    }
    if (!(worst <= tolerance * largest))
        fail_msg("%s: off by %.3g of the largest", what, worst / largest);
}

static void check(const char *config, const char *ops, enum compute compute, double tolerance)
{
    static struct prompted all[N_SEQUENCES];
    struct tiny t;
    tiny_open_compute(&t, compute, ops, config, BASE, NEW, false, 4, 11);
    const size_t n_bytes = (size_t)t.params.n_values * sizeof(float);
    for (int32_t n_prompt = 1; n_prompt <= 70; n_prompt += 23) {
        float *want = malloc(n_bytes),
              *got = malloc(n_bytes + (size_t)model_stem_values(&t.arch, n_prompt) * 4),
              *other = malloc(n_bytes + (size_t)model_stem_values(&t.arch, n_prompt) * 4);
        assert_true(want && got && other);
        sequences_make(all, n_prompt);
        const double loss = run(&t, all, 0, false, want);
        assert_true(run(&t, all, n_prompt, false, got) == loss);
        assert_near("gradient", got, want, t.params.n_values, tolerance);
        assert_true(memcmp(got, want, n_bytes) != 0 || n_prompt == 1); /* another order of the sums */
        assert_true(run(&t, all, n_prompt, true, other) == loss);
        assert_memory_equal(got, other, n_bytes);
        /* A part of what they have in common. */
        run(&t, all, (n_prompt + 1) / 2, false, other);
        assert_near("gradient with a shorter stem", other, want, t.params.n_values, tolerance);
        /* Layers that are computed again change no bit. */
        for (int32_t again = 1; again < t.arch.n_layers; again++) {
            int64_t longest = all[0].p.n_tokens;
            model_set_budget(t.model, model_workspace_bytes(t.model, longest, longest, true, again));
            assert_true(run(&t, all, n_prompt, false, other) == loss);
            assert_memory_equal(got, other, n_bytes);
            model_set_budget(t.model, 0);
        }
        free(want);
        free(got);
        free(other);
    }
    tiny_close(&t);
}

static void check_all(enum compute compute, double tolerance)
{
    for (int i = 0; i <= N_TINY_FAMILIES; i++) {
        const char *config = i < N_TINY_FAMILIES ? tiny_families[i] : one_layer;
        check(config, "reference", compute, tolerance);
        check(config, "cpu", compute, tolerance);
    }
}

static void test_float32(void **state)
{
    check_all(COMPUTE_F32, 2e-6);
}

/* What is rounded on the way back through the stem is the sum, not its parts. */
static void test_bfloat16(void **state)
{
    check_all(COMPUTE_BF16, 2e-2);
}

/* Without the stem's part something is missing, or the comparison above would mean nothing. */
static void test_part_matters(void **state)
{
    static struct prompted all[N_SEQUENCES];
    struct tiny t;
    struct err err = ERR_INIT;
    tiny_open(&t, "cpu", tiny_families[0], BASE, NEW, false, 4, 11);
    sequences_make(all, 24);
    const int64_t n = t.params.n_values, n_all = n + model_stem_values(&t.arch, 24);
    float *want = calloc((size_t)n_all, sizeof *want), *got = calloc((size_t)n_all, sizeof *got);
    assert_true(want && got);
    run(&t, all, 0, false, want);
    double loss = 0, worst = 0, put_by = 0;
    for (int i = 0; i < N_SEQUENCES; i++)
        assert_int_equal(model_loss_above(t.model, &all[i].p, 24, 1.0F / 16, got, &loss, NULL, &err), ST_OK);
    for (int64_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    for (int64_t i = n; i < n_all; i++)
        put_by += fabs((double)got[i]);
    assert_true(worst > 1e-4 && put_by > 0);
    free(want);
    free(got);
    tiny_close(&t);
}

static void test_refused(void **state)
{
    static struct prompted all[N_SEQUENCES];
    struct tiny t;
    tiny_open(&t, "cpu", tiny_families[0], BASE, NEW, false, 4, 11);
    sequences_make(all, 10);
    float *grad = calloc((size_t)(t.params.n_values + model_stem_values(&t.arch, 200)), sizeof *grad);
    double loss = 0;
    static const int64_t stems[] = {-1, 12, 60, 1 << 20}; /* beyond the first label; all tokens; more */
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
        struct err err = ERR_INIT;
        assert_int_equal(model_loss_above(t.model, &all[0].p, stems[i], 1, grad, &loss, NULL, &err),
                         ST_DEFECT);
    }
    assert_true(loss == 0);
    for (int64_t i = 0; i < t.params.n_values; i++)
        assert_true(grad[i] == 0);
    free(grad);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_float32), cmocka_unit_test(test_bfloat16),
                                       cmocka_unit_test(test_part_matters), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
