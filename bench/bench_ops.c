/* Speed of the CPU's operations at SmolLM2-135M's sizes, beside the peak of multiply-adds probed in the same
 * run (a product that stays in the first-level cache), and for what works on rows beside the rate of a copy.
 * Usage: bench_ops [threads] [tokens] [auto|baseline|avx2|avx512] [float32|bfloat16] [float32|bfloat16
 * weights]
 * With several threads set OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=10000, as smgpt-dist does for itself:
 * threads that spin take the cores that others wait for. */
#include "ops/ops.h"
#include "util/clock.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 576, I = 1536, Q = 9, K = 3, D = 64, V = 49152, R = 16, REPEATS = 9 };

static const struct ops *ops;
static struct device *dev;

static float *values(int64_t n)
{
    float *x = ops->alloc(dev, (size_t)n * sizeof *x);
    if (x == NULL) {
        fprintf(stderr, "no memory for %lld floats\n", (long long)n);
        exit(1);
    }
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((uint32_t)(i * 2654435761u) % 1000) * 0.001f - 0.5f;
    return x;
}

/* The fastest of REPEATS runs of a statement, in seconds. */
#define FASTEST(seconds, statement)                                                                          \
    do {                                                                                                     \
        (seconds) = 1e9;                                                                                     \
        for (int repeat_ = 0; repeat_ < REPEATS; repeat_++) {                                                \
            double start_ = clock_s();                                                                       \
            statement;                                                                                       \
            ops->sync(dev);                                                                                  \
            (seconds) = fmin((seconds), clock_s() - start_);                                                 \
        }                                                                                                    \
    } while (0)

/* The peak of one thread by a device of one thread, times the number of threads. */
static double probe(const struct device_options *options, int n_threads)
{
    const int64_t k = 192, m = 48;
    struct device_options alone = *options;
    struct err err = ERR_INIT;
    alone.n_threads = 1;
    if (ops->open(&dev, &alone, &err) != ST_OK)
        return 0;
    float *a = values(m * k), *b = values(k * 64), *c = values(m * 64);
    double best = 1e9, s;
    for (int i = 0; i < 20; i++) {
        FASTEST(s, for (int j = 0; j < 200; j++)
                       ops->gemm(dev, false, false, m, 64, k, 1, a, k, b, 64, 0, c, 64));
        best = fmin(best, s / 200);
    }
    ops->release(dev, a);
    ops->release(dev, b);
    ops->release(dev, c);
    ops->close(dev);
    return 2.0 * (double)(m * 64 * k) / best * 1e-9 * n_threads;
}

static void line(const char *name, double flops, double seconds, int64_t tokens, double peak)
{
    double rate = flops / seconds * 1e-9;
    printf("%-28s %9.1f us %8.3f us/token", name, seconds * 1e6, seconds * 1e6 / (double)tokens);
    if (flops > 0)
        printf(" %8.1f GFLOP/s  %.2f of the peak", rate, rate / peak);
    printf("\n");
}

/* An operation that moves bytes: read ones and written ones. */
static void line_bytes(const char *name, double n_bytes, double seconds, int64_t tokens, double copy)
{
    double rate = n_bytes / seconds * 1e-9;
    printf("%-28s %9.1f us %8.3f us/token %8.1f GB/s     %.2f of a copy\n", name, seconds * 1e6,
           seconds * 1e6 / (double)tokens, rate, rate / copy);
}

static void bench_weight(int64_t n_out, int64_t n_in, int64_t t, enum dtype dtype, double peak)
{
    struct err err = ERR_INIT;
    float *data = values(n_out * n_in), *x = values(t * n_in), *y = values(t * n_out);
    if (dtype == DT_BF16)
        for (int64_t i = 0; i < n_out * n_in; i++)
            ((uint16_t *)data)[i] = bf16_from_f32(data[i]);
    struct weight w = {.n_out = n_out, .n_in = n_in, .dtype = dtype, .data = data};
    size_t packed_bytes = 0;
    enum status st = ops->weight_bytes(dev, &packed_bytes, n_out, n_in, dtype, &err);
    void *packed = ops->alloc(dev, packed_bytes);
    if (st == ST_OK)
        st = ops->weight_prepare(dev, &w, packed, true, &err);
    if (st != ST_OK) {
        fprintf(stderr, "%s\n", err.what);
        exit(1);
    }
    char name[64];
    double s, flops = 2.0 * (double)(t * n_out * n_in);
    FASTEST(s, ops->linear(dev, y, n_out, x, n_in, &w, t, false));
    snprintf(name, sizeof name, "linear %lld -> %lld", (long long)n_in, (long long)n_out);
    line(name, flops, s, t, peak);
    FASTEST(s, ops->linear_back(dev, x, n_in, y, n_out, &w, t, false));
    snprintf(name, sizeof name, "linear_back %lld <- %lld", (long long)n_in, (long long)n_out);
    line(name, flops, s, t, peak);
    FASTEST(s, ops->linear(dev, y, n_out, x, n_in, &w, 1, false));
    snprintf(name, sizeof name, "linear %lld -> %lld, one", (long long)n_in, (long long)n_out);
    line(name, flops / (double)t, s, 1, peak);
    ops->weight_release(dev, &w);
    ops->release(dev, packed);
    ops->release(dev, data);
    ops->release(dev, x);
    ops->release(dev, y);
}

