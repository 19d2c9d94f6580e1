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
    int32_t n_labels;   /* N */
    int32_t *ids;       /* [T] */
    int32_t *positions; /* [T] from 0 at the first token of the row, parents counted */
    /* What is to follow token t: labels[first_label[t]] up to labels[first_label[t + 1]], rising; one for
     * each row through t that has a label there. */
    int32_t *first_label;     /* [T + 1] from 0 to N */
    int32_t *labels;          /* [N] */
    struct segment *segments; /* in order of start */
};

static inline int32_t packed_n_labels(const struct packed *p, int64_t t)
{
    return p->first_label[t + 1] - p->first_label[t];
}

#endif
