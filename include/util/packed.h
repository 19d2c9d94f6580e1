/* A packed sequence: rows of tokens laid one behind the other, never padded. What may see what is said by
 * segments, so that a prefix common to several rows can stand once (its rows' segments name it as parent).
 *
 * Token t of segment s at position p sees: all tokens of the segments on s's chain of parents, and the
 * tokens of s up to and including itself; with a sliding window W only those at positions > p - W.
 */
#ifndef SMGPT_UTIL_PACKED_H
#define SMGPT_UTIL_PACKED_H

#include <stdint.h>

struct segment {
    int32_t start, n_tokens; /* range in the packed sequence */
    int32_t parent;          /* index of an earlier segment, or -1 */
    int32_t row;             /* source row (index in the batch) of a leaf; -1 for a shared prefix */
};

struct packed {
    int32_t n_tokens; /* T */
    int32_t n_segments;
    int32_t n_labels;         /* N: targets that are not -1 */
    int32_t *ids;             /* [T] */
    int32_t *positions;       /* [T] from 0 at the first token of the row, parents counted */
    int32_t *targets;         /* [T] the label of the token that follows in its row, or -1 */
    struct segment *segments; /* in order of start */
};

#endif
