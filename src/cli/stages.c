/* The stage loop: prepares the packs on rank 0, opens the model once, trains stage after stage on the same
 * trainable values. A stage that is finished already only hands over what it has. */
#include "stages.h"
#include "assemble.h"
#include "checkpoint/ckpt.h"
#include "hub_points.h"
#include "machine.h"
#include "memory_share.h"
#include "run_lock.h"
#include "stage_files.h"
#include "train/adapter.h"
#include "train/train.h"
#include "util/clock.h"
#include "util/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    struct comm *comm;
    const struct stages_request *request;
    const struct options *o;
    struct stage_data data; /* rank 0 */
    struct assembly model;
    bool model_open;
    size_t program, rank0_extra; /* resident memory: at the start; of data and tokenizer */
    int lock;                    /* rank 0's, on the stage's output directory */
};

static const char *out_dir_of(const struct options *o, int stage)
{
    return stage == 1 ? o->out_s1 : stage == 2 ? o->out_s2 : o->out_s3;
}

static double epochs_of(const struct options *o, int stage)
{
    return stage == 1 ? o->epochs_s1 : stage == 2 ? o->epochs_s2 : o->epochs_s3;
}

/* What changes this stage's curve: the other stages' lengths do not. New reference. */
static json_t *curve_options(const struct options *o, int stage)
{
    char key[32];
    json_t *all = options_curve_json(o);
    for (int k = 1; k <= 3; k++) {
        snprintf(key, sizeof key, "epochs_s%d", k);
        if (k != stage)
            json_object_del(all, key);
    }
    return all;
}

static enum status train_options_make(struct train_options *t, const struct run *r, int stage,
                                      struct err *err)
{
    const struct options *o = r->o;
    *t = (struct train_options){.stage = stage,
                                .batch_train = (int32_t)o->batch_train,
                                .grad_accum = (int32_t)o->grad_accum,
                                .seed = (uint64_t)o->seed,
                                .shuffle = o->shuffle,
                                .share_prefix = o->share_prefix,
                                .epochs = epochs_of(o, stage),
                                .max_steps = o->max_steps,
                                .lr = o->lr,
                                .warmup_ratio = o->warmup_ratio,
                                .weight_decay = o->weight_decay,
                                .max_grad_norm = o->max_grad_norm,
                                .adam_beta1 = o->adam_beta1,
                                .adam_beta2 = o->adam_beta2,
                                .adam_epsilon = o->adam_epsilon,
                                .virtual_shards = (int32_t)o->virtual_shards,
                                .logging_steps = o->logging_steps,
                                .eval_steps = o->eval_steps,
                                .save_steps = o->save_steps,
                                .keep_checkpoints = (int32_t)o->keep_checkpoints,
                                .save_dtype = strcmp(o->save_dtype, "bfloat16") == 0 ? DT_BF16 : DT_F32,
                                .whole_rows = strcmp(o->checkpoint_layout, "modules_to_save") == 0,
                                .for_bitsandbytes = strcmp(o->checkpoint_optim, "adamw_8bit") == 0,
                                .save_beside = true,
                                .max_pack_tokens = STAGE_PACK_TOKENS,
                                .accept_changes = o->accept_changes,
                                .resume = r->request->resume != RESUME_NONE};
    if (!schedule_by_name(o->schedule, &t->schedule))
        return err_set(err, ST_USAGE, "schedule '%s' is unknown", o->schedule);
    snprintf(t->out_dir, sizeof t->out_dir, "%s", out_dir_of(o, stage));
    t->stop_step = r->request->stop_step;
    if (r->request->resume == RESUME_DIR && stage == r->request->first_stage)
        snprintf(t->resume_dir, sizeof t->resume_dir, "%s", r->request->resume_dir);
    double deadline;
    TRY(options_seconds(o->deadline, "deadline", &deadline, err));
    t->deadline_s = deadline > 0 ? r->request->start_s + deadline : 0;
    return ST_OK;
}

/* Opens the stage's pack on rank 0, its facts on all. */
static enum status open_pack(struct run *r, int stage, struct train_context *c, struct err *err)
{
    enum status st = ST_OK;
    if (r->comm->rank == 0)
        st = stage_pack_open(&r->data, r->o, stage, &c->pack, &c->pack_info, err);
    TRY(comm_agree(r->comm, st, err));
    return r->comm->ops->bcast(r->comm, 0, &c->pack_info, sizeof c->pack_info, err);
}

static bool rows_untied(const struct run *r, const struct arch *a)
{
    return strcmp(r->o->new_rows, "untied") == 0 || !a->tied;
}

/* What is adapted, and whether the head's new rows stand apart. */
struct adapted {
    struct lora_config lora;
    bool untied;
};

