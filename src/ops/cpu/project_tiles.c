/* Projections of one input with LoRA in packed bfloat16 panels (panels.h). The input is rounded and packed
 * once for all that share it, and LoRA's second product is one more term in the accumulators of the frozen
 * one, instead of another pass over the result. Operands are bfloat16, sums float32.
 *
 * A product is cut among threads by rows and columns only; sums over tokens (the gradients of A and B) are
 * one chain in token order. */
#include "project_tiles.h"
#include "project.h"
#include "weights.h"
#include <omp.h>

enum { GRADIENT_PANELS = 8 /* columns of a task of the gradients, in panels */ };

/* Hands out a piece of the block; with base NULL it only counts. */
static uint16_t *piece(struct pieces *p, int64_t n, int64_t k)
{
    uint16_t *at = p->base != NULL ? (uint16_t *)(p->base + p->used) : NULL;
    p->used += panels_elements(n, k) * sizeof *at;
    return at;
}

void cpu__lay_forward(struct project_call *c, struct pieces *p)
{
    int64_t t = c->n_tokens;
    c->x_left = piece(p, t, c->n_in);
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        if (q->a == NULL)
            continue;
        c->packed[i] = (struct part){.a = piece(p, q->r, c->n_in)};
        c->packed[i].b = piece(p, q->w->n_out, q->r);
        c->packed[i].u = piece(p, t, q->r);
    }
}

void cpu__lay_back(struct project_call *c, struct pieces *p)
{
    int64_t t = c->n_tokens;
    c->x_right = piece(p, c->n_in, t);
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        c->packed[i] = (struct part){.dy = piece(p, t, q->w->n_out)};
        if (q->a == NULL)
            continue;
        c->packed[i].a = piece(p, c->n_in, q->r);
        c->packed[i].b = piece(p, q->r, q->w->n_out);
        c->packed[i].du = piece(p, t, q->r);
        c->packed[i].dy_right = piece(p, q->w->n_out, t);
        c->packed[i].u_turned = piece(p, q->r, t);
        c->packed[i].du_turned = piece(p, q->r, t);
    }
}

void cpu__calls_open(struct project_call *calls, int n, struct device *dev, int64_t n_tokens,
                     void (*lay)(struct project_call *c, struct pieces *p))
{
    struct pieces pieces = {NULL, 0};
    for (int i = 0; i < n; i++) {
        struct project_call *c = &calls[i];
        c->dev = dev;
        c->tiles = dev->tiles;
        c->n_tokens = n_tokens;
        c->n_panels = panels_of(n_tokens);
        c->n_in = c->parts[0].w->n_in;
        int64_t columns = 0;
        for (int p = 0; p < c->n; p++)
            columns += c->parts[p].w->n_out;
        c->large = n_tokens * columns * c->n_in > CPU_GRAIN_TERMS;
        lay(c, &pieces);
    }
    pieces.base = ops__scratch(dev, dev->n_threads, pieces.used);
    pieces.used = 0;
    for (int i = 0; i < n; i++)
        lay(&calls[i], &pieces);
}

typedef void pack_fn(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);

/* All panels of a right operand [k, n]; next: from one panel's first source element to the next one's. For
 * all threads of a region. */
static void pack_all(pack_fn *pack, uint16_t *to, const float *x, int64_t ld, int64_t next, int64_t n,
                     int64_t k)
{
    int64_t elements = tiles_panel_elements(k);
#pragma omp for schedule(static) nowait
    for (int64_t j = 0; j < panels_of(n); j++)
        pack(to + j * elements, x + j * next, ld, cpu_min(n - j * PANEL, PANEL), k, 1);
}

/* out [rows, n] (stride ld) = one left panel times all right panels of n columns over k terms. */
static void times_few(const struct tiles *tiles, float *out, int64_t ld, const uint16_t *left,
                      const uint16_t *right, int64_t rows, int64_t n, int64_t k)
{
    for (int64_t j = 0; j < n; j += PANEL) {
        struct panel_run run = {left, right + j / PANEL * tiles_panel_elements(k), tiles_steps(k),
                                tiles_padding(k)};
        struct panel_product p = {.runs = &run, .n_runs = 1, .rows = (int)rows, .out = out + j, .ld_out = ld};
        p.columns = (int)cpu_min(n - j, PANEL);
        tiles->product(&p);
    }
}

