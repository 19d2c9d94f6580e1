/* optimizer.pt as torch 2.13's AdamW under Trainer writes it: two groups, the second without parameters. */
#include "checkpoint/state.h"
#include "checkpoint/torch_file.h"

static void put_number(struct torch_writer *w, const char *key, double value)
{
    torch_put_string(w, key);
    torch_put_float(w, value);
}

static void put_flag(struct torch_writer *w, const char *key, bool value)
{
    torch_put_string(w, key);
    torch_put_bool(w, value);
}

static void put_none(struct torch_writer *w, const char *key)
{
    torch_put_string(w, key);
    torch_put_none(w);
}

/* Keys in the order of torch's defaults. */
static void put_group(struct torch_writer *w, const struct optimizer_state *s, double weight_decay,
                      int n_params)
{
    torch_put_dict(w);
    put_number(w, "weight_decay", weight_decay);
    put_number(w, "lr", s->lr);
    torch_put_string(w, "betas");
    torch_put_tuple(w);
    torch_put_float(w, s->beta1);
    torch_put_float(w, s->beta2);
    torch_put_end(w);
    put_number(w, "eps", s->eps);
    put_flag(w, "amsgrad", false);
    put_flag(w, "maximize", false);
    put_none(w, "foreach");
    put_flag(w, "capturable", false);
    put_flag(w, "differentiable", false);
    put_none(w, "fused");
    put_flag(w, "decoupled_weight_decay", true);
    put_number(w, "initial_lr", s->initial_lr);
    torch_put_string(w, "params");
    torch_put_list(w);
    for (int i = 0; i < n_params; i++)
        torch_put_int(w, i);
    torch_put_end(w);
    torch_put_end(w);
}

static void put_moments(struct torch_writer *w, const struct optimizer_state *s, const float *step)
{
    int64_t offset = 0;
    /* Before the first step torch has no entries. */
    int n = s->step > 0 ? s->params->n_items : 0;
    torch_put_dict(w);
    for (int i = 0; i < n; i++) {
        const struct tensor *p = &s->params->items[i];
        torch_put_int(w, i);
        torch_put_dict(w);
        torch_put_string(w, "step");
        if (s->for_bitsandbytes) /* which counts in Python */
            torch_put_int(w, s->step);
        else
            torch_put_tensor(w, DT_F32, 0, NULL, step);
        torch_put_string(w, s->for_bitsandbytes ? "state1" : "exp_avg");
        torch_put_tensor(w, DT_F32, p->n_dims, p->dims, s->exp_avg + offset);
        torch_put_string(w, s->for_bitsandbytes ? "state2" : "exp_avg_sq");
        torch_put_tensor(w, DT_F32, p->n_dims, p->dims, s->exp_avg_sq + offset);
        torch_put_end(w);
        offset += tensor_count(p);
    }
    torch_put_end(w);
}

enum status optimizer_write(const char *path, const struct optimizer_state *s, struct err *err)
{
    if (s->step < 0 || s->step > 1 << 24) /* beyond that float32 does not count */
        return err_set(err, ST_DEFECT, "optimizer step %lld cannot be written", (long long)s->step);
    struct torch_writer *w = NULL;
    TRY(torch_writer_open(&w, path, err));
    float step = (float)s->step;
    torch_put_dict(w);
    torch_put_string(w, "state");
    put_moments(w, s, &step);
    torch_put_string(w, "param_groups");
    torch_put_list(w);
    put_group(w, s, s->weight_decay, s->params->n_items);
    put_group(w, s, 0.0, 0);
    torch_put_end(w);
    torch_put_end(w);
    return torch_writer_commit(w, err);
}
