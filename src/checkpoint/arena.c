#include "pickle_internal.h"

#include <stdlib.h>

#define BLOCK_BYTES ((size_t)1 << 16)

struct arena_block {
    struct arena_block *next;
    size_t used, capacity;
    _Alignas(16) unsigned char data[];
};

void *arena__take(struct arena *a, size_t n_bytes, struct err *err)
{
    if (n_bytes > SIZE_MAX / 2) {
        err_memory(err, "a torch file", n_bytes);
        return NULL;
    }
    n_bytes = (n_bytes + 15) & ~(size_t)15;
    struct arena_block *b = a->blocks;
    if (!b || b->capacity - b->used < n_bytes) {
        size_t capacity = n_bytes > BLOCK_BYTES ? n_bytes : BLOCK_BYTES;
        b = malloc(sizeof *b + capacity);
        if (!b) {
            err_memory(err, "a torch file", capacity);
            return NULL;
        }
        *b = (struct arena_block){.next = a->blocks, .capacity = capacity};
        a->blocks = b;
    }
    void *out = b->data + b->used;
    b->used += n_bytes;
    return out;
}

void arena__release(struct arena *a)
{
    while (a->blocks) {
        struct arena_block *next = a->blocks->next;
        free(a->blocks);
        a->blocks = next;
    }
}
