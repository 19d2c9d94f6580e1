/* Writing torch.save's files: a pickle of protocol 2 without a memo, then the tensors, in a zip. */
#include "checkpoint/torch_file.h"
#include "checkpoint_internal.h"
#include "zip_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16

enum frame_kind { FRAME_ROOT, FRAME_DICT, FRAME_LIST, FRAME_TUPLE };

struct frame {
    enum frame_kind kind;
    size_t n_items;
};

struct payload {
    const void *data; /* borrowed */
    size_t n_bytes;
};

struct torch_writer {
    struct zip_writer zip;
    struct buf pickle;
    struct frame frames[MAX_DEPTH];
    int depth;
    struct payload *payloads;
    size_t n_payloads, capacity;
    struct err err; /* the first failure of any put */
};

static void fail(struct torch_writer *w, const char *what)
{
    err_set(&w->err, ST_DEFECT, "torch_writer: %s", what);
}

static void raw(struct torch_writer *w, const void *data, size_t n_bytes)
{
    if (w->err.status == ST_OK)
        buf_append(&w->pickle, data, n_bytes, &w->err);
}

static void opcode(struct torch_writer *w, unsigned char op)
{
    raw(w, &op, 1);
}

/* Before each value: the mark that opens a container's items is written only if there are any. */
static void begin_item(struct torch_writer *w)
{
    struct frame *f = &w->frames[w->depth];
    if (f->n_items++ == 0 && f->kind != FRAME_ROOT)
        opcode(w, '(');
}

static void begin(struct torch_writer *w, enum frame_kind kind)
{
    begin_item(w);
    if (w->depth + 1 >= MAX_DEPTH) {
        fail(w, "too deep");
        return;
    }
    if (kind != FRAME_TUPLE)
        opcode(w, kind == FRAME_DICT ? '}' : ']');
    w->frames[++w->depth] = (struct frame){.kind = kind};
}

void torch_put_dict(struct torch_writer *w)
{
    begin(w, FRAME_DICT);
}

void torch_put_list(struct torch_writer *w)
{
    begin(w, FRAME_LIST);
}

void torch_put_tuple(struct torch_writer *w)
{
    begin(w, FRAME_TUPLE);
}

void torch_put_end(struct torch_writer *w)
{
    struct frame *f = &w->frames[w->depth];
    if (w->depth == 0) {
        fail(w, "end without a beginning");
        return;
    }
    if (f->kind == FRAME_DICT && f->n_items % 2 != 0)
        fail(w, "a key without a value");
    if (f->kind == FRAME_TUPLE)
        opcode(w, f->n_items ? 't' : ')');
    else if (f->n_items > 0)
        opcode(w, f->kind == FRAME_DICT ? 'u' : 'e');
    w->depth--;
}

void torch_put_none(struct torch_writer *w)
{
    begin_item(w);
    opcode(w, 'N');
}

void torch_put_bool(struct torch_writer *w, bool v)
{
    begin_item(w);
    opcode(w, v ? 0x88 : 0x89);
}

static void put_number(struct torch_writer *w, unsigned char op, uint64_t v, int n_bytes)
{
    unsigned char bytes[9] = {op};
    for (int i = 0; i < n_bytes; i++)
        bytes[1 + i] = (unsigned char)(v >> (8 * i));
    raw(w, bytes, 1 + (size_t)n_bytes);
}

/* The shortest form, as Python chooses it. */
static void integer(struct torch_writer *w, int64_t v)
{
    if (v >= 0 && v <= 0xff) {
        put_number(w, 'K', (uint64_t)v, 1);
    } else if (v >= 0 && v <= 0xffff) {
        put_number(w, 'M', (uint64_t)v, 2);
    } else if (v >= INT32_MIN && v <= INT32_MAX) {
        put_number(w, 'J', (uint32_t)(int32_t)v, 4);
    } else {
        opcode(w, 0x8a);
        put_number(w, 8, (uint64_t)v, 8);
    }
}

void torch_put_int(struct torch_writer *w, int64_t v)
{
    begin_item(w);
    integer(w, v);
}

void torch_put_float(struct torch_writer *w, double v)
{
    uint64_t bits;
    unsigned char bytes[9] = {'G'};
    memcpy(&bits, &v, sizeof bits);
    for (int i = 0; i < 8; i++)
        bytes[1 + i] = (unsigned char)(bits >> (56 - 8 * i));
    begin_item(w);
    raw(w, bytes, sizeof bytes);
}

static void string(struct torch_writer *w, const char *v)
{
    size_t n = strlen(v);
    if (n > UINT32_MAX) {
        fail(w, "a string is too long");
        return;
    }
    put_number(w, 'X', n, 4);
    raw(w, v, n);
}

void torch_put_string(struct torch_writer *w, const char *v)
{
    begin_item(w);
    string(w, v);
}

static void global(struct torch_writer *w, const char *text)
{
    opcode(w, 'c');
    raw(w, text, strlen(text));
}

