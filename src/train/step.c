/* One optimizer step of all ranks.
 *
 * Rank 0 hands out the virtual shards; each rank runs its own, each into a gradient that starts from zero;
 * the tree sum makes the total of all. What else all must know of each other (whether somebody failed, or was
 * asked to stop) travels with the loss sums, so that it costs no message of its own. */
#include "train_internal.h"
#include "util/clock.h"
#include "util/log.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What each shard brings into the sum of numbers. */
enum { SHARD_LOSS, SHARD_FAILED, SHARD_STOP, N_SHARD_NUMBERS };

bool train__on_host(const struct ops *ops)
{
    return strcmp(ops->name, "cpu") == 0 || strcmp(ops->name, "reference") == 0;
}

bool train__stop_asked(double deadline_s)
{
    return stop_requested() != 0 || (deadline_s > 0 && clock_s() >= deadline_s);
}

double trainer__lr(const struct trainer *t, int64_t step)
{
    return t->o->lr * schedule_factor(t->o->schedule, step, t->warmup_steps, t->plan.max_steps);
}

static enum status check_options(const struct train_options *o, struct err *err)
{
    if (o->virtual_shards < 1)
        return err_set(err, ST_USAGE, "virtual_shards is %d, must be at least 1", o->virtual_shards);
    if (o->max_pack_tokens < 1)
        return err_set(err, ST_USAGE, "packed sequences of %d tokens", o->max_pack_tokens);
    if (!(o->warmup_ratio >= 0 && o->warmup_ratio <= 1))
        return err_set(err, ST_USAGE, "warmup_ratio is %g, must be between 0 and 1", o->warmup_ratio);
    if (!(o->lr >= 0) || !isfinite(o->lr))
        return err_set(err, ST_USAGE, "lr is %g, must not be negative", o->lr);
    return ST_OK;
}

/* Begins a step's sums: those of the gradient, and of what flows into its stem. */
static enum status make_room(struct trainer *t, int64_t n_stem, struct err *err)
{
    const struct train_context *c = t->c;
    t->n_sums = c->params->n_values + model_stem_values(model_arch(c->model), n_stem);
    TRY(tree_sum_resize(t->sum, t->n_sums, err));
    t->total = tree_sum_place(t->sum);
    if (t->n_sums > t->n_room || t->n_room == 0) {
        const size_t n_bytes = (size_t)t->n_sums * sizeof(float);
        t->n_room = 0;
        free(t->own_total);
        t->own_total = t->total != NULL ? NULL : aligned_alloc(64, n_bytes / 64 * 64 + 64);
        if (t->grad != NULL)
            c->ops->release(c->dev, t->grad);
        t->grad = train__on_host(c->ops) ? NULL : c->ops->alloc(c->dev, n_bytes);
        if ((t->total == NULL && t->own_total == NULL) || (t->grad == NULL && !train__on_host(c->ops)))
            return err_memory(err, "the gradient", n_bytes);
        t->n_room = t->n_sums;
    }
    if (t->total == NULL)
        t->total = t->own_total;
    return ST_OK;
}

/* The sums' vectors by all threads of the device. */
static void vector_zero(const void *of, float *x, int64_t n)
{
    const struct train_context *c = of;
    c->ops->zero(c->dev, x, (size_t)n * sizeof *x);
}
static void vector_add(const void *of, float *dst, const float *src, int64_t n)
{
    const struct train_context *c = of;
    c->ops->add(c->dev, dst, src, n);
}

/* Memory of the step; on a host device the total is the gradient and leaves are written in place. */
static enum status trainer_alloc(struct trainer *t, struct err *err)
{
    const struct train_context *c = t->c;
    int first, end;
    tree_sum_range(t->o->virtual_shards, c->comm->world_size, c->comm->rank, &first, &end);
    TRY(optimizer__open(&t->optimizer, c->ops, c->dev, c->params, err));
    TRY(tree_sum_open(&t->sum, c->comm, c->params->n_values, t->o->virtual_shards, err));
    if (train__on_host(c->ops))
        tree_sum_use(t->sum, &(struct tree_vectors){vector_zero, vector_add, c});
    t->shards = calloc((size_t)(end - first) * N_SHARD_NUMBERS + 1, sizeof *t->shards);
    if (t->shards == NULL)
        return err_memory(err, "numbers of the shards", 0);
    return make_room(t, 0, err);
}

