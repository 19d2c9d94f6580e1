#include "comm/tree_sum.h"
#include "tree_internal.h"
#include "util/fatal.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void plain_zero(const void *of, float *x, int64_t n)
{
    (void)of;
    memset(x, 0, (size_t)n * sizeof *x);
}

static void plain_add(const void *of, float *restrict dst, const float *restrict src, int64_t n)
{
    (void)of;
    for (int64_t i = 0; i < n; i++)
        dst[i] += src[i];
}

struct tree_sum {
    struct tree_vectors vectors;
    int64_t n_values, capacity; /* floats of a leaf; how many there is room for */
    int n_leaves, world_size, rank;
    struct operands own, all;
    int n_rounds;         /* the most whole nodes that a rank has */
    int n_pushed, height; /* leaves so far; sums on the stack */
    float *stack;         /* [levels][n_values]: whole nodes at the bottom, pending sums above */
    float *inbox;         /* [operands of the other ranks][own slice]: what they have of it */
    const float **parts;  /* [all.n] where each operand's slice is */
    int64_t bytes_sent;
    size_t n_bytes; /* of stack and inbox */

    /* Arguments of the exchanges, one a rank. */
    const void **send;
    void **recv;
    size_t *send_bytes, *recv_bytes;
};

static float *stack_at(const struct tree_sum *ts, int level)
{
    return ts->stack + (int64_t)level * ts->n_values;
}

static int n_nodes_of(const struct tree_sum *ts, int rank)
{
    int n = 0;
    for (int k = 0; k < ts->all.n; k++)
        n += ts->all.items[k].owner == rank;
    return n;
}

static void *array(size_t n, size_t m, size_t each, struct err *err)
{
    size_t count, bytes;
    void *p = NULL;
    if (size_mul(n, m, &count) && size_mul(count > 0 ? count : 1, each, &bytes))
        p = calloc(1, bytes);
    if (p == NULL)
        err_memory(err, "sums of the virtual shards", n * m * each);
    return p;
}

/* Stack and inbox for leaves of n_values floats, in place of those there are. */
static enum status vectors_alloc(struct tree_sum *ts, int64_t n_values, struct err *err)
{
    int64_t first, end;
    tree__slice(n_values, ts->world_size, ts->rank, &first, &end);
    int n_others = ts->all.n - n_nodes_of(ts, ts->rank), height = tree__height(&ts->own);
    float *stack = array((size_t)height, (size_t)n_values, sizeof(float), err);
    float *inbox = array((size_t)n_others, (size_t)(end - first), sizeof(float), err);
    if (stack == NULL || inbox == NULL) {
        free(stack);
        free(inbox);
        return ST_ENV;
    }
    free(ts->stack);
    free(ts->inbox);
    ts->stack = stack;
    ts->inbox = inbox;
    ts->n_values = ts->capacity = n_values;
    ts->n_bytes =
        ((size_t)height * (size_t)n_values + (size_t)n_others * (size_t)(end - first)) * sizeof(float);
    return ST_OK;
}

static enum status tree_sum_alloc(struct tree_sum *ts, struct err *err)
{
    TRY(tree__own(&ts->own, ts->n_leaves, ts->world_size, ts->rank, err));
    TRY(tree__all(&ts->all, ts->n_leaves, ts->world_size, err));
    for (int r = 0; r < ts->world_size; r++) {
        int n = n_nodes_of(ts, r);
        ts->n_rounds = n > ts->n_rounds ? n : ts->n_rounds;
    }
    TRY(vectors_alloc(ts, ts->n_values, err));
    size_t w = (size_t)ts->world_size;
    ts->parts = array((size_t)ts->all.n, 1, sizeof *ts->parts, err);
    ts->send = array(w, 1, sizeof *ts->send, err);
    ts->recv = array(w, 1, sizeof *ts->recv, err);
    ts->send_bytes = array(w, 1, sizeof *ts->send_bytes, err);
    ts->recv_bytes = array(w, 1, sizeof *ts->recv_bytes, err);
    if (ts->parts == NULL || ts->send == NULL || ts->recv == NULL || ts->send_bytes == NULL ||
        ts->recv_bytes == NULL)
        return ST_ENV;
    return ST_OK;
}

