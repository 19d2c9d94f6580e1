/* Replay: the options of the checkpoint, the stage loop stopped at its step, then tensor by tensor. */
#include "replay.h"
#include "checkpoint/ckpt.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"
#include "stages.h"
#include "util/file.h"
#include "util/log.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct replay {
    struct options options; /* of the checkpoint */
    char out_dir[PATH_BYTES], from_dir[PATH_BYTES], tmp_dir[PATH_BYTES];
    int64_t to_step, from_step;
    int32_t stage;
};

/* Its directory's parent, and its step from its name. */
static enum status split_path(struct replay *r, const char *checkpoint, struct err *err)
{
    snprintf(r->out_dir, sizeof r->out_dir, "%s", checkpoint);
    size_t n = strlen(r->out_dir);
    while (n > 1 && r->out_dir[n - 1] == '/')
        r->out_dir[--n] = '\0';
    char *slash = strrchr(r->out_dir, '/');
    r->to_step = ckpt_step_of(slash ? slash + 1 : r->out_dir);
    if (r->to_step < 0) {
        err_set(err, ST_USAGE, "'%s' is not named checkpoint-<step>", checkpoint);
        return err_hint(err, "give a checkpoint of a run that keeps earlier ones too");
    }
    if (slash)
        *slash = '\0';
    else
        strcpy(r->out_dir, ".");
    return ST_OK;
}

/* The newest checkpoint that is n_steps earlier or more, else the oldest earlier one. */
static enum status find_start(struct replay *r, int64_t n_steps, struct err *err)
{
    char **names = NULL, name[64];
    int n = 0;
    int64_t best = -1, oldest = -1;
    TRY(dir_list(r->out_dir, &names, &n, err));
    for (int i = 0; i < n; i++) {
        int64_t step = ckpt_step_of(names[i]);
        if (step < 0 || step >= r->to_step)
            continue;
        if (step <= r->to_step - n_steps && step > best)
            best = step;
        if (oldest < 0 || step < oldest)
            oldest = step;
    }
    names_free(names, n);
    r->from_step = best >= 0 ? best : oldest;
    if (r->from_step < 0) {
        err_set(err, ST_INPUT, "%s holds no checkpoint before step %lld", r->out_dir, (long long)r->to_step);
        return err_hint(err, "train with save_steps and keep_checkpoints set to have one");
    }
    snprintf(name, sizeof name, "checkpoint-%lld", (long long)r->from_step);
    return path_join(r->from_dir, r->out_dir, name, err);
}

/* Where things lie here, as far as it was said: the checkpoint may come from another machine. */
static enum status take_places(struct options *saved, const struct options *o, struct err *err)
{
    static const size_t places[] = {offsetof(struct options, model), offsetof(struct options, data_json),
                                    offsetof(struct options, pack),
                                    offsetof(struct options, system_prompt_file)};
    struct options *unsaid = malloc(sizeof *unsaid);
    if (!unsaid)
        return err_memory(err, "options", sizeof *unsaid);
    options_default(unsaid);
    memcpy(unsaid->work_dir, o->work_dir, sizeof unsaid->work_dir);
    memcpy(unsaid->data_dir, o->data_dir, sizeof unsaid->data_dir);
    enum status st = options_finish(unsaid, err);
    for (size_t i = 0; i < sizeof places / sizeof *places && st == ST_OK; i++) {
        const char *said = (const char *)o + places[i];
        if (strcmp(said, (const char *)unsaid + places[i]) != 0)
            memcpy((char *)saved + places[i], said, OPTION_TEXT_BYTES);
    }
    free(unsaid);
    return st;
}

/* The saved options, with what belongs to this machine taken from the command line. */
static enum status saved_options(struct replay *r, const struct options *o, const char *checkpoint,
                                 struct err *err)
{
    char path[PATH_BYTES];
    struct run_state s = {0};
    bool present = false;
    options_default(&r->options);
    TRY(path_join(path, checkpoint, "smgpt_options.json", err));
    TRY(options_read_file(&r->options, path, err));
    TRY(take_places(&r->options, o, err));
    r->options.threads = o->threads;
    memcpy(r->options.cpu_path, o->cpu_path, sizeof r->options.cpu_path);
    r->options.eval_steps = 0;
    r->options.save_steps = 0;
    TRY(options_finish(&r->options, err));
    TRY(path_join(path, checkpoint, "smgpt_state.json", err));
    TRY(run_state_read(path, &s, &present, err));
    r->stage = s.stage;
    run_state_release(&s);
    if (!present || r->stage < 1 || r->stage > 3)
        return err_set(err, ST_INPUT, "%s: smgpt_state.json does not say which stage it is", checkpoint);
    return ST_OK;
}

static enum status prepare(struct replay *r, const struct options *o, const char *checkpoint, int64_t n_steps,
                           struct err *err)
{
    TRY(split_path(r, checkpoint, err));
    TRY(find_start(r, n_steps, err));
    TRY(saved_options(r, o, checkpoint, err));
    TRY(dir_make_temporary(r->tmp_dir, "smgpt-replay", err));
    char *out = r->stage == 1 ? r->options.out_s1 : r->stage == 2 ? r->options.out_s2 : r->options.out_s3;
    if (strlen(r->tmp_dir) >= sizeof r->options.out_s1)
        return err_set(err, ST_ENV, "the temporary directory's name is too long: %s", r->tmp_dir);
    strcpy(out, r->tmp_dir);
    return ST_OK;
}

