/* Writing one group of a pack: four series that grow chunk by chunk. */
#include "pack_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A row is read by unpacking its chunk: small chunks make random access cheap, and still compress well. */
#define CHUNK_ITEMS   16384
#define DEFLATE_LEVEL 4

static const char *const series_names[N_SERIES] = {[SERIES_IDS] = "input_ids",
                                                   [SERIES_LABELS] = "labels",
                                                   [SERIES_OFFSETS] = "row_offsets",
                                                   [SERIES_SOURCE] = "source_row"};

static enum status group_fail(const struct group_writer *g, int kind, const char *what, struct err *err)
{
    char text[96];
    snprintf(text, sizeof text, "cannot %s /%s/%s", what, g->name, series_names[kind]);
    return data__h5_fail(err, ST_ENV, g->path, text);
}

static enum status series_open(struct group_writer *g, int kind, struct err *err)
{
    struct series *s = &g->series[kind];
    bool wide = kind == SERIES_OFFSETS || kind == SERIES_SOURCE;
    hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk = CHUNK_ITEMS;
    s->memory_type = wide ? H5T_NATIVE_INT64 : H5T_NATIVE_INT32;
    s->item_bytes = wide ? sizeof(int64_t) : sizeof(int32_t);
    s->pending = malloc(CHUNK_ITEMS * s->item_bytes);
    if (!s->pending)
        return err_memory(err, "a chunk of a pack", CHUNK_ITEMS * s->item_bytes);
    hid_t space = H5Screate_simple(1, &none, &unlimited), create = H5Pcreate(H5P_DATASET_CREATE);
    bool good = space >= 0 && create >= 0 && H5Pset_chunk(create, 1, &chunk) >= 0 &&
                H5Pset_shuffle(create) >= 0 && H5Pset_deflate(create, DEFLATE_LEVEL) >= 0 &&
                H5Pset_fletcher32(create) >= 0 &&
                H5Pset_obj_track_times(create, false) >= 0; /* equal rows give equal bytes */
    if (good)
        s->dataset = H5Dcreate2(g->group, series_names[kind], wide ? H5T_STD_I64LE : H5T_STD_I32LE, space,
                                H5P_DEFAULT, create, H5P_DEFAULT);
    enum status status = s->dataset >= 0 ? ST_OK : group_fail(g, kind, "make", err);
    H5Pclose(create);
    H5Sclose(space);
    return status;
}

static enum status series_flush(struct group_writer *g, int kind, struct err *err)
{
    struct series *s = &g->series[kind];
    hsize_t size = s->n_written + s->n_pending;
    if (s->n_pending == 0)
        return ST_OK;
    if (H5Dset_extent(s->dataset, &size) < 0)
        return group_fail(g, kind, "extend", err);
    hid_t file_space = H5Dget_space(s->dataset), memory = H5Screate_simple(1, &s->n_pending, NULL);
    bool good =
        file_space >= 0 && memory >= 0 &&
        H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &s->n_written, NULL, &s->n_pending, NULL) >= 0 &&
        H5Dwrite(s->dataset, s->memory_type, memory, file_space, H5P_DEFAULT, s->pending) >= 0;
    enum status status = good ? ST_OK : group_fail(g, kind, "write", err); /* before HDF5 forgets why */
    H5Sclose(memory);
    H5Sclose(file_space);
    s->n_written = size;
    s->n_pending = 0;
    return status;
}

static enum status series_add(struct group_writer *g, int kind, const void *items, int64_t n, struct err *err)
{
    struct series *s = &g->series[kind];
    const char *from = items;
    while (n > 0) {
        hsize_t room = CHUNK_ITEMS - s->n_pending, some = (hsize_t)n < room ? (hsize_t)n : room;
        memcpy(s->pending + s->n_pending * s->item_bytes, from, some * s->item_bytes);
        s->n_pending += some;
        from += some * s->item_bytes;
        n -= (int64_t)some;
        if (s->n_pending == CHUNK_ITEMS)
            TRY(series_flush(g, kind, err));
    }
    return ST_OK;
}

enum status data__group_open(struct group_writer *g, hid_t file, const char *path, const char *name,
                             struct err *err)
{
    const int64_t zero = 0;
    *g = (struct group_writer){.path = path, .name = name};
    data__rows_hash_init(&g->hash);
    for (int i = 0; i < N_SERIES; i++)
        g->series[i].dataset = -1;
    g->group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (g->group < 0)
        return data__h5_fail(err, ST_ENV, path, "cannot make a group");
    for (int i = 0; i < N_SERIES; i++)
        TRY(series_open(g, i, err));
    sha256_update(&g->hash.offsets, &zero, sizeof zero);
    return series_add(g, SERIES_OFFSETS, &zero, 1, err);
}

enum status data__group_add(struct group_writer *g, const struct row *row, int64_t source_row,
                            struct err *err)
{
    struct rows_hash *h = &g->hash;
    h->n_tokens += row->ids.n;
    h->n_rows++;
    sha256_update(&h->offsets, &h->n_tokens, sizeof h->n_tokens);
    sha256_update(&h->ids, row->ids.data, (size_t)row->ids.n * sizeof *row->ids.data);
    sha256_update(&h->labels, row->labels.data, (size_t)row->labels.n * sizeof *row->labels.data);
    TRY(series_add(g, SERIES_IDS, row->ids.data, row->ids.n, err));
    TRY(series_add(g, SERIES_LABELS, row->labels.data, row->labels.n, err));
    TRY(series_add(g, SERIES_OFFSETS, &h->n_tokens, 1, err));
    return series_add(g, SERIES_SOURCE, &source_row, 1, err);
}

enum status data__group_close(struct group_writer *g, bool good, struct err *err)
{
    enum status status = ST_OK;
    for (int i = 0; i < N_SERIES; i++) {
        struct series *s = &g->series[i];
        if (good && status == ST_OK)
            status = series_flush(g, i, err);
        if (s->dataset >= 0 && H5Dclose(s->dataset) < 0 && status == ST_OK && good)
            status = group_fail(g, i, "close", err);
        free(s->pending);
        s->pending = NULL;
        s->dataset = -1;
    }
    if (g->group >= 0)
        H5Gclose(g->group);
    g->group = -1;
    return status;
}
