/* The gated MLP, one operation after the other, with its intermediate values in memory of its own. */
#include "reference_internal.h"
#include "util/fatal.h"
#include <stdlib.h>

static float *rows(int64_t n_tokens, int64_t n, int64_t copies)
{
    size_t n_bytes = (size_t)(n_tokens * n * copies) * sizeof(float);
    float *p = malloc(n_bytes);
    if (p == NULL) {
        struct err err = ERR_INIT;
        err_memory(&err, "values of an MLP", n_bytes);
        fatal(&err);
    }
    return p;
}

void reference__mlp(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens)
{
    if (n_tokens <= 0)
        return;
    struct projection both[2];
    int64_t n = mlp->down.w->n_in;
    ops__mlp_planes(mlp, both);
    float *act = rows(n_tokens, n, 1);
    reference__project(dev, both, 2, x, n_tokens);
    reference__act_mul(dev, mlp->act, act, both[0].y, both[1].y, n_tokens * n);
    reference__project(dev, &mlp->down, 1, act, n_tokens);
    free(act);
}

void reference__mlp_back(struct device *dev, const struct mlp *mlp, float *dx, const float *x,
                         int64_t n_tokens)
{
    if (n_tokens <= 0)
        return;
    struct projection both[2];
    int64_t n = mlp->down.w->n_in, size = n_tokens * n;
    ops__mlp_planes(mlp, both);
    float *act = rows(n_tokens, n, 4), *dact = act + size, *dgate = dact + size, *dup = dgate + size;
    reference__act_mul(dev, mlp->act, act, both[0].y, both[1].y, size);
    reference__project_back(dev, &mlp->down, 1, dact, act, n_tokens);
    reference__act_mul_back(dev, mlp->act, dgate, dup, dact, both[0].y, both[1].y, size);
    both[0].dy = dgate;
    both[1].dy = dup;
    reference__project_back(dev, both, 2, dx, x, n_tokens);
    free(act);
}
