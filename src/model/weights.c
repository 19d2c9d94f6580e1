/* One block for all frozen weights: a list of slots (name, shape, place) is made from the architecture, then
 * filled from a model directory's tensors or bound to pointers. The list is the only place that knows names.
 */
#include "model/weights.h"
#include "util/crc32.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum slot_kind {
    SLOT_EMBED,
    SLOT_HEAD,
    SLOT_FINAL_NORM,
    SLOT_ATTN_NORM,
    SLOT_MLP_NORM,
    SLOT_POST_ATTN_NORM,
    SLOT_POST_MLP_NORM,
    SLOT_Q_NORM,
    SLOT_K_NORM,
    SLOT_PROJ
};

struct slot {
    char name[WEIGHT_NAME_BYTES];
    enum slot_kind kind;
    int32_t layer;
    enum proj proj;
    int64_t rows, cols; /* cols 0: a vector */
    size_t offset;
};

struct layout {
    struct slot *slots;
    int32_t n_slots, n_projections;
    size_t n_bytes;
};

static size_t align64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

static size_t slot_count(const struct slot *s)
{
    return (size_t)s->rows * (size_t)(s->cols ? s->cols : 1);
}

static size_t slot_bytes(const struct slot *s, enum dtype matrix)
{
    return slot_count(s) * dtype_bytes(s->cols ? matrix : DT_F32);
}

static struct slot *slot_add(struct layout *l, enum slot_kind kind, int64_t rows, int64_t cols)
{
    struct slot *s = &l->slots[l->n_slots++];
    *s = (struct slot){.kind = kind, .rows = rows, .cols = cols};
    return s;
}

static void layer_norm_slot(struct layout *l, enum slot_kind kind, int32_t layer, const char *name, int64_t n)
{
    struct slot *s = slot_add(l, kind, n, 0);
    s->layer = layer;
    snprintf(s->name, sizeof s->name, "model.layers.%d.%s.weight", layer, name);
}

static void layer_norm_slots(struct layout *l, const struct arch *a, int32_t i)
{
    layer_norm_slot(l, SLOT_ATTN_NORM, i, "input_layernorm", a->hidden);
    /* The same name is the norm before the MLP in Llama and Qwen, and behind attention in Gemma. */
    if (a->sandwich) {
        layer_norm_slot(l, SLOT_POST_ATTN_NORM, i, "post_attention_layernorm", a->hidden);
        layer_norm_slot(l, SLOT_MLP_NORM, i, "pre_feedforward_layernorm", a->hidden);
        layer_norm_slot(l, SLOT_POST_MLP_NORM, i, "post_feedforward_layernorm", a->hidden);
    } else {
        layer_norm_slot(l, SLOT_MLP_NORM, i, "post_attention_layernorm", a->hidden);
    }
    if (a->qk_norm) {
        layer_norm_slot(l, SLOT_Q_NORM, i, "self_attn.q_norm", a->head_dim);
        layer_norm_slot(l, SLOT_K_NORM, i, "self_attn.k_norm", a->head_dim);
    }
}

static void projection_slots(struct layout *l, const struct arch *a, int32_t i)
{
    for (int p = 0; p < N_PROJ; p++) {
        int64_t n_out, n_in;
        proj_shape(a, (enum proj)p, &n_out, &n_in);
        struct slot *s = slot_add(l, SLOT_PROJ, n_out, n_in);
        s->layer = i;
        s->proj = (enum proj)p;
        snprintf(s->name, sizeof s->name, "model.layers.%d.%s.weight", i, proj_path((enum proj)p));
    }
}

/* False when memory is short. */
static bool layout_make(struct layout *l, const struct arch *a, enum dtype matrix)
{
    *l = (struct layout){0};
    l->slots = calloc((size_t)a->n_layers * (N_PROJ + 6) + 3, sizeof *l->slots);
    if (!l->slots)
        return false;
    for (int32_t i = 0; i < a->n_layers; i++)
        projection_slots(l, a, i); /* what is multiplied comes first: its rows may go when they are packed */
    l->n_projections = l->n_slots;
    if (!a->tied)
        strcpy(slot_add(l, SLOT_HEAD, a->n_embed_rows, a->hidden)->name, "lm_head.weight");
    strcpy(slot_add(l, SLOT_EMBED, a->n_embed_rows, a->hidden)->name, "model.embed_tokens.weight");
    strcpy(slot_add(l, SLOT_FINAL_NORM, a->hidden, 0)->name, "model.norm.weight");
    for (int32_t i = 0; i < a->n_layers; i++)
        layer_norm_slots(l, a, i);
    for (int32_t i = 0; i < l->n_slots; i++) {
        l->slots[i].offset = l->n_bytes;
        l->n_bytes += align64(slot_bytes(&l->slots[i], matrix));
    }
    return true;
}

