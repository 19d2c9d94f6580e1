/* The architecture of a decoder: config.json, checked, as plain numbers. One forward and one backward walk
 * serve all families; what differs between them is a field here. */
#ifndef SMGPT_MODEL_ARCH_H
#define SMGPT_MODEL_ARCH_H

#include "ops/ops.h"
#include "util/err.h"
#include <stdbool.h>
#include <stdint.h>

#define ARCH_MAX_LAYERS 256

enum family { FAMILY_LLAMA, FAMILY_QWEN3, FAMILY_GEMMA3 };
enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 };

struct rope_spec {
    enum rope_kind kind;
    double theta, factor, low_freq_factor, high_freq_factor;
    int64_t original_max_positions;
};

struct arch {
    enum family family;
    int32_t hidden, n_layers, n_q_heads, n_kv_heads, head_dim, mlp; /* H L Q K D I */
    int32_t n_embed_rows;                                           /* rows of the base's embedding matrix */
    int32_t max_positions;
    float rms_eps;
    bool tied;         /* the head is the embedding */
    bool qk_norm;      /* RMS norm of each query and key head */
    bool sandwich;     /* Gemma: norms also behind attention and MLP */
    float norm_offset; /* 1 for Gemma: gain is 1 + w */
    float embed_scale; /* 1, or sqrt(H) for Gemma */
    float attn_scale;
    enum act_kind act;
    int32_t window; /* tokens a sliding layer sees, 0 if there is none */
    bool sliding[ARCH_MAX_LAYERS];
    struct rope_spec rope_global, rope_local; /* rope_local: sliding layers of Gemma */
    int32_t pad_id;                           /* input rows of this id get no gradient; -1 if none */
    int32_t eos_ids[8];
    int32_t n_eos_ids;
    char model_type[32];
};

/* From the text of config.json; name is used in messages. Fields that would change the result and are not
 * supported are refused by name (ST_INPUT). */
enum status arch_parse(struct arch *a, const char *json, size_t n_bytes, const char *name, struct err *err);
const char *family_name(enum family f);

/* The seven projections of a layer, in HF's order of modules. */
enum proj { PROJ_Q, PROJ_K, PROJ_V, PROJ_O, PROJ_GATE, PROJ_UP, PROJ_DOWN, N_PROJ };
/* "self_attn.q_proj", ... as in tensor names. */
const char *proj_path(enum proj p);
/* "q_proj", ... as in target_modules. */
const char *proj_name(enum proj p);
void proj_shape(const struct arch *a, enum proj p, int64_t *n_out, int64_t *n_in);

/* cos_sin [n_positions, 2, D/2] of a rotary embedding, float32 arithmetic as in transformers. */
void rope_table(const struct rope_spec *spec, int32_t head_dim, int64_t n_positions, float *cos_sin);

#endif
