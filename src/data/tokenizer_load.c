/* Opens a tokenizer: tokenizer.json into tables, tokenizer_config.json for the end token. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

enum status tokenizer__type(const json_t *value, const char *where, const char **type, struct err *err)
{
    if (!json_is_object(value))
        return err_set(err, ST_INPUT, "\"%s\": not an object", where);
    return json_get_string(value, where, "type", false, NULL, type, err);
}

enum status tokenizer__unsupported(const char *where, const char *what, struct err *err)
{
    err_set(err, ST_INPUT, "\"%s\": %s is not supported", where, what);
    return err_hint(err,
                    "it would change token ids or text; BPE tokenizers as those of Qwen, Llama, SmolLM2 and "
                    "Gemma are supported");
}

static enum status refuse_text(const json_t *model, const char *where, const char *key, struct err *err)
{
    const char *text;
    char what[160];
    TRY(json_get_string(model, where, key, true, "", &text, err));
    if (!*text)
        return ST_OK;
    snprintf(what, sizeof what, "%s \"%.100s\"", key, text);
    return tokenizer__unsupported(where, what, err);
}

static enum status load_unknown(struct tokenizer *t, const json_t *model, const char *where, struct err *err)
{
    const char *text;
    TRY(json_get_string(model, where, "unk_token", true, NULL, &text, err));
    t->model.unk_id = -1;
    if (!text)
        return ST_OK;
    int32_t id = tokenizer__vocab_model(&t->vocab, text, strlen(text));
    t->model.unk_id = id < 0 ? -2 : id; /* the library fails only where it is needed, and so do we */
    return ST_OK;
}

static enum status load_model(struct tokenizer *t, const struct bulk *bulk, struct err *err)
{
    char where[PATH_BYTES + 16];
    const char *type;
    double dropout;
    const json_t *model = json_object_get(t->root, "model");
    snprintf(where, sizeof where, "%s: model", t->path);
    if (!json_is_object(model))
        return err_set(err, ST_INPUT, "\"%s\": %s", where, model ? "not an object" : "missing");
    TRY(json_get_string(model, where, "type", true, "BPE", &type, err));
    if (strcmp(type, "BPE") != 0) {
        char what[128];
        snprintf(what, sizeof what, "the model type \"%.100s\"", type);
        return tokenizer__unsupported(where, what, err);
    }
    TRY(refuse_text(model, where, "continuing_subword_prefix", err));
    TRY(refuse_text(model, where, "end_of_word_suffix", err));
    TRY(json_get_double(model, where, "dropout", true, 0, &dropout, err));
    if (dropout != 0)
        return tokenizer__unsupported(where, "dropout", err);
    TRY(json_get_bool(model, where, "fuse_unk", true, false, &t->model.fuse_unk, err));
    TRY(json_get_bool(model, where, "byte_fallback", true, false, &t->model.byte_fallback, err));
    TRY(json_get_bool(model, where, "ignore_merges", true, false, &t->model.ignore_merges, err));
    if (!bulk->vocab_end || !bulk->merges_end)
        return err_set(err, ST_INPUT, "\"%s\": %s", where,
                       bulk->vocab_end ? "merges: missing or not a list" : "vocab: missing or not an object");
    TRY(tokenizer__bulk_vocab(bulk, &t->vocab, err));
    TRY(tokenizer__bulk_merges(bulk, t, err));
    TRY(load_unknown(t, model, where, err));
    tokenizer__model_index(t);
    return ST_OK;
}

/* One special token of a template, by way of the template's own table. */
static enum status template_token(struct tokenizer *t, const json_t *template, const json_t *item,
                                  const char *where, struct ids *out, struct err *err)
{
    const char *name;
    TRY(json_get_string(item, where, "id", false, NULL, &name, err));
    const json_t *special = json_object_get(json_object_get(template, "special_tokens"), name);
    const json_t *ids = json_object_get(special, "ids");
    if (!json_is_array(ids))
        return err_set(err, ST_INPUT, "\"%s\": special_tokens has no \"%.100s\" with a list of ids", where,
                       name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value >= t->vocab.n_ids || !t->vocab.entries[value].text)
            return err_set(err, ST_INPUT, "\"%s\": special_tokens[\"%.100s\"].ids[%zu] is no token's id",
                           where, name, i);
        TRY(ids_push(out, (int32_t)value, err));
    }
    return ST_OK;
}

static enum status load_template(struct tokenizer *t, const json_t *value, const char *where, struct err *err)
{
    const json_t *single = json_object_get(value, "single");
    int n_sequences = 0;
    if (!json_is_array(single))
        return err_set(err, ST_INPUT, "\"%s\": single: not a list", where);
    if (t->prefix.n || t->suffix.n)
        return tokenizer__unsupported(where, "a second template", err);
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i), *token = json_object_get(item, "SpecialToken");
        const json_t *sequence = json_object_get(item, "Sequence");
        const char *id = json_string_value(json_object_get(sequence, "id"));
        if (token)
            TRY(template_token(t, value, token, where, n_sequences ? &t->suffix : &t->prefix, err));
        else if (id && strcmp(id, "A") == 0)
            n_sequences++;
        else
            return err_set(err, ST_INPUT, "\"%s\": single[%zu]: neither a special token nor sequence A",
                           where, i);
    }
    if (n_sequences != 1)
        return tokenizer__unsupported(where, "a template in which the text does not stand exactly once", err);
    return ST_OK;
}

