/* Saving beside training. The state is copied, a thread writes the copy, the steps go on. The order on disk
 * is that of checkpoint__save, whoever calls it: filled under another name, synced, renamed, and only then
 * are older ones removed. So a process that ends at any moment leaves what it would have left without the
 * thread. */
#include "train_internal.h"
#include "util/log.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* Entries of the history never change, and only this thread counts references to them. */
static enum status point_make(struct save_point *p, const struct trainer *t, const struct train_log *l,
                              enum dtype dtype, struct err *err)
{
    *p = (struct save_point){.c = t->c,
                             .o = t->o,
                             .step = t->step,
                             .max_steps = t->plan.max_steps,
                             .steps_per_epoch = t->plan.steps_per_epoch,
                             .epoch = plan_epoch(&t->plan, t->step),
                             .lr = trainer__lr(t, t->step),
                             .dtype = dtype};
    memcpy(p->log.path, l->path, sizeof p->log.path);
    p->log.history = json_copy(l->history);
    return p->log.history != NULL ? ST_OK : err_memory(err, "the history of the run", 0);
}

/* Large pages: the copy is the one thing that steps wait for, and half of its time would be page faults. */
static float *copy_alloc(size_t n_bytes)
{
    size_t size = (n_bytes + HUGE_PAGE) / HUGE_PAGE * HUGE_PAGE;
    float *p = aligned_alloc(HUGE_PAGE, size);
    if (p != NULL)
        (void)madvise(p, size, MADV_HUGEPAGE); /* only faster */
    return p;
}

/* Values and moments into memory of our own; false where there is none. */
static bool copy_state(struct saver *s, const struct trainer *t)
{
    const struct train_context *c = t->c;
    const size_t n = (size_t)c->params->n_values, n_bytes = n * sizeof(float);
    s->copy = copy_alloc(3 * n_bytes);
    if (s->copy == NULL)
        return false;
    s->point.values = s->copy;
    s->point.m = s->copy + n;
    s->point.v = s->copy + 2 * n;
    c->ops->sync(c->dev);
    c->ops->download(c->dev, s->point.values, c->values, n_bytes);
    c->ops->download(c->dev, s->point.m, t->optimizer.m, n_bytes);
    c->ops->download(c->dev, s->point.v, t->optimizer.v, n_bytes);
    return true;
}

static void point_release(struct saver *s)
{
    json_decref(s->point.log.history);
    free(s->copy);
    s->copy = NULL;
    memset(&s->point, 0, sizeof s->point);
}

static void *run(void *user)
{
    struct saver *s = user;
    s->status = checkpoint__save(&s->point, &s->err);
    atomic_store(&s->is_over, true);
    return NULL;
}

/* Signals are for the thread that trains. */
static bool start_thread(struct saver *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    s->is_running = pthread_create(&s->thread, NULL, run, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return s->is_running;
}

enum status saver__wait(struct saver *s, struct err *err)
{
    if (s->is_running)
        pthread_join(s->thread, NULL);
    s->is_running = false;
    point_release(s);
    enum status st = s->status;
    if (st != ST_OK && err != NULL)
        *err = s->err;
    s->status = ST_OK;
    return st;
}

enum status saver__check(struct saver *s, struct err *err)
{
    return s->is_running && !atomic_load(&s->is_over) ? ST_OK : saver__wait(s, err);
}

enum status saver__save(struct saver *s, const struct trainer *t, const struct train_log *l, enum dtype dtype,
                        struct err *err)
{
    TRY(saver__wait(s, err));
    TRY(point_make(&s->point, t, l, dtype, err));
    s->err = (struct err)ERR_INIT;
    atomic_store(&s->is_over, false);
    const bool needs_copy = t->o->save_beside || !train__on_host(t->c->ops);
    const bool has_copy = needs_copy && copy_state(s, t);
    if (has_copy && t->o->save_beside && start_thread(s))
        return ST_OK;
    if (!has_copy && !train__on_host(t->c->ops)) {
        point_release(s);
        return err_memory(err, "a host copy of values and moments",
                          3 * (size_t)t->c->params->n_values * sizeof(float));
    }
    if (!has_copy) {
        s->point.values = t->c->values;
        s->point.m = t->optimizer.m;
        s->point.v = t->optimizer.v;
    }
    run(s);
    return saver__wait(s, err);
}

void saver__close(struct saver *s)
{
    struct err err = ERR_INIT;
    if (saver__wait(s, &err) != ST_OK)
        log_warn("%s", err.what);
}
