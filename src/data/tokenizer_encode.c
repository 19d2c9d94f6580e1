/* The way of a text through the tokenizer. */
#include "tokenizer_internal.h"
#include <stdlib.h>

struct encoder {
    const struct tokenizer *t;
    struct workspace *s;
    struct ids *out;
    bool added; /* added tokens are matched */
};

/* What stands between added tokens of the raw text. */
static enum status encode_between(const struct encoder *e, const char *raw, size_t n_raw, bool at_start,
                                  struct err *err)
{
    const struct tokenizer *t = e->t;
    struct added_scan scan = {0};
    size_t start, end;
    int32_t token;
    if (n_raw == 0)
        return ST_OK;
    TRY(tokenizer__normalize(&t->normalizer, e->s, raw, n_raw, &scan.text, &scan.n_bytes, err));
    while (e->added && tokenizer__added_next(t, &t->added.normalized, &scan, &start, &end, &token)) {
        if (scan.done < start)
            TRY(tokenizer__split(t, e->s, scan.text + scan.done, start - scan.done,
                                 at_start && scan.done == 0, e->out, err));
        TRY(ids_push(e->out, t->added.items[token].id, err));
        scan.done = end;
    }
    return tokenizer__split(t, e->s, scan.text + scan.done, scan.n_bytes - scan.done,
                            at_start && scan.done == 0, e->out, err);
}

static enum status encode_text(const struct encoder *e, const char *text, size_t n_bytes, struct err *err)
{
    const struct tokenizer *t = e->t;
    struct added_scan scan = {.text = text, .n_bytes = n_bytes};
    size_t start, end;
    int32_t token;
    while (e->added && tokenizer__added_next(t, &t->added.raw, &scan, &start, &end, &token)) {
        if (scan.done < start)
            TRY(encode_between(e, text + scan.done, start - scan.done, scan.done == 0, err));
        TRY(ids_push(e->out, t->added.items[token].id, err));
        scan.done = end;
    }
    return encode_between(e, text + scan.done, n_bytes - scan.done, scan.done == 0, err);
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n_bytes, int flags,
                             struct ids *out, struct err *err)
{
    if (n_bytes > TEXT_MAX_BYTES)
        return err_set(err, ST_INPUT, "a text of %zu bytes (at most %zu are possible)", n_bytes,
                       TEXT_MAX_BYTES);
    size_t valid = tokenizer__utf8_valid(text, n_bytes);
    if (valid != n_bytes)
        return err_set(err, ST_INPUT, "text: invalid UTF-8 at byte %zu", valid);
    struct workspace *s;
    TRY(tokenizer__workspace_take(t->pool, &s, err));
    struct encoder e = {t, s, out, flags & ENCODE_ADDED};
    int before = out->n;
    s->plain = !e.added;
    enum status status = ST_OK;
    if (flags & ENCODE_SPECIAL)
        status = ids_append(out, t->prefix.data, t->prefix.n, err);
    if (status == ST_OK)
        status = encode_text(&e, text, n_bytes, err);
    if (status == ST_OK && (flags & ENCODE_SPECIAL))
        status = ids_append(out, t->suffix.data, t->suffix.n, err);
    if (status != ST_OK)
        out->n = before;
    tokenizer__workspace_give(t->pool, s);
    return status;
}