static void bench_lora(int64_t n_out, int64_t n_in, int64_t t, double peak)
{
    float *x = values(t * n_in), *y = values(t * n_out), *u = values(t * R), *a = values(R * n_in);
    float *b = values(n_out * R);
    double s, in = 2.0 * (double)(t * n_in * R), out = 2.0 * (double)(t * n_out * R);
    printf("LoRA of rank %d on %lld -> %lld\n", R, (long long)n_in, (long long)n_out);
    FASTEST(s, ops->gemm(dev, false, true, t, R, n_in, 1, x, n_in, a, n_in, 0, u, R));
    line("  u = x A^T", in, s, t, peak);
    FASTEST(s, ops->gemm(dev, false, true, t, n_out, R, 0.01f, u, R, b, R, 1, y, n_out));
    line("  y += s u B^T", out, s, t, peak);
    FASTEST(s, ops->gemm(dev, true, false, n_out, R, t, 0.01f, y, n_out, u, R, 1, b, R));
    line("  dB += s dy^T u", out, s, t, peak);
    FASTEST(s, ops->gemm(dev, false, false, t, R, n_out, 1, y, n_out, b, R, 0, u, R));
    line("  du = s dy B", out, s, t, peak);
    FASTEST(s, ops->gemm(dev, true, false, R, n_in, t, 0.01f, u, R, x, n_in, 1, a, n_in));
    line("  dA += du^T x", in, s, t, peak);
    FASTEST(s, ops->gemm(dev, false, false, t, n_in, R, 0.01f, u, R, a, n_in, 1, x, n_in));
    line("  dx += du A", in, s, t, peak);
    float *all[] = {x, y, u, a, b};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        ops->release(dev, all[i]);
}

/* One prefix seen by rows of `row` tokens, or separate rows when prefix is 0. */
static void bench_attention(int64_t t, int32_t prefix, int32_t row, double peak)
{
    struct segment *segments = calloc((size_t)t + 1, sizeof *segments);
    int32_t *positions = malloc((size_t)t * sizeof *positions), n = 0;
    double pairs = 0;
    if (prefix > 0)
        segments[n++] = (struct segment){0, prefix, -1, -1};
    for (int32_t at = prefix; at < t; at += row)
        segments[n++] = (struct segment){at, (int32_t)(t - at < row ? t - at : row), prefix > 0 ? 0 : -1, n};
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < segments[i].n_tokens; j++) {
            positions[segments[i].start + j] = j + (segments[i].parent >= 0 ? prefix : 0);
            pairs += positions[segments[i].start + j] + 1;
        }
    struct attention_shape shape = {t, n, segments, positions, Q, K, D, 0, 0.125f, NULL, 0};
    float *q = values(t * Q * D), *k = values(t * K * D), *v = values(t * K * D), *out = values(t * Q * D);
    float *dq = values(t * Q * D), *dk = values(t * K * D), *dv = values(t * K * D), *lse = values(t * Q);
    char name[64];
    double s, flops = 4.0 * pairs * Q * D;
    FASTEST(s, ops->attention(dev, out, lse, q, k, v, &shape));
    snprintf(name, sizeof name, "attention %d + %d x %d", (int)prefix, (int)(n - (prefix > 0)), (int)row);
    line(name, flops, s, t, peak);
    FASTEST(s, ops->attention_back(dev, dq, dk, dv, q, q, k, v, out, lse, &shape));
    snprintf(name, sizeof name, "attention_back %d + %d x %d", (int)prefix, (int)(n - (prefix > 0)),
             (int)row);
    line(name, 2.5 * flops, s, t, peak);
    float *all[] = {q, k, v, out, dq, dk, dv, lse};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        ops->release(dev, all[i]);
    free(positions);
    free(segments);
}

