/* The sum over virtual shards along one fixed binary tree, whoever holds which leaf.
 *
 * Leaves 0 .. S-1. The node over [lo, hi) with more than one leaf adds the node over [lo, mid) to the node
 * over [mid, hi), mid = lo + the largest power of two below hi - lo. A rank holds a contiguous range of
 * leaves, pushes them in order, and keeps only the sums of the largest whole nodes inside its range: at most
 * about 2 log2 S vectors. The remaining additions are done on slices: each rank owns a slice of the vector,
 * gets all partial sums of it, adds them along the tree, and the finished slices go to everybody. So each
 * rank sends and receives about 2 n floats, and the result has the same bits for any number of ranks.
 */
#ifndef SMGPT_COMM_TREE_SUM_H
#define SMGPT_COMM_TREE_SUM_H

#include "comm/comm.h"

struct tree_sum;

/* Leaves [first, end) of rank r when n_leaves are dealt over world_size ranks as evenly as possible, in
 * order. */
void tree_sum_range(int n_leaves, int world_size, int rank, int *first, int *end);

/* Not collective. n_values floats a leaf. */
enum status tree_sum_open(struct tree_sum **out, const struct comm *c, int64_t n_values, int n_leaves,
                          struct err *err);
void tree_sum_close(struct tree_sum *ts);
/* How vectors of this process are zeroed, and added, dst += src, element by element; until it is called plain
 * loops on one thread. `of` is handed on. */
struct tree_vectors {
    void (*zero)(const void *of, float *x, int64_t n);
    void (*add)(const void *of, float *dst, const float *src, int64_t n);
    const void *of;
};
void tree_sum_use(struct tree_sum *ts, const struct tree_vectors *vectors);
void tree_sum_reset(struct tree_sum *ts); /* a new sum begins; memory is kept */
/* A new sum begins, of leaves of n_values floats, the same on all ranks. Memory only grows; ST_ENV when it is
 * short, ts is then as after tree_sum_reset. Not collective. */
enum status tree_sum_resize(struct tree_sum *ts, int64_t n_values, struct err *err);
/* The zeroed vector for the next leaf of this rank's range; owned by ts until pushed. */
float *tree_sum_leaf(struct tree_sum *ts);
void tree_sum_push(struct tree_sum *ts); /* adds that leaf to the partial sums */
/* Memory that finish may put the total into without a copy, valid until the next reset or resize; NULL where
 * there is none: with more than one rank. */
float *tree_sum_place(struct tree_sum *ts);
/* Collective, after all own leaves were pushed: total [n_values] on every rank, equal bits. */
enum status tree_sum_finish(struct tree_sum *ts, struct comm *c, float *total, struct err *err);
/* One double a leaf: mine holds this rank's leaves in order; the sum over all leaves along the same tree.
 * Collective. */
enum status tree_sum_doubles(struct comm *c, const double *mine, int n_leaves, int n_each, double *total,
                             struct err *err);
/* Bytes of the vectors and inboxes that ts holds. */
size_t tree_sum_memory(const struct tree_sum *ts);
/* Bytes this rank has sent in finish so far. */
int64_t tree_sum_bytes_sent(const struct tree_sum *ts);

#endif
