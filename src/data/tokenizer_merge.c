/* The merges of BPE: of all neighbours that have a merge, the one of lowest rank first, of equal ranks the
 * leftmost. Short pieces keep the ranks in an array and look for the least; long ones (a whole text is one
 * piece where nothing splits it) keep them in a heap, so that the work stays n log n. */
#include "tokenizer_internal.h"
#include <stdlib.h>
#include <string.h>

#define NO_RANK       UINT32_MAX
#define SHORT_SYMBOLS 96

struct merger {
    const struct merges *merges;
    const struct token_entry *banned; /* entries, or NULL: nothing is banned */
};

/* Rank of the pair and what it becomes; NO_RANK if it does not merge. */
static inline uint32_t pair_rank(const struct merger *m, int32_t left, int32_t right, int32_t *id)
{
    const struct merge_slot *slot = merge_find(m->merges, left, right);
    if (!slot || (m->banned && m->banned[slot->id].banned))
        return NO_RANK;
    *id = slot->id;
    return slot->rank;
}

static size_t merge_short(const struct merger *m, int32_t *symbols, size_t n)
{
    uint32_t rank[SHORT_SYMBOLS];
    int32_t id[SHORT_SYMBOLS];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = pair_rank(m, symbols[i], symbols[i + 1], &id[i]);
    while (n > 1) {
        uint32_t least = NO_RANK;
        for (size_t i = 0; i + 1 < n; i++)
            least = rank[i] < least ? rank[i] : least;
        if (least == NO_RANK)
            break;
        size_t at = 0;
        while (rank[at] != least)
            at++;
        symbols[at] = id[at];
        for (size_t i = at + 1; i + 1 < n; i++) {
            symbols[i] = symbols[i + 1];
            rank[i] = rank[i + 1]; /* the last one moved is not in use */
            id[i] = id[i + 1];
        }
        n--;
        if (at > 0)
            rank[at - 1] = pair_rank(m, symbols[at - 1], symbols[at], &id[at - 1]);
        if (at + 1 < n)
            rank[at] = pair_rank(m, symbols[at], symbols[at + 1], &id[at]);
    }
    return n;
}

struct node {
    int32_t symbol;
    int32_t next, previous; /* -1 at the ends */
    uint32_t rank;          /* of the pair with the next one; NO_RANK also for nodes that are gone */
    int32_t id;             /* what that pair becomes */
};
struct heap { /* of rank << 32 | node: least rank, then leftmost */
    uint64_t *items;
    size_t n;
};

static void heap_down(struct heap *h, size_t at)
{
    uint64_t item = h->items[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->items[child + 1] < h->items[child])
            child++;
        if (item <= h->items[child])
            break;
        h->items[at] = h->items[child];
        at = child;
    }
    h->items[at] = item;
}

static void heap_push(struct heap *h, uint64_t item)
{
    size_t at = h->n++;
    while (at > 0 && h->items[(at - 1) / 2] > item) {
        h->items[at] = h->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->items[at] = item;
}

static uint64_t heap_pop(struct heap *h)
{
    uint64_t item = h->items[0];
    h->items[0] = h->items[--h->n];
    if (h->n > 0)
        heap_down(h, 0);
    return item;
}

/* Looks the pair of `at` and its successor up anew; true if it merges. */
static bool node_rank(const struct merger *m, struct node *nodes, int32_t at)
{
    struct node *n = &nodes[at];
    n->rank = n->next < 0 ? NO_RANK : pair_rank(m, n->symbol, nodes[n->next].symbol, &n->id);
    return n->rank != NO_RANK;
}

static size_t merge_long(const struct merger *m, struct node *nodes, struct heap *h, int32_t *symbols,
                         size_t n)
{
    for (size_t i = 0; i < n; i++)
        nodes[i] = (struct node){symbols[i], i + 1 < n ? (int32_t)i + 1 : -1, (int32_t)i - 1, NO_RANK, -1};
    for (int32_t i = 0; i < (int32_t)n; i++)
        if (node_rank(m, nodes, i))
            h->items[h->n++] = (uint64_t)nodes[i].rank << 32 | (uint32_t)i;
    for (size_t i = h->n / 2; i-- > 0;)
        heap_down(h, i);
    while (h->n > 0) {
        uint64_t item = heap_pop(h);
        int32_t at = (int32_t)(uint32_t)item;
        struct node *left = &nodes[at];
        if (left->rank != item >> 32)
            continue; /* the pair is not what it was when this was pushed */
        struct node *right = &nodes[left->next];
        left->symbol = left->id;
        right->rank = NO_RANK;
        left->next = right->next;
        if (left->next >= 0)
            nodes[left->next].previous = at;
        if (node_rank(m, nodes, at))
            heap_push(h, (uint64_t)left->rank << 32 | (uint32_t)at);
        int32_t before = left->previous;
        if (before >= 0 && node_rank(m, nodes, before))
            heap_push(h, (uint64_t)nodes[before].rank << 32 | (uint32_t)before);
    }
    size_t n_left = 0;
    for (int32_t i = 0; i >= 0; i = nodes[i].next)
        symbols[n_left++] = nodes[i].symbol;
    return n_left;
}

enum status tokenizer__merge(const struct tokenizer *t, struct workspace *s, bool unbanned, int32_t *symbols,
                             size_t *n, struct err *err)
{
    struct merger m = {&t->merges, unbanned ? t->vocab.entries : NULL};
    if (*n < 2 || t->merges.n_list == 0)
        return ST_OK;
    if (*n <= SHORT_SYMBOLS) {
        *n = merge_short(&m, symbols, *n);
        return ST_OK;
    }
    /* A merge takes one node away and pushes at most two items. */
    size_t nodes_bytes = (*n * sizeof(struct node) + 7) / 8 * 8,
           need = nodes_bytes + 3 * *n * sizeof(uint64_t);
    if (s->work_bytes < need) {
        free(s->work);
        s->work_bytes = 0;
        s->work = malloc(need);
        if (!s->work)
            return err_memory(err, "the merges of a long text", need);
        s->work_bytes = need;
    }
    struct heap h = {(uint64_t *)((char *)s->work + nodes_bytes), 0};
    *n = merge_long(&m, s->work, &h, symbols, *n);
    return ST_OK;
}
