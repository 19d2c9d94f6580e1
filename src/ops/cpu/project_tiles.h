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

/* Projections of one input, one way. The caller sets parts, n, where x comes from and where dy does. */
struct project_call {
    const struct projection *parts;
    int n;
    const float *x; /* [T, n_in]; NULL: act(gate.y) * up.y of x_of */
    const struct mlp *x_of;
    float *dx; /* [T, n_in]; NULL: not wanted */
    /* Not NULL: the parts are gate and up of down->x_of, whose dy follow from down->dx; and with their rows
     * those of down's input are made once more, which down's gradients want. */
    const struct project_call *down;

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
 * comes after them. Forward products end with one unless told otherwise. On the way back: the tokens' panels,
 * with a barrier at their end; dx from them; dA and dB from them, and for down from those of gate and up. */
void cpu__forward_adapters(const struct project_call *c);
void cpu__forward_products(const struct project_call *c, bool nowait);
void cpu__back_adapters(const struct project_call *c);
void cpu__back_tokens(const struct project_call *c);
void cpu__back_input(const struct project_call *c);
void cpu__back_parameters(const struct project_call *c);

#endif
