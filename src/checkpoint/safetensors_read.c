/* Reading safetensors: the header is checked as a whole before any tensor is handed out. */
#include "checkpoint/safetensors.h"
#include "checkpoint_internal.h"
#include "util/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX_BYTES 100000000u
#define INDEX_MAX_BYTES  (64u << 20)

/* Where a tensor lies, relative to the end of the header. */
struct span {
    size_t begin, end;
    const char *name;
};

/* Types of the format that have no counterpart here; named apart from nonsense. */
static bool known_elsewhere(const char *name)
{
    static const char *const names[] = {
        "U64",     "U32",         "U16",         "C64",     "F8_E4M3", "F8_E5M2",
        "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

static enum status entry_dtype(const json_t *entry, const char *path, const char *tensor, enum dtype *out,
                               struct err *err)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name)
        return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": no dtype", path, tensor);
    if (dtype_from_name(name, out))
        return ST_OK;
    return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": dtype \"%s\" is %s", path, tensor,
                   checkpoint__quote_z(name).text, known_elsewhere(name) ? "not supported" : "unknown");
}

/* Dimensions and their product in bytes. */
static enum status entry_shape(const json_t *entry, const char *path, const char *tensor, enum dtype dtype,
                               int *n_dims, int64_t dims[TENSOR_MAX_DIMS], size_t *n_bytes, struct err *err)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": no shape", path, tensor);
    size_t n = json_array_size(shape);
    if (n > TENSOR_MAX_DIMS)
        return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": %zu dimensions, at most %d are supported", path,
                       tensor, n, TENSOR_MAX_DIMS);
    *n_bytes = dtype_bytes(dtype);
    bool is_empty = false;
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": dimension %zu is no whole number", path,
                           tensor, i);
        dims[i] = json_integer_value(dim);
        is_empty = is_empty || dims[i] == 0;
        if (dims[i] > 0 && !size_mul(*n_bytes, (size_t)dims[i], n_bytes))
            return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": the size overflows", path, tensor);
    }
    if (is_empty)
        *n_bytes = 0;
    *n_dims = (int)n;
    return ST_OK;
}

static enum status entry_span(const json_t *entry, const char *path, const char *tensor, size_t data_bytes,
                              size_t n_bytes, struct span *span, struct err *err)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": data_offsets are not two whole numbers", path,
                       tensor);
    json_int_t b = json_integer_value(begin), e = json_integer_value(end);
    if (b < 0 || e < b)
        return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": data_offsets %lld to %lld", path, tensor,
                       (long long)b, (long long)e);
    if ((uint64_t)e > data_bytes) {
        err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": data ends at %lld, the file has %zu bytes of data",
                path, tensor, (long long)e, data_bytes);
        return err_hint(err, "the file is cut short; download or copy it again");
    }
    if ((uint64_t)(e - b) != n_bytes)
        return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": %lld bytes of data, its shape needs %zu", path,
                       tensor, (long long)(e - b), n_bytes);
    span->begin = (size_t)b;
    span->end = (size_t)e;
    return ST_OK;
}

static int by_begin(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The spans must tile the data: from 0, one behind the other, to the end of the file. */
static enum status check_tiling(struct span *spans, size_t n_spans, size_t data_bytes, const char *path,
                                struct err *err)
{
    if (n_spans > 1)
        qsort(spans, n_spans, sizeof *spans, by_begin);
    size_t at = 0;
    for (size_t i = 0; i < n_spans; i++) {
        if (spans[i].begin != at)
            return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": data begins at %zu, %s %zu", path,
                           checkpoint__quote_z(spans[i].name).text, spans[i].begin,
                           spans[i].begin < at ? "inside the tensor that ends at"
                                               : "leaving a hole behind the end at",
                           at);
        at = spans[i].end;
    }
    if (at != data_bytes)
        return err_set(err, ST_INPUT, "\"%s\": %zu bytes behind the last tensor", path, data_bytes - at);
    return ST_OK;
}

static enum status check_metadata(const json_t *metadata, const char *path, struct err *err)
{
    if (!json_is_object(metadata))
        return err_set(err, ST_INPUT, "\"%s\": __metadata__ is no object", path);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return err_set(err, ST_INPUT, "\"%s\": __metadata__ \"%s\" is no string", path,
                           checkpoint__quote_z(key).text);
    }
    return ST_OK;
}

