/* Pre-tokenizers from their JSON. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

/* Qwen 2, 2.5 and 3; Llama 3 differs in the length of numbers. Behind the two the pattern goes on as `tail`.
 */
static const char known_head[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}";
static const char known_tail[] = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Numbers a piece of the patterns known by heart, 0 for other patterns. */
static int known_pattern(const char *text)
{
    size_t n_head = sizeof known_head - 1;
    if (strncmp(text, known_head, n_head) != 0)
        return 0;
    text += n_head;
    int digits = strncmp(text, "{1,3}", 5) == 0 ? 3 : 1;
    return strcmp(text + (digits == 3 ? 5 : 0), known_tail) == 0 ? digits : 0;
}

static enum status load_split(struct split_step *s, const json_t *value, const char *where, struct err *err)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                        "Contiguous"};
    const char *behavior;
    int b = 0;
    TRY(json_get_string(value, where, "behavior", false, NULL, &behavior, err));
    TRY(json_get_bool(value, where, "invert", true, false, &s->invert, err));
    while (b < 5 && strcmp(names[b], behavior) != 0)
        b++;
    if (b == 5)
        return tokenizer__unsupported(where, behavior, err);
    s->behavior = (enum split_behavior)b;
    s->kind = STEP_PATTERN;
    TRY(tokenizer__pattern_load(&s->pattern, json_object_get(value, "pattern"), where, err));
    s->max_digits = s->pattern.code ? known_pattern(s->pattern.text) : 0;
    if (s->max_digits && s->behavior == SPLIT_ISOLATED)
        s->kind = STEP_WORDS;
    return ST_OK;
}

static enum status load_byte_level(struct split_step *s, const json_t *value, const char *where,
                                   struct err *err)
{
    s->kind = STEP_BYTE_LEVEL;
    TRY(json_get_bool(value, where, "add_prefix_space", false, true, &s->prefix_space, err));
    return json_get_bool(value, where, "use_regex", true, true, &s->gpt2, err);
}

static enum status load_metaspace(struct split_step *s, const json_t *value, const char *where,
                                  struct err *err)
{
    static const char *const names[] = {"always", "first", "never"};
    const char *replacement, *scheme;
    bool prefix = true;
    s->kind = STEP_METASPACE;
    TRY(json_get_string(value, where, "replacement", false, NULL, &replacement, err));
    TRY(json_get_string(value, where, "prepend_scheme", true, "always", &scheme, err));
    TRY(json_get_bool(value, where, "split", true, true, &s->split, err));
    TRY(json_get_bool(value, where, "add_prefix_space", true, true, &prefix, err));
    int n = 0, i = 0;
    if (*replacement)
        utf8_get(replacement, &n);
    if (n == 0 || replacement[n] != '\0')
        return err_set(err, ST_INPUT, "\"%s\": replacement \"%.100s\" is not one character", where,
                       replacement);
    memcpy(s->replacement, replacement, (size_t)n + 1);
    while (i < 3 && strcmp(names[i], scheme) != 0)
        i++;
    if (i == 3)
        return tokenizer__unsupported(where, scheme, err);
    if (!prefix && i != PREPEND_NEVER)
        return err_set(err, ST_INPUT, "\"%s\": add_prefix_space is false, but prepend_scheme is \"%s\"",
                       where, scheme);
    s->prepend = i;
    if (s->split) { /* cut before each replacement, as Split with MergedWithNext does */
        s->behavior = SPLIT_MERGED_NEXT;
        s->pattern.text = strdup(s->replacement);
        s->pattern.n_bytes = (size_t)n;
        if (!s->pattern.text)
            return err_memory(err, "a pre-tokenizer", (size_t)n + 1);
    }
    return ST_OK;
}

static enum status step_load(struct splitter *p, const json_t *value, const char *where, int depth,
                             struct err *err)
{
    const char *type;
    TRY(tokenizer__type(value, where, &type, err));
    if (strcmp(type, "Sequence") == 0 && depth < MAX_STEPS) {
        const json_t *list = json_object_get(value, "pretokenizers");
        if (!json_is_array(list))
            return err_set(err, ST_INPUT, "\"%s\": pretokenizers: not a list", where);
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(step_load(p, json_array_get(list, i), where, depth + 1, err));
        return ST_OK;
    }
    if (p->byte_level)
        return tokenizer__unsupported(where, "a step behind ByteLevel", err);
    if (p->n_steps == MAX_STEPS)
        return tokenizer__unsupported(where, "a longer sequence than 16 steps", err);
    struct split_step *s = &p->steps[p->n_steps++];
    if (strcmp(type, "Split") == 0)
        return load_split(s, value, where, err);
    if (strcmp(type, "Metaspace") == 0)
        return load_metaspace(s, value, where, err);
    if (strcmp(type, "ByteLevel") == 0) {
        p->byte_level = true;
        return load_byte_level(s, value, where, err);
    }
    if (strcmp(type, "Digits") == 0) {
        s->kind = STEP_DIGITS;
        return json_get_bool(value, where, "individual_digits", true, false, &s->individual, err);
    }
    return tokenizer__unsupported(where, type, err);
}

enum status tokenizer__splitter_load(struct splitter *p, const json_t *root, const char *path,
                                     struct err *err)
{
    char where[PATH_BYTES + 16];
    const json_t *value = json_object_get(root, "pre_tokenizer");
    if (!value || json_is_null(value))
        return ST_OK;
    snprintf(where, sizeof where, "%s: pre_tokenizer", path);
    return step_load(p, value, where, 0, err);
}

void tokenizer__splitter_release(struct splitter *p)
{
    for (int i = 0; i < p->n_steps; i++)
        tokenizer__pattern_release(&p->steps[i].pattern);
    p->n_steps = 0;
}
