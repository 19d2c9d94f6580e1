/* Base model and adapter, from files on rank 0 to a model on every rank. Rank 0 alone reads; config.json's
 * text travels to all, the weights to one block a host, packed there for the products. */
#include "assemble.h"
#include "checkpoint/safetensors.h"
#include "train/adapter.h"
#include "train/base_weights.h"
#include "util/log.h"

#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX_BYTES (4 << 20)

/* Text of rank 0 to all. */
static enum status bcast_text(struct comm *comm, struct buf *text, struct err *err)
{
    uint64_t n = text->n_bytes;
    TRY(comm->ops->bcast(comm, 0, &n, sizeof n, err));
    if (comm->rank != 0) {
        buf_clear(text);
        enum status st = buf_reserve(text, n, err);
        if (st != ST_OK)
            return st;
        text->n_bytes = n;
    }
    return n ? comm->ops->bcast(comm, 0, text->data, n, err) : ST_OK;
}

/* Hash of what the tensors are and of a sample of their bytes: enough to notice another model, cheap for
 * large ones. */
static void fingerprint(const struct buf *config, const struct tensor_list *l, char hex[SHA256_HEX_BYTES])
{
    struct sha256 h;
    sha256_init(&h);
    sha256_update(&h, config->data, config->n_bytes);
    for (int i = 0; i < l->n_items; i++) {
        const struct tensor *t = &l->items[i];
        sha256_update(&h, t->name, strlen(t->name) + 1);
        sha256_update(&h, &t->dtype, sizeof t->dtype);
        sha256_update(&h, t->dims, (size_t)t->n_dims * sizeof *t->dims);
        size_t head = t->n_bytes < 4096 ? t->n_bytes : 4096;
        sha256_update(&h, t->data, head);
        sha256_update(&h, (const char *)t->data + t->n_bytes - head, head);
    }
    sha256_hex(&h, hex);
}

static enum status read_config(struct assembly *s, const char *dir, struct buf *text, struct err *err)
{
    char path[PATH_BYTES] = "config.json";
    enum status st = ST_OK;
    if (s->comm->rank == 0) {
        st = path_join(path, dir, "config.json", err);
        if (st == ST_OK && !dir_exists(dir)) {
            st = err_set(err, ST_INPUT, "model directory '%s' does not exist", dir);
            err_hint(err,
                     "set `model` to a directory with config.json, model.safetensors and tokenizer.json");
        }
        if (st == ST_OK)
            st = file_read(path, CONFIG_MAX_BYTES, text, err);
    }
    TRY(comm_agree(s->comm, st, err));
    TRY(comm_agree(s->comm, bcast_text(s->comm, text, err), err));
    return comm_agree(s->comm, arch_parse(&s->arch, text->data, text->n_bytes, path, err), err);
}

/* What reading a model's weights takes. */
struct reading {
    const char *dir;
    struct safetensors files; /* rank 0 */
    int n_threads;
    struct weights_memory memory;
    struct weight_digest *digests; /* [weights_count] where hosts are to be compared, else NULL */
};

/* One group of the weights: rank 0 reads, its host's first rank has it from there, all ranks of a host pack
 * one copy together; then what only the packed form replaces goes before the next group comes. */
static enum status read_group(struct assembly *s, struct reading *r, int32_t group, struct err *err)
{
    struct comm *c = s->comm;
    struct weights_place place;
    const size_t unused = s->weights.unused_bytes;
    enum status st = weights_group_place(&place, &s->arch, s->matrix, group, err);
    if (st == ST_OK && c->rank == 0) {
        st = weights_fill_group(s->block.data, &s->arch, s->matrix, &r->files.tensors, group, r->n_threads,
                                err);
        if (st != ST_OK)
            err_where(err, "%s", r->dir);
        safetensors_forget(&r->files);
    }
    TRY(comm_agree(c, st, err));
    TRY(c->ops->bcast_nodes(c, (char *)s->block.data + place.from, place.n_bytes, err));
    TRY(c->ops->barrier(c, err));
    st = weights_bind_group(&s->weights, s->matrix, &r->memory, group, s->ops, s->dev, err);
    TRY(comm_agree(c, st, err)); /* a barrier too: all have packed */
    if (r->digests) {
        st = weights_digest_group(r->digests, &s->arch, s->matrix, &r->memory, group, s->ops, s->dev, err);
        TRY(comm_agree(c, st, err));
    }
    c->ops->shared_forget(c, &s->block, unused, s->weights.unused_bytes - unused);
    return ST_OK;
}

