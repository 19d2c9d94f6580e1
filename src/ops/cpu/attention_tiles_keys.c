/* Which panels of keys a block of queries sees, and the packing of keys and values. */
#include "attention_tiles_internal.h"
#include <omp.h>
#include <string.h>

static void segments_fill(struct tile_attention *at)
{
    const struct attention_shape *shape = at->shape;
    for (int32_t s = 0; s < shape->n_segments; s++) {
        const struct segment *from = &shape->segments[s];
        struct tile_segment *to = &at->segments[s];
        *to = (struct tile_segment){s, 1, at->n_panels, cpu_blocks(from->n_tokens, PANEL), 0};
        if (from->parent >= 0) {
            const struct tile_segment *parent = &at->segments[from->parent];
            to->root = parent->root;
            to->depth = parent->depth + 1;
            to->before = parent->before + parent->n_panels;
        }
        at->n_panels += to->n_panels;
        if (to->before + to->n_panels > at->most_panels)
            at->most_panels = to->before + to->n_panels;
        if (to->depth > at->most_depth)
            at->most_depth = to->depth;
    }
}

static int64_t count_panels(const struct attention_shape *shape)
{
    int64_t n = 0;
    for (int32_t s = 0; s < shape->n_segments; s++)
        n += cpu_blocks(shape->segments[s].n_tokens, PANEL);
    return n;
}

void cpu__tiles_attention_open(struct tile_attention *at, struct device *dev,
                               const struct attention_shape *shape, unsigned kinds, size_t extra_bytes)
{
    *at = (struct tile_attention){.dev = dev, .tiles = dev->tiles, .shape = shape};
    at->group = shape->n_q_heads / shape->n_kv_heads;
    at->n_dims = tiles_steps(shape->head_dim);
    int64_t n_panels = count_panels(shape);
    size_t segment_bytes = (size_t)shape->n_segments * sizeof *at->segments,
           place_bytes = (size_t)n_panels * sizeof *at->segment_of,
           form_bytes =
               (size_t)(shape->n_kv_heads * n_panels * at->n_dims) * STEP_ELEMENTS * sizeof(uint16_t);
    uint16_t **forms[] = {&at->k_turned, &at->k_right, &at->v_turned, &at->v_right};
    size_t all = tiles_round(segment_bytes) + tiles_round(place_bytes) + 4 * form_bytes + extra_bytes;
    char *base = ops__scratch(dev, dev->n_threads, all);
    size_t used = 0;
    at->segments = tiles_take(base, &used, segment_bytes);
    at->segment_of = tiles_take(base, &used, place_bytes);
    for (unsigned i = 0; i < 4; i++)
        if (kinds & 1u << i)
            *forms[i] = tiles_take(base, &used, form_bytes);
    at->extra = base + used;
    segments_fill(at);
    for (int32_t s = 0; s < shape->n_segments; s++)
        for (int64_t i = 0; i < at->segments[s].n_panels; i++)
            at->segment_of[at->segments[s].first_panel + i] = s;
}

static struct key_panel key_panel_of(const struct tile_attention *at, int32_t segment, int64_t index)
{
    const struct segment *s = &at->shape->segments[segment];
    return (struct key_panel){.segment = segment,
                              .n = (int)cpu_min(s->n_tokens - index * PANEL, PANEL),
                              .token = s->start + index * PANEL,
                              .index = index};
}

/* Step of keys `index` of a segment, dimensions e. */
static inline int64_t right_step(const struct tile_attention *at, int64_t kv, int32_t segment, int64_t index,
                                 int64_t e)
{
    const struct tile_segment *s = &at->segments[segment];
    return (kv * at->n_panels + s->first_panel) * at->n_dims + e * s->n_panels + index;
}

