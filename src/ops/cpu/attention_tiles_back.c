/* The way back, from the logarithm of each softmax's denominator:
 *   P = exp(S - lse), dV = P^T dO, dP = dO V^T, dS = scale P (dP - sum(dO * O)), dQ = dS K, dK = dS^T Q.
 *
 * The blocks of a tree of segments are cut into parts of like cost. A part and a key/value head are one task:
 * it goes through its blocks in order and has sums of dK and dV of its own, turned ([D, keys]: P and dS are
 * then right operands, which their rows make cheaply). In the end the parts' sums are added in order. The cut
 * depends on the tree alone, so that threads, other trees and the choice of queries change nothing. */
#include "attention_tiles_internal.h"
#include <omp.h>
#include <string.h>

enum {
    MOST_TASKS = 6,         /* parts of a tree times key/value heads, about */
    LEAST_COST = 100,       /* of a part and a head: half blocks of scores, each about 0.3 microseconds */
    MOST_SUMS = 64 << 20,   /* bytes of a tree's sums, unless one part has more */
    BATCH_STEPS = 6,        /* blocks times heads of a batch, about: terms of a product of keys, in steps */
    CHUNK_BYTES = 512 << 10 /* of P and dS at a time: they should stay in the second-level cache */
};

struct tree {
    int64_t n_panels, cost;
    int32_t last; /* segment */
    int32_t first_part, n_parts;
};
struct part {
    int32_t segment; /* of its first block */
    int64_t block, n_blocks;
    int64_t sums; /* place of its first panel's sums */
};
struct back {
    struct tile_attention at;
    float *dq, *dk, *dv;
    const float *dout, *q, *k, *v, *out, *lse;
    struct tree *trees;  /* [n_segments], at the roots' places */
    int32_t *next;       /* [n_segments] the tree's next segment, or -1 */
    int64_t *tree_panel; /* [n_segments] panels of the tree in front of the segment's */
    struct part *parts;
    int32_t n_parts;
    int64_t n_sums;       /* panels of all parts and heads */
    uint8_t *begun;       /* [n_sums] whether a panel's sums hold anything */
    float *sums;          /* [n_sums][dK, dV][n_dims][PANEL, PANEL] */
    int blocks;           /* of a batch, at most */
    int64_t steps, chunk; /* of a batch; panels of keys at a time */
};

/* One thread's memory for a batch. Step s is block s / group, head s % group. */
struct back_room {
    uint16_t *q, *dout;               /* [steps][n_dims] left panels of one step's rows */
    uint16_t *q_turned, *dout_turned; /* [n_dims][steps] left steps, the rows as terms */
    uint16_t *p, *ds;                 /* [chunk][steps] right steps, the rows as terms */
    uint16_t *ds_left;                /* [steps][chunk] left steps, the keys as terms */
    float *scores, *dp;               /* [2][PANEL, PANEL] a panel's and the next one's */
    float *dq;                        /* [steps][PANEL, PANEL n_dims] */
    float *lse, *through;             /* [steps][PANEL] */
    float *rows;                      /* [PANEL, group D] */
    struct panel_run *runs;           /* [steps] for sum_runs */
};

static int64_t sum_floats(const struct tile_attention *at)
{
    return 2 * at->n_dims * PANEL * PANEL;
}

/* Half blocks of scores of one head. */
static int64_t block_cost(const struct tile_attention *at, int32_t s, int64_t block)
{
    int64_t panels = at->segments[s].before + block + 1, window = at->shape->window;
    if (window > 0)
        panels = cpu_min(panels, window / PANEL + 2);
    return panels * (at->shape->segments[s].n_tokens - block * PANEL > PANEL / 2 ? 2 : 1);
}

static void trees_fill(struct back *b)
{
    for (int32_t s = 0; s < b->at.shape->n_segments; s++) {
        const struct tile_segment *segment = &b->at.segments[s];
        struct tree *tree = &b->trees[segment->root];
        if (segment->root == s)
            *tree = (struct tree){0};
        else
            b->next[tree->last] = s;
        tree->last = s;
        b->next[s] = -1;
        b->tree_panel[s] = tree->n_panels;
        tree->n_panels += segment->n_panels;
        for (int64_t block = 0; block < segment->n_panels; block++)
            tree->cost += block_cost(&b->at, s, block);
    }
}

