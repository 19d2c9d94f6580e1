/* Matrix products: work is cut into tasks of (row block, range of column panels). Since an element's bits do
 * not depend on what is computed beside it (kernels.h), the cut may follow the number of threads; only the
 * summed dimension is cut by its own length alone. */
#include "cpu_internal.h"
#include <omp.h>

enum {
    K_BLOCK = 384,    /* terms summed in registers before the sum is added to c */
    ROW_BLOCK = 360,  /* rows of one task, about: the terms of a block stay in the second-level cache */
    ROW_STEP = 12,    /* rows of most tiles */
    FEW_ROWS = 128,   /* with fewer rows a thread, threads share panels out, so that each is fetched once */
    DIRECT_ROWS = 48, /* with at most so many rows a panel that lies in rows is not worth copying */
    WIDEST_PANEL = 64,
    SMALL = 64 /* columns or terms of a right operand that is packed whole */
};

/* Length of the blocks that k is cut into: nearly equal, a function of k alone. */
static int64_t k_block(int64_t k)
{
    int64_t n_blocks = cpu_blocks(k, K_BLOCK);
    return n_blocks <= 1 ? k : cpu_blocks(cpu_blocks(k, n_blocks), 16) * 16;
}

/* Terms [l, l + count) of panel j out of panels of the transposed operand, block by block. */
static void turn_panels(const struct kernels *kernels, const struct right *b, int64_t n, int64_t j, int64_t l,
                        int64_t count, float *buffer)
{
    float widened[WIDEST_PANEL * WIDEST_PANEL];
    const int64_t panel = kernels->panel, first = j * panel, columns = cpu_min(n - first, panel);
    for (int64_t at = l, terms; at < l + count; at += terms) {
        const int64_t skip = at % panel, block = (at / panel * n + first) * panel;
        const float *source = (const float *)b->data + block;
        terms = cpu_min(panel - skip, l + count - at);
        if (b->kind == RIGHT_TURNED_BF16) {
            kernels->from_bf16(widened, (const uint16_t *)b->data + block, columns * panel);
            source = widened;
        }
        kernels->transpose(buffer + (at - l) * panel, panel, source + skip, panel, columns, terms);
    }
}

/* Makes terms [l, l + count) of panel j addressable as rows: in place, or packed into buffer. A product of
 * few columns gets a narrow panel: the unused part of a wide one would only dilute the cache. */
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
        *ld = cpu_min(cpu_blocks(columns, 16) * 16, panel);
        kernels->transpose(buffer, *ld, (const float *)b->data + j * panel * b->ld + l, b->ld, columns,
                           count);
        return buffer;
    case RIGHT_TURNED:
    case RIGHT_TURNED_BF16:
        turn_panels(kernels, b, n, j, l, count, buffer);
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

/* Rows of c at p->c, panels [from, to), all of k. Panels are innermost, so that the terms of a block stay in
 * the second-level cache; for a handful of rows the terms are, so that b is one stream. */
static void blocks_run(struct device *dev, float *buffer, const struct product *p, const struct right *b,
                       int64_t from, int64_t to)
{
    const int64_t panel = dev->kernels->panel, step = k_block(p->k), n_steps = cpu_blocks(p->k, step),
                  n_panels = to - from;
    const bool by_panel = p->m < ROW_STEP;
    for (int64_t q = 0; q < n_steps * n_panels; q++) {
        int64_t l = (by_panel ? q % n_steps : q / n_panels) * step;
        int64_t j = from + (by_panel ? q / n_steps : q % n_panels);
        struct product part = *p;
        part.n = cpu_min(p->n - j * panel, panel);
        part.k = cpu_min(p->k - l, step);
        part.a += l * p->a_k;
        part.b = right_panel(dev, b, p->k, p->n, j, l, part.k, p->m, buffer, &part.ldb);
        part.c += (j - from) * panel;
        part.beta = l == 0 ? p->beta : 1;
        dev->kernels->gemm(&part);
    }
}

/* How a product is cut: row blocks of `rows`, column ranges of `panels` panels. */
struct cut {
    int64_t rows, n_rows, panels, n_ranges;
    bool alone; /* too little for a second thread */
};

/* Each thread gets the same share of consecutive rows, as in the row operations, so that what it wrote is
 * still in its own cache; few rows are shared out by columns. */
