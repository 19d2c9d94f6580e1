/* Projections of one input with LoRA in packed bfloat16 panels (panels.h). The input is rounded and packed
 * once for all that share it, and LoRA's second product is one more term in the accumulators of the frozen
 * one, instead of another pass over the result. Operands are bfloat16, sums float32.
 *
 * A product is cut among threads by rows and columns only; sums over tokens (the gradients of A and B) are
 * one chain in token order. */
#include "panels.h"
#include "project.h"
#include "weights.h"
#include <omp.h>

enum {
    GRADIENT_PANELS = 4 /* columns of dy or x packed at once, in panels: cache lines next to each other */
};

/* Panels of one projection; NULL without LoRA. Directions as in tiles.h. */
struct part {
    uint16_t *a, *b;     /* right operands made of A and B */
    uint16_t *u, *du;    /* left operands [T, R]: scaling u; du */
    uint16_t *dy;        /* left operand [T, n_out] */
    uint16_t *u_right;   /* right operand [T, R]: scaling u */
    uint16_t *du_turned; /* left operand [R, T] */
};

struct call {
    struct device *dev;
    const struct tiles *tiles;
    const struct projection *parts;
    int n;
    const float *x;
    float *dx;
    int64_t n_in, n_tokens, n_panels; /* panels of tokens */
    uint16_t *x_left;                 /* left operand [T, n_in] */
    struct part packed[MAX_PROJECTIONS];
    bool large;
};

/* Hands out pieces of a block; with base NULL it only counts. */
struct pieces {
    char *base;
    size_t used;
};
static uint16_t *piece(struct pieces *p, int64_t n, int64_t k)
{
    uint16_t *at = p->base != NULL ? (uint16_t *)(p->base + p->used) : NULL;
    p->used += panels_elements(n, k) * sizeof *at;
    return at;
}

static void lay_forward(struct call *c, struct pieces *p)
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

static void lay_back(struct call *c, struct pieces *p)
{
    int64_t t = c->n_tokens;
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        c->packed[i] = (struct part){.dy = piece(p, t, q->w->n_out)};
        if (q->a == NULL)
            continue;
        c->packed[i].a = piece(p, c->n_in, q->r);
        c->packed[i].b = piece(p, q->r, q->w->n_out);
        c->packed[i].du = piece(p, t, q->r);
        c->packed[i].u_right = piece(p, q->r, t);
        c->packed[i].du_turned = piece(p, q->r, t);
    }
}

static void call_open(struct call *c, struct device *dev, const struct projection *parts, int n,
                      int64_t n_tokens, void (*lay)(struct call *c, struct pieces *p))
{
    *c = (struct call){.dev = dev, .tiles = dev->tiles, .parts = parts, .n = n, .n_tokens = n_tokens};
    c->n_in = parts[0].w->n_in;
    c->n_panels = panels_of(n_tokens);
    int64_t columns = 0;
    for (int i = 0; i < n; i++)
        columns += parts[i].w->n_out;
    c->large = n_tokens * columns * c->n_in > CPU_GRAIN_TERMS;
    struct pieces pieces = {NULL, 0};
    lay(c, &pieces);
    pieces.base = ops__scratch(dev, dev->n_threads, pieces.used);
    pieces.used = 0;
    lay(c, &pieces);
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
        struct panel_run run = {left, right + j / PANEL * tiles_panel_elements(k), tiles_steps(k)};
        struct panel_product p = {.runs = &run, .n_runs = 1, .rows = (int)rows, .out = out + j, .ld_out = ld};
        p.columns = (int)cpu_min(n - j, PANEL);
        tiles->product(&p);
    }
}

