/* The ceiling: the best rate of products that this machine reaches now, with the kernels that training uses.
 * Each product is repeated with the same operands, so that they lie in the caches as far as they fit:
 * training cannot be faster than this. */
#include "bench.h"
#include "util/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 1024, SQUARE = 2048 };
#define LEAST_S 0.15 /* of repetitions of one product */

static void fill(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((uint32_t)i * 2654435761U >> 22) / 1024.0F - 0.5F;
}

/* Best rate of one rank; the ranks begin together. */
static enum status rate_of(double *gflops, const struct assembly *s, const struct weight *w, bool back,
                           float *x, float *y, struct err *err)
{
    double best = INFINITY, begin = 0;
    TRY(s->comm->ops->barrier(s->comm, err));
    for (int i = 0; i < 3 || clock_s() - begin < LEAST_S; i++) {
        double start = clock_s();
        if (i == 1)
            begin = start; /* the first call makes what later ones find made */
        if (back)
            s->ops->linear_back(s->dev, x, w->n_in, y, w->n_out, w, TOKENS, false);
        else
            s->ops->linear(s->dev, y, w->n_out, x, w->n_in, w, TOKENS, false);
        s->ops->sync(s->dev);
        best = fmin(best, clock_s() - start);
    }
    *gflops = 2e-9 * (double)(w->n_out * w->n_in) * TOKENS / best;
    return ST_OK;
}

static enum status sum_over_ranks(double *x, struct comm *comm, struct err *err)
{
    struct buf *parts = comm->rank == 0 ? calloc((size_t)comm->world_size, sizeof *parts) : NULL;
    enum status st = comm->rank == 0 && !parts ? err_memory(err, "rates of the ranks", 0) : ST_OK;
    TRY(comm_agree(comm, st, err));
    st = comm->ops->gather(comm, x, sizeof *x, parts, err);
    double sum = 0;
    for (int r = 0; parts && r < comm->world_size; r++) {
        double of_rank = 0;
        if (st == ST_OK)
            memcpy(&of_rank, parts[r].data, sizeof of_rank);
        sum += of_rank;
        buf_release(&parts[r]);
    }
    free(parts);
    if (comm->rank == 0)
        *x = sum;
    return st == ST_OK ? comm->ops->bcast(comm, 0, x, sizeof *x, err) : st;
}

static enum status measure(struct bench_rates *out, const struct assembly *s, const struct weight *w,
                           struct err *err)
{
    for (int i = 0; i < out->n; i++)
        if (out->items[i].n_out == w->n_out && out->items[i].n_in == w->n_in)
            return ST_OK;
    float *x = s->ops->alloc(s->dev, (size_t)(TOKENS * w->n_in) * sizeof *x);
    float *y = s->ops->alloc(s->dev, (size_t)(TOKENS * w->n_out) * sizeof *y);
    enum status st = x && y ? ST_OK : err_memory(err, "operands", (size_t)(TOKENS * w->n_out) * sizeof *y);
    st = comm_agree(s->comm, st, err);
    if (st == ST_OK) {
        fill(x, TOKENS * w->n_in);
        fill(y, TOKENS * w->n_out);
    }
    for (int back = 0; back < 2 && st == ST_OK && out->n < BENCH_MAX_RATES; back++) {
        struct bench_rate *r = &out->items[out->n];
        *r = (struct bench_rate){w->n_out, w->n_in, TOKENS, back == 1, 0};
        st = rate_of(&r->gflops, s, w, back == 1, x, y, err);
        if (st == ST_OK)
            st = sum_over_ranks(&r->gflops, s->comm, err);
        out->best_gflops = fmax(out->best_gflops, r->gflops);
        out->n++;
    }
    s->ops->release(s->dev, x);
    s->ops->release(s->dev, y);
    return st;
}

/* A square matrix that no model has: what the kernels reach when shape and size suit them. */
enum status bench_gemm_square(struct bench_rates *out, const struct assembly *s, struct err *err)
{
    size_t n_bytes = 0, n = (size_t)SQUARE * SQUARE;
    float *source = s->ops->alloc(s->dev, n * sizeof *source);
    void *memory = NULL;
    struct weight w = {.n_out = SQUARE, .n_in = SQUARE, .dtype = DT_F32, .data = source};
    enum status st = source ? ST_OK : err_memory(err, "a square matrix", n * sizeof *source);
    if (st == ST_OK) {
        fill(source, SQUARE * SQUARE);
        st = s->ops->weight_bytes(s->dev, &n_bytes, SQUARE, SQUARE, DT_F32, err);
    }
    if (st == ST_OK) {
        memory = s->ops->alloc(s->dev, n_bytes + 64);
        st = memory ? s->ops->weight_prepare(s->dev, &w, memory, true, err)
                    : err_memory(err, "a packed matrix", n_bytes);
    }
    bool prepared = st == ST_OK;
    st = comm_agree(s->comm, st, err);
    if (st == ST_OK)
        st = measure(out, s, &w, err);
    if (prepared)
        s->ops->weight_release(s->dev, &w);
    s->ops->release(s->dev, memory);
    s->ops->release(s->dev, source);
    return st;
}

enum status bench_gemm(struct bench_rates *out, const struct assembly *s, struct err *err)
{
    *out = (struct bench_rates){0};
    for (int p = 0; p < N_PROJ; p++)
        TRY(measure(out, s, &s->weights.layers[0].proj[p], err));
    return bench_gemm_square(out, s, err);
}
