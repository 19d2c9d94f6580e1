#include "memory_plan.h"
#include "model/cost.h"
#include "util/clock.h"

#include <string.h>
#include <sys/mman.h>

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Sum of the sizes of a model directory's weight files. */
static enum status weight_files(size_t *n_bytes, const char *dir, struct err *err)
{
    char **names = NULL, path[PATH_BYTES];
    int n = 0;
    *n_bytes = 0;
    TRY(dir_list(dir, &names, &n, err));
    enum status st = ST_OK;
    for (int i = 0; i < n && st == ST_OK; i++) {
        int64_t size = 0;
        const char *end = strrchr(names[i], '.');
        if (!end || strcmp(end, ".safetensors") != 0)
            continue;
        st = path_join(path, dir, names[i], err);
        if (st == ST_OK)
            st = file_size(path, &size, err);
        *n_bytes += (size_t)size;
    }
    names_free(names, n);
    return st;
}

/* Which part of the weights only their packed forms replace is known once they are bound: to addresses that
 * are taken and never touched. */
static enum status unused_part(struct memory_plan *p, const struct assembly *s, struct err *err)
{
    struct weights w;
    size_t n_bytes = p->weights + p->weights_packed + 64;
    void *base = mmap(NULL, n_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return err_memory(err, "addresses for the weights", n_bytes);
    struct weights_memory m = {.block = base,
                               .packed = (char *)base + (p->weights + 63) / 64 * 64,
                               .part = -1, /* nobody's share: nothing is packed */
                               .n_parts = 1};
    enum status st = weights_bind(&w, &s->arch, s->matrix, &m, s->ops, s->dev, err);
    p->weights_unused = w.unused_bytes;
    weights_release(&w, s->ops, s->dev);
    munmap(base, n_bytes);
    return st;
}

static enum status weight_bytes(struct memory_plan *p, const struct assembly *s, const char *model_dir,
                                struct err *err)
{
    p->weights = weights_block_bytes(&s->arch, s->matrix);
    if (!p->weights)
        return err_memory(err, "the list of weights", 0);
    TRY(weights_packed_bytes(&p->weights_packed, &s->arch, s->matrix, s->ops, s->dev, err));
    TRY(unused_part(p, s, err));
    for (int32_t g = 0; g < weights_n_groups(&s->arch); g++) {
        struct weights_place place;
        TRY(weights_group_place(&place, &s->arch, s->matrix, g, err));
        p->weights_step = larger(p->weights_step, place.n_bytes);
    }
    return weight_files(&p->weight_files, model_dir, err);
}

static enum status workspace(struct memory_plan *p, const struct assembly *s, const struct memory_question *q,
                             struct err *err)
{
    p->room_tokens = model_capacity(s->model, 0, q->train_longest);
    p->room_tokens = model_capacity(s->model, p->room_tokens, q->eval_longest);
    p->n_layers = s->arch.n_layers;
    p->workspace_kept = model_workspace_bytes(s->model, p->room_tokens, q->n_positions, true, 0);
    p->workspace_again =
        model_workspace_bytes(s->model, p->room_tokens, q->n_positions, true, p->n_layers - 1);
    return p->workspace_kept && p->workspace_again ? ST_OK : err_memory(err, "a plan", 0);
}

static size_t shared_bytes(const struct memory_plan *p)
{
    return p->weights - p->weights_unused + p->weights_packed;
}

/* Of each rank, beside its workspace and the program. */
static size_t vector_bytes(const struct memory_plan *p)
{
    return p->train.values + p->train.moments + p->train.gradient + p->train.sums;
}

/* What the ranks of the first host take beside their workspaces. */
static size_t beside_workspaces(const struct memory_plan *p, int n_local)
{
    return shared_bytes(p) + p->rank0_extra + p->train.save_copy +
           (size_t)n_local * (p->program + vector_bytes(p));
}

size_t memory_plan_budget(const struct memory_plan *p, int64_t limit, int n_local)
{
    const size_t beside = beside_workspaces(p, n_local);
    return (size_t)limit > beside + (size_t)n_local ? ((size_t)limit - beside) / (size_t)n_local : 1;
}

/* How many layers are computed again below the limit. */
static void choose(struct memory_plan *p, struct model *m, const struct memory_question *q)
{
    model_set_budget(m, memory_plan_budget(p, q->limit, q->n_local));
    p->n_again = model_layers_again(m, p->room_tokens, q->n_positions);
    p->fits = p->n_again >= 0 && (size_t)q->limit >= p->needed;
    if (p->n_again < 0)
        p->n_again = p->n_layers - 1;
    p->workspace = model_workspace_bytes(m, p->room_tokens, q->n_positions, true, p->n_again);
}

static void add_up(struct memory_plan *p, struct model *m, const struct memory_question *q)
{
    const size_t base = p->program + p->rank0_extra, n_local = (size_t)q->n_local;
    const size_t others = (n_local - 1) * p->program, beside = beside_workspaces(p, q->n_local);
    /* Beside what stays, a layer that is being packed and will go. */
    const size_t packing = base + shared_bytes(p) + p->weights_unused / (size_t)p->n_layers;
    p->reading = packing + (size_t)((double)p->weight_files * (double)p->weights_step / (double)p->weights);
    p->needed = larger(packing + others, beside + n_local * p->workspace_again);
    choose(p, m, q);
    const size_t own = shared_bytes(p) + vector_bytes(p) + p->workspace;
    p->training = base + own + p->train.save_copy;
    p->peak_rank0 = larger(p->training, p->reading);
    p->peak_other = p->program + own;
    p->host = larger(p->reading + others, beside + n_local * p->workspace);
}

enum status memory_plan_make(struct memory_plan *out, const struct stage_ready *stage,
                             const struct memory_question *q, struct err *err)
{
    const struct assembly *s = stage->model;
    *out = (struct memory_plan){.program = q->program, .rank0_extra = q->rank0_extra};
    TRY(train_memory(&out->train, &s->params, model_stem_values(&s->arch, q->stem),
                     stage->options->virtual_shards, q->n_ranks, 0, err));
    TRY(weight_bytes(out, s, stage->model_dir, err));
    TRY(workspace(out, s, q, err));
    add_up(out, s->model, q);
    return ST_OK;
}

enum status memory_plan_limit(int64_t *out, const struct options *o, struct err *err)
{
    TRY(options_bytes(o->memory_limit, "memory_limit", out, err));
    if (*out == 0)
        *out = memory_limit_bytes() / 16 * 15; /* the rest is the system's */
    return ST_OK;
}
