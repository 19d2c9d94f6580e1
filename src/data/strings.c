/* A set of distinct strings with numbers. */
#include "examples_internal.h"
#include <stdlib.h>
#include <string.h>

static uint32_t string_hash(const char *text)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    return (uint32_t)(h ^ (h >> 32));
}

void data__strings_release(struct strings *s)
{
    for (int32_t i = 0; i < s->n; i++)
        free(s->items[i]);
    free(s->items);
    free(s->slots);
    *s = (struct strings){0};
}

static void slot_put(struct strings *s, int32_t id)
{
    uint32_t at = string_hash(s->items[id]) & (s->n_slots - 1);
    while (s->slots[at] >= 0)
        at = (at + 1) & (s->n_slots - 1);
    s->slots[at] = id;
}

/* Keeps the table at most half full. */
static enum status strings_grow(struct strings *s, struct err *err)
{
    if (s->n == s->capacity) {
        if (s->capacity > INT32_MAX / 4)
            return err_set(err, ST_INPUT, "more than %d distinct strings", INT32_MAX / 4);
        int32_t capacity = s->capacity ? 2 * s->capacity : 64;
        char **items = realloc(s->items, (size_t)capacity * sizeof *items);
        if (!items)
            return err_memory(err, "distinct strings", (size_t)capacity * sizeof *items);
        s->items = items;
        s->capacity = capacity;
    }
    if (2 * (uint32_t)s->capacity == s->n_slots)
        return ST_OK;
    uint32_t n_slots = 2 * (uint32_t)s->capacity;
    int32_t *slots = malloc(n_slots * sizeof *slots);
    if (!slots)
        return err_memory(err, "distinct strings", n_slots * sizeof *slots);
    free(s->slots);
    s->slots = slots;
    s->n_slots = n_slots;
    memset(slots, 0xff, n_slots * sizeof *slots);
    for (int32_t i = 0; i < s->n; i++)
        slot_put(s, i);
    return ST_OK;
}

enum status data__strings_add(struct strings *s, const char *text, int32_t *id, struct err *err)
{
    if (s->n_slots > 0) {
        uint32_t at = string_hash(text) & (s->n_slots - 1);
        for (; s->slots[at] >= 0; at = (at + 1) & (s->n_slots - 1)) {
            if (!strcmp(s->items[s->slots[at]], text)) {
                *id = s->slots[at];
                return ST_OK;
            }
        }
    }
    TRY(strings_grow(s, err));
    char *copy = strdup(text);
    if (!copy)
        return err_memory(err, "a string", strlen(text) + 1);
    *id = s->n;
    s->items[s->n++] = copy;
    slot_put(s, *id);
    return ST_OK;
}
