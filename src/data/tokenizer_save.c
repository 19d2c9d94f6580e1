/* Writes tokenizer.json and tokenizer_config.json so that transformers' AutoTokenizer reads them. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

/* A vocabulary has hundreds of thousands of these, and each checkpoint writes them: plain loops. */
static enum status put_string(struct buf *out, const char *text, size_t n_bytes, struct err *err)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt", digits[] = "0123456789abcdef";
    size_t most;
    if (!size_mul(n_bytes, 6, &most) || !size_add(most, 2, &most))
        return err_memory(err, "a token as JSON", n_bytes);
    TRY(buf_reserve(out, most, err));
    char *at = out->data + out->n_bytes;
    *at++ = '"';
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            *at++ = (char)c;
            continue;
        }
        const char *known = c ? strchr(from, c) : NULL;
        *at++ = '\\';
        if (known) {
            *at++ = to[known - from];
            continue;
        }
        memcpy(at, "u00", 3);
        at[3] = digits[c >> 4];
        at[4] = digits[c & 15];
        at += 5;
    }
    *at++ = '"';
    *at = '\0';
    out->n_bytes = (size_t)(at - out->data);
    return ST_OK;
}

static enum status put_id(struct buf *out, int32_t id, struct err *err)
{
    char digits[12];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + id % 10);
    while ((id /= 10) > 0);
    return buf_append(out, digits + at, sizeof digits - at, err);
}

static enum status put_token(struct buf *out, const struct token_entry *e, struct err *err)
{
    return put_string(out, e->text, e->n_bytes, err);
}

/* A value with the indentation of its place. */
static enum status put_value(struct buf *out, const json_t *value, const char *indent, struct err *err)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (!text)
        return err_memory(err, "a JSON text", 0);
    enum status status = ST_OK;
    for (char *line = text; line && status == ST_OK;) {
        char *end = strchr(line, '\n'); /* strings have none: theirs are escaped */
        status = buf_append(out, line, end ? (size_t)(end - line) : strlen(line), err);
        if (end && status == ST_OK)
            status = buf_printf(out, err, "\n%s", indent);
        line = end ? end + 1 : NULL;
    }
    free(text);
    return status;
}

static const char *word(bool b)
{
    return b ? "true" : "false";
}

