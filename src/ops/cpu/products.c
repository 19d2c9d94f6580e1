/* Matrix products: work is cut into (row block, column panel) tasks. Since an element's bits do not depend on
 * what is computed beside it (kernels.h), the cut may follow the number of threads; only the summed dimension
 * is cut by its own length alone. */
#include "cpu_internal.h"
#include <omp.h>

enum {
    K_BLOCK = 768,   /* terms summed in registers before the sum is added to c */
    ROW_BLOCK = 240, /* rows of one task, about */
    ROW_STEP = 6,    /* rows of most tiles */
    FEW_ROWS = 32,   /* below, packing a panel costs as much as multiplying by it */
    DIRECT_ROWS = 48 /* with at most so many rows a panel that lies in rows is not worth copying */
};

/* Length of the blocks that k is cut into: nearly equal, a function of k alone. */
static int64_t k_block(int64_t k)
{
    int64_t n_blocks = cpu_blocks(k, K_BLOCK);
    return n_blocks <= 1 ? k : cpu_blocks(cpu_blocks(k, n_blocks), 16) * 16;
}

/* Makes terms [l, l + count) of panel j addressable as rows: in place, or packed into buffer. */
static const float *right_panel(const struct device *dev, const struct right *b, int64_t k, int64_t n,
                                int64_t j, int64_t l, int64_t count, int64_t rows, float *buffer, int64_t *ld)
{
    const struct kernels *kernels = dev->kernels;
    int64_t panel = kernels->panel, columns = cpu_min(n - j * panel, panel);
    *ld = panel;
    switch (b->kind) {
    case RIGHT_PANELS:
        return (const float *)b->data + (j * k + l) * panel;
    case RIGHT_PANELS_BF16:
        kernels->from_bf16(buffer, (const uint16_t *)b->data + (j * k + l) * panel, count * panel);
        return buffer;
    case RIGHT_COLS:
        kernels->pack_cols(buffer, (const float *)b->data + j * panel * b->ld + l, b->ld, count, columns);
        return buffer;
    case RIGHT_ROWS_BF16:
        kernels->pack_rows_bf16(buffer, (const uint16_t *)b->data + l * b->ld + j * panel, b->ld, count,
                                columns);
        return buffer;
    case RIGHT_ROWS:
        break;
    }
    const float *source = (const float *)b->data + l * b->ld + j * panel;
    if (rows <= DIRECT_ROWS || b->ld <= panel) {
        *ld = b->ld;
        return source;
    }
    kernels->pack_rows(buffer, source, b->ld, count, columns);
    return buffer;
}

/* One task: rows of c at p->c, panel j, all of k. */
static void task_run(struct device *dev, int thread, struct product p, const struct right *b, int64_t n,
                     int64_t j)
{
    int64_t panel = dev->kernels->panel, k = p.k, step = k_block(k);
    float *buffer = ops__scratch(dev, thread, (size_t)(step * panel) * sizeof *buffer);
    const float *a = p.a;
    p.c += j * panel;
    p.n = cpu_min(n - j * panel, panel);
    for (int64_t l = 0; l < k; l += step) {
        p.k = cpu_min(k - l, step);
        p.a = a + l * p.a_k;
        p.b = right_panel(dev, b, k, n, j, l, p.k, p.m, buffer, &p.ldb);
        dev->kernels->gemm(&p);
        p.beta = 1;
    }
}

/* Rows of a task. Each thread gets the same share of consecutive rows, as in the row operations, so that what
 * it wrote is still in its own cache; only a handful of rows are shared out by panels alone. */
static int64_t task_rows(const struct device *dev, int64_t m, int64_t panels)
{
    int64_t n_threads = dev->n_threads;
    int64_t blocks = cpu_blocks(cpu_blocks(m, ROW_BLOCK), n_threads) * n_threads;
    if (m < blocks * FEW_ROWS && panels >= 2 * n_threads)
        blocks = cpu_blocks(m, ROW_BLOCK);
    return cpu_blocks(cpu_blocks(m, blocks), ROW_STEP) * ROW_STEP;
}

/* p describes the whole, its b is taken from `right`. */
void cpu__product(struct device *dev, const struct product *p, const struct right *right)
{
    int64_t panels = cpu_blocks(p->n, dev->kernels->panel), rows = task_rows(dev, p->m, panels);
    int64_t row_blocks = cpu_blocks(p->m, rows);
    bool small = p->m * p->n * p->k < CPU_GRAIN_TERMS;
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (!small && panels * row_blocks > 1)
    for (int64_t task = 0; task < panels * row_blocks; task++) {
        int64_t i = task / panels * rows;
        struct product part = *p;
        part.m = cpu_min(p->m - i, rows);
        part.a += i * p->a_row;
        part.c += i * p->ldc;
        task_run(dev, omp_get_thread_num(), part, right, p->n, task % panels);
    }
}

/* alpha a b + beta c with no terms. */
static void scale_only(float *c, int64_t ldc, int64_t m, int64_t n, float beta)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
}

/* The left operand is transposed and the right one narrow (a gradient of a LoRA B): reading a down its
 * columns would touch a cache line a term, so the transposed product is made and turned round. */
static void gemm_turned(struct device *dev, const struct product *p, const struct right *right)
{
    float *turned = ops__scratch(dev, dev->n_threads, (size_t)(p->m * p->n) * sizeof *turned);
    struct product t = {.m = p->n, .n = p->m, .k = p->k, .alpha = p->alpha, .c = turned, .ldc = p->m};
    t.a = right->data;
    t.a_row = right->kind == RIGHT_COLS ? right->ld : 1;
    t.a_k = right->kind == RIGHT_COLS ? 1 : right->ld;
    struct right b = {.kind = RIGHT_ROWS, .data = p->a, .ld = p->a_k};
    cpu__product(dev, &t, &b);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            float *to = p->c + i * p->ldc + j, value = turned[j * p->m + i];
            *to = p->beta == 0 ? value : p->beta * *to + value;
        }
}

void cpu__gemm(struct device *dev, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
               const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (m <= 0 || n <= 0)
        return;
    if (k <= 0) {
        scale_only(c, ldc, m, n, beta);
        return;
    }
    struct product p = {.m = m, .n = n, .k = k, .a = a, .c = c, .ldc = ldc, .alpha = alpha, .beta = beta};
    p.a_row = trans_a ? 1 : lda;
    p.a_k = trans_a ? lda : 1;
    struct right right = {.kind = trans_b ? RIGHT_COLS : RIGHT_ROWS, .data = b, .ld = ldb};
    if (trans_a && n < m)
        gemm_turned(dev, &p, &right);
    else
        cpu__product(dev, &p, &right);
}