static struct cut cut_of(const struct device *dev, const struct product *p)
{
    const int64_t n_threads = dev->n_threads, panels = cpu_blocks(p->n, dev->kernels->panel);
    struct cut cut = {.panels = panels, .n_ranges = 1};
    cut.alone = p->m * p->n * p->k < CPU_GRAIN_TERMS;
    cut.n_rows = cpu_blocks(cpu_blocks(p->m, ROW_BLOCK), n_threads) * n_threads;
    if (!cut.alone && p->m < cut.n_rows * FEW_ROWS && panels >= 2 * n_threads) {
        cut.n_rows = cpu_blocks(p->m, ROW_BLOCK);
        cut.panels = cpu_blocks(panels, n_threads);
        cut.n_ranges = cpu_blocks(panels, cut.panels);
    }
    cut.rows = cpu_blocks(cpu_blocks(p->m, cut.n_rows), ROW_STEP) * ROW_STEP;
    cut.n_rows = cpu_blocks(p->m, cut.rows);
    return cut;
}

/* p describes the whole, its b is taken from `right`. */
void cpu__product(struct device *dev, const struct product *p, const struct right *right)
{
    const struct cut cut = cut_of(dev, p);
    const int64_t panel = dev->kernels->panel, panels = cpu_blocks(p->n, panel);
    const size_t buffer_bytes = (size_t)(k_block(p->k) * panel) * sizeof(float);
#pragma omp parallel for num_threads(dev->n_threads)                                                         \
    schedule(static) if (!cut.alone && cut.n_ranges * cut.n_rows > 1)
    for (int64_t task = 0; task < cut.n_ranges * cut.n_rows; task++) {
        int64_t i = task % cut.n_rows * cut.rows, from = task / cut.n_rows * cut.panels;
        struct product part = *p;
        part.m = cpu_min(p->m - i, cut.rows);
        part.a += i * p->a_row;
        part.c += i * p->ldc + from * panel;
        blocks_run(dev, ops__scratch(dev, omp_get_thread_num(), buffer_bytes), &part, right, from,
                   cpu_min(from + cut.panels, panels));
    }
}

/* alpha a b + beta c with no terms. */
static void scale_only(float *c, int64_t ldc, int64_t m, int64_t n, float beta)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
}

/* Panel j of b, all terms, into `to` [k][panel]. */
static void pack_whole(const struct device *dev, float *to, const struct product *p, const struct right *b,
                       int64_t j)
{
    const int64_t panel = dev->kernels->panel, columns = cpu_min(p->n - j * panel, panel);
    const float *from = b->data;
    if (b->kind == RIGHT_COLS)
        dev->kernels->transpose(to, p->ldb, from + j * panel * b->ld, b->ld, columns, p->k);
    else
        dev->kernels->pack_rows(to, from + j * panel, b->ld, p->k, columns);
}

/* Rows of c at p->c, by strips of one tile: all terms and all panels of a strip, so that rows of a (long when
 * n is small) and of c (when k is) are each walked once and along themselves. */
static void strips_run(const struct device *dev, const struct product *p)
{
    const int64_t step = k_block(p->k);
    for (int64_t i = 0; i < p->m; i += ROW_STEP)
        for (int64_t l = 0; l < p->k; l += step) {
            struct product part = *p;
            part.m = cpu_min(p->m - i, ROW_STEP);
            part.k = cpu_min(p->k - l, step);
            part.a += i * p->a_row + l * p->a_k;
            part.b += l * p->ldb;
            part.c += i * p->ldc;
            part.beta = l == 0 ? p->beta : 1;
            dev->kernels->gemm(&part);
        }
}

