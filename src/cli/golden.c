/* Comparison with goldens: forward and gradients of the first step, the trajectory, evaluation rows, greedy
 * decoding. Files that a directory lacks are passed over; files that are there must be right. */
#include "golden.h"
#include "checkpoint/safetensors.h"
#include "data/batch.h"
#include "generate/generate.h"
#include "golden_internal.h"
#include "measure.h"
#include "train/adapter.h"
#include "train/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[N_GOLDEN_MEASURES] = {"logits",        "forward loss",    "gradients",
                                                     "step loss",     "gradient norm",   "learning rate",
                                                     "final adapter", "evaluation rows", "greedy tokens"};

const char *golden_name(enum golden_measure m)
{
    return names[m];
}

/* Suggested limits; measured noise times five where that is larger. */
static const double limits[N_GOLDEN_MEASURES] = {1e-4, 1e-6, 1e-5, 1e-6, 5e-6, 0, 5e-6, 2e-6, 0};

static void note(struct golden *g, enum golden_measure m, double difference)
{
    struct golden_result *r = g->result;
    r->present[m] = true;
    r->count[m]++;
    if (!(difference <= r->difference[m])) /* NaN counts as worse */
        r->difference[m] = difference;
}

static double relative(double ours, double theirs)
{
    return theirs == 0 ? fabs(ours) : fabs(ours - theirs) / fabs(theirs);
}

enum status golden__read(struct golden *g, const char *name, json_t **out, struct err *err)
{
    char path[PATH_BYTES];
    *out = NULL;
    TRY(path_join(path, g->dir, name, err));
    return file_exists(path) ? json_read_file(out, path, GOLDEN_JSON_BYTES, err) : ST_OK;
}

enum status golden__open(struct golden *g, const char *name, struct err *err)
{
    struct model_path p = {0};
    TRY(path_join(p.model_dir, g->dir, "model", err));
    TRY(path_join(p.adapter_dir, g->dir, name, err));
    if (!dir_exists(p.adapter_dir))
        p.adapter_dir[0] = '\0'; /* a record of a plain model */
    TRY(assembly_open_path(&g->s, g->comm, g->o, &p, err));
    g->host = malloc((size_t)g->s.params.n_values * sizeof *g->host + 1);
    return g->host ? ST_OK
                   : err_memory(err, "the adapter's values", (size_t)g->s.params.n_values * sizeof *g->host);
}

static int32_t int_at(const json_t *list, size_t i)
{
    return (int32_t)json_integer_value(json_array_get(list, i));
}

/* Logits of all tokens of a row, those too that its loss does not need. */
static enum status row_logits(struct golden *g, const struct ids *ids, float *logits, struct err *err)
{
    struct segment whole = {.n_tokens = ids->n, .parent = -1};
    struct packed seq = {.n_tokens = ids->n, .n_segments = 1, .ids = ids->data, .segments = &whole};
    seq.positions = malloc((size_t)ids->n * sizeof *seq.positions + 1);
    if (!seq.positions)
        return err_memory(err, "positions", (size_t)ids->n * sizeof *seq.positions);
    for (int32_t t = 0; t < ids->n; t++)
        seq.positions[t] = t;
    enum status st = model_logits(g->s.model, &seq, logits, err);
    free(seq.positions);
    return st;
}

static enum status compare_logits(struct golden *g, const struct tensor_list *l, int64_t row,
                                  const struct ids *ids, struct err *err)
{
    char name[32];
    snprintf(name, sizeof name, "logits.%lld", (long long)row);
    const struct tensor *t = tensor_list_find(l, name);
    int64_t v = model_vocab(g->s.model), n = ids->n * v;
    if (!t)
        return ST_OK;
    if (t->dtype != DT_F32 || t->n_dims != 2 || t->dims[0] != ids->n || t->dims[1] != v)
        return err_set(err, ST_INPUT, "%s: tensor '%s' is not F32 [%d, %lld]", g->dir, name, ids->n,
                       (long long)v);
    float *ours = malloc((size_t)n * sizeof *ours), theirs;
    enum status st =
        ours ? row_logits(g, ids, ours, err) : err_memory(err, "logits", (size_t)n * sizeof *ours);
    for (int64_t i = 0; i < n && st == ST_OK; i++) {
        memcpy(&theirs, (const char *)t->data + (size_t)i * sizeof theirs, sizeof theirs);
        note(g, GOLDEN_LOGITS, fabs((double)ours[i] - theirs));
    }
    free(ours);
    return st;
}

