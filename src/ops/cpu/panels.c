/* See panels.h. A block of the result is 256 columns by at most 512 rows, so that the right operand's share
 * stays in the second-level cache. The left panel of 32 rows is read once for each 32 columns and must stay
 * in the first-level cache: the summed dimension is cut into passes of at most 640 terms, and sums wait
 * between them in a buffer of their own. Where the cuts lie changes no bits (tiles.h). */
#include "panels.h"
#include "cpu_internal.h"
#include <omp.h>

enum {
    BLOCK_ROWS = 512,    /* at most */
    BLOCK_COLUMNS = 256, /* at most */
    PASS_STEPS = 640 / STEP,
    SHORT_STEPS = 1024 / STEP, /* up to here a block's right operand is in the cache over all passes */
    TASKS_A_THREAD = 3         /* about: with fewer, a busy core holds up the others for long */
};

/* How a job is cut: blocks, and the rows and columns of one, whole panels. */
struct cut {
    int64_t row_blocks, column_blocks, rows, columns;
    int64_t n_steps; /* of all terms */
};

/* Blocks no larger than the caches want, and at least `wanted` of them as far as there are panels. One more
 * block of rows reads the right operand once more, one more of columns the left one: the smaller of them. */
static struct cut cut_of(const struct panels_job *job, int64_t wanted)
{
    int64_t row_panels = panels_of(job->m), column_panels = panels_of(job->n);
    struct cut c = {.row_blocks = cpu_blocks(job->m, BLOCK_ROWS),
                    .column_blocks = cpu_blocks(job->n, BLOCK_COLUMNS)};
    while (c.row_blocks * c.column_blocks < wanted) {
        bool rows = c.row_blocks < row_panels && (job->n <= job->m || c.column_blocks == column_panels);
        if (!rows && c.column_blocks == column_panels)
            break;
        *(rows ? &c.row_blocks : &c.column_blocks) += 1;
    }
    c.rows = cpu_blocks(row_panels, c.row_blocks) * PANEL;
    c.columns = cpu_blocks(column_panels, c.column_blocks) * PANEL;
    c.row_blocks = cpu_blocks(job->m, c.rows);
    c.column_blocks = cpu_blocks(job->n, c.columns);
    for (int t = 0; t < job->n_terms; t++)
        c.n_steps += tiles_steps(job->terms[t].k);
    return c;
}

/* The runs of steps [from, to) of rows i of a job; right panels are those of column 0, their strides apart.
 */
static int runs_of(struct panel_run *runs, int64_t *strides, const struct panels_job *job, int64_t i,
                   int64_t from, int64_t to)
{
    int n = 0;
    int64_t first = 0;
    for (int t = 0; t < job->n_terms; t++) {
        const struct panels_term *term = &job->terms[t];
        int64_t steps = tiles_steps(term->k), low = from > first ? from : first,
                high = cpu_min(to, first + steps);
        if (low < high) {
            int64_t skip = (low - first) * STEP_ELEMENTS, panel = steps * STEP_ELEMENTS;
            const uint16_t *left = term->left + i / PANEL * panel + skip;
            runs[n] = (struct panel_run){left, term->right + skip, high - low};
            strides[n++] = panel;
        }
        first += steps;
    }
    return n;
}

struct block {
    int64_t row, row_end, column, column_end;
};

/* Steps [from, to) of n_steps of the rows and columns of a block; between passes the sums are in parked. */
static void pass_run(const struct tiles *tiles, const struct panels_job *job, const struct block *b,
                     int64_t from, int64_t to, int64_t n_steps, float *parked)
{
    for (int64_t i = b->row; i < b->row_end; i += PANEL) {
        struct panel_run runs[PANELS_MAX_TERMS];
        int64_t strides[PANELS_MAX_TERMS];
        struct panel_product p = {.runs = runs, .rows = (int)cpu_min(b->row_end - i, PANEL)};
        p.n_runs = runs_of(runs, strides, job, i, from, to);
        for (int r = 0; r < p.n_runs; r++)
            runs[r].right += b->column / PANEL * strides[r];
        const uint16_t *soon = runs[0].left + (i + PANEL < b->row_end ? strides[0] : 0);
        for (int64_t j = b->column; j < b->column_end; j += PANEL) {
            float *c = job->c + i * job->ldc + j;
            p.columns = (int)cpu_min(b->column_end - j, PANEL);
            p.in = from > 0 ? parked : job->base != NULL ? job->base + i * job->ldbase + j : NULL;
            p.ld_in = from > 0 ? PANEL : job->ldbase;
            p.out = to < n_steps ? parked : c;
            p.ld_out = to < n_steps ? PANEL : job->ldc;
            p.soon = soon;
            tiles->product(&p);
            soon += (to - from) * 128;
            for (int r = 0; r < p.n_runs; r++)
                runs[r].right += strides[r];
            if (from > 0 || to < n_steps)
                parked += PANEL * PANEL;
        }
    }
}

