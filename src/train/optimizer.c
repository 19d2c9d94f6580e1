#include "train_internal.h"
#include <math.h>
#include <string.h>

enum status optimizer__open(struct optimizer *opt, const struct ops *ops, struct device *dev,
                            const struct params *params, struct err *err)
{
    size_t n_bytes = (size_t)params->n_values * sizeof(float);
    *opt = (struct optimizer){.ops = ops, .dev = dev, .params = params};
    opt->m = ops->alloc(dev, n_bytes);
    opt->v = ops->alloc(dev, n_bytes);
    return opt->m != NULL && opt->v != NULL ? ST_OK : err_memory(err, "AdamW's moments", 2 * n_bytes);
}

void optimizer__close(struct optimizer *opt)
{
    if (opt->m != NULL)
        opt->ops->release(opt->dev, opt->m);
    if (opt->v != NULL)
        opt->ops->release(opt->dev, opt->v);
    memset(opt, 0, sizeof *opt);
}

float optimizer__norm(const struct optimizer *opt, const float *grad)
{
    double sum = 0;
    for (int32_t i = 0; i < opt->params->n_items; i++) {
        const struct param *p = &opt->params->items[i];
        float norm = (float)sqrt(opt->ops->sum_squares(opt->dev, grad + p->offset, p->rows * p->cols));
        sum += (double)norm * (double)norm;
    }
    return (float)sqrt(sum);
}

float optimizer__clip(float norm, double max_norm)
{
    if (max_norm <= 0)
        return 1;
    float coefficient = (float)max_norm / (norm + 1e-6f);
    return coefficient < 1 ? coefficient : 1;
}

void optimizer__update(struct optimizer *opt, const struct train_options *o, float *values, const float *grad,
                       double lr, float clip, int64_t t)
{
    const struct adamw a = {.lr = lr,
                            .beta1 = o->adam_beta1,
                            .beta2 = o->adam_beta2,
                            .eps = o->adam_epsilon,
                            .weight_decay = o->weight_decay,
                            .bias1 = 1 - pow(o->adam_beta1, (double)t),
                            .bias2_sqrt = sqrt(1 - pow(o->adam_beta2, (double)t)),
                            .grad_scale = clip};
    opt->ops->adamw(opt->dev, values, grad, opt->m, opt->v, opt->params->n_values, &a);
}
