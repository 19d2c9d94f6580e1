/* Memory and bookkeeping of the host tables. */
#include "ops_internal.h"
#include "util/fatal.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_FROM = 4 << 20 };

/* In front of each block, one alignment unit long. */
struct block_head {
    size_t mapped_bytes; /* 0: from aligned_alloc */
};

static bool use_mmap(size_t n_bytes)
{
#ifdef __SANITIZE_ADDRESS__
    return false; /* the sanitizer watches only the borders of malloc's blocks */
#else
    return n_bytes >= HUGE_FROM;
#endif
}

void *ops__alloc(struct device *dev, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 2)
        return NULL;
    size_t total = (n_bytes + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    char *base;
    if (use_mmap(total)) {
        base = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED)
            return NULL;
        madvise(base, total, MADV_HUGEPAGE); /* only advice: without huge pages it is slower, not wrong */
        /* Pages are made here, once, by the threads that will use them, not in the middle of a step. */
#pragma omp parallel for num_threads(dev->n_threads) schedule(static)
        for (size_t at = 0; at < total; at += 4096)
            ((volatile char *)base)[at] = 0;
    } else {
        base = aligned_alloc(ALIGNMENT, total);
        if (base == NULL)
            return NULL;
        memset(base, 0, total);
    }
    ((struct block_head *)base)->mapped_bytes = use_mmap(total) ? total : 0;
    return base + ALIGNMENT;
}

void ops__release(struct device *dev, void *p)
{
    if (p == NULL)
        return;
    char *base = (char *)p - ALIGNMENT;
    size_t mapped = ((struct block_head *)base)->mapped_bytes;
    if (mapped > 0)
        munmap(base, mapped);
    else
        free(base);
}

void ops__copy(struct device *dev, void *dst, const void *src, size_t n_bytes)
{
    if (n_bytes > 0)
        memmove(dst, src, n_bytes);
}

void ops__zero(struct device *dev, void *dst, size_t n_bytes)
{
    enum { PIECE = 1 << 20 };
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (n_bytes > PIECE)
    for (size_t at = 0; at < n_bytes; at += PIECE)
        memset((char *)dst + at, 0, n_bytes - at < PIECE ? n_bytes - at : PIECE);
}

void ops__sync(struct device *dev)
{
    /* Host operations have finished when they return. */
}

enum status ops__device_open(struct device **out, const struct device_options *options, struct err *err)
{
    *out = NULL;
    if (options->n_threads < 0 || options->n_threads > 4096)
        return err_set(err, ST_USAGE, "number of threads %d is not between 0 and 4096", options->n_threads);
    if (options->compute != COMPUTE_F32 && options->compute != COMPUTE_BF16) {
        err_set(err, ST_USAGE, "the CPU does not compute in float16");
        return err_hint(err, "use --compute float32 or bfloat16");
    }
    struct device *dev = calloc(1, sizeof *dev);
    if (dev == NULL)
        return err_memory(err, "the device", sizeof *dev);
    dev->n_threads = options->n_threads > 0 ? options->n_threads : omp_get_max_threads();
    dev->compute = options->compute;
    dev->scratch = calloc((size_t)dev->n_threads + 3, sizeof *dev->scratch);
    if (dev->scratch == NULL) {
        free(dev);
        return err_memory(err, "the device", sizeof *dev->scratch);
    }
    *out = dev;
    return ST_OK;
}

void ops__device_close(struct device *dev)
{
    if (dev == NULL)
        return;
    for (int i = 0; i < dev->n_threads + 3; i++)
        ops__release(dev, dev->scratch[i].base);
    free(dev->scratch);
    free(dev);
}

const char *ops__device_describe(const struct device *dev)
{
    return dev->text;
}

