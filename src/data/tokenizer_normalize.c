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

/* The library's normalizer knows Unicode 9. Marks and composites that came later change nothing there and
 * are as any starter; utf8proc is newer. Copied as they are, with what is between them normalized apart. */
static bool is_newer(int32_t c)
{
    /* clang-format off */
    static const struct {
        int32_t first, last;
    } newer[] = {
        {0x7fd, 0x7fd}, {0x897, 0x89f}, {0x8ca, 0x8d3}, {0x9fe, 0x9fe}, {0xc3c, 0xc3c}, {0xd3b, 0xd3c},
        {0xeba, 0xeba}, {0xece, 0xece}, {0x1715, 0x1715}, {0x1abf, 0x1ace}, {0x1df6, 0x1dfa},
        {0x32ff, 0x32ff}, {0xa7f1, 0xa7f4}, {0xa82c, 0xa82c}, {0xab69, 0xab69}, {0x10781, 0x10785},
        {0x10787, 0x107b0}, {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac},
        {0x10efc, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x11241, 0x11241},
        {0x1133b, 0x1133b}, {0x11382, 0x113d0}, {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11938},
        {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47},
        {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42},
        {0x1611e, 0x1612f}, {0x16d63, 0x16d6a}, {0x16ff0, 0x16ff1}, {0x1ccd6, 0x1ccf9}, {0x1e030, 0x1e06d},
        {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
        {0x1e5ee, 0x1e5ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
    };
    /* clang-format on */
    size_t low = 0, high = sizeof newer / sizeof newer[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (newer[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof newer / sizeof newer[0] && newer[low].first <= c;
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

/* Appends the decomposition of one character. */
static enum status decompose(struct ids *points, uint32_t c, int options, struct err *err)
{
    int last = 0;
    TRY(tokenizer__ids_reserve(points, 32, err)); /* the longest decomposition has 18 */
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, points->data + points->n, 32,
                                                 (utf8proc_option_t)options, &last);
    if (n < 0 || n > 32)
        return err_set(err, ST_DEFECT, "U+%04X has no decomposition", (unsigned)c);
    points->n += (int)n;
    return ST_OK;
}

/* Orders, composes and writes what was decomposed so far. */
static enum status flush_points(const struct normal_step *step, struct ids *list, struct buf *out,
                                struct err *err)
{
    size_t n = (size_t)list->n;
    if (n == 0)
        return ST_OK;
    TRY(tokenizer__ids_reserve(list, n, err)); /* the spare half for sorting */
    int32_t *points = list->data;
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
    ids_clear(list);
    return ST_OK;
}

static enum status normalize_unicode(const struct normal_step *step, struct workspace *s, const char *text,
                                     size_t n_bytes, struct buf *out, struct err *err)
{
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (step->compat ? UTF8PROC_COMPAT : 0);
    ids_clear(&s->points);
    for (size_t at = 0; at < n_bytes;) {
        int n_char;
        uint32_t c = utf8_get(text + at, &n_char);
        if (c >= 0x300 && is_newer((int32_t)c)) {
            TRY(flush_points(step, &s->points, out, err));
            TRY(buf_append(out, text + at, (size_t)n_char, err));
        } else {
            TRY(decompose(&s->points, c, options, err));
        }
        at += (size_t)n_char;
    }
    return flush_points(step, &s->points, out, err);
}

enum status tokenizer__normalize(const struct normalizer *n, struct workspace *s, const char *text,
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
