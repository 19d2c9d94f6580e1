/* Every gradient of LoRA's matrices and of the new rows against central differences of the loss, on the plain
 * reference operations and on the fast ones, for each family, with shared prefixes and sliding windows.
 *
 * The loss is float32 inside, so a difference carries noise of about 1e-7 loss / h, and the four-point
 * formula an error of the fifth derivative times h^4. Two step sizes are tried and the better one counts:
 * where one of the two errors is large the other is small, while a wrong backward line is wrong at both. */
#include "tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const configs[] = {
    "{\"model_type\":\"llama\",\"hidden_size\":24,\"intermediate_size\":20,\"num_hidden_layers\":2,\"num_"
    "attention_heads\":4,"
    "\"num_key_value_heads\":2,\"vocab_size\":29,\"tie_word_embeddings\":true}",
    "{\"model_type\":\"qwen3\",\"hidden_size\":20,\"intermediate_size\":28,\"num_hidden_layers\":2,\"num_"
    "attention_heads\":3,"
    "\"num_key_value_heads\":1,\"head_dim\":10,\"vocab_size\":31,\"tie_word_embeddings\":false}",
    "{\"model_type\":\"gemma3_text\",\"hidden_size\":18,\"intermediate_size\":22,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":2,"
    "\"num_key_value_heads\":1,\"head_dim\":12,\"vocab_size\":27,\"query_pre_attn_scalar\":9,\"sliding_"
    "window\":4,"
    "\"sliding_window_pattern\":2}",
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":20,\"num_hidden_layers\":2,\"num_"
    "attention_heads\":2,"
    "\"num_key_value_heads\":2,\"vocab_size\":33,\"tie_word_embeddings\":true}",
};
/* first new id and how many: grown, padded base (new ids on spare rows), both, untied on a tied base. */
static const struct {
    int64_t first, n;
    bool untied;
} rows[] = {{29, 4, false}, {28, 6, true}, {24, 3, false}, {33, 3, true}};

static double loss_at(struct tiny *t, const struct packed *seq)
{
    struct err err = ERR_INIT;
    double sum = 0;
    if (model_loss(t->model, seq, 0, NULL, &sum, NULL, &err))
        fail_msg("%s", err.what);
    return sum;
}

static double difference(struct tiny *t, const struct packed *seq, int64_t i, float h)
{
    static const float steps[4] = {-2, -1, 1, 2};
    static const double weights[4] = {1.0 / 12, -8.0 / 12, 8.0 / 12, -1.0 / 12};
    float keep = t->values[i];
    double d = 0;
    for (int k = 0; k < 4; k++) {
        t->values[i] = keep + steps[k] * h;
        model_set_values(t->model, t->values);
        d += weights[k] * loss_at(t, seq);
    }
    t->values[i] = keep;
    model_set_values(t->model, t->values);
    return d / h;
}

/* Worst difference of one tensor, relative to the largest gradient of all. */
static double worst_of(struct tiny *t, const struct packed *seq, const struct param *item, const float *grad,
                       double largest)
{
    double worst = 0;
    for (int64_t i = 0; i < item->rows * item->cols; i++) {
        float g = grad[item->offset + i];
        double wide = fabs(difference(t, seq, item->offset + i, 0.01f) - g);
        double narrow = wide < 1e-5 * largest ? wide : fabs(difference(t, seq, item->offset + i, 0.003f) - g);
        double e = fmin(wide, narrow) / largest;
        if (!(e <= worst))
            worst = e;
    }
    return worst;
}

static void check_case(const char *ops_name, int which, bool shared)
{
    struct tiny t;
    struct err err = ERR_INIT;
    tiny_open(&t, ops_name, configs[which], rows[which].first, rows[which].n, rows[which].untied, 3,
              100 + (uint64_t)which);
    struct packed *seq = tiny_sequence(model_vocab(t.model), 7 + (uint64_t)which, shared);
    float *grad = calloc((size_t)t.params.n_values, sizeof *grad);
    double sum = 0, largest = 0;
    /* Two halves: what a call leaves behind in its workspace must not reach the next one. */
    for (int half = 0; half < 2; half++)
        if (model_loss(t.model, seq, 0.5f, grad, &sum, NULL, &err))
            fail_msg("%s", err.what);
    assert_true(sum > 0);
    for (int64_t i = 0; i < t.params.n_values; i++)
        largest = fmax(largest, fabs(grad[i]));
    for (int32_t k = 0; k < t.params.n_items; k++) {
        double worst = worst_of(&t, seq, &t.params.items[k], grad, largest);
        if (!(worst < 2e-4))
            fail_msg("%s, case %d: gradient of %s is off by %.2e of the largest (%.3g)", ops_name, which,
                     t.params.items[k].name, worst, largest);
    }
    free(grad);
    tiny_sequence_free(seq);
    tiny_close(&t);
}

static void test_reference(void **state)
{
    for (int i = 0; i < 4; i++)
        check_case("reference", i, i % 2 == 0);
}

static void test_cpu(void **state)
{
    for (int i = 0; i < 4; i++)
        check_case("cpu", i, i % 2 == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference), cmocka_unit_test(test_cpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