static enum status read_groups(struct assembly *s, struct reading *r, const struct buf *config,
                               struct err *err)
{
    struct comm *c = s->comm;
    enum status st = weights_open(&s->weights, &s->arch, err);
    if (st == ST_OK && c->n_nodes > 1) {
        const size_t n = (size_t)weights_count(&s->arch);
        r->digests = calloc(n, sizeof *r->digests);
        if (!r->digests)
            st = err_memory(err, "digests of the weights", n * sizeof *r->digests);
    }
    if (st == ST_OK && c->rank == 0)
        st = safetensors_open_model(&r->files, r->dir, err);
    TRY(comm_agree(c, st, err));
    if (c->rank == 0) {
        tensor_list_sort(&r->files.tensors);
        fingerprint(config, &r->files.tensors, s->model_sha256);
    }
    TRY(c->ops->bcast(c, 0, s->model_sha256, sizeof s->model_sha256, err));
    for (int32_t g = 0; g < weights_n_groups(&s->arch); g++)
        TRY(read_group(s, r, g, err));
    return base_weights_check(c, &s->arch, r->digests, err);
}

static enum status read_weights(struct assembly *s, const struct options *o, const char *dir,
                                const struct buf *config, struct err *err)
{
    struct comm *c = s->comm;
    size_t bytes = weights_block_bytes(&s->arch, s->matrix), packed_bytes = 0;
    TRY(comm_agree(c, bytes ? ST_OK : err_memory(err, "the list of weights", 0), err));
    TRY(comm_agree(c, weights_packed_bytes(&packed_bytes, &s->arch, s->matrix, s->ops, s->dev, err), err));
    TRY(c->ops->shared_alloc(c, bytes + packed_bytes, &s->block, err));
    struct reading r = {.dir = dir,
                        .n_threads = (int)o->threads,
                        .memory = {.block = s->block.data,
                                   .packed = (char *)s->block.data + bytes,
                                   .part = c->local_rank,
                                   .n_parts = c->local_size}};
    enum status st = read_groups(s, &r, config, err);
    safetensors_close(&r.files);
    free(r.digests);
    return st;
}

/* Ranks on unlike instruction sets would make the bits depend on who computes what, and those of one host
 * could not share packed weights. */
static enum status same_device(const struct assembly *s, struct err *err)
{
    struct comm_other other;
    const char *mine = s->ops->describe(s->dev);
    TRY(comm_compare(s->comm, mine, strlen(mine), &other, err));
    enum status st = ST_OK;
    if (other.rank >= 0) {
        st = err_set(err, ST_ENV, "rank %d on %s computes with %.*s, rank 0 on %s with %s", other.rank,
                     other.host, (int)other.data.n_bytes, other.data.data, s->comm->host, mine);
        err_hint(err, "set cpu_path on all ranks to a path that all processors have, as cpu_path=avx2");
    }
    buf_release(&other.data);
    return comm_agree(s->comm, st, err);
}

/* Whether all matrices of the model's files are bfloat16. Files that cannot be read are reported when their
 * weights are wanted. */
static bool files_are_bf16(const char *dir)
{
    struct safetensors files = {0};
    struct err unused = ERR_INIT;
    bool all = safetensors_open_model(&files, dir, &unused) == ST_OK;
    for (int32_t i = 0; all && i < files.tensors.n_items; i++)
        all = files.tensors.items[i].n_dims < 2 || files.tensors.items[i].dtype == DT_BF16;
    safetensors_close(&files);
    return all;
}

/* What matrices are kept in: the type of the products' operands, but never wider than the files' own, since
 * widening brings no digit back. Collective. */
static enum status choose_matrix(struct assembly *s, bool bf16, const char *dir, struct err *err)
{
    int32_t narrow = bf16;
    if (s->comm->rank == 0 && !bf16)
        narrow = files_are_bf16(dir);
    TRY(s->comm->ops->bcast(s->comm, 0, &narrow, sizeof narrow, err));
    s->matrix = narrow ? DT_BF16 : DT_F32;
    return ST_OK;
}

/* Device and architecture; config: its text. */
static enum status open_shape(struct assembly *s, struct comm *comm, const struct options *o, const char *dir,
                              struct buf *config, struct err *err)
{
    *s = (struct assembly){.comm = comm};
    bool bf16 = strcmp(o->compute, "bfloat16") == 0;
    struct device_options d = {
        .n_threads = (int)o->threads, .cpu_path = o->cpu_path, .compute = bf16 ? COMPUTE_BF16 : COMPUTE_F32};
    s->ops = ops_by_name(strcmp(o->cpu_path, "reference") == 0 ? "reference" : "cpu");
    TRY(comm_agree(comm, s->ops->open(&s->dev, &d, err), err));
    TRY(same_device(s, err));
    TRY(choose_matrix(s, bf16, dir, err));
    return read_config(s, dir, config, err);
}

