/* What is trained: LoRA's A and B and the rows of new tokens, in one flat float32 vector. The order of the
 * tensors is that of PEFT's named_parameters: new input rows, layers (q k v o gate up down, A then B), new
 * rows of the head when they are trained apart. Gradients and moments have the same layout. */
#ifndef SMGPT_MODEL_PARAMS_H
#define SMGPT_MODEL_PARAMS_H

#include "model/arch.h"
#include "util/tensor.h"

struct lora_config {
    int32_t r;
    double alpha;
    double dropout; /* 0 */
    bool use_rslora;
    bool target[N_PROJ];
};

struct param {
    char name[160];             /* PEFT's key in adapter_model.safetensors */
    int64_t rows, cols, offset; /* offset in floats */
};

struct params {
    struct lora_config lora;
    float scaling;     /* alpha / r */
    int64_t new_first; /* first new id */
    int64_t n_new;     /* 0: no new rows */
    bool untied_rows;  /* the head's new rows are trained apart */
    bool tied_base;    /* although the base ties them, where untied_rows is set too */
    struct param *items;
    int32_t n_items;
    int64_t n_values;
    int32_t index_rows, index_head_rows; /* into items; -1 if absent */
    /* The base's matrices, borrowed, whose rows weight_row reads; NULL where files with whole matrices need
     * not be read. */
    const struct weight *base_embed, *base_head;
    int32_t (*index_lora)[N_PROJ]; /* [L][N_PROJ] item of A (B follows); -1 */
};

/* new_first/n_new: from the pack. ST_USAGE for a rank below 1 or no target. */
enum status params_init(struct params *p, const struct arch *a, const struct lora_config *lora,
                        int64_t new_first, int64_t n_new, bool untied_rows, struct err *err);
void params_release(struct params *p);
/* Row of the whole matrix that the new rows of an item lie over and behind: the trained one, else the base's,
 * and 0 beyond both. item -1: no new rows. out [base->n_in]. */
void params_row(const struct params *p, const float *values, int32_t item, const struct weight *base,
                int64_t row, float *out);
/* Starting values (host): A uniform in +-1/sqrt(n_in), B zero, new rows at the mean of the base's rows plus a
 * little noise; head rows likewise of the head. Base rows are read with weight_row. */
void params_start(const struct params *p, const struct arch *a, const struct weight *embed,
                  const struct weight *head, uint64_t seed, float *values);
/* Views of the flat vector as named tensors (PEFT keys), in items order. */
enum status params_tensors(const struct params *p, const float *values, struct tensor_list *out,
                           struct err *err);

#endif
