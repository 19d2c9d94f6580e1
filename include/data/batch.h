/* A step's rows as virtual shards of packed sequences, and their way from rank 0 to the ranks. */
#ifndef SMGPT_DATA_BATCH_H
#define SMGPT_DATA_BATCH_H

#include "data/tokenizer.h"
#include "util/buf.h"
#include "util/packed.h"

struct batch_row {
    const int32_t *ids, *labels; /* borrowed while the shard is made */
    int32_t n_tokens;
};

struct shard { /* the packed sequences of one virtual shard */
    struct packed *sequences;
    int32_t n_sequences;
};
void shard_release(struct shard *s);

/* Packs rows in order into sequences of at most max_tokens (a single longer row gets its own), counted as
 * they are laid. A row's tokens behind the last one that has a label to predict are left out: no loss depends
 * on them. (A row without labels is laid whole.) With share_prefix, runs of at least 4 tokens that rows of a
 * sequence have in common at their beginning stand once, and may lie in one another (system prompt, text, the
 * first tokens of the answer); each row keeps its last token for itself. Rows keep their order; a shared run
 * stands before the first row that needs it. segment.row counts from row_base. ST_INPUT for a row without
 * tokens. */
enum status shard_make(struct shard *out, const struct batch_row *rows, int32_t n_rows, int32_t row_base,
                       int32_t max_tokens, bool share_prefix, struct err *err);

/* Puts a step's rows into the order of their tokens, so that rows that begin alike come into the same shard.
 * Their sum knows no order but that of its rounding. */
void step_sort(struct batch_row *rows, int32_t n_rows);
/* Deals a step's rows in their order to its virtual shards: those of shard s begin at first[s] and end at
 * first[s + 1], first [n_shards + 1]. Each shard gets about as many tokens to compute as the others, and a
 * row at least where there are enough of them. */
void step_deal(const struct batch_row *rows, int32_t n_rows, int32_t n_shards, bool share_prefix,
               int32_t *first);
/* How many tokens all of a step's rows begin with (none of them, nor any before, with a label, and each row
 * goes on behind them): the stem of all its sequences. 0 where it is too short to be worth its own way back,
 * and where a shard would be without rows. */
int32_t step_stem(const struct batch_row *rows, int32_t n_rows, int32_t n_shards);

/* Facts of a step that every rank needs, and its shards: rank 0 writes one message a rank. */
struct step_head {
    int64_t step;
    int64_t n_labels;         /* of the whole global batch: the divisor of the loss */
    int64_t n_rows, n_tokens; /* of the whole batch, shared prefixes counted in each row */
    int32_t n_stem;           /* see step_stem; 0: none, or not to be used */
};
enum status step_write(struct buf *out, const struct step_head *head, const struct shard *shards,
                       int32_t n_shards, struct err *err);
/* *shards is owned by the caller (shard_release each, free). Sizes, segments, positions and counts are
 * checked, and that all sequences begin with the same stem; ST_DEFECT for a message that is not whole. */
enum status step_read(const struct buf *in, struct step_head *head, struct shard **shards, int32_t *n_shards,
                      struct err *err);

#endif
