/* New rows as whole matrices of embedding and head (PEFT's modules_to_save), on the way out. The other rows
 * are the base's, without moments. */
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"
#include "train/adapter.h"
#include "train_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the rows of a whole matrix are made of. */
struct making {
    const struct params *params;
    const float *values;
};

static enum status add_whole(const struct params *p, const char *name, enum dtype dtype,
                             struct tensor_list *out, struct err *err)
{
    const int64_t dims[2] = {whole__rows(p), p->items[p->index_rows].cols};
    return tensor_list_add(out, name, dtype, 2, dims, NULL, err);
}

/* Named tensors in the order of p's items, whole matrices without data. */
static enum status tensors_of(const struct params *p, const float *values, struct tensor_list *out,
                              struct err *err)
{
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct param *it = &p->items[i];
        const int64_t dims[2] = {it->rows, it->cols};
        if (whole__name(p, i) != NULL)
            TRY(add_whole(p, whole__name(p, i), DT_F32, out, err));
        else
            TRY(tensor_list_add(out, it->name, DT_F32, 2, dims, values + it->offset, err));
    }
    return ST_OK;
}

/* Rows of a whole matrix in the tensor's type: the new ones, the base's, and zero where neither has any (ids
 * beyond both, which no row of the data uses). */
static enum status make_rows(void *user, const struct tensor *t, int64_t from, int64_t n, void *out,
                             struct err *err)
{
    const struct making *m = user;
    const struct params *p = m->params;
    const bool is_head = strcmp(t->name, WHOLE_HEAD) == 0;
    const struct weight *base = is_head ? p->base_head : p->base_embed;
    const int32_t item = is_head && p->index_head_rows >= 0 ? p->index_head_rows : p->index_rows;
    const size_t h = (size_t)p->items[item].cols;
    float *row = malloc(h * sizeof *row);
    if (row == NULL)
        return err_memory(err, "a row", h * sizeof *row);
    for (int64_t i = from; i < from + n; i++) {
        params_row(p, m->values, item, base, i, row);
        dtype_from_f32(t->dtype, row, (char *)out + (size_t)(i - from) * h * dtype_bytes(t->dtype), h);
    }
    free(row);
    return ST_OK;
}

static enum status check_base(const struct params *p, struct err *err)
{
    if (p->base_embed != NULL && p->base_head != NULL && weight_has_rows(p->base_embed) &&
        weight_has_rows(p->base_head))
        return ST_OK;
    return err_set(err, ST_DEFECT, "whole matrices are asked for without the base's rows");
}

enum status adapter_write_whole(const char *path, const struct params *p, const float *values,
                                enum dtype dtype, struct err *err)
{
    struct tensor_list list = TENSOR_LIST_INIT;
    struct making making = {.params = p, .values = values};
    const struct row_source source = {.rows = make_rows, .user = &making};
    void *rounded = NULL;
    if (p->index_rows < 0)
        return adapter_write(path, p, values, dtype, err);
    TRY(check_base(p, err));
    enum status st = tensors_of(p, values, &list, err);
    /* One parameter for both ends: PEFT's file has its matrix under either name. */
    if (st == ST_OK && p->index_head_rows < 0)
        st = add_whole(p, WHOLE_HEAD, DT_F32, &list, err);
    if (st == ST_OK)
        st = adapter__round(&list, dtype, &rounded, err);
    if (st == ST_OK)
        st = safetensors_write_rows(path, &list, &source, err);
    tensor_list_release(&list);
    free(rounded);
    return st;
}

/* Zeros that nobody touches cost no memory: the system gives one page of them for all. */
static enum status widen(const struct params *p, const float *x, size_t n, float **out, struct err *err)
{
    size_t at = 0;
    *out = calloc(n, sizeof **out);
    if (*out == NULL)
        return err_memory(err, "moments of whole matrices", n * sizeof **out);
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct param *it = &p->items[i];
        const size_t size = (size_t)(it->rows * it->cols), h = (size_t)it->cols;
        const bool whole = whole__name(p, i) != NULL;
        memcpy(*out + at + (whole ? (size_t)p->new_first * h : 0), x + it->offset, size * sizeof *x);
        at += whole ? (size_t)whole__rows(p) * h : size;
    }
    return ST_OK;
}

enum status whole__optimizer_write(const char *path, const struct params *p, struct optimizer_state *s,
                                   const float *m, const float *v, struct err *err)
{
    struct tensor_list list = TENSOR_LIST_INIT;
    float *wide_m = NULL, *wide_v = NULL;
    size_t n = 0;
    enum status st = tensors_of(p, m, &list, err);
    for (int i = 0; i < list.n_items; i++)
        n += (size_t)tensor_count(&list.items[i]);
    if (st == ST_OK)
        st = widen(p, m, n, &wide_m, err);
    if (st == ST_OK)
        st = widen(p, v, n, &wide_v, err);
    s->params = &list;
    s->exp_avg = wide_m;
    s->exp_avg_sq = wide_v;
    if (st == ST_OK)
        st = optimizer_write(path, s, err);
    tensor_list_release(&list);
    free(wide_m);
    free(wide_v);
    return st;
}