static void bench_rows(int64_t t, double copy)
{
    float *x = values(t * I), *y = values(t * I), *z = values(t * I), *w = values(I), *inv = values(t);
    float *moment = values(t * I);
    float *table = values(t * D);
    int32_t *positions = ops->alloc(dev, (size_t)t * sizeof *positions);
    const double hidden = 4.0 * (double)(t * H), mlp = 4.0 * (double)(t * I),
                 queries = 4.0 * (double)(t * Q * D);
    const struct adamw step = {1e-4, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.03, 1};
    double s;
    for (int64_t i = 0; i < t; i++)
        positions[i] = (int32_t)i;
    FASTEST(s, ops->rms_norm(dev, y, inv, x, w, t, H, 1e-5f, 0));
    line_bytes("rms_norm", 2 * hidden, s, t, copy);
    FASTEST(s, ops->rms_norm_back(dev, z, y, x, inv, w, t, H, 0, true));
    line_bytes("rms_norm_back", 4 * hidden, s, t, copy);
    FASTEST(s, ops->act_mul(dev, ACT_SILU, y, x, z, t * I));
    line_bytes("act_mul silu", 3 * mlp, s, t, copy);
    FASTEST(s, ops->act_mul(dev, ACT_GELU_TANH, y, x, z, t * I));
    line_bytes("act_mul gelu_tanh", 3 * mlp, s, t, copy);
    FASTEST(s, ops->act_mul_back(dev, ACT_SILU, y, z, y, x, z, t * I));
    line_bytes("act_mul_back silu", 5 * mlp, s, t, copy);
    FASTEST(s, ops->rope(dev, x, t, Q, D, positions, table, false));
    line_bytes("rope of the queries", 2 * queries, s, t, copy);
    FASTEST(s, ops->add(dev, x, y, t * H));
    line_bytes("add", 3 * hidden, s, t, copy);
    FASTEST(s, ops->adamw(dev, y, x, z, moment, t * I, &step));
    line_bytes("adamw", 7 * mlp, s, t, copy);
    float *all[] = {x, y, z, w, inv, moment, table, (float *)positions};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        ops->release(dev, all[i]);
}

static void bench_loss(int64_t rows, double copy)
{
    float *logits = values(rows * V), *loss = values(rows);
    int32_t *labels = ops->alloc(dev, (size_t)rows * sizeof *labels); /* token 0 each */
    int32_t *first = ops->alloc(dev, (size_t)(rows + 1) * sizeof *first);
    double s;
    for (int64_t r = 0; r <= rows; r++)
        first[r] = (int32_t)r;
    FASTEST(s, ops->cross_entropy(dev, logits, V, labels, first, loss, rows, V, 1));
    line_bytes("cross_entropy of 49152", 8.0 * (double)(rows * V), s, rows, copy);
    ops->release(dev, logits);
    ops->release(dev, loss);
    ops->release(dev, labels);
    ops->release(dev, first);
}

/* Bytes a nanosecond, read and written, of a copy as large as the activations of an MLP. */
static double probe_copy(int64_t t)
{
    float *x = values(t * I), *y = values(t * I);
    double s;
    FASTEST(s, ops->copy(dev, y, x, (size_t)(t * I) * sizeof *x));
    ops->release(dev, x);
    ops->release(dev, y);
    return 8.0 * (double)(t * I) / s * 1e-9;
}

int main(int argc, char **argv)
{
    struct device_options options = {.n_threads = argc > 1 ? atoi(argv[1]) : cpu_count(),
                                     .cpu_path = argc > 3 ? argv[3] : "auto",
                                     .compute = argc > 4 && strcmp(argv[4], "bfloat16") == 0 ? COMPUTE_BF16
                                                                                             : COMPUTE_F32};
    enum dtype dtype = argc > 5 && strcmp(argv[5], "bfloat16") == 0 ? DT_BF16 : DT_F32;
    int64_t t = argc > 2 ? atoi(argv[2]) : 1024;
    struct err err = ERR_INIT;
    ops = ops_by_name("cpu");
    double peak = probe(&options, options.n_threads);
    if (ops->open(&dev, &options, &err) != ST_OK || t < 1) {
        fprintf(stderr, "bench_ops: %s\n", t < 1 ? "tokens must be at least 1" : err.what);
        return 2;
    }
    printf("%s; %d threads; %lld tokens; peak of a small float32 product %.1f GFLOP/s\n", ops->describe(dev),
           options.n_threads, (long long)t, peak);
    bench_weight(Q * D, H, t, dtype, peak);
    bench_weight(K * D, H, t, dtype, peak);
    bench_weight(I, H, t, dtype, peak);
    bench_weight(H, I, t, dtype, peak);
    bench_weight(V, H, t < 256 ? t : 256, dtype, peak);
    bench_lora(I, H, t, peak);
    bench_attention(t, 0, 128, peak);
    bench_attention(t, 0, (int32_t)t, peak);
    bench_attention(t, (int32_t)(t / 4), 64, peak);
    double copy = probe_copy(t);
    printf("a copy by one thread: %.1f GB/s\n", copy);
    bench_rows(t, copy);
    bench_loss(t < 128 ? t : 128, copy);
    ops->close(dev);
    return 0;
}
