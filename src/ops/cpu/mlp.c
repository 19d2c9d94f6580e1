/* The gated MLP: operation by operation where bfloat16 tiles do not multiply. */
#include "project.h"

size_t cpu__mlp_kept_bytes(const struct device *dev, int64_t width, int64_t n_tokens)
{
    if (dev->tiles != NULL)
        return cpu__mlp_tiles_kept_bytes(dev, width, n_tokens);
    return ops__mlp_kept_bytes(dev, width, n_tokens);
}

void cpu__mlp(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens)
{
    if (n_tokens <= 0)
        return;
    if (dev->tiles != NULL) {
        cpu__mlp_tiles(dev, mlp, x, n_tokens);
        return;
    }
    struct projection both[2];
    int64_t n = n_tokens * mlp->down.w->n_in;
    ops__mlp_planes(mlp, both);
    float *act = ops__scratch(dev, dev->n_threads + 2, (size_t)n * sizeof *act);
    cpu__project(dev, both, 2, x, n_tokens);
    cpu__act_mul(dev, mlp->act, act, both[0].y, both[1].y, n);
    cpu__project(dev, &mlp->down, 1, act, n_tokens);
}

void cpu__mlp_back(struct device *dev, const struct mlp *mlp, float *dx, const float *x, int64_t n_tokens)
{
    if (n_tokens <= 0)
        return;
    if (dev->tiles != NULL) {
        cpu__mlp_back_tiles(dev, mlp, dx, x, n_tokens);
        return;
    }
    struct projection both[2];
    int64_t n = n_tokens * mlp->down.w->n_in;
    ops__mlp_planes(mlp, both);
    /* act is used up when dact is there, and dgate takes its place; dup takes dact's. */
    float *act = ops__scratch(dev, dev->n_threads + 2, 2 * (size_t)n * sizeof *act), *dact = act + n;
    cpu__act_mul(dev, mlp->act, act, both[0].y, both[1].y, n);
    cpu__project_back(dev, &mlp->down, 1, dact, act, n_tokens);
    cpu__act_mul_back(dev, mlp->act, act, dact, dact, both[0].y, both[1].y, n);
    both[0].dy = act;
    both[1].dy = dact;
    cpu__project_back(dev, both, 2, dx, x, n_tokens);
}
