/* See panels.h. A block of the result is 256 columns by at most 512 rows, so that the right operand's share
 * stays in the second-level cache, turned or not. The left panel of 32 rows is read once for each 32 columns
 * and must stay in the first-level cache: the summed dimension is cut into passes of at most 640 terms, and
 * sums wait between them in a buffer of their own. Where the cuts lie changes no bits (tiles.h). */
#include "panels.h"
#include "cpu_internal.h"
#include "util/dtype.h"
#include <omp.h>
#include <string.h>

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

/* Jobs that are computed together. */
static int members_of(const struct panels_job *job)
{
    return job->beside != NULL ? 2 : 1;
}

static bool any_turned(const struct panels_job *job)
{
    for (int t = 0; t < job->n_terms; t++)
        if (job->terms[t].turned)
            return true;
    return false;
}

/* Rows and columns of operands that are read when a job is cut into so many blocks: a row of blocks reads the
 * right operand once more, and turns it where it is to be, a column of blocks the left one. */
static int64_t rows_read(const struct panels_job *job, int64_t row_blocks, int64_t column_blocks)
{
    return column_blocks * job->m + row_blocks * job->n * (any_turned(job) ? 2 : 1);
}

/* Blocks no larger than the caches want, and at least `wanted` of them as far as there are panels: the way
 * that reads least. */
static struct cut cut_of(const struct panels_job *job, int64_t wanted)
{
    const int64_t row_panels = panels_of(job->m), column_panels = panels_of(job->n);
    const int64_t row_least = cpu_blocks(job->m, BLOCK_ROWS);
    const int64_t column_least = cpu_blocks(job->n, BLOCK_COLUMNS / members_of(job));
    struct cut c = {0};
    for (int64_t rows = row_least; rows <= row_panels && rows <= row_least + wanted; rows++) {
        int64_t columns = cpu_blocks(wanted, rows);
        columns = columns < column_least ? column_least : cpu_min(columns, column_panels);
        bool enough = rows * columns >= wanted || (rows == row_panels && columns == column_panels);
        if (enough && (c.row_blocks == 0 ||
                       rows_read(job, rows, columns) < rows_read(job, c.row_blocks, c.column_blocks)))
            c.row_blocks = rows, c.column_blocks = columns;
    }
    if (c.row_blocks == 0) /* fewer panels than wanted */
        c.row_blocks = row_panels, c.column_blocks = column_panels;
    c.rows = cpu_blocks(row_panels, c.row_blocks) * PANEL;
    c.columns = cpu_blocks(column_panels, c.column_blocks) * PANEL;
    c.row_blocks = cpu_blocks(job->m, c.rows);
    c.column_blocks = cpu_blocks(job->n, c.columns);
    for (int t = 0; t < job->n_terms; t++)
        c.n_steps += tiles_steps(job->terms[t].k);
    return c;
}

/* Steps [from, to) of all terms of a job. */
struct steps {
    int64_t from, to;
};

/* Those of `steps` that are term t's, which begins at step `first`, counted in the term. */
static bool steps_of_term(const struct panels_job *job, int t, int64_t first, const struct steps *steps,
                          struct steps *own)
{
    own->from = steps->from > first ? steps->from - first : 0;
    own->to = cpu_min(steps->to - first, tiles_steps(job->terms[t].k));
    return own->from < own->to;
}

struct block {
    int64_t row, row_end, column, column_end;
};

/* Right operands that stand turned, of a block's columns: step s of column panel j of the block, counted over
 * all terms, at ((j * (steps.to - steps.from)) + s - steps.from) * STEP_ELEMENTS. The places of other terms
 * stay empty. */
struct turned {
    uint16_t *memory;
    struct steps steps;
};

/* Place of a step of column panel 0; `stride` to the next panel. */
static uint16_t *turned_at(const struct turned *t, int64_t step, int64_t *stride)
{
    *stride = (t->steps.to - t->steps.from) * STEP_ELEMENTS;
    return t->memory + (step - t->steps.from) * STEP_ELEMENTS;
}

/* Turning a step takes less time than its way from memory. Inlined always: the compiler leaves out calls of
 * functions that do nothing but this. */
static inline __attribute__((always_inline)) void fetch_step(const uint16_t *step)
{
    enum { LINE = 64 / sizeof *step };
    for (int i = 0; i < STEP_ELEMENTS; i += LINE)
        __builtin_prefetch(step + i, 0, 2);
}

