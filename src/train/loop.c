/* A stage from its first step, or the one it goes on from, to its last. */
#include "train_internal.h"
#include "util/clock.h"
#include "util/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct loop {
    struct trainer *t;
    struct train_log log; /* rank 0 */
    struct saver saver;   /* rank 0 */
    struct train_result *result;
    int64_t saved_step; /* newest checkpoint; 0: none, and none is needed */
    bool saved_rounded; /* its adapter is not float32 */
    int64_t first_step;
    double start_s;
};

static bool is_lead(const struct loop *l)
{
    return l->t->c->comm->rank == 0;
}

static void time_text(double s, char *text, size_t n_bytes)
{
    long m = lround(s / 60), h = m / 60;
    if (s < 90)
        snprintf(text, n_bytes, "%.0fs", s);
    else if (h == 0)
        snprintf(text, n_bytes, "%ldm", m);
    else
        snprintf(text, n_bytes, "%ldh%02ldm", h, m % 60);
}

static void show(const struct loop *l, const struct step_result *r)
{
    const struct trainer *t = l->t;
    char left[32], note[80] = "";
    const struct train_files *files = &t->c->files;
    double each_s = (clock_s() - l->start_s) / (double)(t->step - l->first_step);
    double per_s = r->seconds > 0 ? 1 / r->seconds : 0;
    if (is_lead(l) && files->note)
        files->note(files->user, note, sizeof note);
    time_text(each_s * (double)(t->plan.max_steps - t->step), left, sizeof left);
    log_progress(t->step == t->plan.max_steps,
                 "stage %d  step %lld/%lld  epoch %.2f  loss %.4f  norm %.3g  lr %.3g  %.1f ex/s  %.0f tok/s "
                 " %s left%s",
                 t->o->stage, (long long)t->step, (long long)t->plan.max_steps, plan_epoch(&t->plan, t->step),
                 r->loss, r->grad_norm, r->lr, (double)r->head.n_rows * per_s,
                 (double)r->head.n_tokens * per_s, left, note);
}

static enum status save(struct loop *l, enum dtype dtype, struct err *err)
{
    enum status st = is_lead(l) ? saver__save(&l->saver, l->t, &l->log, dtype, err) : ST_OK;
    TRY(comm_agree(l->t->c->comm, st, err));
    l->saved_step = l->t->step;
    l->saved_rounded = dtype != DT_F32;
    return ST_OK;
}

/* Before a step: a save that failed meanwhile ends the run here, on all ranks, without a message of its own.
 */
static void pass_on_failed_save(struct loop *l)
{
    struct err why = ERR_INIT;
    if (is_lead(l) && saver__check(&l->saver, &why) != ST_OK)
        messages__refuse(&l->t->messages, l->t->step, &why);
}

/* All that was saved is on disk, or all ranks know that it is not. */
static enum status finish_saves(struct loop *l, struct err *err)
{
    return comm_agree(l->t->c->comm, is_lead(l) ? saver__wait(&l->saver, err) : ST_OK, err);
}

/* Ends the stage before its time: what was finished and not yet saved is saved, and in any case so that the
 * next start can go on from it. */
static enum status stop(struct loop *l, struct err *err)
{
    l->result->stopped = true;
    return l->t->step > l->saved_step || l->saved_rounded ? save(l, DT_F32, err) : ST_OK;
}

/* On a full disk the log and the save under way fail side by side: the save is what is told of. */
static enum status log_failed(struct loop *l, enum status st, struct err *err)
{
    struct err of_save = ERR_INIT;
    if (saver__wait(&l->saver, &of_save) == ST_OK)
        return st;
    *err = of_save;
    return of_save.status;
}

static bool eval_due(const struct loop *l)
{
    const struct trainer *t = l->t;
    if (t->c->pack_info.n_rows[PACK_EVAL] == 0)
        return false;
    return t->step == t->plan.max_steps || (t->o->eval_steps > 0 && t->step % t->o->eval_steps == 0);
}

/* *stopped: a signal came first; the evaluation is made up for by the next start. */
static enum status evaluate(struct loop *l, bool *stopped, struct err *err)
{
    const struct trainer *t = l->t;
    struct err own = ERR_INIT;
    double start_s = clock_s(), loss = NAN;
    int64_t n_labels = 0;
    enum status st = train__evaluate(t->c, PACK_EVAL, t->o->max_pack_tokens, t->o->share_prefix,
                                     t->o->deadline_s, &loss, &n_labels, &own);
    *stopped = st == ST_STOPPED;
    if (*stopped)
        return ST_OK;
    if (st != ST_OK) {
        *err = own;
        err_where(err, "evaluation after step %lld", (long long)t->step);
        return st;
    }
    l->result->eval_loss = loss;
    log_info("step %lld: evaluation loss %.6f over %lld labels", (long long)t->step, loss,
             (long long)n_labels);
    if (is_lead(l))
        st = log__eval(&l->log, t, loss, n_labels, clock_s() - start_s, err);
    if (st != ST_OK)
        st = log_failed(l, st, err);
    return comm_agree(t->c->comm, st, err);
}

/* The last step of this run: the stage's, unless the caller wants an earlier one. */
static int64_t end_step(const struct trainer *t)
{
    return t->o->stop_step > 0 && t->o->stop_step < t->plan.max_steps ? t->o->stop_step : t->plan.max_steps;
}

