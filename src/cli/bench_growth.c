/* Cost of a forward and backward pass over made-up rows, one size growing at a time. */
#include "bench.h"
#include "data/batch.h"
#include "stage_files.h"
#include "util/clock.h"
#include "util/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REPEATS = 3, MAX_ROWS = 64, LABELS = 24 };

struct made_rows {
    int32_t n_rows, n_prefix, n_own; /* tokens that all rows begin with; tokens of each row behind them */
    int32_t *ids, *labels;
    struct batch_row items[MAX_ROWS];
};

static enum status rows_make(struct made_rows *r, int64_t vocabulary, struct err *err)
{
    int32_t each = r->n_prefix + r->n_own;
    size_t n = (size_t)r->n_rows * (size_t)each;
    r->ids = calloc(n, sizeof *r->ids);
    r->labels = calloc(n, sizeof *r->labels);
    if (!r->ids || !r->labels)
        return err_memory(err, "made-up rows", 2 * n * sizeof *r->ids);
    for (int32_t i = 0; i < r->n_rows; i++)
        for (int32_t t = 0; t < each; t++) {
            int64_t at = (int64_t)i * each + t, which = t < r->n_prefix ? t : at + r->n_prefix;
            r->ids[at] = (int32_t)(rng_u64(7, RNG_TEST, 0, (uint64_t)which) % (uint64_t)vocabulary);
            r->labels[at] = each - t <= LABELS ? r->ids[at] : -100;
            r->items[i] = (struct batch_row){r->ids + (int64_t)i * each, r->labels + (int64_t)i * each, each};
        }
    return ST_OK;
}

/* One pass over all sequences: forward, loss, backward. */
static enum status pass(struct model *m, const struct shard *shard, float *grad, struct err *err)
{
    double loss = 0;
    for (int32_t i = 0; i < shard->n_sequences; i++)
        TRY(model_loss(m, &shard->sequences[i], 1e-3F, grad, &loss, NULL, err));
    return ST_OK;
}

static enum status time_rows(double *seconds, struct model_load *load, const struct assembly *s,
                             struct model *m, float *grad, const struct made_rows *rows, bool share,
                             struct err *err)
{
    struct shard shard;
    *seconds = INFINITY;
    *load = (struct model_load){0};
    TRY(shard_make(&shard, rows->items, rows->n_rows, 0, STAGE_PACK_TOKENS, share, err));
    for (int32_t i = 0; i < shard.n_sequences; i++)
        model_load_add(load, &shard.sequences[i], NULL, 0, &s->arch, &s->params);
    model_set_reuse(m, false);                   /* or only the first pass would run its prefixes */
    enum status st = pass(m, &shard, grad, err); /* makes room and what else is made once */
    for (int i = 0; i < REPEATS && st == ST_OK; i++) {
        double start = clock_s();
        st = pass(m, &shard, grad, err);
        *seconds = fmin(*seconds, clock_s() - start);
    }
    shard_release(&shard);
    return st;
}

struct growth {
    const struct assembly *s;
    float *grad;
    json_t *out;
};

static enum status add_case(struct growth *g, struct model *m, const char *kind, int64_t value,
                            int64_t vocabulary, struct made_rows rows, struct err *err)
{
    double seconds = 0, apart = 0;
    struct model_load load, load_apart;
    enum status st = rows_make(&rows, vocabulary, err);
    if (st == ST_OK)
        st = time_rows(&seconds, &load, g->s, m, g->grad, &rows, true, err);
    if (st == ST_OK && rows.n_prefix > 0)
        st = time_rows(&apart, &load_apart, g->s, m, g->grad, &rows, false, err);
    free(rows.ids);
    free(rows.labels);
    TRY(st);
    json_t *line = json_pack(
        "{s:s, s:I, s:i, s:I, s:I, s:I, s:f}", "kind", kind, "value", (json_int_t)value, "rows", rows.n_rows,
        "tokens", (json_int_t)rows.n_rows * (rows.n_prefix + rows.n_own), "computed_tokens",
        (json_int_t)load.n_tokens, "labels", (json_int_t)load.n_labels, "seconds", seconds);
    if (line && rows.n_prefix > 0)
        json_object_set_new(line, "seconds_apart", json_real(apart));
    return json_array_append_new(g->out, line) == 0 ? ST_OK : err_memory(err, "the report", 0);
}

static enum status by_rows(struct growth *g, struct err *err)
{
    for (int32_t n = 1; n <= 32; n *= 2)
        TRY(add_case(g, g->s->model, "rows", n, g->s->arch.n_embed_rows,
                     (struct made_rows){.n_rows = n, .n_own = 64}, err));
    return ST_OK;
}

static enum status by_length(struct growth *g, struct err *err)
{
    for (int32_t n = 32; n <= 1024 && n <= g->s->arch.max_positions; n *= 2)
        TRY(add_case(g, g->s->model, "length", n, g->s->arch.n_embed_rows,
                     (struct made_rows){.n_rows = 2, .n_own = n}, err));
    return ST_OK;
}

