/* config.json: both naming generations give the same numbers, and every field that would change the result
 * and is not computed is refused by name. */
#include "model/arch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SIZES                                                                                                \
    "\"hidden_size\":64,\"intermediate_size\":100,\"num_hidden_layers\":4,\"num_attention_heads\":4,\"num_"  \
    "key_value_heads\":2,"                                                                                   \
    "\"vocab_size\":300"

static enum status parse(struct arch *a, const char *json, struct err *err)
{
    *err = (struct err)ERR_INIT;
    return arch_parse(a, json, strlen(json), "config.json", err);
}

static void must_parse(struct arch *a, const char *json)
{
    struct err err;
    if (parse(a, json, &err))
        fail_msg("%s: %s", json, err.what);
}

static void test_families(void **state)
{
    struct arch a;
    must_parse(&a, "{\"model_type\":\"llama\"," SIZES "}");
    assert_int_equal(a.head_dim, 16);
    assert_false(a.tied);
    assert_false(a.qk_norm);
    assert_true(a.attn_scale == 0.25f);
    must_parse(&a, "{\"model_type\":\"qwen3\"," SIZES "}");
    assert_int_equal(a.head_dim, 128); /* the class default, never hidden / heads */
    assert_true(a.qk_norm);
    must_parse(
        &a,
        "{\"model_type\":\"qwen3\",\"head_dim\":24,\"num_key_value_heads\":null,\"hidden_size\":64,"
        "\"intermediate_size\":100,\"num_hidden_layers\":4,\"num_attention_heads\":4,\"vocab_size\":300}");
    assert_int_equal(a.n_kv_heads, 4);
    must_parse(&a, "{\"model_type\":\"gemma3_text\",\"head_dim\":20,\"query_pre_attn_scalar\":13,\"sliding_"
                   "window\":24," SIZES "}");
    assert_true(a.tied && a.sandwich && a.qk_norm);
    assert_true(a.norm_offset == 1 && a.embed_scale == 8);
    assert_true(fabsf(a.attn_scale - 0.27735010f) < 1e-7f);
    assert_int_equal(a.window, 24);
    assert_true(a.rope_local.theta == 1e4 && a.rope_global.theta == 1e6);
    for (int i = 0; i < 4; i++)
        assert_true(a.sliding[i]); /* the pattern of six puts the first full layer at index 5 */
    assert_int_equal(a.pad_id, 0);
    must_parse(&a, "{\"model_type\":\"gemma3_text\",\"sliding_window_pattern\":2,\"pad_token_id\":null,\"eos_"
                   "token_id\":[1,106]," SIZES "}");
    assert_true(a.sliding[0] && !a.sliding[1] && a.sliding[2] && !a.sliding[3]);
    assert_int_equal(a.pad_id, -1);
    assert_int_equal(a.n_eos_ids, 2);
}

static void test_both_generations(void **state)
{
    static const char *const pairs[][2] = {
        {"{\"model_type\":\"llama\",\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\","
         "\"factor\":32.0,"
         "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}," SIZES
         "}",
         "{\"model_type\":\"llama\",\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\","
         "\"factor\":32.0,"
         "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}," SIZES
         "}"},
        {"{\"model_type\":\"gemma3_text\",\"rope_theta\":2e6,\"rope_local_base_freq\":5000,\"rope_scaling\":{"
         "\"type\":\"linear\","
         "\"factor\":8}," SIZES "}",
         "{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\","
         "\"factor\":8,"
         "\"rope_theta\":2e6},\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":5000}}," SIZES
         "}"},
        {"{\"model_type\":\"qwen3\",\"rope_theta\":5e6,\"rope_scaling\":null," SIZES "}",
         "{\"model_type\":\"qwen3\",\"rope_parameters\":{\"rope_theta\":5e6,\"rope_type\":\"default\"}," SIZES
         "}"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct arch a, b;
        must_parse(&a, pairs[i][0]);
        must_parse(&b, pairs[i][1]);
        assert_memory_equal(&a.rope_global, &b.rope_global, sizeof a.rope_global);
        assert_memory_equal(&a.rope_local, &b.rope_local, sizeof a.rope_local);
    }
}

