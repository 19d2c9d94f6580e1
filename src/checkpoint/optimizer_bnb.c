/* bitsandbytes' blockwise 8-bit states: a byte is an index into a table of 256 floats, scaled by the largest
 * magnitude of its block (hf-formats B.11). */
#include "optimizer_bnb.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define QUANT_STATE  "__bnb_optimizer_quant_state__"
#define TABLE_LENGTH 256
/* Lengths of a block: since version 0.44, and before it. */
#define BLOCK_NEW 256
#define BLOCK_OLD 2048

struct quantized {
    const uint8_t *codes;
    float table[TABLE_LENGTH];
    float *scales; /* [n_blocks], owned */
    int64_t n, block;
};

static const struct value *inner(const struct value *entry)
{
    const struct value *v = value_get(entry, QUANT_STATE);
    return v ? v : entry;
}

bool bnb__is_entry(const struct value *entry)
{
    return value_get(entry, QUANT_STATE) || value_get(entry, "state1") || value_get(entry, "state2");
}

const struct value *bnb__state(const struct value *entry, int moment)
{
    const struct value *v = value_get(inner(entry), moment == 1 ? "state1" : "state2");
    return v && v->kind == VALUE_TENSOR ? v : NULL;
}

static enum status wrong(const char *path, const char *name, int moment, const char *what, struct err *err)
{
    return err_set(err, ST_INPUT, "\"%s\": 8-bit state%d of \"%s\": %s", path, moment, name, what);
}

/* The scales' count tells the length of a block. */
static bool block_of(int64_t n, int64_t n_scales, int64_t *block)
{
    *block = (n + BLOCK_NEW - 1) / BLOCK_NEW == n_scales ? BLOCK_NEW : BLOCK_OLD;
    return (n + *block - 1) / *block == n_scales;
}

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static enum status open_quantized(struct quantized *q, const struct value *entry, int moment,
                                  const char *path, const char *name, struct err *err)
{
    const struct tensor *codes = &bnb__state(entry, moment)->tensor;
    const struct value *table = value_get(inner(entry), moment == 1 ? "qmap1" : "qmap2");
    const struct value *scales = value_get(inner(entry), moment == 1 ? "absmax1" : "absmax2");
    *q = (struct quantized){.codes = codes->data, .n = tensor_count(codes)};
    if (!table || table->kind != VALUE_TENSOR || !scales || scales->kind != VALUE_TENSOR)
        return wrong(path, name, moment,
                     "no table or no scales of blocks (a layout without blocks is not read)", err);
    if (tensor_count(&table->tensor) != TABLE_LENGTH)
        return wrong(path, name, moment, "its table has not 256 entries", err);
    const int64_t n_scales = tensor_count(&scales->tensor);
    if (!block_of(q->n, n_scales, &q->block))
        return wrong(path, name, moment, "the scales fit no length of blocks (256 or 2048)", err);
    q->scales = malloc((size_t)n_scales * sizeof *q->scales + 1);
    if (!q->scales)
        return err_memory(err, "scales of an 8-bit optimizer", (size_t)n_scales * sizeof *q->scales);
    if (!dtype_to_f32(table->tensor.dtype, table->tensor.data, q->table, TABLE_LENGTH) ||
        !dtype_to_f32(scales->tensor.dtype, scales->tensor.data, q->scales, (size_t)n_scales))
        return wrong(path, name, moment, "table or scales are of no floating type", err);
    if (!all_finite(q->table, TABLE_LENGTH) || !all_finite(q->scales, n_scales))
        return wrong(path, name, moment, "table or scales have a value that is not finite", err);
    return ST_OK;
}

enum status bnb__read(const struct value *entry, int moment, const char *path, const char *name, float *out,
                      struct err *err)
{
    const struct value *state = bnb__state(entry, moment);
    struct quantized q;
    if (!state)
        return wrong(path, name, moment, "is missing", err);
    if (state->tensor.dtype != DT_U8) {
        if (dtype_to_f32(state->tensor.dtype, state->tensor.data, out, (size_t)tensor_count(&state->tensor)))
            return ST_OK;
        return wrong(path, name, moment, "is neither of bytes nor of a floating type", err);
    }
    enum status st = open_quantized(&q, entry, moment, path, name, err);
    for (int64_t i = 0; i < q.n && st == ST_OK; i++)
        out[i] = q.table[q.codes[i]] * q.scales[i / q.block];
    free(q.scales);
    return st;
}

int64_t bnb__drop_unscaled(float *m, const float *v, int64_t n)
{
    int64_t n_dropped = 0;
    for (int64_t i = 0; i < n; i++)
        if (v[i] == 0 && m[i] != 0) {
            m[i] = 0;
            n_dropped++;
        }
    return n_dropped;
}
