/* Frozen weights: packed once, multiplied in both directions. The packed form lies in memory of the caller,
 * who may share it among processes; only pointers and layouts are each process's own.
 *
 * y = x W^T reads panels [n_in][panel] of W^T; dx = dy W reads the same panels, turned block by block in the
 * cache. They are kept in bfloat16 where the source or the compute mode is bfloat16 (half the memory traffic)
 * and are widened panel by panel, in the cache. Where bfloat16 is multiplied natively, W^T stands in panels
 * of tiles instead, which serve both directions too (panels.h), and nothing is widened. */
#include "weights.h"
#include "cpu_internal.h"
#include "panels.h"
#include "util/dtype.h"
#include <omp.h>
#include <stdlib.h>

static enum dtype packed_dtype(const struct device *dev, enum dtype source)
{
    return source == DT_BF16 || dev->compute == COMPUTE_BF16 ? DT_BF16 : DT_F32;
}

static size_t align64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

/* Lays the parts out from `memory` on; NULL gives the size alone. Nothing is written. */
static void lay_out(struct packed_weight *packed, size_t *n_bytes, struct device *dev, const struct weight *w,
                    char *memory)
{
    *packed = (struct packed_weight){.dtype = packed_dtype(dev, w->dtype)};
    size_t element = dtype_bytes(packed->dtype);
    if (dev->tiles != NULL) {
        *n_bytes = panels_elements(w->n_out, w->n_in) * element;
        packed->tiles = (struct panels_matrix){w->n_in, w->n_out, (uint16_t *)memory};
    } else {
        int64_t panel = dev->kernels->panel;
        *n_bytes = align64((size_t)(cpu_blocks(w->n_out, panel) * panel * w->n_in) * element);
        packed->panels = memory;
        packed->width = panel;
    }
}

enum status cpu__weight_bytes(struct device *dev, size_t *n_bytes, int64_t n_out, int64_t n_in,
                              enum dtype dtype, struct err *err)
{
    struct weight w = {.n_out = n_out, .n_in = n_in, .dtype = dtype};
    struct packed_weight packed;
    *n_bytes = 0;
    TRY(ops__weight_check(&w, err));
    lay_out(&packed, n_bytes, dev, &w, NULL);
    return ST_OK;
}

static void convert(struct device *dev, enum dtype dtype, void *to, const float *from, int64_t n)
{
    if (dtype == DT_BF16)
        dev->kernels->to_bf16(to, from, n);
    else
        dtype_from_f32(DT_F32, from, to, (size_t)n);
}

/* One panel: `panel` rows of W, turned. scratch holds 2 * panel * n_in floats. */
static void pack_panel(struct device *dev, const struct weight *w, const struct packed_weight *packed,
                       int64_t j, float *scratch)
{
    int64_t panel = dev->kernels->panel, k = w->n_in, first = j * panel;
    int64_t n = cpu_min(w->n_out - first, panel), element = (int64_t)dtype_bytes(packed->dtype);
    float *turned = scratch + panel * k;
    for (int64_t i = 0; i < n; i++)
        weight_row(w, first + i, scratch + i * k);
    dev->kernels->pack_cols(turned, scratch, k, k, n);
    convert(dev, packed->dtype, (char *)packed->panels + first * k * element, turned, k * panel);
}

/* Panels of all columns. */
static void panels_fill(struct device *dev, const struct weight *w, const struct packed_weight *packed)
{
    int64_t panel = dev->kernels->panel, n_panels = cpu_blocks(w->n_out, panel);
    size_t scratch_bytes = 2 * (size_t)(panel * w->n_in) * sizeof(float);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (n_panels > 1)
    for (int64_t j = 0; j < n_panels; j++)
        pack_panel(dev, w, packed, j, ops__scratch(dev, omp_get_thread_num(), scratch_bytes));
}

/* For the native products, from the source or from a rounded copy of it. */
static enum status native_fill(struct device *dev, const struct weight *w, const struct packed_weight *packed,
                               struct err *err)
{
    const uint16_t *rows = w->data;
    int64_t k = w->n_in, n = w->n_out;
    uint16_t *rounded = NULL;
    if (w->dtype != DT_BF16) {
        rounded = ops__alloc(dev, (size_t)(n * k) * sizeof *rounded);
        if (rounded == NULL)
            return err_memory(err, "a rounded weight", (size_t)(n * k) * sizeof *rounded);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static)
        for (int64_t i = 0; i < n; i++) {
            float *row = ops__scratch(dev, omp_get_thread_num(), (size_t)k * sizeof *row);
            weight_row(w, i, row);
            dev->kernels->to_bf16(rounded + i * k, row, k);
        }
        rows = rounded;
    }
    cpu__panels_pack(dev, &packed->tiles, rows);
    ops__release(dev, rounded);
    return ST_OK;
}