enum status trainer__open(struct trainer *t, const struct train_context *c, const struct train_options *o,
                          struct err *err)
{
    memset(t, 0, sizeof *t);
    t->c = c;
    t->o = o;
    TRY(check_options(o, err));
    TRY(plan_init(&t->plan, c->pack_info.n_rows[PACK_TRAIN], o->batch_train, o->grad_accum, o->seed,
                  o->shuffle, o->epochs, o->max_steps, err));
    t->warmup_steps = schedule_warmup(t->plan.max_steps, o->warmup_ratio);
    TRY(trainer_alloc(t, err));
    if (c->comm->rank == 0)
        TRY(messages__open(&t->messages, c, o, &t->plan, err));
    model_set_values(c->model, c->values);
    model_set_reuse(c->model, o->share_prefix);
    return ST_OK;
}

void trainer__close(struct trainer *t)
{
    if (t->c == NULL)
        return;
    messages__close(&t->messages);
    plan_release(&t->plan);
    buf_release(&t->inbox);
    tree_sum_close(t->sum);
    if (t->optimizer.ops != NULL)
        optimizer__close(&t->optimizer);
    if (t->grad != NULL)
        t->c->ops->release(t->c->dev, t->grad);
    free(t->own_total);
    free(t->shards);
    memset(t, 0, sizeof *t);
}

/* The step's rows from rank 0 to all, then the next step's are made: the ranks find them ready. */
static enum status hand_out(struct trainer *t, struct step_result *r, struct shard **shards,
                            int32_t *n_shards, struct err *err)
{
    struct comm *comm = t->c->comm;
    struct messages *m = &t->messages;
    enum status st = ST_OK;
    if (comm->rank == 0 && m->step != t->step)
        messages__make(m, t->step);
    TRY(comm->ops->scatter(comm, m->parts, &t->inbox, err));
    if (t->inbox.n_bytes == 0) {
        if (comm->rank == 0) {
            st = m->status;
            *err = m->err;
        }
        st = comm_agree(comm, st, err);
        return st != ST_OK ? st : err_set(err, ST_DEFECT, "rank 0 sent an empty step");
    }
    if (comm->rank == 0 && t->step + 1 < t->plan.max_steps)
        messages__make(m, t->step + 1);
    return step_read(&t->inbox, &r->head, shards, n_shards, err);
}

/* Forward and backward of a shard's sequences: its gradient is pushed, its loss sum goes into *loss. */
static enum status run_shard(struct trainer *t, const struct shard *s, const struct step_head *head,
                             double *loss, bool *stopped, struct err *err)
{
    const struct train_context *c = t->c;
    const size_t n_bytes = (size_t)t->n_sums * sizeof(float);
    const int64_t n_labels = head->n_labels;
    float *leaf = tree_sum_leaf(t->sum), *grad = t->grad != NULL ? t->grad : leaf;
    if (t->grad != NULL)
        c->ops->zero(c->dev, t->grad, n_bytes);
    for (int32_t i = 0; i < s->n_sequences && n_labels > 0; i++) {
        if (s->sequences[i].n_labels == 0)
            continue;
        *stopped = *stopped || train__stop_asked(t->o->deadline_s);
        if (*stopped)
            return ST_OK;
        TRY(model_loss_above(c->model, &s->sequences[i], head->n_stem, (float)(1.0 / (double)n_labels), grad,
                             loss, NULL, err));
    }
    c->ops->sync(c->dev);
    if (t->grad != NULL)
        c->ops->download(c->dev, leaf, t->grad, n_bytes);
    tree_sum_push(t->sum);
    return ST_OK;
}

/* All own shards; numbers[N_SHARD_NUMBERS] gets the sums over all ranks. */
static enum status run_shards(struct trainer *t, enum status st, const struct step_head *head,
                              const struct shard *shards, int32_t n_shards, double *numbers, struct err *err)
{
    struct comm *comm = t->c->comm;
    int first, end;
    bool stopped = train__stop_asked(t->o->deadline_s);
    tree_sum_range(t->o->virtual_shards, comm->world_size, comm->rank, &first, &end);
    if (st == ST_OK && n_shards != end - first)
        st = err_set(err, ST_DEFECT, "%d shards came, %d expected", n_shards, end - first);
    memset(t->shards, 0, (size_t)(end - first) * N_SHARD_NUMBERS * sizeof *t->shards);
    if (st == ST_OK)
        st = make_room(t, head->n_stem, err);
    for (int32_t s = 0; s < end - first && st == ST_OK && !stopped; s++)
        st = run_shard(t, &shards[s], head, &t->shards[s * N_SHARD_NUMBERS + SHARD_LOSS], &stopped, err);
    if (st != ST_OK)
        err_where(err, "step %lld", (long long)t->step + 1);
    t->shards[SHARD_FAILED] = st != ST_OK;
    t->shards[SHARD_STOP] = stopped;
    TRY(tree_sum_doubles(comm, t->shards, t->o->virtual_shards, N_SHARD_NUMBERS, numbers, err));
    return numbers[SHARD_FAILED] > 0 ? comm_agree(comm, st, err) : ST_OK;
}

