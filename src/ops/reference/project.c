/* Projections of one input with LoRA, as the formulas of struct projection read. In the bfloat16 mode every
 * operand of a product is rounded, LoRA's and what it keeps between its two products included. */
#include "reference_internal.h"
#include <stdlib.h>
#include <string.h>

/* One side of a product: element (i, l), l being summed over, at data[i * outer + l * inner]. */
struct operand {
    const float *data;
    int64_t outer, inner; /* strides: along the result, along the sum */
    float scale;          /* before rounding */
};

static double value(const struct device *dev, const struct operand *o, int64_t i, int64_t l)
{
    float x = o->scale * o->data[i * o->outer + l * o->inner];
    return dev->compute == COMPUTE_BF16 ? (double)bf16_to_f32(bf16_from_f32(x)) : (double)x;
}

/* c [m, n] += a b over k terms. */
static void add_product(const struct device *dev, float *c, int64_t ldc, struct operand a, struct operand b,
                        int64_t m, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += value(dev, &a, i, l) * value(dev, &b, j, l);
            c[i * ldc + j] = (float)((double)c[i * ldc + j] + sum);
        }
}

void reference__project(struct device *dev, const struct projection *parts, int n, const float *x,
                        int64_t n_tokens)
{
    for (int i = 0; i < n; i++) {
        const struct projection *p = &parts[i];
        int64_t n_in = p->w->n_in, n_out = p->w->n_out, r = p->r;
        if (p->base != NULL && p->base != p->y)
            memcpy(p->y, p->base, (size_t)(n_tokens * n_out) * sizeof *p->y);
        reference__linear(dev, p->y, n_out, x, n_in, p->w, n_tokens, p->base != NULL);
        if (p->a == NULL)
            continue;
        struct operand left = {x, n_in, 1, 1}, a = {p->a, n_in, 1, 1}, u = {p->u, r, 1, p->scaling},
                       b = {p->b, r, 1, 1};
        memset(p->u, 0, (size_t)(n_tokens * r) * sizeof *p->u);
        add_product(dev, p->u, r, left, a, n_tokens, r, n_in);
        add_product(dev, p->y, n_out, u, b, n_tokens, n_out, r);
    }
}

static void lora_back(struct device *dev, const struct projection *p, float *dx, const float *x,
                      int64_t n_tokens)
{
    int64_t n_in = p->w->n_in, n_out = p->w->n_out, r = p->r;
    float *du = ops__scratch(dev, dev->n_threads + 1, (size_t)(n_tokens * r) * sizeof *du);
    struct operand dy = {p->dy, n_out, 1, 1}, b = {p->b, 1, r, 1}, scaled = {du, r, 1, p->scaling};
    memset(du, 0, (size_t)(n_tokens * r) * sizeof *du);
    add_product(dev, du, r, dy, b, n_tokens, r, n_out);
    struct operand dy_turned = {p->dy, 1, n_out, 1}, u = {p->u, 1, r, p->scaling};
    add_product(dev, p->db, r, dy_turned, u, n_out, r, n_tokens);
    struct operand du_turned = {du, 1, r, p->scaling}, right = {x, 1, n_in, 1};
    add_product(dev, p->da, n_in, du_turned, right, r, n_in, n_tokens);
    struct operand a = {p->a, 1, n_in, 1};
    if (dx != NULL)
        add_product(dev, dx, n_in, scaled, a, n_tokens, n_in, r);
}

void reference__project_back(struct device *dev, const struct projection *parts, int n, float *dx,
                             const float *x, int64_t n_tokens)
{
    for (int i = 0; i < n; i++) {
        const struct projection *p = &parts[i];
        if (dx != NULL)
            reference__linear_back(dev, dx, p->w->n_in, p->dy, p->w->n_out, p->w, n_tokens, i > 0);
        if (p->a != NULL)
            lora_back(dev, p, dx, x, n_tokens);
    }
}
