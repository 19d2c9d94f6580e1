#include "checkpoint/safetensors.h"
#include "checkpoint/torch_file.h"
#include "train/adapter.h"
#include "train_internal.h"
#include "util/file.h"
#include "util/log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_ROWS  "lm_head.token_adapter.trainable_tokens_delta"
#define BASE_LAYER ".token_adapter.base_layer.weight"

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static const struct param *param_find(const struct params *p, const char *name)
{
    for (int32_t i = 0; i < p->n_items; i++)
        if (strcmp(p->items[i].name, name) == 0)
            return &p->items[i];
    return NULL;
}

static void shape_text(const struct tensor *t, char *text, size_t n_bytes)
{
    size_t at = 0;
    text[0] = '\0';
    for (int d = 0; d < t->n_dims && at < n_bytes; d++)
        at += (size_t)snprintf(text + at, n_bytes - at, "%s%lld", d > 0 ? ", " : "", (long long)t->dims[d]);
}

static enum status tensor_take(const struct param *it, const struct tensor *t, const char *file, float *out,
                               struct err *err)
{
    char shape[128];
    if (t->n_dims != 2 || t->dims[0] != it->rows || t->dims[1] != it->cols) {
        shape_text(t, shape, sizeof shape);
        err_set(err, ST_INPUT, "%s: tensor \"%s\" has shape [%s], expected [%lld, %lld]", file, it->name,
                shape, (long long)it->rows, (long long)it->cols);
        return err_hint(err, "the adapter was made with another lora_r, base model or vocabulary");
    }
    if (!dtype_to_f32(t->dtype, t->data, out, (size_t)(it->rows * it->cols)))
        return err_set(err, ST_INPUT, "%s: tensor \"%s\" is of type %s, expected a floating type", file,
                       it->name, dtype_name(t->dtype));
    return ST_OK;
}

/* PEFT stores the head's rows of a grown tied model a second time. They are one parameter here, so both must
 * say the same. */
static enum status check_tied_copy(const struct params *p, const struct tensor *t, const char *file,
                                   const float *values, struct err *err)
{
    const struct param *rows = &p->items[p->index_rows];
    size_t n = (size_t)(rows->rows * rows->cols);
    float *copy = malloc(n * sizeof *copy + 1);
    if (copy == NULL)
        return err_memory(err, "rows of the head", n * sizeof *copy);
    struct param as_head = *rows;
    snprintf(as_head.name, sizeof as_head.name, "%.150s", t->name);
    enum status st = tensor_take(&as_head, t, file, copy, err);
    if (st == ST_OK && memcmp(copy, values + rows->offset, n * sizeof *copy) != 0) {
        st = err_set(err, ST_INPUT, "%s: tensor \"%s\" differs from the input rows: they were trained apart",
                     file, t->name);
        err_hint(err, "use new_rows=untied");
    }
    free(copy);
    return st;
}

/* Whole matrices take the place of tensors of rows; beside them they would be a second answer. */
static bool is_whole(const struct params *p, const struct tensor_list *list, const char *name)
{
    if (p->index_rows < 0 || tensor_list_find(list, p->items[p->index_rows].name) != NULL)
        return false;
    return strcmp(name, WHOLE_EMBED) == 0 || strcmp(name, WHOLE_HEAD) == 0 || whole__is_copy(name);
}

static enum status check_extra(const struct params *p, const struct tensor *t, const char *file,
                               const float *values, struct err *err)
{
    if (param_find(p, t->name) != NULL || ends_with(t->name, BASE_LAYER))
        return ST_OK;
    if (ends_with(t->name, HEAD_ROWS) && !p->untied_rows && p->index_rows >= 0)
        return check_tied_copy(p, t, file, values, err);
    err_set(err, ST_INPUT, "%s: tensor \"%s\" is not among what is trained here", file, t->name);
    return err_hint(err, "set lora_targets and new_rows as the adapter was made");
}

