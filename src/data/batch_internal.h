/* Facts of a row that packing and dealing share. */
#ifndef SMGPT_DATA_BATCH_INTERNAL_H
#define SMGPT_DATA_BATCH_INTERNAL_H

#include "data/batch.h"

/* Sharing fewer tokens than this costs more in bookkeeping than it saves. */
#define SHARE_MIN 4

/* The first place from t on where a and b differ, or end. */
static inline int32_t ids_differ(const int32_t *a, const int32_t *b, int32_t t, int32_t end)
{
    while (t < end && a[t] == b[t])
        t++;
    return t;
}

/* What token t of a row is to predict, or -1. */
static inline int32_t row_label(const struct batch_row *r, int32_t t)
{
    return t + 1 < r->n_tokens && r->labels[t + 1] >= 0 ? r->labels[t + 1] : -1;
}

/* How many of a row's tokens are laid: up to the last one that predicts something. */
static inline int32_t row_needed(const struct batch_row *r)
{
    int32_t n = r->n_tokens;
    while (n > 0 && row_label(r, n - 1) < 0)
        n--;
    return n > 0 ? n : r->n_tokens;
}

/* How many of them come before the first one that predicts something, and before the last one. */
static inline int32_t row_prompt(const struct batch_row *r)
{
    int32_t t = 0;
    while (t < r->n_tokens - 1 && row_label(r, t) < 0)
        t++;
    return t;
}

#endif
