/* What the host tables (cpu, reference) share: the device record, memory, weights as float32, key chains. */
#ifndef SMGPT_OPS_INTERNAL_H
#define SMGPT_OPS_INTERNAL_H

#include "ops/ops.h"
#include <stddef.h>

extern const struct ops ops__cpu;
extern const struct ops ops__reference;
/* The counting table of that name, or NULL unless ops_timing_install asked for it. */
const struct ops *ops__timed(const char *name);

struct kernels; /* cpu/kernels.h: the vector loops of one instruction set */
struct tiles;   /* cpu/tiles/tiles.h: products of packed bfloat16 panels */
struct scratch {
    void *base;
    size_t n_bytes;
};
/* A host backend's state. Scratch grows to the largest call seen and stays; slot i belongs to thread i, slot
 * n_threads to the calling thread, the last two to operations that are made of others, and of those. */
struct device {
    int n_threads;
    enum compute compute;
    const struct kernels *kernels; /* NULL in the reference table */
    const struct tiles *tiles;     /* native bfloat16 products, or NULL */
    struct scratch *scratch;       /* [n_threads + 3] */
    char text[160];
};

/* Allocates the record, checks thread count and compute mode. */
enum status ops__device_open(struct device **out, const struct device_options *options, struct err *err);
void ops__device_close(struct device *dev);
const char *ops__device_describe(const struct device *dev);
/* At least n_bytes, aligned to 64, contents undefined; slot in [0, n_threads + 2]. Ends the process when
 * there is no memory: the operations have no way to fail. */
void *ops__scratch(struct device *dev, int slot, size_t n_bytes);

/* Slots that are the same in both tables. */
void *ops__alloc(struct device *dev, size_t n_bytes);
void ops__release(struct device *dev, void *p);
void ops__copy(struct device *dev, void *dst, const void *src, size_t n_bytes);
void ops__zero(struct device *dev, void *dst, size_t n_bytes);
void ops__sync(struct device *dev);

/* An MLP's kept values as float32 planes [kept_room, I], gate's before up's. */
size_t ops__mlp_kept_bytes(const struct device *dev, int64_t width, int64_t n_tokens);
/* gate and up of the MLP with y in their planes, from row kept_first on. */
void ops__mlp_planes(const struct mlp *mlp, struct projection both[2]);

/* ST_DEFECT or ST_INPUT when w has a size below 1, is too large or of an element type that is not floating.
 */
enum status ops__weight_check(const struct weight *w, struct err *err);
/* The same; and ST_DEFECT without data, or data or memory (where needed) that begin at no fit address. */
enum status ops__weight_check_memory(const struct weight *w, const void *memory, bool needed,
                                     struct err *err);
void ops__round_bf16(float *x, int64_t n); /* each element to the nearest bfloat16, ties to even */

/* The keys that a segment's tokens may see, root first: n ranges [start, start + n_tokens) of the packed
 * sequence, the last one being the segment itself. Returns n; ranges has room for n_segments. */
struct key_range {
    int64_t start, n_tokens;
};
int64_t ops__key_chain(const struct attention_shape *shape, int32_t segment, struct key_range *ranges);

/* Queries, and the token of query i. */
static inline int64_t ops__n_queries(const struct attention_shape *shape)
{
    return shape->queries != NULL ? shape->n_queries : shape->n_tokens;
}
static inline int64_t ops__query_token(const struct attention_shape *shape, int64_t i)
{
    return shape->queries != NULL ? shape->queries[i] : i;
}
/* Queries before token t: those of a segment are [ops__queries_before(start), ..(start + n_tokens)). */
int64_t ops__queries_before(const struct attention_shape *shape, int64_t t);

#endif
