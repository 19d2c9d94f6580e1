/* A complete Hugging Face model directory with random weights. */
#include "checkpoint/safetensors.h"
#include "cli_internal.h"
#include "data/tokenizer.h"
#include "init_config.h"
#include "model/arch.h"
#include "util/file.h"
#include "util/json.h"
#include "util/log.h"
#include "util/rng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What transformers calls initializer_range. */
#define INIT_STD 0.02

struct plan_tensor {
    char name[96];
    int n_dims;
    int64_t dims[2];
    bool random; /* else filled with the family's neutral gain */
};

struct weights_plan {
    struct plan_tensor *items;
    int n_items, capacity;
    size_t n_values;
};

static enum status plan_add(struct weights_plan *p, const char *name, int64_t rows, int64_t cols, bool random,
                            struct err *err)
{
    if (p->n_items == p->capacity) {
        int grown = p->capacity ? 2 * p->capacity : 64;
        struct plan_tensor *more = realloc(p->items, (size_t)grown * sizeof *more);
        if (!more)
            return err_memory(err, "the list of weights", (size_t)grown * sizeof *more);
        p->items = more;
        p->capacity = grown;
    }
    struct plan_tensor *t = &p->items[p->n_items++];
    *t = (struct plan_tensor){.n_dims = cols ? 2 : 1, .dims = {rows, cols}, .random = random};
    snprintf(t->name, sizeof t->name, "%s", name);
    size_t n;
    if (!size_mul((size_t)rows, cols ? (size_t)cols : 1, &n) || !size_add(p->n_values, n, &p->n_values))
        return err_set(err, ST_INPUT, "tensor '%s' is too large", name);
    return ST_OK;
}

static enum status plan_layer(struct weights_plan *p, const struct arch *a, int layer, struct err *err)
{
    static const char *const norms[] = {"input_layernorm", "post_attention_layernorm",
                                        "pre_feedforward_layernorm", "post_feedforward_layernorm"};
    char name[96];
    for (int i = 0; i < (a->sandwich ? 4 : 2); i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, norms[i]);
        TRY(plan_add(p, name, a->hidden, 0, false, err));
    }
    for (int i = 0; i < 2 && a->qk_norm; i++) {
        snprintf(name, sizeof name, "model.layers.%d.self_attn.%c_norm.weight", layer, "qk"[i]);
        TRY(plan_add(p, name, a->head_dim, 0, false, err));
    }
    for (int i = 0; i < N_PROJ; i++) {
        int64_t n_out, n_in;
        proj_shape(a, (enum proj)i, &n_out, &n_in);
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, proj_path((enum proj)i));
        TRY(plan_add(p, name, n_out, n_in, true, err));
    }
    return ST_OK;
}

static enum status plan_weights(struct weights_plan *p, const struct arch *a, struct err *err)
{
    TRY(plan_add(p, "model.embed_tokens.weight", a->n_embed_rows, a->hidden, true, err));
    for (int i = 0; i < a->n_layers; i++)
        TRY(plan_layer(p, a, i, err));
    TRY(plan_add(p, "model.norm.weight", a->hidden, 0, false, err));
    return a->tied ? ST_OK : plan_add(p, "lm_head.weight", a->n_embed_rows, a->hidden, true, err);
}

static void fill(const struct plan_tensor *t, int index, const struct arch *a, uint64_t seed, float *out,
                 size_t n)
{
    float neutral = 1 - a->norm_offset; /* Gemma's gain is 1 + w */
    for (size_t i = 0; i < n; i++)
        out[i] =
            t->random ? (float)(INIT_STD * rng_normal(seed, RNG_INIT_MODEL, (uint32_t)index, i)) : neutral;
}

static size_t count_of(const struct plan_tensor *t)
{
    return (size_t)t->dims[0] * (t->n_dims == 2 ? (size_t)t->dims[1] : 1);
}

