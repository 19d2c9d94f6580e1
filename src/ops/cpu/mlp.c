/* The gated MLP: operation by operation where bfloat16 tiles do not multiply. */
#include "project.h"

void cpu__mlp(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens)
{
    if (n_tokens <= 0)
        return;
    if (dev->tiles != NULL) {
        cpu__mlp_tiles(dev, mlp, x, n_tokens);
        return;
    }
    const struct projection both[] = {mlp->gate, mlp->up};
    int64_t n = n_tokens * mlp->down.w->n_in;
    float *act = ops__scratch(dev, dev->n_threads + 2, (size_t)n * sizeof *act);
    cpu__project(dev, both, 2, x, n_tokens);
    cpu__act_mul(dev, mlp->act, act, mlp->gate.y, mlp->up.y, n);
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
    struct projection both[] = {mlp->gate, mlp->up};
    int64_t n = n_tokens * mlp->down.w->n_in;
    /* act is used up when dact is there, and dgate takes its place; dup takes dact's. */
    float *act = ops__scratch(dev, dev->n_threads + 2, 2 * (size_t)n * sizeof *act), *dact = act + n;
    cpu__act_mul(dev, mlp->act, act, mlp->gate.y, mlp->up.y, n);
    cpu__project_back(dev, &mlp->down, 1, dact, act, n_tokens);
    cpu__act_mul_back(dev, mlp->act, act, dact, dact, mlp->gate.y, mlp->up.y, n);
    both[0].dy = act;
    both[1].dy = dact;
    cpu__project_back(dev, both, 2, dx, x, n_tokens);
}
