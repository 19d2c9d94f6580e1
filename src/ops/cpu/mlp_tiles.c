/* The gated MLP in tiles. act(gate) * up and the gradients of gate and up never stand in memory: rows of them
 * are made chunk by chunk and packed from the first-level cache. */
#include "project.h"
#include "project_tiles.h"

void cpu__mlp_tiles(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens)
{
    const struct projection both[] = {mlp->gate, mlp->up};
    struct project_call c[] = {{.parts = both, .n = 2, .x = x}, {.parts = &mlp->down, .n = 1, .x_of = mlp}};
    cpu__calls_open(c, 2, dev, n_tokens, cpu__lay_forward);
#pragma omp parallel num_threads(dev->n_threads) if (c[0].large)
    {
        dev->tiles->begin();
        cpu__forward_adapters(&c[0]);
        cpu__forward_adapters(&c[1]);
#pragma omp barrier
        cpu__forward_products(&c[0], false);
        cpu__forward_products(&c[1], true);
        dev->tiles->end();
    }
}

void cpu__mlp_back_tiles(struct device *dev, const struct mlp *mlp, float *dx, const float *x,
                         int64_t n_tokens)
{
    const struct projection both[] = {mlp->gate, mlp->up};
    float *dact =
        ops__scratch(dev, dev->n_threads + 2, (size_t)(n_tokens * mlp->down.w->n_in) * sizeof *dact);
    struct project_call c[] = {{.parts = &mlp->down, .n = 1, .x_of = mlp, .dx = dact},
                               {.parts = both, .n = 2, .x = x, .dx = dx, .down = &c[0]}};
    cpu__calls_open(c, 2, dev, n_tokens, cpu__lay_back);
#pragma omp parallel num_threads(dev->n_threads) if (c[1].large)
    {
        dev->tiles->begin();
        cpu__back_adapters(&c[0]);
        cpu__back_adapters(&c[1]);
#pragma omp barrier
        cpu__back_tokens(&c[0]);
        cpu__back_input(&c[0]);
#pragma omp barrier /* dact is there */
        cpu__back_tokens(&c[1]);
        cpu__back_input(&c[1]);
        cpu__back_parameters(&c[0]);
        cpu__back_parameters(&c[1]);
        dev->tiles->end();
    }
}