/* Frequencies of Llama-3.2-1B (d 64, theta 5e5, factor 32): from transformers. */
static void test_llama3_table(void **state)
{
    static const struct {
        int j;
        double inv;
    } known[] = {{0, 1},
                 {1, 0.663601279},
                 {14, 0.00321144611},
                 {15, 0.00129054801},
                 {16, 0.000429556705},
                 {17, 9.70828623e-05},
                 {18, 1.94616387e-05},
                 {31, 9.41830649e-08}};
    struct rope_spec s = {.kind = ROPE_LLAMA3,
                          .theta = 5e5,
                          .factor = 32,
                          .low_freq_factor = 1,
                          .high_freq_factor = 4,
                          .original_max_positions = 8192};
    static float table[2 * 64];
    rope_table(&s, 64, 2, table);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double sine = table[64 + 32 + known[i].j]; /* sin(1 * inv) */
        assert_true(fabs(sine - sin(known[i].inv)) <= 2e-7 * fabs(sin(known[i].inv)));
    }
    for (int j = 0; j < 32; j++)
        assert_true(table[j] == 1 && table[32 + j] == 0); /* position 0 */
}

static const struct {
    const char *fields, *message;
} refused[] = {
    {"\"model_type\":\"mistral\"", "model_type 'mistral' is not supported"},
    {"\"model_type\":\"gemma3\"", "model_type 'gemma3' is not supported"},
    {"\"model_type\":17", "model_type"},
    {"\"hidden_act\":\"relu\",\"model_type\":\"llama\"", "hidden_act 'relu'"},
    {"\"model_type\":\"gemma3_text\",\"hidden_activation\":\"gelu\"", "hidden_activation 'gelu'"},
    {"\"model_type\":\"llama\",\"attention_bias\":true", "attention_bias true"},
    {"\"model_type\":\"llama\",\"mlp_bias\":true", "mlp_bias true"},
    {"\"model_type\":\"llama\",\"attention_dropout\":0.1", "attention_dropout 0.1"},
    {"\"model_type\":\"llama\",\"partial_rotary_factor\":0.5", "partial_rotary_factor 0.5"},
    {"\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}", "rope_type 'yarn'"},
    {"\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":4}",
     "rope_type 'dynamic'"},
    {"\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"linear\"}", "factor"},
    {"\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
     "\"high_freq_factor\":1}",
     "low_freq_factor < high_freq_factor"},
    {"\"model_type\":\"llama\",\"rope_theta\":0", "rope_theta"},
    {"\"model_type\":\"llama\",\"rms_norm_eps\":-1", "rms_norm_eps"},
    {"\"model_type\":\"llama\",\"head_dim\":15", "head_dim 15 is odd"},
    {"\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}",
     "quantization_config"},
    {"\"model_type\":\"gemma3_text\",\"final_logit_softcapping\":30.0", "final_logit_softcapping"},
    {"\"model_type\":\"gemma3_text\",\"attn_logit_softcapping\":50.0", "attn_logit_softcapping"},
    {"\"model_type\":\"gemma3_text\",\"use_bidirectional_attention\":true", "use_bidirectional_attention"},
    {"\"model_type\":\"gemma3_text\",\"query_pre_attn_scalar\":0", "query_pre_attn_scalar"},
    {"\"model_type\":\"gemma3_text\",\"layer_types\":[\"full_attention\"]", "layer_types is not a list of 4"},
    {"\"model_type\":\"qwen3\",\"layer_types\":[\"full_attention\",\"linear_attention\",\"full_attention\","
     "\"full_attention\"]",
     "layer_types[1] 'linear_attention'"},
    {"\"model_type\":\"qwen3\",\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_attention\","
     "\"full_attention\"]",
     "use_sliding_window is false"},
};

static void test_refused(void **state)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char json[1024];
        struct arch a;
        struct err err;
        snprintf(json, sizeof json, "{%s," SIZES "}", refused[i].fields);
        if (parse(&a, json, &err) != ST_INPUT || !strstr(err.what, refused[i].message))
            fail_msg("%s: expected '%s', got '%s'", json, refused[i].message, err.what);
    }
}

static void test_bad_sizes(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[]",
        "{\"model_type\":\"llama\",\"hidden_size\":0}",
        "{\"model_type\":\"llama\",\"hidden_size\":-64}",
        "{\"model_type\":\"llama\",\"hidden_size\":\"64\"}",
        "{\"model_type\":\"llama\",\"num_hidden_layers\":100000}",
        "{\"model_type\":\"llama\",\"hidden_size\":65,\"num_attention_heads\":4}",
        "{\"model_type\":\"llama\",\"num_attention_heads\":4,\"num_key_value_heads\":3}",
        "{\"model_type\":\"llama\",\"vocab_size\":99999999999}",
        "{\"model_type\":\"llama\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct arch a;
        struct err err;
        if (parse(&a, bad[i], &err) != ST_INPUT || !err.what[0])
            fail_msg("%s was accepted", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_families),
                                       cmocka_unit_test(test_both_generations),
                                       cmocka_unit_test(test_llama3_table), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_bad_sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
