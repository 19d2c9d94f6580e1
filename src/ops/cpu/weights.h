/* What the cpu table knows of a frozen weight: struct weight's `prepared`. */
#ifndef SMGPT_OPS_CPU_WEIGHTS_H
#define SMGPT_OPS_CPU_WEIGHTS_H

#include "panels.h"
#include "util/dtype.h"

struct packed_weight {
    enum dtype dtype; /* DT_F32 or DT_BF16 */
    void *panels;     /* [n_in][width] of W^T; NULL where tiles multiply */
    int64_t width;
    struct panels_matrix tiles; /* W^T, where tiles multiply */
};

#endif