/* The options' settings, or those of init_adapter: its matrices have the shapes they have. Rank 0 reads. */
static enum status adapted_settings(struct run *r, struct adapted *out, struct err *err)
{
    const struct options *o = r->o;
    struct adapter_config c = {0};
    struct adapter_rows rows = {0};
    out->untied = rows_untied(r, &r->model.arch);
    enum status st = lora_from_options(&out->lora, o, err);
    if (st == ST_OK && r->comm->rank == 0 && o->init_adapter[0]) {
        st = adapter_config_read(&c, o->init_adapter, err);
        if (st == ST_OK)
            st = lora_from_adapter(&out->lora, &c, err);
        if (st == ST_OK)
            st = rows_from_adapter(&rows, &c, r->model.arch.tied, o->init_adapter, err);
        out->untied = out->untied || (strcmp(o->new_rows, "auto") == 0 && rows.apart);
        if (st == ST_OK && (out->lora.r != o->lora_r || out->lora.alpha != o->lora_alpha))
            log_info("LoRA    r %d, alpha %g and targets are those of %s", out->lora.r, out->lora.alpha,
                     o->init_adapter);
        adapter_config_release(&c);
    }
    TRY(comm_agree(r->comm, st, err));
    return r->comm->ops->bcast(r->comm, 0, out, sizeof *out, err);
}

static void say_model(const struct run *r)
{
    const struct arch *a = &r->model.arch;
    const struct params *p = &r->model.params;
    int n_targets = 0;
    for (int i = 0; i < N_PROJ; i++)
        n_targets += p->lora.target[i];
    log_info("model   %s, %d layers, hidden %d, vocabulary %lld (%lld new), %s", a->model_type, a->n_layers,
             a->hidden, (long long)model_vocab(r->model.model), (long long)p->n_new,
             r->model.ops->describe(r->model.dev));
    log_info("trained %lld values: LoRA of rank %d on %d projections a layer, %s new rows",
             (long long)p->n_values, p->lora.r, n_targets,
             p->n_new == 0    ? "no"
             : p->untied_rows ? "untied"
                              : "tied");
}

/* The model and the layout of what is trained, once, from the first stage's pack. */
static enum status open_model(struct run *r, const struct pack_info *pack, struct err *err)
{
    struct adapted adapted = {0};
    enum status st = ST_OK;
    enum status (*assemble)(struct assembly *, struct comm *, const struct options *, const char *,
                            struct err *) = r->request->shape_only ? assembly_open_shape : assembly_open;
    const size_t now = (size_t)machine_rss_bytes();
    r->rank0_extra = now > r->program ? now - r->program : 0;
    TRY(comm_agree(r->comm, assemble(&r->model, r->comm, r->o, r->data.model_dir, err), err));
    const struct arch *a = &r->model.arch;
    TRY(adapted_settings(r, &adapted, err));
    if (strcmp(r->o->new_rows, "tied") == 0 && !a->tied) {
        st = err_set(err, ST_USAGE, "new_rows=tied, but '%s' has a head of its own", r->o->model);
        err_hint(err, "use new_rows=auto or untied");
    }
    if (st == ST_OK && a->tied && adapted.untied && pack->vocab_size - pack->base_vocab_size == 1) {
        st = err_set(err, ST_USAGE, "new_rows=untied with a single new row on a base that ties its head");
        err_hint(err, "PEFT's files cannot say that, it takes two rows or more: use new_rows=tied");
    }
    if (st == ST_OK)
        st = assembly_params(&r->model, &adapted.lora, pack->base_vocab_size,
                             pack->vocab_size - pack->base_vocab_size, adapted.untied, err);
    r->model_open = true;
    TRY(comm_agree(r->comm, st, err));
    say_model(r);
    return ST_OK;
}

/* Where a stage's values come from when it has no checkpoint of its own. Rank 0; values is host memory. */
static enum status start_values(struct run *r, int stage, float *values, struct err *err)
{
    const struct params *p = &r->model.params;
    char dir[PATH_BYTES] = "";
    int64_t step = -1;
    if (stage == r->request->first_stage && r->o->init_adapter[0])
        snprintf(dir, sizeof dir, "%s", r->o->init_adapter);
    else if (stage > 1)
        TRY(ckpt_newest(out_dir_of(r->o, stage - 1), dir, &step, err));
    if (!dir[0]) {
        if (stage > 1 && !r->o->pack[0]) {
            err_set(err, ST_INPUT,
                    "stage %d needs a finished stage %d, but '%s' holds no complete checkpoint", stage,
                    stage - 1, out_dir_of(r->o, stage - 1));
            return err_hint(err, "run --stage all, or set init_adapter to the adapter to start from");
        }
        params_start(p, &r->model.arch, &r->model.weights.embed, &r->model.weights.head, (uint64_t)r->o->seed,
                     values);
        log_info("stage %d starts from a new adapter, seed %lld", stage, (long long)r->o->seed);
        return ST_OK;
    }
    if (step >= 0)
        TRY(stage_check_finished(dir, stage - 1, err));
    log_info("stage %d starts from %s", stage, dir);
    return adapter_read(dir, p, values, err);
}