void cpu__tiles_pack_keys(const struct tile_attention *at, int64_t place, int64_t kv, const float *k,
                          const float *v)
{
    const struct attention_shape *shape = at->shape;
    int32_t segment = at->segment_of[place];
    struct key_panel p = key_panel_of(at, segment, place - at->segments[segment].first_panel);
    int64_t d = shape->head_dim, ld = shape->n_kv_heads * d, from = p.token * ld + kv * d;
    if (at->k_turned != NULL)
        at->tiles->pack_right_turned(tiles_turned_panel(at, at->k_turned, kv, &p), k + from, ld, p.n, d, 1);
    if (at->v_turned != NULL)
        at->tiles->pack_right_turned(tiles_turned_panel(at, at->v_turned, kv, &p), v + from, ld, p.n, d, 1);
    for (int64_t e = 0; e < at->n_dims; e++) {
        int64_t step = right_step(at, kv, segment, p.index, e) * STEP_ELEMENTS,
                n = cpu_min(d - e * PANEL, PANEL);
        if (at->k_right != NULL)
            at->tiles->pack_right(at->k_right + step, k + from + e * PANEL, ld, n, p.n, 1);
        if (at->v_right != NULL)
            at->tiles->pack_right(at->v_right + step, v + from + e * PANEL, ld, n, p.n, 1);
    }
}

void cpu__tiles_batch_room(const struct tile_attention *at, struct tile_batch *batch, int n_blocks,
                           size_t room_bytes)
{
    size_t panel_bytes = (size_t)at->most_panels * sizeof *batch->panels,
           seen_bytes = (size_t)(n_blocks * at->most_panels) * PANEL * sizeof *batch->seen,
           run_bytes = (size_t)at->most_depth * sizeof *batch->runs;
    size_t all = tiles_round(panel_bytes) + tiles_round(seen_bytes) + tiles_round(run_bytes) + room_bytes;
    char *base = ops__scratch(at->dev, omp_get_thread_num(), all);
    size_t used = 0;
    batch->panels = tiles_take(base, &used, panel_bytes);
    batch->seen = tiles_take(base, &used, seen_bytes);
    batch->runs = tiles_take(base, &used, run_bytes);
    batch->room = base + used;
}

/* False when nobody asks in the block. */
static bool block_fill(const struct tile_attention *at, struct tile_block *b, int32_t segment, int64_t index)
{
    const struct attention_shape *shape = at->shape;
    struct key_panel tokens = key_panel_of(at, segment, index);
    b->token = tokens.token;
    b->n = tokens.n;
    int64_t first = ops__queries_before(shape, b->token), end = ops__queries_before(shape, b->token + b->n);
    b->all_ask = end - first == b->n;
    for (int i = 0; i < PANEL; i++)
        b->query[i] = -1;
    for (int64_t i = first; i < end; i++)
        b->query[ops__query_token(shape, i) - b->token] = i;
    return end > first;
}

/* Whether a token at that position is too far behind the panel's last key; positions rise along a chain. */
static bool panel_passed(const struct attention_shape *shape, const struct key_panel *p, int32_t position)
{
    return shape->window > 0 && position - shape->positions[p->token + p->n - 1] >= shape->window;
}

/* The panels that the batch sees, found from its last one back. */
static void batch_panels(const struct tile_attention *at, struct tile_batch *batch, int64_t own)
{
    const struct attention_shape *shape = at->shape;
    int32_t position = shape->positions[batch->blocks[0].token];
    int64_t end = at->segments[batch->segment].before + own, first = end;
    struct key_panel *panels = batch->panels;
    bool passed = false;
    for (int32_t s = batch->segment; s >= 0 && !passed; s = shape->segments[s].parent)
        for (int64_t i = (s == batch->segment ? own : at->segments[s].n_panels) - 1; i >= 0 && !passed; i--) {
            struct key_panel p = key_panel_of(at, s, i);
            passed = panel_passed(shape, &p, position);
            if (!passed)
                panels[--first] = p;
        }
    batch->n_panels = end - first;
    memmove(panels, panels + first, (size_t)batch->n_panels * sizeof *panels);
}

