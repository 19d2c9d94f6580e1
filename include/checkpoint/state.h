/* A run's state as an HF Trainer + PEFT checkpoint holds it, both ways (hf-formats B, C). */
#ifndef SMGPT_CHECKPOINT_STATE_H
#define SMGPT_CHECKPOINT_STATE_H

#include "util/err.h"
#include "util/sha256.h"
#include "util/tensor.h"
#include <jansson.h>
#include <stdbool.h>

/* adapter_config.json. Reading refuses by name what cannot be carried over: DoRA, LoRA bias, rank or alpha
 * patterns, other init schemes that alter the base, layer selections. */
struct adapter_config {
    char base_model[1024];
    int32_t r;
    double alpha, dropout;
    bool use_rslora;
    char targets[16][32]; /* module names, e.g. "q_proj" */
    int32_t n_targets;
    /* trainable_token_indices; NULL and 0 when absent. Owned. */
    int64_t *embed_rows, *head_rows;
    int64_t n_embed_rows, n_head_rows;
    bool modules_to_save_embed, modules_to_save_head;
    bool ensure_weight_tying; /* one matrix for both */
};
void adapter_config_release(struct adapter_config *c);
enum status adapter_config_read(struct adapter_config *c, const char *dir, struct err *err);
enum status adapter_config_write(const struct adapter_config *c, const char *dir, struct err *err);

/* Adam moments in the order of PEFT's parameters, and the groups' numbers. Views are borrowed. */
struct optimizer_state {
    double lr, initial_lr, beta1, beta2, eps, weight_decay; /* lr: of the next step */
    int64_t step;
    const struct tensor_list *params;  /* shapes and order; the data is not used */
    const float *exp_avg, *exp_avg_sq; /* flat, concatenated in that order (writing) */
    /* Writing: names of bitsandbytes' AdamW for the moments, which takes them in 32 bits for any parameter.
     */
    bool for_bitsandbytes;
    /* Reading: whole matrices of whole_rows rows may stand in the file for parameters of embed_tokens and
     * lm_head, which are their rows from first_row on; other rows must have no moments. 0: none may. */
    int64_t whole_rows, first_row;
};
/* As torch 2.13's AdamW under Trainer: two groups, the second empty; exp_avg and exp_avg_sq float32. */
enum status optimizer_write(const char *path, const struct optimizer_state *s, struct err *err);
/* Fills m and v (flat, n_values = sum of the parameters' sizes) after checking every shape; absent entries
 * are zero. s->params must be set (with names: Unsloth's file has the rows of embedding and head last); the
 * other numbers of s are filled from the file's first group. Reads AdamW of torch, plain and fused, moments
 * in any floating type, and bitsandbytes' 8-bit AdamW in both its layouts (blocks of 256 or 2048, parameters
 * in 8 and 32 bits mixed); there a first moment whose second one is 0 is cleared. ST_INPUT names what else it
 * is: Adafactor, SGD, amsgrad ... */
enum status optimizer_read(const char *path, struct optimizer_state *s, float *m, float *v, struct err *err);

struct scheduler_state {
    double base_lr, last_lr; /* last_lr: of the next step; -1 when the file that was read has none */
    int64_t last_epoch;      /* = global_step */
};
enum status scheduler_write(const char *path, const struct scheduler_state *s, struct err *err);
enum status scheduler_read(const char *path, struct scheduler_state *s, struct err *err);

/* trainer_state.json with exactly the 20 keys; log_history is a JSON array of flat objects. Intervals below 1
 * are written as Trainer's default of 500 (it divides by them), null fields of the history are left out.
 * Reading takes unknown keys, NaN and missing fields other than global_step. */
struct trainer_state {
    int64_t global_step, max_steps;
    double epoch, num_train_epochs;
    int64_t logging_steps, eval_steps, save_steps, train_batch_size;
    bool finished;       /* should_training_stop */
    json_t *log_history; /* owned when read; borrowed when written; may be NULL */
};
enum status trainer_state_write(const char *path, const struct trainer_state *s, struct err *err);
enum status trainer_state_read(const char *path, struct trainer_state *s, struct err *err);
void trainer_state_release(struct trainer_state *s);

/* smgpt_state.json: what a resume of ours checks besides. Optional on read (a Python checkpoint has none). */
struct run_state {
    int32_t stage;
    int64_t step;
    char pack_sha256[SHA256_HEX_BYTES], options_sha256[SHA256_HEX_BYTES], model_sha256[SHA256_HEX_BYTES];
    /* Of the adapter's float32 values: of the digests of both halves and, of an odd number, of the last one.
     */
    char values_sha256[SHA256_HEX_BYTES];
    char cpu_path[64];
    json_t *options; /* effective options that change the curve, by key; owned when read */
};
enum status run_state_write(const char *path, const struct run_state *s, struct err *err);
enum status run_state_read(const char *path, struct run_state *s, bool *present, struct err *err);
void run_state_release(struct run_state *s);

#endif