void *ops__scratch(struct device *dev, int slot, size_t n_bytes)
{
    struct scratch *s = &dev->scratch[slot];
    if (n_bytes <= s->n_bytes)
        return s->base;
    size_t wanted = n_bytes + n_bytes / 4;
    ops__release(dev, s->base);
    struct device alone = {.n_threads = 1}; /* may be called inside a parallel region */
    s->base = ops__alloc(&alone, wanted);
    if (s->base == NULL) {
        struct err err = ERR_INIT;
        err_memory(&err, "scratch of an operation", wanted);
        err_hint(&err, "use shorter packed sequences or fewer ranks on this host");
        fatal(&err);
    }
    s->n_bytes = wanted;
    return s->base;
}

enum status ops__weight_check(const struct weight *w, struct err *err)
{
    if (w->n_out < 1 || w->n_in < 1)
        return err_set(err, ST_DEFECT, "weight of %lld x %lld is empty", (long long)w->n_out,
                       (long long)w->n_in);
    if (w->dtype != DT_F32 && w->dtype != DT_F64 && w->dtype != DT_F16 && w->dtype != DT_BF16)
        return err_set(err, ST_INPUT, "a weight of type %s cannot be multiplied", dtype_name(w->dtype));
    /* Packed forms round both sizes up. */
    const int64_t most = INT64_MAX / 16, round = 256;
    if (w->n_out > most - round || w->n_in > most - round || w->n_out + round > most / (w->n_in + round))
        return err_set(err, ST_INPUT, "weight of %lld x %lld is too large", (long long)w->n_out,
                       (long long)w->n_in);
    return ST_OK;
}

enum status ops__weight_check_memory(const struct weight *w, const void *memory, bool needed, struct err *err)
{
    TRY(ops__weight_check(w, err));
    if (w->data == NULL)
        return err_set(err, ST_DEFECT, "weight of %lld x %lld without data", (long long)w->n_out,
                       (long long)w->n_in);
    if ((uintptr_t)w->data % dtype_bytes(w->dtype) != 0)
        return err_set(err, ST_DEFECT, "weight of %lld x %lld does not begin on a whole %s",
                       (long long)w->n_out, (long long)w->n_in, dtype_name(w->dtype));
    if (needed && (memory == NULL || (uintptr_t)memory % ALIGNMENT != 0))
        return err_set(err, ST_DEFECT, "packed weight of %lld x %lld without memory aligned to %d",
                       (long long)w->n_out, (long long)w->n_in, ALIGNMENT);
    return ST_OK;
}

bool weight_has_rows(const struct weight *w)
{
    return w->data != NULL || w->packed_row != NULL;
}

void weight_row(const struct weight *w, int64_t row, float *out)
{
    if (w->data == NULL) {
        w->packed_row(w, row, out);
        return;
    }
    size_t at = (size_t)(row * w->n_in) * dtype_bytes(w->dtype);
    dtype_to_f32(w->dtype, (const char *)w->data + at, out, (size_t)w->n_in);
}

void ops__round_bf16(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = bf16_to_f32(bf16_from_f32(x[i]));
}

int64_t ops__key_chain(const struct attention_shape *shape, int32_t segment, struct key_range *ranges)
{
    int64_t n = 0;
    for (int32_t s = segment; s >= 0; s = shape->segments[s].parent)
        ranges[n++] = (struct key_range){shape->segments[s].start, shape->segments[s].n_tokens};
    for (int64_t i = 0; i < n / 2; i++) {
        struct key_range swap = ranges[i];
        ranges[i] = ranges[n - 1 - i];
        ranges[n - 1 - i] = swap;
    }
    return n;
}

int64_t ops__queries_before(const struct attention_shape *shape, int64_t t)
{
    int64_t low = 0, high = shape->n_queries;
    if (shape->queries == NULL)
        return t;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (shape->queries[middle] < t)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t ops__mlp_kept_bytes(const struct device *dev, int64_t width, int64_t n_tokens)
{
    (void)dev;
    return 2 * (size_t)(width * n_tokens) * sizeof(float);
}

void ops__mlp_planes(const struct mlp *mlp, struct projection both[2])
{
    const int64_t width = mlp->gate.w->n_out;
    float *gate = (float *)mlp->kept + mlp->kept_first * width;
    both[0] = mlp->gate;
    both[1] = mlp->up;
    both[0].y = gate;
    both[1].y = gate + mlp->kept_room * width;
}