static enum status list_take(const struct params *p, const struct tensor_list *list, const char *file,
                             float *values, struct err *err)
{
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct tensor *t = tensor_list_find(list, p->items[i].name);
        const char *name = t == NULL ? whole__name(p, i) : NULL;
        const struct tensor *whole = name != NULL ? tensor_list_find(list, name) : NULL;
        if (whole != NULL) {
            TRY(whole__take(p, i, whole, file, values + p->items[i].offset, err));
            if (i == p->index_rows)
                TRY(whole__check_tied(p, whole, tensor_list_find(list, WHOLE_HEAD), file, err));
            continue;
        }
        if (t == NULL) {
            err_set(err, ST_INPUT, "%s: tensor \"%s\" is missing", file, p->items[i].name);
            return err_hint(err, "set lora_targets and new_rows as the adapter was made");
        }
        TRY(tensor_take(&p->items[i], t, file, values + p->items[i].offset, err));
    }
    for (int i = 0; i < list->n_items; i++)
        if (!is_whole(p, list, list->items[i].name))
            TRY(check_extra(p, &list->items[i], file, values, err));
    return ST_OK;
}

/* The dictionary of an adapter_model.bin as a list; its tensors live in the open file. */
static enum status list_from_bin(const struct torch_file *f, const char *file, struct tensor_list *list,
                                 struct err *err)
{
    const struct value *root = f->root;
    if (root == NULL || root->kind != VALUE_DICT)
        return err_set(err, ST_INPUT, "%s: not a dictionary of tensors", file);
    for (size_t i = 0; i < root->dict.n; i++) {
        const struct value *key = root->dict.keys[i], *v = root->dict.values[i];
        if (key->kind != VALUE_STRING || v->kind != VALUE_TENSOR)
            return err_set(err, ST_INPUT, "%s: entry %zu is no named tensor", file, i);
        TRY(tensor_list_add(list, key->string.text, v->tensor.dtype, v->tensor.n_dims, v->tensor.dims,
                            v->tensor.data, err));
    }
    tensor_list_sort(list);
    return ST_OK;
}

/* What is done with the tensors of an adapter's file, be it .safetensors or .bin. */
typedef enum status (*list_use)(const struct tensor_list *list, const char *path, void *user,
                                struct err *err);

static enum status use_bin(const char *path, list_use use, void *user, struct err *err)
{
    struct torch_file f;
    struct tensor_list list = TENSOR_LIST_INIT;
    TRY(torch_file_open(&f, path, err));
    enum status st = list_from_bin(&f, path, &list, err);
    if (st == ST_OK)
        st = use(&list, path, user, err);
    tensor_list_release(&list);
    torch_file_close(&f);
    return st;
}

static enum status use_file(const char *path, list_use use, void *user, struct err *err)
{
    struct safetensors s;
    if (ends_with(path, ".bin"))
        return use_bin(path, use, user, err);
    TRY(safetensors_open(&s, path, err));
    enum status st = use(&s.tensors, path, user, err);
    safetensors_close(&s);
    return st;
}

struct taking {
    const struct params *params;
    float *values;
};

static enum status take_all(const struct tensor_list *list, const char *path, void *user, struct err *err)
{
    const struct taking *t = user;
    return list_take(t->params, list, path, t->values, err);
}

enum status adapter_read_file(const char *path, const char *dir, const struct params *p, float *values,
                              struct err *err)
{
    struct row_order order;
    TRY(order__read(&order, dir, p, err));
    if (order.dropout > 0)
        log_warn("%s was trained with lora_dropout %g, which is not applied here", dir, order.dropout);
    struct taking taking = {.params = p, .values = values};
    enum status st = use_file(path, take_all, &taking, err);
    if (st == ST_OK)
        st = order__apply(&order, p, values, err);
    order__release(&order);
    return st;
}

