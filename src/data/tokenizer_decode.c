/* Ids to text: the tokens' texts go through the decoder's steps, then stand one behind the other. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

struct token_list {
    struct buf text;
    struct buf ends; /* size_t for each token: where it ends in text */
};

static size_t list_count(const struct token_list *l)
{
    return l->ends.n_bytes / sizeof(size_t);
}

static size_t list_end(const struct token_list *l, size_t i)
{
    size_t end;
    memcpy(&end, l->ends.data + i * sizeof end, sizeof end);
    return end;
}

/* Text of token i; *n_bytes its length. */
static const char *list_get(const struct token_list *l, size_t i, size_t *n_bytes)
{
    size_t start = i ? list_end(l, i - 1) : 0;
    *n_bytes = list_end(l, i) - start;
    return l->text.data ? l->text.data + start : "";
}

/* What was appended to the text since the last call is a token. */
static enum status list_close(struct token_list *l, struct err *err)
{
    size_t end = l->text.n_bytes;
    return buf_append(&l->ends, &end, sizeof end, err);
}

static void list_clear(struct token_list *l)
{
    buf_clear(&l->text);
    buf_clear(&l->ends);
}

static void list_release(struct token_list *l)
{
    buf_release(&l->text);
    buf_release(&l->ends);
}

/* All bytes of all tokens, then decoded as one text. A token with a character outside the alphabet (an added
 * one with a space, say) stands for its own bytes. */
static enum status apply_byte_level(const struct token_list *in, struct token_list *out, struct err *err)
{
    struct buf bytes = BUF_INIT;
    enum status status = ST_OK;
    for (size_t i = 0; i < list_count(in) && status == ST_OK; i++) {
        size_t n, before = bytes.n_bytes;
        const char *text = list_get(in, i, &n);
        status = buf_reserve(&bytes, bytes.n_bytes + n, err);
        for (size_t at = 0; at < n && status == ST_OK;) {
            int n_char, byte = tokenizer__char_to_byte(utf8_get(text + at, &n_char));
            char b = (char)byte;
            if (byte < 0) {
                bytes.n_bytes = before;
                status = buf_append(&bytes, text, n, err);
                break;
            }
            status = buf_append(&bytes, &b, 1, err);
            at += (size_t)n_char;
        }
    }
    if (status == ST_OK)
        status = tokenizer__utf8_lossy(&out->text, bytes.data ? bytes.data : "", bytes.n_bytes, err);
    buf_release(&bytes);
    return status == ST_OK ? list_close(out, err) : status;
}

