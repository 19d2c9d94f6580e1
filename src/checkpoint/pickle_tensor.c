/* The part of a pickle that knows torch: storages, tensors and the few names that are allowed. */
#include "checkpoint_internal.h"
#include "pickle_internal.h"

#include <inttypes.h>
#include <string.h>

/* Tensors that do not lie in one piece are copied; a file may ask for this many times its own size. */
#define COPIES_PER_FILE 4

static bool equals(const char *text, size_t n, const char *wanted)
{
    return n == strlen(wanted) && memcmp(text, wanted, n) == 0;
}

static bool storage_dtype(const char *name, size_t n, enum dtype *out)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } classes[] = {
        {"FloatStorage", DT_F32},  {"BFloat16Storage", DT_BF16}, {"HalfStorage", DT_F16},
        {"DoubleStorage", DT_F64}, {"LongStorage", DT_I64},      {"IntStorage", DT_I32},
        {"ShortStorage", DT_I16},  {"CharStorage", DT_I8},       {"ByteStorage", DT_U8},
        {"BoolStorage", DT_BOOL},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (equals(name, n, classes[i].name)) {
            *out = classes[i].dtype;
            return true;
        }
    }
    return false;
}

enum status pickle__global(struct pickle *p, const char *module, size_t n_module, const char *name,
                           size_t n_name, struct node **out, struct err *err)
{
    enum global global = GLOBAL_STORAGE;
    enum dtype dtype = DT_F32;
    bool is_utils = equals(module, n_module, "torch._utils");
    if (is_utils && equals(name, n_name, "_rebuild_tensor_v2"))
        global = GLOBAL_REBUILD_TENSOR;
    else if (is_utils && equals(name, n_name, "_rebuild_parameter"))
        global = GLOBAL_REBUILD_PARAMETER;
    else if (equals(module, n_module, "collections") && equals(name, n_name, "OrderedDict"))
        global = GLOBAL_ORDERED_DICT;
    else if (!equals(module, n_module, "torch") || !storage_dtype(name, n_name, &dtype)) {
        pickle__refuse(p, err, "opcode 0x63 (GLOBAL) asks for \"%s.%s\", which is not allowed",
                       checkpoint__quote(module, n_module).text, checkpoint__quote(name, n_name).text);
        return err_hint(err, "only tensors, numbers, strings, lists and dicts are read; other objects could "
                             "run code when Python loads them");
    }
    TRY(pickle__node(p, VALUE_NONE, out, err));
    (*out)->tag = NODE_GLOBAL;
    (*out)->global = global;
    (*out)->dtype = dtype;
    return ST_OK;
}

static const struct node *item(const struct node *tuple, size_t i)
{
    return (const struct node *)tuple->value.list.items[i];
}

static bool is_string(const struct node *n, const char *wanted)
{
    return n->value.kind == VALUE_STRING && equals(n->value.string.text, n->value.string.n_bytes, wanted);
}

/* ('storage', class, key, location, numel): the zip entry data/<key>. The location is ignored. */
enum status pickle__storage(struct pickle *p, const struct node *id, struct node **out, struct err *err)
{
    if (id->value.kind != VALUE_TUPLE || id->value.list.n != 5 || !is_string(item(id, 0), "storage") ||
        item(id, 1)->tag != NODE_GLOBAL || item(id, 1)->global != GLOBAL_STORAGE ||
        item(id, 2)->value.kind != VALUE_STRING || item(id, 4)->value.kind != VALUE_INT)
        return pickle__refuse(p, err, "a persistent id that is no storage");
    const struct value *key = &item(id, 2)->value;
    struct quoted shown = checkpoint__quote(key->string.text, key->string.n_bytes);
    int64_t numel = item(id, 4)->value.integer;
    enum dtype dtype = item(id, 1)->dtype;
    size_t n_bytes;
    if (numel < 0 || !size_mul((size_t)numel, dtype_bytes(dtype), &n_bytes))
        return pickle__refuse(p, err, "storage \"%s\" of %" PRId64 " elements", shown.text, numel);
    char name[128];
    if (key->string.n_bytes > 100)
        return pickle__refuse(p, err, "storage \"%s\": the name is too long", shown.text);
    int n_name = snprintf(name, sizeof name, "data/%.*s", (int)key->string.n_bytes, key->string.text);
    const struct zip_entry *entry = NULL;
    TRY(zip__find(p->zip, name, (size_t)n_name, &entry, err));
    if (!entry)
        return pickle__refuse(p, err, "storage \"%s\" is not in the file", shown.text);
    if (entry->n_bytes != n_bytes)
        return pickle__refuse(p, err, "storage \"%s\" has %zu bytes, %" PRId64 " elements need %zu",
                              shown.text, entry->n_bytes, numel, n_bytes);
    TRY(pickle__node(p, VALUE_NONE, out, err));
    (*out)->tag = NODE_STORAGE;
    (*out)->dtype = dtype;
    (*out)->data = entry;
    (*out)->numel = (uint64_t)numel;
    return ST_OK;
}

