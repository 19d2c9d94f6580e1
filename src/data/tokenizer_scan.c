/* The two big fields of tokenizer.json, model.vocab and model.merges, hold hundreds of thousands of strings:
 * they are read straight from the text into our tables. All else goes through jansson, with the two fields
 * emptied. Where this reader stumbles, jansson reads the whole file to say what is wrong and where. */
#include "tokenizer_internal.h"
#include <string.h>

struct cursor {
    const char *text;
    size_t at, end;
    struct buf unescaped; /* holds a string that has escapes */
    const char *wrong;    /* what was expected, after a failure */
};

static void skip_space(struct cursor *c)
{
    while (c->at < c->end && (c->text[c->at] == ' ' || c->text[c->at] == '\n' || c->text[c->at] == '\t' ||
                              c->text[c->at] == '\r'))
        c->at++;
}

/* The next character that is no white space, or 0. */
static char peek(struct cursor *c)
{
    skip_space(c);
    return c->at < c->end ? c->text[c->at] : '\0';
}

static bool take(struct cursor *c, char wanted)
{
    if (peek(c) != wanted)
        return false;
    c->at++;
    return true;
}

static int hex4(const char *p)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char d = p[i];
        int digit = d >= '0' && d <= '9'                 ? d - '0'
                    : (d | 32) >= 'a' && (d | 32) <= 'f' ? (d | 32) - 'a' + 10
                                                         : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* The character of the \uXXXX (or pair of them) whose digits begin at c->at; -1 if there is none. */
static int32_t take_unicode(struct cursor *c)
{
    int32_t high = c->end - c->at >= 4 ? hex4(c->text + c->at) : -1;
    if (high < 0 || (high >= 0xdc00 && high < 0xe000))
        return -1;
    c->at += 4;
    if (high < 0xd800 || high >= 0xe000)
        return high;
    if (c->end - c->at < 6 || c->text[c->at] != '\\' || c->text[c->at + 1] != 'u')
        return -1;
    int32_t low = hex4(c->text + c->at + 2);
    if (low < 0xdc00 || low >= 0xe000)
        return -1;
    c->at += 6;
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

/* One escape behind its backslash. */
static enum status take_escape(struct cursor *c, struct err *err)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char e = c->text[c->at++];
    const char *known = e ? strchr(from, e) : NULL;
    if (known)
        return buf_append(&c->unescaped, &to[known - from], 1, err);
    int32_t ch = e == 'u' ? take_unicode(c) : -1;
    if (ch < 0) {
        c->wrong = "a valid escape";
        return ST_OK;
    }
    char utf8[4];
    return buf_append(&c->unescaped, utf8, (size_t)tokenizer__utf8_put(utf8, (uint32_t)ch), err);
}

/* A string at the cursor; *text is valid until the next call. c->wrong is set where it is no good JSON. */
static enum status take_string(struct cursor *c, const char **text, size_t *n_bytes, struct err *err)
{
    if (!take(c, '"')) {
        c->wrong = "a string";
        return ST_OK;
    }
    size_t start = c->at;
    bool escaped = false;
    buf_clear(&c->unescaped);
    for (;; c->at++) {
        unsigned char b = c->at < c->end ? (unsigned char)c->text[c->at] : 0;
        if (b < 0x20) {
            c->wrong = "the end of a string";
            return ST_OK;
        }
        if (b == '"')
            break;
        if (b != '\\')
            continue;
        escaped = true;
        TRY(buf_append(&c->unescaped, c->text + start, c->at - start, err));
        c->at++;
        if (c->at < c->end)
            TRY(take_escape(c, err));
        if (c->wrong)
            return ST_OK;
        start = c->at--;
    }
    *text = c->text + start;
    *n_bytes = c->at - start;
    c->at++;
    if (escaped) {
        TRY(buf_append(&c->unescaped, *text, *n_bytes, err));
        *text = c->unescaped.data;
        *n_bytes = c->unescaped.n_bytes;
    }
    if (tokenizer__utf8_valid(*text, *n_bytes) != *n_bytes)
        c->wrong = "valid UTF-8";
    return ST_OK;
}

