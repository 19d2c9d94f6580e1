/* The frozen weights: names, shapes and types are checked once, copied into one block (which the ranks of a
 * host may share), and bound to plain pointers. After that nothing looks up a name. */
#ifndef SMGPT_MODEL_WEIGHTS_H
#define SMGPT_MODEL_WEIGHTS_H

#include "model/arch.h"
#include "util/tensor.h"

#define WEIGHT_NAME_BYTES 96

struct layer_weights {
    const float *attn_norm, *mlp_norm;           /* [H]: input norm; norm before the MLP */
    const float *post_attn_norm, *post_mlp_norm; /* [H] Gemma's, else NULL */
    const float *q_norm, *k_norm;                /* [D] or NULL */
    struct weight proj[N_PROJ];
};

struct weights {
    const struct arch *arch;
    struct weight embed;     /* [E, H]; rows by weight_row */
    struct weight head;      /* [E, H]; the same data as embed when tied */
    const float *final_norm; /* [H] */
    struct layer_weights *layers;
    size_t unused_bytes; /* at the start of the block: rows of matrices (data NULL) that their packed forms
                            replace; a group's may go when all processes have bound it */
};

/* Bytes of the block for a compute mode: matrices in `matrix` type, norms in float32; each part on 64 bytes.
 */
size_t weights_block_bytes(const struct arch *a, enum dtype matrix);
/* Fills block [weights_block_bytes] from the tensors of a model directory. Missing, misshapen, not
 * understood or non-finite tensors are ST_INPUT, named. Not collective. */
enum status weights_fill(void *block, const struct arch *a, enum dtype matrix,
                         const struct tensor_list *tensors, struct err *err);

/* The block in groups, which follow each other: the projections of each layer, then everything else. A model
 * that is read, packed and forgotten group by group never stands in memory twice. Groups are 0 to
 * weights_n_groups - 1, and are taken in this order. */
int32_t weights_n_groups(const struct arch *a);
struct weights_place {
    size_t from, n_bytes; /* of the block */
};
enum status weights_group_place(struct weights_place *out, const struct arch *a, enum dtype matrix,
                                int32_t group, struct err *err);
/* weights_fill of one group, by n_threads threads (0: as many as OpenMP takes). The names of all tensors are
 * looked at with group 0. */
enum status weights_fill_group(void *block, const struct arch *a, enum dtype matrix,
                               const struct tensor_list *tensors, int32_t group, int n_threads,
                               struct err *err);

/* Bytes of the packed forms of all matrices that are multiplied by (ops->weight_bytes); may be 0. */
enum status weights_packed_bytes(size_t *n_bytes, const struct arch *a, enum dtype matrix,
                                 const struct ops *ops, struct device *dev, struct err *err);

/* Memory that the processes of a host share, on the device's side; borrowed as long as the weights live. */
struct weights_memory {
    const void *block; /* [weights_block_bytes], filled */
    void *packed;      /* [weights_packed_bytes], aligned to 64; may be NULL when that is 0 */
    int part, n_parts; /* this process packs share `part` of n_parts; alone: 0 of 1 */
};
/* Binds pointers into the memory and packs this process's share of the matrices. All processes must have
 * come back from here before the first product. weights_release whatever the outcome. */
enum status weights_bind(struct weights *w, const struct arch *a, enum dtype matrix,
                         const struct weights_memory *m, const struct ops *ops, struct device *dev,
                         struct err *err);
/* The same in steps: open, then each group, of which only its own part of the block must be filled.
 * weights_release whatever the outcome. */
enum status weights_open(struct weights *w, const struct arch *a, struct err *err);
enum status weights_bind_group(struct weights *w, enum dtype matrix, const struct weights_memory *m,
                               int32_t group, const struct ops *ops, struct device *dev, struct err *err);
void weights_release(struct weights *w, const struct ops *ops, struct device *dev);

/* CRC-32 of a matrix or vector as it stands in the block, and of its packed form. */
struct weight_digest {
    uint32_t rows, packed;
};
int32_t weights_count(const struct arch *a); /* of matrices and vectors */
/* A group's of digests [weights_count]: those of the share `part` of `n_parts`, the others' are 0. Reads all
 * its bytes of host memory: when all processes have bound it, and before its unused rows go. */
enum status weights_digest_group(struct weight_digest *out, const struct arch *a, enum dtype matrix,
                                 const struct weights_memory *m, int32_t group, const struct ops *ops,
                                 struct device *dev, struct err *err);
/* The checkpoint's name of the i-th. */
enum status weights_name(char name[WEIGHT_NAME_BYTES], const struct arch *a, int32_t i, struct err *err);

#endif
