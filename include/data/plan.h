/* Which rows make which step: a pure function of (options, step). No file, no clock, no communicator. */
#ifndef SMGPT_DATA_PLAN_H
#define SMGPT_DATA_PLAN_H

#include "util/err.h"
#include <stdbool.h>
#include <stdint.h>

struct plan {
    int64_t n_rows;
    int32_t batch, grad_accum; /* rows of a micro-batch, micro-batches of a step */
    uint64_t seed;
    bool shuffle;
    double epochs;           /* used when max_steps is 0 */
    int64_t max_steps;       /* filled by plan_init when given as 0 */
    int64_t steps_per_epoch; /* Trainer's: an epoch's ragged end makes a step of its own */
    int64_t *order;          /* cached permutation of epoch `order_epoch` */
    int64_t order_epoch;
};
/* ST_INPUT when there are no rows, ST_USAGE for sizes below 1. */
enum status plan_init(struct plan *p, int64_t n_rows, int32_t batch, int32_t grad_accum, uint64_t seed,
                      bool shuffle, double epochs, int64_t max_steps, struct err *err);
/* Frees the cached order. */
void plan_release(struct plan *p);
/* Rows of step 0 .. max_steps-1 into rows [batch * grad_accum]; *n of them (fewer at an epoch's end). The
 * order is HF Trainer's: epoch e uses torch.randperm(n_rows) seeded seed + e. */
enum status plan_step(struct plan *p, int64_t step, int64_t *rows, int32_t *n, struct err *err);
/* Epochs done after `steps` steps, as Trainer logs it. */
double plan_epoch(const struct plan *p, int64_t steps);

#endif
