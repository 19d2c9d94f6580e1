/* Texts to ids and back, with a model's tokenizer as its files have it. */
#include "cli_internal.h"
#include "data/tokenizer.h"
#include "util/file.h"
#include "util/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_INPUT_BYTES ((size_t)1 << 30)

static enum status read_stdin(struct buf *out, struct err *err)
{
    char part[1 << 16];
    for (;;) {
        ssize_t n = read(STDIN_FILENO, part, sizeof part);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, ST_INPUT, "cannot read standard input");
        if (n == 0)
            return ST_OK;
        if (out->n_bytes + (size_t)n > MAX_INPUT_BYTES)
            return err_set(err, ST_INPUT, "standard input is longer than %zu bytes", MAX_INPUT_BYTES);
        TRY(buf_append(out, part, (size_t)n, err));
    }
}

static enum status read_list(json_t **out, const char *file, struct err *err)
{
    const char *name = file ? file : "standard input";
    struct buf text = BUF_INIT;
    enum status st = file ? file_read(file, MAX_INPUT_BYTES, &text, err) : read_stdin(&text, err);
    if (st == ST_OK)
        st = json_read_text(out, text.data ? text.data : "", text.n_bytes, name, err);
    buf_release(&text);
    TRY(st);
    if (json_is_array(*out))
        return ST_OK;
    json_decref(*out);
    *out = NULL;
    return err_set(err, ST_INPUT, "%s: not a JSON list", name);
}

static enum status encode_item(const struct tokenizer *t, const json_t *item, struct ids *ids,
                               struct buf *out, struct err *err)
{
    if (!json_is_string(item))
        return err_set(err, ST_INPUT, "not a text");
    ids_clear(ids);
    TRY(tokenizer_encode(t, json_string_value(item), json_string_length(item), ENCODE_ADDED, ids, err));
    TRY(buf_puts(out, "[", err));
    for (int i = 0; i < ids->n; i++)
        TRY(buf_printf(out, err, "%s%d", i ? ", " : "", ids->data[i]));
    return buf_puts(out, "]", err);
}

static enum status read_ids(const json_t *item, struct ids *ids, struct err *err)
{
    if (!json_is_array(item))
        return err_set(err, ST_INPUT, "not a list of ids");
    ids_clear(ids);
    for (size_t i = 0; i < json_array_size(item); i++) {
        const json_t *id = json_array_get(item, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return err_set(err, ST_INPUT, "id %zu is not a whole number from 0 to %d", i, INT32_MAX);
        TRY(ids_push(ids, (int32_t)json_integer_value(id), err));
    }
    return ST_OK;
}

static enum status decode_item(const struct tokenizer *t, const json_t *item, struct ids *ids,
                               struct buf *out, struct err *err)
{
    struct buf text = BUF_INIT;
    TRY(read_ids(item, ids, err));
    enum status st = tokenizer_decode(t, ids->data, ids->n, false, &text, err);
    json_t *value = st == ST_OK ? json_stringn(text.data ? text.data : "", text.n_bytes) : NULL;
    buf_release(&text);
    TRY(st);
    if (!value)
        return err_set(err, ST_INPUT, "the ids do not make valid UTF-8");
    char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    json_decref(value);
    st = dump ? buf_puts(out, dump, err) : err_memory(err, "a decoded text", 0);
    free(dump);
    return st;
}

/* The whole result is made first: on an error nothing is printed. */
static enum status convert(const struct tokenizer *t, const json_t *list, bool decode, struct buf *out,
                           struct err *err)
{
    struct ids ids = IDS_INIT;
    enum status st = buf_puts(out, "[", err);
    for (size_t i = 0; i < json_array_size(list) && st == ST_OK; i++) {
        const json_t *item = json_array_get(list, i);
        if (i)
            st = buf_puts(out, ",\n ", err);
        if (st == ST_OK)
            st = decode ? decode_item(t, item, &ids, out, err) : encode_item(t, item, &ids, out, err);
        if (st != ST_OK)
            err_where(err, "item %zu", i);
    }
    ids_release(&ids);
    return st == ST_OK ? buf_puts(out, "]\n", err) : st;
}

static enum status run(const char *model, bool decode, const char *file, struct err *err)
{
    struct tokenizer *t = NULL;
    json_t *list = NULL;
    struct buf out = BUF_INIT;
    TRY(argument_needed("--model", model, err));
    TRY(tokenizer_open(&t, model, err));
    enum status st = read_list(&list, file, err);
    if (st == ST_OK)
        st = convert(t, list, decode, &out, err);
    if (st == ST_OK)
        fwrite(out.data, 1, out.n_bytes, stdout);
    buf_release(&out);
    json_decref(list);
    tokenizer_close(t);
    return st;
}

int cmd_tokenize(int argc, char **argv)
{
    struct err err = ERR_INIT;
    const char *model = NULL, *file[1];
    bool decode = false;
    const struct argument items[] = {
        {.name = "--model", .kind = ARG_TEXT, .value = &model},
        {.name = "--decode", .kind = ARG_FLAG, .value = &decode},
    };
    struct arguments a = {
        .items = items, .n_items = sizeof items / sizeof *items, .free = file, .max_free = 1};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(model, decode, a.n_free && strcmp(file[0], "-") ? file[0] : NULL, &err);
    return cli_end(st, &err);
}
