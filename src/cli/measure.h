/* Loss of single rows, without training. */
#ifndef SMGPT_CLI_MEASURE_H
#define SMGPT_CLI_MEASURE_H

#include "data/pack.h"
#include "model/model.h"

/* Sum of -log p over the labelled positions of one row (labels unshifted), and how many there are. */
enum status measure_row(struct model *m, const int32_t *ids, const int32_t *labels, int32_t n_tokens,
                        double *loss_sum, int64_t *n_labels, struct err *err);

#endif
