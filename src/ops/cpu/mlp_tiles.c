/* The gated MLP in tiles. Neither act(gate) * up nor the gradients of gate, up and down's input ever stand in
 * memory in float32: they are made of a product's sums while those are in the first-level cache, and packed.
 *
 * What gate and up gave is kept in blocks of PANEL rows by PANEL columns, [rows][gate, up][columns],
 * so that a product's sums go to one place, or two where the rows of a call do not begin with a
 * block. */
#include "project.h"
#include "project_tiles.h"

enum { ROW = 2 * PANEL, BLOCK = PANEL * ROW };

size_t cpu__mlp_tiles_kept_bytes(const struct device *dev, int64_t width, int64_t n_tokens)
{
    return (size_t)(panels_of(n_tokens) * panels_of(width) * BLOCK) * dev->tiles->kept_bytes;
}

/* Of the rows from `row` on, `most` at most, those in one block. */
static int kept_rows(const struct mlp *mlp, int64_t row, int64_t most)
{
    return (int)cpu_min(most, PANEL - (mlp->kept_first + row) % PANEL);
}

/* What is made of sums: of gate's and up's down's input; of down's input's gradient those of gate and up. */
struct gated {
    struct device *dev;
    const struct mlp *mlp;
    const struct project_call *down, *both;
};

/* Where row `row` of x is kept, columns of panel `panel`; the rows behind it follow to the end of the block.
 */
static char *kept_at(const struct gated *g, int64_t row, int64_t panel)
{
    int64_t at = g->mlp->kept_first + row;
    int64_t place = (at / PANEL * panels_of(g->mlp->gate.w->n_out) + panel) * BLOCK + at % PANEL * ROW;
    return (char *)g->mlp->kept + (size_t)place * g->dev->tiles->kept_bytes;
}

/* Rows of the part that are tokens; what fills up a panel beyond them is 0. */
static int part_rows(const struct panels_tile *t, int part)
{
    int64_t n = t->rows - part * PART_ROWS;
    return n < 0 ? 0 : (int)cpu_min(n, PART_ROWS);
}

static void gated_input(void *to, const struct panels_tile *t, int part)
{
    const struct gated *g = to;
    const int first = part * PART_ROWS, rows = part_rows(t, part);
    float *gate = t->sums[0] + first * PANEL, *up = t->sums[1] + first * PANEL;
    for (int r = 0, n; r < rows; r += n) {
        n = kept_rows(g->mlp, t->row + first + r, rows - r);
        g->dev->tiles->keep_gated(kept_at(g, t->row + first + r, t->column / PANEL), gate + r * PANEL,
                                  up + r * PANEL, n);
    }
    g->dev->kernels->act_mul(g->mlp->act, gate, gate, up, PART_ROWS * PANEL);
    g->dev->tiles->left_rows(cpu__x_left(g->down, t->row, t->column), gate, first, PART_ROWS);
}

static void part_pack(const struct tiles *tiles, uint16_t *left, uint16_t *right, const float *x, int first)
{
    if (left != NULL)
        tiles->left_rows(left, x, first, PART_ROWS);
    if (right != NULL)
        tiles->right_rows(right, x, first, PART_ROWS);
}

static void gated_gradients(void *to, const struct panels_tile *t, int part)
{
    enum { SIZE = PART_ROWS * PANEL };
    float gate[SIZE] __attribute__((aligned(64))), up[SIZE] __attribute__((aligned(64)));
    float dgate[SIZE], dup[SIZE], act[SIZE];
    const struct gated *g = to;
    const struct tiles *tiles = g->dev->tiles;
    const int first = part * PART_ROWS, rows = part_rows(t, part);
    for (int r = 0, n; r < rows; r += n) {
        n = kept_rows(g->mlp, t->row + first + r, rows - r);
        tiles->kept_gated(gate + r * PANEL, up + r * PANEL, kept_at(g, t->row + first + r, t->column / PANEL),
                          n);
    }
    for (int i = rows * PANEL; i < SIZE; i++)
        gate[i] = up[i] = 0;
    g->dev->kernels->act_mul_both(g->mlp->act, act, dgate, dup, t->sums[0] + first * PANEL, gate, up, SIZE);
    part_pack(tiles, cpu__dy_left(g->both, 0, t->row, t->column),
              cpu__dy_right(g->both, 0, t->row, t->column), dgate, first);
    part_pack(tiles, cpu__dy_left(g->both, 1, t->row, t->column),
              cpu__dy_right(g->both, 1, t->row, t->column), dup, first);
    part_pack(tiles, NULL, cpu__x_right(g->down, t->row, t->column), act, first);
}

/* Its kept rows are wanted soon. */
static void fetch_kept(void *to, const struct panels_tile *t)
{
    const struct gated *g = to;
    for (int r = 0, n; r < t->rows; r += n) {
        n = kept_rows(g->mlp, t->row + r, t->rows - r);
        const char *kept = kept_at(g, t->row + r, t->column / PANEL);
        for (size_t i = 0; i < (size_t)(n * ROW) * g->dev->tiles->kept_bytes; i += 64)
            __builtin_prefetch(kept + i);
    }
}

void cpu__mlp_tiles(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens)
{
    const struct projection both[] = {mlp->gate, mlp->up};
    struct project_call c[] = {{.parts = both, .n = 2, .x = x}, {.parts = &mlp->down, .n = 1}};
    struct gated gated = {.dev = dev, .mlp = mlp, .down = &c[1]};
    cpu__calls_open(c, 2, dev, n_tokens, cpu__lay_forward);
#pragma omp parallel num_threads(dev->n_threads) if (c[0].large)
    {
        dev->tiles->begin();
        cpu__forward_adapters(&c[0]);
        cpu__forward_adapters(&c[1]);
#pragma omp barrier
        cpu__forward_tokens(&c[0]);
        cpu__forward_pair(&c[0], gated_input, &gated);
        cpu__forward_tokens(&c[1]);
        cpu__forward_products(&c[1]);
        dev->tiles->end();
    }
}

void cpu__mlp_back_tiles(struct device *dev, const struct mlp *mlp, float *dx, const float *x,
                         int64_t n_tokens)
{
    struct projection both[] = {mlp->gate, mlp->up};
    both[0].dy = both[1].dy = NULL;
    struct project_call c[] = {{.parts = &mlp->down, .n = 1}, {.parts = both, .n = 2, .x = x, .dx = dx}};
    struct gated gated = {.dev = dev, .mlp = mlp, .down = &c[0], .both = &c[1]};
    cpu__calls_open(c, 2, dev, n_tokens, cpu__lay_back);
#pragma omp parallel num_threads(dev->n_threads) if (c[1].large)
    {
        dev->tiles->begin();
        cpu__back_adapters(&c[0]);
        cpu__back_adapters(&c[1]);
#pragma omp barrier
        cpu__back_tokens(&c[0]);
        cpu__back_input_to(&c[0], fetch_kept, gated_gradients, &gated);
        cpu__back_tokens(&c[1]);
        cpu__back_input(&c[1]);
        cpu__back_parameters(&c[0]);
        cpu__back_parameters(&c[1]);
        dev->tiles->end();
    }
}