static void row_of_tiles(const struct weight *w, int64_t row, float *out)
{
    const struct packed_weight *packed = w->prepared;
    cpu__panels_column(out, &packed->tiles, row);
}

static void row_of_panels(const struct weight *w, int64_t row, float *out)
{
    const struct packed_weight *packed = w->prepared;
    const int64_t width = packed->width, first = row / width * width * w->n_in + row % width;
    const float *f32 = packed->panels;
    const uint16_t *bf16 = packed->panels;
    for (int64_t k = 0; k < w->n_in; k++)
        out[k] = packed->dtype == DT_BF16 ? bf16_to_f32(bf16[first + k * width]) : f32[first + k * width];
}

enum status cpu__weight_prepare(struct device *dev, struct weight *w, void *memory, bool fill,
                                struct err *err)
{
    size_t n_bytes;
    w->prepared = NULL;
    w->packed_row = NULL;
    TRY(ops__weight_check_memory(w, memory, true, err));
    struct packed_weight *packed = calloc(1, sizeof *packed);
    if (packed == NULL)
        return err_memory(err, "a packed weight", sizeof *packed);
    w->prepared = packed;
    enum status status = ST_OK;
    lay_out(packed, &n_bytes, dev, w, memory);
    if (fill && dev->tiles != NULL)
        status = native_fill(dev, w, packed, err);
    else if (fill)
        panels_fill(dev, w, packed);
    w->source_unused = status == ST_OK;
    w->packed_row = packed->dtype != w->dtype ? NULL : dev->tiles != NULL ? row_of_tiles : row_of_panels;
    if (status != ST_OK)
        cpu__weight_release(dev, w);
    return status;
}

void cpu__weight_release(struct device *dev, struct weight *w)
{
    struct packed_weight *packed = w->prepared;
    free(packed);
    w->prepared = NULL;
    w->packed_row = NULL;
}

/* The activations as the multiplier sees them: in the bfloat16 mode a rounded copy [rows, n]. */
static const float *operand(struct device *dev, const float *x, int64_t *ld, int64_t rows, int64_t n)
{
    if (dev->compute == COMPUTE_F32)
        return x;
    float *rounded = ops__scratch(dev, dev->n_threads, (size_t)(rows * n) * sizeof *rounded);
    int64_t from_ld = *ld;
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (rows * n > CPU_GRAIN)
    for (int64_t r = 0; r < rows; r++)
        dev->kernels->round_bf16(rounded + r * n, x + r * from_ld, n);
    *ld = n;
    return rounded;
}

void cpu__linear(struct device *dev, float *y, int64_t ldy, const float *x, int64_t ldx,
                 const struct weight *w, int64_t n_tokens, bool accumulate)
{
    const struct packed_weight *packed = w->prepared;
    if (n_tokens <= 0)
        return;
    if (dev->tiles != NULL) {
        cpu__panels_product(dev, y, ldy, x, ldx, n_tokens, &packed->tiles, false, accumulate);
        return;
    }
    struct product p = {.m = n_tokens, .n = w->n_out, .k = w->n_in, .a_k = 1, .c = y, .ldc = ldy, .alpha = 1};
    p.a_row = ldx;
    p.a = operand(dev, x, &p.a_row, n_tokens, w->n_in);
    p.beta = accumulate ? 1 : 0;
    struct right right = {.kind = packed->dtype == DT_BF16 ? RIGHT_PANELS_BF16 : RIGHT_PANELS};
    right.data = packed->panels;
    cpu__product(dev, &p, &right);
}

void cpu__linear_back(struct device *dev, float *dx, int64_t lddx, const float *dy, int64_t lddy,
                      const struct weight *w, int64_t n_tokens, bool accumulate)
{
    const struct packed_weight *packed = w->prepared;
    if (n_tokens <= 0)
        return;
    if (dev->tiles != NULL) {
        cpu__panels_product(dev, dx, lddx, dy, lddy, n_tokens, &packed->tiles, true, accumulate);
        return;
    }
    struct product p = {
        .m = n_tokens, .n = w->n_in, .k = w->n_out, .a_k = 1, .c = dx, .ldc = lddx, .alpha = 1};
    p.a_row = lddy;
    p.a = operand(dev, dy, &p.a_row, n_tokens, w->n_out);
    p.beta = accumulate ? 1 : 0;
    struct right right = {.kind = packed->dtype == DT_BF16 ? RIGHT_TURNED_BF16 : RIGHT_TURNED};
    right.data = packed->panels;
    cpu__product(dev, &p, &right);
}
