#include "tiny.h"
#include "util/file.h"
#include "util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void must(enum status st, const struct err *err)
{
    if (st != ST_OK)
        fail_msg("%s", err->what);
}

static void open_data(struct tiny *t, const char *rows, bool space_tokens)
{
    struct err err = ERR_INIT;
    struct examples *x;
    char path[PATH_BYTES];
    snprintf(t->dir, sizeof t->dir, "/tmp/smgpt-generate-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    must(tokenizer_write_bytes(t->dir, &err), &err);
    must(tokenizer_open(&t->tokenizer, t->dir, &err), &err);
    must(path_join(path, t->dir, "rows.json", &err), &err);
    must(file_write(path, rows, strlen(rows), &err), &err);
    must(examples_open(&x, path, &err), &err);
    must(motion_vocab_make(&t->vocab, t->tokenizer, x, "Be brief.", space_tokens, &err), &err);
    examples_close(x);
    must(template_open(&t->template, t->tokenizer, &t->vocab, &err), &err);
}

static void add(struct tensor_list *l, const char *name, int64_t rows, int64_t cols, float mean, float spread,
                uint64_t seed)
{
    struct err err = ERR_INIT;
    int64_t n = rows * (cols ? cols : 1), dims[2] = {rows, cols};
    float *data = malloc((size_t)n * sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = mean + spread * (float)rng_normal(seed, RNG_TEST, (uint32_t)l->n_items, (uint64_t)i);
    must(tensor_list_add(l, name, DT_F32, cols ? 2 : 1, dims, data, &err), &err);
}

static void add_layer(struct tensor_list *l, const struct arch *a, int layer, uint64_t seed)
{
    static const char *const norms[] = {"input_layernorm", "post_attention_layernorm", "self_attn.q_norm",
                                        "self_attn.k_norm"};
    char name[128];
    for (int k = 0; k < 4; k++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, norms[k]);
        add(l, name, k < 2 ? a->hidden : a->head_dim, 0, 1, 0.2f, seed);
    }
    for (int p = 0; p < N_PROJ; p++) {
        int64_t n_out, n_in;
        proj_shape(a, (enum proj)p, &n_out, &n_in);
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, proj_path((enum proj)p));
        add(l, name, n_out, n_in, 0, 0.25f, seed);
    }
}

static void fill_weights(struct tiny *t, uint64_t seed)
{
    struct err err = ERR_INIT;
    struct tensor_list l = TENSOR_LIST_INIT;
    add(&l, "model.embed_tokens.weight", t->arch.n_embed_rows, t->arch.hidden, 0, 0.6f, seed);
    add(&l, "model.norm.weight", t->arch.hidden, 0, 1, 0.2f, seed);
    for (int i = 0; i < t->arch.n_layers; i++)
        add_layer(&l, &t->arch, i, seed);
    t->block = aligned_alloc(64, weights_block_bytes(&t->arch, DT_F32));
    must(weights_fill(t->block, &t->arch, DT_F32, &l, &err), &err);
    for (int i = 0; i < l.n_items; i++)
        free((void *)(uintptr_t)l.items[i].data);
    tensor_list_release(&l);
}

void tiny_open(struct tiny *t, const char *rows, bool space_tokens, uint64_t seed)
{
    struct err err = ERR_INIT;
    struct device_options device = {.n_threads = 1, .cpu_path = "auto", .compute = COMPUTE_F32};
    char config[512];
    memset(t, 0, sizeof *t);
    open_data(t, rows, space_tokens);
    snprintf(config, sizeof config,
             "{\"model_type\":\"qwen3\",\"hidden_size\":24,\"intermediate_size\":40,\"num_hidden_layers\":2,"
             "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":8,\"vocab_size\":%d,"
             "\"tie_word_embeddings\":true}",
             t->vocab.base_vocab_size);
    must(arch_parse(&t->arch, config, strlen(config), "config.json", &err), &err);
    t->ops = ops_by_name("cpu");
    must(t->ops->open(&t->dev, &device, &err), &err);
    fill_weights(t, seed);
    size_t packed_bytes;
    must(weights_packed_bytes(&packed_bytes, &t->arch, DT_F32, t->ops, t->dev, &err), &err);
    t->packed = aligned_alloc(64, packed_bytes);
    struct weights_memory memory = {.block = t->block, .packed = t->packed, .n_parts = 1};
    must(weights_bind(&t->weights, &t->arch, DT_F32, &memory, t->ops, t->dev, &err), &err);
    struct lora_config lora = {.r = 2, .alpha = 4, .target = {[PROJ_Q] = true, [PROJ_UP] = true}};
    must(params_init(&t->params, &t->arch, &lora, t->vocab.base_vocab_size,
                     t->vocab.vocab_size - t->vocab.base_vocab_size, false, &err),
         &err);
    t->values = malloc((size_t)t->params.n_values * sizeof *t->values);
    for (int64_t i = 0; i < t->params.n_values; i++)
        t->values[i] = 0.5f * (float)rng_normal(seed, RNG_TEST, UINT32_MAX, (uint64_t)i);
    struct model_config c = {
        .ops = t->ops, .dev = t->dev, .arch = &t->arch, .weights = &t->weights, .params = &t->params};
    must(model_open(&t->model, &c, &err), &err);
    model_set_values(t->model, t->values);
}

void tiny_close(struct tiny *t)
{
    struct err err = ERR_INIT;
    model_close(t->model);
    params_release(&t->params);
    weights_release(&t->weights, t->ops, t->dev);
    t->ops->close(t->dev);
    free(t->block);
    free(t->packed);
    free(t->values);
    template_close(t->template);
    motion_vocab_release(&t->vocab);
    tokenizer_close(t->tokenizer);
    must(dir_remove(t->dir, &err), &err);
}

void tiny_last_logits(const struct tiny *t, const int32_t *ids, int32_t n, float *logits)
{
    struct err err = ERR_INIT;
    int64_t v = model_vocab(t->model);
    int32_t *positions = malloc((size_t)n * sizeof *positions);
    float *all = malloc((size_t)(n * v) * sizeof *all);
    struct segment whole = {.n_tokens = n, .parent = -1};
    struct packed seq = {.n_tokens = n,
                         .n_segments = 1,
                         .ids = (int32_t *)(uintptr_t)ids,
                         .positions = positions,
                         .segments = &whole};
    for (int32_t i = 0; i < n; i++)
        positions[i] = i;
    must(model_logits(t->model, &seq, all, &err), &err);
    memcpy(logits, all + (n - 1) * v, (size_t)v * sizeof *logits);
    free(positions);
    free(all);
}
