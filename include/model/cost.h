/* What packed sequences cost: counted from the sequences themselves and the architecture, without running
 * anything. */
#ifndef SMGPT_MODEL_COST_H
#define SMGPT_MODEL_COST_H

#include "model/model.h"

/* Counts over packed sequences; a shared prefix counts once. */
struct model_load {
    int64_t n_sequences;
    int64_t n_tokens, n_labels;
    int64_t n_labelled;  /* tokens with labels */
    int64_t n_new;       /* tokens whose input row is trained */
    int64_t n_kept;      /* tokens that the way up leaves out, see model_common */
    int64_t n_stem;      /* tokens that the way down leaves out, see model_loss_above */
    int64_t longest;     /* tokens of the longest sequence */
    int64_t n_positions; /* one past the last position */
    /* Pairs of a query and a key that it sees, in layers that see all and in sliding ones; and the same of
     * labelled queries only. */
    double pairs, window_pairs, label_pairs, label_window_pairs;
    double kept_pairs, kept_window_pairs; /* of queries that the way up leaves out */
    double stem_pairs, stem_window_pairs; /* and the way down */
};
/* Tokens that the way up computes. */
static inline int64_t model_load_computed(const struct model_load *l)
{
    return l->n_tokens - l->n_kept;
}
/* before: the sequence that model_loss gets before seq, with the same trainable values; NULL: none. n_stem:
 * as in model_loss_above. */
void model_load_add(struct model_load *l, const struct packed *seq, const struct packed *before,
                    int64_t n_stem, const struct arch *a, const struct params *p);
/* What model_stem_back does with the stem of seq. */
void model_load_stem(struct model_load *l, const struct packed *seq, int64_t n_stem, const struct arch *a,
                     const struct params *p);
/* Tokens at the beginning of seq that stand in `before` at the same places, see the same there, and come
 * before seq's first label: model_loss computes them once on the way up. */
int64_t model_common(const struct packed *before, const struct packed *seq);

/* Multiplications and additions that a forward and backward pass over a load cannot do without, a
 * multiply-add being two: no layer's output where nothing reads it (in the last layer only keys and values
 * are needed beside the labelled positions), no logits without a label, no gradient of frozen weights, no
 * input gradient below the first layer but for new rows, nothing computed twice. Norms, activations and the
 * optimizer are not counted. */
struct model_flops {
    double projections, lora, attention, head, total;
};
void model_flops(struct model_flops *out, const struct arch *a, const struct params *p,
                 const struct model_load *l);

/* Tokens that the workspace has room for when a sequence of n_tokens comes and there was room for `before`
 * (0: none yet). */
int64_t model_capacity(const struct model *m, int64_t before, int64_t n_tokens);
/* Bytes of the workspace (activations, gradients of activations, a chunk of logits, rotary tables)
 * with room for n_tokens tokens and n_positions positions: the sizes that model_loss allocates. n_again:
 * layers (the lowest ones) of which training keeps only the input and computes the rest again, 0 to L - 1.
 * Nothing is allocated for it. 0 when memory is short. */
size_t model_workspace_bytes(const struct model *m, int64_t n_tokens, int64_t n_positions, bool training,
                             int32_t n_again);
/* The smallest n_again with which training stays within the budget (model_set_budget); -1: none does. */
int32_t model_layers_again(const struct model *m, int64_t n_tokens, int64_t n_positions);

#endif
