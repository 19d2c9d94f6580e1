/* What the cpu table knows of a frozen weight: struct weight's `prepared`. */
#ifndef SMGPT_OPS_CPU_WEIGHTS_H
#define SMGPT_OPS_CPU_WEIGHTS_H

#include "panels.h"
#include "util/dtype.h"

struct packed_weight {
    enum dtype dtype;           /* DT_F32 or DT_BF16 */
    void *panels;               /* [n_in][panel] of W^T; NULL where tiles multiply */
    const void *rows;           /* [n_out, n_in] of dtype: the source, or own_rows */
    void *own_rows;             /* a copy in the packed memory where the source is of another type, or NULL */
    struct panels_matrix tiles; /* W^T, where tiles multiply */
};

#endif
