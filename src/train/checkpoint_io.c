/* The state of a run to and from its checkpoints. */
#include "checkpoint/ckpt.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"
#include "train/adapter.h"
#include "train_internal.h"
#include "util/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUPERSEDED_DIR "superseded"

/* Host copies of the three vectors, or the vectors themselves where the device's memory is the host's. */
struct vectors {
    float *values, *m, *v;
    bool owned;
};

static void vectors_release(struct vectors *x)
{
    if (x->owned) {
        free(x->values);
        free(x->m);
        free(x->v);
    }
    memset(x, 0, sizeof *x);
}

static enum status vectors_open(struct vectors *x, const struct trainer *t, struct err *err)
{
    const struct train_context *c = t->c;
    size_t n_bytes = (size_t)c->params->n_values * sizeof(float);
    if (train__on_host(c->ops)) {
        *x = (struct vectors){.values = c->values, .m = t->optimizer.m, .v = t->optimizer.v};
        return ST_OK;
    }
    *x = (struct vectors){
        .values = malloc(n_bytes + 1), .m = malloc(n_bytes + 1), .v = malloc(n_bytes + 1), .owned = true};
    if (x->values != NULL && x->m != NULL && x->v != NULL)
        return ST_OK;
    vectors_release(x);
    return err_memory(err, "a host copy of values and moments", 3 * n_bytes);
}

static void vectors_download(const struct vectors *x, const struct trainer *t)
{
    const struct train_context *c = t->c;
    size_t n_bytes = (size_t)c->params->n_values * sizeof(float);
    c->ops->sync(c->dev);
    if (!x->owned)
        return;
    c->ops->download(c->dev, x->values, c->values, n_bytes);
    c->ops->download(c->dev, x->m, t->optimizer.m, n_bytes);
    c->ops->download(c->dev, x->v, t->optimizer.v, n_bytes);
}

static void vectors_upload(const struct vectors *x, const struct trainer *t)
{
    const struct train_context *c = t->c;
    size_t n_bytes = (size_t)c->params->n_values * sizeof(float);
    if (!x->owned)
        return;
    c->ops->upload(c->dev, c->values, x->values, n_bytes);
    c->ops->upload(c->dev, t->optimizer.m, x->m, n_bytes);
    c->ops->upload(c->dev, t->optimizer.v, x->v, n_bytes);
    c->ops->sync(c->dev);
}

/* run_state's digest; of halves, because two at once cost half. */
static void hash_values(const float *values, size_t n, char hex[SHA256_HEX_BYTES])
{
    unsigned char halves[2][32];
    struct sha256 h;
    sha256_two(values, values + n / 2, n / 2 * sizeof *values, halves[0], halves[1]);
    sha256_init(&h);
    sha256_update(&h, halves, sizeof halves);
    sha256_update(&h, values + n / 2 * 2, n % 2 * sizeof *values);
    sha256_hex(&h, hex);
}

/* ---- saving: of a point alone, so that it may go on in a thread while the run does ---- */

