/* Patterns of normalizers, pre-tokenizers and decoders. The library's regular expressions are Oniguruma's
 * (Ruby syntax), ours are PCRE2's: what means the same is passed on, white space is spelled out (PCRE2's \s
 * has U+180E, Unicode's White_Space has not), and what differs is refused. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

#define SPACES                                                                                               \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"

/* Steps of one match: far more than honest patterns need, and an end to those that explode. */
#define MATCH_STEPS 100000000u

static enum status refuse(const char *where, const char *text, size_t n, struct err *err)
{
    char what[64];
    snprintf(what, sizeof what, "the regular expression with \"%.*s\"", (int)(n < 16 ? n : 16), text);
    return tokenizer__unsupported(where, what, err);
}

/* One escape at p (its backslash); *n is its length. */
static enum status translate_escape(const char *where, const char *p, bool in_class, struct buf *out,
                                    size_t *n, struct err *err)
{
    char c = p[1];
    *n = 2;
    if (c == 's')
        return buf_puts(out, in_class ? SPACES : "[" SPACES "]", err);
    if (c == 'S' && !in_class)
        return buf_puts(out, "[^" SPACES "]", err);
    if ((c == 'p' || c == 'P' || c == 'x') && p[2] == '{') {
        const char *close = strchr(p, '}');
        if (!close)
            return refuse(where, p, 2, err);
        *n = (size_t)(close + 1 - p);
        return buf_append(out, p, *n, err);
    }
    if ((c && strchr("rntfvd", c)) ||
        (c > ' ' && c < 127 && !((c | 32) >= 'a' && (c | 32) <= 'z') && !(c >= '0' && c <= '9')))
        /* \v is one character in Ruby, a class in PCRE2 */
        return buf_append(out, c == 'v' ? "\\x0b" : p, c == 'v' ? 4 : 2, err);
    return refuse(where, p, c ? 2 : 1, err);
}

/* What may follow "(?": groups, assertions, names, and the one mode that means the same in both. */
static bool group_is_known(const char *p)
{
    if (*p == 'i')
        return p[1] == ':' || p[1] == ')';
    return *p && strchr(":=!<>", *p);
}

static enum status translate(const char *where, const char *text, struct buf *out, struct err *err)
{
    bool in_class = false;
    for (const char *p = text; *p;) {
        size_t n = 1;
        if (*p == '\\') {
            TRY(translate_escape(where, p, in_class, out, &n, err));
            p += n;
            continue;
        }
        if (in_class && (*p == '[' || (p[0] == '&' && p[1] == '&')))
            return refuse(where, p, 2, err); /* sets within sets */
        if (!in_class && (*p == '^' || *p == '$'))
            return refuse(where, p, 1, err); /* Ruby: of each line */
        if (!in_class && *p == '}' && p[1] == '+')
            return refuse(where, p, 2, err); /* Ruby: repeated, PCRE2: possessive */
        if (!in_class && strncmp(p, "(?", 2) == 0 && !group_is_known(p + 2))
            return refuse(where, p, 3, err);
        if (!in_class && p[0] == '(' && p[1] == '*')
            return refuse(where, p, 2, err); /* PCRE2's verbs */
        if (*p == '[') {
            in_class = true;
            n = p[1] == '^' ? 2 : 1;
            if (p[n] == ']')
                return refuse(where, p, n + 1, err);
        } else if (*p == ']') {
            in_class = false;
        }
        TRY(buf_append(out, p, n, err));
        p += n;
    }
    return ST_OK;
}

static enum status compile(struct pattern *p, const char *where, struct err *err)
{
    if (strlen(p->text) != p->n_bytes || p->n_bytes > 65536)
        return refuse(where, p->text, p->n_bytes, err);
    struct buf text = BUF_INIT;
    enum status status = translate(where, p->text, &text, err);
    if (status == ST_OK) {
        int code;
        PCRE2_SIZE at;
        p->code = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.n_bytes,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
        if (!p->code) {
            PCRE2_UCHAR message[128] = "";
            pcre2_get_error_message(code, message, sizeof message);
            status = err_set(err, ST_INPUT, "\"%s\": bad regular expression \"%.200s\": %s", where, p->text,
                             (char *)message);
        } else {
            p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
        }
    }
    buf_release(&text);
    return status;
}

