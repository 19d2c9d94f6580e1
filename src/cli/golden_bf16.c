/* bfloat16: how far our trajectory is from the float64 one, beside transformers' own distance to it. Single
 * steps say little (rounding errors cancel by chance), so the root mean square and the maximum over all are
 * taken. */
#include "checkpoint/safetensors.h"
#include "golden_internal.h"
#include "train/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[N_BF16_MEASURES] = {"loss", "gradient norm", "final adapter"};

const char *golden_bf16_name(enum bf16_measure m)
{
    return names[m];
}

/* Sums of squares while counting. */
struct spread {
    double sum, max;
    int64_t n;
};

static void spread_add(struct spread *s, double d)
{
    s->sum += d * d;
    if (!(fabs(d) <= s->max))
        s->max = fabs(d);
    s->n++;
}

static struct golden_distance spread_end(const struct spread *s)
{
    return (struct golden_distance){.rms = s->n ? sqrt(s->sum / (double)s->n) : NAN, .max = s->max};
}

/* A list of steps against the float64 one: loss and gradient norm. */
static enum status compare_steps(const json_t *steps, const json_t *exact,
                                 struct golden_distance out[N_BF16_MEASURES], struct err *err)
{
    struct spread loss = {0}, norm = {0};
    if (json_array_size(steps) != json_array_size(exact))
        return err_set(err, ST_INPUT, "a trajectory has %zu steps, the float64 one %zu",
                       json_array_size(steps), json_array_size(exact));
    for (size_t i = 0; i < json_array_size(exact); i++) {
        const json_t *a = json_array_get(steps, i), *b = json_array_get(exact, i);
        spread_add(&loss, golden__field(a, "loss") / golden__field(b, "loss") - 1);
        spread_add(&norm, golden__field(a, "grad_norm") / golden__field(b, "grad_norm") - 1);
    }
    out[BF16_LOSS] = spread_end(&loss);
    out[BF16_GRAD_NORM] = spread_end(&norm);
    return ST_OK;
}

/* Value i of a float32 tensor, which may lie unaligned. */
static float tensor_at(const struct tensor *t, int64_t i)
{
    float x;
    memcpy(&x, (const char *)t->data + (size_t)i * sizeof x, sizeof x);
    return x;
}

/* Parameters by name: values (ours, flat) or the tensors of theirs, against exact. */
static enum status compare_adapters(const struct params *p, const float *values,
                                    const struct tensor_list *theirs, const struct tensor_list *exact,
                                    struct golden_distance *out, struct err *err)
{
    struct spread s = {0};
    for (int32_t k = 0; k < p->n_items; k++) {
        const struct param *item = &p->items[k];
        const struct tensor *e = tensor_list_find(exact, item->name),
                            *t = values ? NULL : tensor_list_find(theirs, item->name);
        int64_t n = item->rows * item->cols;
        if (!e || (!values && !t) || e->dtype != DT_F32 || tensor_count(e) != n ||
            (t && (t->dtype != DT_F32 || tensor_count(t) != n)))
            return err_set(err, ST_INPUT, "tensor '%s' is missing or of another shape in a final adapter",
                           item->name);
        for (int64_t i = 0; i < n; i++)
            spread_add(&s, (double)(values ? values[item->offset + i] : tensor_at(t, i)) - tensor_at(e, i));
    }
    *out = spread_end(&s);
    return ST_OK;
}

static enum status read_steps(struct golden *g, const char *dir, const char *name, json_t **out,
                              struct err *err)
{
    char path[PATH_BYTES];
    TRY(path_join(path, dir, name, err));
    return golden__steps(path, out, err);
}

static enum status open_adapter(struct golden *g, const char *name, struct safetensors *s, struct err *err)
{
    char path[PATH_BYTES];
    TRY(path_join(path, g->dir, name, err));
    return safetensors_open(s, path, err);
}

static enum status their_distance(struct golden *g, const char *kind, const json_t *steps64,
                                  const struct safetensors *final64,
                                  struct golden_distance out[N_BF16_MEASURES], struct err *err)
{
    char log[64], final[64];
    json_t *steps = NULL;
    struct safetensors adapter = {0};
    snprintf(log, sizeof log, "train_%s.jsonl", kind);
    snprintf(final, sizeof final, "train_%s_final.safetensors", kind);
    enum status st = read_steps(g, g->dir, log, &steps, err);
    if (st == ST_OK)
        st = compare_steps(steps, steps64, out, err);
    if (st == ST_OK)
        st = open_adapter(g, final, &adapter, err);
    if (st == ST_OK)
        st = compare_adapters(&g->s.params, NULL, &adapter.tensors, &final64->tensors,
                              &out[BF16_FINAL_ADAPTER], err);
    safetensors_close(&adapter);
    json_decref(steps);
    return st;
}

static enum status our_distance(struct golden *g, const json_t *steps64, const struct safetensors *final64,
                                struct golden_distance out[N_BF16_MEASURES], struct err *err)
{
    json_t *totals = NULL, *steps = NULL;
    TRY(golden__read(g, "train_totals.json", &totals, err));
    enum status st = golden__train(g, totals, (int64_t)json_array_size(steps64), err);
    if (st == ST_OK)
        st = read_steps(g, g->out_dir, "train_log.jsonl", &steps, err);
    if (st == ST_OK)
        st = compare_steps(steps, steps64, out, err);
    if (st == ST_OK) {
        g->s.ops->download(g->s.dev, g->host, g->s.values, (size_t)g->s.params.n_values * sizeof *g->host);
        st = compare_adapters(&g->s.params, g->host, NULL, &final64->tensors, &out[BF16_FINAL_ADAPTER], err);
    }
    json_decref(totals);
    json_decref(steps);
    return st;
}

enum status golden_check_bf16(const char *dir, const char *out_dir, struct comm *comm,
                              const struct options *o, struct golden_bf16 *result, struct err *err)
{
    struct golden g = {.dir = dir, .out_dir = out_dir, .comm = comm, .o = o};
    json_t *steps64 = NULL;
    struct safetensors final64 = {0};
    *result = (struct golden_bf16){0};
    enum status st = read_steps(&g, dir, "train_float64.jsonl", &steps64, err);
    if (st == ST_OK)
        st = open_adapter(&g, "train_float64_final.safetensors", &final64, err);
    if (st == ST_OK)
        st = golden__open(&g, "init_adapter", err);
    if (st == ST_OK)
        st = their_distance(&g, "bf16", steps64, &final64, result->theirs[0], err);
    if (st == ST_OK)
        st = their_distance(&g, "bf16_autocast", steps64, &final64, result->theirs[1], err);
    if (st == ST_OK)
        st = our_distance(&g, steps64, &final64, result->ours, err);
    safetensors_close(&final64);
    json_decref(steps64);
    free(g.host);
    assembly_close(&g.s);
    return st;
}
