/* Every field of config.json that enters the mathematics moves the loss when it changes, by more than two
 * runs of the same mathematics may differ: a field that is parsed and then ignored is found here. */
#include "tiny.h"
#include "util/err.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Ten times the relative difference that float32 runs of one model are allowed. */
#define LEAST_CHANGE 1e-5

#define LLAMA                                                                                                \
    "\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":2,"          \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":37,\"tie_word_embeddings\":true"
#define QWEN                                                                                                 \
    "\"model_type\":\"qwen3\",\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":2,\"head_"   \
    "dim\":8,"                                                                                               \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":37,\"tie_word_embeddings\":true"
#define GEMMA                                                                                                \
    "\"model_type\":\"gemma3_text\",\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":3,"    \
    "\"head_dim\":8,"                                                                                        \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":37"
#define LLAMA3(factor, low, high, old)                                                                       \
    ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":" factor ",\"low_freq_factor\":" low             \
    ",\"high_freq_factor\":" high ",\"original_max_position_embeddings\":" old "}"

static const struct {
    const char *field, *model, *one, *other;
} fields[] = {
    {"rms_norm_eps", LLAMA, ",\"rms_norm_eps\":1e-6", ",\"rms_norm_eps\":1e-3"},
    {"rms_norm_eps of the head norms", QWEN, ",\"rms_norm_eps\":1e-6", ",\"rms_norm_eps\":1e-3"},
    {"rope_theta", LLAMA, ",\"rope_theta\":10000", ",\"rope_theta\":20000"},
    {"rope_theta in rope_parameters", QWEN,
     ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000}",
     ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":20000}"},
    {"linear factor", LLAMA, ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":1}",
     ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}"},
    {"llama3 factor", LLAMA, LLAMA3("4.0", "1.0", "4.0", "16"), LLAMA3("8.0", "1.0", "4.0", "16")},
    {"low_freq_factor", LLAMA, LLAMA3("4.0", "1.0", "4.0", "16"), LLAMA3("4.0", "0.5", "4.0", "16")},
    {"high_freq_factor", LLAMA, LLAMA3("4.0", "1.0", "4.0", "16"), LLAMA3("4.0", "1.0", "8.0", "16")},
    {"original_max_position_embeddings", LLAMA, LLAMA3("4.0", "1.0", "4.0", "16"),
     LLAMA3("4.0", "1.0", "4.0", "64")},
    {"hidden_act", LLAMA, ",\"hidden_act\":\"silu\"", ",\"hidden_act\":\"gelu_pytorch_tanh\""},
    {"hidden_activation", GEMMA, ",\"hidden_activation\":\"gelu_pytorch_tanh\"",
     ",\"hidden_activation\":\"silu\""},
    {"use_sliding_window", QWEN, ",\"use_sliding_window\":false,\"sliding_window\":4,\"max_window_layers\":0",
     ",\"use_sliding_window\":true,\"sliding_window\":4,\"max_window_layers\":0"},
    {"sliding_window", QWEN, ",\"use_sliding_window\":true,\"sliding_window\":4,\"max_window_layers\":0",
     ",\"use_sliding_window\":true,\"sliding_window\":5,\"max_window_layers\":0"},
    {"max_window_layers", QWEN, ",\"use_sliding_window\":true,\"sliding_window\":4,\"max_window_layers\":0",
     ",\"use_sliding_window\":true,\"sliding_window\":4,\"max_window_layers\":1"},
    {"sliding_window of Gemma", GEMMA, ",\"sliding_window\":4", ",\"sliding_window\":5"},
    {"sliding_window_pattern", GEMMA, ",\"sliding_window\":4,\"sliding_window_pattern\":2",
     ",\"sliding_window\":4,\"sliding_window_pattern\":3"},
    {"layer_types", GEMMA,
     ",\"sliding_window\":4,\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_attention\"]",
     ",\"sliding_window\":4,\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\"]"},
    {"rope_theta of Gemma's full layers", GEMMA, ",\"sliding_window_pattern\":2,\"rope_theta\":1e6",
     ",\"sliding_window_pattern\":2,\"rope_theta\":1e4"},
    {"rope_local_base_freq", GEMMA, ",\"rope_local_base_freq\":10000", ",\"rope_local_base_freq\":20000"},
    {"sliding_attention in rope_parameters", GEMMA,
     ",\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6},\"sliding_attention\":{\"rope_theta\":"
     "1e4}}",
     ",\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6},\"sliding_attention\":{\"rope_theta\":"
     "3e4}}"},
    {"query_pre_attn_scalar", GEMMA, ",\"query_pre_attn_scalar\":8", ",\"query_pre_attn_scalar\":9"},
};

static double loss_of(const char *model, const char *more)
{
    char json[2048];
    struct tiny t;
    struct err err = ERR_INIT;
    double sum = 0;
    snprintf(json, sizeof json, "{%s%s}", model, more);
    tiny_open(&t, "cpu", json, 37, 3, false, 3, 11);
    struct packed *p = tiny_sequence(40, 12, false);
    if (model_loss(t.model, p, 0, NULL, &sum, NULL, &err))
        fail_msg("%s", err.what);
    tiny_sequence_free(p);
    tiny_close(&t);
    return sum;
}

static void test_fields(void **state)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        double a = loss_of(fields[i].model, fields[i].one), b = loss_of(fields[i].model, fields[i].other);
        double change = fabs(a - b) / a;
        if (!(change > LEAST_CHANGE))
            fail_msg("%s moves the loss by %.2e only (%.9g, %.9g)", fields[i].field, change, a, b);
        if (loss_of(fields[i].model, fields[i].one) != a)
            fail_msg("%s: the same model twice gives two losses", fields[i].field);
    }
}

/* Sizes and ties are seen in the tensors, the conventions of the families in the same tensors. */
static void test_tie(void **state)
{
    struct tiny tied, own;
    tiny_open(&tied, "cpu", "{" LLAMA "}", 37, 0, false, 0, 3);
    tiny_open(&own, "cpu",
              "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":2,"
              "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":37,\"tie_word_embeddings\":"
              "false}",
              37, 0, false, 0, 3);
    assert_ptr_equal(tied.weights.head.data, tied.weights.embed.data);
    assert_ptr_not_equal(own.weights.head.data, own.weights.embed.data);
    tiny_close(&tied);
    tiny_close(&own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fields), cmocka_unit_test(test_tie)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
