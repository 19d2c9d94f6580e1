/* The parts of project and project_back in tiles, for those and for the MLP, which is made of them. */
#ifndef SMGPT_OPS_CPU_PROJECT_TILES_H
#define SMGPT_OPS_CPU_PROJECT_TILES_H

#include "cpu_internal.h"
#include "panels.h"

/* Panels of one projection; NULL without LoRA. Directions as in tiles.h. */
struct part {
    uint16_t *a, *b;                /* right operands made of A and B */
    uint16_t *u, *du;               /* left operands [T, R]: scaling u; du */
    uint16_t *dy;                   /* left operand [T, n_out] */
    uint16_t *dy_right;             /* right operand [T, n_out] */
    uint16_t *u_turned, *du_turned; /* left operands [R, T]: scaling u; du */
};

/* Projections of one input, one way. The caller sets parts, n and: */
struct project_call {
    const struct projection *parts; /* dy NULL: the caller packs it, before the tokens */
    int n;
    const float *x; /* [T, n_in]; NULL: the caller packs it, before the tokens or (back) the parameters */
    float *dx;      /* [T, n_in]; NULL: not wanted */

    struct device *dev;
    const struct tiles *tiles;
    int64_t n_in, n_tokens, n_panels; /* panels of tokens */
    uint16_t *x_left;                 /* left operand [T, n_in] (forward) */
    uint16_t *x_right;                /* right operand [T, n_in] (back) */
    struct part packed[MAX_PROJECTIONS];
    bool large;
};

/* A block of memory that is handed out in pieces. */
struct pieces {
    char *base;
    size_t used;
};
void cpu__lay_forward(struct project_call *c, struct pieces *p);
void cpu__lay_back(struct project_call *c, struct pieces *p);
/* Fills in the rest of n calls that share one block of scratch, laid out by lay. */
void cpu__calls_open(struct project_call *calls, int n, struct device *dev, int64_t n_tokens,
                     void (*lay)(struct project_call *c, struct pieces *p));

/* For all threads of a parallel region, after tiles->begin. A barrier must lie between adapters and what
 * comes after them. Tokens: their panels, and u or du from them. Then the products from them: y, or of two
 * parts what `finish` makes of both sums (panels.h); dx, or what `finish` makes of it; dA and dB. Tokens and
 * what calls finish end with a barrier. */
void cpu__forward_adapters(const struct project_call *c);
void cpu__forward_tokens(const struct project_call *c);
void cpu__forward_products(const struct project_call *c);
void cpu__forward_pair(const struct project_call *c, panels_finish_fn *finish, void *to);
void cpu__back_adapters(const struct project_call *c);
void cpu__back_tokens(const struct project_call *c);
void cpu__back_input(const struct project_call *c);
void cpu__back_input_to(const struct project_call *c, panels_tile_fn *before, panels_finish_fn *finish,
                        void *to);
void cpu__back_parameters(const struct project_call *c);

/* Where the caller packs: the step of tokens from `token` on and columns from `column` on, both multiples of
 * PANEL, of dy as a left and a right operand, and of x as a right one. NULL: not wanted. */
uint16_t *cpu__dy_left(const struct project_call *c, int part, int64_t token, int64_t column);
uint16_t *cpu__dy_right(const struct project_call *c, int part, int64_t token, int64_t column);
uint16_t *cpu__x_right(const struct project_call *c, int64_t token, int64_t column);
uint16_t *cpu__x_left(const struct project_call *c, int64_t token, int64_t column);

#endif
