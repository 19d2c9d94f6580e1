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
    if (base == NULL || base->data == NULL)
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

static enum status check_others(const struct params *p, int32_t item, const struct tensor *t,
                                const char *file, float *row, struct err *err)
{
    const struct weight *base = item == p->index_head_rows ? p->base_head : p->base_embed;
    const int64_t h = base->n_in;
    for (int64_t i = 0; i < base->n_out; i++) {
        if (i >= p->new_first && i < p->new_first + p->n_new)
            continue;
        const size_t at = (size_t)(i * h);
        dtype_to_f32(t->dtype, (const char *)t->data + at * dtype_bytes(t->dtype), row, (size_t)h);
        dtype_to_f32(base->dtype, (const char *)base->data + at * dtype_bytes(base->dtype), row + h,
                     (size_t)h);
        for (int64_t j = 0; j < h; j++)
            if (!same_value(row[j], row[h + j], t->dtype, base->dtype)) {
                err_set(err, ST_INPUT,
                        "%s: \"%s\" has %.9g at row %lld, column %lld, the base has %.9g: rows other than "
                        "the new ones were trained",
                        file, t->name, (double)row[j], (long long)i, (long long)j, (double)row[h + j]);
                return err_hint(err, "only new rows are trained here: give the base that the adapter was "
                                     "made on, and mask the gradient of its rows there");
            }
    }
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
    float *row = malloc(2 * width * sizeof *row + 1);
    if (row == NULL)
        return err_memory(err, "a row of the base", 2 * width * sizeof *row);
    enum status st = check_others(p, item, t, file, row, err);
    free(row);
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
