/* optimizer.pt of torch's AdamW (plain or fused) or of bitsandbytes' 8-bit one, as Trainer or Unsloth wrote
 * it. */
#include "checkpoint/state.h"
#include "checkpoint/torch_file.h"
#include "checkpoint_internal.h"
#include "optimizer_bnb.h"
#include "util/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *path;
    const struct value *state, *groups;
    struct optimizer_state *out;
    int n_params;
    int64_t *ids;                /* [n_params] key of the state's entry for file position k */
    const struct value **values; /* [n_params] entry of file position k; NULL: no state yet */
    int *order;                  /* [n_params] our parameter at file position k */
    int64_t *offsets;            /* [n_params] of our parameters */
};

static bool is_true(const struct value *dict, const char *key)
{
    const struct value *v = value_get(dict, key);
    return v && v->kind == VALUE_BOOL && v->boolean;
}

/* The stored tensor of moment 1 (m) or 2 (v), NULL when there is none. */
static const struct value *moment_of(const struct value *entry, int moment)
{
    if (bnb__is_entry(entry))
        return bnb__state(entry, moment);
    return value_get(entry, moment == 1 ? "exp_avg" : "exp_avg_sq");
}

/* Optimizers known by what they store, for the message. */
static enum status check_kind(const struct reader *r, const struct value *entry, int64_t id, struct err *err)
{
    static const struct {
        const char *key, *name;
    } kinds[] = {
        {"max1", "a bitsandbytes 8-bit optimizer without blocks (before 0.38)"},
        {"exp_avg_sq_row", "Adafactor"},
        {"row_var", "Adafactor"},
        {"momentum_buffer", "SGD or Muon"},
        {"exp_inf", "Adamax"},
        {"mu_product", "NAdam"},
        {"exp_avg_res_row", "CAME"},
        {"projector", "GaLore"},
    };
    if (entry->kind != VALUE_DICT)
        return err_set(err, ST_INPUT, "\"%s\": the state of parameter %" PRId64 " is no dict", r->path, id);
    const char *name = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !name; i++) {
        if (value_get(entry, kinds[i].key))
            name = kinds[i].name;
    }
    const bool is_bnb = bnb__is_entry(entry);
    const bool has_m = is_bnb ? bnb__state(entry, 1) : value_get(entry, "exp_avg");
    const bool has_v = is_bnb ? bnb__state(entry, 2) : value_get(entry, "exp_avg_sq");
    if (!name && has_m != has_v)
        name = has_m ? "Lion or another optimizer without exp_avg_sq" : "an optimizer without exp_avg";
    if (!name && is_bnb && !has_m)
        name = "a bitsandbytes optimizer without states";
    if (!name && entry->dict.n > 0 && !has_m)
        name = "an unknown optimizer";
    if (!name)
        return ST_OK;
    err_set(err, ST_INPUT, "\"%s\" is of %s; only AdamW of torch and the 8-bit one of bitsandbytes are read",
            r->path, name);
    return err_hint(err, "write the checkpoint with optim=adamw_torch, or start from its adapter with new "
                         "moments");
}

static enum status group_number(const struct reader *r, const struct value *group, const char *key,
                                double min, double max, double *out, struct err *err)
{
    const struct value *v = value_get(group, key);
    if (!v || !value_number(v, out))
        return err_set(err, ST_INPUT, "\"%s\": the parameter group has no number \"%s\"", r->path, key);
    if (!(*out >= min && *out <= max))
        return err_set(err, ST_INPUT, "\"%s\": \"%s\" is %g, allowed are %g to %g", r->path, key, *out, min,
                       max);
    return ST_OK;
}

/* torch's Adam with weight decay in the gradient says so since 2.7. */
static bool is_coupled(const struct value *group)
{
    const struct value *v = value_get(group, "decoupled_weight_decay");
    double decay = 0;
    return v && v->kind == VALUE_BOOL && !v->boolean &&
           value_number(value_get(group, "weight_decay"), &decay) && decay != 0;
}