static void turn(const struct tiles *tiles, const struct panels_job *job, const struct block *b,
                 const struct turned *turned)
{
    int64_t first = 0, stride, panel = b->column / PANEL, n = panels_of(b->column_end - b->column);
    for (int t = 0; t < job->n_terms; first += tiles_steps(job->terms[t++].k)) {
        const struct panels_term *term = &job->terms[t];
        struct steps own;
        if (!term->turned || !steps_of_term(job, t, first, &turned->steps, &own))
            continue;
        /* A step of terms is a panel of the transposed operand, and a panel of columns a step of that. */
        for (int64_t s = own.from; s < own.to; s++) {
            uint16_t *to = turned_at(turned, first + s, &stride);
            const uint16_t *from = term->right + (s * tiles_steps(job->n) + panel) * STEP_ELEMENTS;
            for (int64_t j = 0; j < n; j++) {
                if (s + 1 < own.to)
                    fetch_step(from + (tiles_steps(job->n) + j) * STEP_ELEMENTS);
                tiles->turn_right(to + j * stride, from + j * STEP_ELEMENTS);
            }
        }
    }
}

/* What is multiplied for one panel of rows: runs, and their strides from one panel of columns to
 * the next. */
struct runs {
    struct panel_run items[PANELS_MAX_TERMS];
    int64_t strides[PANELS_MAX_TERMS];
    bool turned; /* the first one's right operand: it is in the cache */
    int n;
};

/* `steps` of rows i of a job; right panels are those of the block's first column. */
static void runs_of(struct runs *runs, const struct panels_job *job, const struct block *b,
                    const struct turned *turned, int64_t i, const struct steps *steps)
{
    int64_t first = 0;
    runs->n = 0;
    for (int t = 0; t < job->n_terms; first += tiles_steps(job->terms[t++].k)) {
        const struct panels_term *term = &job->terms[t];
        struct steps own;
        if (!steps_of_term(job, t, first, steps, &own))
            continue;
        int64_t skip = own.from * STEP_ELEMENTS, panel = tiles_panel_elements(term->k);
        int64_t *stride = &runs->strides[runs->n];
        struct panel_run *run = &runs->items[runs->n];
        *stride = panel;
        run->left = term->left + i / PANEL * panel + skip;
        run->n_steps = own.to - own.from;
        run->padding = own.to == tiles_steps(term->k) ? tiles_padding(term->k) : 0;
        if (term->turned)
            run->right = turned_at(turned, first + own.from, stride);
        else
            run->right = term->right + b->column / PANEL * panel + skip;
        if (runs->n++ == 0)
            runs->turned = term->turned;
    }
}

/* Right operands on their way into the second-level cache: of each term some chunks of memory. */
struct ahead {
    struct chunks {
        const char *first;
        int64_t bytes, stride, n;
    } terms[PANELS_MAX_TERMS];
    int n_terms, term;
    int64_t chunk, at; /* where it stands in the term, and in the chunk */
};

/* Steps of the columns of a block. */
static void ahead_of(struct ahead *a, const struct panels_job *job, const struct block *b,
                     const struct steps *steps)
{
    int64_t first = 0, n = panels_of(b->column_end - b->column), panel = b->column / PANEL;
    *a = (struct ahead){0};
    for (int t = 0; t < job->n_terms; first += tiles_steps(job->terms[t++].k)) {
        const struct panels_term *term = &job->terms[t];
        struct chunks *c = &a->terms[a->n_terms];
        struct steps own;
        int64_t elements = tiles_panel_elements(term->k), step = STEP_ELEMENTS * (int64_t)sizeof *term->right;
        if (!steps_of_term(job, t, first, steps, &own))
            continue;
        a->n_terms++;
        if (term->turned)
            *c = (struct chunks){
                .first =
                    (const char *)(term->right + (own.from * tiles_steps(job->n) + panel) * STEP_ELEMENTS),
                .bytes = n * step,
                .stride = tiles_steps(job->n) * step,
                .n = own.to - own.from};
        else
            *c = (struct chunks){
                .first = (const char *)(term->right + panel * elements + own.from * STEP_ELEMENTS),
                .bytes = (own.to - own.from) * step,
                .stride = elements * (int64_t)sizeof *term->right,
                .n = n};
    }
}

