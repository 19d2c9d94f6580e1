/* The arithmetic of tree_sum, free of communication: what is added to what, in which order. */
#include "comm/tree_sum.h"
#include "tree_internal.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_UNIT    64   /* floats: a cache line's multiple, so that no two ranks' slices share one */
#define COMBINE_BLOCK 1024 /* floats: a stack of them stays in the first cache */

void tree_sum_range(int n_leaves, int world_size, int rank, int *first, int *end)
{
    int each = n_leaves / world_size, more = n_leaves % world_size;
    *first = rank * each + (rank < more ? rank : more);
    *end = *first + each + (rank < more ? 1 : 0);
}

void tree__slice(int64_t n_values, int world_size, int rank, int64_t *first, int64_t *end)
{
    int64_t n_units = (n_values + SLICE_UNIT - 1) / SLICE_UNIT;
    int64_t each = n_units / world_size, more = n_units % world_size;
    int64_t from = rank * each + (rank < more ? rank : more);
    int64_t to = from + each + (rank < more ? 1 : 0);
    *first = from * SLICE_UNIT < n_values ? from * SLICE_UNIT : n_values;
    *end = to * SLICE_UNIT < n_values ? to * SLICE_UNIT : n_values;
}

struct walk {
    int n_leaves, world_size, only; /* only: the rank whose leaves are wanted, or -1: whole nodes of all */
    struct operands *out;
};

static int owner_of(const struct walk *w, int leaf)
{
    int each = w->n_leaves / w->world_size, more = w->n_leaves % w->world_size;
    int big = more * (each + 1); /* leaves of the ranks that have one more */
    return leaf < big ? leaf / (each + 1) : more + (leaf - big) / each;
}

/* The owner of all leaves of [lo, hi), or -1. */
static int owner_of_node(const struct walk *w, int lo, int hi)
{
    int a = owner_of(w, lo);
    return a == owner_of(w, hi - 1) ? a : -1;
}

/* Depth first, left before right; as deep as the tree, which is at most TREE_MAX_DEPTH. */
static void walk_node(struct walk *w, int lo, int hi)
{
    int owner = owner_of_node(w, lo, hi);
    bool operand = w->only < 0 ? owner >= 0 : hi - lo == 1;
    if (w->only >= 0 && owner >= 0 && owner != w->only)
        return;
    if (operand) {
        w->out->items[w->out->n++] = (struct operand){.first = lo, .end = hi, .owner = owner};
        return;
    }
    int half = 1;
    while (half < hi - lo - half)
        half *= 2;
    walk_node(w, lo, lo + half);
    walk_node(w, lo + half, hi);
    if (w->only < 0 || owner >= 0)
        w->out->items[w->out->n - 1].n_adds++;
}

static enum status tree_walk(struct operands *out, int n_leaves, int world_size, int only, struct err *err)
{
    memset(out, 0, sizeof *out);
    if (n_leaves < 1 || world_size < 1 || (only < 0 ? 0 : only) >= world_size)
        return err_set(err, ST_DEFECT, "sum of %d leaves over %d ranks", n_leaves, world_size);
    out->items = calloc((size_t)n_leaves, sizeof *out->items);
    if (out->items == NULL)
        return err_memory(err, "operands of a sum", (size_t)n_leaves * sizeof *out->items);
    struct walk w = {.n_leaves = n_leaves, .world_size = world_size, .only = only, .out = out};
    walk_node(&w, 0, n_leaves);
    return ST_OK;
}

enum status tree__own(struct operands *out, int n_leaves, int world_size, int rank, struct err *err)
{
    return tree_walk(out, n_leaves, world_size, rank, err);
}

enum status tree__all(struct operands *out, int n_leaves, int world_size, struct err *err)
{
    return tree_walk(out, n_leaves, world_size, -1, err);
}

void tree__release(struct operands *o)
{
    free(o->items);
    memset(o, 0, sizeof *o);
}

int tree__height(const struct operands *o)
{
    int height = 0, at = 0;
    for (int k = 0; k < o->n; k++) {
        at++;
        if (at > height)
            height = at;
        at -= o->items[k].n_adds;
    }
    return height;
}

/* stack [TREE_MAX_DEPTH + 1][COMBINE_BLOCK] */
static void combine_block(const struct operands *o, const float *const *parts, int64_t at, int64_t n,
                          float (*stack)[COMBINE_BLOCK])
{
    int top = -1;
    for (int k = 0; k < o->n; k++) {
        top++;
        memcpy(stack[top], parts[k] + at, (size_t)n * sizeof(float));
        for (int a = 0; a < o->items[k].n_adds; a++) {
            top--;
            for (int64_t i = 0; i < n; i++)
                stack[top][i] += stack[top + 1][i];
        }
    }
}

void tree__combine(const struct operands *o, const float *const *parts, int64_t n, float *out)
{
    float stack[TREE_MAX_DEPTH + 1][COMBINE_BLOCK];
    for (int64_t at = 0; at < n; at += COMBINE_BLOCK) {
        int64_t len = n - at < COMBINE_BLOCK ? n - at : COMBINE_BLOCK;
        combine_block(o, parts, at, len, stack);
        memcpy(out + at, stack[0], (size_t)len * sizeof(float));
    }
}

double tree__combine_doubles(const struct operands *o, const double *values, int64_t stride)
{
    double stack[TREE_MAX_DEPTH + 1];
    int top = -1;
    for (int k = 0; k < o->n; k++) {
        stack[++top] = values[k * stride];
        for (int a = 0; a < o->items[k].n_adds; a++) {
            stack[top - 1] = stack[top - 1] + stack[top];
            top--;
        }
    }
    return stack[0];
}