static enum status by_prefix(struct growth *g, struct err *err)
{
    for (int32_t n = 32; n <= 512 && n + 48 <= g->s->arch.max_positions; n *= 2)
        TRY(add_case(g, g->s->model, "prefix", n, g->s->arch.n_embed_rows,
                     (struct made_rows){.n_rows = 16, .n_prefix = n, .n_own = 48}, err));
    return ST_OK;
}

/* The model with the first rows of its vocabulary alone, and as many new rows as it has. */
struct cut {
    struct arch arch;
    struct weights weights;
    struct params params;
    void *rows, *memory; /* of the head */
    bool prepared;
    float *values, *grad;
    struct model *model;
};

static void cut_close(struct cut *c, const struct assembly *s)
{
    model_close(c->model);
    if (c->prepared)
        s->ops->weight_release(s->dev, &c->weights.head);
    free(c->rows);
    s->ops->release(s->dev, c->memory);
    s->ops->release(s->dev, c->values);
    s->ops->release(s->dev, c->grad);
    params_release(&c->params);
}

/* The first rows of the head, as they stand at the source. */
static enum status cut_rows(struct cut *c, const struct weight *head, struct err *err)
{
    const size_t h = (size_t)head->n_in, row_bytes = h * dtype_bytes(head->dtype);
    const size_t n_bytes = (size_t)c->weights.head.n_out * row_bytes;
    float *row = malloc(h * sizeof *row);
    c->rows = malloc(n_bytes);
    if (c->rows == NULL || row == NULL) {
        free(row);
        return err_memory(err, "rows of a smaller head", n_bytes);
    }
    for (int64_t i = 0; i < c->weights.head.n_out; i++) {
        weight_row(head, i, row);
        dtype_from_f32(head->dtype, row, (char *)c->rows + (size_t)i * row_bytes, h);
    }
    free(row);
    c->weights.head.data = c->rows;
    return ST_OK;
}

static enum status cut_open(struct cut *c, const struct assembly *s, int32_t vocabulary, struct err *err)
{
    size_t n_bytes = 0;
    *c = (struct cut){.arch = s->arch, .weights = s->weights};
    c->arch.n_embed_rows = vocabulary;
    c->weights.arch = &c->arch;
    c->weights.head.n_out = vocabulary;
    c->weights.head.prepared = NULL;
    TRY(cut_rows(c, &s->weights.head, err));
    TRY(s->ops->weight_bytes(s->dev, &n_bytes, vocabulary, s->arch.hidden, s->weights.head.dtype, err));
    c->memory = s->ops->alloc(s->dev, n_bytes + 64);
    if (!c->memory)
        return err_memory(err, "a smaller head", n_bytes);
    TRY(s->ops->weight_prepare(s->dev, &c->weights.head, c->memory, true, err));
    c->prepared = true;
    c->weights.embed.n_out = vocabulary;
    TRY(params_init(&c->params, &c->arch, &s->params.lora, vocabulary, s->params.n_new, s->params.untied_rows,
                    err));
    size_t n_values = (size_t)c->params.n_values * sizeof(float);
    c->values = s->ops->alloc(s->dev, n_values);
    c->grad = s->ops->alloc(s->dev, n_values);
    if (!c->values || !c->grad)
        return err_memory(err, "the trainable values", 2 * n_values);
    struct model_config m = {
        .ops = s->ops, .dev = s->dev, .arch = &c->arch, .weights = &c->weights, .params = &c->params};
    TRY(model_open(&c->model, &m, err));
    model_set_values(c->model, c->values);
    return ST_OK;
}

static enum status by_vocabulary(struct growth *g, struct err *err)
{
    for (int32_t part = 8; part >= 1; part /= 2) {
        struct cut c;
        struct growth of_cut = *g;
        int32_t v = g->s->arch.n_embed_rows / part;
        enum status st = cut_open(&c, g->s, v, err);
        of_cut.grad = c.grad;
        if (st == ST_OK)
            st = add_case(&of_cut, c.model, "vocabulary", v, v, (struct made_rows){.n_rows = 16, .n_own = 64},
                          err);
        cut_close(&c, g->s);
        TRY(st);
    }
    return ST_OK;
}

json_t *bench_growth(const struct assembly *s, struct err *err)
{
    struct growth g = {.s = s, .out = json_array()};
    size_t n_bytes = (size_t)s->params.n_values * sizeof *g.grad;
    g.grad = s->ops->alloc(s->dev, n_bytes);
    enum status st = g.out && g.grad ? ST_OK : err_memory(err, "a gradient", n_bytes);
    if (st == ST_OK)
        st = by_rows(&g, err);
    if (st == ST_OK)
        st = by_length(&g, err);
    if (st == ST_OK)
        st = by_prefix(&g, err);
    if (st == ST_OK)
        st = by_vocabulary(&g, err);
    s->ops->release(s->dev, g.grad);
    if (st == ST_OK)
        return g.out;
    json_decref(g.out);
    return NULL;
}