static enum status write_weights(const struct weights_plan *p, const struct arch *a, uint64_t seed,
                                 enum dtype dtype, const char *path, struct err *err)
{
    struct tensor_list list = TENSOR_LIST_INIT;
    size_t bytes = 0, at = 0, most = 0;
    for (int i = 0; i < p->n_items; i++)
        most = count_of(&p->items[i]) > most ? count_of(&p->items[i]) : most;
    char *values = size_mul(p->n_values, dtype_bytes(dtype), &bytes) ? malloc(bytes) : NULL;
    float *floats = malloc(most * sizeof *floats + 1);
    enum status st = values && floats ? ST_OK : err_memory(err, "the weights", bytes);
    for (int i = 0; i < p->n_items && st == ST_OK; i++) {
        const struct plan_tensor *t = &p->items[i];
        size_t n = count_of(t);
        fill(t, i, a, seed, floats, n);
        dtype_from_f32(dtype, floats, values + at, n);
        st = tensor_list_add(&list, t->name, dtype, t->n_dims, t->dims, values + at, err);
        at += n * dtype_bytes(dtype);
    }
    if (st == ST_OK)
        st = safetensors_write(path, &list, err);
    tensor_list_release(&list);
    free(floats);
    free(values);
    return st;
}

/* The files that AutoTokenizer looks at, those that are there. */
static enum status copy_tokenizer(const char *from, const char *to, struct err *err)
{
    static const char *const names[] = {
        "tokenizer.json",    "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "chat_template.jinja",   "vocab.json",
        "merges.txt",        "tokenizer.model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char source[PATH_BYTES], target[PATH_BYTES];
        TRY(path_join(source, from, names[i], err));
        TRY(path_join(target, to, names[i], err));
        if (file_exists(source))
            TRY(file_copy(source, target, err));
    }
    return ST_OK;
}

struct init_request {
    const char *family, *preset, *tokenizer;
    uint64_t seed;
};

static enum status write_json(const char *dir, const char *name, json_t *value, struct err *err)
{
    char path[PATH_BYTES];
    TRY(path_join(path, dir, name, err));
    return json_write_file(path, value, true, err);
}

/* config.json is read back by the model room: what it says is what the weights are made for. */
static enum status write_config(const struct init_request *r, const struct tokenizer *t, const char *dir,
                                struct arch *a, size_t *n_values, struct err *err)
{
    struct init_tokens ids = {tokenizer_size(t), tokenizer_bos(t), tokenizer_eos(t)};
    struct weights_plan plan = {0};
    char path[PATH_BYTES];
    json_t *config = init_config(r->family, r->preset, &ids), *generation = init_generation_config(&ids);
    const char *type = json_string_value(json_object_get(config, "dtype"));
    char *text = json_dumps(config, 0);
    enum status st =
        text ? arch_parse(a, text, strlen(text), "config.json", err) : err_memory(err, "config.json", 0);
    if (st == ST_OK)
        st = write_json(dir, "config.json", config, err);
    if (st == ST_OK)
        st = write_json(dir, "generation_config.json", generation, err);
    if (st == ST_OK)
        st = plan_weights(&plan, a, err);
    if (st == ST_OK)
        st = path_join(path, dir, "model.safetensors", err);
    if (st == ST_OK)
        st = write_weights(&plan, a, r->seed, strcmp(type, "bfloat16") == 0 ? DT_BF16 : DT_F32, path, err);
    *n_values = plan.n_values;
    free(text);
    free(plan.items);
    json_decref(config);
    json_decref(generation);
    return st;
}

static enum status fill_directory(const struct init_request *r, const char *dir, struct arch *a,
                                  size_t *n_values, struct err *err)
{
    struct tokenizer *t = NULL;
    if (strcmp(r->tokenizer, "bytes") == 0)
        TRY(tokenizer_write_bytes(dir, err));
    else
        TRY(copy_tokenizer(r->tokenizer, dir, err));
    TRY(tokenizer_open(&t, dir, err));
    enum status st = write_config(r, t, dir, a, n_values, err);
    tokenizer_close(t);
    return st == ST_OK ? dir_sync(dir, err) : st;
}

