/* What forward and backward of attention share. */
#ifndef SMGPT_OPS_CPU_ATTENTION_INTERNAL_H
#define SMGPT_OPS_CPU_ATTENTION_INTERNAL_H

#include "cpu_internal.h"

/* The keys of a segment: ranges of the packed sequence, counted one behind the other. */
struct chain {
    struct key_range *ranges;
    int64_t n_ranges;
    int64_t before;                 /* keys of the parents */
    int64_t first_query, n_queries; /* the segment's own */
    int64_t block_tokens;           /* queries of a block */
};

struct attention {
    struct device *dev;
    const struct attention_shape *shape;
    int64_t group;        /* query heads a key/value head */
    struct chain *chains; /* [n_segments] */
    int64_t *first_block; /* [n_segments + 1] first query block of each segment */
    int64_t n_blocks;
    int64_t turned_ld; /* of keys or values laid out as [K, D, turned_ld] */
    float *extra;      /* the caller's share of the scratch */
};

/* Consecutive queries of a segment. Scores of its rows (token by token, head by head) are laid out with the
 * keys [origin, hi) of the chain as columns; [lo, hi) are seen by one of the tokens at least. */
struct query_block {
    const struct chain *chain;
    int64_t start, n_tokens, rows; /* start: place among all queries */
    int64_t own;                   /* token t of the segment is key t - own of the chain */
    int64_t lo, hi, origin, ld;
};

/* Keys that follow each other both in the packed sequence and in the chain. */
struct key_piece {
    int64_t token, column, n; /* first place in the sequence, first column of the scores, how many */
};

/* Counts blocks and takes the shared scratch with extra_floats for the caller. */
void cpu__attention_open(struct attention *at, struct device *dev, const struct attention_shape *shape,
                         size_t extra_floats);
/* Row stride and floats of keys (or values) laid out as [K, D, T], and the turning itself. */
int64_t cpu__attention_turned_ld(const struct attention_shape *shape);
size_t cpu__attention_turned_floats(const struct attention_shape *shape);
void cpu__attention_turn(const struct attention *at, float *turned, const float *x);
void cpu__attention_block(const struct attention *at, int64_t block, struct query_block *b);
/* Cuts the block's keys down to those in [lo, hi) of the chain; false when none are left. */
bool cpu__attention_narrow(struct query_block *b, int64_t lo, int64_t hi);
/* The columns that query i of the block sees; empty is lo == hi. */
void cpu__attention_seen(const struct attention *at, const struct query_block *b, int64_t i, int64_t *lo,
                         int64_t *hi);
/* Next piece of [lo, hi); range and index begin at 0. */
bool cpu__attention_piece(const struct query_block *b, int64_t *range, int64_t *index,
                          struct key_piece *piece);
/* Rows [rows, D] of the block from x [queries, Q, D]. */
void cpu__attention_gather(const struct attention *at, const struct query_block *b, int64_t kv, float *to,
                           const float *x);
/* scores[rows, ld] = rows [rows, D] times the turned keys (or values). */
void cpu__attention_scores(const struct attention *at, const struct query_block *b, int64_t kv, float *scores,
                           const float *rows, const float *turned);
/* sums[rows, D] = weights [rows, ld] times values (or keys) [T, K, D]. */
void cpu__attention_weigh(const struct attention *at, const struct query_block *b, int64_t kv, float *sums,
                          const float *weights, const float *values);

#endif
