/* Whole matrices of embedding and head, as PEFT's modules_to_save stores them, for the new rows alone. The
 * other rows are frozen here: a file that changed them cannot be carried over. */
#include "train_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *whole__name(const struct params *p, int32_t item)
{
    if (item < 0)
        return NULL;
    return item == p->index_rows ? WHOLE_EMBED : item == p->index_head_rows ? WHOLE_HEAD : NULL;
}

int64_t whole__rows(const struct params *p)
{
    const int64_t end = p->new_first + p->n_new;
    if (p->base_embed == NULL)
        return 0;
    return p->base_embed->n_out > end ? p->base_embed->n_out : end;
}

/* Equal, or equal when one is rounded to the type of the other: files keep the base's type or float32, the
 * base is held in the type of the products. */
static bool same_value(float file, float base, enum dtype file_type, enum dtype base_type)
{
    uint64_t bits;
    float x;
    if (file == base)
        return true;
    if (dtype_from_f32(file_type, &base, &bits, 1) && dtype_to_f32(file_type, &bits, &x, 1) && x == file)
        return true;
    return dtype_from_f32(base_type, &file, &bits, 1) && dtype_to_f32(base_type, &bits, &x, 1) && x == base;
}

static enum status check_shape(const struct params *p, int32_t item, const struct tensor *t, const char *file,
                               struct err *err)
{
    const struct weight *base = item == p->index_head_rows ? p->base_head : p->base_embed;
    if (base == NULL || !weight_has_rows(base))
        return err_set(err, ST_INPUT,
                       "%s: \"%s\" is a whole matrix, and the base to compare it with is not at hand", file,
                       t->name);
    if (t->n_dims != 2 || t->dims[1] != p->items[item].cols || t->dims[0] != whole__rows(p)) {
        err_set(err, ST_INPUT, "%s: \"%s\" has %lld rows, here it is %lld of %lld columns", file, t->name,
                t->n_dims > 0 ? (long long)t->dims[0] : 0LL, (long long)whole__rows(p),
                (long long)p->items[item].cols);
        return err_hint(err, "the loss goes over all rows: the vocabularies must be of one size");
    }
    return ST_OK;
}

/* Two rows side by side, to compare the file's with the base's. */
struct row_pair {
    float *file, *base; /* [h] each, one allocation */
    size_t h;
};

static enum status row_pair_open(struct row_pair *r, int64_t h, struct err *err)
{
    r->h = (size_t)h;
    r->file = malloc(2 * r->h * sizeof *r->file + 1);
    r->base = r->file != NULL ? r->file + r->h : NULL;
    return r->file != NULL ? ST_OK : err_memory(err, "a row of the base", 2 * r->h * sizeof *r->file);
}

/* The first column in which row i of the two differs, or -1. */
static int64_t row_differs(struct row_pair *r, const struct tensor *t, const struct weight *base, int64_t i)
{
    const size_t at = (size_t)i * r->h;
    dtype_to_f32(t->dtype, (const char *)t->data + at * dtype_bytes(t->dtype), r->file, r->h);
    weight_row(base, i, r->base);
    for (size_t j = 0; j < r->h; j++)
        if (!same_value(r->file[j], r->base[j], t->dtype, base->dtype))
            return (int64_t)j;
    return -1;
}

static enum status check_others(const struct params *p, int32_t item, const struct tensor *t,
                                const char *file, struct row_pair *r, struct err *err)
{
    const struct weight *base = item == p->index_head_rows ? p->base_head : p->base_embed;
    for (int64_t i = 0; i < base->n_out; i++) {
        if (i >= p->new_first && i < p->new_first + p->n_new)
            continue;
        const int64_t j = row_differs(r, t, base, i);
        if (j < 0)
            continue;
        err_set(
            err, ST_INPUT,
            "%s: \"%s\" has %.9g at row %lld, column %lld, the base has %.9g: rows other than the new ones "
            "were trained",
            file, t->name, (double)r->file[j], (long long)i, (long long)j, (double)r->base[j]);
        return err_hint(err,
                        "only new rows are trained here: give the base that the adapter was made on, and "
                        "mask the gradient of its rows there");
    }
    return ST_OK;
}

enum status whole__find(const struct tensor *t, const struct weight *base, const char *file, int64_t *first,
                        int64_t *end, struct err *err)
{
    struct row_pair r;
    float number;
    if (t->n_dims != 2 || t->dims[1] != base->n_in || t->dims[0] < base->n_out) {
        err_set(err, ST_INPUT, "%s: \"%s\" is no matrix of %lld columns and at least %lld rows", file,
                t->name, (long long)base->n_in, (long long)base->n_out);
        return err_hint(err, "give the base that the adapter was made on");
    }
    if (!dtype_to_f32(t->dtype, t->data, &number, 1))
        return err_set(err, ST_INPUT, "%s: tensor \"%s\" is of type %s, expected a floating type", file,
                       t->name, dtype_name(t->dtype));
    TRY(row_pair_open(&r, base->n_in, err));
    for (int64_t i = 0; i < t->dims[0]; i++) {
        if (i < base->n_out && row_differs(&r, t, base, i) < 0)
            continue;
        *first = i < *first ? i : *first;
        *end = i + 1 > *end ? i + 1 : *end;
    }
    free(r.file);
    return ST_OK;
}

enum status whole__take(const struct params *p, int32_t item, const struct tensor *t, const char *file,
                        float *out, struct err *err)
{
    const struct param *it = &p->items[item];
    TRY(check_shape(p, item, t, file, err));
    const size_t width = (size_t)it->cols, skip = (size_t)p->new_first * width * dtype_bytes(t->dtype);
    if (!dtype_to_f32(t->dtype, (const char *)t->data + skip, out, (size_t)it->rows * width))
        return err_set(err, ST_INPUT, "%s: tensor \"%s\" is of type %s, expected a floating type", file,
                       t->name, dtype_name(t->dtype));
    struct row_pair r;
    TRY(row_pair_open(&r, it->cols, err));
    enum status st = check_others(p, item, t, file, &r, err);
    free(r.file);
    return st;
}

enum status whole__check_tied(const struct params *p, const struct tensor *embed, const struct tensor *head,
                              const char *file, struct err *err)
{
    if (p->index_head_rows >= 0)
        return ST_OK;
    if (head == NULL)
        return err_set(
            err, ST_INPUT,
            "%s: modules_to_save has embed_tokens alone, which leaves the head's new rows untrained", file);
    if (embed->dtype == head->dtype && embed->n_bytes == head->n_bytes &&
        memcmp(embed->data, head->data, embed->n_bytes) == 0)
        return ST_OK;
    err_set(err, ST_INPUT, "%s: \"%s\" differs from \"%s\": they were trained apart", file, head->name,
            embed->name);
    return err_hint(err, "use new_rows=untied");
}

bool whole__is_copy(const char *name)
{
    static const char *const copies[] = {
        "base_model.model.model.embed_tokens.modules_to_save.weight",
        "base_model.model.model.embed_tokens.original_module.weight",
        "base_model.model.lm_head.modules_to_save.weight",
        "base_model.model.lm_head.original_module.weight",
    };
    for (size_t i = 0; i < sizeof copies / sizeof *copies; i++)
        if (strcmp(name, copies[i]) == 0)
            return true;
    return false;
}