enum status tree_sum_open(struct tree_sum **out, const struct comm *c, int64_t n_values, int n_leaves,
                          struct err *err)
{
    *out = NULL;
    if (n_leaves < c->world_size) {
        err_set(err, ST_USAGE, "%d ranks, but virtual_shards is %d: a rank would have nothing to do",
                c->world_size, n_leaves);
        return err_hint(err, "set virtual_shards to %d or more, or start at most %d ranks", c->world_size,
                        n_leaves);
    }
    if (n_values < 0 || n_leaves < 1)
        return err_set(err, ST_DEFECT, "sum of %d leaves of %lld values", n_leaves, (long long)n_values);
    struct tree_sum *ts = calloc(1, sizeof *ts);
    if (ts == NULL)
        return err_memory(err, "sums of the virtual shards", sizeof *ts);
    ts->vectors = (struct tree_vectors){plain_zero, plain_add, NULL};
    ts->n_values = n_values;
    ts->n_leaves = n_leaves;
    ts->world_size = c->world_size;
    ts->rank = c->rank;
    enum status st = tree_sum_alloc(ts, err);
    if (st != ST_OK) {
        tree_sum_close(ts);
        return st;
    }
    *out = ts;
    return ST_OK;
}

void tree_sum_close(struct tree_sum *ts)
{
    if (ts == NULL)
        return;
    tree__release(&ts->own);
    tree__release(&ts->all);
    free(ts->stack);
    free(ts->inbox);
    free(ts->parts);
    free(ts->send);
    free(ts->recv);
    free(ts->send_bytes);
    free(ts->recv_bytes);
    free(ts);
}

void tree_sum_use(struct tree_sum *ts, const struct tree_vectors *vectors)
{
    ts->vectors = *vectors;
}

void tree_sum_reset(struct tree_sum *ts)
{
    ts->n_pushed = ts->height = 0;
}

enum status tree_sum_resize(struct tree_sum *ts, int64_t n_values, struct err *err)
{
    tree_sum_reset(ts);
    if (n_values < 0)
        return err_set(err, ST_DEFECT, "a sum of leaves of %lld values", (long long)n_values);
    if (n_values > ts->capacity)
        return vectors_alloc(ts, n_values, err);
    ts->n_values = n_values;
    return ST_OK;
}

float *tree_sum_leaf(struct tree_sum *ts)
{
    if (ts->n_pushed == ts->own.n)
        return NULL;
    float *leaf = stack_at(ts, ts->height);
    ts->vectors.zero(ts->vectors.of, leaf, ts->n_values);
    return leaf;
}

void tree_sum_push(struct tree_sum *ts)
{
    if (ts->n_pushed == ts->own.n)
        return;
    int n_adds = ts->own.items[ts->n_pushed++].n_adds;
    ts->height++;
    for (; n_adds > 0; n_adds--, ts->height--)
        ts->vectors.add(ts->vectors.of, stack_at(ts, ts->height - 2), stack_at(ts, ts->height - 1),
                        ts->n_values);
}

/* Round k: the slices of everybody's k-th whole node go to the slices' owners. */
static enum status exchange_nodes(struct tree_sum *ts, struct comm *c, int k, struct err *err)
{
    int64_t first, end, mine_first, mine_end;
    tree__slice(ts->n_values, ts->world_size, ts->rank, &mine_first, &mine_end);
    const int64_t n_mine = mine_end - mine_first;
    float *next = ts->inbox; /* walks over the inbox in the order of operands */
    for (int r = 0; r < ts->world_size; r++) {
        tree__slice(ts->n_values, ts->world_size, r, &first, &end);
        bool send = r != ts->rank && k < n_nodes_of(ts, ts->rank);
        ts->send[r] = send ? stack_at(ts, k) + first : NULL;
        ts->send_bytes[r] = send ? (size_t)(end - first) * sizeof(float) : 0;
        ts->recv[r] = NULL;
        ts->recv_bytes[r] = 0;
        ts->bytes_sent += (int64_t)ts->send_bytes[r];
    }
    for (int o = 0, nth = 0; o < ts->all.n; o++) {
        int owner = ts->all.items[o].owner;
        nth = o > 0 && owner == ts->all.items[o - 1].owner ? nth + 1 : 0;
        if (nth == k)
            ts->parts[o] = owner == ts->rank ? stack_at(ts, k) + mine_first : next;
        if (nth == k && owner != ts->rank) {
            ts->recv[owner] = next;
            ts->recv_bytes[owner] = (size_t)n_mine * sizeof(float);
        }
        if (owner != ts->rank)
            next += n_mine;
    }
    return c->ops->exchange(c, ts->send, ts->send_bytes, ts->recv, ts->recv_bytes, err);
}

