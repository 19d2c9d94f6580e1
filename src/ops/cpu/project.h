/* The two ways to compute the slots project and project_back. */
#ifndef SMGPT_OPS_CPU_PROJECT_H
#define SMGPT_OPS_CPU_PROJECT_H

#include "cpu_internal.h"

/* By packed bfloat16 panels; dev->tiles is there. */
void cpu__project_tiles(struct device *dev, const struct projection *parts, int n, const float *x,
                        int64_t n_tokens);
void cpu__project_back_tiles(struct device *dev, const struct projection *parts, int n, float *dx,
                             const float *x, int64_t n_tokens);

/* The slots mlp and mlp_back the same way. */
size_t cpu__mlp_tiles_kept_bytes(const struct device *dev, int64_t width, int64_t n_tokens);
void cpu__mlp_tiles(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens);
void cpu__mlp_back_tiles(struct device *dev, const struct mlp *mlp, float *dx, const float *x,
                         int64_t n_tokens);

#endif
