/* Private to the model room: the workspace and the pieces that forward, backward, head and cache share.
 * Letters: T tokens, N labelled, H hidden, L layers, Q/K heads, D head size, I MLP width, V rows, R rank. */
#ifndef SMGPT_MODEL_INTERNAL_H
#define SMGPT_MODEL_INTERNAL_H

#include "model/model.h"

/* What one layer keeps for its way back: what is not computed from the rest of it in one reading, as the
 * norms are (model.norm). Device memory, capacity tokens. */
struct layer_acts {
    float *x_in;          /* [T, H] residual stream at the layer's start */
    float *inv1;          /* [T] of the norm of x_in */
    float *q_raw, *k_raw; /* [T, Q D], [T, K D] before the heads' norms; NULL without them */
    float *inv_q, *inv_k; /* [T, Q], [T, K] */
    float *q, *k, *v;     /* after norm and rope; v as projected. With the heads' norms all layers share q and
                             k, which are made from q_raw and k_raw again on the way back */
    float *attn, *lse;    /* [T, Q D], [T, Q] */
    float *o, *inv_o;     /* Gemma: [T, H] before the norm behind attention, [T] */
    float *x_mid;         /* [T, H] after attention */
    float *inv2;          /* [T] of the norm of x_mid */
    void *gated; /* struct mlp's kept, room for `capacity` tokens; row gated_first on is this one's */
    int64_t gated_first;
    float *down, *inv_down; /* Gemma: [T, H], [T] */
    float *u[N_PROJ];       /* [T, R] x A^T of each adapted projection */
};

struct model {
    struct model_config c;
    const struct ops *ops;
    struct device *dev;
    const struct arch *a;
    const struct weights *w;
    const struct params *p;
    const float *values;
    int64_t v_rows;   /* V */
    int64_t expected; /* tokens, see model_expect */
    size_t budget;    /* bytes, see model_set_budget */

    /* Workspace: one block each for inference (one layer's) and training (all layers'). */
    bool training;    /* the block holds all layers */
    int64_t capacity; /* tokens */
    void *block;
    bool apart;         /* each sequence is computed whole, see model_set_reuse */
    struct packed kept; /* the sequence whose activations the block holds; no tokens: none's, or old ones */
    /* [L]; all the same when not training. Training: layers 0 to n_again share one set but for x_in. Layer
     * n_again leaves its own there; the lower ones run again, from their x_in, on the way back. */
    struct layer_acts *layers;
    int32_t n_again;
    float *x_out;              /* [T, H] after the last layer; rows of the wanted tokens only */
    float *rows_x, *rows_norm; /* [T, H] the last layer's x_in and norm1 at the wanted tokens */
    float *norm;               /* [T, H] of x_in, then of x_mid, of the layer at hand */
    float *tmp;                /* [T, H] */
    /* backward */
    float *dx, *dh, *dq, *dk, *dv, *dattn;

    int32_t *ids, *positions, *index; /* device [T]; index: the wanted tokens */
    int32_t *row_positions;           /* device [T]: positions of the wanted tokens */
    int32_t *first_label;             /* device [T + 1] of the wanted tokens, as cross_entropy takes them */
    int32_t *labels; /* device [N]: few_labels [T], or many_labels [many_room] where rows that share */
    int32_t *few_labels, *many_labels; /* tokens have more labels than there are tokens */
    int64_t many_room;
    int32_t *host_ints;                      /* [T + 1] staging */
    int32_t *host_rows, *host_row_positions; /* [T] the wanted tokens */
    int32_t *host_all;                       /* [T] 0, 1, 2, .. */
    /* head */
    float *head_norm, *head_inv, *head_dx; /* [T, H] and [T] */
    float *logits;                         /* [chunk, V] */
    int64_t chunk;                         /* rows of a chunk at most: a function of V alone */
    float *loss;                           /* device [T] */
    float *host_loss;                      /* [T] */

    float *rope_global, *rope_local; /* [n_rope, 2, D/2]; the same pointer when alike */
    int64_t n_rope;
};

/* Makes room for n_tokens (and all layers when training) and rope tables for n_positions. */
enum status model__reserve(struct model *m, int64_t n_tokens, int64_t n_positions, bool training,
                           struct err *err);

void model__release_block(struct model *m);

/* Checks ids, uploads ids and positions. */
enum status model__upload(struct model *m, const struct packed *seq, struct err *err);

/* A layer's keys and values leave through this hook while the layer runs (prefill and decode). */
struct kv_hook {
    struct kv_cache *cache;
    const int32_t *which; /* decode: sequence of each token; NULL: prefill of `sequence` */
    int32_t sequence;
};

