/* Decoders from their JSON. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

/* A string that must be one character. */
static enum status get_letter(const json_t *value, const char *where, const char *key, uint32_t *letter,
                              struct err *err)
{
    const char *text;
    int n = 0;
    TRY(json_get_string(value, where, key, false, NULL, &text, err));
    *letter = *text ? utf8_get(text, &n) : 0;
    if (n == 0 || text[n] != '\0')
        return err_set(err, ST_INPUT, "\"%s\": %s \"%.100s\" is not one character", where, key, text);
    return ST_OK;
}

static enum status load_metaspace(struct decode_step *s, const json_t *value, const char *where,
                                  struct err *err)
{
    const char *scheme;
    bool prefix;
    s->kind = DECODE_METASPACE;
    TRY(get_letter(value, where, "replacement", &s->letter, err));
    TRY(json_get_bool(value, where, "add_prefix_space", true, true, &prefix, err));
    TRY(json_get_string(value, where, "prepend_scheme", true, "always", &scheme, err));
    s->prepended = strcmp(scheme, "never") != 0;
    return ST_OK;
}

static enum status load_replace(struct decode_step *s, const json_t *value, const char *where,
                                struct err *err)
{
    const char *content;
    s->kind = DECODE_REPLACE;
    TRY(json_get_string(value, where, "content", false, NULL, &content, err));
    s->content = strdup(content);
    if (!s->content)
        return err_memory(err, "a decoder", strlen(content) + 1);
    return tokenizer__pattern_load(&s->pattern, json_object_get(value, "pattern"), where, err);
}

static enum status load_strip(struct decode_step *s, const json_t *value, const char *where, struct err *err)
{
    s->kind = DECODE_STRIP;
    TRY(get_letter(value, where, "content", &s->letter, err));
    TRY(json_get_int(value, where, "start", 0, INT32_MAX, false, 0, &s->n_start, err));
    return json_get_int(value, where, "stop", 0, INT32_MAX, false, 0, &s->n_stop, err);
}

static enum status step_load(struct decoder *d, const json_t *value, const char *where, int depth,
                             struct err *err)
{
    const char *type;
    TRY(tokenizer__type(value, where, &type, err));
    if (strcmp(type, "Sequence") == 0 && depth < MAX_STEPS) {
        const json_t *list = json_object_get(value, "decoders");
        if (!json_is_array(list))
            return err_set(err, ST_INPUT, "\"%s\": decoders: not a list", where);
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(step_load(d, json_array_get(list, i), where, depth + 1, err));
        return ST_OK;
    }
    if (d->n_steps == MAX_STEPS)
        return tokenizer__unsupported(where, "a longer sequence than 16 steps", err);
    struct decode_step *s = &d->steps[d->n_steps++];
    if (strcmp(type, "Replace") == 0)
        return load_replace(s, value, where, err);
    if (strcmp(type, "Strip") == 0)
        return load_strip(s, value, where, err);
    if (strcmp(type, "Metaspace") == 0)
        return load_metaspace(s, value, where, err);
    if (strcmp(type, "ByteLevel") == 0)
        s->kind = DECODE_BYTE_LEVEL;
    else if (strcmp(type, "ByteFallback") == 0)
        s->kind = DECODE_BYTE_FALLBACK;
    else if (strcmp(type, "Fuse") == 0)
        s->kind = DECODE_FUSE;
    else
        return tokenizer__unsupported(where, type, err);
    return ST_OK;
}

enum status tokenizer__decoder_load(struct decoder *d, const json_t *root, const char *path, struct err *err)
{
    char where[PATH_BYTES + 16];
    const json_t *value = json_object_get(root, "decoder");
    d->none = !value || json_is_null(value);
    if (d->none)
        return ST_OK;
    snprintf(where, sizeof where, "%s: decoder", path);
    return step_load(d, value, where, 0, err);
}

void tokenizer__decoder_release(struct decoder *d)
{
    for (int i = 0; i < d->n_steps; i++) {
        tokenizer__pattern_release(&d->steps[i].pattern);
        free(d->steps[i].content);
    }
    d->n_steps = 0;
}