/* Byte of "<0xHH>", or -1. A plus sign before the digit counts as a digit, as in the library. */
static int fallback_byte(const char *text, size_t n)
{
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = text[i], lower = (char)(c | 32);
        if (i == 3 && c == '+')
            continue;
        int digit = c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* A run of byte tokens is one text if it decodes, else each byte is one U+FFFD. */
static enum status flush_bytes(struct buf *bytes, struct token_list *out, struct err *err)
{
    if (bytes->n_bytes == 0)
        return ST_OK;
    if (tokenizer__utf8_valid(bytes->data, bytes->n_bytes) == bytes->n_bytes) {
        TRY(buf_append(&out->text, bytes->data, bytes->n_bytes, err));
        TRY(list_close(out, err));
    } else {
        for (size_t i = 0; i < bytes->n_bytes; i++) {
            TRY(buf_append(&out->text, "\xef\xbf\xbd", 3, err));
            TRY(list_close(out, err));
        }
    }
    buf_clear(bytes);
    return ST_OK;
}

static enum status collect_bytes(const struct token_list *in, struct token_list *out, struct buf *bytes,
                                 struct err *err)
{
    for (size_t i = 0; i < list_count(in); i++) {
        size_t n;
        const char *text = list_get(in, i, &n);
        int value = fallback_byte(text, n);
        char b = (char)value;
        if (value >= 0) {
            TRY(buf_append(bytes, &b, 1, err));
            continue;
        }
        TRY(flush_bytes(bytes, out, err));
        TRY(buf_append(&out->text, text, n, err));
        TRY(list_close(out, err));
    }
    return flush_bytes(bytes, out, err);
}

static enum status apply_byte_fallback(const struct token_list *in, struct token_list *out, struct err *err)
{
    struct buf bytes = BUF_INIT;
    enum status status = collect_bytes(in, out, &bytes, err);
    buf_release(&bytes);
    return status;
}

/* Takes up to n_start letters off the front and n_stop off the back of each token. */
static enum status apply_strip(const struct decode_step *step, const char *text, size_t n, struct buf *out,
                               struct err *err)
{
    char letter[4];
    size_t n_letter = (size_t)tokenizer__utf8_put(letter, step->letter), start = 0;
    for (int64_t i = 0; i < step->n_start && n - start >= n_letter; i++) {
        if (memcmp(text + start, letter, n_letter) != 0)
            break;
        start += n_letter;
    }
    for (int64_t i = 0; i < step->n_stop && n - start >= n_letter; i++) {
        if (memcmp(text + n - n_letter, letter, n_letter) != 0)
            break;
        n -= n_letter;
    }
    return buf_append(out, text + start, n - start, err);
}

static enum status apply_metaspace(const struct decode_step *step, const char *text, size_t n, bool first,
                                   struct buf *out, struct err *err)
{
    for (size_t at = 0; at < n;) {
        int n_char;
        uint32_t c = utf8_get(text + at, &n_char);
        if (c != step->letter)
            TRY(buf_append(out, text + at, (size_t)n_char, err));
        else if (!first || !step->prepended)
            TRY(buf_append(out, " ", 1, err));
        at += (size_t)n_char;
    }
    return ST_OK;
}

static enum status apply_each(const struct decode_step *step, pcre2_match_data *match,
                              const struct token_list *in, struct token_list *out, struct err *err)
{
    for (size_t i = 0; i < list_count(in); i++) {
        size_t n;
        const char *text = list_get(in, i, &n);
        if (step->kind == DECODE_REPLACE)
            TRY(tokenizer__pattern_replace(&step->pattern, match, text, n, step->content, &out->text, err));
        else if (step->kind == DECODE_STRIP)
            TRY(apply_strip(step, text, n, &out->text, err));
        else
            TRY(apply_metaspace(step, text, n, i == 0, &out->text, err));
        TRY(list_close(out, err));
    }
    return ST_OK;
}

static enum status apply(const struct decode_step *step, pcre2_match_data *match, const struct token_list *in,
                         struct token_list *out, struct err *err)
{
    switch (step->kind) {
    case DECODE_BYTE_LEVEL:
        return apply_byte_level(in, out, err);
    case DECODE_BYTE_FALLBACK:
        return apply_byte_fallback(in, out, err);
    case DECODE_FUSE:
        TRY(buf_append(&out->text, in->text.data ? in->text.data : "", in->text.n_bytes, err));
        return list_close(out, err);
    case DECODE_REPLACE:
    case DECODE_STRIP:
    case DECODE_METASPACE:
        return apply_each(step, match, in, out, err);
    }
    return err_set(err, ST_DEFECT, "unknown step %d of a decoder", (int)step->kind);
}

static enum status collect_tokens(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special,
                                  struct token_list *out, struct err *err)
{
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab.n_ids || !t->vocab.entries[ids[i]].text)
            return err_set(err, ST_INPUT, "token %d of %d: no token has id %d", i, n, (int)ids[i]);
        const struct token_entry *e = &t->vocab.entries[ids[i]];
        if (skip_special && e->added >= 0 && t->added.items[e->added].special)
            continue;
        if (t->decoder.none && list_count(out) > 0)
            TRY(buf_append(&out->text, " ", 1, err));
        TRY(buf_append(&out->text, e->text, e->n_bytes, err));
        TRY(list_close(out, err));
    }
    return ST_OK;
}

enum status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special,
                             struct buf *out, struct err *err)
{
    struct token_list lists[2] = {{BUF_INIT, BUF_INIT}, {BUF_INIT, BUF_INIT}};
    struct workspace *s;
    int side = 0;
    TRY(tokenizer__workspace_take(t->pool, &s, err));
    enum status status = collect_tokens(t, ids, n, skip_special, &lists[0], err);
    for (int i = 0; i < t->decoder.n_steps && status == ST_OK; i++) {
        list_clear(&lists[!side]);
        status = apply(&t->decoder.steps[i], s->match, &lists[side], &lists[!side], err);
        side = !side;
    }
    if (status == ST_OK)
        status = buf_append(out, lists[side].text.data ? lists[side].text.data : "", lists[side].text.n_bytes,
                            err);
    tokenizer__workspace_give(t->pool, s);
    list_release(&lists[0]);
    list_release(&lists[1]);
    return status;
}