enum status assembly_open_shape(struct assembly *s, struct comm *comm, const struct options *o,
                                const char *dir, struct err *err)
{
    struct buf config = BUF_INIT;
    enum status st = open_shape(s, comm, o, dir, &config, err);
    buf_release(&config);
    return st;
}

enum status assembly_open(struct assembly *s, struct comm *comm, const struct options *o, const char *dir,
                          struct err *err)
{
    struct buf config = BUF_INIT;
    enum status st = open_shape(s, comm, o, dir, &config, err);
    if (st == ST_OK)
        st = read_weights(s, o, dir, &config, err);
    buf_release(&config);
    return st;
}

enum status assembly_params(struct assembly *s, const struct lora_config *lora, int64_t new_first,
                            int64_t n_new, bool untied_rows, struct err *err)
{
    TRY(params_init(&s->params, &s->arch, lora, new_first, n_new, untied_rows, err));
    s->params.base_embed = &s->weights.embed;
    s->params.base_head = &s->weights.head;
    size_t bytes = (size_t)s->params.n_values * sizeof *s->values;
    s->values = s->ops->alloc(s->dev, bytes ? bytes : sizeof *s->values);
    if (!s->values)
        return err_memory(err, "the trainable values", bytes);
    struct model_config c = {
        .ops = s->ops, .dev = s->dev, .arch = &s->arch, .weights = &s->weights, .params = &s->params};
    TRY(model_open(&s->model, &c, err));
    model_set_values(s->model, s->values);
    return ST_OK;
}

void assembly_close(struct assembly *s)
{
    if (!s->ops || !s->dev)
        return;
    model_close(s->model);
    if (s->values)
        s->ops->release(s->dev, s->values);
    params_release(&s->params);
    weights_release(&s->weights, s->ops, s->dev);
    if (s->block.data)
        s->comm->ops->shared_release(s->comm, &s->block);
    s->ops->close(s->dev);
    *s = (struct assembly){0};
}

static enum status add_target(struct lora_config *lora, const char *name, size_t n, struct err *err)
{
    for (int p = 0; p < N_PROJ; p++)
        if (strlen(proj_name((enum proj)p)) == n && strncmp(proj_name((enum proj)p), name, n) == 0) {
            lora->target[p] = true;
            return ST_OK;
        }
    err_set(err, ST_USAGE, "LoRA target '%.*s' is not a projection of these models", (int)n, name);
    return err_hint(err, "targets are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj");
}

enum status lora_from_options(struct lora_config *lora, const struct options *o, struct err *err)
{
    *lora = (struct lora_config){.r = (int32_t)o->lora_r, .alpha = o->lora_alpha};
    return options_lora_targets(o, lora->target, err);
}

enum status lora_from_adapter(struct lora_config *lora, const struct adapter_config *c, struct err *err)
{
    *lora = (struct lora_config){.r = c->r, .alpha = c->alpha, .use_rslora = c->use_rslora};
    for (int32_t i = 0; i < c->n_targets; i++)
        TRY(add_target(lora, c->targets[i], strlen(c->targets[i]), err));
    return ST_OK;
}

static enum status open_adapter(struct assembly *s, const char *dir, struct err *err)
{
    struct adapter_config c = {0};
    struct lora_config lora;
    struct adapter_rows rows = {0};
    TRY(adapter_config_read(&c, dir, err));
    enum status st = lora_from_adapter(&lora, &c, err);
    if (st == ST_OK)
        st = rows_from_adapter(&rows, &c, s->arch.tied, dir, err);
    if (st == ST_OK && c.modules_to_save_embed)
        st = adapter_whole_rows(dir, &s->weights.embed, &s->weights.head, &rows.first, &rows.n, err);
    adapter_config_release(&c);
    TRY(st);
    TRY(assembly_params(s, &lora, rows.n ? rows.first : s->arch.n_embed_rows, rows.n, rows.apart, err));
    float *host = malloc((size_t)s->params.n_values * sizeof *host + 1);
    if (!host)
        return err_memory(err, "an adapter", (size_t)s->params.n_values * sizeof *host);
    st = adapter_read(dir, &s->params, host, err);
    if (st == ST_OK) {
        s->ops->upload(s->dev, s->values, host, (size_t)s->params.n_values * sizeof *host);
        s->ops->sync(s->dev);
    }
    free(host);
    return st;
}

enum status assembly_open_path(struct assembly *s, struct comm *comm, const struct options *o,
                               const struct model_path *path, struct err *err)
{
    TRY(assembly_open(s, comm, o, path->model_dir, err));
    if (path->adapter_dir[0])
        return open_adapter(s, path->adapter_dir, err);
    struct lora_config none = {0};
    return assembly_params(s, &none, s->arch.n_embed_rows, 0, false, err);
}