static void block_run(struct device *dev, const struct panels_job *job, const struct cut *cut,
                      const struct block *block)
{
    int64_t passes = cpu_blocks(cut->n_steps, PASS_STEPS), length = cpu_blocks(cut->n_steps, passes);
    int64_t at_once = cut->n_steps <= SHORT_STEPS ? PANEL : BLOCK_ROWS;
    float *parked = NULL;
    if (passes > 1)
        parked = ops__scratch(dev, omp_get_thread_num(),
                              (size_t)(cpu_min(at_once, BLOCK_ROWS) * BLOCK_COLUMNS) * sizeof *parked);
    for (int64_t i = block->row; i < block->row_end; i += at_once) {
        struct block part = *block;
        part.row = i;
        part.row_end = cpu_min(block->row_end, i + at_once);
        for (int64_t s = 0; s < cut->n_steps; s += length)
            pass_run(dev->tiles, job, &part, s, cpu_min(s + length, cut->n_steps), cut->n_steps, parked);
    }
}

/* Task `task` of the job, counted along the rows of blocks. */
static void task_run(struct device *dev, const struct panels_job *job, const struct cut *cut, int64_t task)
{
    struct block b = {.row = task / cut->column_blocks * cut->rows,
                      .column = task % cut->column_blocks * cut->columns};
    b.row_end = cpu_min(job->m, b.row + cut->rows);
    b.column_end = cpu_min(job->n, b.column + cut->columns);
    block_run(dev, job, cut, &b);
}

/* Tasks that job i is to be cut into: its share, by its part of the columns. */
static int64_t tasks_wanted(const struct device *dev, const struct panels_job *jobs, int n_jobs, int i)
{
    int64_t columns = 0;
    for (int j = 0; j < n_jobs; j++)
        columns += jobs[j].n;
    if (dev->n_threads == 1)
        return 1;
    return cpu_blocks(TASKS_A_THREAD * dev->n_threads * jobs[i].n, columns);
}

void cpu__panels_jobs(struct device *dev, const struct panels_job *jobs, int n_jobs, bool nowait)
{
    int64_t n_tasks = 0;
    struct cut cuts[PANELS_MAX_JOBS] = {{0}};
    for (int i = 0; i < n_jobs; i++) {
        cuts[i] = cut_of(&jobs[i], tasks_wanted(dev, jobs, n_jobs, i));
        n_tasks += cuts[i].row_blocks * cuts[i].column_blocks;
    }
#pragma omp for schedule(dynamic) nowait
    for (int64_t task = 0; task < n_tasks; task++) {
        int64_t own = task;
        int i = 0;
        for (; i < n_jobs - 1 && own >= cuts[i].row_blocks * cuts[i].column_blocks; i++)
            own -= cuts[i].row_blocks * cuts[i].column_blocks;
        task_run(dev, &jobs[i], &cuts[i], own);
    }
    if (!nowait) {
#pragma omp barrier
    }
}

void cpu__panels_pack(struct device *dev, const struct panels_matrix *to, const uint16_t *w, int64_t ld,
                      bool turned)
{
    int64_t elements = tiles_panel_elements(to->k);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static)
    for (int64_t j = 0; j < panels_of(to->n); j++) {
        int64_t columns = cpu_min(to->n - j * PANEL, PANEL);
        if (turned)
            dev->tiles->copy_right_turned(to->panels + j * elements, w + j * PANEL * ld, ld, columns, to->k);
        else
            dev->tiles->copy_right(to->panels + j * elements, w + j * PANEL, ld, columns, to->k);
    }
}

void cpu__panels_product(struct device *dev, float *c, int64_t ldc, const float *x, int64_t ldx, int64_t m,
                         const struct panels_matrix *b, bool accumulate)
{
    int64_t elements = tiles_panel_elements(b->k);
    uint16_t *left = ops__scratch(dev, dev->n_threads, panels_elements(m, b->k) * sizeof *left);
    struct panels_job job = {.m = m, .n = b->n, .c = c, .ldc = ldc, .n_terms = 1};
    if (accumulate)
        job.base = c, job.ldbase = ldc;
    job.terms[0] = (struct panels_term){left, b->panels, b->k};
    bool large = m * b->n * b->k > CPU_GRAIN_TERMS;
#pragma omp parallel num_threads(dev->n_threads) if (large)
    {
        dev->tiles->begin();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < panels_of(m); i++)
            dev->tiles->pack_left(left + i * elements, x + i * PANEL * ldx, ldx,
                                  cpu_min(m - i * PANEL, PANEL), b->k, 1);
        cpu__panels_jobs(dev, &job, 1, true);
        dev->tiles->end();
    }
}