static enum status read_entry(struct tensor_list *out, const char *name, const json_t *entry,
                              const unsigned char *data, size_t data_bytes, const char *path,
                              struct span *span, struct err *err)
{
    struct quoted shown = checkpoint__quote_z(name);
    if (!json_is_object(entry))
        return err_set(err, ST_INPUT, "\"%s\", tensor \"%s\": no object", path, shown.text);
    enum dtype dtype = DT_F32;
    int n_dims = 0;
    int64_t dims[TENSOR_MAX_DIMS] = {0};
    size_t n_bytes = 0;
    TRY(entry_dtype(entry, path, shown.text, &dtype, err));
    TRY(entry_shape(entry, path, shown.text, dtype, &n_dims, dims, &n_bytes, err));
    TRY(entry_span(entry, path, shown.text, data_bytes, n_bytes, span, err));
    span->name = name;
    return tensor_list_add(out, name, dtype, n_dims, dims, data + span->begin, err);
}

static enum status read_header(struct tensor_list *out, const json_t *header, const unsigned char *data,
                               size_t data_bytes, const char *path, struct err *err)
{
    if (!json_is_object(header))
        return err_set(err, ST_INPUT, "\"%s\": the header is no JSON object", path);
    size_t n_spans = 0, n_entries = json_object_size(header);
    struct span *spans = calloc(n_entries ? n_entries : 1, sizeof *spans);
    if (!spans)
        return err_memory(err, "a safetensors header", n_entries * sizeof *spans);
    enum status status = ST_OK;
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            status = check_metadata(entry, path, err);
        else
            status = read_entry(out, name, entry, data, data_bytes, path, &spans[n_spans++], err);
        if (status != ST_OK)
            break;
    }
    if (status == ST_OK)
        status = check_tiling(spans, n_spans, data_bytes, path, err);
    free(spans);
    return status;
}

/* Checks the file's outer form and parses the header. */
static enum status open_header(const struct file_map *map, const char *path, json_t **header,
                               size_t *data_start, struct err *err)
{
    TRY(checkpoint__check_foreign(map->data, map->n_bytes, path, FOREIGN_SAFETENSORS, err));
    if (map->n_bytes < 8)
        return err_set(err, ST_INPUT, "\"%s\" has %zu bytes, too few for a safetensors file", path,
                       map->n_bytes);
    uint64_t n_header;
    memcpy(&n_header, map->data, 8);
    if (n_header > HEADER_MAX_BYTES)
        return err_set(err, ST_INPUT,
                       "\"%s\" is no safetensors file: its header would have %" PRIu64 " bytes", path,
                       n_header);
    if (n_header > map->n_bytes - 8) {
        err_set(err, ST_INPUT, "\"%s\": the header has %" PRIu64 " bytes, the file only %zu", path, n_header,
                map->n_bytes);
        return err_hint(err, "the file is cut short; download or copy it again");
    }
    char name[PATH_BYTES + 32];
    snprintf(name, sizeof name, "%s (header)", path);
    TRY(json_read_text(header, (const char *)map->data + 8, (size_t)n_header, name, err));
    *data_start = 8 + (size_t)n_header;
    return ST_OK;
}

/* Adds the tensors of a mapped file to out. */
static enum status read_map(struct tensor_list *out, const struct file_map *map, const char *path,
                            struct err *err)
{
    json_t *header = NULL;
    size_t start = 0;
    TRY(open_header(map, path, &header, &start, err));
    enum status status = read_header(out, header, map->data + start, map->n_bytes - start, path, err);
    json_decref(header);
    return status;
}

static enum status add_map(struct safetensors *s, const char *path, struct err *err)
{
    struct file_map *maps = realloc(s->maps, ((size_t)s->n_maps + 1) * sizeof *maps);
    if (!maps)
        return err_memory(err, "a list of files", ((size_t)s->n_maps + 1) * sizeof *maps);
    s->maps = maps;
    maps[s->n_maps] = (struct file_map){0};
    TRY(file_map(&maps[s->n_maps], path, err));
    s->n_maps++;
    return ST_OK;
}

enum status safetensors_open(struct safetensors *s, const char *path, struct err *err)
{
    *s = (struct safetensors){0};
    enum status status = add_map(s, path, err);
    if (status == ST_OK)
        status = read_map(&s->tensors, &s->maps[0], path, err);
    if (status == ST_OK)
        tensor_list_sort(&s->tensors);
    else
        safetensors_close(s);
    return status;
}

void safetensors_forget(const struct safetensors *s)
{
    for (int i = 0; i < s->n_maps; i++)
        file_map_forget(&s->maps[i]);
}

void safetensors_close(struct safetensors *s)
{
    tensor_list_release(&s->tensors);
    for (int i = 0; i < s->n_maps; i++)
        file_unmap(&s->maps[i]);
    free(s->maps);
    *s = (struct safetensors){0};
}

/* A shard is a plain file name: nothing in an index leads out of the model's directory. */
static enum status check_shard_name(const char *name, const char *index_path, struct err *err)
{
    size_t n = strlen(name);
    static const char suffix[] = ".safetensors";
    bool is_plain = n > sizeof suffix - 1 && n < 256 && name[0] != '.' && !strpbrk(name, "/\\") &&
                    strcmp(name + n - (sizeof suffix - 1), suffix) == 0;
    if (is_plain)
        return ST_OK;
    return err_set(err, ST_INPUT, "\"%s\" names the shard \"%s\", which is no plain safetensors file name",
                   index_path, checkpoint__quote_z(name).text);
}