static enum status options_hash(const json_t *options, char hex[SHA256_HEX_BYTES], struct err *err)
{
    char *text = json_dumps(options, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (text == NULL)
        return err_memory(err, "the options as text", 0);
    sha256_buffer(text, strlen(text), hex);
    free(text);
    return ST_OK;
}

static enum status run_state_make(struct run_state *s, const struct save_point *p, json_t *none,
                                  struct err *err)
{
    const struct train_context *c = p->c;
    *s = (struct run_state){.stage = p->o->stage, .step = p->step};
    s->options = p->o->options_json != NULL ? p->o->options_json : none;
    TRY(options_hash(s->options, s->options_sha256, err));
    memcpy(s->pack_sha256, c->pack_info.sha256, sizeof s->pack_sha256);
    memcpy(s->model_sha256, c->model_sha256, sizeof s->model_sha256);
    hash_values(p->values, (size_t)c->params->n_values, s->values_sha256);
    snprintf(s->cpu_path, sizeof s->cpu_path, "%s", c->ops->describe(c->dev));
    return ST_OK;
}

static enum status write_run_state(const char *dir, const struct save_point *p, struct err *err)
{
    char path[PATH_BYTES];
    struct run_state s;
    json_t *none = json_object();
    enum status st = path_join(path, dir, "smgpt_state.json", err);
    if (st == ST_OK)
        st = run_state_make(&s, p, none, err);
    if (st == ST_OK)
        st = run_state_write(path, &s, err);
    json_decref(none);
    return st;
}

static bool writes_whole(const struct save_point *p)
{
    return p->o->whole_rows && p->c->params->index_rows >= 0;
}

/* New rows as rows, in the order in which the adapter lists them. */
static enum status write_moments(const char *path, const struct save_point *p, struct optimizer_state *s,
                                 struct err *err)
{
    struct tensor_list list = TENSOR_LIST_INIT;
    enum status st = params_tensors(p->c->params, p->values, &list, err);
    s->params = &list;
    order__flip(p->c->params, p->m);
    order__flip(p->c->params, p->v);
    if (st == ST_OK)
        st = optimizer_write(path, s, err);
    order__flip(p->c->params, p->m);
    order__flip(p->c->params, p->v);
    tensor_list_release(&list);
    return st;
}

static enum status write_optimizer(const char *dir, const struct save_point *p, struct err *err)
{
    char path[PATH_BYTES];
    const struct train_options *o = p->o;
    struct optimizer_state s = {.lr = p->lr,
                                .initial_lr = o->lr,
                                .beta1 = o->adam_beta1,
                                .beta2 = o->adam_beta2,
                                .eps = o->adam_epsilon,
                                .weight_decay = o->weight_decay,
                                .step = p->step,
                                .for_bitsandbytes = o->for_bitsandbytes,
                                .exp_avg = p->m,
                                .exp_avg_sq = p->v};
    struct scheduler_state sched = {.base_lr = o->lr, .last_lr = s.lr, .last_epoch = p->step};
    TRY(path_join(path, dir, "optimizer.pt", err));
    if (writes_whole(p))
        TRY(whole__optimizer_write(path, p->c->params, &s, p->m, p->v, err));
    else
        TRY(write_moments(path, p, &s, err));
    TRY(path_join(path, dir, "scheduler.pt", err));
    return scheduler_write(path, &sched, err);
}

static int64_t steps_or(int64_t n, int64_t otherwise)
{
    return n > 0 ? n : otherwise;
}

static enum status write_trainer_state(const char *dir, const struct save_point *p, struct err *err)
{
    char path[PATH_BYTES];
    const int64_t max = p->max_steps, half = steps_or(max / 2, 1);
    /* Python takes the three intervals from here and divides by them: they must be positive. */
    const struct trainer_state s = {.global_step = p->step,
                                    .max_steps = max,
                                    .epoch = p->epoch,
                                    .num_train_epochs = ceil((double)max / (double)p->steps_per_epoch),
                                    .logging_steps = steps_or(p->o->logging_steps, 1),
                                    .eval_steps = steps_or(p->o->eval_steps, max),
                                    .save_steps = steps_or(p->o->save_steps, half),
                                    .train_batch_size = p->o->batch_train,
                                    .finished = p->step == max,
                                    .log_history = p->log.history};
    TRY(path_join(path, dir, "trainer_state.json", err));
    return trainer_state_write(path, &s, err);
}

static enum status fill(const char *dir, const struct save_point *p, struct err *err)
{
    char path[PATH_BYTES];
    const struct train_files *files = &p->c->files;
    TRY(path_join(path, dir, "adapter_model.safetensors", err));
    TRY(writes_whole(p) ? adapter_write_whole(path, p->c->params, p->values, p->dtype, err)
                        : adapter_write(path, p->c->params, p->values, p->dtype, err));
    TRY(write_optimizer(dir, p, err));
    TRY(write_trainer_state(dir, p, err));
    TRY(write_run_state(dir, p, err));
    return files->add_files != NULL ? files->add_files(files->user, dir, p->o->stage, p->step, err) : ST_OK;
}

/* The old ones go only when the new one stands. */
static enum status save(const struct save_point *p, struct err *err)
{
    struct ckpt_writer w;
    char dir[PATH_BYTES];
    const struct train_files *files = &p->c->files;
    TRY(log__sync(&p->log, err));
    TRY(ckpt_begin(&w, p->o->out_dir, p->step, err));
    memcpy(dir, w.final_dir, sizeof dir);
    enum status st = fill(w.tmp_dir, p, err);
    if (st != ST_OK) {
        ckpt_abort(&w);
        return st;
    }
    TRY(ckpt_commit(&w, err));
    log_info("saved %s", dir);
    TRY(ckpt_rotate(p->o->out_dir, p->o->keep_checkpoints, err));
    if (files->committed == NULL)
        return ST_OK;
    return files->committed(files->user, dir, p->o->stage, p->step, p->step == p->max_steps, err);
}

enum status checkpoint__save(const struct save_point *p, struct err *err)
{
    enum status st = save(p, err);
    if (st == ST_OK)
        return ST_OK;
    err_where(err, "saving step %lld", (long long)p->step);
    return err_hint(
        err, "the checkpoint before this one is whole; make room or give leave to write, then start again");
}

/* ---- resuming ---- */

static bool same_value(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

/* As a user would write it: reals with as few digits as read back equal. The caller's to free. */
static char *option_text(const json_t *v)
{
    for (size_t digits = 6; json_is_real(v) && digits < 17; digits++) {
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
        if (text == NULL || strtod(text, NULL) == json_real_value(v))
            return text;
        free(text);
    }
    return json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
}

/* A difference to what the checkpoint was trained with: the end, unless the user has said to go on. */
static enum status differs(const struct trainer *t, const struct err *found, struct err *err)
{
    if (!t->o->accept_changes) {
        *err = *found;
        return err->status;
    }
    log_warn("accept_changes: %s; the run goes on, along another curve", found->what);
    return ST_OK;
}

/* The first option, in the table's order, that both sides have and that differs; all of them when they are
 * accepted. */
static enum status compare_options(const struct run_state *s, const struct trainer *t, struct err *err)
{
    const char *key;
    json_t *mine;
    json_object_foreach(t->o->options_json, key, mine)
    {
        const json_t *theirs = json_object_get(s->options, key);
        if (theirs == NULL || same_value(mine, theirs))
            continue;
        struct err found = ERR_INIT;
        char *a = option_text(mine), *b = option_text(theirs);
        err_set(&found, ST_USAGE, "option %s is %s, but the checkpoint was trained with %s", key,
                a != NULL ? a : "?", b != NULL ? b : "?");
        err_hint(&found,
                 "set %s=%s to go on along the same curve, accept_changes=true to go on along another, or "
                 "start anew with --resume none",
                 key, b != NULL ? b : "?");
        free(a);
        free(b);
        TRY(differs(t, &found, err));
    }
    return ST_OK;
}

static enum status compare_hash(const struct trainer *t, const char *what, const char *theirs,
                                const char *ours, const char *hint, struct err *err)
{
    struct err found = ERR_INIT;
    if (strcmp(theirs, ours) == 0)
        return ST_OK;
    err_set(&found, ST_USAGE, "the checkpoint was trained on %s %.12s, now %.12s", what, theirs, ours);
    err_hint(&found, "%s, accept_changes=true to go on all the same, or start anew with --resume none", hint);
    return differs(t, &found, err);
}

static enum status compare_run(const struct run_state *s, const struct trainer *t, struct err *err)
{
    const struct train_context *c = t->c;
    char hex[SHA256_HEX_BYTES];
    json_t *none = json_object();
    enum status st = options_hash(t->o->options_json != NULL ? t->o->options_json : none, hex, err);
    json_decref(none);
    TRY(st);
    if (s->stage != t->o->stage)
        return err_set(err, ST_USAGE, "the checkpoint is of stage %d, not of stage %d", s->stage,
                       t->o->stage);
    if (strcmp(hex, s->options_sha256) != 0) {
        TRY(compare_options(s, t, err));
        if (!t->o->accept_changes)
            log_warn("the checkpoint knows other options than this version; those that both know are equal");
    }
    TRY(compare_hash(t, "other rows: pack", s->pack_sha256, c->pack_info.sha256,
                     "give the data set and options of the pack as they were", err));
    if (s->model_sha256[0] == '\0')
        return ST_OK;
    return compare_hash(t, "another base model:", s->model_sha256, c->model_sha256, "set model as it was",
                        err);
}

/* Another instruction set rounds otherwise: the run goes on, but no longer to the bits of one without a
 * break.
 */
static void compare_path(const struct run_state *s, const struct train_context *c)
{
    const char *now = c->ops->describe(c->dev);
    if (s->cpu_path[0] == '\0' || strcmp(s->cpu_path, now) == 0)
        return;
    log_warn("the checkpoint was computed with %s, this run computes with %s: from here on its bits are not "
             "those of a run without the break; cpu_path=%.*s keeps them where the processor has it",
             s->cpu_path, now, (int)strcspn(s->cpu_path, ","), s->cpu_path);
}

/* saved_values: the hash of the values that were saved, "" when that is not known. */
static enum status check_run_state(const char *dir, const struct trainer *t,
                                   char saved_values[SHA256_HEX_BYTES], struct err *err)
{
    char path[PATH_BYTES];
    struct run_state s;
    bool present = false;
    saved_values[0] = '\0';
    TRY(path_join(path, dir, "smgpt_state.json", err));
    TRY(run_state_read(path, &s, &present, err));
    if (!present) {
        log_info("%s was not written by this program: its options are not compared", dir);
        return ST_OK;
    }
    enum status st = compare_run(&s, t, err);
    if (st == ST_OK)
        compare_path(&s, t->c);
    memcpy(saved_values, s.values_sha256, sizeof s.values_sha256);
    run_state_release(&s);
    return st;
}

/* Whether the adapter's file holds values of less than 32 bits. */
static bool is_rounded(const char *path)
{
    struct safetensors s;
    if (safetensors_open(&s, path, NULL) != ST_OK)
        return false;
    bool rounded = s.tensors.n_items > 0 && dtype_bytes(s.tensors.items[0].dtype) < 4;
    safetensors_close(&s);
    return rounded;
}

/* A file of ours that does not hold what was saved: *damaged, unless it was rounded when it was saved. A
 * finished stage has nothing to go on with, and hands over what its rounded file holds. */
static enum status check_values(const char *dir, const struct trainer *t, const float *values, int64_t step,
                                const char *saved_values, bool *damaged, struct err *err)
{
    char path[PATH_BYTES], hex[SHA256_HEX_BYTES];
    struct err found = ERR_INIT;
    TRY(path_join(path, dir, "adapter_model.safetensors", err));
    hash_values(values, (size_t)t->c->params->n_values, hex);
    if (saved_values[0] == '\0' || strcmp(saved_values, hex) == 0)
        return ST_OK;
    if (!is_rounded(path)) {
        err_set(&found, ST_INPUT, "%s does not hold the values that were saved", path);
        err_hint(&found, "take another checkpoint, or set accept_changes=true to go on from these values");
        *damaged = !t->o->accept_changes;
    } else if (step < t->plan.max_steps) {
        err_set(&found, ST_USAGE, "%s holds values rounded to bfloat16 (save_dtype): no exact resume", path);
        err_hint(&found,
                 "accept_changes=true goes on from the rounded values, along another curve; init_adapter=%s "
                 "starts anew from them; checkpoints of save_dtype=float32 can be resumed",
                 dir);
    } else {
        return ST_OK;
    }
    return differs(t, &found, err);
}

static enum status read_scheduler(const char *dir, const struct trainer *t, int64_t step, struct err *err)
{
    char path[PATH_BYTES];
    struct scheduler_state s = {0};
    TRY(path_join(path, dir, "scheduler.pt", err));
    TRY(scheduler_read(path, &s, err));
    if (s.last_epoch != step)
        return err_set(err, ST_INPUT, "%s is of step %lld, trainer_state.json of step %lld", path,
                       (long long)s.last_epoch, (long long)step);
    double ours = trainer__lr(t, step);
    if (fabs(ours - s.last_lr) > 1e-9 * fmax(fabs(ours), fabs(s.last_lr)))
        log_warn("the next learning rate is %g, the checkpoint's schedule has %g", ours, s.last_lr);
    return ST_OK;
}

static enum status read_optimizer(const char *dir, const struct trainer *t, int64_t step,
                                  const struct vectors *x, struct err *err)
{
    char path[PATH_BYTES];
    struct tensor_list list = TENSOR_LIST_INIT;
    struct row_order order = {0};
    struct optimizer_state s = {
        .params = &list, .whole_rows = whole__rows(t->c->params), .first_row = t->c->params->new_first};
    enum status st = path_join(path, dir, "optimizer.pt", err);
    if (st == ST_OK)
        st = params_tensors(t->c->params, x->values, &list, err);
    if (st == ST_OK)
        st = optimizer_read(path, &s, x->m, x->v, err);
    tensor_list_release(&list);
    if (st == ST_OK)
        st = order__read(&order, dir, t->c->params, err);
    if (st == ST_OK)
        st = order__apply(&order, t->c->params, x->m, err);
    if (st == ST_OK)
        st = order__apply(&order, t->c->params, x->v, err);
    order__release(&order);
    TRY(st);
    if (s.step != step)
        return err_set(err, ST_INPUT, "%s is of step %lld, trainer_state.json of step %lld", path,
                       (long long)s.step, (long long)step);
    return ST_OK;
}

static enum status read_all(const char *dir, const struct trainer *t, const struct vectors *x, int64_t *step,
                            json_t **history, bool *damaged, struct err *err)
{
    char path[PATH_BYTES], saved_values[SHA256_HEX_BYTES];
    struct trainer_state s = {0};
    TRY(path_join(path, dir, "trainer_state.json", err));
    TRY(trainer_state_read(path, &s, err));
    *step = s.global_step;
    json_decref(*history);
    *history = json_incref(s.log_history);
    *damaged = false;
    trainer_state_release(&s);
    if (*step < 1)
        return err_set(err, ST_INPUT, "%s is of step %lld", path, (long long)*step);
    TRY(check_run_state(dir, t, saved_values, err));
    if (*step > t->plan.max_steps) {
        err_set(err, ST_USAGE, "%s is of step %lld, but this run ends at step %lld", dir, (long long)*step,
                (long long)t->plan.max_steps);
        return err_hint(err, "set max_steps or epochs as they were, or start anew with --resume none");
    }
    TRY(adapter_read(dir, t->c->params, x->values, err));
    TRY(check_values(dir, t, x->values, *step, saved_values, damaged, err));
    TRY(read_optimizer(dir, t, *step, x, err));
    TRY(read_scheduler(dir, t, *step, err));
    log_info("resuming from %s", dir);
    return ST_OK;
}

/* Checkpoints of an attempt that is given up would be taken for the newest, and push out the new ones. */
static enum status set_aside(const char *out_dir, int64_t step, struct err *err)
{
    char **names = NULL, dir[PATH_BYTES], from[PATH_BYTES], to[PATH_BYTES];
    int n_names = 0;
    if (!dir_exists(out_dir))
        return ST_OK;
    TRY(path_join(dir, out_dir, SUPERSEDED_DIR, err));
    TRY(dir_list(out_dir, &names, &n_names, err));
    enum status st = ST_OK;
    for (int i = 0; i < n_names && st == ST_OK; i++) {
        if (ckpt_step_of(names[i]) <= step)
            continue;
        st = dir_make(dir, err);
        if (st == ST_OK)
            st = path_join(from, out_dir, names[i], err);
        if (st == ST_OK)
            st = path_join(to, dir, names[i], err);
        if (st == ST_OK)
            st = dir_remove(to, err);
        if (st == ST_OK && rename(from, to) != 0)
            st = err_errno(err, ST_ENV, "cannot move '%s' to '%s'", from, to);
        if (st == ST_OK)
            log_warn("%s is of a later step than this run goes on from: moved to %s", from, to);
    }
    names_free(names, n_names);
    return st;
}

/* From the newest complete checkpoint, of whose adapter's bytes only its hash tells whether they are right:
 * one that is damaged is passed over where an older one is. Without any *step stays 0. */
static enum status read_newest(const struct trainer *t, const struct vectors *x, int64_t *step,
                               json_t **history, struct err *err)
{
    char dir[PATH_BYTES];
    struct err fault = ERR_INIT;
    int64_t newest = INT64_MAX;
    for (;;) {
        bool damaged = false;
        TRY(ckpt_newest_below(t->o->out_dir, newest, dir, &newest, err));
        if (newest < 0)
            break;
        if (fault.status != ST_OK)
            log_warn("skipped: %s", fault.what);
        fault = (struct err)ERR_INIT;
        enum status st = read_all(dir, t, x, step, history, &damaged, &fault);
        if (st == ST_OK)
            return ST_OK;
        err_where(&fault, "resuming from %s", dir);
        if (!damaged)
            break;
    }
    if (fault.status != ST_OK)
        *err = fault;
    return fault.status;
}

/* Rank 0: where to go on, and everything that is there. */
static enum status restore(const struct trainer *t, const struct vectors *x, int64_t *step, json_t **history,
                           struct err *err)
{
    const struct train_options *o = t->o;
    bool damaged;
    *step = 0;
    if (o->resume && o->resume_dir[0] != '\0') {
        enum status st = read_all(o->resume_dir, t, x, step, history, &damaged, err);
        if (st != ST_OK) {
            err_where(err, "resuming from %s", o->resume_dir);
            return st;
        }
    } else if (o->resume && dir_exists(o->out_dir)) {
        TRY(read_newest(t, x, step, history, err));
    }
    return set_aside(o->out_dir, *step, err);
}

enum status checkpoint__restore(struct trainer *t, json_t **history, struct err *err)
{
    const struct train_context *c = t->c;
    const size_t n_bytes = (size_t)c->params->n_values * sizeof(float);
    struct vectors x = {0};
    int64_t step = 0;
    *history = NULL;
    TRY(comm_agree(c->comm, vectors_open(&x, t, err), err));
    vectors_download(&x, t);
    enum status st = c->comm->rank == 0 ? restore(t, &x, &step, history, err) : ST_OK;
    st = comm_agree(c->comm, st, err);
    if (st == ST_OK)
        st = c->comm->ops->bcast(c->comm, 0, &step, sizeof step, err);
    float *all[] = {x.values, x.m, x.v};
    for (int i = 0; i < 3 && st == ST_OK && step > 0; i++)
        st = c->comm->ops->bcast(c->comm, 0, all[i], n_bytes, err);
    if (st == ST_OK && step > 0)
        vectors_upload(&x, t);
    t->step = step;
    vectors_release(&x);
    return st;
}
