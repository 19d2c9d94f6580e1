/* safetensors: u64 little-endian N, N bytes of JSON, then the data (offsets relative to its start). Files are
 * mapped read-only; every offset, product and name is checked first. What the reference library rejects is
 * rejected (holes, overlaps, short or long files, unknown types), and duplicate keys besides. A Git LFS
 * pointer, an HTML page and an empty file are named as such. */
#ifndef SMGPT_CHECKPOINT_SAFETENSORS_H
#define SMGPT_CHECKPOINT_SAFETENSORS_H

#include "util/err.h"
#include "util/file.h"
#include "util/tensor.h"

struct safetensors {
    struct tensor_list tensors; /* borrowed data in the maps */
    struct file_map *maps;
    int n_maps;
};
/* One file. */
enum status safetensors_open(struct safetensors *s, const char *path, struct err *err);
/* A model directory: model.safetensors, or the shards that model.safetensors.index.json names. ST_INPUT with
 * a hint when there are only .bin/.gguf/.pth weights or none at all. */
enum status safetensors_open_model(struct safetensors *s, const char *dir, struct err *err);
/* Takes what was read so far out of this process's memory; the tensors stay readable. */
void safetensors_forget(const struct safetensors *s);
void safetensors_close(struct safetensors *s);
/* Written as the Python library orders it (by dtype, then name), metadata {"format":"pt"}, beside and
 * renamed, mode 0644 & ~umask. */
enum status safetensors_write(const char *path, const struct tensor_list *tensors, struct err *err);

/* Rows of tensors that are not held in memory. */
struct row_source {
    /* n rows (of the first dimension) of t from row `from` on into out, in t's type. */
    enum status (*rows)(void *user, const struct tensor *t, int64_t from, int64_t n, void *out,
                        struct err *err);
    void *user;
};
/* The same, where data is NULL asking the source, about a mebibyte at a time. */
enum status safetensors_write_rows(const char *path, const struct tensor_list *tensors,
                                   const struct row_source *source, struct err *err);

#endif
