/* The frozen weights: names, shapes and types are checked once, copied into one block (which the ranks of a
 * host may share), and bound to plain pointers. After that nothing looks up a name. */
#ifndef SMGPT_MODEL_WEIGHTS_H
#define SMGPT_MODEL_WEIGHTS_H

#include "model/arch.h"
#include "util/tensor.h"

struct layer_weights {
    const float *attn_norm, *mlp_norm;           /* [H]: input norm; norm before the MLP */
    const float *post_attn_norm, *post_mlp_norm; /* [H] Gemma's, else NULL */
    const float *q_norm, *k_norm;                /* [D] or NULL */
    struct weight proj[N_PROJ];
};

struct weights {
    const struct arch *arch;
    struct weight embed;     /* [E, H] */
    struct weight head;      /* [E, H]; the same data as embed when tied */
    const float *final_norm; /* [H] */
    struct layer_weights *layers;
};

/* Bytes of the block for a compute mode: matrices in `matrix` type, norms in float32; each part on 64 bytes.
 */
size_t weights_block_bytes(const struct arch *a, enum dtype matrix);
/* Fills block [weights_block_bytes] from the tensors of a model directory. Missing, misshapen, not
 * understood or non-finite tensors are ST_INPUT, named. Not collective. */
enum status weights_fill(void *block, const struct arch *a, enum dtype matrix,
                         const struct tensor_list *tensors, struct err *err);
/* Binds pointers into block (on the device's side of memory), prepares the matrices. */
enum status weights_bind(struct weights *w, const struct arch *a, enum dtype matrix, const void *block,
                         const struct ops *ops, struct device *dev, struct err *err);
void weights_release(struct weights *w, const struct ops *ops, struct device *dev);

#endif