/* A view of a storage: sizes and strides in elements. */
struct view {
    int n_dims;
    int64_t offset, count, dims[TENSOR_MAX_DIMS], strides[TENSOR_MAX_DIMS];
};

static enum status read_view(const struct pickle *p, const struct node *args, struct view *v, struct err *err)
{
    const struct value *offset = &item(args, 1)->value, *size = &item(args, 2)->value,
                       *stride = &item(args, 3)->value;
    if (offset->kind != VALUE_INT || offset->integer < 0 || size->kind != VALUE_TUPLE ||
        stride->kind != VALUE_TUPLE || size->list.n != stride->list.n)
        return pickle__refuse(p, err, "a tensor with unusable offset, size or stride");
    if (size->list.n > TENSOR_MAX_DIMS)
        return pickle__refuse(p, err, "a tensor of %zu dimensions, at most %d are supported", size->list.n,
                              TENSOR_MAX_DIMS);
    *v = (struct view){.n_dims = (int)size->list.n, .offset = offset->integer, .count = 1};
    for (int i = 0; i < v->n_dims; i++) {
        const struct value *dim = size->list.items[i], *step = stride->list.items[i];
        if (dim->kind != VALUE_INT || step->kind != VALUE_INT || dim->integer < 0 || step->integer < 0)
            return pickle__refuse(p, err, "a tensor with unusable offset, size or stride");
        v->dims[i] = dim->integer;
        v->strides[i] = step->integer;
        if (__builtin_mul_overflow(v->count, v->dims[i], &v->count))
            return pickle__refuse(p, err, "a tensor whose size overflows");
    }
    return ST_OK;
}

/* The last element that the view reaches must lie in the storage. */
static enum status check_view(const struct pickle *p, const struct view *v, uint64_t numel, struct err *err)
{
    if (v->count == 0)
        return (uint64_t)v->offset <= numel
                   ? ST_OK
                   : pickle__refuse(p, err, "a tensor that begins outside its storage");
    int64_t last = v->offset, reach;
    for (int i = 0; i < v->n_dims; i++) {
        if (__builtin_mul_overflow(v->dims[i] - 1, v->strides[i], &reach) ||
            __builtin_add_overflow(last, reach, &last))
            return pickle__refuse(p, err, "a tensor that reaches outside its storage");
    }
    if ((uint64_t)last >= numel)
        return pickle__refuse(p, err, "a tensor that reaches element %" PRId64 " of a storage of %" PRIu64,
                              last, numel);
    if ((uint64_t)v->count > numel)
        return pickle__refuse(p, err, "a tensor of %" PRId64 " elements expanded from a storage of %" PRIu64,
                              v->count, numel);
    return ST_OK;
}

static bool is_contiguous(const struct view *v)
{
    int64_t step = 1;
    for (int i = v->n_dims; i-- > 0;) {
        if (v->dims[i] != 1 && v->strides[i] != step)
            return false;
        step *= v->dims[i];
    }
    return true;
}

