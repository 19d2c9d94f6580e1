/* torch.save's files from outside: open, look up, close. */
#include "checkpoint/torch_file.h"
#include "checkpoint_internal.h"
#include "pickle_internal.h"

#include <stdlib.h>
#include <string.h>

struct open_file {
    struct zip zip;
    struct arena arena;
};

/* Payload of a small text entry against what it must be; absent is good when `optional`. */
static enum status check_text(struct zip *z, const char *name, const char *wanted, const char *otherwise,
                              struct err *err)
{
    const struct zip_entry *e = NULL;
    TRY(zip__find(z, name, strlen(name), &e, err));
    if (!e || (e->n_bytes == strlen(wanted) && memcmp(e->data, wanted, e->n_bytes) == 0))
        return ST_OK;
    return err_set(err, ST_INPUT, "\"%s\": %s", z->path, otherwise);
}

/* A number from 1 to 10 with a line feed. */
static enum status check_version(struct zip *z, struct err *err)
{
    const struct zip_entry *e = NULL;
    TRY(zip__find(z, "version", 7, &e, err));
    if (!e)
        return err_set(err, ST_INPUT, "\"%s\" is a zip archive, but no torch file: no entry \"%s/version\"",
                       z->path, checkpoint__quote_z(z->root).text);
    int version = 0;
    size_t i = 0;
    while (i < e->n_bytes && i < 3 && e->data[i] >= '0' && e->data[i] <= '9')
        version = 10 * version + (e->data[i++] - '0');
    while (i < e->n_bytes && (e->data[i] == '\n' || e->data[i] == '\r'))
        i++;
    if (i != e->n_bytes || version < 1 || version > 10)
        return err_set(err, ST_INPUT, "\"%s\": unknown version of torch's format", z->path);
    return ST_OK;
}

static enum status read_all(struct open_file *o, struct value **root, struct err *err)
{
    TRY(check_version(&o->zip, err));
    TRY(check_text(&o->zip, "byteorder", "little", "the tensors are not little-endian", err));
    const struct zip_entry *e = NULL;
    TRY(zip__find(&o->zip, "data.pkl", 8, &e, err));
    if (!e)
        return err_set(err, ST_INPUT, "\"%s\": no entry \"%s/data.pkl\"", o->zip.path,
                       checkpoint__quote_z(o->zip.root).text);
    return pickle__read(&o->zip, e, &o->arena, root, err);
}

enum status torch_file_open(struct torch_file *f, const char *path, struct err *err)
{
    *f = (struct torch_file){0};
    struct open_file *o = calloc(1, sizeof *o);
    if (!o)
        return err_memory(err, "a torch file", sizeof *o);
    enum status status = zip__open(&o->zip, path, err);
    f->impl = o;
    if (status == ST_OK)
        status = read_all(o, &f->root, err);
    if (status != ST_OK)
        torch_file_close(f);
    return status;
}

void torch_file_close(struct torch_file *f)
{
    struct open_file *o = f->impl;
    if (o) {
        arena__release(&o->arena);
        zip__close(&o->zip);
        free(o);
    }
    *f = (struct torch_file){0};
}

const struct value *value_get(const struct value *dict, const char *key)
{
    if (!dict || dict->kind != VALUE_DICT)
        return NULL;
    size_t n = strlen(key);
    for (size_t i = 0; i < dict->dict.n; i++) {
        const struct value *k = dict->dict.keys[i];
        if (k->kind == VALUE_STRING && k->string.n_bytes == n && memcmp(k->string.text, key, n) == 0)
            return dict->dict.values[i];
    }
    return NULL;
}

const struct value *value_get_int(const struct value *dict, int64_t key)
{
    if (!dict || dict->kind != VALUE_DICT)
        return NULL;
    for (size_t i = 0; i < dict->dict.n; i++) {
        const struct value *k = dict->dict.keys[i];
        if (k->kind == VALUE_INT && k->integer == key)
            return dict->dict.values[i];
    }
    return NULL;
}

/* The one element of a tensor. */
static bool tensor_number(const struct tensor *t, double *out)
{
    if (tensor_count(t) != 1)
        return false;
    float f;
    int64_t i64;
    int32_t i32;
    switch (t->dtype) {
    case DT_F64:
        memcpy(out, t->data, sizeof *out);
        return true;
    case DT_I64:
        memcpy(&i64, t->data, sizeof i64);
        *out = (double)i64;
        return true;
    case DT_I32:
        memcpy(&i32, t->data, sizeof i32);
        *out = i32;
        return true;
    default:
        if (!dtype_to_f32(t->dtype, t->data, &f, 1))
            return false;
        *out = f;
        return true;
    }
}

bool value_number(const struct value *v, double *out)
{
    if (!v)
        return false;
    switch (v->kind) {
    case VALUE_INT:
        *out = (double)v->integer;
        return true;
    case VALUE_FLOAT:
        *out = v->real;
        return true;
    case VALUE_TENSOR:
        return tensor_number(&v->tensor, out);
    default:
        return false;
    }
}

enum status torch_file_tensors(const struct torch_file *f, const char *path, struct tensor_list *out,
                               struct err *err)
{
    const struct value *root = f->root;
    if (root->kind != VALUE_DICT)
        return err_set(err, ST_INPUT, "\"%s\" holds no dict of tensors", path);
    for (size_t i = 0; i < root->dict.n; i++) {
        const struct value *key = root->dict.keys[i], *value = root->dict.values[i];
        if (key->kind != VALUE_STRING || strlen(key->string.text) != key->string.n_bytes)
            return err_set(err, ST_INPUT, "\"%s\": key %zu is no usable name", path, i);
        if (value->kind != VALUE_TENSOR)
            return err_set(err, ST_INPUT, "\"%s\": \"%s\" is no tensor", path,
                           checkpoint__quote_z(key->string.text).text);
        const struct tensor *t = &value->tensor;
        TRY(tensor_list_add(out, key->string.text, t->dtype, t->n_dims, t->dims, t->data, err));
    }
    tensor_list_sort(out);
    return ST_OK;
}