/* Opens one shard and takes over the tensors that the index assigns to it. */
static enum status add_shard(struct safetensors *s, const char *dir, const char *shard, json_t *weight_map,
                             struct err *err)
{
    char path[PATH_BYTES];
    TRY(path_join(path, dir, shard, err));
    TRY(add_map(s, path, err));
    struct tensor_list found = TENSOR_LIST_INIT;
    enum status status = read_map(&found, &s->maps[s->n_maps - 1], path, err);
    for (int i = 0; status == ST_OK && i < found.n_items; i++) {
        const struct tensor *t = &found.items[i];
        const char *place = json_string_value(json_object_get(weight_map, t->name));
        if (place && strcmp(place, shard) == 0)
            status = tensor_list_add(&s->tensors, t->name, t->dtype, t->n_dims, t->dims, t->data, err);
    }
    tensor_list_release(&found);
    return status;
}

/* The set of shard names as a JSON object, each name checked. */
static enum status collect_shards(json_t *shards, json_t *weight_map, const char *index_path, struct err *err)
{
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0)
        return err_set(err, ST_INPUT, "\"%s\" has no weight_map", index_path);
    const char *key;
    json_t *value;
    json_object_foreach(weight_map, key, value)
    {
        const char *name = json_string_value(value);
        if (!name)
            return err_set(err, ST_INPUT, "\"%s\": the shard of \"%s\" is no string", index_path,
                           checkpoint__quote_z(key).text);
        TRY(check_shard_name(name, index_path, err));
        if (json_object_set_new(shards, name, json_true()) != 0)
            return err_memory(err, "a list of shards", 0);
    }
    return ST_OK;
}

/* Names the first tensor that the index promises and no shard has. */
static enum status check_complete(const struct safetensors *s, json_t *weight_map, const char *index_path,
                                  struct err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(weight_map, key, value)
    {
        if (!tensor_list_find(&s->tensors, key))
            return err_set(err, ST_INPUT, "\"%s\": tensor \"%s\" is not in \"%s\"", index_path,
                           checkpoint__quote_z(key).text, json_string_value(value));
    }
    return ST_OK;
}

static enum status open_shards(struct safetensors *s, const char *dir, json_t *weight_map,
                               const char *index_path, struct err *err)
{
    json_t *shards = json_object();
    if (!shards)
        return err_memory(err, "a list of shards", 0);
    enum status status = collect_shards(shards, weight_map, index_path, err);
    const char *shard;
    json_t *unused;
    json_object_foreach(shards, shard, unused)
    {
        if (status == ST_OK)
            status = add_shard(s, dir, shard, weight_map, err);
    }
    json_decref(shards);
    if (status != ST_OK)
        return status;
    tensor_list_sort(&s->tensors);
    return check_complete(s, weight_map, index_path, err);
}

/* Says what there is in a directory without safetensors weights. */
static enum status no_weights(const char *dir, struct err *err)
{
    char **names = NULL;
    int n_names = 0;
    TRY(dir_list(dir, &names, &n_names, err));
    err_set(err, ST_INPUT, "no model.safetensors and no model.safetensors.index.json in \"%s\"", dir);
    for (int i = 0; i < n_names; i++) {
        const char *dot = strrchr(names[i], '.');
        if (dot && (!strcmp(dot, ".bin") || !strcmp(dot, ".gguf") || !strcmp(dot, ".pth") ||
                    !strcmp(dot, ".pt") || !strcmp(dot, ".h5") || !strcmp(dot, ".msgpack"))) {
            err_hint(err, "there is \"%s\", but only safetensors weights are read; convert it", names[i]);
            break;
        }
    }
    names_free(names, n_names);
    return err_hint(err, "download the model's *.safetensors files into this directory");
}

enum status safetensors_open_model(struct safetensors *s, const char *dir, struct err *err)
{
    *s = (struct safetensors){0};
    char path[PATH_BYTES];
    TRY(path_join(path, dir, "model.safetensors", err));
    if (file_exists(path))
        return safetensors_open(s, path, err);
    TRY(path_join(path, dir, "model.safetensors.index.json", err));
    if (!file_exists(path))
        return no_weights(dir, err);
    json_t *index = NULL;
    TRY(json_read_file(&index, path, INDEX_MAX_BYTES, err));
    enum status status = open_shards(s, dir, json_object_get(index, "weight_map"), path, err);
    json_decref(index);
    if (status != ST_OK)
        safetensors_close(s);
    return status;
}