static enum status list_to_ids(const json_t *list, struct ids *out, struct err *err)
{
    ids_clear(out);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(ids_push(out, int_at(list, i), err));
    return ST_OK;
}

struct forward_case {
    int64_t row;
    double want; /* loss sum */
    float scale; /* of its part of the gradient */
    float *grad; /* [n_values], added to */
    const struct tensor_list *logits;
};

static enum status forward_row(struct golden *g, const struct forward_case *c, const struct ids *ids,
                               const struct ids *labels, struct err *err)
{
    struct shard shard;
    struct batch_row row = {.ids = ids->data, .labels = labels->data, .n_tokens = ids->n};
    double sum = 0;
    TRY(shard_make(&shard, &row, 1, 0, ids->n, false, err));
    enum status st = compare_logits(g, c->logits, c->row, ids, err);
    if (st == ST_OK)
        st = model_loss(g->s.model, &shard.sequences[0], c->scale, c->grad, &sum, NULL, err);
    if (st == ST_OK)
        note(g, GOLDEN_FORWARD_LOSS, relative(sum, c->want));
    shard_release(&shard);
    return st;
}

/* The record's file of gradients, if it has one, against grad [n_values]. */
static enum status compare_gradients(struct golden *g, const float *grad, struct err *err)
{
    char path[PATH_BYTES], dir[PATH_BYTES];
    double largest = 0, worst = 0;
    TRY(path_join(path, g->dir, "forward.grads.safetensors", err));
    TRY(path_join(dir, g->dir, "init_adapter", err));
    if (!file_exists(path))
        return ST_OK;
    TRY(adapter_read_file(path, dir, &g->s.params, g->host, err));
    for (int64_t i = 0; i < g->s.params.n_values; i++) {
        const double d = fabs((double)g->host[i] - grad[i]);
        largest = fmax(largest, fabs((double)g->host[i]));
        worst = d <= worst ? worst : d; /* NaN counts as worse */
    }
    note(g, GOLDEN_GRADIENTS, largest > 0 ? worst / largest : worst);
    g->result->count[GOLDEN_GRADIENTS] = g->s.params.n_values;
    return ST_OK;
}

static enum status open_tensors(struct golden *g, const char *name, struct safetensors *s, struct err *err)
{
    char path[PATH_BYTES];
    *s = (struct safetensors){0};
    TRY(path_join(path, g->dir, name, err));
    return file_exists(path) ? safetensors_open(s, path, err) : ST_OK;
}

static enum status forward_rows(struct golden *g, const json_t *ids, const json_t *expected,
                                const struct tensor_list *logits, float *grad, struct err *err)
{
    const json_t *rows = json_object_get(expected, "rows");
    const json_t *inputs = json_object_get(ids, "input_ids"), *labels = json_object_get(ids, "labels");
    struct ids row_ids = IDS_INIT, row_labels = IDS_INIT;
    int64_t n_labels = 0;
    enum status st = ST_OK;
    for (size_t i = 0; i < json_array_size(rows); i++)
        n_labels += json_integer_value(json_object_get(json_array_get(rows, i), "n_labels"));
    for (size_t i = 0; i < json_array_size(rows) && st == ST_OK; i++) {
        struct forward_case c = {
            .row = (int64_t)i, .scale = 1.0f / (float)n_labels, .grad = grad, .logits = logits};
        c.want = json_number_value(json_object_get(json_array_get(rows, i), "loss_sum"));
        st = list_to_ids(json_array_get(inputs, i), &row_ids, err);
        if (st == ST_OK)
            st = list_to_ids(json_array_get(labels, i), &row_labels, err);
        if (st == ST_OK && row_ids.n != row_labels.n)
            st = err_set(err, ST_INPUT, "%s: row %zu has %d ids and %d labels", g->dir, i, row_ids.n,
                         row_labels.n);
        if (st == ST_OK && row_ids.n)
            st = forward_row(g, &c, &row_ids, &row_labels, err);
    }
    ids_release(&row_ids);
    ids_release(&row_labels);
    return st;
}