/* Packs the tokens of panel i, and makes their u. */
static void tokens_forward(const struct project_call *c, int64_t i)
{
    int64_t first = i * PANEL, rows = cpu_min(c->n_tokens - first, PANEL);
    uint16_t *left = c->x_left + i * tiles_panel_elements(c->n_in);
    if (c->x != NULL)
        c->tiles->pack_left(left, c->x + first * c->n_in, c->n_in, rows, c->n_in, 1);
    for (int p = 0; p < c->n; p++) {
        const struct projection *q = &c->parts[p];
        if (q->a == NULL)
            continue;
        float *u = q->u + first * q->r;
        times_few(c->tiles, u, q->r, left, c->packed[p].a, rows, q->r, c->n_in);
        c->tiles->pack_left(c->packed[p].u + i * tiles_panel_elements(q->r), u, q->r, rows, q->r, q->scaling);
    }
}

static void jobs_forward(const struct project_call *c, struct panels_job *jobs)
{
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        const struct packed_weight *w = q->w->prepared;
        jobs[i] = (struct panels_job){
            .m = c->n_tokens, .n = q->w->n_out, .n_terms = 1, .c = q->y, .ldc = q->w->n_out};
        jobs[i].base = q->base;
        jobs[i].ldbase = q->w->n_out;
        jobs[i].terms[0] = (struct panels_term){c->x_left, w->tiles.panels, c->n_in, false};
        if (q->a != NULL)
            jobs[i].terms[jobs[i].n_terms++] =
                (struct panels_term){c->packed[i].u, c->packed[i].b, q->r, false};
    }
}

void cpu__forward_adapters(const struct project_call *c)
{
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        if (q->a == NULL)
            continue;
        pack_all(c->tiles->pack_right_turned, c->packed[i].a, q->a, c->n_in, PANEL * c->n_in, q->r, c->n_in);
        pack_all(c->tiles->pack_right_turned, c->packed[i].b, q->b, q->r, PANEL * q->r, q->w->n_out, q->r);
    }
}

void cpu__forward_tokens(const struct project_call *c)
{
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < c->n_panels; i++)
        tokens_forward(c, i);
}

void cpu__forward_products(const struct project_call *c)
{
    struct panels_job jobs[MAX_PROJECTIONS];
    jobs_forward(c, jobs);
    cpu__panels_jobs(c->dev, jobs, c->n, true);
}

void cpu__forward_pair(const struct project_call *c, panels_finish_fn *finish, void *to)
{
    struct panels_job jobs[MAX_PROJECTIONS];
    jobs_forward(c, jobs);
    jobs[0].beside = &jobs[1];
    jobs[0].finish = finish;
    jobs[0].to = to;
    cpu__panels_jobs(c->dev, jobs, 1, false);
}

void cpu__project_tiles(struct device *dev, const struct projection *parts, int n, const float *x,
                        int64_t n_tokens)
{
    struct project_call c = {.parts = parts, .n = n, .x = x};
    cpu__calls_open(&c, 1, dev, n_tokens, cpu__lay_forward);
#pragma omp parallel num_threads(dev->n_threads) if (c.large)
    {
        c.tiles->begin();
        cpu__forward_adapters(&c);
#pragma omp barrier
        cpu__forward_tokens(&c);
        cpu__forward_products(&c);
        c.tiles->end();
    }
}

/* Whether x as the right operand of the gradients of A is wanted. */
static bool any_lora(const struct project_call *c)
{
    for (int p = 0; p < c->n; p++)
        if (c->parts[p].a != NULL)
            return true;
    return false;
}

/* The step of a left operand [T, n] or a right one [T, n], whose terms are the tokens. */
static uint16_t *left_step(uint16_t *left, int64_t n, int64_t token, int64_t column)
{
    return left + token / PANEL * tiles_panel_elements(n) + column / STEP * STEP_ELEMENTS;
}
static uint16_t *right_step(const struct project_call *c, uint16_t *right, int64_t token, int64_t column)
{
    return right + column / PANEL * tiles_panel_elements(c->n_tokens) + token / STEP * STEP_ELEMENTS;
}

uint16_t *cpu__dy_left(const struct project_call *c, int part, int64_t token, int64_t column)
{
    return left_step(c->packed[part].dy, c->parts[part].w->n_out, token, column);
}

