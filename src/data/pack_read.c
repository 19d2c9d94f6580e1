/* Reading a pack. Everything is checked once when it is opened; small packs are then held in memory, large
 * ones are read row by row through HDF5's cache of chunks. */
#include "data/pack.h"
#include "pack_internal.h"
#include "util/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_MAX_BYTES ((int64_t)256 << 20) /* ids and labels of both groups together */
#define CHUNK_MAX_BYTES  ((int64_t)64 << 20)
#define BLOCK_ITEMS      ((int64_t)1 << 20)
/* Deflate packs at most 1032 to 1: a series that claims more items than that has chunks that are not there.
 */
#define PACKING_MAX 1100

struct group {
    hid_t ids, labels; /* data sets */
    int64_t *offsets;  /* [n_rows + 1] */
    int32_t *kept[2];  /* ids, labels [n_tokens], or NULL */
    int64_t n_rows, n_tokens;
};

struct pack {
    char path[PATH_BYTES];
    hid_t file;
    int32_t vocab_size;
    struct group groups[2];
    int32_t *row[2]; /* ids, labels of the row read last */
};

static const char *const series_names[2] = {"input_ids", "labels"};

/* The object must lie in this file itself: a link could lead to any other. */
static bool is_own(hid_t place, const char *name)
{
    H5L_info_t info;
    return H5Lexists(place, name, H5P_DEFAULT) > 0 && H5Lget_info(place, name, &info, H5P_DEFAULT) >= 0 &&
           info.type == H5L_TYPE_HARD;
}

/* Layout and filters as far as they decide what reading costs and touches. */
static enum status check_layout(const struct pack *p, const char *name, hid_t create, size_t item_bytes,
                                struct err *err)
{
    hsize_t chunk = 0;
    H5D_layout_t layout = H5Pget_layout(create);
    if (layout == H5D_CHUNKED &&
        (H5Pget_chunk(create, 1, &chunk) != 1 || chunk < 1 || chunk > (hsize_t)CHUNK_MAX_BYTES / item_bytes))
        return err_set(err, ST_INPUT, "\"%s\": /%s has chunks above %lld MiB", p->path, name,
                       (long long)CHUNK_MAX_BYTES >> 20);
    if ((layout != H5D_CHUNKED && layout != H5D_CONTIGUOUS && layout != H5D_COMPACT) ||
        H5Pget_external_count(create) != 0)
        return err_set(err, ST_INPUT, "\"%s\": /%s is stored in other files", p->path, name);
    for (int i = 0, n = H5Pget_nfilters(create); i < n; i++) {
        unsigned flags, config, value[1];
        size_t n_values = 0;
        char filter[64] = "";
        H5Z_filter_t id =
            H5Pget_filter2(create, (unsigned)i, &flags, &n_values, value, sizeof filter, filter, &config);
        if (id != H5Z_FILTER_DEFLATE && id != H5Z_FILTER_SHUFFLE && id != H5Z_FILTER_FLETCHER32) {
            err_set(err, ST_INPUT, "\"%s\": /%s uses the filter %d %.40s", p->path, name, (int)id, filter);
            return err_hint(err, "write it with deflate (gzip), shuffle and fletcher32 only");
        }
    }
    return ST_OK;
}

/* Opens a one-dimensional series of integers and gives its length. */
static enum status series_open(const struct pack *p, hid_t group, const char *group_name, const char *series,
                               hid_t *out, int64_t *n, struct err *err)
{
    char name[64], what[96];
    enum status status;
    snprintf(name, sizeof name, "%s/%s", group_name, series);
    snprintf(what, sizeof what, "cannot open /%s", name);
    if (!is_own(group, series))
        return err_set(err, ST_INPUT, "\"%s\": /%s is missing", p->path, name);
    *out = H5Oopen(group, series, H5P_DEFAULT);
    if (*out < 0)
        return data__h5_fail(err, ST_INPUT, p->path, what);
    if (H5Iget_type(*out) != H5I_DATASET)
        return err_set(err, ST_INPUT, "\"%s\": /%s is no data set", p->path, name);
    hid_t type = H5Dget_type(*out), space = H5Dget_space(*out), create = H5Dget_create_plist(*out);
    hsize_t size = 0, stored = H5Dget_storage_size(*out);
    size_t item_bytes = H5Tget_size(type);
    if (H5Tget_class(type) != H5T_INTEGER || item_bytes < 1 || H5Sget_simple_extent_ndims(space) != 1 ||
        H5Sget_simple_extent_dims(space, &size, NULL) != 1)
        status = err_set(err, ST_INPUT, "\"%s\": /%s is no list of integers", p->path, name);
    else if (size / PACKING_MAX > stored / item_bytes || (size > 0 && stored == 0))
        status = err_set(err, ST_INPUT, "\"%s\": /%s claims %llu items, more than its %llu bytes can hold",
                         p->path, name, (unsigned long long)size, (unsigned long long)stored);
    else
        status = check_layout(p, name, create, item_bytes, err);
    H5Pclose(create);
    H5Sclose(space);
    H5Tclose(type);
    *n = (int64_t)size;
    return status;
}

