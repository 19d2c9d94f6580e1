/* Projections of one input with LoRA, product by product: for float32, and for bfloat16 where the processor
 * does not multiply it. */
#include "project.h"

void cpu__project(struct device *dev, const struct projection *parts, int n, const float *x, int64_t n_tokens)
{
    if (n_tokens <= 0)
        return;
    if (dev->tiles != NULL) {
        cpu__project_tiles(dev, parts, n, x, n_tokens);
        return;
    }
    for (int i = 0; i < n; i++) {
        const struct projection *p = &parts[i];
        int64_t n_in = p->w->n_in, n_out = p->w->n_out;
        if (p->base != NULL && p->base != p->y)
            ops__copy(dev, p->y, p->base, (size_t)(n_tokens * n_out) * sizeof *p->y);
        cpu__linear(dev, p->y, n_out, x, n_in, p->w, n_tokens, p->base != NULL);
        if (p->a == NULL)
            continue;
        cpu__gemm(dev, false, true, n_tokens, p->r, n_in, 1, x, n_in, p->a, n_in, 0, p->u, p->r);
        cpu__gemm(dev, false, true, n_tokens, n_out, p->r, p->scaling, p->u, p->r, p->b, p->r, 1, p->y,
                  n_out);
    }
}

/* Gradients of LoRA, and what flows back through it. */
static void lora_back(struct device *dev, const struct projection *p, float *dx, const float *x,
                      int64_t n_tokens, float *du)
{
    int64_t n_in = p->w->n_in, n_out = p->w->n_out, r = p->r;
    cpu__gemm(dev, true, false, n_out, r, n_tokens, p->scaling, p->dy, n_out, p->u, r, 1, p->db, r);
    cpu__gemm(dev, false, false, n_tokens, r, n_out, p->scaling, p->dy, n_out, p->b, r, 0, du, r);
    cpu__gemm(dev, true, false, r, n_in, n_tokens, 1, du, r, x, n_in, 1, p->da, n_in);
    if (dx != NULL)
        cpu__gemm(dev, false, false, n_tokens, n_in, r, 1, du, r, p->a, n_in, 1, dx, n_in);
}

void cpu__project_back(struct device *dev, const struct projection *parts, int n, float *dx, const float *x,
                       int64_t n_tokens)
{
    if (n_tokens <= 0)
        return;
    if (dev->tiles != NULL) {
        cpu__project_back_tiles(dev, parts, n, dx, x, n_tokens);
        return;
    }
    for (int i = 0; i < n; i++) {
        const struct projection *p = &parts[i];
        if (dx != NULL)
            cpu__linear_back(dev, dx, p->w->n_in, p->dy, p->w->n_out, p->w, n_tokens, i > 0);
        if (p->a != NULL)
            lora_back(dev, p, dx, x, n_tokens,
                      ops__scratch(dev, dev->n_threads + 1, (size_t)(n_tokens * p->r) * sizeof(float)));
    }
}