static int64_t part_limit(const struct back *b, const struct tree *tree)
{
    int64_t n_kv = b->at.shape->n_kv_heads,
            bytes = n_kv * tree->n_panels * sum_floats(&b->at) * (int64_t)sizeof(float);
    int64_t n = cpu_min(cpu_blocks(MOST_TASKS, n_kv), tree->cost * b->at.group / LEAST_COST);
    n = cpu_min(n, MOST_SUMS / (bytes + 1));
    return n > 0 ? n : 1;
}

static void tree_cut(struct back *b, int32_t root)
{
    struct tree *tree = &b->trees[root];
    int64_t n_kv = b->at.shape->n_kv_heads, limit = part_limit(b, tree), cost = 0, last = -1;
    tree->first_part = b->n_parts;
    for (int32_t s = root; s >= 0; s = b->next[s])
        for (int64_t block = 0; block < b->at.segments[s].n_panels; block++) {
            int64_t number = cost * limit / tree->cost;
            cost += block_cost(&b->at, s, block);
            if (number != last) {
                b->parts[b->n_parts++] = (struct part){s, block, 0, b->n_sums};
                b->n_sums += n_kv * tree->n_panels;
            }
            last = number;
            b->parts[b->n_parts - 1].n_blocks++;
        }
    tree->n_parts = b->n_parts - tree->first_part;
}

/* Lays out the plan and, from the second time on, the sums behind it; returns the bytes of both. */
static size_t plan(struct back *b)
{
    const struct attention_shape *shape = b->at.shape;
    size_t n = (size_t)shape->n_segments, used = 0;
    char *base = b->at.extra;
    b->trees = tiles_take(base, &used, n * sizeof *b->trees);
    b->next = tiles_take(base, &used, n * sizeof *b->next);
    b->tree_panel = tiles_take(base, &used, n * sizeof *b->tree_panel);
    b->parts = tiles_take(base, &used, n * MOST_TASKS * sizeof *b->parts);
    b->n_parts = 0;
    b->n_sums = 0;
    trees_fill(b);
    for (int32_t s = 0; s < shape->n_segments; s++)
        if (b->at.segments[s].root == s)
            tree_cut(b, s);
    b->begun = tiles_take(base, &used, (size_t)b->n_sums);
    b->sums = tiles_take(base, &used, (size_t)(b->n_sums * sum_floats(&b->at)) * sizeof *b->sums);
    return used;
}

static void back_open(struct back *b, struct device *dev, const struct attention_shape *shape)
{
    size_t bytes = (size_t)shape->n_segments * (sizeof *b->trees + sizeof *b->next + sizeof *b->tree_panel +
                                                MOST_TASKS * sizeof *b->parts) +
                   4 * 64;
    for (int pass = 0; pass < 2; pass++) { /* how many sums there are is known after the first */
        cpu__tiles_attention_open(&b->at, dev, shape, PACK_K_TURNED | PACK_K_RIGHT | PACK_V_TURNED, bytes);
        bytes = plan(b);
    }
    memset(b->begun, 0, (size_t)b->n_sums);
    int64_t blocks = cpu_min(cpu_blocks(BATCH_STEPS, b->at.group), BATCH_BLOCKS);
    b->blocks = (int)blocks;
    b->steps = blocks * b->at.group;
    b->chunk = cpu_min(CHUNK_BYTES / (b->steps * 3 * STEP_ELEMENTS * 2) + 1, b->at.most_panels);
}