static void copy_strided(unsigned char *to, const unsigned char *from, size_t item_bytes,
                         const struct view *v)
{
    int64_t at[TENSOR_MAX_DIMS] = {0}, place = 0;
    for (int64_t n = 0; n < v->count; n++) {
        memcpy(to + (size_t)n * item_bytes, from + (size_t)place * item_bytes, item_bytes);
        for (int i = v->n_dims; i-- > 0;) {
            place += v->strides[i];
            if (++at[i] < v->dims[i])
                break;
            place -= v->dims[i] * v->strides[i];
            at[i] = 0;
        }
    }
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]). */
static enum status rebuild_tensor(struct pickle *p, const struct node *args, struct node **out,
                                  struct err *err)
{
    size_t n = args->value.list.n;
    if (n < 6 || n > 7 || item(args, 0)->tag != NODE_STORAGE)
        return pickle__refuse(p, err, "_rebuild_tensor_v2 with unusable arguments");
    const struct node *storage = item(args, 0);
    struct view v;
    TRY(read_view(p, args, &v, err));
    TRY(check_view(p, &v, storage->numel, err));
    size_t item_bytes = dtype_bytes(storage->dtype), n_bytes = (size_t)v.count * item_bytes;
    const unsigned char *data = storage->data->data + (size_t)v.offset * item_bytes;
    if (v.count > 0 && !is_contiguous(&v)) {
        if (n_bytes > COPIES_PER_FILE * p->zip->map.n_bytes - p->copied_bytes)
            return pickle__refuse(p, err, "non-contiguous tensors of more than %d times the file's size",
                                  COPIES_PER_FILE);
        p->copied_bytes += n_bytes;
        unsigned char *copy = arena__take(p->arena, n_bytes, err);
        if (!copy)
            return ST_ENV;
        copy_strided(copy, data, item_bytes, &v);
        data = copy;
    }
    TRY(pickle__node(p, VALUE_TENSOR, out, err));
    struct tensor *t = &(*out)->value.tensor;
    *t = (struct tensor){.dtype = storage->dtype, .n_dims = v.n_dims, .data = data, .n_bytes = n_bytes};
    memcpy(t->dims, v.dims, sizeof t->dims);
    return ST_OK;
}

/* OrderedDict() or OrderedDict([[key, value], ...]). */
static enum status ordered_dict(struct pickle *p, const struct node *args, struct node **out, struct err *err)
{
    TRY(pickle__node(p, VALUE_DICT, out, err));
    if (args->value.list.n == 0)
        return ST_OK;
    const struct node *pairs = item(args, 0);
    if (args->value.list.n != 1 || pairs->value.kind != VALUE_LIST)
        return pickle__refuse(p, err, "OrderedDict with unusable arguments");
    for (size_t i = 0; i < pairs->value.list.n; i++) {
        const struct value *pair = pairs->value.list.items[i];
        if ((pair->kind != VALUE_TUPLE && pair->kind != VALUE_LIST) || pair->list.n != 2)
            return pickle__refuse(p, err, "OrderedDict with unusable arguments");
        TRY(pickle__set_item(p, *out, (struct node *)pair->list.items[0], (struct node *)pair->list.items[1],
                             err));
    }
    return ST_OK;
}

enum status pickle__reduce(struct pickle *p, const struct node *function, const struct node *args,
                           struct node **out, struct err *err)
{
    if (function->tag != NODE_GLOBAL || args->value.kind != VALUE_TUPLE)
        return pickle__refuse(p, err, "opcode 0x52 (REDUCE) without a function and a tuple");
    switch (function->global) {
    case GLOBAL_REBUILD_TENSOR:
        return rebuild_tensor(p, args, out, err);
    case GLOBAL_ORDERED_DICT:
        return ordered_dict(p, args, out, err);
    case GLOBAL_REBUILD_PARAMETER:
        if (args->value.list.n != 3 || args->value.list.items[0]->kind != VALUE_TENSOR)
            return pickle__refuse(p, err, "_rebuild_parameter with unusable arguments");
        *out = (struct node *)args->value.list.items[0];
        return ST_OK;
    default:
        return pickle__refuse(p, err, "opcode 0x52 (REDUCE) calls a storage class");
    }
}
