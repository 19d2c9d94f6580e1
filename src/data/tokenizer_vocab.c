/* The table of token texts, both ways, and the table of merges. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)256 << 10)

struct text_chunk {
    struct text_chunk *next;
    size_t n_bytes, capacity;
    char data[];
};

static uint32_t text_hash(const char *text, size_t n_bytes)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n_bytes, word;
    for (; n_bytes >= sizeof word; text += sizeof word, n_bytes -= sizeof word) {
        memcpy(&word, text, sizeof word);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, text, n_bytes);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    h ^= h >> 29;
    return (uint32_t)(h ^ h >> 32);
}

int32_t tokenizer__vocab_find(const struct vocab *v, const char *text, size_t n_bytes)
{
    if (v->n_slots == 0)
        return -1;
    uint32_t hash = text_hash(text, n_bytes);
    for (uint32_t at = hash & (v->n_slots - 1); v->slots[at].id >= 0; at = (at + 1) & (v->n_slots - 1)) {
        if (v->slots[at].hash != hash)
            continue;
        const struct token_entry *e = &v->entries[v->slots[at].id];
        if (e->n_bytes == n_bytes && memcmp(e->text, text, n_bytes) == 0)
            return v->slots[at].id;
    }
    return -1;
}

int32_t tokenizer__vocab_model(const struct vocab *v, const char *text, size_t n_bytes)
{
    int32_t id = tokenizer__vocab_find(v, text, n_bytes);
    return id >= 0 && v->entries[id].in_model ? id : -1;
}

static void slot_put(struct vocab_slot *slots, uint32_t n_slots, uint32_t hash, int32_t id)
{
    uint32_t at = hash & (n_slots - 1);
    while (slots[at].id >= 0)
        at = (at + 1) & (n_slots - 1);
    slots[at] = (struct vocab_slot){hash, id};
}

/* Keeps the table at most two thirds full. */
static enum status slots_grow(struct vocab *v, struct err *err)
{
    if (v->n_slots && v->n_used + 1 <= v->n_slots / 3 * 2)
        return ST_OK;
    uint32_t n_slots = v->n_slots ? 2 * v->n_slots : 1024;
    struct vocab_slot *slots = malloc(n_slots * sizeof *slots);
    if (!slots)
        return err_memory(err, "the vocabulary", n_slots * sizeof *slots);
    for (uint32_t i = 0; i < n_slots; i++)
        slots[i].id = -1;
    for (uint32_t i = 0; i < v->n_slots; i++)
        if (v->slots[i].id >= 0)
            slot_put(slots, n_slots, v->slots[i].hash, v->slots[i].id);
    free(v->slots);
    v->slots = slots;
    v->n_slots = n_slots;
    return ST_OK;
}

static enum status entries_grow(struct vocab *v, int32_t id, struct err *err)
{
    if (id < v->capacity)
        return ST_OK;
    int32_t capacity = v->capacity ? v->capacity : 1024;
    while (capacity <= id)
        capacity *= 2;
    struct token_entry *entries = realloc(v->entries, (size_t)capacity * sizeof *entries);
    if (!entries)
        return err_memory(err, "the vocabulary", (size_t)capacity * sizeof *entries);
    for (int32_t i = v->capacity; i < capacity; i++)
        entries[i] = (struct token_entry){.added = -1};
    v->entries = entries;
    v->capacity = capacity;
    return ST_OK;
}

static enum status text_keep(struct vocab *v, const char *text, size_t n_bytes, const char **kept,
                             struct err *err)
{
    struct text_chunk *c = v->chunks;
    if (!c || c->capacity - c->n_bytes < n_bytes + 1) {
        size_t capacity = n_bytes + 1 > CHUNK_BYTES ? n_bytes + 1 : CHUNK_BYTES;
        c = malloc(sizeof *c + capacity);
        if (!c)
            return err_memory(err, "the vocabulary", capacity);
        *c = (struct text_chunk){.next = v->chunks, .capacity = capacity};
        v->chunks = c;
    }
    memcpy(c->data + c->n_bytes, text, n_bytes);
    c->data[c->n_bytes + n_bytes] = '\0';
    *kept = c->data + c->n_bytes;
    c->n_bytes += n_bytes + 1;
    return ST_OK;
}