uint16_t *cpu__dy_right(const struct project_call *c, int part, int64_t token, int64_t column)
{
    return c->packed[part].dy_right != NULL ? right_step(c, c->packed[part].dy_right, token, column) : NULL;
}

uint16_t *cpu__x_right(const struct project_call *c, int64_t token, int64_t column)
{
    return any_lora(c) ? right_step(c, c->x_right, token, column) : NULL;
}

uint16_t *cpu__x_left(const struct project_call *c, int64_t token, int64_t column)
{
    return left_step(c->x_left, c->n_in, token, column);
}

/* A step of the sums over tokens, of columns [column, column + n), into right panels. */
static void pack_right(const struct project_call *c, uint16_t *right, int64_t token, int64_t column,
                       const float *x, int64_t ld, int64_t n, int64_t rows)
{
    for (int64_t j = 0; j < n; j += PANEL)
        c->tiles->pack_right(right_step(c, right, token, column + j), x + j, ld, cpu_min(n - j, PANEL), rows,
                             1);
}

/* Columns of a chunk that is packed while it is in the first-level cache. */
enum { CHUNK = 4 * STEP };

static void pack_dy(const struct project_call *c, int p, int64_t token, int64_t rows)
{
    const int64_t n_out = c->parts[p].w->n_out;
    const float *dy = c->parts[p].dy + token * n_out;
    for (int64_t k = 0; k < n_out; k += CHUNK) {
        int64_t n = cpu_min(n_out - k, CHUNK);
        c->tiles->pack_left(cpu__dy_left(c, p, token, k), dy + k, n_out, rows, n, 1);
        if (c->packed[p].dy_right != NULL)
            pack_right(c, c->packed[p].dy_right, token, k, dy + k, n_out, n, rows);
    }
}

/* u and du of the tokens of panel i: du from the packed gradients. */
static void lora_tokens_back(const struct project_call *c, const struct projection *q,
                             const struct part *part, int64_t i, int64_t rows)
{
    int64_t first = i * PANEL, n_out = q->w->n_out, r = q->r;
    float *du = ops__scratch(c->dev, omp_get_thread_num(), (size_t)(PANEL * r) * sizeof *du);
    times_few(c->tiles, du, r, part->dy + i * tiles_panel_elements(n_out), part->b, rows, r, n_out);
    c->tiles->pack_left(part->du + i * tiles_panel_elements(r), du, r, rows, r, q->scaling);
    for (int64_t j = 0; j < r; j += PANEL) {
        int64_t at = j / PANEL * tiles_panel_elements(c->n_tokens) + i * STEP_ELEMENTS;
        int64_t columns = cpu_min(r - j, PANEL);
        c->tiles->pack_left_turned(part->du_turned + at, du + j, r, columns, rows, q->scaling);
        c->tiles->pack_left_turned(part->u_turned + at, q->u + first * r + j, r, columns, rows, q->scaling);
    }
}

/* All that is packed of the tokens of panel i. */
static void tokens_back(const struct project_call *c, int64_t i)
{
    int64_t token = i * PANEL, rows = cpu_min(c->n_tokens - token, PANEL);
    for (int p = 0; p < c->n; p++) {
        if (c->parts[p].dy != NULL)
            pack_dy(c, p, token, rows);
        if (c->parts[p].a != NULL)
            lora_tokens_back(c, &c->parts[p], &c->packed[p], i, rows);
    }
    if (c->x != NULL && any_lora(c))
        pack_right(c, c->x_right, token, 0, c->x + token * c->n_in, c->n_in, c->n_in, rows);
}

/* sum [PANEL, PANEL] = panel k of left [R, T] times panel j of right [T, *], with row stride ld. */
static void token_sums(const struct project_call *c, const uint16_t *left, const uint16_t *right, int64_t k,
                       int64_t j, const float *in, float *out, int64_t ld, int64_t rows, int64_t columns)
{
    int64_t panel = tiles_panel_elements(c->n_tokens);
    struct panel_run run = {left + k / PANEL * panel, right + j / PANEL * panel, tiles_steps(c->n_tokens),
                            tiles_padding(c->n_tokens)};
    struct panel_product p = {.runs = &run, .n_runs = 1, .in = in, .ld_in = ld, .out = out, .ld_out = ld};
    p.rows = (int)rows;
    p.columns = (int)columns;
    c->tiles->product(&p);
}

