/* Attention over packed sequences.
 *
 * A segment's tokens see a chain of key ranges (its parents', then its own). Keys are counted along that
 * chain, and everything a query needs is done in that count: scores of a block of queries are laid out by it,
 * sums run in its order. So a row's bits are the same wherever it lies in the sequence, and whether its
 * prefix is shared or its own. Work is one (block of queries, key/value head) at a time; the query heads of a
 * group stand side by side as rows of one product. */
#include "attention_internal.h"
#include "attention_tiles_internal.h"
#include <math.h>
#include <omp.h>
#include <string.h>

enum {
    BLOCK_ROWS = 60,        /* query rows (tokens x heads of a group) of a block, about */
    BLOCK_SCORES = 1 << 18, /* scores of a block, about: they should stay in the second-level cache */
    SCORE_ALIGN = 16,       /* lanes of the sums over keys */
    TURN_TOKENS = 256,
};

/* Lists the chains of all segments. */
static void chains_fill(struct attention *at, struct key_range *ranges)
{
    const struct attention_shape *shape = at->shape;
    for (int32_t s = 0; s < shape->n_segments; s++) {
        struct chain *c = &at->chains[s];
        c->ranges = ranges;
        c->n_ranges = ops__key_chain(shape, s, ranges);
        c->before = 0;
        for (int64_t r = 0; r < c->n_ranges - 1; r++)
            c->before += ranges[r].n_tokens;
        int64_t start = shape->segments[s].start;
        c->first_query = ops__queries_before(shape, start);
        c->n_queries = ops__queries_before(shape, start + shape->segments[s].n_tokens) - c->first_query;
        ranges += c->n_ranges;
    }
}

static int64_t chain_lengths(const struct attention_shape *shape)
{
    int64_t n = 0;
    for (int32_t s = 0; s < shape->n_segments; s++)
        for (int32_t a = s; a >= 0; a = shape->segments[a].parent)
            n++;
    return n;
}

/* Queries of a block of segment s: few enough that its scores fit the cache. */
static int64_t block_tokens(const struct attention *at, int32_t s)
{
    int64_t keys = at->chains[s].before + at->shape->segments[s].n_tokens;
    int64_t window = at->shape->window > 0 ? at->shape->window + BLOCK_ROWS : keys;
    int64_t rows = BLOCK_SCORES / (cpu_min(keys, window) + 1);
    int64_t tokens = cpu_min(rows, BLOCK_ROWS) / at->group;
    return tokens > 0 ? tokens : 1;
}

void cpu__attention_open(struct attention *at, struct device *dev, const struct attention_shape *shape,
                         size_t extra_floats)
{
    int64_t n_segments = shape->n_segments, n_ranges = chain_lengths(shape);
    *at = (struct attention){.dev = dev, .shape = shape, .group = shape->n_q_heads / shape->n_kv_heads};
    at->turned_ld = cpu__attention_turned_ld(shape);
    size_t chain_bytes =
        (size_t)n_segments * sizeof *at->chains + (size_t)n_ranges * sizeof(struct key_range);
    chain_bytes = (chain_bytes + (size_t)(n_segments + 1) * sizeof(int64_t) + 63) / 64 * 64;
    char *base = ops__scratch(dev, dev->n_threads, chain_bytes + extra_floats * sizeof(float));
    at->extra = (float *)(base + chain_bytes);
    at->chains = (struct chain *)base;
    struct key_range *ranges = (struct key_range *)(at->chains + n_segments);
    at->first_block = (int64_t *)(ranges + n_ranges);
    chains_fill(at, ranges);
    at->first_block[0] = 0;
    for (int32_t s = 0; s < shape->n_segments; s++) {
        at->chains[s].block_tokens = block_tokens(at, s);
        at->first_block[s + 1] =
            at->first_block[s] + cpu_blocks(at->chains[s].n_queries, at->chains[s].block_tokens);
    }
    at->n_blocks = at->first_block[n_segments];
}

/* An odd number of cache lines: the rows then spread over the cache's sets. */
int64_t cpu__attention_turned_ld(const struct attention_shape *shape)
{
    return (cpu_blocks(shape->n_tokens, SCORE_ALIGN) | 1) * SCORE_ALIGN;
}

size_t cpu__attention_turned_floats(const struct attention_shape *shape)
{
    return (size_t)(shape->n_kv_heads * shape->head_dim * cpu__attention_turned_ld(shape));
}