static enum status check_free(const char *out, struct err *err)
{
    char **names;
    int n_names;
    if (access(out, F_OK) != 0)
        return ST_OK;
    if (!dir_exists(out))
        return err_set(err, ST_USAGE, "--out '%s' is there and is no directory", out);
    TRY(dir_list(out, &names, &n_names, err));
    names_free(names, n_names);
    if (n_names == 0)
        return ST_OK;
    err_set(err, ST_USAGE, "--out '%s' is there and not empty", out);
    return err_hint(err, "name another directory, or take this one away");
}

/* The directory that holds `path`, made if need be. */
static enum status make_parent(const char *path, char parent[PATH_BYTES], struct err *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        strcpy(parent, ".");
    else
        snprintf(parent, PATH_BYTES, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return dir_make(parent, err);
}

static enum status run(const struct init_request *r, const char *out_arg, struct err *err)
{
    char out[PATH_BYTES - 64], tmp[PATH_BYTES], parent[PATH_BYTES];
    struct arch a;
    size_t n_values = 0, n = strlen(out_arg);
    while (n > 1 && out_arg[n - 1] == '/')
        n--;
    if (n >= sizeof out)
        return err_set(err, ST_USAGE, "--out is longer than %zu bytes", sizeof out - 1);
    memcpy(out, out_arg, n);
    out[n] = '\0';
    TRY(check_free(out, err));
    if (strcmp(r->tokenizer, "bytes") && !dir_exists(r->tokenizer)) {
        err_set(err, ST_INPUT, "--tokenizer '%s' is no directory", r->tokenizer);
        return err_hint(err, "name a directory with tokenizer.json, or `bytes`");
    }
    TRY(make_parent(out, parent, err));
    snprintf(tmp, sizeof tmp, "%s.tmp.%ld", out, (long)getpid());
    enum status st = dir_make(tmp, err);
    if (st == ST_OK)
        st = fill_directory(r, tmp, &a, &n_values, err);
    if (st == ST_OK && rename(tmp, out) != 0)
        st = err_errno(err, ST_ENV, "cannot rename '%s' to '%s'", tmp, out);
    if (st != ST_OK) {
        dir_remove(tmp, &(struct err)ERR_INIT); /* the first failure is the one to tell */
        return st;
    }
    log_info("%s: %s, %d layers, hidden %d, vocabulary %d, %zu values, seed %llu", out, a.model_type,
             a.n_layers, a.hidden, a.n_embed_rows, n_values, (unsigned long long)r->seed);
    return dir_sync(parent, err);
}

int cmd_init_model(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct init_request r = {0};
    const char *out = NULL;
    int64_t seed = -1;
    const struct argument items[] = {
        {.name = "--family", .kind = ARG_CHOICE, .value = &r.family, .words = "qwen3|gemma3_text|llama"},
        {.name = "--preset", .kind = ARG_CHOICE, .value = &r.preset, .words = "tiny|small|0.6b"},
        {.name = "--tokenizer", .kind = ARG_TEXT, .value = &r.tokenizer},
        {.name = "--seed", .kind = ARG_INTEGER, .value = &seed, .min = 0, .max = INT64_MAX},
        {.name = "--out", .kind = ARG_TEXT, .value = &out},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items};
    enum status st = arguments_parse(&a, argc, argv, &err);
    const struct {
        const char *name, *value;
    } needed[] = {{"--family", r.family},
                  {"--preset", r.preset},
                  {"--tokenizer", r.tokenizer},
                  {"--seed", seed < 0 ? NULL : ""},
                  {"--out", out}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed && st == ST_OK; i++)
        st = argument_needed(needed[i].name, needed[i].value, &err);
    r.seed = (uint64_t)seed;
    if (st == ST_OK && strcmp(r.preset, "0.6b") == 0 && strcmp(r.family, "qwen3"))
        st = err_set(&err, ST_USAGE, "--preset 0.6b is a shape of qwen3, not of %s", r.family);
    if (st == ST_OK)
        st = run(&r, out, &err);
    return cli_end(st, &err);
}