static double largest_difference(const struct tensor *a, const struct tensor *b)
{
    double worst = 0;
    for (int64_t i = 0; i < tensor_count(a); i++) {
        float x, y;
        memcpy(&x, (const char *)a->data + (size_t)i * sizeof x, sizeof x);
        memcpy(&y, (const char *)b->data + (size_t)i * sizeof y, sizeof y);
        worst = fmax(worst, fabs((double)x - y));
    }
    return worst;
}

static enum status compare_adapters(const char *theirs, const char *ours, struct replay_result *result,
                                    struct err *err)
{
    struct safetensors a = {0}, b = {0};
    enum status st = safetensors_open(&a, theirs, err);
    if (st == ST_OK)
        st = safetensors_open(&b, ours, err);
    for (int i = 0; st == ST_OK && i < a.tensors.n_items && !result->difference[0]; i++) {
        const struct tensor *t = &a.tensors.items[i], *u = tensor_list_find(&b.tensors, t->name);
        if (!u || u->dtype != t->dtype || u->n_bytes != t->n_bytes)
            snprintf(result->difference, sizeof result->difference,
                     "tensor %.200s is missing or of another shape", t->name);
        else if (memcmp(t->data, u->data, t->n_bytes) != 0 && t->dtype == DT_F32)
            snprintf(result->difference, sizeof result->difference, "tensor %.200s differs by up to %.3g",
                     t->name, largest_difference(t, u));
        else if (memcmp(t->data, u->data, t->n_bytes) != 0)
            snprintf(result->difference, sizeof result->difference, "tensor %.200s differs", t->name);
    }
    safetensors_close(&a);
    safetensors_close(&b);
    return st;
}

static enum status same_file(const char *a, const char *b, bool *same, struct err *err)
{
    struct file_map x = {0}, y = {0};
    enum status st = file_map(&x, a, err);
    if (st == ST_OK)
        st = file_map(&y, b, err);
    *same =
        st == ST_OK && x.n_bytes == y.n_bytes && (x.n_bytes == 0 || memcmp(x.data, y.data, x.n_bytes) == 0);
    file_unmap(&x);
    file_unmap(&y);
    return st;
}

/* Rank 0. */
static enum status compare(const struct replay *r, const char *checkpoint, struct replay_result *result,
                           struct err *err)
{
    char name[64], dir[PATH_BYTES], a[PATH_BYTES], b[PATH_BYTES];
    bool same;
    snprintf(name, sizeof name, "checkpoint-%lld", (long long)r->to_step);
    TRY(path_join(dir, r->tmp_dir, name, err));
    TRY(path_join(a, checkpoint, "adapter_model.safetensors", err));
    TRY(path_join(b, dir, "adapter_model.safetensors", err));
    TRY(compare_adapters(a, b, result, err));
    if (!result->difference[0]) {
        TRY(path_join(a, checkpoint, "optimizer.pt", err));
        TRY(path_join(b, dir, "optimizer.pt", err));
        TRY(same_file(a, b, &same, err));
        if (!same)
            snprintf(result->difference, sizeof result->difference,
                     "the adapter is equal, optimizer.pt is not");
    }
    result->equal = !result->difference[0];
    return ST_OK;
}

enum status replay_checkpoint(struct comm *comm, const struct options *o, const char *checkpoint,
                              int64_t n_steps, struct replay_result *result, struct err *err)
{
    struct replay *r = calloc(1, sizeof *r);
    *result = (struct replay_result){0};
    enum status st = r ? ST_OK : err_memory(err, "a replay", sizeof *r);
    if (st == ST_OK && comm->rank == 0)
        st = prepare(r, o, checkpoint, n_steps, err);
    st = comm_agree(comm, st, err);
    if (st == ST_OK)
        st = comm->ops->bcast(comm, 0, r, sizeof *r, err);
    if (st == ST_OK) {
        log_info("replaying steps %lld to %lld of stage %d from %s", (long long)r->from_step + 1,
                 (long long)r->to_step, r->stage, r->from_dir);
        struct stages_request request = {.options = &r->options,
                                         .first_stage = r->stage,
                                         .last_stage = r->stage,
                                         .resume = RESUME_DIR,
                                         .resume_dir = r->from_dir,
                                         .stop_step = r->to_step};
        st = stages_run(comm, &request, err);
    }
    if (st == ST_OK && comm->rank == 0)
        st = compare(r, checkpoint, result, err);
    st = comm_agree(comm, st, err);
    if (st == ST_OK) {
        result->from_step = r->from_step;
        result->to_step = r->to_step;
        st = comm->ops->bcast(comm, 0, result, sizeof *result, err);
    }
    if (r && comm->rank == 0 && r->tmp_dir[0])
        dir_remove(r->tmp_dir, NULL);
    free(r);
    return st;
}