/* Start values to every rank's device. Also done before a resume, which then overwrites them. */
static enum status hand_over(struct run *r, int stage, struct err *err)
{
    size_t bytes = (size_t)r->model.params.n_values * sizeof(float);
    float *host = malloc(bytes ? bytes : 1);
    enum status st = host ? ST_OK : err_memory(err, "the start values", bytes);
    if (st == ST_OK && r->comm->rank == 0)
        st = start_values(r, stage, host, err);
    st = comm_agree(r->comm, st, err);
    if (st == ST_OK)
        st = r->comm->ops->bcast(r->comm, 0, host, bytes, err);
    if (st == ST_OK) {
        r->model.ops->upload(r->model.dev, r->model.values, host, bytes);
        r->model.ops->sync(r->model.dev);
    }
    free(host);
    return st;
}

/* A stage with a checkpoint of its own needs no start values from elsewhere. */
static bool has_checkpoint(const struct run *r, int stage)
{
    char dir[PATH_BYTES];
    int64_t step = -1;
    struct err ignored = ERR_INIT;
    if (r->request->resume == RESUME_NONE)
        return false;
    if (r->request->resume == RESUME_DIR && stage == r->request->first_stage)
        return true;
    return ckpt_newest(out_dir_of(r->o, stage), dir, &step, &ignored) == ST_OK && step >= 0;
}

/* The stage's output directory for this run alone. Rank 0. */
static enum status take_directory(struct run *r, int stage, struct err *err)
{
    const char *out_dir = out_dir_of(r->o, stage);
    run_lock_release(&r->lock);
    TRY(run_lock_take(&r->lock, out_dir, err));
    if (r->request->resume != RESUME_NONE)
        return ST_OK;
    TRY(stage_set_aside(out_dir, err));
    run_lock_release(&r->lock); /* it was of what has another name now */
    return run_lock_take(&r->lock, out_dir, err);
}

static enum status start_stage(struct run *r, int stage, struct err *err)
{
    int own = 0;
    enum status st = ST_OK;
    if (r->comm->rank == 0) {
        st = take_directory(r, stage, err);
        own = has_checkpoint(r, stage);
    }
    TRY(comm_agree(r->comm, st, err));
    TRY(r->comm->ops->bcast(r->comm, 0, &own, sizeof own, err));
    /* Within one run the values of the stage before are in memory already. */
    return own || (stage > r->request->first_stage) ? ST_OK : hand_over(r, stage, err);
}

static void say_plan(const struct run *r, int stage, const struct pack_info *p)
{
    int64_t batch = r->o->batch_train * r->o->grad_accum, n = p->n_rows[PACK_TRAIN];
    int64_t micro = (n + r->o->batch_train - 1) / r->o->batch_train;
    int64_t per_epoch = (micro + r->o->grad_accum - 1) / r->o->grad_accum;
    int64_t steps =
        r->o->max_steps > 0 ? r->o->max_steps : (int64_t)ceil(epochs_of(r->o, stage) * (double)per_epoch);
    log_info("stage %d: %lld training rows (%lld tokens), %lld evaluation rows; %lld rows a step, %lld steps "
             "-> %s",
             stage, (long long)n, (long long)p->n_tokens[PACK_TRAIN], (long long)p->n_rows[PACK_EVAL],
             (long long)batch, (long long)steps, out_dir_of(r->o, stage));
}

/* The checkpoint is safe here whatever happens to its upload: trouble is said, and the next start tries
 * again. */
static enum status to_the_hub(void *user, const char *dir, int32_t stage, int64_t step, bool final,
                              struct err *err)
{
    const struct stage_files_user *u = user;
    struct err own = ERR_INIT;
    if (u->hub && hub_points_add(u->hub, dir, &own) != ST_OK)
        log_warn("%s is not on its way to the Hub: %s", dir, own.what);
    return ST_OK;
}

static void hub_note(void *user, char *text, size_t n_bytes)
{
    const struct stage_files_user *u = user;
    text[0] = 0;
    if (u->hub)
        hub_points_note(u->hub, text, n_bytes);
}