enum status tokenizer__vocab_put(struct vocab *v, const char *text, size_t n_bytes, int32_t id,
                                 struct err *err)
{
    if (id < 0 || id >= TOKENIZER_MAX_ID)
        return err_set(err, ST_INPUT, "id %d is not in 0..%d", (int)id, TOKENIZER_MAX_ID - 1);
    if (n_bytes >= 1u << 28)
        return err_set(err, ST_INPUT, "a token of %zu bytes", n_bytes);
    TRY(entries_grow(v, id, err));
    if (v->entries[id].text)
        return err_set(err, ST_INPUT, "id %d is already that of \"%.100s\"", (int)id, v->entries[id].text);
    TRY(slots_grow(v, err));
    const char *kept = NULL;
    TRY(text_keep(v, text, n_bytes, &kept, err));
    v->entries[id].text = kept;
    v->entries[id].n_bytes = (uint32_t)n_bytes & 0x1fffffffu;
    slot_put(v->slots, v->n_slots, text_hash(text, n_bytes), id);
    v->n_used++;
    if (id >= v->n_ids)
        v->n_ids = id + 1;
    return ST_OK;
}

void tokenizer__vocab_release(struct vocab *v)
{
    free(v->entries);
    free(v->slots);
    for (struct text_chunk *c = v->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *v = (struct vocab){0};
}

static void merge_put(struct merges *m, uint64_t pair, uint32_t rank, int32_t id)
{
    uint32_t at = (uint32_t)merge_hash(pair) & (m->n_slots - 1);
    while (m->slots[at].pair != UINT64_MAX && m->slots[at].pair != pair)
        at = (at + 1) & (m->n_slots - 1);
    if (m->slots[at].pair == UINT64_MAX)
        m->n_used++;
    m->slots[at] = (struct merge_slot){pair, rank, id}; /* of equal pairs the last rank counts */
}

static enum status merges_grow(struct merges *m, struct err *err)
{
    if (m->n_list == m->capacity) {
        uint32_t capacity = m->capacity ? 2 * m->capacity : 1024;
        struct merge_pair *list = realloc(m->list, capacity * sizeof *list);
        if (!list)
            return err_memory(err, "merges", capacity * sizeof *list);
        m->list = list;
        m->capacity = capacity;
    }
    if (m->n_slots && m->n_used + 1 <= m->n_slots / 3 * 2)
        return ST_OK;
    struct merge_slot *old = m->slots;
    uint32_t n_old = m->n_slots, n_slots = n_old ? 2 * n_old : 256;
    struct merge_slot *slots = malloc(n_slots * sizeof *slots);
    if (!slots)
        return err_memory(err, "merges", n_slots * sizeof *slots);
    for (uint32_t i = 0; i < n_slots; i++)
        slots[i].pair = UINT64_MAX;
    m->slots = slots;
    m->n_slots = n_slots;
    m->n_used = 0;
    for (uint32_t i = 0; i < n_old; i++)
        if (old[i].pair != UINT64_MAX)
            merge_put(m, old[i].pair, old[i].rank, old[i].id);
    free(old);
    return ST_OK;
}

enum status tokenizer__merges_add(struct merges *m, int32_t left, int32_t right, int32_t id, struct err *err)
{
    TRY(merges_grow(m, err));
    m->list[m->n_list] = (struct merge_pair){left, right};
    merge_put(m, (uint64_t)(uint32_t)left << 32 | (uint32_t)right, m->n_list, id);
    m->n_list++;
    return ST_OK;
}

void tokenizer__merges_release(struct merges *m)
{
    free(m->slots);
    free(m->list);
    *m = (struct merges){0};
}