static enum status read_numbers(struct reader *r, const struct value *group, struct err *err)
{
    struct optimizer_state *s = r->out;
    TRY(group_number(r, group, "lr", 0, 1e6, &s->lr, err));
    TRY(group_number(r, group, "eps", 0, 1, &s->eps, err));
    TRY(group_number(r, group, "weight_decay", 0, 1e6, &s->weight_decay, err));
    s->initial_lr = s->lr;
    if (value_get(group, "initial_lr"))
        TRY(group_number(r, group, "initial_lr", 0, 1e6, &s->initial_lr, err));
    const struct value *betas = value_get(group, "betas");
    if (!betas || (betas->kind != VALUE_TUPLE && betas->kind != VALUE_LIST) || betas->list.n != 2 ||
        !value_number(betas->list.items[0], &s->beta1) || !value_number(betas->list.items[1], &s->beta2) ||
        !(s->beta1 >= 0 && s->beta1 < 1) || !(s->beta2 >= 0 && s->beta2 < 1))
        return err_set(err, ST_INPUT, "\"%s\": the parameter group has no usable \"betas\"", r->path);
    return ST_OK;
}

/* Adds the group's ids to r->ids. */
static enum status read_group(struct reader *r, size_t index, int *n_ids, struct err *err)
{
    const struct value *group = r->groups->list.items[index], *params = value_get(group, "params");
    if (!params || params->kind != VALUE_LIST)
        return err_set(err, ST_INPUT, "\"%s\": parameter group %zu has no list \"params\"", r->path, index);
    if (is_true(group, "amsgrad") || is_true(group, "maximize"))
        return err_set(err, ST_INPUT, "\"%s\": %s is set, which is not supported", r->path,
                       is_true(group, "amsgrad") ? "amsgrad" : "maximize");
    if (is_coupled(group))
        return err_set(err, ST_INPUT, "\"%s\" is of Adam with weight decay in the gradient, not of AdamW",
                       r->path);
    for (size_t i = 0; i < params->list.n; i++) {
        const struct value *id = params->list.items[i];
        if (id->kind != VALUE_INT)
            return err_set(err, ST_INPUT, "\"%s\": parameter group %zu: item %zu is no integer", r->path,
                           index, i);
        if (*n_ids < r->n_params)
            r->ids[*n_ids] = id->integer;
        ++*n_ids;
    }
    return ST_OK;
}

