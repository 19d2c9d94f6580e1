#include "small_pack.h"
#include "util/rng.h"
#include <hdf5.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_ROW 30
#define PREFIX  6

static void number(hid_t file, const char *name, int64_t v)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &v) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void series(hid_t group, const char *name, hid_t type, const void *data, int64_t n)
{
    hsize_t dims = (hsize_t)n;
    hid_t space = H5Screate_simple(1, &dims, NULL);
    hid_t set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(set >= 0);
    assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

static int32_t row_fill(const struct small_pack *p, uint32_t stream, int64_t row, int32_t *ids,
                        int32_t *labels)
{
    uint64_t z = rng_u64(p->seed, RNG_TEST, stream, (uint64_t)row * 64);
    int32_t n = 4 + (int32_t)(z % (MAX_ROW - 3)), n_labels = (int32_t)((z >> 20) % (uint64_t)n) + 1;
    bool shared = row % 3 != 0 && n > PREFIX + 2;
    if (shared && n_labels > n - PREFIX)
        n_labels = n - PREFIX;
    for (int32_t i = 0; i < n; i++) {
        uint64_t x = rng_u64(p->seed, RNG_TEST, stream, (uint64_t)row * 64 + 1 + (uint64_t)i);
        ids[i] = shared && i < PREFIX ? 5 + i : (int32_t)(x % (uint64_t)p->vocab);
        if (i == n - 1 && p->strange_id >= 0)
            ids[i] = p->strange_id;
        labels[i] = p->labelled && row != 3 && i >= n - n_labels ? ids[i] : -100;
    }
    return n;
}

static void group_write(hid_t file, const char *name, uint32_t stream, const struct small_pack *p,
                        int64_t n_rows)
{
    int32_t *ids = calloc((size_t)(n_rows + 1) * MAX_ROW, sizeof *ids);
    int32_t *labels = calloc((size_t)(n_rows + 1) * MAX_ROW, sizeof *labels);
    int64_t *offsets = calloc((size_t)n_rows + 1, sizeof *offsets);
    assert_true(ids != NULL && labels != NULL && offsets != NULL);
    for (int64_t r = 0; r < n_rows; r++)
        offsets[r + 1] = offsets[r] + row_fill(p, stream, r, ids + offsets[r], labels + offsets[r]);
    hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(group >= 0);
    series(group, "input_ids", H5T_NATIVE_INT32, ids, offsets[n_rows]);
    series(group, "labels", H5T_NATIVE_INT32, labels, offsets[n_rows]);
    series(group, "row_offsets", H5T_NATIVE_INT64, offsets, n_rows + 1);
    H5Gclose(group);
    free(ids);
    free(labels);
    free(offsets);
}

void small_pack_write(const char *path, const struct small_pack *p)
{
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    number(file, "format_version", 1);
    number(file, "stage", 1);
    number(file, "vocab_size", p->pack_vocab > 0 ? p->pack_vocab : p->vocab);
    number(file, "base_vocab_size", p->new_first);
    group_write(file, "train", 1, p, p->n_rows[0]);
    group_write(file, "eval", 2, p, p->n_rows[1]);
    H5Fclose(file);
}