static bool save_due(const struct loop *l)
{
    const struct trainer *t = l->t;
    int64_t max = t->plan.max_steps, half = max / 2 > 1 ? max / 2 : 1;
    return t->step == end_step(t) || t->step == half || t->step == max ||
           (t->o->save_steps > 0 && t->step % t->o->save_steps == 0);
}

/* What follows a finished step, in Trainer's order: log, evaluate, save. */
static enum status after_step(struct loop *l, const struct step_result *r, struct err *err)
{
    const struct trainer *t = l->t;
    bool stopped = false;
    enum status st = ST_OK;
    l->result->last_loss = r->loss;
    show(l, r);
    const bool log_due = t->step % (t->o->logging_steps > 0 ? t->o->logging_steps : 1) == 0;
    if (log_due) {
        if (is_lead(l))
            st = log__step(&l->log, t, r, err);
        if (st != ST_OK)
            st = log_failed(l, st, err);
        TRY(comm_agree(t->c->comm, st, err));
    }
    if (log_due || save_due(l))
        TRY(train__check_equal(t, err)); /* before a save could spread a damaged state */
    if (eval_due(l))
        TRY(evaluate(l, &stopped, err));
    if (stopped)
        return stop(l, err);
    return save_due(l) ? save(l, t->o->save_dtype, err) : ST_OK;
}

/* The stage that follows begins with the values that this one's last checkpoint holds, whether they come from
 * memory or, after another start, from the file. */
static enum status round_values(struct loop *l, struct err *err)
{
    const struct train_context *c = l->t->c;
    const size_t n = (size_t)c->params->n_values, n_bytes = n * sizeof(float);
    if (l->t->o->save_dtype != DT_BF16 || l->t->step < l->t->plan.max_steps)
        return ST_OK;
    float *host = malloc(n_bytes + 1);
    if (comm_agree(c->comm, host != NULL ? ST_OK : err_memory(err, "rounded values", n_bytes), err) !=
        ST_OK) {
        free(host);
        return err->status;
    }
    c->ops->sync(c->dev);
    c->ops->download(c->dev, host, c->values, n_bytes);
    for (size_t i = 0; i < n; i++)
        host[i] = bf16_to_f32(bf16_from_f32(host[i]));
    c->ops->upload(c->dev, c->values, host, n_bytes);
    c->ops->sync(c->dev);
    free(host);
    model_set_values(c->model, c->values);
    return ST_OK;
}

static enum status run(struct loop *l, struct err *err)
{
    struct trainer *t = l->t;
    struct step_result r;
    bool stopped = false;
    double seen;
    /* Also makes up for an evaluation that a stop cut short. */
    int missing = is_lead(l) && eval_due(l) && !log__last(&l->log, "eval_loss", t->step, &seen);
    TRY(t->c->comm->ops->bcast(t->c->comm, 0, &missing, sizeof missing, err));
    if (missing)
        TRY(evaluate(l, &stopped, err));
    if (stopped)
        return stop(l, err); /* nothing was finished, so nothing is under way */
    l->start_s = clock_s();
    while (t->step < end_step(t) && !l->result->stopped) {
        pass_on_failed_save(l);
        TRY(trainer__step(t, &r, err));
        TRY(r.stopped ? stop(l, err) : after_step(l, &r, err));
    }
    TRY(finish_saves(l, err));
    return round_values(l, err);
}

/* Numbers that the end of an earlier run left, the same on all ranks. */
static enum status last_numbers(struct loop *l, struct err *err)
{
    double numbers[2] = {NAN, NAN};
    if (is_lead(l)) {
        log__last(&l->log, "loss", -1, &numbers[0]);
        log__last(&l->log, "eval_loss", -1, &numbers[1]);
    }
    TRY(l->t->c->comm->ops->bcast(l->t->c->comm, 0, numbers, sizeof numbers, err));
    l->result->last_loss = numbers[0];
    l->result->eval_loss = numbers[1];
    return ST_OK;
}

static enum status loop_open(struct loop *l, struct err *err)
{
    struct trainer *t = l->t;
    json_t *history = NULL;
    enum status st = checkpoint__restore(t, &history, err);
    if (st == ST_OK) {
        model_set_values(t->c->model, t->c->values);
        l->saved_step = l->first_step = t->step;
        if (is_lead(l))
            st = log__open(&l->log, t->o->out_dir, t->step > 0 ? t->step : -1, history, err);
        st = comm_agree(t->c->comm, st, err);
    }
    json_decref(history);
    return st == ST_OK ? last_numbers(l, err) : st;
}

enum status train_stage(const struct train_context *c, const struct train_options *o,
                        struct train_result *result, struct err *err)
{
    struct trainer t;
    struct loop l = {.t = &t, .result = result};
    *result = (struct train_result){.last_loss = NAN, .eval_loss = NAN};
    enum status st = comm_agree(c->comm, trainer__open(&t, c, o, err), err);
    if (st == ST_OK)
        st = loop_open(&l, err);
    if (st == ST_OK)
        st = run(&l, err);
    result->step = t.step;
    result->max_steps = t.plan.max_steps;
    saver__close(&l.saver);
    log__close(&l.log);
    trainer__close(&t);
    return st;
}