static int by_id(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static enum status put_added(struct buf *out, const struct tokenizer *t, const struct added_token *sorted,
                             struct err *err)
{
    TRY(buf_puts(out, "[", err));
    for (int32_t i = 0; i < t->added.n; i++) {
        const struct added_token *a = &sorted[i];
        TRY(buf_printf(out, err, "%s\n    {\n      \"id\": %d,\n      \"content\": ", i ? "," : "",
                       (int)a->id));
        TRY(put_token(out, &t->vocab.entries[a->id], err));
        TRY(buf_printf(out, err,
                       ",\n      \"single_word\": %s,\n      \"lstrip\": %s,\n      \"rstrip\": %s,\n"
                       "      \"normalized\": %s,\n      \"special\": %s\n    }",
                       word(a->single_word), word(a->lstrip), word(a->rstrip), word(a->normalized),
                       word(a->special)));
    }
    return buf_puts(out, t->added.n ? "\n  ]" : "]", err);
}

/* In the order of ids, which is the order that gives the same ids when the list is read again. */
static enum status put_added_sorted(struct buf *out, const struct tokenizer *t, struct err *err)
{
    size_t n_bytes = (size_t)t->added.n * sizeof *t->added.items;
    struct added_token *sorted = malloc(n_bytes + 1);
    if (!sorted)
        return err_memory(err, "added tokens", n_bytes);
    if (n_bytes) {
        memcpy(sorted, t->added.items, n_bytes);
        qsort(sorted, (size_t)t->added.n, sizeof *sorted, by_id);
    }
    enum status status = put_added(out, t, sorted, err);
    free(sorted);
    return status;
}

static enum status put_vocab(struct buf *out, const struct vocab *v, struct err *err)
{
    bool first = true;
    TRY(buf_puts(out, "{", err));
    for (int32_t id = 0; id < v->n_ids; id++) {
        if (!v->entries[id].in_model)
            continue;
        TRY(buf_puts(out, first ? "\n      " : ",\n      ", err));
        TRY(put_token(out, &v->entries[id], err));
        TRY(buf_append(out, ": ", 2, err));
        TRY(put_id(out, id, err));
        first = false;
    }
    return buf_puts(out, first ? "}" : "\n    }", err);
}

static enum status put_merges(struct buf *out, const struct tokenizer *t, struct err *err)
{
    const struct merges *m = &t->merges;
    struct buf joined = BUF_INIT;
    enum status status = buf_puts(out, "[", err);
    for (uint32_t i = 0; i < m->n_list && status == ST_OK; i++) {
        const struct token_entry *left = &t->vocab.entries[m->list[i].left];
        const struct token_entry *right = &t->vocab.entries[m->list[i].right];
        status = buf_puts(out, i ? ",\n      " : "\n      ", err);
        if (status == ST_OK && m->as_strings) {
            buf_clear(&joined);
            status = buf_append(&joined, left->text, left->n_bytes, err);
            status = status ? status : buf_append(&joined, " ", 1, err);
            status = status ? status : buf_append(&joined, right->text, right->n_bytes, err);
            status = status ? status : put_string(out, joined.data, joined.n_bytes, err);
        } else if (status == ST_OK) {
            status = buf_puts(out, "[\n        ", err);
            status = status ? status : put_token(out, left, err);
            status = status ? status : buf_puts(out, ",\n        ", err);
            status = status ? status : put_token(out, right, err);
            status = status ? status : buf_puts(out, "\n      ]", err);
        }
    }
    buf_release(&joined);
    TRY(status);
    return buf_puts(out, m->n_list ? "\n    ]" : "]", err);
}

static enum status put_model(struct buf *out, const struct tokenizer *t, json_t *model, struct err *err)
{
    const char *key;
    json_t *value;
    bool first = true;
    TRY(buf_puts(out, "{", err));
    json_object_foreach(model, key, value)
    {
        TRY(buf_puts(out, first ? "\n    " : ",\n    ", err));
        TRY(put_string(out, key, strlen(key), err));
        TRY(buf_puts(out, ": ", err));
        if (strcmp(key, "vocab") == 0)
            TRY(put_vocab(out, &t->vocab, err));
        else if (strcmp(key, "merges") == 0)
            TRY(put_merges(out, t, err));
        else
            TRY(put_value(out, value, "    ", err));
        first = false;
    }
    return buf_puts(out, "\n  }", err);
}

static enum status put_root(struct buf *out, const struct tokenizer *t, struct err *err)
{
    const char *key;
    json_t *value;
    bool first = true;
    TRY(buf_puts(out, "{", err));
    if (!json_object_get(t->root, "added_tokens")) {
        TRY(buf_puts(out, "\n  \"added_tokens\": ", err));
        TRY(put_added_sorted(out, t, err));
        first = false;
    }
    json_object_foreach(t->root, key, value)
    {
        TRY(buf_puts(out, first ? "\n  " : ",\n  ", err));
        TRY(put_string(out, key, strlen(key), err));
        TRY(buf_puts(out, ": ", err));
        if (strcmp(key, "added_tokens") == 0)
            TRY(put_added_sorted(out, t, err));
        else if (strcmp(key, "model") == 0)
            TRY(put_model(out, t, value, err));
        else
            TRY(put_value(out, value, "  ", err));
        first = false;
    }
    return buf_puts(out, "\n}\n", err);
}

/* Steals value. */
static enum status set_new(json_t *o, const char *key, json_t *value, struct err *err)
{
    if (!value || json_object_set_new(o, key, value) != 0)
        return err_memory(err, "tokenizer_config.json", 0);
    return ST_OK;
}

/* The object under key, made where it is missing. */
static enum status child(json_t *o, const char *key, json_t *empty, json_t **out, struct err *err)
{
    *out = json_object_get(o, key);
    if (*out && json_typeof(*out) == json_typeof(empty)) {
        json_decref(empty);
        return ST_OK;
    }
    *out = empty;
    return set_new(o, key, empty, err);
}

static enum status config_decoder(json_t *config, const struct tokenizer *t, struct err *err)
{
    json_t *map;
    TRY(child(config, "added_tokens_decoder", json_object(), &map, err));
    for (int32_t i = 0; i < t->added.n; i++) {
        const struct added_token *a = &t->added.items[i];
        const struct token_entry *e = &t->vocab.entries[a->id];
        char key[16];
        snprintf(key, sizeof key, "%d", (int)a->id);
        if (i < t->n_added_file && json_object_get(map, key))
            continue;
        json_t *value = json_pack("{s:s%, s:b, s:b, s:b, s:b, s:b}", "content", e->text, (size_t)e->n_bytes,
                                  "lstrip", a->lstrip, "normalized", a->normalized, "rstrip", a->rstrip,
                                  "single_word", a->single_word, "special", a->special);
        TRY(set_new(map, key, value, err));
    }
    return ST_OK;
}

/* New special tokens join the list that transformers calls the additional ones; version 5 has renamed it, and
 * where a file of version 4 has the new name, it is a table of something else. */
static enum status config_special(json_t *config, const struct tokenizer *t, struct err *err)
{
    json_t *list;
    bool renamed = json_is_array(json_object_get(config, "extra_special_tokens"));
    if (t->added.n == t->n_added_file)
        return ST_OK;
    TRY(child(config, renamed ? "extra_special_tokens" : "additional_special_tokens", json_array(), &list,
              err));
    for (int32_t i = t->n_added_file; i < t->added.n; i++) {
        const struct token_entry *e = &t->vocab.entries[t->added.items[i].id];
        json_t *text = json_stringn(e->text, e->n_bytes);
        if (!text || json_array_append_new(list, text) != 0)
            return err_memory(err, "tokenizer_config.json", 0);
    }
    return ST_OK;
}

static enum status save_config(const struct tokenizer *t, const char *path, struct err *err)
{
    json_t *config = t->config ? json_deep_copy(t->config)
                               : json_pack("{s:b, s:s}", "clean_up_tokenization_spaces", 0, "tokenizer_class",
                                           "PreTrainedTokenizerFast");
    if (!config)
        return err_memory(err, "tokenizer_config.json", 0);
    enum status status = config_decoder(config, t, err);
    if (status == ST_OK)
        status = config_special(config, t, err);
    if (status == ST_OK)
        status = json_write_file(path, config, false, err);
    json_decref(config);
    return status;
}

enum status tokenizer_save(const struct tokenizer *t, const char *dir, struct err *err)
{
    char path[PATH_BYTES];
    struct buf text = BUF_INIT;
    TRY(path_join(path, dir, "tokenizer.json", err));
    enum status status = put_root(&text, t, err);
    if (status == ST_OK)
        status = file_write(path, text.data, text.n_bytes, err);
    buf_release(&text);
    TRY(status);
    TRY(path_join(path, dir, "tokenizer_config.json", err));
    return save_config(t, path, err);
}

static enum status bytes_root(struct buf *out, struct err *err)
{
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    TRY(buf_puts(
        out,
        "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [",
        err));
    for (int i = 0; i < 3; i++)
        TRY(buf_printf(out, err,
                       "%s\n    {\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
                       "\"rstrip\": false, \"normalized\": false, \"special\": true}",
                       i ? "," : "", 256 + i, special[i]));
    TRY(buf_puts(
        out,
        "\n  ],\n  \"normalizer\": null,\n"
        "  \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
        "\"use_regex\": false},\n"
        "  \"post_processor\": null,\n"
        "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
        "\"use_regex\": false},\n"
        "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
        "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n"
        "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n"
        "    \"vocab\": {",
        err));
    for (int b = 0; b < 256; b++) {
        char letter[4];
        int n = tokenizer__utf8_put(letter, tokenizer__byte_to_char((unsigned char)b));
        TRY(buf_puts(out, b ? ",\n      " : "\n      ", err));
        TRY(put_string(out, letter, (size_t)n, err));
        TRY(buf_printf(out, err, ": %d", b));
    }
    return buf_puts(out, "\n    },\n    \"merges\": []\n  }\n}\n", err);
}

enum status tokenizer_write_bytes(const char *dir, struct err *err)
{
    char path[PATH_BYTES];
    struct buf text = BUF_INIT;
    TRY(path_join(path, dir, "tokenizer.json", err));
    enum status status = bytes_root(&text, err);
    if (status == ST_OK)
        status = file_write(path, text.data, text.n_bytes, err);
    buf_release(&text);
    TRY(status);
    TRY(path_join(path, dir, "tokenizer_config.json", err));
    json_t *config =
        json_pack("{s:b, s:s, s:s, s:s}", "clean_up_tokenization_spaces", 0, "eos_token", "<|im_end|>",
                  "pad_token", "<|endoftext|>", "tokenizer_class", "PreTrainedTokenizerFast");
    if (!config)
        return err_memory(err, "tokenizer_config.json", 0);
    status = json_write_file(path, config, false, err);
    json_decref(config);
    return status;
}