/* Packs the tokens of panel i, and makes their u. */
static void tokens_forward(struct call *c, int64_t i)
{
    int64_t first = i * PANEL, rows = cpu_min(c->n_tokens - first, PANEL);
    uint16_t *left = c->x_left + i * tiles_panel_elements(c->n_in);
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

static void jobs_forward(const struct call *c, struct panels_job *jobs)
{
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        const struct packed_weight *w = q->w->prepared;
        jobs[i] = (struct panels_job){
            .m = c->n_tokens, .n = q->w->n_out, .n_terms = 1, .c = q->y, .ldc = q->w->n_out};
        jobs[i].terms[0] = (struct panels_term){c->x_left, w->forward.panels, c->n_in};
        if (q->a != NULL)
            jobs[i].terms[jobs[i].n_terms++] = (struct panels_term){c->packed[i].u, c->packed[i].b, q->r};
    }
}

void cpu__project_tiles(struct device *dev, const struct projection *parts, int n, const float *x,
                        int64_t n_tokens)
{
    struct call c;
    struct panels_job jobs[MAX_PROJECTIONS];
    call_open(&c, dev, parts, n, n_tokens, lay_forward);
    c.x = x;
    jobs_forward(&c, jobs);
#pragma omp parallel num_threads(dev->n_threads) if (c.large)
    {
        c.tiles->begin();
        for (int i = 0; i < n; i++) {
            const struct projection *q = &parts[i];
            if (q->a == NULL)
                continue;
            pack_all(c.tiles->pack_right_turned, c.packed[i].a, q->a, c.n_in, PANEL * c.n_in, q->r, c.n_in);
            pack_all(c.tiles->pack_right_turned, c.packed[i].b, q->b, q->r, PANEL * q->r, q->w->n_out, q->r);
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t i = 0; i < c.n_panels; i++)
            tokens_forward(&c, i);
        cpu__panels_jobs(dev, jobs, n, true);
        c.tiles->end();
    }
}

/* Packs the gradients of the tokens of panel i, and makes their du. */
static void tokens_back(struct call *c, int64_t i)
{
    int64_t first = i * PANEL, rows = cpu_min(c->n_tokens - first, PANEL);
    for (int p = 0; p < c->n; p++) {
        const struct projection *q = &c->parts[p];
        const struct part *part = &c->packed[p];
        int64_t n_out = q->w->n_out, r = q->r, step = i * STEP_ELEMENTS;
        uint16_t *left = part->dy + i * tiles_panel_elements(n_out);
        c->tiles->pack_left(left, q->dy + first * n_out, n_out, rows, n_out, 1);
        if (q->a == NULL)
            continue;
        float *du = ops__scratch(c->dev, omp_get_thread_num(), (size_t)(PANEL * r) * sizeof *du);
        times_few(c->tiles, du, r, left, part->b, rows, r, n_out);
        c->tiles->pack_left(part->du + i * tiles_panel_elements(r), du, r, rows, r, q->scaling);
        for (int64_t j = 0; j < r; j += PANEL) { /* a panel of tokens is a step of the sums over tokens */
            int64_t at = j / PANEL * tiles_panel_elements(c->n_tokens) + step,
                    columns = cpu_min(r - j, PANEL);
            c->tiles->pack_left_turned(part->du_turned + at, du + j, r, columns, rows, q->scaling);
            c->tiles->pack_right(part->u_right + at, q->u + first * r + j, r, columns, rows, q->scaling);
        }
    }
}

/* dB of the projection from column `column` of dy on. */
static void gradient_b(const struct call *c, const struct projection *q, const struct part *part,
                       int64_t column)
{
    int64_t n_out = q->w->n_out, r = q->r, t = c->n_tokens;
    uint16_t *left = ops__scratch(c->dev, omp_get_thread_num(), panels_elements(PANEL, t) * sizeof *left);
    for (int64_t i = column; i < cpu_min(n_out, column + GRADIENT_PANELS * PANEL); i += PANEL) {
        int64_t rows = cpu_min(n_out - i, PANEL);
        c->tiles->pack_left_turned(left, q->dy + i, n_out, rows, t, 1);
        for (int64_t j = 0; j < r; j += PANEL) {
            struct panel_run run = {left, part->u_right + j / PANEL * tiles_panel_elements(t),
                                    tiles_steps(t)};
            struct panel_product p = {.runs = &run, .n_runs = 1, .rows = (int)rows, .ld_in = r, .ld_out = r};
            p.columns = (int)cpu_min(r - j, PANEL);
            p.in = p.out = q->db + i * r + j;
            c->tiles->product(&p);
        }
    }
}

