/* Forward: all scores of a block and a head are made, then their exponentials with the largest known, then
 * the weighted sum of the values. A thread holds the scores of PANEL queries and no more. */
#include "attention_tiles_internal.h"
#include <omp.h>

struct forward {
    float *out, *lse;
    const float *q, *k, *v;
};

/* One thread's memory for a block. */
struct forward_room {
    uint16_t *q;   /* [group] left panels over dimensions */
    uint16_t *p;   /* a left panel over keys */
    float *scores; /* [PANEL, ld] */
    float *sums;   /* [PANEL, PANEL n_dims] */
    float *rows;   /* [PANEL, group D] */
    int64_t ld;
};

/* Lays it out in base; returns its bytes, also without a base. */
static size_t forward_room(const struct tile_attention *at, struct forward_room *r, char *base)
{
    size_t step_bytes = STEP_ELEMENTS * sizeof(uint16_t), row_bytes = PANEL * sizeof(float), used = 0;
    r->ld =
        at->most_panels * PANEL + PANEL / 2; /* an odd number of cache lines spreads over the cache's sets */
    r->q = tiles_take(base, &used, (size_t)(at->group * at->n_dims) * step_bytes);
    r->p = tiles_take(base, &used, (size_t)at->most_panels * step_bytes);
    r->scores = tiles_take(base, &used, (size_t)r->ld * row_bytes);
    r->sums = tiles_take(base, &used, (size_t)(at->n_dims * PANEL) * row_bytes);
    r->rows = tiles_take(base, &used, (size_t)(at->group * at->shape->head_dim) * row_bytes);
    return used;
}

static void block_scores(const struct tile_attention *at, const struct tile_batch *batch, int64_t kv,
                         int64_t h, const struct forward_room *room)
{
    const struct tile_block *b = &batch->blocks[0];
    struct panel_run run = {.left = room->q + h * at->n_dims * STEP_ELEMENTS,
                            .n_steps = at->n_dims,
                            .padding = tiles_padding(at->shape->head_dim)};
    struct panel_product p = {.runs = &run, .n_runs = 1, .ld_out = room->ld};
    p.rows = tiles_rows(at->tiles, b->n);
    for (int64_t j = b->from; j < b->to; j++) {
        run.right = tiles_turned_panel(at, at->k_turned, kv, &batch->panels[j]);
        p.columns = tiles_half(batch->panels[j].n);
        p.out = room->scores + (j - b->from) * PANEL;
        at->tiles->product(&p);
    }
}

static void block_values(const struct tile_attention *at, const struct tile_batch *batch, int64_t kv,
                         const struct forward_room *room)
{
    const struct tile_block *b = &batch->blocks[0];
    struct panel_product p = {.runs = batch->runs, .columns = PANEL};
    p.rows = tiles_rows(at->tiles, b->n);
    p.ld_out = at->n_dims * PANEL;
    for (int64_t e = 0; e < at->n_dims; e++) {
        p.n_runs = cpu__tiles_key_runs(at, batch, b->from, b->to, room->p, at->v_right, kv, e);
        p.out = room->sums + e * PANEL;
        at->tiles->product(&p);
    }
}

/* Out and lse of the tokens that ask. */
static void head_store(const struct tile_attention *at, const struct tile_block *b, int64_t head,
                       const struct forward_room *room, const float *lse, const float *sum,
                       const struct forward *f)
{
    int64_t n_heads = at->shape->n_q_heads, d = at->shape->head_dim, ld = at->n_dims * PANEL;
    if (b->all_ask)
        at->tiles->divide_rows(f->out + (b->query[0] * n_heads + head) * d, n_heads * d, room->sums, ld, sum,
                               b->n, d);
    for (int i = 0; i < b->n; i++) {
        int64_t row = b->query[i] * n_heads + head;
        if (b->query[i] >= 0 && !b->all_ask)
            at->tiles->divide_rows(f->out + row * d, 0, room->sums + i * ld, 0, sum + i, 1, d);
        if (b->query[i] >= 0 && f->lse != NULL)
            f->lse[row] = lse[i];
    }
}

static void head_forward(const struct tile_attention *at, const struct tile_batch *batch, int64_t kv,
                         int64_t h, const struct forward_room *room, const struct forward *f)
{
    const struct tile_block *b = &batch->blocks[0];
    float lse[PANEL], sum[PANEL];
    block_scores(at, batch, kv, h, room);
    at->tiles->softmax(room->p, lse, sum, room->scores, room->ld, batch->seen + b->from * PANEL,
                       b->to - b->from, b->n, at->shape->scale);
    block_values(at, batch, kv, room);
    head_store(at, b, kv * at->group + h, room, lse, sum, f);
}

static void block_forward(const struct tile_attention *at, int64_t place, int64_t kv, const struct forward *f)
{
    struct tile_batch batch;
    struct forward_room room;
    int32_t segment = at->segment_of[place];
    cpu__tiles_batch_room(at, &batch, 1, forward_room(at, &room, NULL));
    forward_room(at, &room, batch.room);
    if (cpu__tiles_batch(at, &batch, segment, place - at->segments[segment].first_panel, 1) == 0)
        return;
    int64_t ld;
    const float *rows = cpu__tiles_rows(at, &batch.blocks[0], kv, f->q, room.rows, &ld);
    cpu__tiles_pack_rows(at, &batch.blocks[0], room.q, rows, ld);
    for (int64_t h = 0; h < at->group; h++)
        head_forward(at, &batch, kv, h, &room, f);
}

void cpu__tiles_attention(struct device *dev, float *out, float *lse, const float *q, const float *k,
                          const float *v, const struct attention_shape *shape)
{
    struct tile_attention at;
    struct forward f = {out, lse, q, k, v};
    cpu__tiles_attention_open(&at, dev, shape, PACK_K_TURNED | PACK_V_RIGHT, 0);
    int64_t n_kv = shape->n_kv_heads, n_tasks = at.n_panels * n_kv;
#pragma omp parallel num_threads(dev->n_threads) if (n_tasks > 1 && cpu_attention_large(shape))
    {
        dev->tiles->begin();
#pragma omp for schedule(dynamic, TASKS_AT_ONCE)
        for (int64_t task = 0; task < n_tasks; task++)
            cpu__tiles_pack_keys(&at, task % at.n_panels, task / at.n_panels, f.k, f.v);
#pragma omp for schedule(dynamic) nowait
        for (int64_t task = 0; task < n_tasks; task++)
            block_forward(&at, task / n_kv, task % n_kv, &f);
        dev->tiles->end();
    }
}