static const char *storage_class(enum dtype t)
{
    static const char *const names[N_DTYPES] = {
        [DT_F32] = "torch\nFloatStorage\n", [DT_F64] = "torch\nDoubleStorage\n",
        [DT_F16] = "torch\nHalfStorage\n",  [DT_BF16] = "torch\nBFloat16Storage\n",
        [DT_I8] = "torch\nCharStorage\n",   [DT_U8] = "torch\nByteStorage\n",
        [DT_I16] = "torch\nShortStorage\n", [DT_I32] = "torch\nIntStorage\n",
        [DT_I64] = "torch\nLongStorage\n",  [DT_BOOL] = "torch\nBoolStorage\n",
    };
    return (unsigned)t < N_DTYPES ? names[t] : NULL;
}

/* Number of elements and bytes, or false. */
static bool shape_size(enum dtype dtype, int n_dims, const int64_t *dims, int64_t *count, size_t *n_bytes)
{
    *count = 1;
    for (int i = 0; i < n_dims; i++) {
        if (dims[i] < 0 || __builtin_mul_overflow(*count, dims[i], count))
            return false;
    }
    return size_mul((size_t)*count, dtype_bytes(dtype), n_bytes);
}

static bool add_payload(struct torch_writer *w, const void *data, size_t n_bytes)
{
    if (w->n_payloads == w->capacity) {
        size_t grown = w->capacity ? 2 * w->capacity : 64;
        struct payload *payloads = realloc(w->payloads, grown * sizeof *payloads);
        if (!payloads) {
            err_memory(&w->err, "a list of tensors", grown * sizeof *payloads);
            return false;
        }
        w->payloads = payloads;
        w->capacity = grown;
    }
    w->payloads[w->n_payloads++] = (struct payload){.data = data, .n_bytes = n_bytes};
    return true;
}

/* (s_0, s_1, ...) as a tuple. */
static void int_tuple(struct torch_writer *w, int n, const int64_t *v)
{
    if (n > 0)
        opcode(w, '(');
    for (int i = 0; i < n; i++)
        integer(w, v[i]);
    opcode(w, n > 0 ? 't' : ')');
}

void torch_put_tensor(struct torch_writer *w, enum dtype dtype, int n_dims, const int64_t *dims,
                      const void *data)
{
    int64_t count = 0, strides[TENSOR_MAX_DIMS];
    size_t n_bytes = 0;
    begin_item(w);
    const char *class = storage_class(dtype);
    if (!class || n_dims < 0 || n_dims > TENSOR_MAX_DIMS ||
        !shape_size(dtype, n_dims, dims, &count, &n_bytes)) {
        fail(w, "a tensor of unusable type or shape");
        return;
    }
    char key[24];
    snprintf(key, sizeof key, "%zu", w->n_payloads);
    if (!add_payload(w, data, n_bytes))
        return;
    int64_t step = 1;
    for (int i = n_dims; i-- > 0; step *= dims[i] > 0 ? dims[i] : 1)
        strides[i] = step;
    global(w, "torch._utils\n_rebuild_tensor_v2\n");
    raw(w, "((", 2);
    string(w, "storage");
    global(w, class);
    string(w, key);
    string(w, "cpu");
    integer(w, count);
    raw(w, "tQ", 2);
    integer(w, 0);
    int_tuple(w, n_dims, dims);
    int_tuple(w, n_dims, strides);
    opcode(w, 0x89);
    global(w, "collections\nOrderedDict\n");
    raw(w, ")RtR", 4);
}

enum status torch_writer_open(struct torch_writer **out, const char *path, struct err *err)
{
    struct torch_writer *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return err_memory(err, "a torch file", sizeof *w);
    enum status status = zip__begin(&w->zip, path, err);
    if (status != ST_OK) {
        free(w);
        return status;
    }
    raw(w, "\x80\x02", 2);
    *out = w;
    return ST_OK;
}

static void release(struct torch_writer *w)
{
    buf_release(&w->pickle);
    free(w->payloads);
    free(w);
}

void torch_writer_abort(struct torch_writer *w)
{
    if (!w)
        return;
    zip__abort(&w->zip);
    release(w);
}

/* The order of torch's own files. */
static enum status write_entries(struct torch_writer *w, struct err *err)
{
    TRY(zip__put(&w->zip, "data.pkl", w->pickle.data, w->pickle.n_bytes, err));
    TRY(zip__put(&w->zip, "byteorder", "little", 6, err));
    for (size_t i = 0; i < w->n_payloads; i++) {
        char name[40];
        snprintf(name, sizeof name, "data/%zu", i);
        TRY(zip__put(&w->zip, name, w->payloads[i].data, w->payloads[i].n_bytes, err));
    }
    return zip__put(&w->zip, "version", "3\n", 2, err);
}

enum status torch_writer_commit(struct torch_writer *w, struct err *err)
{
    opcode(w, '.');
    if (w->depth != 0 || w->frames[0].n_items != 1)
        fail(w, "not exactly one whole value");
    enum status status = w->err.status;
    if (status != ST_OK) {
        err_set(err, status, "%s", w->err.what);
        err_hint(err, "%s", w->err.hint);
    } else {
        status = write_entries(w, err);
    }
    if (status != ST_OK) {
        torch_writer_abort(w);
        return status;
    }
    status = zip__commit(&w->zip, err);
    release(w);
    return status;
}