/* A small right operand (a LoRA's A or B): packed once, by all threads; then rows are shared out. */
static void gemm_small_right(struct device *dev, struct product p, const struct right *right)
{
    const int64_t panel = dev->kernels->panel, panels = cpu_blocks(p.n, panel);
    const int64_t rows = cpu_blocks(cpu_blocks(p.m, dev->n_threads), ROW_STEP) * ROW_STEP;
    const int64_t n_rows = cpu_blocks(p.m, rows);
    const bool as_it_is = right->kind == RIGHT_ROWS && right->ld <= panel;
    /* A narrow panel where n is small: the unused part of a wide one would only dilute the cache. */
    p.ldb = as_it_is                    ? right->ld
            : right->kind == RIGHT_COLS ? cpu_min(cpu_blocks(p.n, 16) * 16, panel)
                                        : panel;
    p.b_panel = p.k * p.ldb;
    float *packed =
        as_it_is ? NULL : ops__scratch(dev, dev->n_threads, (size_t)(panels * p.b_panel) * sizeof *packed);
    p.b = as_it_is ? right->data : packed;
#pragma omp parallel num_threads(dev->n_threads) if (p.m * p.n * p.k >= CPU_GRAIN_TERMS && n_rows > 1)
    {
        if (!as_it_is) {
#pragma omp for schedule(static)
            for (int64_t j = 0; j < panels; j++)
                pack_whole(dev, packed + j * p.b_panel, &p, right, j);
        }
#pragma omp for schedule(static)
        for (int64_t block = 0; block < n_rows; block++) {
            struct product part = p;
            part.m = cpu_min(p.m - block * rows, rows);
            part.a += block * rows * p.a_row;
            part.c += block * rows * p.ldc;
            strips_run(dev, &part);
        }
    }
}

/* c = beta c + the transpose of turned [n, ld], m rows of n elements. */
static void turn_back(const struct device *dev, float *c, int64_t ldc, const float *turned, int64_t ld,
                      int64_t m, int64_t n, float beta)
{
    enum { AT_ONCE = 16, COLUMNS = 128 };
    float block[AT_ONCE * COLUMNS];
    for (int64_t i = 0; i < m; i += AT_ONCE)
        for (int64_t j = 0; j < n; j += COLUMNS) {
            int64_t rows = cpu_min(m - i, AT_ONCE), columns = cpu_min(n - j, COLUMNS);
            dev->kernels->transpose(block, columns, turned + j * ld + i, ld, columns, rows);
            for (int64_t r = 0; r < rows; r++) {
                float *to = c + (i + r) * ldc + j;
                const float *value = block + r * columns;
                if (beta == 0)
                    for (int64_t x = 0; x < columns; x++)
                        to[x] = value[x];
                else
                    for (int64_t x = 0; x < columns; x++)
                        to[x] = beta * to[x] + value[x];
            }
        }
}

/* The left operand is transposed and the right one narrow (a gradient of a LoRA B): reading a down its
 * columns would touch a cache line a term, so the transposed product is made and turned round, by the thread
 * that has it in its cache. */
static void gemm_turned(struct device *dev, const struct product *p, const struct right *right)
{
    struct product t = {.m = p->n, .n = p->m, .k = p->k, .alpha = p->alpha, .a = right->data};
    t.a_row = right->kind == RIGHT_COLS ? right->ld : 1;
    t.a_k = right->kind == RIGHT_COLS ? 1 : right->ld;
    const struct right b = {.kind = RIGHT_ROWS, .data = p->a, .ld = p->a_k};
    const int64_t panel = dev->kernels->panel, panels = cpu_blocks(t.n, panel);
    const bool alone = p->m * p->n * p->k < CPU_GRAIN_TERMS;
    const int64_t each = cpu_blocks(panels, alone ? 1 : dev->n_threads), n_ranges = cpu_blocks(panels, each);
    const int64_t buffer = k_block(p->k) * panel;
    const size_t scratch_bytes = (size_t)(buffer + t.m * each * panel) * sizeof(float);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (n_ranges > 1)
    for (int64_t range = 0; range < n_ranges; range++) {
        int64_t from = range * each, to = cpu_min(from + each, panels), first = from * panel;
        float *scratch = ops__scratch(dev, omp_get_thread_num(), scratch_bytes);
        struct product part = t;
        part.c = scratch + buffer;
        part.ldc = each * panel;
        blocks_run(dev, scratch, &part, &b, from, to);
        turn_back(dev, p->c + first * p->ldc, p->ldc, part.c, part.ldc, cpu_min(t.n - first, each * panel),
                  p->n, p->beta);
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
    else if ((k <= SMALL || n <= SMALL) && m >= 2 * ROW_STEP && !trans_a)
        gemm_small_right(dev, p, &right);
    else
        cpu__product(dev, &p, &right);
}
