#include "train_runs.h"
#include "checkpoint/ckpt.h"
#include "model/tiny.h"
#include "mpi/small_pack.h"
#include "sim.h"
#include "support/flip.h"
#include "support/scratch.h"
#include "train/train.h"
#include "util/log.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define VOCAB      37
#define NEW_FIRST  33
#define STEPS      5
#define TIMEOUT_S  60.0
#define MAX_SAVING 32

static const char config[] =
    "{\"model_type\":\"qwen3\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":8,\"vocab_size\":37,"
    "\"tie_word_embeddings\":true}";
static const char adapter_config[] =
    "{\"peft_type\":\"LORA\",\"base_model_name_or_path\":\"tiny\",\"r\":2,\"lora_alpha\":4,"
    "\"target_modules\":[\"q_proj\"]}";

/* What a child tells its parent, in memory of both. */
struct outcome {
    struct sim_result result;
    enum status status[SIM_MAX_RANKS]; /* of train_stage on ranks that returned */
    char what[SIM_MAX_RANKS][300];
    int64_t committed_step;     /* newest that was reported as saved */
    int64_t saving[MAX_SAVING]; /* points of rank 0 in the middle of saving */
    int n_saving;
};

struct runs {
    struct scratch scratch;
    char pack_path[PATH_BYTES];
    struct outcome *outcome;
};

struct run {
    const struct runs *runs;
    char out_dir[PATH_BYTES];
    bool resume;
    /* Bad memory of a rank in that step (0: none), at a value; then logs come every logging_steps. */
    int flip_rank, flip_step, logging_steps;
    int64_t flip_value;
};

static void saving_point(const struct run *r)
{
    struct outcome *out = r->runs->outcome;
    if (out->n_saving < MAX_SAVING)
        out->saving[out->n_saving++] = out->result.ranks[0].n_points + 1;
    sim_point();
}

static enum status add_files(void *user, const char *dir, int32_t stage, int64_t step, struct err *err)
{
    char path[PATH_BYTES];
    saving_point(user);
    TRY(path_join(path, dir, "adapter_config.json", err));
    TRY(file_write(path, adapter_config, strlen(adapter_config), err));
    saving_point(user);
    return ST_OK;
}

static enum status committed(void *user, const char *dir, int32_t stage, int64_t step, bool final,
                             struct err *err)
{
    const struct run *r = user;
    r->runs->outcome->committed_step = step;
    saving_point(r);
    return ST_OK;
}

static struct train_options train_options_of(const struct run *r)
{
    struct train_options o = {.stage = 1,
                              .batch_train = 5,
                              .grad_accum = 2,
                              .seed = 42,
                              .shuffle = true,
                              .share_prefix = true,
                              .max_steps = STEPS,
                              .lr = 1e-2,
                              .warmup_ratio = 0.1,
                              .weight_decay = 0.01,
                              .max_grad_norm = 1,
                              .adam_beta1 = 0.9,
                              .adam_beta2 = 0.999,
                              .adam_epsilon = 1e-8,
                              .schedule = SCHEDULE_COSINE,
                              .virtual_shards = 8,
                              .logging_steps = 1,
                              .eval_steps = 3,
                              .save_steps = 2,
                              .keep_checkpoints = 2,
                              .max_pack_tokens = 64,
                              .resume = r->resume};
    if (r->flip_step > 0) {
        o.eval_steps = 0;
        o.logging_steps = r->logging_steps;
    }
    memcpy(o.out_dir, r->out_dir, sizeof o.out_dir);
    return o;
}

