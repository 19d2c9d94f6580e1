/* Attention on packed panels of bfloat16 (tiles/tiles.h). Queries, keys, values, the outputs' gradients, P
 * and dS are rounded as operands of the products; everything else is float32.
 *
 * The keys of a segment are cut into panels of PANEL, its tokens into blocks of PANEL, both from its first
 * token on. A panel is packed once for each key/value head and read by all blocks that see it; no panel holds
 * tokens of two segments, so what stands beside a segment never gets into its sums. A block has PANEL rows
 * for each query head, whichever tokens ask: the terms of dK and dV are then grouped alike however many do.
 */
#ifndef SMGPT_OPS_CPU_ATTENTION_TILES_INTERNAL_H
#define SMGPT_OPS_CPU_ATTENTION_TILES_INTERNAL_H

#include "cpu_internal.h"
#include "tiles/tiles.h"

enum {
    BATCH_BLOCKS = 8,
    TASKS_AT_ONCE = 4 /* panels that a thread takes to pack or to store: each is about a microsecond */
};

struct tile_segment {
    int32_t root;        /* of its tree of segments */
    int32_t depth;       /* segments of its chain */
    int64_t first_panel; /* panels of the segments in front of it in the sequence */
    int64_t n_panels;
    int64_t before; /* panels of its parents */
};

struct tile_attention {
    struct device *dev;
    const struct tiles *tiles;
    const struct attention_shape *shape;
    int64_t group;                 /* query heads a key/value head */
    int64_t n_dims;                /* panels, and steps, of a head */
    struct tile_segment *segments; /* [n_segments] */
    int32_t *segment_of;           /* [n_panels] */
    int64_t n_panels;
    int64_t most_panels, most_depth; /* that a block sees, with the segments they lie in */
    uint16_t *k_turned, *v_turned;   /* [K, n_panels] panels over the head's dimensions, keys as columns */
    uint16_t *k_right, *v_right;     /* [K][segment][n_dims] panels over the segment's keys */
    char *extra;                     /* the caller's share of the scratch */
};

enum packed_kind { PACK_K_TURNED = 1, PACK_K_RIGHT = 2, PACK_V_TURNED = 4, PACK_V_RIGHT = 8 };

struct key_panel {
    int32_t segment;
    int n;         /* keys */
    int64_t token; /* the first key */
    int64_t index; /* in the segment */
};

struct tile_block {
    int64_t token; /* the first one */
    int n;         /* tokens */
    bool all_ask;
    int64_t from, to;     /* panels of the batch that it sees */
    int64_t query[PANEL]; /* each token's place among the queries, or -1 */
};

/* Consecutive blocks of a segment, and all panels that they see in the order of the chain. */
struct tile_batch {
    int32_t segment;
    int n_blocks;
    struct tile_block blocks[BATCH_BLOCKS];
    int64_t n_panels;
    struct key_panel *panels;
    uint32_t
        *seen; /* [n_blocks][n_panels][PANEL] bit c of [b][j][i]: token i of block b sees key c of panel j */
    struct panel_run *runs; /* room for [most_depth], for cpu__tiles_key_runs */
    void *room;             /* the rest of the thread's scratch */
};

/* Takes the shared scratch: the segments' table, the packed forms that `kinds` names, and extra_bytes. */
void cpu__tiles_attention_open(struct tile_attention *at, struct device *dev,
                               const struct attention_shape *shape, unsigned kinds, size_t extra_bytes);
/* Packs panel `place` of the sequence for one head; k, v [T, K, D]. */
void cpu__tiles_pack_keys(const struct tile_attention *at, int64_t place, int64_t kv, const float *k,
                          const float *v);

/* The calling thread's scratch, for batches of up to n_blocks blocks and room_bytes besides. */
void cpu__tiles_batch_room(const struct tile_attention *at, struct tile_batch *batch, int n_blocks,
                           size_t room_bytes);
/* Up to `most` blocks of a segment from its block `first` on; ends before a block that nobody asks in.
 * Returns how many. */
int cpu__tiles_batch(const struct tile_attention *at, struct tile_batch *batch, int32_t segment,
                     int64_t first, int most);
/* The block's rows in x [queries, Q, D], the heads of a group side by side: row i at result[i * ld]. Tokens
 * that do not ask have zeros; then the rows are collected in room [PANEL, group D]. */
const float *cpu__tiles_rows(const struct tile_attention *at, const struct tile_block *b, int64_t kv,
                             const float *x, float *room, int64_t *ld);
/* Left panels [group][n_dims] over the dimensions of such rows. */
void cpu__tiles_pack_rows(const struct tile_attention *at, const struct tile_block *b, uint16_t *left,
                          const float *rows, int64_t ld);
/* batch->runs for the sum over the keys of panels [from, to): steps of left, whose first is that of `from`,
 * times dimensions e of a packed right form. Returns how many. */
int cpu__tiles_key_runs(const struct tile_attention *at, const struct tile_batch *batch, int64_t from,
                        int64_t to, const uint16_t *left, const uint16_t *right, int64_t kv, int64_t e);

static inline size_t tiles_round(size_t n_bytes)
{
    return (n_bytes + 63) / 64 * 64;
}
/* Rows and columns that a product had better be asked for: they cost no more, and whole tiles are written
 * straight to where they belong. */
static inline int tiles_rows(const struct tiles *tiles, int n)
{
    return (n + tiles->row_unit - 1) / tiles->row_unit * tiles->row_unit;
}
static inline int tiles_half(int n)
{
    return n > PANEL / 2 ? PANEL : PANEL / 2;
}
/* The next n_bytes of base, counted in *used; without a base only counted. */
static inline void *tiles_take(char *base, size_t *used, size_t n_bytes)
{
    void *taken = base != NULL ? base + *used : NULL;
    *used += tiles_round(n_bytes);
    return taken;
}
/* Panel of keys (columns) over the head's dimensions. */
static inline uint16_t *tiles_turned_panel(const struct tile_attention *at, uint16_t *turned, int64_t kv,
                                           const struct key_panel *p)
{
    int64_t place = at->segments[p->segment].first_panel + p->index;
    return turned + (kv * at->n_panels + place) * at->n_dims * STEP_ELEMENTS;
}

/* The slots, for a device with tiles; arguments as in struct ops. */
void cpu__tiles_attention(struct device *dev, float *out, float *lse, const float *q, const float *k,
                          const float *v, const struct attention_shape *shape);
void cpu__tiles_attention_back(struct device *dev, float *dq, float *dk, float *dv, const float *dout,
                               const float *q, const float *k, const float *v, const float *out,
                               const float *lse, const struct attention_shape *shape);

#endif