static int by_id(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static enum status check_ids(const struct reader *r, int n_ids, struct err *err)
{
    if (n_ids != r->n_params) {
        err_set(err, ST_INPUT, "\"%s\" is for %d parameters, the adapter has %d", r->path, n_ids,
                r->n_params);
        return err_hint(err, "rank, target modules or new rows differ from the run that wrote it");
    }
    int64_t *sorted = malloc(((size_t)n_ids + 1) * sizeof *sorted);
    if (!sorted)
        return err_memory(err, "parameter numbers", (size_t)n_ids * sizeof *sorted);
    memcpy(sorted, r->ids, (size_t)n_ids * sizeof *sorted);
    qsort(sorted, (size_t)n_ids, sizeof *sorted, by_id);
    enum status status = ST_OK;
    for (int i = 1; i < n_ids && status == ST_OK; i++) {
        if (sorted[i] == sorted[i - 1])
            status = err_set(err, ST_INPUT, "\"%s\": parameter %" PRId64 " is in the groups twice", r->path,
                             sorted[i]);
    }
    free(sorted);
    return status;
}

/* Entries by file position; an entry that no group names would be lost without a word. */
static enum status find_entries(struct reader *r, struct err *err)
{
    size_t n_found = 0;
    for (int k = 0; k < r->n_params; k++) {
        const struct value *entry = value_get_int(r->state, r->ids[k]);
        if (!entry)
            continue;
        n_found++;
        TRY(check_kind(r, entry, r->ids[k], err));
        if (moment_of(entry, 1))
            r->values[k] = entry;
    }
    if (n_found != r->state->dict.n)
        return err_set(err, ST_INPUT, "\"%s\": it has state for %zu parameters that no group names", r->path,
                       r->state->dict.n - n_found);
    return ST_OK;
}

static bool is_embedding(const struct tensor *p)
{
    return strstr(p->name, "embed_tokens.") || strstr(p->name, "lm_head.");
}

/* Whether the file has a whole matrix where we have rows of it. */
static bool is_whole(const struct reader *r, const struct tensor *t, const struct tensor *p)
{
    return r->out->whole_rows > 0 && is_embedding(p) && t->n_dims == 2 && t->dims[0] == r->out->whole_rows &&
           t->dims[1] == p->dims[1] && t->dims[0] != p->dims[0];
}

static bool same_shape(const struct reader *r, const struct value *v, const struct tensor *p)
{
    if (v && v->kind == VALUE_TENSOR && is_whole(r, &v->tensor, p))
        return true;
    return v && v->kind == VALUE_TENSOR && v->tensor.n_dims == p->n_dims &&
           memcmp(v->tensor.dims, p->dims, (size_t)p->n_dims * sizeof *p->dims) == 0;
}

/* First file position whose shapes do not fit the order; n_params if all do. */
static int first_misfit(const struct reader *r)
{
    for (int k = 0; k < r->n_params; k++) {
        const struct tensor *p = &r->out->params->items[r->order[k]];
        if (r->values[k] &&
            (!same_shape(r, moment_of(r->values[k], 1), p) || !same_shape(r, moment_of(r->values[k], 2), p)))
            return k;
    }
    return r->n_params;
}

/* Unsloth with an embedding learning rate: LoRA in the first group, rows of embedding and head in the second.
 * Returns the number of LoRA parameters. */
static int order_lora_first(struct reader *r)
{
    int k = 0, n_lora;
    for (int i = 0; i < r->n_params; i++) {
        if (!is_embedding(&r->out->params->items[i]))
            r->order[k++] = i;
    }
    n_lora = k;
    for (int i = 0; i < r->n_params; i++) {
        if (is_embedding(&r->out->params->items[i]))
            r->order[k++] = i;
    }
    return n_lora;
}

static void shape_text(const struct value *v, char text[96])
{
    size_t at = 0;
    text[0] = '\0';
    if (!v || v->kind != VALUE_TENSOR)
        return;
    for (int i = 0; i < v->tensor.n_dims; i++)
        at += (size_t)snprintf(text + at, 96 - at, "%s%" PRId64, i ? "," : "", v->tensor.dims[i]);
}

static enum status choose_order(struct reader *r, int n_first_group, struct err *err)
{
    if (n_first_group < r->n_params && order_lora_first(r) == n_first_group && first_misfit(r) == r->n_params)
        return ST_OK;
    for (int k = 0; k < r->n_params; k++)
        r->order[k] = k;
    int k = first_misfit(r);
    if (k == r->n_params)
        return ST_OK;
    const struct value *m = moment_of(r->values[k], 1);
    char theirs[96], ours[96];
    struct value wanted = {.kind = VALUE_TENSOR, .tensor = r->out->params->items[k]};
    shape_text(same_shape(r, m, &wanted.tensor) ? moment_of(r->values[k], 2) : m, theirs);
    shape_text(&wanted, ours);
    err_set(err, ST_INPUT, "\"%s\": moments of parameter %d have shape [%s], \"%s\" has [%s]", r->path, k,
            theirs, wanted.tensor.name, ours);
    return err_hint(err, "rank, target modules or new rows differ from the run that wrote it");
}

/* One moment of one parameter, widened to float32. A value that no run can have would spoil the next step. */
static enum status widen(const struct reader *r, int k, int moment, float *out, struct err *err)
{
    const struct tensor *t = &moment_of(r->values[k], moment)->tensor;
    const char *name = r->out->params->items[r->order[k]].name;
    const char *key = moment == 1 ? "exp_avg" : "exp_avg_sq";
    int64_t n = tensor_count(t);
    if (bnb__is_entry(r->values[k]))
        TRY(bnb__read(r->values[k], moment, r->path, name, out, err));
    else if (!dtype_to_f32(t->dtype, t->data, out, (size_t)n))
        return err_set(err, ST_INPUT, "\"%s\": %s of \"%s\" is %s, not a floating type", r->path, key, name,
                       dtype_name(t->dtype));
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(out[i]) || (moment == 2 && out[i] < 0))
            return err_set(err, ST_INPUT, "\"%s\": %s of \"%s\" has the value %g at %" PRId64, r->path, key,
                           name, (double)out[i], i);
    }
    return ST_OK;
}

/* Our rows of a whole matrix. A moment in another row would move that row in the next step there, not here.
 */
static enum status take_rows(const struct reader *r, int k, const float *all, float *out, struct err *err)
{
    const struct tensor *p = &r->out->params->items[r->order[k]];
    const int64_t first = r->out->first_row * p->dims[1], n = tensor_count(p);
    const int64_t n_all = r->out->whole_rows * p->dims[1];
    for (int64_t i = 0; i < n_all; i++)
        if ((i < first || i >= first + n) && all[i] != 0) {
            err_set(err, ST_INPUT,
                    "\"%s\": the whole matrix in place of \"%s\" has a moment in row %" PRId64
                    ", which is not a new one",
                    r->path, p->name, i / p->dims[1]);
            return err_hint(err, "rows other than the new ones were being trained there");
        }
    memcpy(out, all + first, (size_t)n * sizeof *out);
    return ST_OK;
}

