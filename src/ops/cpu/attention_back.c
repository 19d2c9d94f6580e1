/* The way back through attention, from the logarithm of each softmax's denominator:
 *   P = exp(S - lse), dV = P^T dO, dP = dO V^T, dS = scale P (dP - sum(dO * O)), dQ = dS K, dK = dS^T Q.
 *
 * Each element of dK and dV is one chain of multiply-adds over the query rows in their order in the sequence.
 * Two plans walk those chains in the same order and so give the same bits:
 *   - whole: a tree of segments and a key/value head is one task, its blocks in order (five products a
 * block);
 *   - split: first dQ, a block a task; then dK and dV, a tile of keys a task (seven products a block).
 * The first is cheaper but has few tasks when all rows share one prefix. */
#include "attention_internal.h"
#include "attention_tiles_internal.h"
#include <omp.h>
#include <string.h>

enum { KEY_TILE = 128 };

struct attention_grads {
    float *dq, *dk, *dv;
    const float *dout, *q, *k, *v, *out, *lse;
    const float *turned_k, *turned_v;
};

/* Scores become probabilities, dp becomes dS. */
static void block_softmax_back(const struct attention *at, const struct query_block *b, int64_t kv,
                               float *scores, float *dp, const struct attention_grads *g)
{
    const struct attention_shape *shape = at->shape;
    const struct kernels *kernels = at->dev->kernels;
    int64_t d = shape->head_dim, n = b->hi - b->origin;
    for (int64_t i = 0; i < b->n_tokens; i++) {
        int64_t lo, hi;
        cpu__attention_seen(at, b, i, &lo, &hi);
        for (int64_t h = 0; h < at->group; h++) {
            int64_t row = (b->start + i) * shape->n_q_heads + kv * at->group + h, r = i * at->group + h;
            float through = kernels->dot(g->dout + row * d, g->out + row * d, d);
            kernels->prob(scores + r * b->ld, lo, hi, n, shape->scale, g->lse[row]);
            kernels->dscore(dp + r * b->ld, scores + r * b->ld, n, through, shape->scale);
        }
    }
}

/* to[key] continues its chain with weights^T [keys, rows] times rows [rows, D]. */
static void block_to_keys(const struct attention *at, const struct query_block *b, int64_t kv, float *to,
                          const float *weights, const float *rows)
{
    int64_t d = at->shape->head_dim, step = at->shape->n_kv_heads * d, range = 0, index = 0;
    struct key_piece piece;
    struct product p = {.n = d, .k = b->rows, .a_row = 1, .a_k = b->ld, .b = rows, .ldb = d, .ldc = step};
    p.chain = true;
    while (cpu__attention_piece(b, &range, &index, &piece)) {
        p.m = piece.n;
        p.a = weights + piece.column;
        p.c = to + piece.token * step + kv * d;
        at->dev->kernels->gemm(&p);
    }
}

static void block_back(const struct attention *at, const struct query_block *b, int64_t kv, bool queries,
                       bool keys, const struct attention_grads *g)
{
    const struct attention_shape *shape = at->shape;
    int64_t d = shape->head_dim, row = at->group * d;
    size_t floats = (size_t)(b->rows * (3 * d + 2 * b->ld));
    float *q = ops__scratch(at->dev, omp_get_thread_num(), floats * sizeof *q);
    float *dout = q + b->rows * d, *sums = dout + b->rows * d, *scores = sums + b->rows * d;
    float *dp = scores + b->rows * b->ld;
    cpu__attention_gather(at, b, kv, q, g->q);
    cpu__attention_gather(at, b, kv, dout, g->dout);
    cpu__attention_scores(at, b, kv, scores, q, g->turned_k);
    cpu__attention_scores(at, b, kv, dp, dout, g->turned_v);
    block_softmax_back(at, b, kv, scores, dp, g);
    if (queries) {
        cpu__attention_weigh(at, b, kv, sums, dp, g->k);
        for (int64_t i = 0; i < b->n_tokens; i++)
            memcpy(g->dq + (b->start + i) * shape->n_q_heads * d + kv * row, sums + i * row,
                   (size_t)row * sizeof *sums);
    }
    if (keys) {
        block_to_keys(at, b, kv, g->dv, scores, dout);
        block_to_keys(at, b, kv, g->dk, dp, q);
    }
}

static int32_t tree_of(const struct attention_shape *shape, int32_t s)
{
    while (shape->segments[s].parent >= 0)
        s = shape->segments[s].parent;
    return s;
}

/* Scores of each tree of segments (at its root's index, 0 elsewhere) and of all. */
static int64_t tree_costs(const struct attention *at, int64_t *cost)
{
    int64_t total = 0;
    memset(cost, 0, (size_t)at->shape->n_segments * sizeof *cost);
    for (int32_t s = 0; s < at->shape->n_segments; s++) {
        int32_t root = tree_of(at->shape, s);
        for (int64_t block = at->first_block[s]; block < at->first_block[s + 1]; block++) {
            struct query_block b;
            cpu__attention_block(at, block, &b);
            cost[root] += b.rows * (b.hi - b.lo);
            total += b.rows * (b.hi - b.lo);
        }
    }
    return total;
}