static void body(struct comm *c, void *user)
{
    struct run *r = user;
    struct outcome *out = r->runs->outcome;
    struct tiny tiny;
    struct train_result result;
    struct err err = ERR_INIT;
    tiny_open(&tiny, "cpu", config, NEW_FIRST, VOCAB - NEW_FIRST, false, 2, 77);
    struct train_options o = train_options_of(r);
    struct train_context context = {.comm = c,
                                    .ops = tiny.ops,
                                    .dev = tiny.dev,
                                    .model = tiny.model,
                                    .params = &tiny.params,
                                    .values = tiny.values,
                                    .files = {.add_files = add_files, .committed = committed, .user = r}};
    enum status st = ST_OK;
    if (r->flip_step > 0 && c->rank == r->flip_rank)
        flip_install(c, r->flip_step, tiny.values + r->flip_value % tiny.params.n_values);
    if (c->rank == 0)
        st = pack_open(&context.pack, r->runs->pack_path, &context.pack_info, &err);
    st = comm_agree(c, st, &err);
    if (st == ST_OK)
        st = c->ops->bcast(c, 0, &context.pack_info, sizeof context.pack_info, &err);
    if (st == ST_OK)
        st = train_stage(&context, &o, &result, &err);
    out->status[c->rank] = st;
    snprintf(out->what[c->rank], sizeof out->what[c->rank], "%.290s", err.what);
    pack_close(context.pack);
    tiny_close(&tiny);
    comm_close(c);
}

/* One simulation in a child. False when the child did not come to its end. */
static bool run_in_child(struct runs *all, struct run *r, const struct sim_options *o)
{
    int status = 0;
    memset(all->outcome, 0, sizeof *all->outcome);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        sim_run(o, body, r, &all->outcome->result);
        _exit(0);
    }
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static struct sim_options sim_options_of(int world_size)
{
    return (struct sim_options){.world_size = world_size,
                                .ranks_a_host = 2,
                                .seed = (uint64_t)world_size * 7919,
                                .timeout_s = TIMEOUT_S,
                                .limit_s = 200 * TIMEOUT_S,
                                .chunk_bytes = 1000,
                                .stack_bytes = 4 << 20};
}

static bool complain(const struct sim_options *o, const struct outcome *out, const char *why)
{
    static const char *const names[] = {"alive", "returned", "fatal", "killed", "hung"};
    fprintf(stderr, "training on %d simulated ranks: %s\n", o->world_size, why);
    for (int r = 0; r < o->world_size; r++)
        fprintf(stderr, "  rank %d: %s at %.3f s, %" PRId64 " points; status %d %s%s\n", r,
                names[out->result.ranks[r].end], out->result.ranks[r].at_s, out->result.ranks[r].n_points,
                (int)out->status[r], out->what[r], out->result.ranks[r].err.what);
    if (o->n_faults > 0)
        fprintf(stderr, "  again: SMGPT_SIM_SEED=%d:%d:%" PRId64 "\n", o->world_size, o->faults[0].rank,
                o->faults[0].point);
    return false;
}

static bool all_trained(const struct sim_options *o, const struct outcome *out)
{
    for (int r = 0; r < o->world_size; r++)
        if (out->result.ranks[r].end != SIM_RETURNED || out->status[r] != ST_OK)
            return complain(o, out, "a rank did not train to the end");
    return true;
}

static bool same_files(const struct runs *all, const char *dir)
{
    static const char *const names[] = {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt",
                                        "trainer_state.json"};
    bool same = true;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && same; i++) {
        struct buf x = BUF_INIT, y = BUF_INIT;
        char a[PATH_BYTES], b[PATH_BYTES], name[100];
        struct err err = ERR_INIT;
        snprintf(name, sizeof name, "checkpoint-%d/%s", STEPS, names[i]);
        same = path_join(a, scratch_path(&all->scratch, "straight"), name, &err) == ST_OK &&
               path_join(b, dir, name, &err) == ST_OK && file_read(a, 1 << 24, &x, &err) == ST_OK &&
               file_read(b, 1 << 24, &y, &err) == ST_OK;
        if (!same)
            fprintf(stderr, "%s\n", err.what);
        else if (x.n_bytes < 100 || x.n_bytes != y.n_bytes || memcmp(x.data, y.data, x.n_bytes) != 0) {
            fprintf(stderr, "%s differs from the straight run's\n", b);
            same = false;
        }
        buf_release(&x);
        buf_release(&y);
    }
    return same;
}