/* How many of m->host_rows are wanted: the tokens (rising) whose last hidden state is read. The last layer
 * computes keys and values of all tokens and everything else of these only. ALL_TOKENS: no choice was made.
 */
enum { ALL_TOKENS = -1 };
/* Uploads the choice that stands in m->host_rows. */
void model__want(struct model *m, const struct packed *seq, int64_t n_wanted);

/* From uploaded ids to x_out. shape is used by whole sequences; decode passes hook->which. The layers hold
 * the activations of the first n_kept tokens already; none of these tokens is wanted. */
void model__forward(struct model *m, int64_t n_tokens, int64_t n_kept, const struct attention_shape *shape,
                    const struct kv_hook *hook, int64_t n_wanted);
/* norm [n, H] of n rows of x, and their 1 / root in inv: before attention, before the MLP. */
void model__attn_norm(struct model *m, int32_t layer, float *norm, const float *x, float *inv, int64_t n);
void model__mlp_norm(struct model *m, int32_t layer, float *norm, const float *x, float *inv, int64_t n);
/* Fills layer_acts of a layer below m->n_again, for its way back; the layer above must be done with. */
void model__layer_again(struct model *m, int32_t layer, int64_t n_tokens,
                        const struct attention_shape *shape);
/* s from token `kept` on, and from row `first` on behind keys and values. */
struct layer_acts model__acts_from(const struct model *m, struct layer_acts s, int64_t kept, int64_t first);

/* What a walk down begins with and goes through. */
struct way_back {
    int64_t n_tokens;
    const struct attention_shape *shape;
    int64_t n_wanted; /* m->head_dx [n_wanted, H] = d loss / d x_out, used up; 0: nothing comes from there */
    float *grad;      /* what is added to: the gradient of every parameter below the head */
    /* Gradients of the keys and values of the first n_stem tokens, as attention leaves them: [L][2][n_stem][K
     * D]. A sequence adds to them and follows them no further (the walk goes through its other tokens alone);
     * with n_tokens == n_stem they come in from above. */
    float *stem;
    int64_t n_stem;
};
void model__backward(struct model *m, const struct way_back *b);

/* Logits of rows x [n, H] (already normed) into m->logits [n, V], n <= chunk. */
void model__head_logits(struct model *m, const float *x, int64_t n);
/* Points m->labels to room for a sequence's labels. */
enum status model__reserve_labels(struct model *m, int64_t n_labels, struct err *err);
/* Puts the labelled tokens into m->host_rows and their labels onto the device; *n tokens. */
enum status model__labelled(struct model *m, const struct packed *seq, int64_t *n, struct err *err);
/* Loss over the n labelled tokens, whose rows x_out holds, and m->head_dx and the head's gradients when grad
 * is not NULL. */
void model__head_loss(struct model *m, const struct packed *seq, int64_t n, float grad_scale, float *grad,
                      double *loss_sum, float *token_loss);

/* A projection of a layer: its frozen matrix, and where it is adapted its A and B, and s's u. y, dy, da, db
 * unset. */
struct projection model__projection(const struct model *m, const struct layer_acts *s, int32_t layer,
                                    enum proj p);
/* A layer's MLP, with its projections as above; keeping what it keeps in s. */
struct mlp model__mlp(const struct model *m, const struct layer_acts *s, int32_t layer);

/* From q_raw [n, Q D], or q as projected without the heads' norms, to q; positions: device [n]. The same for
 * keys. */
void model__queries(struct model *m, int32_t layer, const struct layer_acts *s, int64_t n,
                    const int32_t *positions);
void model__keys(struct model *m, int32_t layer, const struct layer_acts *s, int64_t n,
                 const int32_t *positions);

/* How many of seq's first tokens the layers hold the activations of. */
int64_t model__kept(const struct model *m, const struct packed *seq);
/* From now on the layers hold those of seq. */
void model__keep(struct model *m, const struct packed *seq);

/* Values and gradients of an item; NULL for index -1. */
static inline const float *model__value(const struct model *m, int32_t item)
{
    return item < 0 ? NULL : m->values + m->p->items[item].offset;
}
static inline float *model__grad(const struct model *m, float *grad, int32_t item)
{
    return item < 0 ? NULL : grad + m->p->items[item].offset;
}

/* Where decode stores and reads. */
void kv_cache__store(struct kv_cache *c, const struct kv_hook *hook, int32_t layer, const float *k,
                     const float *v, int64_t n_tokens);
void kv_cache__attend(struct kv_cache *c, const struct kv_hook *hook, int32_t layer, float *out,
                      const float *q, int64_t n_tokens);

#endif
