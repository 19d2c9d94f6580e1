/* Numbers about generated motion that need nothing but arrays of codebook ids. */
#ifndef SMGPT_EVAL_METRICS_H
#define SMGPT_EVAL_METRICS_H

#include "util/err.h"
#include <stdint.h>

struct motion_span { /* borrowed ids */
    const int32_t *ids;
    int32_t n;
};

/* Levenshtein distance: the fewest insertions, deletions and substitutions, each of cost 1, that turn a into
 * b (V. Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", 1966). ST_ENV
 * when memory for one row of the table's shorter side is short. */
enum status edit_distance(struct motion_span a, struct motion_span b, int32_t *distance, struct err *err);

/* The smallest distance to a reference; *nearest (may be NULL) is the first reference that has it. Without
 * references: the length of a, nearest -1. */
enum status edit_distance_min(struct motion_span a, const struct motion_span *references,
                              int32_t n_references, int32_t *distance, int32_t *nearest, struct err *err);

#endif