/* dA of all projections from column `column` of x on. */
static void gradient_a(const struct call *c, int64_t column)
{
    int64_t t = c->n_tokens, n_in = c->n_in;
    uint16_t *right = ops__scratch(c->dev, omp_get_thread_num(), panels_elements(PANEL, t) * sizeof *right);
    for (int64_t j = column; j < cpu_min(n_in, column + GRADIENT_PANELS * PANEL); j += PANEL) {
        int64_t columns = cpu_min(n_in - j, PANEL);
        c->tiles->pack_right(right, c->x + j, n_in, columns, t, 1);
        for (int i = 0; i < c->n; i++) {
            const struct projection *q = &c->parts[i];
            for (int64_t k = 0; q->a != NULL && k < q->r; k += PANEL) {
                struct panel_run run = {c->packed[i].du_turned + k / PANEL * tiles_panel_elements(t), right,
                                        tiles_steps(t)};
                struct panel_product p = {.runs = &run, .n_runs = 1, .ld_in = n_in, .ld_out = n_in};
                p.rows = (int)cpu_min(q->r - k, PANEL);
                p.columns = (int)columns;
                p.in = p.out = q->da + k * n_in + j;
                c->tiles->product(&p);
            }
        }
    }
}

/* dB of all projections, then dA. For all threads of a region. */
static void gradients(const struct call *c)
{
    enum { WIDTH = GRADIENT_PANELS * PANEL };
    bool any = false;
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        any = any || q->a != NULL;
        int64_t tasks = q->a != NULL ? cpu_blocks(q->w->n_out, WIDTH) : 0;
#pragma omp for schedule(dynamic) nowait
        for (int64_t task = 0; task < tasks; task++)
            gradient_b(c, q, &c->packed[i], task * WIDTH);
    }
    int64_t tasks = any ? cpu_blocks(c->n_in, WIDTH) : 0;
#pragma omp for schedule(dynamic) nowait
    for (int64_t task = 0; task < tasks; task++)
        gradient_a(c, task * WIDTH);
}

static void job_back(const struct call *c, struct panels_job *job)
{
    *job = (struct panels_job){.m = c->n_tokens, .n = c->n_in, .c = c->dx, .ldc = c->n_in};
    for (int i = 0; i < c->n; i++) {
        const struct projection *q = &c->parts[i];
        const struct packed_weight *w = q->w->prepared;
        job->terms[job->n_terms++] = (struct panels_term){c->packed[i].dy, w->back.panels, q->w->n_out};
        if (q->a != NULL)
            job->terms[job->n_terms++] = (struct panels_term){c->packed[i].du, c->packed[i].a, q->r};
    }
}

void cpu__project_back_tiles(struct device *dev, const struct projection *parts, int n, float *dx,
                             const float *x, int64_t n_tokens)
{
    struct call c;
    struct panels_job job;
    call_open(&c, dev, parts, n, n_tokens, lay_back);
    c.x = x;
    c.dx = dx;
    job_back(&c, &job);
#pragma omp parallel num_threads(dev->n_threads) if (c.large)
    {
        c.tiles->begin();
        for (int i = 0; i < n; i++) {
            const struct projection *q = &parts[i];
            if (q->a == NULL)
                continue;
            pack_all(c.tiles->pack_right, c.packed[i].a, q->a, c.n_in, PANEL, c.n_in, q->r);
            pack_all(c.tiles->pack_right, c.packed[i].b, q->b, q->r, PANEL, q->r, q->w->n_out);
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t i = 0; i < c.n_panels; i++)
            tokens_back(&c, i);
        if (dx != NULL)
            cpu__panels_jobs(dev, &job, 1, true);
        gradients(&c);
        c.tiles->end();
    }
}