/* Steps over a value of any kind: brackets are counted, what is between them is for jansson to judge. */
static void skip_value(struct cursor *c)
{
    int64_t depth = 0;
    skip_space(c);
    while (c->at < c->end) {
        char b = c->text[c->at];
        if (depth == 0 && (b == ',' || b == '}' || b == ']'))
            return;
        c->at++;
        if (b == '{' || b == '[') {
            depth++;
        } else if (b == '}' || b == ']') {
            depth--;
        } else if (b == '"') {
            while (c->at < c->end && c->text[c->at] != '"')
                c->at += c->text[c->at] == '\\' ? 2 : 1;
            c->at++;
        }
    }
    c->wrong = "a value";
}

static bool text_is(const char *text, size_t n_bytes, const char *word)
{
    return n_bytes == strlen(word) && memcmp(text, word, n_bytes) == 0;
}

/* Walks the fields of an object: 1 with the key at hand, 0 at the end or when something is wrong. */
static int next_key(struct cursor *c, bool *first, const char **key, size_t *n_bytes, enum status *status,
                    struct err *err)
{
    if (take(c, '}'))
        return 0;
    if (!*first && !take(c, ',')) {
        c->wrong = "a comma";
        return 0;
    }
    *first = false;
    *status = take_string(c, key, n_bytes, err);
    if (*status != ST_OK || c->wrong)
        return 0;
    if (!take(c, ':')) {
        c->wrong = "a colon";
        return 0;
    }
    return 1;
}

static enum status find_in_model(struct bulk *b, struct cursor *c, struct err *err)
{
    const char *key;
    size_t n_key;
    bool first = true;
    enum status status = ST_OK;
    while (next_key(c, &first, &key, &n_key, &status, err)) {
        bool vocab = text_is(key, n_key, "vocab"), merges = text_is(key, n_key, "merges");
        char kind = peek(c);
        size_t start = c->at;
        if ((vocab && b->vocab_end) || (merges && b->merges_end)) {
            c->wrong = "model.vocab and model.merges only once";
            return ST_OK;
        }
        skip_value(c);
        if (c->wrong)
            return ST_OK;
        if (vocab && kind == '{') {
            b->vocab = start;
            b->vocab_end = c->at;
        } else if (merges && kind == '[') {
            b->merges = start;
            b->merges_end = c->at;
        }
    }
    return status;
}

static enum status find_in_root(struct bulk *b, struct cursor *c, struct err *err)
{
    const char *key;
    size_t n_key;
    bool first = true;
    enum status status = ST_OK;
    if (!take(c, '{')) {
        c->wrong = "an object";
        return ST_OK;
    }
    while (next_key(c, &first, &key, &n_key, &status, err)) {
        if (text_is(key, n_key, "model") && peek(c) == '{') {
            c->at++;
            TRY(find_in_model(b, c, err));
        } else {
            skip_value(c);
        }
        if (c->wrong)
            return ST_OK;
    }
    return status;
}

/* The text with empty brackets for the two fields. skip_value ends behind white space that follows a value.
 */
static enum status rest_parse(const struct bulk *b, json_t **rest, struct err *err)
{
    struct buf text = BUF_INIT;
    size_t cut[2][2] = {{b->vocab, b->vocab_end}, {b->merges, b->merges_end}}, at = 0;
    int first = b->merges_end && b->merges < b->vocab ? 1 : 0;
    enum status status = ST_OK;
    for (int i = 0; i < 2 && status == ST_OK; i++) {
        size_t *range = cut[i ^ first];
        if (range[1] == 0)
            continue;
        status = buf_append(&text, b->text + at, range[0] - at, err);
        if (status == ST_OK)
            status = buf_puts(&text, b->text[range[0]] == '{' ? "{}" : "[]", err);
        at = range[1];
    }
    if (status == ST_OK)
        status = buf_append(&text, b->text + at, b->n_bytes - at, err);
    if (status == ST_OK)
        status = json_read_text(rest, text.data, text.n_bytes, b->path, err);
    buf_release(&text);
    return status;
}