/* The adapter's file in a directory, in whichever of its two forms. */
static enum status file_of(const char *dir, char path[PATH_BYTES], struct err *err)
{
    char bin[PATH_BYTES];
    TRY(path_join(path, dir, "adapter_model.safetensors", err));
    TRY(path_join(bin, dir, "adapter_model.bin", err));
    if (!file_exists(path) && file_exists(bin))
        strcpy(path, bin);
    return ST_OK;
}

enum status adapter_read(const char *dir, const struct params *p, float *values, struct err *err)
{
    char path[PATH_BYTES];
    TRY(file_of(dir, path, err));
    return adapter_read_file(path, dir, p, values, err);
}

struct finding {
    const struct weight *embed, *head;
    int64_t first, end;
};

static enum status find_rows(const struct tensor_list *list, const char *path, void *user, struct err *err)
{
    struct finding *f = user;
    const struct tensor *embed = tensor_list_find(list, WHOLE_EMBED),
                        *head = tensor_list_find(list, WHOLE_HEAD);
    if (embed == NULL)
        return err_set(err, ST_INPUT, "%s: tensor \"%s\" is missing", path, WHOLE_EMBED);
    TRY(whole__find(embed, f->embed, path, &f->first, &f->end, err));
    return head != NULL ? whole__find(head, f->head, path, &f->first, &f->end, err) : ST_OK;
}

enum status adapter_whole_rows(const char *dir, const struct weight *embed, const struct weight *head,
                               int64_t *first, int64_t *n, struct err *err)
{
    char path[PATH_BYTES];
    struct finding f = {.embed = embed, .head = head, .first = INT64_MAX};
    TRY(file_of(dir, path, err));
    TRY(use_file(path, find_rows, &f, err));
    *first = f.end > f.first ? f.first : 0;
    *n = f.end > f.first ? f.end - f.first : 1;
    return ST_OK;
}

/* A copy in the file's order where that is not ours, else NULL. */
static enum status file_order(const struct params *p, const float *values, float **out, struct err *err)
{
    const size_t n_bytes = (size_t)p->n_values * sizeof *values;
    *out = NULL;
    if (!order__is_flipped(p))
        return ST_OK;
    *out = malloc(n_bytes + 1);
    if (*out == NULL)
        return err_memory(err, "values in the file's order", n_bytes);
    memcpy(*out, values, n_bytes);
    order__flip(p, *out);
    return ST_OK;
}

enum status adapter__round(struct tensor_list *list, enum dtype dtype, void **memory, struct err *err)
{
    size_t n_bytes = 0;
    if (dtype == DT_F32)
        return ST_OK;
    for (int i = 0; i < list->n_items; i++)
        n_bytes +=
            list->items[i].data != NULL ? (size_t)tensor_count(&list->items[i]) * dtype_bytes(dtype) : 0;
    char *at = *memory = malloc(n_bytes + 1);
    if (at == NULL)
        return err_memory(err, "rounded values", n_bytes);
    for (int i = 0; i < list->n_items; i++) {
        struct tensor *t = &list->items[i];
        const size_t n = (size_t)tensor_count(t);
        t->dtype = dtype;
        t->n_bytes = n * dtype_bytes(dtype);
        if (t->data == NULL)
            continue;
        if (!dtype_from_f32(dtype, t->data, at, n))
            return err_set(err, ST_DEFECT, "an adapter of type %s", dtype_name(dtype));
        t->data = at;
        at += t->n_bytes;
    }
    return ST_OK;
}

enum status adapter_write(const char *path, const struct params *p, const float *values, enum dtype dtype,
                          struct err *err)
{
    struct tensor_list list = TENSOR_LIST_INIT;
    float *turned = NULL;
    void *rounded = NULL;
    enum status st = file_order(p, values, &turned, err);
    if (st == ST_OK)
        st = params_tensors(p, turned != NULL ? turned : values, &list, err);
    if (st == ST_OK)
        st = adapter__round(&list, dtype, &rounded, err);
    if (st == ST_OK)
        st = safetensors_write(path, &list, err);
    tensor_list_release(&list);
    free(rounded);
    free(turned);
    return st;
}
