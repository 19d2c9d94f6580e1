/* Normalizers: Unicode forms, Prepend, Replace and sequences of them. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static enum status copy_text(char **out, const char *text, struct err *err)
{
    *out = strdup(text);
    return *out ? ST_OK : err_memory(err, "a normalizer", strlen(text) + 1);
}

static enum status step_load(struct normalizer *n, const json_t *value, const char *where, int depth,
                             struct err *err);

static enum status sequence_load(struct normalizer *n, const json_t *value, const char *where, int depth,
                                 struct err *err)
{
    const json_t *list = json_object_get(value, "normalizers");
    if (!json_is_array(list))
        return err_set(err, ST_INPUT, "\"%s\": normalizers: not a list", where);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(step_load(n, json_array_get(list, i), where, depth + 1, err));
    return ST_OK;
}

/* NFC, NFD, NFKC, NFKD */
static bool unicode_load(struct normal_step *s, const char *type)
{
    if (strncmp(type, "NF", 2) != 0)
        return false;
    const char *form = type + 2;
    s->kind = NORMAL_UNICODE;
    s->compat = *form == 'K';
    form += s->compat;
    s->compose = *form == 'C';
    return (*form == 'C' || *form == 'D') && form[1] == '\0';
}

static enum status step_load(struct normalizer *n, const json_t *value, const char *where, int depth,
                             struct err *err)
{
    const char *type, *content;
    TRY(tokenizer__type(value, where, &type, err));
    if (strcmp(type, "Sequence") == 0 && depth < MAX_STEPS)
        return sequence_load(n, value, where, depth, err);
    if (n->n_steps == MAX_STEPS)
        return tokenizer__unsupported(where, "a longer sequence than 16 steps", err);
    struct normal_step *s = &n->steps[n->n_steps++];
    if (unicode_load(s, type))
        return ST_OK;
    if (strcmp(type, "Prepend") == 0) {
        s->kind = NORMAL_PREPEND;
        TRY(json_get_string(value, where, "prepend", false, NULL, &content, err));
        return copy_text(&s->content, content, err);
    }
    if (strcmp(type, "Replace") == 0) {
        s->kind = NORMAL_REPLACE;
        TRY(json_get_string(value, where, "content", false, NULL, &content, err));
        TRY(copy_text(&s->content, content, err));
        return tokenizer__pattern_load(&s->pattern, json_object_get(value, "pattern"), where, err);
    }
    return tokenizer__unsupported(where, type, err);
}

enum status tokenizer__normalizer_load(struct normalizer *n, const json_t *root, const char *path,
                                       struct err *err)
{
    char where[PATH_BYTES + 16];
    const json_t *value = json_object_get(root, "normalizer");
    if (!value || json_is_null(value))
        return ST_OK;
    snprintf(where, sizeof where, "%s: normalizer", path);
    return step_load(n, value, where, 0, err);
}

void tokenizer__normalizer_release(struct normalizer *n)
{
    for (int i = 0; i < n->n_steps; i++) {
        tokenizer__pattern_release(&n->steps[i].pattern);
        free(n->steps[i].content);
    }
    n->n_steps = 0;
}

/* Characters that no form changes and that no neighbour of their kind composes with. */
static bool is_stable(uint32_t c, const struct normal_step *s)
{
    if (c < 0x80)
        return true;
    if ((c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff))
        return true;
    return s->compose && !s->compat && (c < 0x300 || (c >= 0xac00 && c <= 0xd7a3));
}

static bool text_is_stable(const struct normal_step *s, const char *text, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes;) {
        int n = 1;
        if ((unsigned char)text[at] >= 0x80 && !is_stable(utf8_get(text + at, &n), s))
            return false;
        at += (size_t)n;
    }
    return true;
}

static int combining_class(int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

/* Marks of one character into the order of their classes; equal classes keep their order. A counting sort:
 * utf8proc's own exchange sort needs n^2 steps for a text of nothing but marks. */
static void sort_marks(int32_t *marks, int32_t *spare, size_t n)
{
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++)
        start[combining_class(marks[i]) + 1]++;
    for (int c = 0; c < 256; c++)
        start[c + 1] += start[c];
    for (size_t i = 0; i < n; i++)
        spare[start[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare, n * sizeof *marks);
}

static bool in_order(const int32_t *marks, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (combining_class(marks[i - 1]) > combining_class(marks[i]))
            return false;
    return true;
}

static void sort_all_marks(int32_t *points, int32_t *spare, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && combining_class(points[end]) != 0)
            end++;
        if (!in_order(points + i, end - i))
            sort_marks(points + i, spare, end - i);
        i = end == i ? i + 1 : end;
    }
}

static enum status decompose(struct ids *points, const char *text, size_t n_bytes, int options,
                             struct err *err)
{
    for (size_t at = 0; at < n_bytes;) {
        int n_char, last = 0;
        uint32_t c = utf8_get(text + at, &n_char);
        at += (size_t)n_char;
        TRY(tokenizer__ids_reserve(points, 32, err)); /* the longest decomposition has 18 */
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, points->data + points->n, 32,
                                                     (utf8proc_option_t)options, &last);
        if (n < 0 || n > 32)
            return err_set(err, ST_DEFECT, "U+%04X has no decomposition", (unsigned)c);
        points->n += (int)n;
    }
    return ST_OK;
}

static enum status normalize_unicode(const struct normal_step *step, struct scratch *s, const char *text,
                                     size_t n_bytes, struct buf *out, struct err *err)
{
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (step->compat ? UTF8PROC_COMPAT : 0);
    ids_clear(&s->points);
    TRY(decompose(&s->points, text, n_bytes, options, err));
    size_t n = (size_t)s->points.n;
    TRY(tokenizer__ids_reserve(&s->points, n, err)); /* the spare half for sorting */
    int32_t *points = s->points.data;
    sort_all_marks(points, points + n, n);
    if (step->compose) {
        utf8proc_ssize_t composed =
            utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (composed < 0)
            return err_set(err, ST_DEFECT, "utf8proc: %s", utf8proc_errmsg(composed));
        n = (size_t)composed;
    }
    for (size_t i = 0; i < n; i++) {
        char utf8[4];
        TRY(buf_append(out, utf8, (size_t)tokenizer__utf8_put(utf8, (uint32_t)points[i]), err));
    }
    return ST_OK;
}

enum status tokenizer__normalize(const struct normalizer *n, struct scratch *s, const char *text,
                                 size_t n_bytes, const char **out, size_t *n_out, struct err *err)
{
    int side = 0;
    *out = text;
    *n_out = n_bytes;
    for (int i = 0; i<n->n_steps && * n_out> 0; i++) {
        const struct normal_step *step = &n->steps[i];
        struct buf *to = &s->normal[side];
        buf_clear(to);
        if (step->kind == NORMAL_UNICODE) {
            if (text_is_stable(step, *out, *n_out))
                continue;
            TRY(normalize_unicode(step, s, *out, *n_out, to, err));
        } else if (step->kind == NORMAL_PREPEND) {
            TRY(buf_puts(to, step->content, err));
            TRY(buf_append(to, *out, *n_out, err));
        } else {
            TRY(tokenizer__pattern_replace(&step->pattern, s->match, *out, *n_out, step->content, to, err));
        }
        *out = to->data ? to->data : "";
        *n_out = to->n_bytes;
        side ^= 1;
    }
    return ST_OK;
}