static enum status check_forward(struct golden *g, struct err *err)
{
    json_t *ids, *expected = NULL;
    TRY(golden__read(g, "forward_ids.json", &ids, err));
    enum status st = golden__read(g, "forward.json", &expected, err);
    struct safetensors logits = {0};
    float *grad = calloc((size_t)g->s.params.n_values + 1, sizeof *grad);
    if (st == ST_OK && !grad)
        st = err_memory(err, "a gradient", (size_t)g->s.params.n_values * sizeof *grad);
    if (st == ST_OK)
        st = open_tensors(g, "forward.safetensors", &logits, err);
    if (st == ST_OK && ids && expected)
        st = forward_rows(g, ids, expected, &logits.tensors, grad, err);
    if (st == ST_OK && ids && expected)
        st = compare_gradients(g, grad, err);
    safetensors_close(&logits);
    free(grad);
    json_decref(ids);
    json_decref(expected);
    return st;
}

/* Lines of a JSONL file whose objects have the key "loss" (and "step"), in a list. */
enum status golden__steps(const char *path, json_t **out, struct err *err)
{
    struct buf text = BUF_INIT;
    TRY(file_read(path, GOLDEN_JSON_BYTES, &text, err));
    *out = json_array();
    enum status st = ST_OK;
    for (char *line = text.data, *end; line && *line && st == ST_OK; line = end) {
        end = strchr(line, '\n');
        size_t n = end ? (size_t)(end++ - line) : strlen(line);
        json_t *o = NULL;
        if (n)
            st = json_read_text(&o, line, n, path, err);
        if (o && json_object_get(o, "loss"))
            json_array_append(*out, o);
        json_decref(o);
    }
    buf_release(&text);
    return st;
}