static size_t back_room(const struct back *b, struct back_room *r, char *base)
{
    size_t step_bytes = STEP_ELEMENTS * sizeof(uint16_t), row_bytes = PANEL * sizeof(float), used = 0;
    size_t steps = (size_t)b->steps, panels = steps * (size_t)b->at.n_dims, keys = steps * (size_t)b->chunk;
    r->q = tiles_take(base, &used, panels * step_bytes);
    r->dout = tiles_take(base, &used, panels * step_bytes);
    r->q_turned = tiles_take(base, &used, panels * step_bytes);
    r->dout_turned = tiles_take(base, &used, panels * step_bytes);
    r->p = tiles_take(base, &used, keys * step_bytes);
    r->ds = tiles_take(base, &used, keys * step_bytes);
    r->ds_left = tiles_take(base, &used, keys * step_bytes);
    r->scores = tiles_take(base, &used, 2 * PANEL * row_bytes);
    r->dp = tiles_take(base, &used, 2 * PANEL * row_bytes);
    r->dq = tiles_take(base, &used, panels * PANEL * row_bytes);
    r->lse = tiles_take(base, &used, steps * row_bytes);
    r->through = tiles_take(base, &used, steps * row_bytes);
    r->rows = tiles_take(base, &used, (size_t)(b->at.group * b->at.shape->head_dim) * row_bytes);
    r->runs = tiles_take(base, &used, steps * sizeof *r->runs);
    return used;
}

/* Rows of a block whose first step is given, in both forms. */
static void rows_pack(const struct back *b, const struct tile_block *block, int64_t step, uint16_t *left,
                      uint16_t *turned, const float *rows, int64_t ld)
{
    const struct tile_attention *at = &b->at;
    int64_t d = at->shape->head_dim;
    cpu__tiles_pack_rows(at, block, left + step * at->n_dims * STEP_ELEMENTS, rows, ld);
    for (int64_t h = 0; h < at->group; h++)
        for (int64_t e = 0; e < at->n_dims; e++)
            at->tiles->pack_left_turned(turned + (e * b->steps + step + h) * STEP_ELEMENTS,
                                        rows + h * d + e * PANEL, ld, cpu_min(d - e * PANEL, PANEL), block->n,
                                        1);
}

static void block_pack(const struct back *b, const struct tile_block *block, int64_t kv, int64_t step,
                       const struct back_room *r)
{
    const struct tile_attention *at = &b->at;
    int64_t ld, group = at->group;
    const float *rows = cpu__tiles_rows(at, block, kv, b->q, r->rows, &ld);
    rows_pack(b, block, step, r->q, r->q_turned, rows, ld);
    rows = cpu__tiles_rows(at, block, kv, b->dout, r->rows, &ld);
    rows_pack(b, block, step, r->dout, r->dout_turned, rows, ld);
    rows = cpu__tiles_rows(at, block, kv, b->out, r->rows, &ld);
    /* dout as the products see it: then the rows of dS sum to 0. */
    at->tiles->row_dots(r->through + step * PANEL, r->dout + step * at->n_dims * STEP_ELEMENTS, rows, ld,
                        block->n, at->shape->head_dim, group);
    for (int64_t h = 0; h < group; h++)
        for (int i = 0; i < block->n; i++)
            r->lse[(step + h) * PANEL + i] =
                block->query[i] >= 0 ? b->lse[block->query[i] * at->shape->n_q_heads + kv * group + h] : 0;
}

/* A block and head times the keys of panel j: queries, or gradients of the outputs. */
static void panel_scores(const struct back *b, const struct tile_batch *batch, int64_t kv, int64_t step,
                         int64_t j, const uint16_t *rows, uint16_t *keys, float *to)
{
    const struct tile_attention *at = &b->at;
    struct panel_run run = {rows + step * at->n_dims * STEP_ELEMENTS,
                            tiles_turned_panel(at, keys, kv, &batch->panels[j]), at->n_dims,
                            tiles_padding(at->shape->head_dim)};
    struct panel_product p = {.runs = &run, .n_runs = 1, .out = to + j % 2 * PANEL * PANEL, .ld_out = PANEL};
    p.rows = tiles_rows(at->tiles, batch->blocks[step / at->group].n);
    p.columns = tiles_half(batch->panels[j].n);
    at->tiles->product(&p);
}

/* P and dS of a block and head with the keys of panels [from, to); the chunk begins at panel `chunk`. A
 * panel's products are asked for between the exponentials of the one in front of it: the processor does both
 * at once. */