/* The killed rank's peers: silence is found, the right one is named, nobody hangs. */
static bool judge_kill(const struct sim_options *o, const struct outcome *out)
{
    char why[400];
    const struct sim_result *result = &out->result;
    double struck_s = result->ranks[o->faults[0].rank].stopped_at_s;
    if (result->ranks[o->faults[0].rank].end != SIM_KILLED)
        return complain(o, out, "the fault did not strike");
    for (int r = 0; r < o->world_size; r++) {
        const struct sim_rank_end *e = &result->ranks[r];
        if (e->end == SIM_HUNG)
            return complain(o, out, "a rank hangs");
        if (e->end == SIM_RETURNED && out->status[r] != ST_OK)
            return complain(o, out, "a rank returned with a failure");
        if (e->end != SIM_FATAL)
            continue;
        if (e->err.status != ST_ENV || !sim_blame_is_right(o, result, r, why, sizeof why))
            return complain(o, out, "a rank ended for a wrong reason");
        if (e->at_s > struck_s + 2 * o->timeout_s * (o->world_size + 2))
            return complain(o, out, "a rank ended late");
    }
    return true;
}

/* What is left behind: everything that was reported as saved, or something newer. */
static bool judge_newest(const struct sim_options *o, const struct outcome *out, const char *dir,
                         struct train_counts *counts)
{
    char path[PATH_BYTES];
    int64_t step = -1;
    struct err err = ERR_INIT;
    if (dir_exists(dir) && ckpt_newest(dir, path, &step, &err) != ST_OK)
        return complain(o, out, err.what);
    if (out->committed_step > 0 && step < out->committed_step)
        return complain(o, out, "a checkpoint that was saved is gone or not whole");
    counts->n_from_checkpoint += step > 0;
    return true;
}

static bool kill_and_resume(struct runs *all, struct sim_options o, int rank, int64_t point,
                            struct train_counts *counts)
{
    struct run r = {.runs = all};
    struct err err = ERR_INIT;
    snprintf(r.out_dir, sizeof r.out_dir, "%s", scratch_path(&all->scratch, "killed"));
    o.n_faults = 1;
    o.faults[0] = (struct sim_fault){.rank = rank, .point = point, .stop_s = INFINITY};
    if (!run_in_child(all, &r, &o))
        return complain(&o, all->outcome, "the process of the simulation broke down");
    counts->n_kills++;
    if (!judge_kill(&o, all->outcome) || !judge_newest(&o, all->outcome, r.out_dir, counts))
        return false;
    struct sim_options again = sim_options_of(1 + (int)((o.world_size + point) % 5));
    r.resume = true;
    if (!run_in_child(all, &r, &again))
        return complain(&o, all->outcome, "the process that goes on broke down");
    if (!all_trained(&again, all->outcome) || !same_files(all, r.out_dir))
        return complain(&o, all->outcome, "the run that went on is not the straight one");
    return dir_remove(r.out_dir, &err) == ST_OK;
}

/* Trains to the end: how many points each rank has. */
static bool train_whole(struct runs *all, const struct sim_options *o, const char *name)
{
    struct run r = {.runs = all};
    snprintf(r.out_dir, sizeof r.out_dir, "%s", scratch_path(&all->scratch, name));
    if (!run_in_child(all, &r, o))
        return complain(o, all->outcome, "the process of the simulation broke down");
    return all_trained(o, all->outcome) && same_files(all, r.out_dir);
}

static bool kills_run(struct runs *all, int world_size, int64_t stride, struct train_counts *counts)
{
    struct sim_options o = sim_options_of(world_size);
    char name[40];
    int64_t n_points[SIM_MAX_RANKS], saving[MAX_SAVING];
    snprintf(name, sizeof name, "whole-%d", world_size);
    if (!train_whole(all, &o, name))
        return false;
    for (int r = 0; r < world_size; r++)
        n_points[r] = all->outcome->result.ranks[r].n_points;
    int n_saving = all->outcome->n_saving;
    memcpy(saving, all->outcome->saving, sizeof saving);
    for (int i = 0; i < n_saving; i++)
        if (!kill_and_resume(all, o, 0, saving[i], counts))
            return false;
    for (int r = 0; r < world_size; r++)
        for (int64_t point = 1 + (r * stride) / world_size; point <= n_points[r]; point += stride)
            if (!kill_and_resume(all, o, r, point, counts))
                return false;
    return true;
}