/* The finished slice of each rank to all. */
static enum status exchange_slices(struct tree_sum *ts, struct comm *c, float *total, struct err *err)
{
    int64_t first, end, mine_first, mine_end;
    tree__slice(ts->n_values, ts->world_size, ts->rank, &mine_first, &mine_end);
    for (int r = 0; r < ts->world_size; r++) {
        bool other = r != ts->rank;
        tree__slice(ts->n_values, ts->world_size, r, &first, &end);
        ts->send[r] = total + mine_first;
        ts->send_bytes[r] = other ? (size_t)(mine_end - mine_first) * sizeof(float) : 0;
        ts->recv[r] = total + first;
        ts->recv_bytes[r] = other ? (size_t)(end - first) * sizeof(float) : 0;
        ts->bytes_sent += (int64_t)ts->send_bytes[r];
    }
    return c->ops->exchange(c, ts->send, ts->send_bytes, ts->recv, ts->recv_bytes, err);
}

float *tree_sum_place(struct tree_sum *ts)
{
    return ts->world_size == 1 ? ts->stack : NULL;
}

enum status tree_sum_finish(struct tree_sum *ts, struct comm *c, float *total, struct err *err)
{
    if (ts->n_pushed != ts->own.n)
        return err_set(err, ST_DEFECT, "%d of %d leaves pushed", ts->n_pushed, ts->own.n);
    if (ts->world_size == 1) {
        if (total != ts->stack)
            memcpy(total, ts->stack, (size_t)ts->n_values * sizeof *total);
        return ST_OK;
    }
    for (int k = 0; k < ts->n_rounds; k++)
        TRY(exchange_nodes(ts, c, k, err));
    int64_t first, end;
    tree__slice(ts->n_values, ts->world_size, ts->rank, &first, &end);
    tree__combine(&ts->all, ts->parts, end - first, total + first);
    return exchange_slices(ts, c, total, err);
}

size_t tree_sum_memory(const struct tree_sum *ts)
{
    return ts->n_bytes;
}

int64_t tree_sum_bytes_sent(const struct tree_sum *ts)
{
    return ts->bytes_sent;
}

/* Everybody's numbers to everybody: all [n_leaves][n_each]. */
static enum status doubles_to_all(struct comm *c, const double *mine, int n_leaves, int n_each, double *all,
                                  struct err *err)
{
    size_t w = (size_t)c->world_size;
    const void **send = calloc(w, sizeof *send);
    void **recv = calloc(w, sizeof *recv);
    size_t *bytes = calloc(2 * w, sizeof *bytes);
    if (send == NULL || recv == NULL || bytes == NULL) {
        /* The others wait for this rank's numbers already. */
        struct err memory = ERR_INIT;
        err_memory(&memory, "a sum of numbers", 4 * w * sizeof *bytes);
        fatal(&memory);
    }
    int first, end, mine_first, mine_end;
    tree_sum_range(n_leaves, c->world_size, c->rank, &mine_first, &mine_end);
    for (int r = 0; r < c->world_size; r++) {
        tree_sum_range(n_leaves, c->world_size, r, &first, &end);
        send[r] = mine;
        recv[r] = all + (int64_t)first * n_each;
        bytes[r] = (size_t)(mine_end - mine_first) * (size_t)n_each * sizeof *mine;
        bytes[w + (size_t)r] = (size_t)(end - first) * (size_t)n_each * sizeof *mine;
    }
    enum status st = c->ops->exchange(c, send, bytes, recv, bytes + w, err);
    free(send);
    free(recv);
    free(bytes);
    return st;
}

enum status tree_sum_doubles(struct comm *c, const double *mine, int n_leaves, int n_each, double *total,
                             struct err *err)
{
    struct operands leaves = {0};
    struct err own = ERR_INIT;
    double *all = array((size_t)n_leaves, (size_t)n_each, sizeof *all, &own);
    /* One rank that owns everything: its operands are the leaves, its additions the whole tree. */
    if (all == NULL || tree__own(&leaves, n_leaves, 1, 0, &own) != ST_OK)
        fatal(&own);
    enum status st = doubles_to_all(c, mine, n_leaves, n_each, all, err);
    for (int j = 0; j < n_each && st == ST_OK; j++)
        total[j] = tree__combine_doubles(&leaves, all + j, n_each);
    tree__release(&leaves);
    free(all);
    return st;
}
