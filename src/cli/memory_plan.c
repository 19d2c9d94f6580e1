#include "memory_plan.h"
#include "machine.h"

#include <string.h>
#include <sys/mman.h>

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
    return weight_files(&p->weight_files, model_dir, err);
}

static enum status workspace(struct memory_plan *p, const struct assembly *s, const struct memory_question *q,
                             struct err *err)
{
    p->room_tokens = model_capacity(s->model, 0, q->train_longest);
    p->room_tokens = model_capacity(s->model, p->room_tokens, q->eval_longest);
    p->workspace = model_workspace_bytes(s->model, p->room_tokens, q->n_positions, true);
    return p->workspace ? ST_OK : err_memory(err, "a plan", 0);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void add_up(struct memory_plan *p, int n_local)
{
    size_t shared = p->weights - p->weights_unused + p->weights_packed;
    size_t own = p->train.values + p->train.moments + p->train.gradient + p->train.sums + p->workspace;
    size_t base = p->program + p->rank0_extra;
    p->reading = base + p->weights + p->weight_files;
    p->packing = base + p->weights + p->weights_packed;
    p->training = base + shared + own + p->train.save_copy;
    p->peak_rank0 = larger(p->training, larger(p->reading, p->packing));
    p->peak_other = larger(p->program + p->weights + p->weights_packed, p->program + shared + own);
    size_t others = (size_t)(n_local - 1);
    p->host = larger(p->reading, p->training + others * (p->program + own));
}

enum status memory_plan_make(struct memory_plan *out, const struct stage_ready *stage,
                             const struct memory_question *q, struct err *err)
{
    const struct assembly *s = stage->model;
    *out = (struct memory_plan){.program = q->program, .rank0_extra = q->rank0_extra};
    TRY(train_memory(&out->train, &s->params, stage->options->virtual_shards, q->n_ranks, 0, err));
    TRY(weight_bytes(out, s, stage->model_dir, err));
    TRY(workspace(out, s, q, err));
    add_up(out, q->n_local);
    return ST_OK;
}
