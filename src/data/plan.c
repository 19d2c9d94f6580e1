/* The order of rows and steps of Hugging Face's Trainer. */
#include "data/plan.h"
#include "util/rng.h"
#include <math.h>
#include <stdlib.h>

/* torch.randperm draws 32 bits a position only below this length. */
#define RANDPERM_MAX (UINT32_MAX / 20)

static int64_t micro_batches(const struct plan *p)
{
    return (p->n_rows + p->batch - 1) / p->batch;
}

static enum status plan_steps(struct plan *p, struct err *err)
{
    int64_t n_micro = micro_batches(p);
    p->steps_per_epoch = (n_micro + p->grad_accum - 1) / p->grad_accum;
    if (p->max_steps > 0)
        return ST_OK;
    if (!(p->epochs > 0) || !isfinite(p->epochs))
        return err_set(err, ST_USAGE, "epochs is %g, must be above 0", p->epochs);
    double steps = ceil(p->epochs * (double)p->steps_per_epoch);
    if (steps > 1e15)
        return err_set(err, ST_USAGE, "%g epochs of %lld steps are too many", p->epochs,
                       (long long)p->steps_per_epoch);
    p->max_steps = (int64_t)steps;
    return ST_OK;
}

enum status plan_init(struct plan *p, int64_t n_rows, int32_t batch, int32_t grad_accum, uint64_t seed,
                      bool shuffle, double epochs, int64_t max_steps, struct err *err)
{
    *p = (struct plan){.n_rows = n_rows,
                       .batch = batch,
                       .grad_accum = grad_accum,
                       .seed = seed,
                       .shuffle = shuffle,
                       .epochs = epochs,
                       .max_steps = max_steps,
                       .order_epoch = -1};
    if (n_rows < 1)
        return err_set(err, ST_INPUT, "no rows to train on");
    if (n_rows >= RANDPERM_MAX)
        return err_set(err, ST_INPUT, "%lld rows, must be below %u", (long long)n_rows, RANDPERM_MAX);
    if (batch < 1)
        return err_set(err, ST_USAGE, "batch_train is %d, must be at least 1", batch);
    if (grad_accum < 1)
        return err_set(err, ST_USAGE, "grad_accum is %d, must be at least 1", grad_accum);
    if ((int64_t)batch * grad_accum > INT32_MAX)
        return err_set(err, ST_USAGE, "batch_train %d times grad_accum %d is more than %d rows", batch,
                       grad_accum, INT32_MAX);
    if (max_steps < 0)
        return err_set(err, ST_USAGE, "max_steps is %lld, must not be negative", (long long)max_steps);
    return plan_steps(p, err);
}

void plan_release(struct plan *p)
{
    free(p->order);
    p->order = NULL;
    p->order_epoch = -1;
}

/* torch.randperm(n_rows) with a CPU generator seeded seed + epoch. */
static enum status plan_order(struct plan *p, int64_t epoch, struct err *err)
{
    if (p->order && p->order_epoch == epoch)
        return ST_OK;
    if (!p->order)
        p->order = malloc((size_t)p->n_rows * sizeof *p->order);
    if (!p->order)
        return err_memory(err, "the order of rows", (size_t)p->n_rows * sizeof *p->order);
    struct mt19937 mt;
    mt19937_init(&mt, (uint32_t)(p->seed + (uint64_t)epoch));
    for (int64_t i = 0; i < p->n_rows; i++)
        p->order[i] = i;
    for (int64_t i = 0; i + 1 < p->n_rows; i++) {
        int64_t j = i + mt19937_u32(&mt) % (uint32_t)(p->n_rows - i), kept = p->order[i];
        p->order[i] = p->order[j];
        p->order[j] = kept;
    }
    p->order_epoch = epoch;
    return ST_OK;
}

enum status plan_step(struct plan *p, int64_t step, int64_t *rows, int32_t *n, struct err *err)
{
    *n = 0;
    if (step < 0 || step >= p->max_steps)
        return err_set(err, ST_DEFECT, "step %lld of %lld asked for", (long long)step,
                       (long long)p->max_steps);
    int64_t size = (int64_t)p->batch * p->grad_accum;
    int64_t first = step % p->steps_per_epoch * size;
    int64_t end = first + size < p->n_rows ? first + size : p->n_rows;
    if (p->shuffle)
        TRY(plan_order(p, step / p->steps_per_epoch, err));
    for (int64_t i = first; i < end; i++)
        rows[i - first] = p->shuffle ? p->order[i] : i;
    *n = (int32_t)(end - first);
    return ST_OK;
}

double plan_epoch(const struct plan *p, int64_t steps)
{
    int64_t full = steps / p->steps_per_epoch, rest = steps % p->steps_per_epoch;
    return (double)full + (double)(rest * p->grad_accum) / (double)micro_batches(p);
}