static void step_scores(const struct back *b, const struct tile_batch *batch, int64_t kv, int64_t step,
                        int64_t from, int64_t to, int64_t chunk, const struct back_room *r)
{
    const struct tile_attention *at = &b->at;
    int64_t number = step / at->group;
    struct score_block scores = {
        .lse = r->lse + step * PANEL, .through = r->through + step * PANEL, .scale = at->shape->scale};
    panel_scores(b, batch, kv, step, from, r->q, at->k_turned, r->scores);
    panel_scores(b, batch, kv, step, from, r->dout, at->v_turned, r->dp);
    for (int64_t j = from; j < to; j++) {
        scores.scores = r->scores + j % 2 * PANEL * PANEL;
        scores.dp = r->dp + j % 2 * PANEL * PANEL;
        scores.seen = batch->seen + (number * batch->n_panels + j) * PANEL;
        scores.p_right = r->p + ((j - chunk) * b->steps + step) * STEP_ELEMENTS;
        scores.ds_right = r->ds + ((j - chunk) * b->steps + step) * STEP_ELEMENTS;
        scores.ds_left = r->ds_left + (step * b->chunk + j - chunk) * STEP_ELEMENTS;
        if (j + 1 < to)
            panel_scores(b, batch, kv, step, j + 1, r->q, at->k_turned, r->scores);
        at->tiles->softmax_back(&scores, 0, PANEL / 2);
        if (j + 1 < to)
            panel_scores(b, batch, kv, step, j + 1, r->dout, at->v_turned, r->dp);
        at->tiles->softmax_back(&scores, PANEL / 2, PANEL);
    }
}

/* Whether the products of dQ may write where it belongs: whole panels of dimensions, rows that follow each
 * other. */
static bool dq_in_place(const struct back *b, const struct tile_block *block)
{
    return block->all_ask && b->at.shape->head_dim % PANEL == 0;
}

/* dQ of a block and head goes on with those keys. */
static void step_dq(const struct back *b, const struct tile_batch *batch, int64_t kv, int64_t step,
                    int64_t from, int64_t to, int64_t chunk, const struct back_room *r)
{
    const struct tile_attention *at = &b->at;
    const struct tile_block *block = &batch->blocks[step / at->group];
    const uint16_t *left = r->ds_left + (step * b->chunk + from - chunk) * STEP_ELEMENTS;
    struct panel_product p = {.runs = batch->runs, .columns = PANEL};
    float *dq = r->dq + step * PANEL * at->n_dims * PANEL;
    p.rows = tiles_rows(at->tiles, block->n);
    p.ld_out = at->n_dims * PANEL;
    if (dq_in_place(b, block)) {
        int64_t head = kv * at->group + step % at->group, d = at->shape->head_dim;
        p.ld_out = at->shape->n_q_heads * d;
        dq = b->dq + block->query[0] * p.ld_out + head * d;
        p.rows = block->n;
    }
    p.ld_in = p.ld_out;
    for (int64_t e = 0; e < at->n_dims; e++) {
        p.n_runs = cpu__tiles_key_runs(at, batch, from, to, left, at->k_right, kv, e);
        p.out = dq + e * PANEL;
        p.in = from > block->from ? p.out : NULL;
        at->tiles->product(&p);
    }
}

/* The sum over the rows of blocks [first, end), all heads: full blocks at one go, and of the others each
 * step, since its rows end before it. Returns how many runs. */
static int sum_runs(const struct back *b, const struct tile_batch *batch, int64_t first, int64_t end,
                    struct panel_run *runs, const uint16_t *left, const uint16_t *right)
{
    int n = 0;
    bool full = false;
    for (int64_t i = first; i < end; i++)
        for (int64_t h = 0; h < b->at.group; h++, left += STEP_ELEMENTS, right += STEP_ELEMENTS) {
            int padding = PANEL - batch->blocks[i].n;
            if (full && padding == 0)
                runs[n - 1].n_steps++;
            else
                runs[n++] = (struct panel_run){left, right, 1, padding};
            full = padding == 0;
        }
    return n;
}