static enum status read_moment(const struct reader *r, int k, int moment, float *out, struct err *err)
{
    const struct tensor *t = &moment_of(r->values[k], moment)->tensor;
    if (!is_whole(r, t, &r->out->params->items[r->order[k]]))
        return widen(r, k, moment, out, err);
    const size_t n_bytes = (size_t)tensor_count(t) * sizeof(float);
    float *all = malloc(n_bytes + 1);
    if (!all)
        return err_memory(err, "moments of a whole matrix", n_bytes);
    enum status st = widen(r, k, moment, all, err);
    if (st == ST_OK)
        st = take_rows(r, k, all, out, err);
    free(all);
    return st;
}

static enum status read_moments(struct reader *r, float *m, float *v, struct err *err)
{
    double lowest = INFINITY, highest = 0;
    int64_t n_dropped = 0, n_quantized = 0;
    for (int k = 0; k < r->n_params; k++) {
        if (!r->values[k])
            continue;
        double step = -1;
        if (!value_number(value_get(r->values[k], "step"), &step) || !(step >= 0 && step < 1e15) ||
            step != floor(step))
            return err_set(err, ST_INPUT, "\"%s\": parameter %d has no usable \"step\"", r->path, k);
        lowest = fmin(lowest, step);
        highest = fmax(highest, step);
        const int64_t at = r->offsets[r->order[k]];
        TRY(read_moment(r, k, 1, m + at, err));
        TRY(read_moment(r, k, 2, v + at, err));
        if (!bnb__is_entry(r->values[k]))
            continue;
        const int64_t n = tensor_count(&r->out->params->items[r->order[k]]);
        n_dropped += bnb__drop_unscaled(m + at, v + at, n);
        n_quantized += n;
    }
    if (lowest < highest)
        log_warn("\"%s\": the parameters' steps differ (%.0f to %.0f); %.0f is taken for all", r->path,
                 lowest, highest, highest);
    if (n_quantized > 0)
        log_info("\"%s\": moments of bitsandbytes' AdamW, widened to float32; of %" PRId64 " values %" PRId64
                 " have no second moment left and lose their first",
                 r->path, n_quantized, n_dropped);
    r->out->step = (int64_t)highest;
    return ST_OK;
}

static enum status read_root(struct reader *r, const struct value *root, float *m, float *v, struct err *err)
{
    r->state = value_get(root, "state");
    r->groups = value_get(root, "param_groups");
    if (!r->state || r->state->kind != VALUE_DICT || !r->groups || r->groups->kind != VALUE_LIST ||
        r->groups->list.n == 0)
        return err_set(err, ST_INPUT, "\"%s\" holds no optimizer (state and param_groups)", r->path);
    int n_ids = 0, n_first_group = 0;
    for (size_t g = 0; g < r->groups->list.n; g++) {
        TRY(read_group(r, g, &n_ids, err));
        if (g == 0)
            n_first_group = n_ids;
    }
    TRY(check_ids(r, n_ids, err));
    TRY(find_entries(r, err));
    TRY(read_numbers(r, r->groups->list.items[0], err));
    TRY(choose_order(r, n_first_group, err));
    return read_moments(r, m, v, err);
}

/* Sizes of our parameters; clears the moments, since absent entries are zero. */
static enum status prepare(struct reader *r, float *m, float *v, struct err *err)
{
    size_t n = (size_t)r->n_params + 1;
    r->ids = calloc(n, sizeof *r->ids);
    r->values = calloc(n, sizeof *r->values);
    r->order = calloc(n, sizeof *r->order);
    r->offsets = calloc(n, sizeof *r->offsets);
    if (!r->ids || !r->values || !r->order || !r->offsets)
        return err_memory(err, "an optimizer's tables", n * 32);
    int64_t offset = 0;
    for (int i = 0; i < r->n_params; i++) {
        r->offsets[i] = offset;
        offset += tensor_count(&r->out->params->items[i]);
    }
    memset(m, 0, (size_t)offset * sizeof *m);
    memset(v, 0, (size_t)offset * sizeof *v);
    return ST_OK;
}

enum status optimizer_read(const char *path, struct optimizer_state *s, float *m, float *v, struct err *err)
{
    struct reader r = {.path = path, .out = s, .n_params = s->params->n_items};
    struct torch_file f;
    TRY(torch_file_open(&f, path, err));
    enum status status = prepare(&r, m, v, err);
    if (status == ST_OK)
        status = read_root(&r, f.root, m, v, err);
    free(r.ids);
    free(r.values);
    free(r.order);
    free(r.offsets);
    torch_file_close(&f);
    return status;
}