/* Says what is wrong with the file as a whole; `wrong` where jansson finds nothing. */
static enum status explain(const struct bulk *b, const char *wrong, size_t at, struct err *err)
{
    json_t *whole = NULL;
    enum status status = json_read_text(&whole, b->text, b->n_bytes, b->path, err);
    json_decref(whole);
    if (status != ST_OK)
        return status;
    return err_set(err, ST_INPUT, "\"%s\": byte %zu: expected %s", b->path, at, wrong);
}

enum status tokenizer__bulk_find(struct bulk *b, json_t **rest, struct err *err)
{
    struct cursor c = {.text = b->text, .end = b->n_bytes};
    static const char bom[] = "\xef\xbb\xbf";
    if (b->n_bytes >= 3 && memcmp(b->text, bom, 3) == 0)
        c.at = 3;
    enum status status = find_in_root(b, &c, err);
    buf_release(&c.unescaped);
    TRY(status);
    if (c.wrong)
        return explain(b, c.wrong, c.at, err);
    struct err again = ERR_INIT; /* its line and column are those of the shortened text */
    status = rest_parse(b, rest, &again);
    if (status == ST_INPUT)
        return explain(b, again.what, 0, err);
    if (status != ST_OK)
        return err_set(err, status, "%s", again.what);
    return ST_OK;
}

static bool take_id(struct cursor *c, int64_t *id)
{
    bool minus = take(c, '-');
    size_t start = c->at;
    *id = 0;
    while (c->at < c->end && c->text[c->at] >= '0' && c->text[c->at] <= '9') {
        if (*id < INT32_MAX)
            *id = *id * 10 + (c->text[c->at] - '0');
        c->at++;
    }
    size_t n = c->at - start;
    if (minus)
        *id = -*id;
    /* JSON has no leading zeros; fractions and exponents are no ids. */
    return n > 0 && !(n > 1 && c->text[start] == '0') &&
           (c->at == c->end || !strchr(".eE+-\"", c->text[c->at]));
}

/* skip_value took what stands between the closing bracket and the next comma as part of the value. */
static void expect_end(struct cursor *c)
{
    skip_space(c);
    if (!c->wrong && c->at != c->end)
        c->wrong = "a comma";
}

static enum status vocab_entries(const struct bulk *b, struct cursor *c, struct vocab *v, struct err *err)
{
    const char *key;
    size_t n_key;
    bool first = true;
    enum status status = ST_OK;
    c->at++;
    while (next_key(c, &first, &key, &n_key, &status, err)) {
        int64_t id;
        if (!take_id(c, &id))
            return err_set(err, ST_INPUT, "\"%s\": model.vocab[\"%.*s\"]: the id is no whole number", b->path,
                           (int)(n_key < 100 ? n_key : 100), key);
        if (tokenizer__vocab_find(v, key, n_key) >= 0)
            return err_set(err, ST_INPUT, "\"%s\": model.vocab: the token \"%.*s\" stands twice", b->path,
                           (int)(n_key < 100 ? n_key : 100), key);
        int32_t small = id < 0 ? -1 : id < TOKENIZER_MAX_ID ? (int32_t)id : TOKENIZER_MAX_ID;
        status = tokenizer__vocab_put(v, key, n_key, small, err);
        if (status != ST_OK)
            return err_where(err, "\"%s\": model.vocab[\"%.*s\"]", b->path, (int)(n_key < 100 ? n_key : 100),
                             key);
        v->entries[small].in_model = 1;
        v->n_model++;
    }
    return status;
}

enum status tokenizer__bulk_vocab(const struct bulk *b, struct vocab *v, struct err *err)
{
    struct cursor c = {.text = b->text, .at = b->vocab, .end = b->vocab_end};
    enum status status = vocab_entries(b, &c, v, err);
    expect_end(&c);
    buf_release(&c.unescaped);
    if (status == ST_OK && c.wrong)
        return explain(b, c.wrong, c.at, err);
    return status;
}

struct merge_text { /* the two halves, one behind the other: together they are the merged token */
    struct buf text;
    size_t n_left;
};