/* The sums of dK and dV of panel j go on with the rows of all blocks that see it. */
static void panel_sums(struct back *b, const struct tile_batch *batch, const struct part *part, int64_t kv,
                       int64_t j, int64_t chunk, const struct back_room *r)
{
    const struct tile_attention *at = &b->at;
    const struct key_panel *panel = &batch->panels[j];
    const struct tree *tree = &b->trees[at->segments[panel->segment].root];
    int64_t first = 0, end = batch->n_blocks;
    while (batch->blocks[first].to <= j)
        first++;
    while (batch->blocks[end - 1].from > j)
        end--;
    int64_t place = part->sums + kv * tree->n_panels + b->tree_panel[panel->segment] + panel->index;
    int64_t step = first * at->group, right = ((j - chunk) * b->steps + step) * STEP_ELEMENTS;
    struct panel_product p = {.runs = r->runs, .ld_in = PANEL, .ld_out = PANEL};
    p.columns = tiles_half(panel->n);
    p.out = b->sums + place * sum_floats(at);
    for (int is_v = 0; is_v < 2; is_v++)
        for (int64_t e = 0; e < at->n_dims; e++, p.out += PANEL * PANEL) {
            const uint16_t *left =
                (is_v ? r->dout_turned : r->q_turned) + (e * b->steps + step) * STEP_ELEMENTS;
            p.n_runs = sum_runs(b, batch, first, end, r->runs, left, (is_v ? r->p : r->ds) + right);
            p.rows = tiles_half((int)cpu_min(at->shape->head_dim - e * PANEL, PANEL));
            p.in = b->begun[place] ? p.out : NULL;
            at->tiles->product(&p);
        }
    b->begun[place] = 1;
}

static void store_dq(const struct back *b, const struct tile_block *block, int64_t kv, const float *dq)
{
    int64_t d = b->at.shape->head_dim, ld = b->at.n_dims * PANEL, group = b->at.group;
    for (int i = 0; i < block->n; i++)
        for (int64_t h = 0; block->query[i] >= 0 && h < group; h++)
            memcpy(b->dq + (block->query[i] * b->at.shape->n_q_heads + kv * group + h) * d,
                   dq + (h * PANEL + i) * ld, (size_t)d * sizeof *dq);
}

static void batch_back(struct back *b, const struct tile_batch *batch, const struct part *part, int64_t kv,
                       const struct back_room *r)
{
    int64_t group = b->at.group, n_steps = batch->n_blocks * group;
    for (int64_t i = 0; i < batch->n_blocks; i++)
        block_pack(b, &batch->blocks[i], kv, i * group, r);
    for (int64_t chunk = 0; chunk < batch->n_panels; chunk += b->chunk) {
        int64_t end = cpu_min(chunk + b->chunk, batch->n_panels);
        for (int64_t step = 0; step < n_steps; step++) {
            const struct tile_block *block = &batch->blocks[step / group];
            int64_t from = block->from > chunk ? block->from : chunk, to = cpu_min(block->to, end);
            if (from >= to)
                continue;
            step_scores(b, batch, kv, step, from, to, chunk, r);
            step_dq(b, batch, kv, step, from, to, chunk, r);
        }
        for (int64_t j = chunk; j < end; j++)
            panel_sums(b, batch, part, kv, j, chunk, r);
    }
    for (int64_t i = 0; i < batch->n_blocks; i++)
        if (!dq_in_place(b, &batch->blocks[i]))
            store_dq(b, &batch->blocks[i], kv, r->dq + i * group * PANEL * b->at.n_dims * PANEL);
}

/* Where in a part a thread is. */
struct cursor {
    int32_t segment;
    int64_t block, left; /* in the segment; of the part */
};
static void cursor_forward(const struct back *b, struct cursor *c, int64_t n)
{
    c->block += n;
    c->left -= n;
    while (c->left > 0 && c->block == b->at.segments[c->segment].n_panels) {
        c->segment = b->next[c->segment];
        c->block = 0;
    }
}
static void part_back(struct back *b, const struct part *part, int64_t kv)
{
    struct tile_batch batch;
    struct back_room room;
    cpu__tiles_batch_room(&b->at, &batch, b->blocks, back_room(b, &room, NULL));
    back_room(b, &room, batch.room);
    struct cursor c = {part->segment, part->block, part->n_blocks};
    while (c.left > 0) {
        int most = (int)cpu_min(c.left, b->blocks);
        int n = cpu__tiles_batch(&b->at, &batch, c.segment, c.block, most);
        cursor_forward(b, &c, n > 0 ? n : 1); /* 0: nobody asks in that block */
        if (n > 0)
            batch_back(b, &batch, part, kv, &room);
    }
}