/* What comes next of it, and n_bytes further; NULL: all was asked for. */
static const char *ahead_take(struct ahead *a, int64_t n_bytes)
{
    if (a == NULL || a->term == a->n_terms)
        return NULL;
    const struct chunks *c = &a->terms[a->term];
    const char *from = c->first + a->chunk * c->stride + a->at;
    a->at += n_bytes;
    if (a->at >= c->bytes) {
        a->at = 0;
        if (++a->chunk == c->n) {
            a->chunk = 0;
            a->term++;
        }
    }
    return from;
}

/* Sums that are finished while the next ones are made. */
struct pending {
    const struct panels_job *job;
    int parts, now; /* how many are left of the pending tile; which of the two the next sums are */
    struct panels_tile tiles[2];
    float sums[2][2][PANEL * PANEL] __attribute__((aligned(64)));
};

static void pending_part(void *of)
{
    struct pending *pending = of;
    int part = PARTS - pending->parts--;
    pending->job->finish(pending->job->to, &pending->tiles[!pending->now], part);
}

static void pending_finish(struct pending *pending)
{
    while (pending->parts > 0)
        pending_part(pending);
}

/* Where a pass stands: the panels of rows and columns, and the next product. What is written just before a
 * product is read by it as it was written, value by value: a load of two that were stored one by one waits
 * for all older stores, results on their way to memory. */
struct pass {
    const struct panels_job *job;
    int64_t n_steps;
    bool first, last;
    struct runs runs[2]; /* of the job, and of the one beside it */
    struct panel_product product;
    struct ahead *ahead; /* right ones after this pass, or NULL */
    float *parked;       /* sums between passes; NULL: there is one pass */
    struct pending *pending;
};

/* Sums of one job of the panels at row i and column j, from where the pass before left them to where they go:
 * to `finished` if they do. */
static void product_run(const struct tiles *tiles, struct pass *at, int member, int64_t i, int64_t j,
                        bool fetch_right, float *finished)
{
    const struct panels_job *job = member == 0 ? at->job : at->job->beside;
    struct runs *runs = &at->runs[member];
    struct panel_product *p = &at->product;
    p->runs = runs->items;
    p->in = !at->first ? at->parked : job->base != NULL ? job->base + i * job->ldbase + j : NULL;
    p->out = !at->last ? at->parked : finished != NULL ? finished : job->c + i * job->ldc + j;
    p->soon_right = fetch_right && !runs->turned ? runs->items[0].right + runs->strides[0] : NULL;
    p->ahead = ahead_take(at->ahead, at->n_steps * AHEAD_BYTES);
    /* Shared out among the products up to the next tile's. */
    p->n_parts = member + 1 == members_of(at->job) ? at->pending->parts : at->pending->parts / 2;
    tiles->product(p);
    for (int r = 0; r < runs->n; r++)
        runs->items[r].right += runs->strides[r];
    if (at->parked != NULL)
        at->parked += PANEL * PANEL;
}

/* The same for sums that are finished here. */
static void tile_run(const struct tiles *tiles, struct pass *at, int64_t i, int64_t j, bool fetch_right)
{
    const struct panel_product *p = &at->product;
    struct pending *pending = at->pending;
    float(*sums)[PANEL * PANEL] = pending->sums[pending->now];
    struct panels_tile *t = &pending->tiles[pending->now];
    t->row = i;
    t->column = j;
    t->rows = p->rows;
    t->columns = p->columns;
    t->sums[0] = sums[0];
    t->sums[1] = sums[1];
    if (at->job->before != NULL)
        at->job->before(at->job->to, t);
    if (p->rows < PANEL || p->columns < PANEL)
        memset(sums, 0, 2 * sizeof *sums);
    for (int m = 0; m < members_of(at->job); m++)
        product_run(tiles, at, m, i, j, fetch_right, sums[m]);
    pending->parts = PARTS;
    pending->now = !pending->now;
}