enum status tokenizer__pattern_load(struct pattern *p, const json_t *value, const char *where,
                                    struct err *err)
{
    const json_t *string = json_object_get(value, "String"), *regex = json_object_get(value, "Regex");
    const json_t *text = string ? string : regex;
    if (json_object_size(value) != 1 || !json_is_string(text))
        return err_set(err, ST_INPUT, "\"%s\": pattern: neither {\"String\": ...} nor {\"Regex\": ...}",
                       where);
    p->n_bytes = json_string_length(text);
    p->text = malloc(p->n_bytes + 1);
    if (!p->text)
        return err_memory(err, "a pattern", p->n_bytes + 1);
    memcpy(p->text, json_string_value(text), p->n_bytes + 1);
    return string ? ST_OK : compile(p, where, err);
}

void tokenizer__pattern_release(struct pattern *p)
{
    free(p->text);
    pcre2_code_free(p->code);
    *p = (struct pattern){0};
}

/* JIT code first; its small stack does not do for every text, then PCRE2's interpreter goes on. */
static int match_at(const struct pattern *p, pcre2_match_data *data, const char *text, size_t n_bytes,
                    size_t from)
{
    int n = PCRE2_ERROR_JIT_STACKLIMIT;
    if (p->jit)
        n = pcre2_jit_match(p->code, (PCRE2_SPTR)text, n_bytes, from, 0, data, NULL);
    if (n != PCRE2_ERROR_JIT_STACKLIMIT && n != PCRE2_ERROR_MATCHLIMIT)
        return n;
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    if (!limits)
        return PCRE2_ERROR_NOMEMORY;
    pcre2_set_match_limit(limits, MATCH_STEPS);
    n = pcre2_match(p->code, (PCRE2_SPTR)text, n_bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data,
                    limits);
    pcre2_match_context_free(limits);
    return n;
}

enum status tokenizer__pattern_find(const struct pattern *p, pcre2_match_data *data, const char *text,
                                    size_t n_bytes, size_t from, bool *found, size_t *start, size_t *end,
                                    struct err *err)
{
    *found = false;
    if (!p->code) {
        const char *hit =
            p->n_bytes && from < n_bytes ? memmem(text + from, n_bytes - from, p->text, p->n_bytes) : NULL;
        if (hit) {
            *found = true;
            *start = (size_t)(hit - text);
            *end = *start + p->n_bytes;
        }
        return ST_OK;
    }
    while (from < n_bytes) {
        int n = match_at(p, data, text, n_bytes, from);
        if (n == PCRE2_ERROR_NOMATCH)
            return ST_OK;
        if (n < 0)
            return err_set(
                err, n == PCRE2_ERROR_NOMEMORY ? ST_ENV : ST_INPUT,
                "the tokenizer's pattern \"%.100s\" cannot be matched at byte %zu (PCRE2 error %d)", p->text,
                from, n);
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(data);
        if (range[1] > range[0]) {
            *found = true;
            *start = range[0];
            *end = range[1];
            return ST_OK;
        }
        int n_char; /* an empty match: go on behind the next character */
        if (range[0] >= n_bytes)
            return ST_OK;
        utf8_get(text + range[0], &n_char);
        from = range[0] + (size_t)n_char;
    }
    return ST_OK;
}

enum status tokenizer__pattern_replace(const struct pattern *p, pcre2_match_data *data, const char *text,
                                       size_t n_bytes, const char *with, struct buf *out, struct err *err)
{
    size_t at = 0, n_with = strlen(with);
    for (;;) {
        bool found;
        size_t start, end;
        TRY(tokenizer__pattern_find(p, data, text, n_bytes, at, &found, &start, &end, err));
        if (!found)
            return buf_append(out, text + at, n_bytes - at, err);
        TRY(buf_append(out, text + at, start - at, err));
        TRY(buf_append(out, with, n_with, err));
        at = end;
    }
}
