/* The fixed tree over the leaves as a list of operands: a sum along it is "push the operand, then add the two
 * topmost sums n_adds times", from the first to the last. */
#ifndef SMGPT_COMM_TREE_INTERNAL_H
#define SMGPT_COMM_TREE_INTERNAL_H

#include "util/err.h"
#include <stdint.h>

#define TREE_MAX_DEPTH                                                                                       \
    32 /* of a tree over up to 2^31 leaves; sums waiting on the stack are at most one more */

struct operand {
    int first, end; /* the leaves it holds the sum of */
    int owner;      /* the rank that has it */
    int n_adds;
};

struct operands {
    struct operand *items;
    int n;
};

/* Operands of one rank: its leaves; additions only as far as both sides lie in its range, so that what is
 * left on the stack are its largest whole nodes, in order. */
enum status tree__own(struct operands *out, int n_leaves, int world_size, int rank, struct err *err);
/* Operands of the rest: the largest whole nodes of all ranks in order of leaves. One sum is left. */
enum status tree__all(struct operands *out, int n_leaves, int world_size, struct err *err);
void tree__release(struct operands *o);
/* The highest the stack gets. */
int tree__height(const struct operands *o);

/* out[i] = the sum along the operands of parts[k][i], i < n. out may be none of the parts. */
void tree__combine(const struct operands *o, const float *const *parts, int64_t n, float *out);
/* The same for one number an operand, `stride` doubles apart. */
double tree__combine_doubles(const struct operands *o, const double *values, int64_t stride);

/* Elements of rank r's slice of a vector: borders on multiples of 64 elements. */
void tree__slice(int64_t n_values, int world_size, int rank, int64_t *first, int64_t *end);

#endif