/* Items [first, first + n) of a series. */
static enum status series_read(const struct pack *p, int group, const char *series, hid_t dataset,
                               hid_t memory_type, int64_t first, int64_t n, void *out, struct err *err)
{
    char what[128];
    hsize_t at = (hsize_t)first, count = (hsize_t)n;
    if (n == 0)
        return ST_OK;
    hid_t file_space = H5Dget_space(dataset), memory = H5Screate_simple(1, &count, NULL);
    bool good = file_space >= 0 && memory >= 0 &&
                H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &at, NULL, &count, NULL) >= 0 &&
                H5Dread(dataset, memory_type, memory, file_space, H5P_DEFAULT, out) >= 0;
    snprintf(what, sizeof what, "cannot read /%s/%s, items %lld to %lld", data__pack_group_names[group],
             series, (long long)first, (long long)(first + n - 1));
    enum status status = good ? ST_OK : data__h5_fail(err, ST_INPUT, p->path, what);
    H5Sclose(memory);
    H5Sclose(file_space);
    return status;
}

/* Block by block, so that a list that is wrong early costs no memory for its whole length. */
static enum status read_offsets(const struct pack *p, int group, struct group *g, hid_t dataset, int64_t n,
                                struct err *err)
{
    const char *name = data__pack_group_names[group];
    if (n < 1 || n - 1 > g->n_tokens)
        return err_set(err, ST_INPUT, "\"%s\": /%s/row_offsets has %lld items for %lld tokens", p->path, name,
                       (long long)n, (long long)g->n_tokens);
    for (int64_t first = 0, some; first < n; first += some) {
        some = n - first < BLOCK_ITEMS ? n - first : BLOCK_ITEMS;
        int64_t *grown = realloc(g->offsets, (size_t)(first + some) * sizeof *grown);
        if (!grown)
            return err_memory(err, "row offsets of a pack", (size_t)(first + some) * sizeof *grown);
        g->offsets = grown;
        TRY(series_read(p, group, "row_offsets", dataset, H5T_NATIVE_INT64, first, some, grown + first, err));
        for (int64_t r = first > 0 ? first : 1; r < first + some; r++) {
            if (grown[r] <= grown[r - 1] || grown[r] - grown[r - 1] > INT32_MAX)
                return err_set(err, ST_INPUT, "\"%s\": /%s row %lld goes from token %lld to %lld", p->path,
                               name, (long long)r - 1, (long long)grown[r - 1], (long long)grown[r]);
        }
    }
    g->n_rows = n - 1;
    if (g->offsets[0] != 0 || g->offsets[g->n_rows] != g->n_tokens)
        return err_set(
            err, ST_INPUT, "\"%s\": /%s/row_offsets goes from %lld to %lld, must go from 0 to %lld", p->path,
            name, (long long)g->offsets[0], (long long)g->offsets[g->n_rows], (long long)g->n_tokens);
    return ST_OK;
}

static enum status group_open(struct pack *p, int group, struct err *err)
{
    struct group *g = &p->groups[group];
    const char *name = data__pack_group_names[group];
    int64_t n_labels = 0, n_offsets = 0;
    hid_t offsets = -1;
    if (!is_own(p->file, name))
        return err_set(err, ST_INPUT, "\"%s\": group /%s is missing", p->path, name);
    hid_t place = H5Oopen(p->file, name, H5P_DEFAULT);
    enum status status = place < 0 ? data__h5_fail(err, ST_INPUT, p->path, "cannot open a group") : ST_OK;
    if (status == ST_OK && H5Iget_type(place) != H5I_GROUP)
        status = err_set(err, ST_INPUT, "\"%s\": /%s is no group", p->path, name);
    if (status == ST_OK)
        status = series_open(p, place, name, "input_ids", &g->ids, &g->n_tokens, err);
    if (status == ST_OK)
        status = series_open(p, place, name, "labels", &g->labels, &n_labels, err);
    if (status == ST_OK)
        status = series_open(p, place, name, "row_offsets", &offsets, &n_offsets, err);
    if (status == ST_OK && n_labels != g->n_tokens)
        status = err_set(err, ST_INPUT, "\"%s\": /%s has %lld input_ids and %lld labels", p->path, name,
                         (long long)g->n_tokens, (long long)n_labels);
    if (status == ST_OK)
        status = read_offsets(p, group, g, offsets, n_offsets, err);
    if (offsets >= 0)
        H5Oclose(offsets);
    if (place >= 0)
        H5Oclose(place);
    return status;
}