/* "a b": exactly one space. *skip: a comment of the merges.txt format. */
static enum status split_merge(const char *text, size_t n_bytes, struct merge_text *m, bool *skip, bool *good,
                               struct err *err)
{
    *skip = n_bytes >= 8 && memcmp(text, "#version", 8) == 0;
    const char *space = memchr(text, ' ', n_bytes);
    *good = *skip || (space && !memchr(space + 1, ' ', n_bytes - (size_t)(space + 1 - text)));
    if (*skip || !*good)
        return ST_OK;
    m->n_left = (size_t)(space - text);
    TRY(buf_append(&m->text, text, m->n_left, err));
    return buf_append(&m->text, space + 1, n_bytes - m->n_left - 1, err);
}

/* ["a", "b"] */
static enum status take_pair(struct cursor *c, struct merge_text *m, bool *good, struct err *err)
{
    const char *text;
    size_t n_bytes;
    *good = false;
    c->at++;
    for (int i = 0; i < 2; i++) {
        if (peek(c) != '"')
            return ST_OK;
        TRY(take_string(c, &text, &n_bytes, err));
        if (c->wrong)
            return ST_OK;
        TRY(buf_append(&m->text, text, n_bytes, err));
        if (i == 0)
            m->n_left = n_bytes;
        if (!take(c, i == 0 ? ',' : ']'))
            return ST_OK;
    }
    *good = true;
    return ST_OK;
}

static enum status merge_keep(const struct bulk *b, struct tokenizer *t, const struct merge_text *m,
                              int64_t index, struct err *err)
{
    size_t n = m->text.n_bytes;
    const char *text = m->text.data ? m->text.data : "";
    int32_t left = tokenizer__vocab_model(&t->vocab, text, m->n_left);
    int32_t right = tokenizer__vocab_model(&t->vocab, text + m->n_left, n - m->n_left);
    int32_t both = tokenizer__vocab_model(&t->vocab, text, n);
    if (left < 0 || right < 0 || both < 0) {
        const char *part = left < 0 || both < 0 ? text : text + m->n_left;
        size_t n_part = left < 0 ? m->n_left : right < 0 ? n - m->n_left : n;
        if (left >= 0 && right < 0)
            part = text + m->n_left;
        return err_set(err, ST_INPUT, "\"%s\": model.merges[%lld]: \"%.*s\" is not in model.vocab", b->path,
                       (long long)index, (int)(n_part < 100 ? n_part : 100), part);
    }
    t->vocab.entries[both].merged = 1;
    return tokenizer__merges_add(&t->merges, left, right, both, err);
}

static enum status merge_items(const struct bulk *b, struct cursor *c, struct tokenizer *t,
                               struct merge_text *m, struct err *err)
{
    c->at++;
    for (int64_t index = 0; peek(c) != ']'; index++) {
        if (index > 0 && !take(c, ',')) {
            c->wrong = "a comma";
            return ST_OK;
        }
        bool skip = false, good = false;
        char kind = peek(c);
        buf_clear(&m->text);
        if (kind == '"') {
            const char *text;
            size_t n_bytes;
            TRY(take_string(c, &text, &n_bytes, err));
            if (c->wrong)
                return ST_OK;
            TRY(split_merge(text, n_bytes, m, &skip, &good, err));
        } else if (kind == '[') {
            TRY(take_pair(c, m, &good, err));
        }
        if (c->wrong)
            return ST_OK;
        if (good && index == 0)
            t->merges.as_strings = kind == '"';
        if (!good || t->merges.as_strings != (kind == '"'))
            return err_set(err, ST_INPUT,
                           "\"%s\": model.merges[%lld]: neither \"left right\" nor [\"left\", \"right\"]%s",
                           b->path, (long long)index, good ? " as the ones before" : "");
        if (!skip)
            TRY(merge_keep(b, t, m, index, err));
    }
    return ST_OK;
}

enum status tokenizer__bulk_merges(const struct bulk *b, struct tokenizer *t, struct err *err)
{
    struct cursor c = {.text = b->text, .at = b->merges, .end = b->merges_end};
    struct merge_text m = {.text = BUF_INIT};
    enum status status = merge_items(b, &c, t, &m, err);
    take(&c, ']');
    expect_end(&c);
    buf_release(&m.text);
    buf_release(&c.unescaped);
    if (status == ST_OK && c.wrong)
        return explain(b, c.wrong, c.at, err);
    return status;
}
