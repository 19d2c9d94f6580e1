#include "init_config.h"

#include <stdbool.h>
#include <string.h>

struct preset {
    const char *family, *name;
    int hidden, mlp, n_layers, n_q_heads, n_kv_heads, head_dim, window; /* H I L Q K D */
    int rows, positions; /* rows of the embedding at least; length of the context */
    const char *dtype;
};

/* 0.6b is the published Qwen3-0.6B's shape, spare rows of the embedding included: to measure with.
 * In Qwen3 and Gemma Q * D is not H, as in the published models; Gemma has one key head. */
static const struct preset presets[] = {
    {"qwen3", "tiny", 96, 256, 4, 4, 2, 32, 0, 0, 2048, "float32"},
    {"qwen3", "small", 320, 896, 8, 8, 4, 48, 0, 0, 2048, "float32"},
    {"qwen3", "0.6b", 1024, 3072, 28, 16, 8, 128, 0, 151936, 40960, "bfloat16"},
    {"llama", "tiny", 96, 256, 4, 6, 3, 16, 0, 0, 2048, "float32"},
    {"llama", "small", 320, 960, 8, 10, 5, 32, 0, 0, 2048, "float32"},
    {"gemma3_text", "tiny", 96, 256, 4, 4, 1, 32, 64, 0, 2048, "float32"},
    {"gemma3_text", "small", 320, 960, 8, 4, 1, 96, 256, 0, 2048, "float32"},
};

/* Every how many-th layer of Gemma sees all tokens; the published models have 6, too many for 4 layers. */
#define GEMMA_FULL_EVERY 4

static json_t *id_or_null(int32_t id)
{
    return id < 0 ? json_null() : json_integer(id);
}

static json_t *layer_types(const struct preset *p)
{
    json_t *list = json_array();
    for (int i = 1; i <= p->n_layers; i++)
        json_array_append_new(
            list, json_string(p->window && i % GEMMA_FULL_EVERY ? "sliding_attention" : "full_attention"));
    return list;
}

/* Keys that all three families have. */
static json_t *common(const struct preset *p, const struct init_tokens *ids)
{
    int rows = ids->vocab_size > p->rows ? ids->vocab_size : p->rows;
    return json_pack(
        "{s:f, s:b, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, s:i, s:s, s:o, s:o, s:n, s:b, s:n}",
        "attention_dropout", 0.0, "attention_bias", 0, "dtype", p->dtype, "vocab_size", rows, "hidden_size",
        p->hidden, "intermediate_size", p->mlp, "num_hidden_layers", p->n_layers, "num_attention_heads",
        p->n_q_heads, "num_key_value_heads", p->n_kv_heads, "head_dim", p->head_dim, "initializer_range",
        0.02, "tie_word_embeddings", 1, "max_position_embeddings", p->positions, "model_type", p->family,
        "bos_token_id", id_or_null(ids->bos), "eos_token_id", id_or_null(ids->eos), "pad_token_id",
        "use_cache", 1, "rope_scaling");
}

static json_t *of_family(const struct preset *p)
{
    if (strcmp(p->family, "qwen3") == 0)
        return json_pack("{s:[s], s:s, s:f, s:f, s:n, s:b, s:i, s:o}", "architectures", "Qwen3ForCausalLM",
                         "hidden_act", "silu", "rms_norm_eps", 1e-6, "rope_theta", 1e6, "sliding_window",
                         "use_sliding_window", 0, "max_window_layers", p->n_layers, "layer_types",
                         layer_types(p));
    if (strcmp(p->family, "llama") == 0)
        return json_pack("{s:[s], s:s, s:f, s:f, s:b, s:i}", "architectures", "LlamaForCausalLM",
                         "hidden_act", "silu", "rms_norm_eps", 1e-5, "rope_theta", 1e4, "mlp_bias", 0,
                         "pretraining_tp", 1);
    return json_pack("{s:[s], s:s, s:f, s:f, s:f, s:i, s:i, s:n, s:n, s:b, s:o}", "architectures",
                     "Gemma3ForCausalLM", "hidden_activation", "gelu_pytorch_tanh", "rms_norm_eps", 1e-6,
                     "rope_theta", 1e6, "rope_local_base_freq", 1e4, "query_pre_attn_scalar", p->head_dim,
                     "sliding_window", p->window, "attn_logit_softcapping", "final_logit_softcapping",
                     "use_bidirectional_attention", 0, "layer_types", layer_types(p));
}

json_t *init_config(const char *family, const char *preset, const struct init_tokens *ids)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        const struct preset *p = &presets[i];
        if (strcmp(p->family, family) || strcmp(p->name, preset))
            continue;
        json_t *config = common(p, ids), *own = of_family(p);
        bool good = config && own && json_object_update(config, own) == 0;
        json_decref(own);
        if (!good) {
            json_decref(config);
            config = NULL;
        }
        return config;
    }
    return NULL;
}

json_t *init_generation_config(const struct init_tokens *ids)
{
    json_t *o = json_pack("{s:b}", "_from_model_config", 1);
    if (ids->bos >= 0)
        json_object_set_new(o, "bos_token_id", json_integer(ids->bos));
    if (ids->eos >= 0)
        json_object_set_new(o, "eos_token_id", json_integer(ids->eos));
    return o;
}