size_t weights_block_bytes(const struct arch *a, enum dtype matrix)
{
    struct layout l;
    if (!layout_make(&l, a, matrix))
        return 0;
    size_t n = l.n_bytes;
    free(l.slots);
    return n;
}

static enum status check_shape(const struct slot *s, const struct tensor *t, struct err *err)
{
    bool fits = s->cols ? t->n_dims == 2 && t->dims[0] == s->rows && t->dims[1] == s->cols
                        : t->n_dims == 1 && t->dims[0] == s->rows;
    if (fits)
        return ST_OK;
    char have[96] = "";
    for (int i = 0; i < t->n_dims; i++)
        snprintf(have + strlen(have), sizeof have - strlen(have), "%s%lld", i ? ", " : "",
                 (long long)t->dims[i]);
    if (s->cols)
        return err_set(err, ST_INPUT, "tensor '%s' has shape [%s], config.json says [%lld, %lld]", s->name,
                       have, (long long)s->rows, (long long)s->cols);
    return err_set(err, ST_INPUT, "tensor '%s' has shape [%s], config.json says [%lld]", s->name, have,
                   (long long)s->rows);
}

/* Whether the exponent bits of any element are all ones, which is NaN or infinity. Without an early end, so
 * that the compiler makes vectors of it. */
static bool any_not_finite(enum dtype type, const void *data, size_t n)
{
    const uint16_t *half = data;
    const uint32_t *whole = data;
    uint16_t bad_half = 0;
    uint32_t bad = 0;
    if (type == DT_BF16)
        for (size_t i = 0; i < n; i++)
            bad_half |= (half[i] & 0x7f80u) == 0x7f80u;
    else
        for (size_t i = 0; i < n; i++)
            bad |= (whole[i] & 0x7f800000u) == 0x7f800000u;
    return bad_half || bad;
}

static enum status refuse_not_finite(const struct slot *s, enum dtype type, const char *data, size_t first,
                                     size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        float x = 0;
        dtype_to_f32(type, data + i * dtype_bytes(type), &x, 1);
        if (isfinite(x))
            continue;
        err_set(err, ST_INPUT, "tensor '%s' holds %s at element %zu", s->name, isnan(x) ? "NaN" : "infinity",
                first + i);
        return err_hint(err, "the weights are damaged or overflowed; fetch the model again");
    }
    return err_set(err, ST_DEFECT, "tensor '%s' cannot be converted", s->name);
}

enum { WINDOW = 4096 };

/* n elements, at most WINDOW, into their place; false for types that are no weights'. */
static bool convert(enum dtype to, char *out, enum dtype from, const char *data, size_t n)
{
    float window[WINDOW];
    if (from == to) {
        memcpy(out, data, n * dtype_bytes(to));
        return true;
    }
    if (to == DT_F32)
        return dtype_to_f32(from, data, (float *)(void *)out, n);
    return dtype_to_f32(from, data, window, n) && dtype_from_f32(to, window, out, n);
}

/* In small windows, which are looked through for NaN and infinity while they are near. The first bad window
 * is named whatever the number of threads. */
