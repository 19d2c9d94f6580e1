/* The price of a sum whose bits do not depend on the number of ranks: tree_sum against MPI_Allreduce of the
 * same vector, in one run, alternating. Run under mpirun; arguments: values of the vector (18000000), shards
 * (8).
 *
 *     mpirun -np 4 --bind-to none build/bench_comm 18000000 8
 *
 * Rank 0 prints one JSON object: medians of the rounds in seconds, bytes that a rank sends. What a sum under
 * way behind the computing could gain is measured with MPI's own: work_then_sum_s against work_beside_sum_s,
 * the same work and the same sum, the one after the other or at once. */
#include "comm/tree_sum.h"
#include "util/clock.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { REPEATS = 9, WORK_FLOATS = 16384, WORK_PASSES = 400, WORK_SLICES = 200 };

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    return x[n / 2];
}

/* A round: every own leaf is filled and pushed, then the exchange; the two parts are timed apart. */
static int tree_round(struct tree_sum *ts, struct comm *c, int64_t n, int n_leaves, float *total,
                      double *local_s, double *exchange_s)
{
    struct err err = ERR_INIT;
    int first, end;
    tree_sum_range(n_leaves, c->world_size, c->rank, &first, &end);
    tree_sum_reset(ts);
    double start_s = clock_s();
    for (int leaf = first; leaf < end; leaf++) {
        float *x = tree_sum_leaf(ts);
        for (int64_t i = 0; i < n; i += 4096)
            x[i] = (float)(leaf + 1);
        tree_sum_push(ts);
    }
    *local_s = clock_s() - start_s;
    MPI_Barrier(MPI_COMM_WORLD);
    start_s = clock_s();
    if (tree_sum_finish(ts, c, total, &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.what);
        return 1;
    }
    *exchange_s = clock_s() - start_s;
    return 0;
}

/* About what a part of a backward pass does: multiplications and additions on operands in the cache. */
static float work_slice(float *x)
{
    for (int k = 0; k < WORK_PASSES; k++)
        for (int i = 0; i < WORK_FLOATS; i++)
            x[i] = x[i] * 0.999f + 0.001f;
    return x[WORK_FLOATS / 2];
}

/* beside: the sum is under way while the rank works, and gets on whenever a slice of the work is done. */
static double work_round(bool beside, float *mine, float *total, int64_t n)
{
    static float x[WORK_FLOATS];
    volatile float keep = 0;
    int done = 0;
    MPI_Request sum = MPI_REQUEST_NULL;
    MPI_Barrier(MPI_COMM_WORLD);
    double start_s = clock_s();
    if (beside)
        MPI_Iallreduce(mine, total, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, &sum);
    for (int k = 0; k < WORK_SLICES; k++) {
        keep = keep + work_slice(x);
        if (beside)
            MPI_Test(&sum, &done, MPI_STATUS_IGNORE);
    }
    if (beside)
        MPI_Wait(&sum, MPI_STATUS_IGNORE);
    else
        MPI_Allreduce(mine, total, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    return clock_s() - start_s;
}

static double allreduce_round(float *mine, float *total, int64_t n)
{
    MPI_Barrier(MPI_COMM_WORLD);
    double start_s = clock_s();
    MPI_Allreduce(mine, total, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    return clock_s() - start_s;
}

static int run(struct comm *c, int64_t n, int n_leaves)
{
    struct tree_sum *ts = NULL;
    struct err err = ERR_INIT;
    double local[REPEATS], exchange[REPEATS], plain[REPEATS], after[REPEATS], beside[REPEATS];
    float *total = calloc((size_t)n, sizeof *total), *mine = calloc((size_t)n, sizeof *mine);
    if (!total || !mine || tree_sum_open(&ts, c, n, n_leaves, &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.status == ST_OK ? "no memory" : err.what);
        return 1;
    }
    int64_t sent = 0;
    for (int k = -1; k < REPEATS; k++) { /* the first round is for warming up */
        double a, b;
        int64_t before = tree_sum_bytes_sent(ts);
        if (tree_round(ts, c, n, n_leaves, total, &a, &b))
            return 1;
        sent = tree_sum_bytes_sent(ts) - before;
        double p = allreduce_round(mine, total, n);
        double one = work_round(false, mine, total, n), both = work_round(true, mine, total, n);
        if (k >= 0) {
            after[k] = one;
            beside[k] = both;
            local[k] = a;
            exchange[k] = b;
            plain[k] = p;
        }
    }
    if (c->rank == 0)
        printf("{\"ranks\": %d, \"shards\": %d, \"values\": %lld, \"local_sums_s\": %.6f, \"exchange_s\": "
               "%.6f, \"mpi_allreduce_s\": "
               "%.6f, \"ratio\": %.3f, \"work_then_sum_s\": %.6f, \"work_beside_sum_s\": %.6f, "
               "\"bytes_sent_per_rank\": %lld, \"vector_bytes\": %lld}\n",
               c->world_size, n_leaves, (long long)n, median(local, REPEATS), median(exchange, REPEATS),
               median(plain, REPEATS), median(exchange, REPEATS) / median(plain, REPEATS),
               median(after, REPEATS), median(beside, REPEATS), (long long)sent, (long long)n * 4);
    tree_sum_close(ts);
    free(total);
    free(mine);
    return 0;
}

int main(int argc, char **argv)
{
    struct comm c;
    struct err err = ERR_INIT;
    long long n = argc > 1 ? atoll(argv[1]) : 18000000;
    int shards = argc > 2 ? atoi(argv[2]) : 8;
    if (n < 1 || n > 1 << 30 || shards < 1 || comm_open(&c, "mpi", &err) != ST_OK) {
        fprintf(stderr, "usage: mpirun -np N bench_comm [VALUES] [SHARDS]; %s\n", err.what);
        return 2;
    }
    int rc = run(&c, n, shards);
    comm_close(&c);
    return rc;
}