/* Whether handing whole trees to the threads in order ends before the split plan, which does 7/5 of the work.
 */
static bool whole_is_faster(const struct attention *at, int64_t *cost, int64_t *load)
{
    int64_t n_threads = at->dev->n_threads, total = tree_costs(at, cost), longest = 0;
    memset(load, 0, (size_t)n_threads * sizeof *load);
    for (int32_t s = 0; s < at->shape->n_segments; s++)
        for (int32_t kv = 0; cost[s] > 0 && kv < at->shape->n_kv_heads; kv++) {
            int64_t least = 0;
            for (int64_t i = 1; i < n_threads; i++)
                least = load[i] < load[least] ? i : least;
            load[least] += cost[s];
            longest = load[least] > longest ? load[least] : longest;
        }
    return 5 * longest <= 7 * (total * at->shape->n_kv_heads / n_threads);
}

static void back_whole(const struct attention *at, const int64_t *cost, const struct attention_grads *g)
{
    int64_t n_kv = at->shape->n_kv_heads, n_tasks = at->shape->n_segments * n_kv;
#pragma omp parallel for num_threads(at->dev->n_threads)                                                     \
    schedule(dynamic) if (n_tasks > 1 && cpu_attention_large(at->shape))
    for (int64_t task = 0; task < n_tasks; task++) {
        int32_t root = (int32_t)(task / n_kv);
        for (int32_t s = root; cost[root] > 0 && s < at->shape->n_segments; s++) {
            if (tree_of(at->shape, s) != root)
                continue;
            for (int64_t block = at->first_block[s]; block < at->first_block[s + 1]; block++) {
                struct query_block b;
                cpu__attention_block(at, block, &b);
                block_back(at, &b, task % n_kv, true, true, g);
            }
        }
    }
}

/* dK and dV of keys [first, first + n) of segment s, from all blocks that see them. */
static void tile_back(const struct attention *at, int32_t s, int64_t first, int64_t n, int64_t kv,
                      const struct attention_grads *g)
{
    const struct chain *c = &at->chains[s];
    int64_t depth = c->n_ranges - 1, lo = c->before + first;
    for (int32_t below = s; below < at->shape->n_segments; below++) {
        const struct chain *other = &at->chains[below];
        if (other->n_ranges <= depth || other->ranges[depth].start != c->ranges[depth].start ||
            other->ranges[depth].n_tokens != c->ranges[depth].n_tokens)
            continue;
        for (int64_t block = at->first_block[below]; block < at->first_block[below + 1]; block++) {
            struct query_block b;
            cpu__attention_block(at, block, &b);
            if (cpu__attention_narrow(&b, lo, lo + n))
                block_back(at, &b, kv, false, true, g);
        }
    }
}

static void back_split(const struct attention *at, const struct attention_grads *g)
{
    const struct attention_shape *shape = at->shape;
    int64_t n_kv = shape->n_kv_heads, n_tasks = at->n_blocks * n_kv;
#pragma omp parallel num_threads(at->dev->n_threads) if (cpu_attention_large(shape))
    {
#pragma omp for schedule(dynamic) nowait
        for (int64_t task = 0; task < n_tasks; task++) {
            struct query_block b;
            cpu__attention_block(at, task / n_kv, &b);
            block_back(at, &b, task % n_kv, true, false, g);
        }
        for (int32_t s = 0; s < shape->n_segments; s++) {
            int64_t tiles = cpu_blocks(shape->segments[s].n_tokens, KEY_TILE);
#pragma omp for schedule(dynamic) nowait
            for (int64_t task = 0; task < tiles * n_kv; task++) {
                int64_t first = task / n_kv * KEY_TILE;
                tile_back(at, s, first, cpu_min(shape->segments[s].n_tokens - first, KEY_TILE), task % n_kv,
                          g);
            }
        }
    }
}

void cpu__attention_back(struct device *dev, float *dq, float *dk, float *dv, const float *dout,
                         const float *q, const float *k, const float *v, const float *out, const float *lse,
                         const struct attention_shape *shape)
{
    if (dev->tiles != NULL) {
        cpu__tiles_attention_back(dev, dq, dk, dv, dout, q, k, v, out, lse, shape);
        return;
    }
    struct attention at;
    size_t turned = cpu__attention_turned_floats(shape),
           counts = (size_t)(shape->n_segments + dev->n_threads);
    size_t key_bytes = (size_t)(shape->n_tokens * shape->n_kv_heads * shape->head_dim) * sizeof *dk;
    cpu__attention_open(&at, dev, shape, 2 * turned + 2 * counts);
    float *turned_k = at.extra, *turned_v = at.extra + turned;
    int64_t *cost = (int64_t *)(at.extra + 2 * turned), *load = cost + shape->n_segments;
    struct attention_grads g = {dq, dk, dv, dout, q, k, v, out, lse, turned_k, turned_v};
    cpu__attention_turn(&at, turned_k, k);
    cpu__attention_turn(&at, turned_v, v);
    memset(dk, 0, key_bytes);
    memset(dv, 0, key_bytes);
    if (whole_is_faster(&at, cost, load))
        back_whole(&at, cost, &g);
    else
        back_split(&at, &g);
}