/* The one that the environment asks for. */
static bool replay(struct runs *all, const char *text, struct train_counts *counts)
{
    int world_size = 0, rank = 0;
    int64_t point = 0;
    if (sscanf(text, "%d:%d:%" SCNd64, &world_size, &rank, &point) != 3 || world_size < 1 ||
        world_size > SIM_MAX_RANKS) {
        fprintf(stderr, "SMGPT_SIM_SEED is \"%s\", not <world size>:<rank>:<point>\n", text);
        return false;
    }
    return kill_and_resume(all, sim_options_of(world_size), rank, point, counts);
}

static bool runs_open(struct runs *all)
{
    const struct small_pack pack = {.n_rows = {41, 11},
                                    .vocab = VOCAB,
                                    .new_first = NEW_FIRST,
                                    .strange_id = -1,
                                    .labelled = true,
                                    .seed = 9};
    memset(all, 0, sizeof *all);
    scratch_open(&all->scratch);
    snprintf(all->pack_path, sizeof all->pack_path, "%s", scratch_path(&all->scratch, "pack.h5"));
    small_pack_write(all->pack_path, &pack);
    void *p = mmap(NULL, sizeof *all->outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    all->outcome = p != MAP_FAILED ? p : NULL;
    return all->outcome != NULL;
}

static void runs_close(struct runs *all)
{
    if (all->outcome != NULL)
        munmap(all->outcome, sizeof *all->outcome);
    scratch_close(&all->scratch);
}

/* Everybody fails alike, in time, with the rank's name; nothing from after the fault is left on disk. */
static bool judge_flip(const struct run *r, const struct sim_options *o, const struct outcome *out)
{
    char text[64], path[PATH_BYTES];
    int64_t step = -1;
    int found = r->flip_step;
    struct err err = ERR_INIT;
    while (found % r->logging_steps != 0 && found % 2 != 0 && found != STEPS)
        found++; /* saved every second step and at the end */
    snprintf(text, sizeof text, "rank %d on ", r->flip_rank);
    for (int k = 0; k < o->world_size; k++)
        if (out->result.ranks[k].end != SIM_RETURNED || out->status[k] != ST_ENV ||
            strncmp(out->what[k], text, strlen(text)) != 0 || strcmp(out->what[k], out->what[0]) != 0)
            return complain(o, out, "a bit turned over, and a rank did not say so");
    snprintf(text, sizeof text, "after step %d the values of ", found);
    if (strstr(out->what[0], text) == NULL)
        return complain(o, out, "the wrong step is named");
    if (dir_exists(r->out_dir))
        ckpt_newest(r->out_dir, path, &step, &err);
    return step < r->flip_step ? true : complain(o, out, "a damaged state was saved");
}

static bool flips_run(struct runs *all, int n_flips)
{
    struct err err = ERR_INIT;
    for (int i = 0; i < n_flips; i++) {
        struct sim_options o = sim_options_of(3 + i % 6); /* of two, nobody can tell which is wrong */
        struct run r = {.runs = all,
                        .flip_rank = (i * 5 + 1) % o.world_size,
                        .flip_step = 1 + i % STEPS,
                        .logging_steps = 1 + i % 4,
                        .flip_value = 7919 * (int64_t)i};
        o.seed += (uint64_t)i;
        snprintf(r.out_dir, sizeof r.out_dir, "%s", scratch_path(&all->scratch, "flipped"));
        if (!run_in_child(all, &r, &o))
            return complain(&o, all->outcome, "the process of the simulation broke down");
        if (!judge_flip(&r, &o, all->outcome) || dir_remove(r.out_dir, &err) != ST_OK)
            return false;
    }
    return true;
}

bool train_flips_run(int n_flips)
{
    struct runs all;
    bool good = runs_open(&all) && flips_run(&all, n_flips);
    runs_close(&all);
    return good;
}

bool train_kills_run(const int *world_sizes, int n_world_sizes, int64_t stride, struct train_counts *counts)
{
    struct runs all;
    const char *only = getenv("SMGPT_SIM_SEED");
    memset(counts, 0, sizeof *counts);
    struct sim_options one = sim_options_of(1);
    bool good = runs_open(&all) && train_whole(&all, &one, "straight");
    if (good && only != NULL && only[0] != '\0')
        good = replay(&all, only, counts);
    else
        for (int i = 0; i < n_world_sizes && good; i++)
            good = kills_run(&all, world_sizes[i], stride, counts);
    runs_close(&all);
    return good;
}