/* turned[kv head][D][turned_ld] from x [T, K, D]. */
void cpu__attention_turn(const struct attention *at, float *turned, const float *x)
{
    const struct attention_shape *shape = at->shape;
    int64_t d = shape->head_dim, n_kv = shape->n_kv_heads, cuts = cpu_blocks(shape->n_tokens, TURN_TOKENS);
    struct device *dev = at->dev;
#pragma omp parallel for num_threads(dev->n_threads)                                                         \
    schedule(static) if (cuts * n_kv > 1 && cpu_attention_large(shape))
    for (int64_t task = 0; task < cuts * n_kv; task++) {
        int64_t kv = task / cuts, from = task % cuts * TURN_TOKENS;
        dev->kernels->transpose(turned + kv * d * at->turned_ld + from, at->turned_ld,
                                x + (from * n_kv + kv) * d, n_kv * d,
                                cpu_min(shape->n_tokens - from, TURN_TOKENS), d);
    }
}

/* Place in the packed sequence of key `index` of a chain. */
static int64_t chain_token(const struct chain *c, int64_t index)
{
    int64_t r = 0;
    for (; r < c->n_ranges - 1 && index >= c->ranges[r].n_tokens; r++)
        index -= c->ranges[r].n_tokens;
    return c->ranges[r].start + index;
}

