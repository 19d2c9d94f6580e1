/* Merging: W + s B A for every adapted projection, new rows in their places in a grown embedding. */
#include "export.h"
#include "checkpoint/safetensors.h"
#include "util/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX_BYTES (4 << 20)

static void merge_projections(struct assembly *s)
{
    const struct params *p = &s->params;
    for (int32_t l = 0; l < s->arch.n_layers; l++)
        for (int q = 0; q < N_PROJ; q++) {
            struct weight *w = &s->weights.layers[l].proj[q];
            int32_t item = p->index_lora[l][q];
            if (item < 0)
                continue;
            const float *a = s->values + p->items[item].offset, *b = s->values + p->items[item + 1].offset;
            s->ops->gemm(s->dev, false, false, w->n_out, w->n_in, p->lora.r, p->scaling, b, p->lora.r, a,
                         w->n_in, 1, (float *)w->data, w->n_in);
        }
    s->ops->sync(s->dev);
}

/* The matrix with V rows: base rows, then the new rows over and behind them. Owned by the caller. */
static float *grown_matrix(const struct assembly *s, const struct weight *base, int32_t item)
{
    const struct params *p = &s->params;
    int64_t v = model_vocab(s->model), h = base->n_in;
    float *out = calloc((size_t)(v * h), sizeof *out);
    if (!out)
        return NULL;
    memcpy(out, base->data, (size_t)(base->n_out * h) * sizeof *out);
    if (item >= 0)
        memcpy(out + p->new_first * h, s->values + p->items[item].offset,
               (size_t)(p->n_new * h) * sizeof *out);
    return out;
}

static enum status add_vector(struct tensor_list *l, const char *name, const float *data, int64_t n,
                              struct err *err)
{
    return data ? tensor_list_add(l, name, DT_F32, 1, &n, data, err) : ST_OK;
}

static enum status add_layer(struct tensor_list *list, const struct assembly *s, int32_t l, struct err *err)
{
    const struct layer_weights *w = &s->weights.layers[l];
    bool g = s->arch.sandwich;
    const struct {
        const char *name;
        const float *data;
        int64_t n;
    } norms[] = {{"input_layernorm", w->attn_norm, s->arch.hidden},
                 {g ? "pre_feedforward_layernorm" : "post_attention_layernorm", w->mlp_norm, s->arch.hidden},
                 {"post_attention_layernorm", w->post_attn_norm, s->arch.hidden},
                 {"post_feedforward_layernorm", w->post_mlp_norm, s->arch.hidden},
                 {"self_attn.q_norm", w->q_norm, s->arch.head_dim},
                 {"self_attn.k_norm", w->k_norm, s->arch.head_dim}};
    char name[128];
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, norms[i].name);
        TRY(add_vector(list, name, norms[i].data, norms[i].n, err));
    }
    for (int q = 0; q < N_PROJ; q++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, proj_path((enum proj)q));
        TRY(tensor_list_add(list, name, DT_F32, 2, (int64_t[]){w->proj[q].n_out, w->proj[q].n_in},
                            w->proj[q].data, err));
    }
    return ST_OK;
}