/* Some steps of the rows and columns of a block; between passes the sums are in parked. */
static void pass_run(const struct tiles *tiles, const struct panels_job *job, const struct block *b,
                     const struct turned *turned, const struct steps *steps, int64_t n_steps, float *parked,
                     struct ahead *ahead, struct pending *pending)
{
    const int members = members_of(job);
    struct pass at = {
        .job = job, .n_steps = steps->to - steps->from, .parked = parked, .ahead = ahead, .pending = pending};
    struct panel_product *p = &at.product;
    at.first = steps->from == 0;
    at.last = steps->to == n_steps;
    p->ld_in = at.first ? job->ldbase : PANEL;
    p->ld_out = at.last && job->finish == NULL ? job->ldc : PANEL;
    p->of = pending;
    p->meanwhile = pending_part;
    for (int64_t i = b->row; i < b->row_end; i += PANEL) {
        struct runs *runs = &at.runs[0];
        runs_of(runs, job, b, turned, i, steps);
        if (members > 1)
            runs_of(&at.runs[1], job->beside, b, turned, i, steps);
        p->n_runs = runs->n;
        p->rows = cpu_min(b->row_end - i, PANEL);
        for (int64_t j = b->column; j < b->column_end; j += PANEL) {
            /* The block's first rows wait for the right panels, the others find them in the cache. */
            bool fetch_right = i == b->row && j + PANEL < job->n;
            p->columns = cpu_min(b->column_end - j, PANEL);
            if (at.last && job->finish != NULL)
                tile_run(tiles, &at, i, j, fetch_right);
            else
                for (int m = 0; m < members; m++)
                    product_run(tiles, &at, m, i, j, fetch_right, NULL);
        }
    }
}

/* A block, and the columns that the thread will probably multiply next, or none. */
struct task {
    const struct panels_job *job, *next_job;
    const struct cut *cut, *next_cut;
    struct block block, next;
};

/* A short sum runs panel of rows by panel of rows, all its passes at once, and what is turned is turned
 * before; a long one pass by pass. */
static bool is_short(const struct cut *cut)
{
    return cut->n_steps <= SHORT_STEPS;
}
/* Steps of a pass. */
static int64_t pass_steps(const struct cut *cut)
{
    return cpu_blocks(cut->n_steps, cpu_blocks(cut->n_steps, PASS_STEPS));
}

/* What the thread multiplies after the pass to step `to`. */
static struct ahead *ahead_open(struct ahead *a, const struct task *t, int64_t to)
{
    const struct cut *cut = to < t->cut->n_steps ? t->cut : t->next_cut;
    struct steps steps = {to < t->cut->n_steps ? to : 0, 0};
    if (to == t->cut->n_steps && t->next_job == NULL)
        return NULL;
    steps.to = cpu_min(steps.from + (is_short(cut) ? cut->n_steps : pass_steps(cut)), cut->n_steps);
    if (to < t->cut->n_steps)
        ahead_of(a, t->job, &t->block, &steps);
    else
        ahead_of(a, t->next_job, &t->next, &steps);
    return a;
}

static void task_run(struct device *dev, const struct task *task)
{
    const struct panels_job *job = task->job;
    const struct cut *cut = task->cut;
    const struct block *block = &task->block;
    const int64_t length = pass_steps(cut), n_turned = is_short(cut) ? cut->n_steps : length;
    const int64_t at_once = is_short(cut) ? PANEL : BLOCK_ROWS;
    const bool turning = any_turned(job);
    const int64_t columns = panels_of(block->column_end - block->column);
    size_t turned_bytes = turning ? (size_t)(columns * n_turned * STEP_ELEMENTS) * sizeof(uint16_t) : 0;
    size_t parked_bytes = length < cut->n_steps ? (size_t)(at_once * BLOCK_COLUMNS) * sizeof(float) : 0;
    char *scratch = NULL;
    if (turned_bytes + parked_bytes > 0)
        scratch = ops__scratch(dev, omp_get_thread_num(), turned_bytes + parked_bytes);
    float *parked = parked_bytes > 0 ? (float *)(scratch + turned_bytes) : NULL;
    struct turned turned = {(uint16_t *)scratch, {0, cut->n_steps}};
    struct ahead ahead, *next = ahead_open(&ahead, task, cut->n_steps);
    struct pending pending;
    pending.job = job;
    pending.parts = 0;
    pending.now = 0;
    if (turning && is_short(cut))
        turn(dev->tiles, job, block, &turned);
    for (int64_t i = block->row; i < block->row_end; i += at_once) {
        struct block part = *block;
        part.row = i;
        part.row_end = cpu_min(block->row_end, i + at_once);
        for (int64_t s = 0; s < cut->n_steps; s += length) {
            struct steps steps = {s, cpu_min(s + length, cut->n_steps)};
            if (turning && !is_short(cut)) {
                turned.steps = steps;
                turn(dev->tiles, job, block, &turned);
            }
            if (!is_short(cut))
                next = ahead_open(&ahead, task, steps.to);
            pass_run(dev->tiles, job, &part, &turned, &steps, cut->n_steps, parked, next, &pending);
        }
    }
    pending_finish(&pending);
}