/* Which of panel p's keys each of the block's tokens sees. */
static void seen_fill(const struct tile_attention *at, uint32_t *seen, const struct tile_block *b,
                      const struct key_panel *p, bool own)
{
    const struct attention_shape *shape = at->shape;
    int low = 0; /* keys that the window has left behind: they do not come back */
    for (int i = 0; i < PANEL; i++) {
        seen[i] = 0;
        if (i >= b->n)
            continue;
        int32_t position = shape->positions[b->token + i];
        while (shape->window > 0 && low < p->n &&
               position - shape->positions[p->token + low] >= shape->window)
            low++;
        int64_t high = own ? cpu_min(b->token + i - p->token + 1, p->n) : p->n;
        if (b->query[i] >= 0 && high > low)
            seen[i] = (0xffffffffu >> (PANEL - high)) & (0xffffffffu << low);
    }
}

int cpu__tiles_batch(const struct tile_attention *at, struct tile_batch *batch, int32_t segment,
                     int64_t first, int most)
{
    batch->segment = segment;
    int64_t left = at->segments[segment].n_panels - first;
    int n = 0;
    while (n < most && n < left && block_fill(at, &batch->blocks[n], segment, first + n))
        n++;
    batch->n_blocks = n;
    if (n == 0)
        return 0;
    batch_panels(at, batch, first + n);
    for (int i = 0; i < n; i++) {
        struct tile_block *b = &batch->blocks[i];
        int32_t position = at->shape->positions[b->token];
        b->from = i > 0 ? batch->blocks[i - 1].from : 0;
        b->to = batch->n_panels - (n - 1 - i);
        while (panel_passed(at->shape, &batch->panels[b->from], position))
            b->from++;
        for (int64_t j = b->from; j < b->to; j++)
            seen_fill(at, batch->seen + (i * batch->n_panels + j) * PANEL, b, &batch->panels[j],
                      batch->panels[j].segment == segment);
    }
    return n;
}

const float *cpu__tiles_rows(const struct tile_attention *at, const struct tile_block *b, int64_t kv,
                             const float *x, float *room, int64_t *ld)
{
    int64_t n = at->group * at->shape->head_dim, row = at->shape->n_kv_heads * n;
    *ld = row;
    if (b->all_ask)
        return x + b->query[0] * row + kv * n;
    *ld = n;
    for (int i = 0; i < b->n; i++)
        if (b->query[i] >= 0)
            memcpy(room + i * n, x + b->query[i] * row + kv * n, (size_t)n * sizeof *x);
        else
            memset(room + i * n, 0, (size_t)n * sizeof *x);
    return room;
}

void cpu__tiles_pack_rows(const struct tile_attention *at, const struct tile_block *b, uint16_t *left,
                          const float *rows, int64_t ld)
{
    int64_t d = at->shape->head_dim;
    if (d % STEP == 0) /* the heads' steps follow each other: one pass over whole rows */
        at->tiles->pack_left(left, rows, ld, b->n, at->group * d, 1);
    for (int64_t h = 0; d % STEP != 0 && h < at->group; h++)
        at->tiles->pack_left(left + h * at->n_dims * STEP_ELEMENTS, rows + h * d, ld, b->n, d, 1);
}

int cpu__tiles_key_runs(const struct tile_attention *at, const struct tile_batch *batch, int64_t from,
                        int64_t to, const uint16_t *left, const uint16_t *right, int64_t kv, int64_t e)
{
    int n = 0;
    for (int64_t j = from; j < to; left += batch->runs[n++].n_steps * STEP_ELEMENTS) {
        const struct key_panel *p = &batch->panels[j];
        int64_t end = j + 1;
        while (end < to && batch->panels[end].segment == p->segment)
            end++;
        batch->runs[n].left = left;
        batch->runs[n].right = right + right_step(at, kv, p->segment, p->index, e) * STEP_ELEMENTS;
        batch->runs[n].n_steps = end - j;
        batch->runs[n].padding = PANEL - batch->panels[end - 1].n;
        j = end;
    }
    return n;
}
