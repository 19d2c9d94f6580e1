/* The counting table: it changes no bit, counts what it should, and has every slot. */
#include "ops/timing.h"
#include "tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char config[] =
    "{\"model_type\": \"qwen3\", \"hidden_size\": 16, \"intermediate_size\": 24, \"num_hidden_layers\": 2,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 8, \"vocab_size\": 40,"
    "\"rms_norm_eps\": 1e-6, \"rope_theta\": 10000, \"max_position_embeddings\": 64,"
    "\"tie_word_embeddings\": true, \"hidden_act\": \"silu\"}";

struct outcome {
    double loss, r;
    float *grad;
    size_t n_bytes;
    int32_t n_tokens, n_labels;
};

static struct outcome run(void)
{
    struct tiny t;
    struct outcome o = {0};
    struct err err = ERR_INIT;
    tiny_open(&t, "cpu", config, 36, 8, false, 2, 3);
    struct packed *seq = tiny_sequence(44, 5, true);
    o.n_bytes = (size_t)t.params.n_values * sizeof(float);
    o.grad = calloc(1, o.n_bytes);
    assert_non_null(o.grad);
    ops_timing_reset();
    assert_int_equal(model_loss(t.model, seq, 0.1F, o.grad, &o.loss, NULL, &err), ST_OK);
    o.r = (double)t.params.lora.r;
    o.n_tokens = seq->n_tokens;
    o.n_labels = seq->n_labels;
    tiny_sequence_free(seq);
    assert_string_equal(t.ops->name, "cpu");
    assert_int_equal(ops_missing(t.ops, NULL, 0), 0);
    tiny_close(&t);
    return o;
}

static const struct op_time *find(const struct op_time *times, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(times[i].name, name) == 0)
            return &times[i];
    return NULL;
}

static void test_same_bits(void **state)
{
    struct op_time times[128];
    struct outcome plain = run();
    assert_int_equal(ops_timing_read(times, 128), 0);
    ops_timing_install("no such table");
    ops_timing_install("cpu");
    struct outcome timed = run();
    assert_memory_equal(&plain.loss, &timed.loss, sizeof plain.loss);
    assert_memory_equal(plain.grad, timed.grad, plain.n_bytes);

    int n = ops_timing_read(times, 128);
    assert_true(n > 10 && n < 128);
    const struct op_time *q = find(times, n, "project 32x16"), *attention = find(times, n, "attention");
    assert_non_null(q);
    assert_non_null(attention);
    assert_non_null(find(times, n, "embed_back"));
    assert_int_equal(q->calls, 2); /* the last layer: queries at labels only, keys and values together */
    assert_true(q->flops == 2 * ((32 * 16 + plain.r * (32 + 16)) * plain.n_labels +
                                 (32 * 16 + plain.r * 2 * (16 + 16)) * plain.n_tokens));
    assert_true(attention->flops > 0 && attention->calls == 2);
    for (int i = 1; i < n; i++)
        assert_true(times[i - 1].seconds >= times[i].seconds && times[i].calls > 0);
    assert_int_equal(ops_timing_read(times, 1), 1);
    ops_timing_reset();
    assert_int_equal(ops_timing_read(times, 128), 0);
    free(plain.grad);
    free(timed.grad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
