/* Named host tensors: the currency between the rooms that read files and those that compute. */
#ifndef SMGPT_UTIL_TENSOR_H
#define SMGPT_UTIL_TENSOR_H

#include "util/dtype.h"
#include "util/err.h"
#include <stdint.h>

#define TENSOR_MAX_DIMS 4

struct tensor {
    char *name; /* owned by the list */
    enum dtype dtype;
    int n_dims;
    int64_t dims[TENSOR_MAX_DIMS]; /* row-major */
    const void *data;              /* borrowed; may be unaligned */
    size_t n_bytes;
};
int64_t tensor_count(const struct tensor *t); /* product of dims; 1 for a scalar */

struct tensor_list {
    struct tensor *items; /* sorted by name after tensor_list_sort */
    int n_items, capacity;
    bool is_sorted; /* set by tensor_list_sort, cleared by tensor_list_add */
};
#define TENSOR_LIST_INIT                                                                                     \
    {                                                                                                        \
        0                                                                                                    \
    }
/* Copies the name, borrows the data. */
enum status tensor_list_add(struct tensor_list *list, const char *name, enum dtype dtype, int n_dims,
                            const int64_t *dims, const void *data, struct err *err);
void tensor_list_sort(struct tensor_list *list);
/* NULL if absent. Linear unless sorted. */
const struct tensor *tensor_list_find(const struct tensor_list *list, const char *name);
void tensor_list_release(struct tensor_list *list); /* names and items; never the data */

#endif