static int64_t row_of_token(const struct group *g, int64_t token)
{
    int64_t low = 0, high = g->n_rows;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (g->offsets[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static enum status check_values(const struct pack *p, int group, int series, const int32_t *values,
                                int64_t first, int64_t n, struct err *err)
{
    const struct group *g = &p->groups[group];
    for (int64_t i = 0; i < n; i++) {
        if ((values[i] >= 0 && values[i] < p->vocab_size) || (series == 1 && values[i] == PACK_LABEL_NONE))
            continue;
        int64_t row = row_of_token(g, first + i);
        return err_set(err, ST_INPUT, "\"%s\": /%s/%s row %lld, token %lld is %d, must be in 0..%d%s",
                       p->path, data__pack_group_names[group], series_names[series], (long long)row,
                       (long long)(first + i - g->offsets[row]), values[i], p->vocab_size - 1,
                       series == 1 ? " or -100" : "");
    }
    return ST_OK;
}

/* Reads a whole series once: checks it, adds it to the hash, and keeps it when `keep`. */
static enum status series_check(struct pack *p, int group, int series, bool keep, struct sha256 *sha,
                                struct err *err)
{
    struct group *g = &p->groups[group];
    int64_t room = keep ? g->n_tokens : g->n_tokens < BLOCK_ITEMS ? g->n_tokens : BLOCK_ITEMS;
    int32_t *values = malloc(((size_t)room + 1) * sizeof *values);
    enum status status = values ? ST_OK : err_memory(err, "tokens of a pack", (size_t)room * sizeof *values);
    for (int64_t first = 0, n; first < g->n_tokens && status == ST_OK; first += n) {
        n = g->n_tokens - first < BLOCK_ITEMS ? g->n_tokens - first : BLOCK_ITEMS;
        int32_t *block = values + (keep ? first : 0);
        status = series_read(p, group, series_names[series], series ? g->labels : g->ids, H5T_NATIVE_INT32,
                             first, n, block, err);
        if (status == ST_OK)
            status = check_values(p, group, series, block, first, n, err);
        if (status == ST_OK)
            sha256_update(sha, block, (size_t)n * sizeof *block);
    }
    if (keep && status == ST_OK)
        g->kept[series] = values;
    else
        free(values);
    return status;
}

static enum status pack_check(struct pack *p, struct pack_info *info, const char *rows_sha256,
                              int64_t memory_max_bytes, struct err *err)
{
    struct rows_hash hashes[2];
    int64_t n_bytes = (p->groups[0].n_tokens + p->groups[1].n_tokens) * 2 * (int64_t)sizeof(int32_t);
    bool keep = n_bytes < memory_max_bytes;
    for (int i = 0; i < 2; i++) {
        const struct group *g = &p->groups[i];
        data__rows_hash_init(&hashes[i]);
        info->n_rows[i] = hashes[i].n_rows = g->n_rows;
        info->n_tokens[i] = hashes[i].n_tokens = g->n_tokens;
        sha256_update(&hashes[i].offsets, g->offsets, ((size_t)g->n_rows + 1) * sizeof *g->offsets);
        TRY(series_check(p, i, 0, keep, &hashes[i].ids, err));
        TRY(series_check(p, i, 1, keep, &hashes[i].labels, err));
        for (int64_t r = 0; r < g->n_rows; r++) {
            if (g->offsets[r + 1] - g->offsets[r] > info->max_row_tokens)
                info->max_row_tokens = (int32_t)(g->offsets[r + 1] - g->offsets[r]);
        }
    }
    data__rows_hash_hex(hashes, info->sha256);
    if (*rows_sha256 && strcmp(rows_sha256, info->sha256)) {
        err_set(err, ST_INPUT, "\"%s\": its rows are not those it was made with (rows_sha256)", p->path);
        return err_hint(err, "make it again with `smgpt-dist pack`");
    }
    for (int i = 0; i < 2 && !keep; i++) {
        p->row[i] = malloc(((size_t)info->max_row_tokens + 1) * sizeof *p->row[i]);
        if (!p->row[i])
            return err_memory(err, "a row of a pack", (size_t)info->max_row_tokens * sizeof *p->row[i]);
    }
    return ST_OK;
}

static enum status pack_fill(struct pack *p, const char *path, struct pack_info *info,
                             int64_t memory_max_bytes, struct err *err)
{
    struct pack_header h;
    snprintf(p->path, sizeof p->path, "%s", path);
    TRY(data__pack_file_open(path, &p->file, err));
    TRY(data__pack_header_read(p->file, p->path, &h, err));
    p->vocab_size = h.vocab_size;
    info->stage = h.stage;
    info->vocab_size = h.vocab_size;
    info->base_vocab_size = h.base_vocab_size;
    memcpy(info->tokenizer_sha256, h.tokenizer_sha256, SHA256_HEX_BYTES);
    memcpy(info->source_sha256, h.source_sha256, SHA256_HEX_BYTES);
    memcpy(info->options_sha256, h.options_sha256, SHA256_HEX_BYTES);
    TRY(group_open(p, PACK_TRAIN, err));
    TRY(group_open(p, PACK_EVAL, err));
    return pack_check(p, info, h.rows_sha256, memory_max_bytes, err);
}

static void file_close(struct pack *p)
{
    for (int i = 0; i < 2; i++) {
        if (p->groups[i].ids >= 0)
            H5Oclose(p->groups[i].ids);
        if (p->groups[i].labels >= 0)
            H5Oclose(p->groups[i].labels);
        p->groups[i].ids = p->groups[i].labels = -1;
    }
    if (p->file >= 0)
        H5Fclose(p->file);
    p->file = -1;
}

enum status data__pack_read(struct pack **out, const char *path, struct pack_info *info,
                            int64_t memory_max_bytes, struct err *err)
{
    *out = NULL;
    *info = (struct pack_info){0};
    struct pack *p = calloc(1, sizeof *p);
    if (!p)
        return err_memory(err, "a pack", sizeof *p);
    p->file = -1;
    for (int i = 0; i < 2; i++)
        p->groups[i].ids = p->groups[i].labels = -1;
    enum status status = pack_fill(p, path, info, memory_max_bytes, err);
    if (status != ST_OK) {
        pack_close(p);
        return status;
    }
    if (!p->row[0])
        file_close(p); /* all is in memory */
    *out = p;
    return ST_OK;
}

enum status pack_open(struct pack **out, const char *path, struct pack_info *info, struct err *err)
{
    *out = NULL;
    *info = (struct pack_info){0};
    TRY(data__pack_probe(path, err));
    return data__pack_read(out, path, info, MEMORY_MAX_BYTES, err);
}

void pack_close(struct pack *p)
{
    if (!p)
        return;
    file_close(p);
    for (int i = 0; i < 2; i++) {
        struct group *g = &p->groups[i];
        free(g->offsets);
        free(g->kept[0]);
        free(g->kept[1]);
        free(p->row[i]);
    }
    free(p);
}

enum status pack_row(struct pack *p, enum pack_group group, int64_t row, const int32_t **ids,
                     const int32_t **labels, int32_t *n_tokens, struct err *err)
{
    const struct group *g = &p->groups[group];
    if (row < 0 || row >= g->n_rows)
        return err_set(err, ST_DEFECT, "\"%s\": row %lld of %lld asked for", p->path, (long long)row,
                       (long long)g->n_rows);
    int64_t first = g->offsets[row], n = g->offsets[row + 1] - first;
    *n_tokens = (int32_t)n;
    if (g->kept[0] && g->kept[1]) {
        *ids = g->kept[0] + first;
        *labels = g->kept[1] + first;
        return ST_OK;
    }
    TRY(series_read(p, group, series_names[0], g->ids, H5T_NATIVE_INT32, first, n, p->row[0], err));
    TRY(series_read(p, group, series_names[1], g->labels, H5T_NATIVE_INT32, first, n, p->row[1], err));
    /* The file may have changed since it was checked; an id out of range would reach past the embedding. */
    TRY(check_values(p, group, 0, p->row[0], first, n, err));
    TRY(check_values(p, group, 1, p->row[1], first, n, err));
    *ids = p->row[0];
    *labels = p->row[1];
    return ST_OK;
}