/* Sums [D, keys] of a panel to dk or dv. */
static void store_turned(const struct back *b, float *to, const float *sums, int64_t n)
{
    const struct attention_shape *shape = b->at.shape;
    int64_t d = shape->head_dim, ld = shape->n_kv_heads * d;
    float block[PANEL * PANEL];
    for (int64_t e = 0; e < b->at.n_dims; e++) {
        int64_t dims = cpu_min(d - e * PANEL, PANEL);
        bool whole = dims == PANEL && n == PANEL;
        float *at = whole ? to + e * PANEL : block;
        b->at.dev->kernels->transpose(at, whole ? ld : PANEL, sums + e * PANEL * PANEL, PANEL, PANEL, PANEL);
        for (int64_t i = 0; !whole && i < n; i++)
            memcpy(to + i * ld + e * PANEL, block + i * PANEL, (size_t)dims * sizeof *to);
    }
}

/* dK and dV of a panel from the sums of the tree's parts. */
static void panel_reduce(const struct back *b, int64_t panel, int64_t kv)
{
    const struct tile_attention *at = &b->at;
    int32_t s = at->segment_of[panel];
    const struct segment *segment = &at->shape->segments[s];
    const struct tree *tree = &b->trees[at->segments[s].root];
    int64_t index = panel - at->segments[s].first_panel,
            n = cpu_min(segment->n_tokens - index * PANEL, PANEL);
    int64_t d = at->shape->head_dim, ld = at->shape->n_kv_heads * d, floats = sum_floats(at);
    int64_t to = (segment->start + index * PANEL) * ld + kv * d;
    float *sums = NULL;
    for (int32_t i = tree->first_part; i < tree->first_part + tree->n_parts; i++) {
        int64_t place = b->parts[i].sums + kv * tree->n_panels + b->tree_panel[s] + index;
        if (!b->begun[place])
            continue;
        if (sums == NULL)
            sums = b->sums + place * floats;
        else
            at->dev->kernels->add(sums, b->sums + place * floats, floats);
    }
    for (int64_t i = 0; sums == NULL && i < n; i++) {
        memset(b->dk + to + i * ld, 0, (size_t)d * sizeof *b->dk);
        memset(b->dv + to + i * ld, 0, (size_t)d * sizeof *b->dv);
    }
    if (sums != NULL) {
        store_turned(b, b->dk + to, sums, n);
        store_turned(b, b->dv + to, sums + floats / 2, n);
    }
}

void cpu__tiles_attention_back(struct device *dev, float *dq, float *dk, float *dv, const float *dout,
                               const float *q, const float *k, const float *v, const float *out,
                               const float *lse, const struct attention_shape *shape)
{
    struct back b = {
        .dq = dq, .dk = dk, .dv = dv, .dout = dout, .q = q, .k = k, .v = v, .out = out, .lse = lse};
    back_open(&b, dev, shape);
    int64_t n_kv = shape->n_kv_heads, n_panel_tasks = b.at.n_panels * n_kv;
#pragma omp parallel num_threads(dev->n_threads) if (n_panel_tasks > 1 && cpu_attention_large(shape))
    {
        dev->tiles->begin();
#pragma omp for schedule(dynamic, TASKS_AT_ONCE)
        for (int64_t task = 0; task < n_panel_tasks; task++)
            cpu__tiles_pack_keys(&b.at, task % b.at.n_panels, task / b.at.n_panels, k, v);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < b.n_parts * n_kv; task++)
            part_back(&b, &b.parts[task / n_kv], task % n_kv);
        dev->tiles->end();
#pragma omp for schedule(dynamic, TASKS_AT_ONCE) nowait
        for (int64_t task = 0; task < n_panel_tasks; task++)
            panel_reduce(&b, task / n_kv, task % n_kv);
    }
}
