/* Finds added tokens in a text: at each place the longest one that begins there, leftmost first. The tries
 * are kept as one hash table of (node, byte), since a few thousand tokens share long beginnings. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

static uint32_t trie_hash(uint32_t key)
{
    uint32_t h = key * 0x9e3779b1u;
    return h ^ (h >> 15);
}

static uint32_t trie_child(const struct added_trie *t, uint32_t node, unsigned char byte)
{
    uint32_t key = node << 8 | byte;
    for (uint32_t at = trie_hash(key) & (t->n_slots - 1); t->slots[at].child;
         at = (at + 1) & (t->n_slots - 1))
        if (t->slots[at].key == key)
            return t->slots[at].child;
    return 0;
}

static void trie_put(struct trie_slot *slots, uint32_t n_slots, struct trie_slot s)
{
    uint32_t at = trie_hash(s.key) & (n_slots - 1);
    while (slots[at].child)
        at = (at + 1) & (n_slots - 1);
    slots[at] = s;
}

static enum status trie_grow(struct added_trie *t, struct err *err)
{
    if (t->n_nodes == t->node_capacity) {
        uint32_t capacity = t->node_capacity ? 2 * t->node_capacity : 256;
        int32_t *token = realloc(t->token, capacity * sizeof *token);
        if (!token)
            return err_memory(err, "added tokens", capacity * sizeof *token);
        t->token = token;
        t->node_capacity = capacity;
    }
    if (t->n_nodes >= 1u << 23)
        return err_set(err, ST_INPUT, "the added tokens are too long together");
    if (t->n_slots && t->n_nodes < t->n_slots / 2)
        return ST_OK;
    uint32_t n_slots = t->n_slots ? 2 * t->n_slots : 1024;
    struct trie_slot *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return err_memory(err, "added tokens", n_slots * sizeof *slots);
    for (uint32_t i = 0; i < t->n_slots; i++)
        if (t->slots[i].child)
            trie_put(slots, n_slots, t->slots[i]);
    free(t->slots);
    t->slots = slots;
    t->n_slots = n_slots;
    return ST_OK;
}

enum status tokenizer__trie_add(struct added_trie *t, const char *text, size_t n_bytes, int32_t token,
                                struct err *err)
{
    uint32_t node = 0;
    if (t->n_nodes == 0) {
        TRY(trie_grow(t, err));
        t->token[t->n_nodes++] = -1; /* the root */
    }
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t child = trie_child(t, node, byte);
        if (!child) {
            TRY(trie_grow(t, err));
            child = t->n_nodes++;
            t->token[child] = -1;
            trie_put(t->slots, t->n_slots, (struct trie_slot){node << 8 | byte, child});
            if (node == 0)
                t->root[byte] = child;
        }
        node = child;
    }
    if (t->token[node] < 0) /* of equal texts the first counts */
        t->token[node] = token;
    return ST_OK;
}

void tokenizer__trie_release(struct added_trie *t)
{
    free(t->slots);
    free(t->token);
    *t = (struct added_trie){0};
}

/* The longest token that begins at `at`; -1 if none does. */
static int32_t longest_at(const struct added_trie *t, const char *text, size_t n_bytes, size_t at,
                          size_t *end)
{
    int32_t best = -1;
    uint32_t node = t->root[(unsigned char)text[at]];
    while (node) {
        at++;
        if (t->token[node] >= 0) {
            best = t->token[node];
            *end = at;
        }
        if (at == n_bytes)
            break;
        node = trie_child(t, node, (unsigned char)text[at]);
    }
    return best;
}

static bool word_before(const struct char_classes *c, const char *text, size_t at)
{
    int n;
    return at > 0 && class_of(c, utf8_get(utf8_before(text + at), &n)) & CLASS_WORD;
}

static bool word_behind(const struct char_classes *c, const char *text, size_t n_bytes, size_t at)
{
    int n;
    return at < n_bytes && class_of(c, utf8_get(text + at, &n)) & CLASS_WORD;
}

static size_t space_before(const struct char_classes *c, const char *text, size_t at)
{
    while (at > 0) {
        const char *p = utf8_before(text + at);
        int n;
        if (!(class_of(c, utf8_get(p, &n)) & CLASS_SPACE))
            break;
        at = (size_t)(p - text);
    }
    return at;
}

static size_t space_behind(const struct char_classes *c, const char *text, size_t n_bytes, size_t at)
{
    while (at < n_bytes) {
        int n;
        if (!(class_of(c, utf8_get(text + at, &n)) & CLASS_SPACE))
            break;
        at += (size_t)n;
    }
    return at;
}

bool tokenizer__added_next(const struct tokenizer *t, const struct added_trie *trie, struct added_scan *s,
                           size_t *start, size_t *end, int32_t *token)
{
    if (trie->n_nodes == 0)
        return false;
    while (s->at < s->n_bytes) {
        size_t stop;
        if (!trie->root[(unsigned char)s->text[s->at]] ||
            (*token = longest_at(trie, s->text, s->n_bytes, s->at, &stop)) < 0) {
            s->at++;
            continue;
        }
        *start = s->at;
        *end = s->at =
            stop; /* the search goes on behind the token itself, also behind one that is rejected */
        const struct added_token *a = &t->added.items[*token];
        if (a->single_word && (word_before(&t->classes, s->text, *start) ||
                               word_behind(&t->classes, s->text, s->n_bytes, stop)))
            continue;
        if (a->lstrip) {
            *start = space_before(&t->classes, s->text, *start);
            if (*start < s->done) /* what an earlier token took stays there */
                *start = s->done;
        }
        if (a->rstrip)
            *end = space_behind(&t->classes, s->text, s->n_bytes, stop);
        return true;
    }
    return false;
}