double golden__field(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static enum status compare_steps(struct golden *g, const char *ours_path, const json_t *theirs,
                                 struct err *err)
{
    json_t *ours = NULL;
    enum status st = golden__steps(ours_path, &ours, err);
    if (st == ST_OK && json_array_size(ours) != json_array_size(theirs))
        st = err_set(err, ST_DEFECT, "%zu steps were logged, %zu expected", json_array_size(ours),
                     json_array_size(theirs));
    for (size_t i = 0; st == ST_OK && i < json_array_size(theirs); i++) {
        const json_t *a = json_array_get(ours, i), *b = json_array_get(theirs, i);
        note(g, GOLDEN_STEP_LOSS, relative(golden__field(a, "loss"), golden__field(b, "loss")));
        note(g, GOLDEN_GRAD_NORM, relative(golden__field(a, "grad_norm"), golden__field(b, "grad_norm")));
        note(g, GOLDEN_LEARNING_RATE,
             fabs(golden__field(a, "learning_rate") - golden__field(b, "learning_rate")));
    }
    json_decref(ours);
    return st;
}

static enum status no_files(void *user, const char *dir, int32_t stage, int64_t step, struct err *err)
{
    return ST_OK;
}

static double number_or(const json_t *o, const char *key, double otherwise)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

static enum status golden_schedule(struct train_options *t, const struct golden *g, const json_t *o,
                                   struct err *err)
{
    const char *name = json_string_value(json_object_get(o, "schedule"));
    if (schedule_by_name(name ? name : "cosine", &t->schedule))
        return ST_OK;
    return err_set(err, ST_INPUT, "%s: train_totals.json has the schedule '%.40s'", g->dir, name);
}

/* The run's settings as train_totals.json has them; what a record without them was made with stands here. */
static enum status golden_options(struct train_options *t, const struct golden *g, const json_t *totals,
                                  int64_t n_steps, struct err *err)
{
    const json_t *o = json_object_get(totals, "options"), *betas = json_object_get(o, "betas");
    double batch = number_or(o, "batch", 0), ga = number_or(o, "ga", 0), seed = number_or(o, "seed", 42);
    bool by_epochs = json_is_number(json_object_get(o, "epochs"));
    *t = (struct train_options){.stage = 3,
                                .shuffle = json_is_true(json_object_get(o, "shuffle")),
                                .share_prefix = g->o->share_prefix,
                                .epochs = number_or(o, "epochs", 1),
                                .max_steps = by_epochs ? 0 : n_steps,
                                .lr = number_or(o, "lr", 0),
                                .warmup_ratio = number_or(o, "warmup_ratio", 0.1),
                                .weight_decay = number_or(o, "weight_decay", 0),
                                .max_grad_norm = number_or(o, "max_grad_norm", 1),
                                .adam_beta1 = betas ? json_number_value(json_array_get(betas, 0)) : 0.9,
                                .adam_beta2 = betas ? json_number_value(json_array_get(betas, 1)) : 0.999,
                                .adam_epsilon = number_or(o, "eps", 1e-8),
                                .virtual_shards = (int32_t)g->o->virtual_shards,
                                .logging_steps = 1,
                                .eval_steps = n_steps,
                                .keep_checkpoints = 2,
                                .max_pack_tokens = 2048};
    if (!(batch >= 1 && batch <= 1 << 20) || !(ga >= 1 && ga <= 1 << 20) || !(seed >= 0 && seed < 1e15))
        return err_set(err, ST_INPUT, "%s: train_totals.json has no usable batch, ga and seed", g->dir);
    t->batch_train = (int32_t)batch;
    t->grad_accum = (int32_t)ga;
    t->seed = (uint64_t)seed;
    snprintf(t->out_dir, sizeof t->out_dir, "%s", g->out_dir);
    return golden_schedule(t, g, o, err);
}

enum status golden__train(struct golden *g, const json_t *totals, int64_t n_steps, struct err *err)
{
    struct train_options t;
    struct train_result result = {0};
    struct train_context c = {.comm = g->comm,
                              .ops = g->s.ops,
                              .dev = g->s.dev,
                              .model = g->s.model,
                              .params = &g->s.params,
                              .values = g->s.values,
                              .files = {.add_files = no_files}};
    char path[PATH_BYTES];
    TRY(golden_options(&t, g, totals, n_steps, err));
    json_t *none = json_object();
    t.options_json = none;
    snprintf(c.model_sha256, sizeof c.model_sha256, "%s", g->s.model_sha256);
    enum status st = path_join(path, g->dir, "pack.h5", err);
    if (st == ST_OK && g->comm->rank == 0)
        st = pack_open(&c.pack, path, &c.pack_info, err);
    st = comm_agree(g->comm, st, err);
    if (st == ST_OK)
        st = g->comm->ops->bcast(g->comm, 0, &c.pack_info, sizeof c.pack_info, err);
    if (st == ST_OK)
        st = train_stage(&c, &t, &result, err);
    pack_close(c.pack);
    json_decref(none);
    return st;
}

static enum status final_adapter(struct golden *g, int64_t n_steps, struct err *err)
{
    char name[64], dir[PATH_BYTES];
    snprintf(name, sizeof name, "train/checkpoint-%lld", (long long)n_steps);
    TRY(path_join(dir, g->dir, name, err));
    TRY(adapter_read(dir, &g->s.params, g->host, err));
    float *ours = malloc((size_t)g->s.params.n_values * sizeof *ours + 1);
    if (!ours)
        return err_memory(err, "the adapter's values", (size_t)g->s.params.n_values * sizeof *ours);
    g->s.ops->download(g->s.dev, ours, g->s.values, (size_t)g->s.params.n_values * sizeof *ours);
    for (int64_t i = 0; i < g->s.params.n_values; i++)
        note(g, GOLDEN_FINAL_ADAPTER, fabs((double)ours[i] - g->host[i]));
    free(ours);
    /* What follows is measured with the adapter that the library trained. */
    g->s.ops->upload(g->s.dev, g->s.values, g->host, (size_t)g->s.params.n_values * sizeof *g->host);
    g->s.ops->sync(g->s.dev);
    return ST_OK;
}

static enum status check_training(struct golden *g, struct err *err)
{
    char path[PATH_BYTES], ours[PATH_BYTES];
    json_t *totals, *steps = NULL;
    TRY(golden__read(g, "train_totals.json", &totals, err));
    enum status st = path_join(path, g->dir, "train.jsonl", err);
    if (st == ST_OK && totals)
        st = golden__steps(path, &steps, err);
    int64_t n = (int64_t)json_array_size(steps);
    if (st == ST_OK && n)
        st = golden__train(g, totals, n, err);
    if (st == ST_OK && n)
        st = path_join(ours, g->out_dir, "train_log.jsonl", err);
    if (st == ST_OK && n)
        st = compare_steps(g, ours, steps, err);
    if (st == ST_OK && n)
        st = final_adapter(g, n, err);
    json_decref(totals);
    json_decref(steps);
    return st;
}

static enum status eval_row(struct golden *g, struct pack *pack, const json_t *want, struct err *err)
{
    const int32_t *ids, *labels;
    int32_t n;
    double sum;
    int64_t n_labels;
    TRY(pack_row(pack, PACK_EVAL, (int64_t)golden__field(want, "row"), &ids, &labels, &n, err));
    TRY(measure_row(g->s.model, ids, labels, n, &sum, &n_labels, err));
    note(g, GOLDEN_EVAL_ROWS, relative(sum, golden__field(want, "loss_sum")));
    return ST_OK;
}

static enum status check_eval(struct golden *g, struct err *err)
{
    char path[PATH_BYTES];
    json_t *expected;
    struct pack *pack = NULL;
    struct pack_info info;
    TRY(golden__read(g, "eval.json", &expected, err));
    enum status st = path_join(path, g->dir, "pack.h5", err);
    if (st == ST_OK && expected)
        st = pack_open(&pack, path, &info, err);
    const json_t *rows = json_object_get(expected, "rows");
    for (size_t i = 0; st == ST_OK && i < json_array_size(rows); i++)
        st = eval_row(g, pack, json_array_get(rows, i), err);
    pack_close(pack);
    json_decref(expected);
    return st;
}

static enum status greedy_case(struct golden *g, const json_t *c, struct err *err)
{
    const json_t *want = json_object_get(c, "tokens");
    struct sampler s = {.greedy = true,
                        .temperature = 1,
                        .top_p = 1,
                        .repetition_penalty = 1,
                        .max_new_tokens = (int32_t)json_array_size(want)};
    struct ids in = IDS_INIT, out = IDS_INIT;
    double logprob = 0;
    enum status st = list_to_ids(json_object_get(c, "prompt"), &in, err);
    if (st == ST_OK)
        st = generate_plain(g->s.model, in.data, in.n, NULL, 0, &s, &out, &logprob, err);
    int differ = 0;
    for (size_t i = 0; st == ST_OK && i < json_array_size(want); i++)
        differ += (int)i >= out.n || out.data[i] != int_at(want, i);
    if (st == ST_OK)
        note(g, GOLDEN_GREEDY, differ);
    ids_release(&in);
    ids_release(&out);
    return st;
}

static enum status check_greedy(struct golden *g, struct err *err)
{
    json_t *expected;
    TRY(golden__read(g, "generate.json", &expected, err));
    const json_t *cases = json_object_get(expected, "cases");
    enum status st = ST_OK;
    for (size_t i = 0; st == ST_OK && i < json_array_size(cases); i++)
        st = greedy_case(g, json_array_get(cases, i), err);
    json_decref(expected);
    return st;
}

/* What transformers' own float32 run differs by from float64; limits grow to five times that. */
static enum status read_noise(struct golden *g, struct err *err)
{
    json_t *n;
    TRY(golden__read(g, "noise.json", &n, err));
    const json_t *forward = json_object_get(n, "forward_vs_f64"),
                 *train = json_object_get(n, "train_vs_float64");
    double *noise = g->result->noise;
    noise[GOLDEN_LOGITS] = golden__field(json_object_get(forward, "logits"), "abs_max");
    noise[GOLDEN_GRADIENTS] = golden__field(json_object_get(forward, "grads"), "over_max_value");
    noise[GOLDEN_FORWARD_LOSS] = golden__field(json_object_get(forward, "rows"), "rel_max");
    noise[GOLDEN_EVAL_ROWS] = golden__field(json_object_get(n, "eval_vs_f64"), "rel_max");
    noise[GOLDEN_STEP_LOSS] = golden__field(train, "loss_rel_max");
    noise[GOLDEN_GRAD_NORM] = golden__field(train, "grad_norm_rel_max");
    noise[GOLDEN_FINAL_ADAPTER] = golden__field(train, "final_param_abs_max");
    json_decref(n);
    for (int i = 0; i < N_GOLDEN_MEASURES; i++)
        if (noise[i] * 5 > g->result->limit[i])
            g->result->limit[i] = noise[i] * 5;
    return ST_OK;
}

enum status golden_check(const char *dir, const char *out_dir, struct comm *comm, const struct options *o,
                         struct golden_result *result, struct err *err)
{
    struct golden g = {.dir = dir, .out_dir = out_dir, .comm = comm, .o = o, .result = result};
    *result = (struct golden_result){0};
    for (int i = 0; i < N_GOLDEN_MEASURES; i++) {
        result->limit[i] = limits[i];
        result->noise[i] = NAN;
    }
    enum status st = read_noise(&g, err);
    if (st == ST_OK)
        st = golden__open(&g, "init_adapter", err);
    if (st == ST_OK)
        st = check_forward(&g, err);
    if (st == ST_OK)
        st = check_training(&g, err);
    if (st == ST_OK)
        st = check_eval(&g, err);
    if (st == ST_OK)
        st = check_greedy(&g, err);
    free(g.host);
    assembly_close(&g.s);
    return st;
}