static enum status load_post(struct tokenizer *t, const json_t *value, const char *where, int depth,
                             struct err *err)
{
    const char *type;
    if (!value || json_is_null(value))
        return ST_OK;
    TRY(tokenizer__type(value, where, &type, err));
    if (strcmp(type, "ByteLevel") == 0) /* moves offsets, adds no ids */
        return ST_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return load_template(t, value, where, err);
    if (strcmp(type, "Sequence") != 0 || depth == MAX_STEPS)
        return tokenizer__unsupported(where, type, err);
    const json_t *list = json_object_get(value, "processors");
    if (!json_is_array(list))
        return err_set(err, ST_INPUT, "\"%s\": processors: not a list", where);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(load_post(t, json_array_get(list, i), where, depth + 1, err));
    return ST_OK;
}

/* A token's name is a string or an object with its content. */
static enum status load_eos(struct tokenizer *t, const char *path, struct err *err)
{
    const json_t *eos = json_object_get(t->config, "eos_token");
    t->eos = -1;
    if (!eos || json_is_null(eos))
        return ST_OK;
    if (json_is_object(eos))
        eos = json_object_get(eos, "content");
    if (!json_is_string(eos))
        return err_set(err, ST_INPUT, "\"%s\": eos_token: neither a string nor an object with content", path);
    t->eos = tokenizer_id(t, json_string_value(eos));
    if (t->eos < 0)
        return err_set(err, ST_INPUT, "\"%s\": eos_token \"%.100s\" is no token of tokenizer.json", path,
                       json_string_value(eos));
    return ST_OK;
}

static enum status load_config(struct tokenizer *t, const char *dir, struct err *err)
{
    char path[PATH_BYTES];
    TRY(path_join(path, dir, "tokenizer_config.json", err));
    t->eos = -1;
    if (!file_exists(path))
        return ST_OK;
    TRY(json_read_file(&t->config, path, (size_t)64 << 20, err));
    if (!json_is_object(t->config))
        return err_set(err, ST_INPUT, "\"%s\": not an object", path);
    return load_eos(t, path, err);
}

static enum status load_text(struct tokenizer *t, const char *text, size_t n_bytes, struct err *err)
{
    char where[PATH_BYTES + 24];
    struct bulk bulk = {.path = t->path, .text = text, .n_bytes = n_bytes};
    sha256_buffer(text, n_bytes, t->sha256);
    TRY(tokenizer__bulk_find(&bulk, &t->root, err));
    if (!json_is_object(t->root))
        return err_set(err, ST_INPUT, "\"%s\": not an object", t->path);
    TRY(load_model(t, &bulk, err));
    TRY(tokenizer__normalizer_load(&t->normalizer, t->root, t->path, err));
    TRY(tokenizer__splitter_load(&t->splitter, t->root, t->path, err));
    TRY(tokenizer__decoder_load(&t->decoder, t->root, t->path, err));
    TRY(tokenizer__added_load(t, t->root, err));
    snprintf(where, sizeof where, "%s: post_processor", t->path);
    return load_post(t, json_object_get(t->root, "post_processor"), where, 0, err);
}

static enum status load_file(struct tokenizer *t, const char *dir, struct err *err)
{
    struct file_map map;
    int64_t n_bytes;
    TRY(path_join(t->path, dir, "tokenizer.json", err));
    TRY(file_size(t->path, &n_bytes, err));
    if ((uint64_t)n_bytes > TOKENIZER_MAX_FILE_BYTES)
        return err_set(err, ST_INPUT, "\"%s\": %lld bytes are too many for a tokenizer", t->path,
                       (long long)n_bytes);
    TRY(file_map(&map, t->path, err));
    enum status status = load_text(t, map.data ? (const char *)map.data : "", map.n_bytes, err);
    file_unmap(&map);
    return status;
}

enum status tokenizer_open(struct tokenizer **out, const char *dir, struct err *err)
{
    *out = NULL;
    struct tokenizer *t = calloc(1, sizeof *t);
    struct workspace_pool *pool = calloc(1, sizeof *pool);
    if (!t || !pool) {
        free(t);
        free(pool);
        return err_memory(err, "a tokenizer", sizeof *t);
    }
    pthread_mutex_init(&pool->lock, NULL);
    t->pool = pool;
    t->added.max_id = -1;
    enum status status = tokenizer__classes_init(&t->classes, err);
    if (status == ST_OK)
        status = load_file(t, dir, err);
    if (status == ST_OK)
        status = load_config(t, dir, err);
    if (status != ST_OK) {
        tokenizer_close(t);
        return status;
    }
    *out = t;
    return ST_OK;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    json_decref(t->root);
    json_decref(t->config);
    tokenizer__classes_release(&t->classes);
    tokenizer__vocab_release(&t->vocab);
    tokenizer__merges_release(&t->merges);
    tokenizer__added_release(&t->added);
    tokenizer__normalizer_release(&t->normalizer);
    tokenizer__splitter_release(&t->splitter);
    tokenizer__decoder_release(&t->decoder);
    ids_release(&t->prefix);
    ids_release(&t->suffix);
    tokenizer__workspace_pool_release(t->pool);
    free(t->pool);
    free(t);
}

int32_t tokenizer_size(const struct tokenizer *t)
{
    return t->vocab.n_ids;
}

const char *tokenizer_sha256(const struct tokenizer *t)
{
    return t->sha256;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token)
{
    return tokenizer__vocab_find(&t->vocab, token, strlen(token));
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n_ids ? t->vocab.entries[id].text : NULL;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->prefix.n > 0 ? t->prefix.data[0] : -1;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}