/* What both training and what comes in its place are given. */
static enum status make_ready(struct run *r, int stage, struct train_context *c, struct train_options *t,
                              struct err *err)
{
    TRY(comm_agree(r->comm, train_options_make(t, r, stage, err), err));
    c->comm = r->comm;
    c->ops = r->model.ops;
    c->dev = r->model.dev;
    c->model = r->model.model;
    c->params = &r->model.params;
    c->values = r->model.values;
    memcpy(c->model_sha256, r->model.model_sha256, sizeof c->model_sha256);
    if (r->request->shape_only)
        return ST_OK;
    struct stage_ready ready = {
        .model = &r->model, .context = c, .options = t, .model_dir = r->data.model_dir};
    return memory_share(&ready, r->o, r->program, r->rank0_extra, err);
}

static enum status train_one(struct run *r, int stage, struct train_context *c, struct err *err)
{
    struct train_options t;
    struct train_result result = {0};
    struct stage_files_user user = {
        .data = &r->data, .options = r->o, .params = &r->model.params, .hub = r->request->hub};
    TRY(make_ready(r, stage, c, &t, err));
    if (r->request->instead) {
        struct stage_ready ready = {
            .model = &r->model, .context = c, .options = &t, .model_dir = r->data.model_dir};
        return r->request->instead(r->request->instead_user, &ready, err);
    }
    TRY(start_stage(r, stage, err));
    c->files = (struct train_files){
        .add_files = stage_add_files, .committed = to_the_hub, .note = hub_note, .user = &user};
    t.options_json = curve_options(r->o, stage);
    enum status st = train_stage(c, &t, &result, err);
    json_decref(t.options_json);
    TRY(st);
    if (result.stopped) {
        log_info("stage %d stopped at step %lld of %lld, saved; run the same command again to go on", stage,
                 (long long)result.step, (long long)result.max_steps);
        return ST_STOPPED;
    }
    log_info("stage %d done: step %lld, evaluation loss %.4f", stage, (long long)result.step,
             result.eval_loss);
    return ST_OK;
}

static enum status check_same_rows(const struct run *r, const struct pack_info *p, struct err *err)
{
    const struct params *have = &r->model.params;
    if (p->vocab_size == p->base_vocab_size ||
        (p->base_vocab_size == have->new_first && p->vocab_size - p->base_vocab_size == have->n_new))
        return ST_OK;
    return err_set(err, ST_INPUT,
                   "the pack of this stage has ids %d..%d new, the stage before had %lld..%lld",
                   p->base_vocab_size, p->vocab_size, (long long)have->new_first,
                   (long long)(have->new_first + have->n_new));
}

static enum status run_stage(struct run *r, int stage, struct err *err)
{
    struct train_context c = {0};
    TRY(open_pack(r, stage, &c, err));
    say_plan(r, stage, &c.pack_info);
    enum status st = ST_OK;
    if (!r->request->dry_run) {
        st = r->model_open ? check_same_rows(r, &c.pack_info, err) : open_model(r, &c.pack_info, err);
        if (st == ST_OK)
            st = train_one(r, stage, &c, err);
    }
    pack_close(c.pack);
    if (st != ST_OK && st != ST_STOPPED)
        err_where(err, "stage %d", stage);
    return st;
}

/* A stage that has a checkpoint was begun from a finished one before it: where that is neither here nor on
 * the Hub any more, it is not trained again. Rank 0. */
static int first_to_run(const struct run *r, int first, int last)
{
    int newest = last;
    while (newest > first && !has_checkpoint(r, newest))
        newest--;
    for (int stage = first; stage < newest; stage++) {
        if (has_checkpoint(r, stage))
            continue;
        log_info("stage %d has no checkpoint and stage %d has: going on with stage %d", stage, newest,
                 newest);
        return newest;
    }
    return first;
}

enum status stages_run(struct comm *comm, const struct stages_request *request, struct err *err)
{
    struct stages_request own = *request;
    struct run r = {.comm = comm, .request = &own, .o = request->options, .lock = -1};
    enum status st = ST_OK;
    r.program = (size_t)machine_rss_bytes();
    if (comm->rank == 0)
        st = stage_data_open(&r.data, r.o, &own.first_stage, &own.last_stage, err);
    if (st == ST_OK && comm->rank == 0 && own.resume == RESUME_AUTO)
        own.first_stage = first_to_run(&r, own.first_stage, own.last_stage);
    st = comm_agree(comm, st, err);
    if (st == ST_OK)
        st = comm->ops->bcast(comm, 0, &own.first_stage, sizeof own.first_stage, err);
    if (st == ST_OK)
        st = comm->ops->bcast(comm, 0, &own.last_stage, sizeof own.last_stage, err);
    for (int stage = own.first_stage; stage <= own.last_stage && st == ST_OK; stage++)
        st = run_stage(&r, stage, err);
    if (r.model_open)
        assembly_close(&r.model);
    run_lock_release(&r.lock);
    stage_data_close(&r.data);
    return st;
}