/* A number that is none must not get into the values: what is saved stays good. */
static enum status check_finite(const struct trainer *t, const char *what, double x, struct err *err)
{
    if (isfinite(x))
        return ST_OK;
    err_set(err, ST_INPUT, "step %lld of stage %d: the %s is %s", (long long)t->step + 1, t->o->stage, what,
            isnan(x) ? "not a number" : "infinite");
    return err_hint(err,
                    "the values of the step before are untouched, so are its checkpoints; try a lower lr, "
                    "a longer warm-up, or compute=float32, and look at the rows of this step");
}

/* The gradient of all shards, on the device. What flowed into the step's stem goes on through the stem here,
 * once and on every rank, to the same bits. */
static enum status total_gradient(struct trainer *t, const int32_t *stem, int32_t n_stem, float **grad,
                                  struct err *err)
{
    const struct train_context *c = t->c;
    *grad = t->total;
    TRY(tree_sum_finish(t->sum, c->comm, t->total, err));
    if (t->grad != NULL) {
        c->ops->upload(c->dev, t->grad, t->total, (size_t)t->n_sums * sizeof(float));
        *grad = t->grad;
    }
    if (n_stem == 0)
        return ST_OK;
    return comm_agree(c->comm, model_stem_back(c->model, stem, n_stem, *grad, err), err);
}

static enum status update(struct trainer *t, struct step_result *r, const int32_t *stem, struct err *err)
{
    const struct train_context *c = t->c;
    float *grad;
    TRY(total_gradient(t, stem, r->head.n_stem, &grad, err));
    float norm = optimizer__norm(&t->optimizer, grad);
    TRY(check_finite(t, "norm of the gradient", norm, err));
    r->grad_norm = norm;
    r->lr = trainer__lr(t, t->step);
    optimizer__update(&t->optimizer, t->o, c->values, grad, r->lr, optimizer__clip(norm, t->o->max_grad_norm),
                      t->step + 1);
    c->ops->sync(c->dev);
    model_set_values(c->model, c->values);
    t->step++;
    return ST_OK;
}

static void say_no_labels(struct trainer *t)
{
    if (!t->said_no_labels)
        log_warn("step %lld has no label at all: its gradient is zero (said once)", (long long)t->step + 1);
    t->said_no_labels = true;
}

/* Of any sequence: all begin with it, and every rank has some where there is a stem. */
static const int32_t *stem_of(const struct shard *shards, int32_t n_shards)
{
    for (int32_t s = 0; s < n_shards; s++)
        if (shards[s].n_sequences > 0)
            return shards[s].sequences[0].ids;
    return NULL;
}

/* From the rows in hand to new values. */
static enum status step_run(struct trainer *t, enum status st, struct step_result *r,
                            const struct shard *shards, int32_t n_shards, struct err *err)
{
    double numbers[N_SHARD_NUMBERS];
    if (st == ST_OK && r->head.step != t->step)
        st = err_set(err, ST_DEFECT, "step %lld came, %lld expected", (long long)r->head.step,
                     (long long)t->step);
    const int32_t *stem = stem_of(shards, n_shards);
    if (st == ST_OK && r->head.n_stem > 0 && stem == NULL)
        st = err_set(err, ST_DEFECT, "a stem came without a sequence");
    TRY(run_shards(t, st, &r->head, shards, n_shards, numbers, err));
    r->stopped = numbers[SHARD_STOP] > 0;
    if (r->stopped)
        return ST_OK;
    if (r->head.n_labels == 0)
        say_no_labels(t);
    r->loss = r->head.n_labels > 0 ? numbers[SHARD_LOSS] / (double)r->head.n_labels : 0;
    TRY(check_finite(t, "loss", r->loss, err));
    return update(t, r, stem, err);
}

enum status trainer__step(struct trainer *t, struct step_result *r, struct err *err)
{
    double start_s = clock_s();
    struct shard *shards = NULL;
    int32_t n_shards = 0;
    memset(r, 0, sizeof *r);
    enum status st = hand_out(t, r, &shards, &n_shards, err);
    /* An empty message was agreed on; any other failure to read one is this rank's alone so far. */
    if (st != ST_OK && t->inbox.n_bytes == 0)
        return st;
    st = step_run(t, st, r, shards, n_shards, err);
    for (int32_t s = 0; s < n_shards; s++)
        shard_release(&shards[s]);
    free(shards);
    r->seconds = clock_s() - start_s;
    return st;
}
