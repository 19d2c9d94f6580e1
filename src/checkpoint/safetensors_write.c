/* Writing safetensors, byte for byte as the Python library does. */
#include "checkpoint/safetensors.h"
#include "checkpoint_internal.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Order of the types in the file; what has the strictest alignment comes first. */
static int dtype_rank(enum dtype t)
{
    static const enum dtype order[] = {DT_I64, DT_F64, DT_F32, DT_I32, DT_BF16,
                                       DT_F16, DT_I16, DT_I8,  DT_U8,  DT_BOOL};
    int rank = 0;
    while (rank < (int)(sizeof order / sizeof *order) && order[rank] != t)
        rank++;
    return rank;
}

static int by_dtype_and_name(const void *a, const void *b)
{
    const struct tensor *x = *(const struct tensor *const *)a, *y = *(const struct tensor *const *)b;
    int rank = dtype_rank(x->dtype) - dtype_rank(y->dtype);
    return rank ? rank : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct tensor *const *)a)->name, (*(const struct tensor *const *)b)->name);
}

/* "name" as a JSON string. */
static enum status put_name(struct buf *out, const char *name, struct err *err)
{
    json_t *value = json_string(name);
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    if (!text)
        return err_set(err, ST_DEFECT, "the tensor name \"%s\" is no UTF-8", checkpoint__quote_z(name).text);
    enum status status = buf_puts(out, text, err);
    free(text);
    return status;
}

static enum status put_entry(struct buf *out, const struct tensor *t, size_t *offset, struct err *err)
{
    TRY(buf_puts(out, ",", err));
    TRY(put_name(out, t->name, err));
    TRY(buf_printf(out, err, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype)));
    for (int i = 0; i < t->n_dims; i++)
        TRY(buf_printf(out, err, "%s%" PRId64, i ? "," : "", t->dims[i]));
    size_t end;
    if (!size_add(*offset, t->n_bytes, &end))
        return err_set(err, ST_DEFECT, "the tensors to write are larger than any file");
    TRY(buf_printf(out, err, "],\"data_offsets\":[%zu,%zu]}", *offset, end));
    *offset = end;
    return ST_OK;
}

static enum status make_header(struct buf *out, const struct tensor *const *order, int n, struct err *err)
{
    TRY(buf_puts(out, "{\"__metadata__\":{\"format\":\"pt\"}", err));
    size_t offset = 0;
    for (int i = 0; i < n; i++) {
        TRY(put_entry(out, order[i], &offset, err));
    }
    TRY(buf_puts(out, "}", err));
    while (out->n_bytes % 8 != 0)
        TRY(buf_puts(out, " ", err));
    return ST_OK;
}

#define ROWS_BYTES ((size_t)1 << 20)

static enum status write_rows(struct file_writer *w, const struct tensor *t, const struct row_source *source,
                              struct err *err)
{
    const int64_t n_rows = t->n_dims > 0 ? t->dims[0] : 0;
    const size_t row_bytes = n_rows > 0 ? t->n_bytes / (size_t)n_rows : 0;
    if (source == NULL || row_bytes == 0)
        return err_set(err, ST_DEFECT, "tensor \"%s\" has no data", checkpoint__quote_z(t->name).text);
    const int64_t step = row_bytes < ROWS_BYTES ? (int64_t)(ROWS_BYTES / row_bytes) : 1;
    char *rows = malloc((size_t)step * row_bytes);
    if (rows == NULL)
        return err_memory(err, "rows to write", (size_t)step * row_bytes);
    enum status st = ST_OK;
    for (int64_t i = 0; i < n_rows && st == ST_OK; i += step) {
        const int64_t n = n_rows - i < step ? n_rows - i : step;
        st = source->rows(source->user, t, i, n, rows, err);
        if (st == ST_OK)
            st = file_writer_put(w, rows, (size_t)n * row_bytes, err);
    }
    free(rows);
    return st;
}

static enum status write_all(struct file_writer *w, const struct buf *header,
                             const struct tensor *const *order, int n, const struct row_source *source,
                             struct err *err)
{
    uint64_t n_header = header->n_bytes;
    TRY(file_writer_put(w, &n_header, sizeof n_header, err));
    TRY(file_writer_put(w, header->data, header->n_bytes, err));
    for (int i = 0; i < n; i++)
        TRY(order[i]->data != NULL || order[i]->n_bytes == 0
                ? file_writer_put(w, order[i]->data, order[i]->n_bytes, err)
                : write_rows(w, order[i], source, err));
    return ST_OK;
}

static enum status write_file(const char *path, const struct buf *header, const struct tensor *const *order,
                              int n, const struct row_source *source, struct err *err)
{
    struct file_writer w;
    TRY(file_writer_open(&w, path, err));
    enum status status = write_all(&w, header, order, n, source, err);
    if (status == ST_OK)
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return status;
}

/* Brings the tensors into the file's order; a name may stand there only once. */
static enum status sort_tensors(const struct tensor **order, int n, struct err *err)
{
    if (n < 2)
        return ST_OK;
    qsort(order, (size_t)n, sizeof *order, by_name);
    for (int i = 1; i < n; i++) {
        if (strcmp(order[i - 1]->name, order[i]->name) == 0)
            return err_set(err, ST_DEFECT, "two tensors named \"%s\"",
                           checkpoint__quote_z(order[i]->name).text);
    }
    qsort(order, (size_t)n, sizeof *order, by_dtype_and_name);
    return ST_OK;
}

enum status safetensors_write(const char *path, const struct tensor_list *tensors, struct err *err)
{
    return safetensors_write_rows(path, tensors, NULL, err);
}

enum status safetensors_write_rows(const char *path, const struct tensor_list *tensors,
                                   const struct row_source *source, struct err *err)
{
    int n = tensors->n_items;
    const struct tensor **order = calloc(n ? (size_t)n : 1, sizeof *order);
    if (!order)
        return err_memory(err, "an order of tensors", (size_t)n * sizeof *order);
    for (int i = 0; i < n; i++)
        order[i] = &tensors->items[i];
    struct buf header = BUF_INIT;
    enum status status = sort_tensors(order, n, err);
    if (status == ST_OK)
        status = make_header(&header, order, n, err);
    if (status == ST_OK)
        status = write_file(path, &header, order, n, source, err);
    buf_release(&header);
    free(order);
    return status;
}