/* First key of the chain that token t sees: positions rise along a chain. */
static int64_t first_key(const struct attention *at, const struct chain *c, int64_t t, int64_t end)
{
    const int32_t *positions = at->shape->positions;
    int64_t low = 0, high = end - 1; /* the token sees itself, the last one */
    if (at->shape->window == 0)
        return 0;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (positions[t] - positions[chain_token(c, middle)] < at->shape->window)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void narrow_to(struct query_block *b, int64_t lo, int64_t hi)
{
    b->lo = lo;
    b->hi = hi;
    b->origin = lo / SCORE_ALIGN * SCORE_ALIGN;
    b->ld = cpu_blocks(hi - b->origin, SCORE_ALIGN) * SCORE_ALIGN;
}

void cpu__attention_block(const struct attention *at, int64_t block, struct query_block *b)
{
    int32_t low = 0, high = at->shape->n_segments - 1; /* the last segment that begins at or before block */
    while (low < high) {
        int32_t middle = low + (high - low + 1) / 2;
        if (at->first_block[middle] <= block)
            low = middle;
        else
            high = middle - 1;
    }
    const struct chain *c = &at->chains[low];
    int64_t first = (block - at->first_block[low]) * c->block_tokens;
    b->chain = c;
    b->n_tokens = cpu_min(c->n_queries - first, c->block_tokens);
    b->start = c->first_query + first;
    b->rows = b->n_tokens * at->group;
    b->own = at->shape->segments[low].start - c->before;
    int64_t t = ops__query_token(at->shape, b->start),
            last = ops__query_token(at->shape, b->start + b->n_tokens - 1);
    narrow_to(b, first_key(at, c, t, t - b->own + 1), last - b->own + 1);
}

bool cpu__attention_narrow(struct query_block *b, int64_t lo, int64_t hi)
{
    narrow_to(b, lo > b->lo ? lo : b->lo, cpu_min(hi, b->hi));
    return b->lo < b->hi;
}

void cpu__attention_seen(const struct attention *at, const struct query_block *b, int64_t i, int64_t *lo,
                         int64_t *hi)
{
    int64_t t = ops__query_token(at->shape, b->start + i), own = t - b->own + 1;
    int64_t first = first_key(at, b->chain, t, own);
    *hi = cpu_min(own, b->hi);
    *lo = cpu_min(first > b->lo ? first : b->lo, *hi) - b->origin;
    *hi -= b->origin;
}

bool cpu__attention_piece(const struct query_block *b, int64_t *range, int64_t *index,
                          struct key_piece *piece)
{
    while (*range < b->chain->n_ranges) {
        struct key_range r = b->chain->ranges[*range];
        int64_t from = b->lo > *index ? b->lo : *index, to = cpu_min(b->hi, *index + r.n_tokens);
        piece->token = r.start + (from - *index);
        piece->column = from - b->origin;
        piece->n = to - from;
        (*range)++;
        *index += r.n_tokens;
        if (piece->n > 0)
            return true;
    }
    return false;
}

void cpu__attention_gather(const struct attention *at, const struct query_block *b, int64_t kv, float *to,
                           const float *x)
{
    int64_t row = at->group * at->shape->head_dim, step = at->shape->n_q_heads * (int64_t)at->shape->head_dim;
    for (int64_t i = 0; i < b->n_tokens; i++)
        memcpy(to + i * row, x + (b->start + i) * step + kv * row, (size_t)row * sizeof *to);
}

void cpu__attention_scores(const struct attention *at, const struct query_block *b, int64_t kv, float *scores,
                           const float *rows, const float *turned)
{
    int64_t d = at->shape->head_dim, range = 0, index = 0;
    struct key_piece piece;
    struct product p = {
        .m = b->rows, .k = d, .a = rows, .a_row = d, .a_k = 1, .ldb = at->turned_ld, .ldc = b->ld};
    p.alpha = 1;
    while (cpu__attention_piece(b, &range, &index, &piece)) {
        p.n = piece.n;
        p.b = turned + kv * d * at->turned_ld + piece.token;
        p.c = scores + piece.column;
        at->dev->kernels->gemm(&p);
    }
}

void cpu__attention_weigh(const struct attention *at, const struct query_block *b, int64_t kv, float *sums,
                          const float *weights, const float *values)
{
    int64_t d = at->shape->head_dim, step = at->shape->n_kv_heads * d, range = 0, index = 0;
    struct key_piece piece;
    struct product p = {.m = b->rows, .n = d, .a_row = b->ld, .a_k = 1, .ldb = step, .c = sums, .ldc = d};
    p.chain = true;
    memset(sums, 0, (size_t)(b->rows * d) * sizeof *sums);
    while (cpu__attention_piece(b, &range, &index, &piece)) {
        p.k = piece.n;
        p.a = weights + piece.column;
        p.b = values + piece.token * step + kv * d;
        at->dev->kernels->gemm(&p);
    }
}

/* Forward of one block and one key/value head. */
static void block_forward(const struct attention *at, const struct query_block *b, int64_t kv, float *out,
                          float *lse, const float *q, const float *turned, const float *v)
{
    const struct attention_shape *shape = at->shape;
    const struct kernels *kernels = at->dev->kernels;
    int64_t d = shape->head_dim, g = at->group;
    float *rows =
        ops__scratch(at->dev, omp_get_thread_num(), (size_t)(b->rows * (2 * d + b->ld)) * sizeof *rows);
    float *sums = rows + b->rows * d, *scores = sums + b->rows * d;
    cpu__attention_gather(at, b, kv, rows, q);
    cpu__attention_scores(at, b, kv, scores, rows, turned);
    float *denominators = rows; /* the queries are used up */
    for (int64_t r = 0; r < b->rows; r++) {
        int64_t lo, hi, query = b->start + r / g;
        float max;
        cpu__attention_seen(at, b, r / g, &lo, &hi);
        denominators[r] = kernels->softmax(scores + r * b->ld, lo, hi, b->hi - b->origin, shape->scale, &max);
        if (lse != NULL)
            lse[query * shape->n_q_heads + kv * g + r % g] = max + logf(denominators[r]);
    }
    cpu__attention_weigh(at, b, kv, sums, scores, v);
    for (int64_t r = 0; r < b->rows; r++) {
        float *to = out + ((b->start + r / g) * shape->n_q_heads + kv * g + r % g) * d,
              scale = 1 / denominators[r];
        for (int64_t e = 0; e < d; e++)
            to[e] = sums[r * d + e] * scale;
    }
}

void cpu__attention(struct device *dev, float *out, float *lse, const float *q, const float *k,
                    const float *v, const struct attention_shape *shape)
{
    struct attention at;
    int64_t n_kv = shape->n_kv_heads;
    if (dev->tiles != NULL) {
        cpu__tiles_attention(dev, out, lse, q, k, v, shape);
        return;
    }
    cpu__attention_open(&at, dev, shape, cpu__attention_turned_floats(shape));
    cpu__attention_turn(&at, at.extra, k);
    int64_t n_tasks = at.n_blocks * n_kv;
#pragma omp parallel for num_threads(dev->n_threads)                                                         \
    schedule(dynamic) if (n_tasks > 1 && cpu_attention_large(shape))
    for (int64_t task = 0; task < n_tasks; task++) {
        struct query_block b;
        cpu__attention_block(&at, task / n_kv, &b);
        block_forward(&at, &b, task % n_kv, out, lse, q, at.extra, v);
    }
}