/* dB of the projection in columns [column, end) of dy, whose sums come out turned. */
static void gradient_b(const struct project_call *c, const struct projection *q, const struct part *part,
                       int64_t column, int64_t end)
{
    float sums[PANEL * PANEL] __attribute__((aligned(64)));
    for (int64_t j = column; j < end; j += PANEL)
        for (int64_t k = 0; k < q->r; k += PANEL) {
            int64_t rows = cpu_min(q->r - k, PANEL), columns = cpu_min(end - j, PANEL);
            token_sums(c, part->u_turned, part->dy_right, k, j, NULL, sums, PANEL, rows, columns);
            for (int64_t o = 0; o < columns; o++)
                for (int64_t l = 0; l < rows; l++)
                    q->db[(j + o) * q->r + k + l] += sums[l * PANEL + o];
        }
}

/* dA of the projection in columns [column, end) of x. */
static void gradient_a(const struct project_call *c, const struct projection *q, const struct part *part,
                       int64_t column, int64_t end)
{
    for (int64_t j = column; j < end; j += PANEL)
        for (int64_t k = 0; k < q->r; k += PANEL) {
            float *da = q->da + k * c->n_in + j;
            token_sums(c, part->du_turned, c->x_right, k, j, da, da, c->n_in, cpu_min(q->r - k, PANEL),
                       cpu_min(end - j, PANEL));
        }
}

void cpu__back_parameters(const struct project_call *c)
{
    enum { WIDTH = GRADIENT_PANELS * PANEL };
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        if (q->a == NULL)
            continue;
        int64_t of_b = cpu_blocks(q->w->n_out, WIDTH), of_a = cpu_blocks(c->n_in, WIDTH);
#pragma omp for schedule(dynamic) nowait
        for (int64_t task = 0; task < of_b + of_a; task++) {
            int64_t column = (task < of_b ? task : task - of_b) * WIDTH;
            if (task < of_b)
                gradient_b(c, q, &c->packed[i], column, cpu_min(q->w->n_out, column + WIDTH));
            else
                gradient_a(c, q, &c->packed[i], column, cpu_min(c->n_in, column + WIDTH));
        }
    }
}

static void job_back(const struct project_call *c, struct panels_job *job)
{
    *job = (struct panels_job){.m = c->n_tokens, .n = c->n_in, .c = c->dx, .ldc = c->n_in};
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        const struct packed_weight *w = q->w->prepared;
        job->terms[job->n_terms++] =
            (struct panels_term){c->packed[i].dy, w->tiles.panels, q->w->n_out, true};
        if (q->a != NULL)
            job->terms[job->n_terms++] = (struct panels_term){c->packed[i].du, c->packed[i].a, q->r, false};
    }
}

void cpu__back_adapters(const struct project_call *c)
{
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        if (q->a == NULL)
            continue;
        pack_all(c->tiles->pack_right, c->packed[i].a, q->a, c->n_in, PANEL, c->n_in, q->r);
        pack_all(c->tiles->pack_right, c->packed[i].b, q->b, q->r, PANEL, q->r, q->w->n_out);
    }
}

void cpu__back_tokens(const struct project_call *c)
{
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < c->n_panels; i++)
        tokens_back(c, i);
}

void cpu__back_input(const struct project_call *c)
{
    struct panels_job job;
    if (c->dx == NULL)
        return;
    job_back(c, &job);
    cpu__panels_jobs(c->dev, &job, 1, true);
}

void cpu__back_input_to(const struct project_call *c, panels_tile_fn *before, panels_finish_fn *finish,
                        void *to)
{
    struct panels_job job;
    job_back(c, &job);
    job.before = before;
    job.finish = finish;
    job.to = to;
    cpu__panels_jobs(c->dev, &job, 1, false);
}

void cpu__project_back_tiles(struct device *dev, const struct projection *parts, int n, float *dx,
                             const float *x, int64_t n_tokens)
{
    struct project_call c = {.parts = parts, .n = n, .x = x, .dx = dx};
    cpu__calls_open(&c, 1, dev, n_tokens, cpu__lay_back);
#pragma omp parallel num_threads(dev->n_threads) if (c.large)
    {
        c.tiles->begin();
        cpu__back_adapters(&c);
#pragma omp barrier
        cpu__back_tokens(&c);
        cpu__back_input(&c);
        cpu__back_parameters(&c);
        c.tiles->end();
    }
}
