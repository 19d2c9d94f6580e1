/* Pieces to ids: the first symbols, the merges, and the memory of pieces met lately. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

/* Stands for the unknown token while the merges run on plain text; above every id, so it merges with nothing.
 */
#define UNKNOWN_SYMBOL INT32_MAX

void tokenizer__model_index(struct tokenizer *t)
{
    struct model_options *m = &t->model;
    for (int b = 0; b < 256; b++) {
        char text[8];
        int n = tokenizer__utf8_put(text, tokenizer__byte_to_char((unsigned char)b));
        m->byte_id[b] = tokenizer__vocab_model(&t->vocab, text, (size_t)n);
        n = snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        m->fallback_id[b] = tokenizer__vocab_model(&t->vocab, text, (size_t)n);
    }
    for (int c = 0; c < 128; c++) {
        char text = (char)c;
        m->ascii_id[c] = tokenizer__vocab_model(&t->vocab, &text, 1);
    }
}

/* The first symbols of a piece. An unknown character is held back until a known one comes, since several may
 * be fused to one; byte-fallback tokens overtake it, as they do in the library. */
struct starter {
    const struct tokenizer *t;
    struct ids *symbols; /* with room for all of them */
    bool unknown;        /* one is held back */
    bool plain;          /* banned tokens count as missing, unknown ones are marked */
};

static void symbol_push(struct starter *st, int32_t id)
{
    st->symbols->data[st->symbols->n++] = id;
}

static void unknown_flush(struct starter *st)
{
    if (st->unknown)
        symbol_push(st, st->plain ? UNKNOWN_SYMBOL : st->t->model.unk_id);
    st->unknown = false;
}

static enum status unknown_put(struct starter *st, const char *letter, int n_bytes, struct err *err)
{
    const struct model_options *m = &st->t->model;
    bool fallback = m->byte_fallback;
    for (int i = 0; fallback && i < n_bytes; i++)
        fallback = m->fallback_id[(unsigned char)letter[i]] >= 0;
    if (fallback) {
        for (int i = 0; i < n_bytes; i++)
            symbol_push(st, m->fallback_id[(unsigned char)letter[i]]);
        return ST_OK;
    }
    if (m->unk_id == -1 && !st->plain)
        return ST_OK; /* as in the library: what has no token vanishes */
    if (m->unk_id == -1) {
        int32_t id = tokenizer__vocab_model(&st->t->vocab, letter, (size_t)n_bytes);
        if (id < 0)
            return ST_OK;
        return err_set(err, ST_INPUT, "\"%.*s\" in a text is only known as a special token", n_bytes, letter);
    }
    if (m->unk_id < 0)
        return err_set(err, ST_INPUT,
                       "\"%.*s\" in a text has no token, and the unknown token is not in the vocabulary",
                       n_bytes, letter);
    if (!m->fuse_unk)
        unknown_flush(st);
    st->unknown = true;
    return ST_OK;
}

static enum status symbol_put(struct starter *st, int32_t id, const char *letter, int n_bytes,
                              struct err *err)
{
    if (id < 0 || (st->plain && st->t->vocab.entries[id].banned))
        return unknown_put(st, letter, n_bytes, err);
    unknown_flush(st);
    symbol_push(st, id);
    return ST_OK;
}

/* A piece whose bytes the vocabulary writes in GPT-2's alphabet. */
static enum status start_bytes(struct starter *st, const char *piece, size_t n_bytes, struct err *err)
{
    TRY(tokenizer__ids_reserve(st->symbols, 2 * n_bytes + 1, err));
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char b = (unsigned char)piece[i];
        int32_t id = st->t->model.byte_id[b];
        if (id >= 0 && !st->plain && !st->unknown) {
            symbol_push(st, id);
            continue;
        }
        char letter[4];
        int n = tokenizer__utf8_put(letter, tokenizer__byte_to_char(b));
        TRY(symbol_put(st, id, letter, n, err));
    }
    unknown_flush(st);
    return ST_OK;
}

static enum status start_chars(struct starter *st, const char *piece, size_t n_bytes, struct err *err)
{
    TRY(tokenizer__ids_reserve(st->symbols, n_bytes + 1, err));
    for (size_t at = 0; at < n_bytes;) {
        int n;
        uint32_t c = utf8_get(piece + at, &n);
        int32_t id =
            c < 128 ? st->t->model.ascii_id[c] : tokenizer__vocab_model(&st->t->vocab, piece + at, (size_t)n);
        TRY(symbol_put(st, id, piece + at, n, err));
        at += (size_t)n;
    }
    unknown_flush(st);
    return ST_OK;
}

