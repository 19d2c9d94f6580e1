#include "util/tensor.h"
#include "util/buf.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

int64_t tensor_count(const struct tensor *t)
{
    int64_t count = 1;
    for (int i = 0; i < t->n_dims; i++)
        count *= t->dims[i]; /* bounded when the tensor was added */
    return count;
}

/* The bytes of a tensor of these dimensions, refusing what no memory could hold. */
static enum status shape_bytes(const char *name, enum dtype dtype, int n_dims, const int64_t *dims,
                               size_t *n_bytes, struct err *err)
{
    if (n_dims < 0 || n_dims > TENSOR_MAX_DIMS)
        return err_set(err, ST_INPUT, "tensor \"%s\" has %d dimensions, at most %d are supported", name,
                       n_dims, TENSOR_MAX_DIMS);
    size_t bytes = dtype_bytes(dtype);
    if (bytes == 0)
        return err_set(err, ST_DEFECT, "tensor \"%s\" has no known element type", name);
    bool is_empty = false;
    for (int i = 0; i < n_dims; i++) {
        if (dims[i] < 0)
            return err_set(err, ST_INPUT, "tensor \"%s\": dimension %d is negative", name, i);
        is_empty = is_empty || dims[i] == 0;
    }
    for (int i = 0; i < n_dims; i++) {
        /* A zero beside huge dimensions must not hide the overflow of a partial product. */
        size_t dim = dims[i] == 0 ? 1 : (size_t)dims[i];
        if (!size_mul(bytes, dim, &bytes) || bytes > PTRDIFF_MAX)
            return err_set(err, ST_INPUT, "tensor \"%s\" is too large for this machine's addresses", name);
    }
    *n_bytes = is_empty ? 0 : bytes;
    return ST_OK;
}

enum status tensor_list_add(struct tensor_list *list, const char *name, enum dtype dtype, int n_dims,
                            const int64_t *dims, const void *data, struct err *err)
{
    size_t n_bytes = 0;
    TRY(shape_bytes(name, dtype, n_dims, dims, &n_bytes, err));
    if (list->n_items == list->capacity) {
        if (list->capacity > INT_MAX / 2)
            return err_set(err, ST_INPUT, "too many tensors (more than %d)", list->n_items);
        int grown = list->capacity ? 2 * list->capacity : 32;
        struct tensor *items = realloc(list->items, (size_t)grown * sizeof *items);
        if (!items)
            return err_memory(err, "a list of tensors", (size_t)grown * sizeof *items);
        list->items = items;
        list->capacity = grown;
    }
    char *own_name = strdup(name);
    if (!own_name)
        return err_memory(err, "a tensor name", strlen(name) + 1);
    struct tensor *t = &list->items[list->n_items++];
    *t =
        (struct tensor){.name = own_name, .dtype = dtype, .n_dims = n_dims, .data = data, .n_bytes = n_bytes};
    for (int i = 0; i < n_dims; i++)
        t->dims[i] = dims[i];
    list->is_sorted = false;
    return ST_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

void tensor_list_sort(struct tensor_list *list)
{
    if (list->n_items > 1)
        qsort(list->items, (size_t)list->n_items, sizeof *list->items, by_name);
    list->is_sorted = true;
}

const struct tensor *tensor_list_find(const struct tensor_list *list, const char *name)
{
    if (list->is_sorted) {
        int low = 0, high = list->n_items;
        while (low < high) {
            int middle = low + (high - low) / 2;
            int order = strcmp(list->items[middle].name, name);
            if (order == 0)
                return &list->items[middle];
            if (order < 0)
                low = middle + 1;
            else
                high = middle;
        }
        return NULL;
    }
    for (int i = 0; i < list->n_items; i++) {
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    }
    return NULL;
}

void tensor_list_release(struct tensor_list *list)
{
    for (int i = 0; i < list->n_items; i++)
        free(list->items[i].name);
    free(list->items);
    *list = (struct tensor_list)TENSOR_LIST_INIT;
}