/* Block `task` of the job, counted along the rows of blocks. */
static struct block block_of(const struct panels_job *job, const struct cut *cut, int64_t task)
{
    struct block b = {.row = task / cut->column_blocks * cut->rows,
                      .column = task % cut->column_blocks * cut->columns};
    b.row_end = cpu_min(job->m, b.row + cut->rows);
    b.column_end = cpu_min(job->n, b.column + cut->columns);
    return b;
}

/* Which of the jobs task number *task belongs to; *task counts in it then. */
static int job_of(const struct cut *cuts, int n_jobs, int64_t *task)
{
    int i = 0;
    for (; i < n_jobs - 1 && *task >= cuts[i].row_blocks * cuts[i].column_blocks; i++)
        *task -= cuts[i].row_blocks * cuts[i].column_blocks;
    return i;
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
    const int n_threads = omp_get_num_threads();
#pragma omp for schedule(dynamic) nowait
    for (int64_t task = 0; task < n_tasks; task++) {
        int64_t own = task, next = task + n_threads; /* if all take their tasks in turns */
        int i = job_of(cuts, n_jobs, &own);
        struct task t = {.job = &jobs[i], .cut = &cuts[i], .block = block_of(&jobs[i], &cuts[i], own)};
        if (next < n_tasks) {
            i = job_of(cuts, n_jobs, &next);
            t.next_job = &jobs[i];
            t.next_cut = &cuts[i];
            t.next = block_of(&jobs[i], &cuts[i], next);
        }
        task_run(dev, &t);
    }
    if (!nowait) {
#pragma omp barrier
    }
}

void cpu__panels_pack(struct device *dev, const struct panels_matrix *to, const uint16_t *w)
{
    int64_t elements = tiles_panel_elements(to->k);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static)
    for (int64_t j = 0; j < panels_of(to->n); j++)
        dev->tiles->copy_right_turned(to->panels + j * elements, w + j * PANEL * to->k, to->k,
                                      cpu_min(to->n - j * PANEL, PANEL), to->k);
}

void cpu__panels_column(float *out, const struct panels_matrix *m, int64_t column)
{
    enum { TILE = PANEL / 2 };
    const uint16_t *at = m->panels + column / PANEL * tiles_panel_elements(m->k) +
                         column % PANEL / TILE * (STEP_ELEMENTS / 2) + column % TILE * 2;
    for (int64_t k = 0; k < m->k; k += 2) { /* pairs of terms lie side by side */
        const uint16_t *pair = at + k / STEP * STEP_ELEMENTS + k % STEP / 2 * PANEL;
        out[k] = bf16_to_f32(pair[0]);
        if (k + 1 < m->k)
            out[k + 1] = bf16_to_f32(pair[1]);
    }
}

void cpu__panels_product(struct device *dev, float *c, int64_t ldc, const float *x, int64_t ldx, int64_t m,
                         const struct panels_matrix *b, bool transposed, bool accumulate)
{
    int64_t k = transposed ? b->n : b->k, elements = tiles_panel_elements(k);
    uint16_t *left = ops__scratch(dev, dev->n_threads, panels_elements(m, k) * sizeof *left);
    struct panels_job job = {.m = m, .n = transposed ? b->k : b->n, .c = c, .ldc = ldc, .n_terms = 1};
    if (accumulate)
        job.base = c, job.ldbase = ldc;
    job.terms[0] = (struct panels_term){left, b->panels, k, transposed};
    bool large = m * b->n * b->k > CPU_GRAIN_TERMS;
#pragma omp parallel num_threads(dev->n_threads) if (large)
    {
        dev->tiles->begin();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < panels_of(m); i++)
            dev->tiles->pack_left(left + i * elements, x + i * PANEL * ldx, ldx,
                                  cpu_min(m - i * PANEL, PANEL), k, 1);
        cpu__panels_jobs(dev, &job, 1, true);
        dev->tiles->end();
    }
}