/* The piece as the vocabulary writes it. */
static enum status piece_text(const struct tokenizer *t, struct workspace *s, const char *piece,
                              size_t n_bytes, const char **text, size_t *n_text, struct err *err)
{
    *text = piece;
    *n_text = n_bytes;
    if (!t->splitter.byte_level)
        return ST_OK;
    buf_clear(&s->mapped);
    for (size_t i = 0; i < n_bytes; i++) {
        char letter[4];
        int n = tokenizer__utf8_put(letter, tokenizer__byte_to_char((unsigned char)piece[i]));
        TRY(buf_append(&s->mapped, letter, (size_t)n, err));
    }
    *text = s->mapped.data;
    *n_text = s->mapped.n_bytes;
    return ST_OK;
}

/* Replaces a banned token by what its text gives when no banned token may come out. */
static enum status spell_out(const struct tokenizer *t, struct workspace *s, int32_t id, struct ids *out,
                             struct err *err)
{
    struct starter st = {.t = t, .symbols = &s->spelled, .plain = true};
    const struct token_entry *e = &t->vocab.entries[id];
    ids_clear(&s->spelled);
    TRY(start_chars(&st, e->text, e->n_bytes, err));
    size_t n = (size_t)s->spelled.n;
    TRY(tokenizer__merge(t, s, true, s->spelled.data, &n, err));
    for (size_t i = 0; i < n; i++)
        if (s->spelled.data[i] == UNKNOWN_SYMBOL)
            s->spelled.data[i] = t->model.unk_id;
    return ids_append(out, s->spelled.data, (int)n, err);
}

static enum status symbols_out(const struct tokenizer *t, struct workspace *s, const int32_t *symbols,
                               size_t n, bool plain, struct ids *out, struct err *err)
{
    if (!plain)
        return ids_append(out, symbols, (int)n, err);
    for (size_t i = 0; i < n; i++) {
        if (symbols[i] == UNKNOWN_SYMBOL)
            TRY(ids_push(out, t->model.unk_id, err));
        else if (t->vocab.entries[symbols[i]].banned)
            TRY(spell_out(t, s, symbols[i], out, err));
        else
            TRY(ids_push(out, symbols[i], err));
    }
    return ST_OK;
}

static enum status bpe_piece(const struct tokenizer *t, struct workspace *s, const char *piece,
                             size_t n_bytes, bool plain, struct ids *out, struct err *err)
{
    if (t->model.ignore_merges) {
        const char *text;
        size_t n_text;
        TRY(piece_text(t, s, piece, n_bytes, &text, &n_text, err));
        int32_t id = tokenizer__vocab_model(&t->vocab, text, n_text);
        if (id >= 0)
            return symbols_out(t, s, &id, 1, plain, out, err);
    }
    struct starter st = {.t = t, .symbols = &s->symbols, .plain = plain};
    ids_clear(&s->symbols);
    TRY(t->splitter.byte_level ? start_bytes(&st, piece, n_bytes, err)
                               : start_chars(&st, piece, n_bytes, err));
    size_t n = (size_t)s->symbols.n;
    TRY(tokenizer__merge(t, s, false, s->symbols.data, &n, err));
    return symbols_out(t, s, s->symbols.data, n, plain, out, err);
}

/* First and last bytes overlap, so that no length needs a loop. */
static uint32_t piece_hash(const char *p, size_t n)
{
    uint64_t a = 0, b = 0, c = 0;
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
        if (n > 16)
            memcpy(&c, p + 8, 8);
    } else if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + n - 4, 4);
        a = (uint64_t)high << 32 | low;
    } else {
        a = (unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << 8 |
            (uint64_t)(unsigned char)p[n - 1] << 16;
    }
    uint64_t h = (a ^ n * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
    h = ((h ^ h >> 32) + b) * 0xc4ceb9fe1a85ec53u;
    h = ((h ^ h >> 32) + c) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 40);
}

enum status tokenizer__bpe(const struct tokenizer *t, struct workspace *s, const char *piece, size_t n_bytes,
                           struct ids *out, struct err *err)
{
    /* Only here does plain text differ from text with its added tokens taken out. */
    bool plain = s->plain && t->any_banned;
    if (plain || n_bytes > CACHE_KEY_BYTES)
        return bpe_piece(t, s, piece, n_bytes, plain, out, err);
    struct cache_entry *e = &s->cache[piece_hash(piece, n_bytes) % CACHE_ENTRIES];
    if (e->n_key == n_bytes && memcmp(e->key, piece, n_bytes) == 0)
        return ids_append(out, e->ids, e->n_ids, err);
    int before = out->n;
    TRY(bpe_piece(t, s, piece, n_bytes, false, out, err));
    int n = out->n - before;
    if (n <= CACHE_IDS) {
        e->n_key = (uint8_t)n_bytes;
        e->n_ids = (uint8_t)n;
        memcpy(e->key, piece, n_bytes);
        if (n > 0)
            memcpy(e->ids, out->data + before, (size_t)n * sizeof *e->ids);
    }
    return ST_OK;
}
