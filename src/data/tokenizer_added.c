/* The list of added tokens: read from the file with the ids that the library would give, and made longer. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

enum { FLAG_SINGLE_WORD, FLAG_LSTRIP, FLAG_RSTRIP, FLAG_NORMALIZED, FLAG_SPECIAL, N_FLAGS };

/* The id of a new token: behind the model's vocabulary, or behind the last added one where that is further.
 */
static int32_t next_id(const struct tokenizer *t)
{
    return t->added.max_id >= t->vocab.n_model ? t->added.max_id + 1 : t->vocab.n_model;
}

static enum status list_push(struct added_tokens *a, struct added_token token, struct err *err)
{
    if (a->n == a->capacity) {
        int32_t capacity = a->capacity ? 2 * a->capacity : 64;
        struct added_token *items = realloc(a->items, (size_t)capacity * sizeof *items);
        if (!items)
            return err_memory(err, "added tokens", (size_t)capacity * sizeof *items);
        a->items = items;
        a->capacity = capacity;
    }
    a->items[a->n++] = token;
    if (token.id > a->max_id)
        a->max_id = token.id;
    return ST_OK;
}

static bool is_one_char(const struct token_entry *e)
{
    int n;
    return e->n_bytes > 0 && (utf8_get(e->text, &n), (uint32_t)n == e->n_bytes);
}

/* A special token that ordinary text could become by BPE alone. */
static void ban_if_reachable(struct tokenizer *t, const struct added_token *a)
{
    struct token_entry *e = &t->vocab.entries[a->id];
    if (!a->special || !e->in_model || !(e->merged || t->model.ignore_merges || is_one_char(e)))
        return;
    e->banned = 1;
    t->any_banned = true;
}

/* Text of an added token as the trie of its kind needs it. */
static enum status trie_put(struct tokenizer *t, struct workspace *s, int32_t index, struct err *err)
{
    const struct added_token *a = &t->added.items[index];
    const struct token_entry *e = &t->vocab.entries[a->id];
    if (!a->normalized)
        return tokenizer__trie_add(&t->added.raw, e->text, e->n_bytes, index, err);
    const char *text;
    size_t n_bytes;
    TRY(tokenizer__normalize(&t->normalizer, s, e->text, e->n_bytes, &text, &n_bytes, err));
    if (n_bytes == 0)
        return err_set(err, ST_INPUT, "the normalizer leaves nothing of the added token \"%.100s\"", e->text);
    return tokenizer__trie_add(&t->added.normalized, text, n_bytes, index, err);
}

/* Special ones first: the order decides which of two tokens with equal normalized text is found. */
static enum status tries_fill(struct tokenizer *t, struct workspace *s, struct err *err)
{
    for (int special = 1; special >= 0; special--)
        for (int32_t i = 0; i < t->added.n; i++)
            if (t->added.items[i].special == special)
                TRY(trie_put(t, s, i, err));
    return ST_OK;
}

static enum status tries_build(struct tokenizer *t, struct err *err)
{
    struct workspace *s;
    TRY(tokenizer__workspace_take(t->pool, &s, err));
    tokenizer__trie_release(&t->added.raw);
    tokenizer__trie_release(&t->added.normalized);
    enum status status = tries_fill(t, s, err);
    tokenizer__workspace_give(t->pool, s);
    return status;
}

/* Registers a text as added token with the id that it has or gets. */
static enum status added_put(struct tokenizer *t, const char *text, size_t n_bytes, struct added_token token,
                             struct err *err)
{
    if (n_bytes == 0 || n_bytes > ADDED_MAX_BYTES)
        return err_set(err, ST_INPUT, "an added token of %zu bytes (1 to %d are possible)", n_bytes,
                       ADDED_MAX_BYTES);
    token.id = tokenizer__vocab_find(&t->vocab, text, n_bytes);
    if (token.id < 0) {
        token.id = next_id(t);
        TRY(tokenizer__vocab_put(&t->vocab, text, n_bytes, token.id, err));
    }
    TRY(list_push(&t->added, token, err));
    t->vocab.entries[token.id].added = t->added.n - 1;
    ban_if_reachable(t, &token);
    return ST_OK;
}