static enum status write_weights(struct assembly *s, const char *dir, bool untied, struct err *err)
{
    const struct params *p = &s->params;
    char path[PATH_BYTES];
    struct tensor_list l = TENSOR_LIST_INIT;
    int64_t dims[2] = {model_vocab(s->model), s->arch.hidden};
    bool own_head = untied || !s->arch.tied;
    float *embed = grown_matrix(s, &s->weights.embed, p->index_rows);
    float *head = own_head ? grown_matrix(s, &s->weights.head,
                                          p->index_head_rows >= 0 ? p->index_head_rows : p->index_rows)
                           : NULL;
    enum status st = embed && (head || !own_head)
                         ? ST_OK
                         : err_memory(err, "the grown embedding", (size_t)(dims[0] * dims[1]) * 4);
    if (st == ST_OK)
        st = tensor_list_add(&l, "model.embed_tokens.weight", DT_F32, 2, dims, embed, err);
    if (st == ST_OK && own_head)
        st = tensor_list_add(&l, "lm_head.weight", DT_F32, 2, dims, head, err);
    if (st == ST_OK)
        st = add_vector(&l, "model.norm.weight", s->weights.final_norm, s->arch.hidden, err);
    for (int32_t i = 0; i < s->arch.n_layers && st == ST_OK; i++)
        st = add_layer(&l, s, i, err);
    if (st == ST_OK)
        st = path_join(path, dir, "model.safetensors", err);
    if (st == ST_OK)
        st = safetensors_write(path, &l, err);
    tensor_list_release(&l);
    free(embed);
    free(head);
    return st;
}

/* The base's config.json with what merging changed. */
static enum status write_config(const struct assembly *s, const char *model_dir, const char *dir, bool untied,
                                struct err *err)
{
    char path[PATH_BYTES];
    json_t *c = NULL;
    TRY(path_join(path, model_dir, "config.json", err));
    TRY(json_read_file(&c, path, CONFIG_MAX_BYTES, err));
    json_object_set_new(c, "vocab_size", json_integer(model_vocab(s->model)));
    json_object_set_new(c, "tie_word_embeddings", json_boolean(s->arch.tied && !untied));
    /* Both spellings of the type's key are in use; keep the one that is there. */
    json_object_set_new(c, json_object_get(c, "torch_dtype") ? "torch_dtype" : "dtype",
                        json_string("float32"));
    enum status st = path_join(path, dir, "config.json", err);
    if (st == ST_OK)
        st = json_write_file(path, c, true, err);
    json_decref(c);
    return st;
}

/* Small files that travel unchanged: from the adapter where it has them, else from the base. */
static enum status copy_files(const struct model_path *from, const char *dir, struct err *err)
{
    static const char *const files[] = {"tokenizer.json",          "tokenizer_config.json",
                                        "special_tokens_map.json", "chat_template.jinja",
                                        "generation_config.json",  "smgpt_data.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char source[PATH_BYTES], to[PATH_BYTES];
        TRY(path_join(to, dir, files[i], err));
        TRY(path_join(source, from->adapter_dir[0] ? from->adapter_dir : from->model_dir, files[i], err));
        if (!file_exists(source))
            TRY(path_join(source, from->model_dir, files[i], err));
        if (file_exists(source))
            TRY(file_copy(source, to, err));
    }
    return ST_OK;
}

enum status export_merged(struct assembly *s, const struct model_path *from, const char *out_dir,
                          bool *untied, struct err *err)
{
    char tmp[PATH_BYTES];
    *untied = s->arch.tied && s->params.index_head_rows >= 0;
    if (file_exists(out_dir) || dir_exists(out_dir)) {
        err_set(err, ST_USAGE, "'%s' exists already", out_dir);
        return err_hint(err, "name a directory that does not exist yet");
    }
    if (snprintf(tmp, sizeof tmp, "%s.tmp-export", out_dir) >= (int)sizeof tmp)
        return err_set(err, ST_USAGE, "the name '%.60s...' is too long", out_dir);
    merge_projections(s);
    enum status st = dir_remove(tmp, err);
    if (st == ST_OK)
        st = dir_make(tmp, err);
    if (st == ST_OK)
        st = write_config(s, from->model_dir, tmp, *untied, err);
    if (st == ST_OK)
        st = copy_files(from, tmp, err);
    if (st == ST_OK)
        st = write_weights(s, tmp, *untied, err);
    if (st == ST_OK && rename(tmp, out_dir) != 0)
        st = err_errno(err, ST_ENV, "cannot rename '%s' to '%s'", tmp, out_dir);
    if (st != ST_OK)
        dir_remove(tmp, NULL);
    return st;
}
