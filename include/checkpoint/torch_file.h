/* torch.save's zip + pickle files, as far as Trainer's optimizer.pt, scheduler.pt and PEFT's
 * adapter_model.bin need them. Reading builds a tree of plain values under an opcode whitelist, with bounds
 * on everything and no recursion on input; anything else is refused with the opcode and its offset. */
#ifndef SMGPT_CHECKPOINT_TORCH_FILE_H
#define SMGPT_CHECKPOINT_TORCH_FILE_H

#include "util/buf.h"
#include "util/err.h"
#include "util/file.h"
#include "util/tensor.h"

enum value_kind {
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_STRING,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_DICT,
    VALUE_TENSOR
};

struct value {
    enum value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct {
            const char *text;
            size_t n_bytes;
        } string;
        struct {
            struct value **items;
            size_t n;
        } list; /* list and tuple */
        struct {
            struct value **keys, **values;
            size_t n;
        } dict;
        struct tensor tensor; /* name NULL; contiguous, in memory of the file */
    };
};
struct torch_file {
    struct value *root; /* valid until close */
    void *impl;
};
enum status torch_file_open(struct torch_file *f, const char *path, struct err *err);
void torch_file_close(struct torch_file *f);
/* Lookup in a dict by string / int key; NULL if absent or not a dict. */
const struct value *value_get(const struct value *dict, const char *key);
const struct value *value_get_int(const struct value *dict, int64_t key);
/* Integer, float or a tensor of one element as double. */
bool value_number(const struct value *v, double *out);
/* The root as named tensors (adapter_model.bin): views, valid until the file is closed; sorted by name.
 * ST_INPUT when it is no dict of tensors. `path` is for messages. */
enum status torch_file_tensors(const struct torch_file *f, const char *path, struct tensor_list *out,
                               struct err *err);

/* Writing: the values are emitted in the order of the calls, as a pickle with its tensors in a zip. */
struct torch_writer;
enum status torch_writer_open(struct torch_writer **out, const char *path, struct err *err);
void torch_put_dict(struct torch_writer *w); /* begins; entries are key, value, key, value ... */
void torch_put_list(struct torch_writer *w);
void torch_put_tuple(struct torch_writer *w);
void torch_put_end(struct torch_writer *w); /* ends the innermost dict, list or tuple */
void torch_put_none(struct torch_writer *w);
void torch_put_bool(struct torch_writer *w, bool v);
void torch_put_int(struct torch_writer *w, int64_t v);
void torch_put_float(struct torch_writer *w, double v);
void torch_put_string(struct torch_writer *w, const char *v);
/* Data is borrowed until commit. */
void torch_put_tensor(struct torch_writer *w, enum dtype dtype, int n_dims, const int64_t *dims,
                      const void *data);
/* Writes the file beside and renames; consumes w. The first failure of any put is reported here. */
enum status torch_writer_commit(struct torch_writer *w, struct err *err);
void torch_writer_abort(struct torch_writer *w);

#endif