static enum status copy_tensor(const struct slot *s, const struct tensor *t, enum dtype matrix, char *out,
                               int n_threads, struct err *err)
{
    const enum dtype to = s->cols ? matrix : DT_F32;
    const size_t n = slot_count(s), in_bytes = dtype_bytes(t->dtype), out_bytes = dtype_bytes(to);
    if (to != DT_F32 && to != DT_BF16)
        return err_set(err, ST_DEFECT, "weights cannot be kept as %s", dtype_name(to));
    if (t->dtype != DT_F32 && t->dtype != DT_F16 && t->dtype != DT_BF16)
        return err_set(err, ST_INPUT, "tensor '%s' has element type %s, expected F32, F16 or BF16", s->name,
                       dtype_name(t->dtype));
    size_t bad = n;
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(min : bad) if (n > 16 * WINDOW)
    for (size_t at = 0; at < n; at += WINDOW) {
        const size_t k = n - at < WINDOW ? n - at : WINDOW;
        if ((!convert(to, out + at * out_bytes, t->dtype, (const char *)t->data + at * in_bytes, k) ||
             any_not_finite(to, out + at * out_bytes, k)) &&
            at < bad)
            bad = at;
    }
    if (bad == n)
        return ST_OK;
    return refuse_not_finite(s, to, out + bad * out_bytes, bad, n - bad < WINDOW ? n - bad : WINDOW, err);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

static int slot_compare(const void *a, const void *b)
{
    return strcmp(((const struct slot *)a)->name, ((const struct slot *)b)->name);
}

/* A tensor that no slot takes would silently change nothing here and something in transformers. */
static enum status refuse_unknown(const struct layout *l, const struct arch *a,
                                  const struct tensor_list *tensors, struct err *err)
{
    struct slot *sorted = malloc((size_t)l->n_slots * sizeof *sorted);
    if (!sorted)
        return err_memory(err, "a list of tensor names", (size_t)l->n_slots * sizeof *sorted);
    memcpy(sorted, l->slots, (size_t)l->n_slots * sizeof *sorted);
    qsort(sorted, (size_t)l->n_slots, sizeof *sorted, slot_compare);
    enum status st = ST_OK;
    for (int i = 0; i < tensors->n_items && st == ST_OK; i++) {
        const char *name = tensors->items[i].name;
        struct slot key;
        /* Old files carry rotary tables, and some tied models a copy of the embedding: both are recomputed.
         */
        if (ends_with(name, "rotary_emb.inv_freq") || (a->tied && strcmp(name, "lm_head.weight") == 0))
            continue;
        snprintf(key.name, sizeof key.name, "%s", name);
        if (strlen(name) >= sizeof key.name ||
            !bsearch(&key, sorted, (size_t)l->n_slots, sizeof *sorted, slot_compare))
            st = err_set(err, ST_INPUT, "tensor '%.120s' does not belong to a %s model of %d layers", name,
                         a->model_type, a->n_layers);
    }
    free(sorted);
    return st;
}

int32_t weights_n_groups(const struct arch *a)
{
    return a->n_layers + 1;
}

/* Slots of a group: a layer's projections, or all that are none. */
static void group_slots(const struct layout *l, const struct arch *a, int32_t group, int32_t *first,
                        int32_t *end)
{
    const bool rest = group >= a->n_layers;
    *first = rest ? l->n_projections : group * N_PROJ;
    *end = rest ? l->n_slots : *first + N_PROJ;
}

static size_t slot_begin(const struct layout *l, int32_t i)
{
    return i < l->n_slots ? l->slots[i].offset : l->n_bytes;
}

enum status weights_group_place(struct weights_place *out, const struct arch *a, enum dtype matrix,
                                int32_t group, struct err *err)
{
    struct layout l;
    int32_t first, end;
    if (!layout_make(&l, a, matrix))
        return err_memory(err, "the list of weights", 0);
    group_slots(&l, a, group, &first, &end);
    out->from = slot_begin(&l, first);
    out->n_bytes = slot_begin(&l, end) - out->from;
    free(l.slots);
    return ST_OK;
}

enum status weights_fill_group(void *block, const struct arch *a, enum dtype matrix,
                               const struct tensor_list *tensors, int32_t group, int n_threads,
                               struct err *err)
{
    struct layout l;
    int32_t first, end;
    if (!layout_make(&l, a, matrix))
        return err_memory(err, "the list of weights", 0);
    group_slots(&l, a, group, &first, &end);
    enum status st = group == 0 ? refuse_unknown(&l, a, tensors, err) : ST_OK;
    for (int32_t i = first; i < end && st == ST_OK; i++) {
        const struct slot *s = &l.slots[i];
        const struct tensor *t = tensor_list_find(tensors, s->name);
        if (!t) {
            st = err_set(err, ST_INPUT, "tensor '%s' is missing", s->name);
            err_hint(err, "the weights do not belong to this config.json, or a shard is missing");
        }
        if (st == ST_OK)
            st = check_shape(s, t, err);
        if (st == ST_OK)
            st = copy_tensor(s, t, matrix, (char *)block + s->offset,
                             n_threads > 0 ? n_threads : omp_get_max_threads(), err);
    }
    free(l.slots);
    return st;
}

enum status weights_fill(void *block, const struct arch *a, enum dtype matrix,
                         const struct tensor_list *tensors, struct err *err)
{
    for (int32_t g = 0; g < weights_n_groups(a); g++)
        TRY(weights_fill_group(block, a, matrix, tensors, g, 1, err));
    return ST_OK;
}

/* The embedding rows are multiplied by only where they are the head's too. */
static bool is_multiplied(const struct slot *s, const struct arch *a)
{
    return s->cols > 0 && (s->kind != SLOT_EMBED || a->tied);
}

/* Where each packed form begins, and behind the last one the bytes of all. */
static enum status packed_places(size_t *place, const struct layout *l, const struct arch *a,
                                 enum dtype matrix, const struct ops *ops, struct device *dev,
                                 struct err *err)
{
    size_t at = 0;
    for (int32_t i = 0; i < l->n_slots; i++) {
        const struct slot *s = &l->slots[i];
        size_t n = 0;
        place[i] = at;
        if (is_multiplied(s, a))
            TRY(ops->weight_bytes(dev, &n, s->rows, s->cols, matrix, err));
        if (n > SIZE_MAX / 2 - at)
            return err_set(err, ST_INPUT, "the packed weights are too large");
        at += n;
    }
    place[l->n_slots] = at;
    return ST_OK;
}

/* Layout and places; both are freed by the caller, after a failure too. */
static enum status packed_layout(struct layout *l, size_t **place, const struct arch *a, enum dtype matrix,
                                 const struct ops *ops, struct device *dev, struct err *err)
{
    *place = NULL;
    if (!layout_make(l, a, matrix))
        return err_memory(err, "the list of weights", 0);
    size_t n = ((size_t)l->n_slots + 1) * sizeof **place;
    *place = malloc(n);
    if (!*place)
        return err_memory(err, "the list of packed weights", n);
    return packed_places(*place, l, a, matrix, ops, dev, err);
}

enum status weights_packed_bytes(size_t *n_bytes, const struct arch *a, enum dtype matrix,
                                 const struct ops *ops, struct device *dev, struct err *err)
{
    struct layout l;
    size_t *place;
    enum status st = packed_layout(&l, &place, a, matrix, ops, dev, err);
    *n_bytes = st == ST_OK ? place[l.n_slots] : 0;
    free(place);
    free(l.slots);
    return st;
}

int32_t weights_count(const struct arch *a)
{
    const int32_t norms = 2 + 2 * a->sandwich + 2 * a->qk_norm;
    return a->n_layers * (N_PROJ + norms) + 2 + !a->tied;
}

enum status weights_name(char name[WEIGHT_NAME_BYTES], const struct arch *a, int32_t i, struct err *err)
{
    struct layout l;
    if (!layout_make(&l, a, DT_F32))
        return err_memory(err, "the list of weights", 0);
    enum status st =
        i >= 0 && i < l.n_slots ? ST_OK : err_set(err, ST_DEFECT, "weight %d of %d", i, l.n_slots);
    if (st == ST_OK)
        memcpy(name, l.slots[i].name, WEIGHT_NAME_BYTES);
    free(l.slots);
    return st;
}

enum status weights_digest_group(struct weight_digest *out, const struct arch *a, enum dtype matrix,
                                 const struct weights_memory *m, int32_t group, const struct ops *ops,
                                 struct device *dev, struct err *err)
{
    struct layout l = {0};
    size_t *place = NULL;
    int32_t first = 0, end = 0;
    enum status st = packed_layout(&l, &place, a, matrix, ops, dev, err);
    if (st == ST_OK)
        group_slots(&l, a, group, &first, &end);
    for (int32_t i = first; i < end; i++) {
        out[i] = (struct weight_digest){0};
        if (i % m->n_parts != m->part)
            continue;
        out[i].rows =
            crc32_add(0, (const char *)m->block + l.slots[i].offset, slot_bytes(&l.slots[i], matrix));
        if (place[i + 1] > place[i])
            out[i].packed = crc32_add(0, (const char *)m->packed + place[i], place[i + 1] - place[i]);
    }
    free(place);
    free(l.slots);
    return st;
}

/* The place of slot s's matrix, or NULL for a vector. */
static struct weight *slot_matrix(struct weights *w, const struct slot *s)
{
    switch (s->kind) {
    case SLOT_EMBED:
        return &w->embed;
    case SLOT_HEAD:
        return &w->head;
    case SLOT_PROJ:
        return &w->layers[s->layer].proj[s->proj];
    default:
        return NULL;
    }
}

static enum status bind_vector(struct weights *w, const struct slot *s, const float *data, struct err *err)
{
    struct layer_weights *lw = &w->layers[s->layer];
    const float **to[] = {[SLOT_FINAL_NORM] = &w->final_norm,
                          [SLOT_ATTN_NORM] = &lw->attn_norm,
                          [SLOT_MLP_NORM] = &lw->mlp_norm,
                          [SLOT_POST_ATTN_NORM] = &lw->post_attn_norm,
                          [SLOT_POST_MLP_NORM] = &lw->post_mlp_norm,
                          [SLOT_Q_NORM] = &lw->q_norm,
                          [SLOT_K_NORM] = &lw->k_norm};
    if (s->kind >= sizeof to / sizeof *to || !to[s->kind])
        return err_set(err, ST_DEFECT, "weight slot '%s' has no place", s->name);
    *to[s->kind] = data;
    return ST_OK;
}

/* Nobody reads the rows of a projection but the products. Those of embedding and head are also read one by
 * one, by input and whole matrices of a checkpoint: the packed form must hold them. */
static bool source_replaced(const struct layout *l, int32_t i, const struct weight *m)
{
    return m && m->source_unused && (i < l->n_projections || m->packed_row);
}

/* Rows of slots [first, end) go, if all in front of them did. */
static void drop_sources(struct weights *w, const struct layout *l, int32_t first, int32_t end)
{
    for (int32_t i = first; i < end && w->unused_bytes == slot_begin(l, i); i++) {
        struct weight *m = slot_matrix(w, &l->slots[i]);
        if (!source_replaced(l, i, m))
            return;
        m->data = NULL;
        w->unused_bytes = slot_begin(l, i + 1);
    }
}

enum status weights_open(struct weights *w, const struct arch *a, struct err *err)
{
    *w = (struct weights){.arch = a, .layers = calloc((size_t)a->n_layers, sizeof *w->layers)};
    return w->layers ? ST_OK
                     : err_memory(err, "the table of weights", (size_t)a->n_layers * sizeof *w->layers);
}

/* Whether this process packs slot i: shares of a group of about the same bytes, each in one piece. */
static bool packs(const struct weights_memory *m, const size_t *place, int32_t i, int32_t first, int32_t end)
{
    const size_t middle = (place[i] + place[i + 1]) / 2 - place[first];
    return (int)(middle / ((place[end] - place[first]) / (size_t)m->n_parts + 1)) == m->part;
}

enum status weights_bind_group(struct weights *w, enum dtype matrix, const struct weights_memory *m,
                               int32_t group, const struct ops *ops, struct device *dev, struct err *err)
{
    const struct arch *a = w->arch;
    struct layout l = {0};
    size_t *place = NULL;
    int32_t first = 0, end = 0;
    enum status st = packed_layout(&l, &place, a, matrix, ops, dev, err);
    if (st == ST_OK)
        group_slots(&l, a, group, &first, &end);
    for (int32_t i = first; i < end && st == ST_OK; i++) {
        const struct slot *s = &l.slots[i];
        const char *data = (const char *)m->block + s->offset;
        struct weight *to = slot_matrix(w, s);
        if (!to) {
            st = bind_vector(w, s, (const float *)(const void *)data, err);
            continue;
        }
        *to = (struct weight){.n_out = s->rows, .n_in = s->cols, .dtype = matrix, .data = data};
        if (is_multiplied(s, a))
            st = ops->weight_prepare(dev, to, (char *)m->packed + place[i], packs(m, place, i, first, end),
                                     err);
    }
    if (st == ST_OK)
        drop_sources(w, &l, first, end);
    if (st == ST_OK && a->tied)
        w->head = w->embed;
    free(place);
    free(l.slots);
    return st;
}

enum status weights_bind(struct weights *w, const struct arch *a, enum dtype matrix,
                         const struct weights_memory *m, const struct ops *ops, struct device *dev,
                         struct err *err)
{
    TRY(weights_open(w, a, err));
    for (int32_t g = 0; g < weights_n_groups(a); g++)
        TRY(weights_bind_group(w, matrix, m, g, ops, dev, err));
    return ST_OK;
}

void weights_release(struct weights *w, const struct ops *ops, struct device *dev)
{
    if (!w->layers)
        return;
    for (int32_t i = 0; i < w->arch->n_layers; i++)
        for (int p = 0; p < N_PROJ; p++)
            ops->weight_release(dev, &w->layers[i].proj[p]);
    if (!w->arch->tied)
        ops->weight_release(dev, &w->head);
    ops->weight_release(dev, &w->embed);
    free(w->layers);
    *w = (struct weights){0};
}
