#include "tiny.h"
#include "util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *const tiny_families[N_TINY_FAMILIES] = {
    "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,\"num_hidden_layers\":4,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":37,\"tie_word_embeddings\":true}",
    "{\"model_type\":\"qwen3\",\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":12,\"vocab_size\":37,"
    "\"tie_word_embeddings\":false}",
    "{\"model_type\":\"gemma3_text\",\"hidden_size\":24,\"intermediate_size\":36,\"num_hidden_layers\":4,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":16,\"vocab_size\":37,\"sliding_"
    "window\":5,\"sliding_window_pattern\":3,\"query_pre_attn_scalar\":11}",
};

static void add(struct tensor_list *l, const char *name, int64_t rows, int64_t cols, float mean, float spread,
                uint64_t seed)
{
    struct err err = ERR_INIT;
    int64_t n = rows * (cols ? cols : 1);
    float *data = malloc((size_t)n * sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = mean + spread * (float)rng_normal(seed, RNG_TEST, (uint32_t)l->n_items, (uint64_t)i);
    int64_t dims[2] = {rows, cols};
    assert_int_equal(tensor_list_add(l, name, DT_F32, cols ? 2 : 1, dims, data, &err), ST_OK);
}

static void add_layer(struct tensor_list *l, const struct arch *a, int i, uint64_t seed)
{
    static const char *const norms[] = {"input_layernorm", "post_attention_layernorm",
                                        "pre_feedforward_layernorm", "post_feedforward_layernorm"};
    char name[128];
    float mean = 1 - a->norm_offset;
    for (int k = 0; k < (a->sandwich ? 4 : 2); k++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", i, norms[k]);
        add(l, name, a->hidden, 0, mean, 0.2f, seed);
    }
    for (int k = 0; k < 2 && a->qk_norm; k++) {
        snprintf(name, sizeof name, "model.layers.%d.self_attn.%s_norm.weight", i, k ? "k" : "q");
        add(l, name, a->head_dim, 0, mean, 0.2f, seed);
    }
    for (int p = 0; p < N_PROJ; p++) {
        int64_t n_out, n_in;
        proj_shape(a, (enum proj)p, &n_out, &n_in);
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", i, proj_path((enum proj)p));
        add(l, name, n_out, n_in, 0, 0.2f, seed);
    }
}

void tiny_open(struct tiny *t, const char *ops_name, const char *config_json, int64_t new_first,
               int64_t n_new, bool untied, int r, uint64_t seed)
{
    tiny_open_compute(t, COMPUTE_F32, ops_name, config_json, new_first, n_new, untied, r, seed);
}

void tiny_open_compute(struct tiny *t, enum compute compute, const char *ops_name, const char *config_json,
                       int64_t new_first, int64_t n_new, bool untied, int r, uint64_t seed)
{
    const enum dtype matrix = compute == COMPUTE_BF16 ? DT_BF16 : DT_F32;
    struct err err = ERR_INIT;
    memset(t, 0, sizeof *t);
    if (arch_parse(&t->arch, config_json, strlen(config_json), "config.json", &err))
        fail_msg("%s", err.what);
    t->ops = ops_by_name(ops_name);
    assert_non_null(t->ops);
    struct device_options d = {.n_threads = 1, .cpu_path = "auto", .compute = compute};
    assert_int_equal(t->ops->open(&t->dev, &d, &err), ST_OK);
    struct tensor_list l = TENSOR_LIST_INIT;
    add(&l, "model.embed_tokens.weight", t->arch.n_embed_rows, t->arch.hidden, 0, 0.6f, seed);
    if (!t->arch.tied)
        add(&l, "lm_head.weight", t->arch.n_embed_rows, t->arch.hidden, 0, 0.3f, seed);
    add(&l, "model.norm.weight", t->arch.hidden, 0, 1 - t->arch.norm_offset, 0.2f, seed);
    for (int i = 0; i < t->arch.n_layers; i++)
        add_layer(&l, &t->arch, i, seed);
    t->block = aligned_alloc(64, weights_block_bytes(&t->arch, matrix));
    if (weights_fill(t->block, &t->arch, matrix, &l, &err))
        fail_msg("%s", err.what);
    for (int i = 0; i < l.n_items; i++)
        free((void *)l.items[i].data);
    tensor_list_release(&l);
    size_t packed_bytes;
    assert_int_equal(weights_packed_bytes(&packed_bytes, &t->arch, matrix, t->ops, t->dev, &err), ST_OK);
    t->packed = aligned_alloc(64, packed_bytes);
    struct weights_memory memory = {.block = t->block, .packed = t->packed, .n_parts = 1};
    assert_int_equal(weights_bind(&t->weights, &t->arch, matrix, &memory, t->ops, t->dev, &err), ST_OK);
    struct lora_config lora = {.r = r, .alpha = 2 * r};
    for (int p = 0; p < N_PROJ; p++)
        lora.target[p] = r > 0;
    if (params_init(&t->params, &t->arch, &lora, new_first, n_new, untied, &err))
        fail_msg("%s", err.what);
    t->values = calloc((size_t)t->params.n_values + 1, sizeof *t->values);
    params_start(&t->params, &t->arch, &t->weights.embed, &t->weights.head, seed, t->values);
    for (int64_t i = 0; i < t->params.n_values; i++)
        t->values[i] += 0.1f * (float)rng_normal(seed + 1, RNG_TEST, 0, (uint64_t)i);
    struct model_config c = {
        .ops = t->ops, .dev = t->dev, .arch = &t->arch, .weights = &t->weights, .params = &t->params};
    if (model_open(&t->model, &c, &err))
        fail_msg("%s", err.what);
    model_set_values(t->model, t->values);
}

void tiny_close(struct tiny *t)
{
    model_close(t->model);
    params_release(&t->params);
    weights_release(&t->weights, t->ops, t->dev);
    t->ops->close(t->dev);
    free(t->block);
    free(t->packed);
    free(t->values);
}

static void fill_segment(struct packed *p, int32_t s, int32_t position, int32_t n_labels, int64_t vocab,
                         uint64_t seed)
{
    struct segment *g = &p->segments[s];
    for (int32_t i = 0; i < g->n_tokens; i++) {
        int32_t t = g->start + i;
        uint64_t z = rng_u64(seed, RNG_TEST, (uint32_t)s, (uint64_t)i);
        p->ids[t] = (int32_t)(z % (uint64_t)vocab);
        p->positions[t] = position + i;
        if (i >= g->n_tokens - 1 - n_labels && i < g->n_tokens - 1)
            p->labels[p->n_labels++] = (int32_t)((z >> 32) % (uint64_t)vocab);
        p->first_label[t + 1] = p->n_labels;
    }
}

struct packed *tiny_sequence(int64_t vocab, uint64_t seed, bool shared)
{
    static const int32_t lengths[] = {7, 5, 9, 11, 4};
    static const int32_t parents[] = {-1, 0, 0, -1, 1};
    struct packed *p = calloc(1, sizeof *p);
    p->n_segments = 5;
    p->segments = calloc(5, sizeof *p->segments);
    for (int32_t s = 0; s < 5; s++) {
        p->segments[s] = (struct segment){
            .start = p->n_tokens, .n_tokens = lengths[s], .parent = shared ? parents[s] : -1, .row = s};
        p->n_tokens += lengths[s];
    }
    p->ids = calloc((size_t)p->n_tokens, sizeof(int32_t));
    p->positions = calloc((size_t)p->n_tokens, sizeof(int32_t));
    p->first_label = calloc((size_t)p->n_tokens + 1, sizeof(int32_t));
    p->labels = calloc((size_t)p->n_tokens, sizeof(int32_t));
    for (int32_t s = 0; s < 5; s++) {
        int32_t position = 0;
        for (int32_t q = p->segments[s].parent; q >= 0; q = p->segments[q].parent)
            position += p->segments[q].n_tokens;
        fill_segment(p, s, position, shared && s < 2 ? 0 : lengths[s] / 2, vocab, seed);
    }
    return p;
}

void tiny_sequence_free(struct packed *p)
{
    free(p->ids);
    free(p->positions);
    free(p->first_label);
    free(p->labels);
    free(p->segments);
    free(p);
}