static enum status added_load_one(struct tokenizer *t, const json_t *item, int i, struct err *err)
{
    char where[PATH_BYTES + 64];
    snprintf(where, sizeof where, "%s: added_tokens[%d]", t->path, i);
    if (!json_is_object(item))
        return err_set(err, ST_INPUT, "\"%s\": not an object", where);
    static const char *const names[N_FLAGS] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    bool flags[N_FLAGS];
    for (int f = 0; f < N_FLAGS; f++)
        TRY(json_get_bool(item, where, names[f], false, false, &flags[f], err));
    int64_t id;
    const char *content;
    TRY(json_get_int(item, where, "id", 0, TOKENIZER_MAX_ID - 1, false, 0, &id, err));
    TRY(json_get_string(item, where, "content", false, NULL, &content, err));
    int32_t known = tokenizer__vocab_find(&t->vocab, content, strlen(content));
    if (known >= 0 && t->vocab.entries[known].added >= 0)
        return err_set(err, ST_INPUT, "\"%s\": \"%.100s\" stands twice", where, content);
    int32_t given = known >= 0 ? known : next_id(t);
    if (id != given) { /* the library pays no heed to the id in the file */
        err_set(err, ST_INPUT, "\"%s\": \"%.100s\" has id %lld, but the tokenizers library would give it %d",
                where, content, (long long)id, (int)given);
        return err_hint(
            err, "ids of added tokens go on without gaps behind the vocabulary, in the order of the list");
    }
    struct added_token token = {.single_word = flags[FLAG_SINGLE_WORD],
                                .lstrip = flags[FLAG_LSTRIP],
                                .rstrip = flags[FLAG_RSTRIP],
                                .normalized = flags[FLAG_NORMALIZED],
                                .special = flags[FLAG_SPECIAL]};
    enum status status = added_put(t, content, strlen(content), token, err);
    return status == ST_OK ? ST_OK : err_where(err, "\"%s\"", where);
}

enum status tokenizer__added_load(struct tokenizer *t, const json_t *root, struct err *err)
{
    const json_t *list = json_object_get(root, "added_tokens");
    t->added.max_id = -1;
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(err, ST_INPUT, "\"%s\": added_tokens: not a list", t->path);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(added_load_one(t, json_array_get(list, i), (int)i, err));
    t->n_added_file = t->added.n;
    enum status status = tries_build(t, err);
    return status == ST_OK ? ST_OK : err_where(err, "\"%s\"", t->path);
}

void tokenizer__added_release(struct added_tokens *a)
{
    free(a->items);
    tokenizer__trie_release(&a->raw);
    tokenizer__trie_release(&a->normalized);
    *a = (struct added_tokens){.max_id = -1};
}

enum status tokenizer_add(struct tokenizer *t, const char *content, int32_t *id, struct err *err)
{
    size_t n_bytes = strlen(content);
    size_t valid = tokenizer__utf8_valid(content, n_bytes);
    if (valid != n_bytes)
        return err_set(err, ST_INPUT, "added token: invalid UTF-8 at byte %zu", valid);
    int32_t known = tokenizer__vocab_find(&t->vocab, content, n_bytes);
    struct added_token token = {.special = true};
    if (known < 0 || t->vocab.entries[known].added < 0) {
        TRY(added_put(t, content, n_bytes, token, err));
        *id = t->added.items[t->added.n - 1].id;
        return tokenizer__trie_add(&t->added.raw, content, n_bytes, t->added.n - 1, err);
    }
    struct added_token *old = &t->added.items[t->vocab.entries[known].added];
    token.id = *id = known;
    if (old->special && !old->normalized && !old->single_word && !old->lstrip && !old->rstrip)
        return ST_OK;
    *old = token;
    ban_if_reachable(t, old);
    return tries_build(t, err);
}
