/* The decoder with LoRA: forward, backward, and decoding with a cache. Straight walks over the layers; every
 * operation goes through the ops table. */
#ifndef SMGPT_MODEL_MODEL_H
#define SMGPT_MODEL_MODEL_H

#include "model/arch.h"
#include "model/params.h"
#include "model/weights.h"
#include "util/packed.h"

struct model;

struct model_config {
    const struct ops *ops;
    struct device *dev;
    const struct arch *arch;
    const struct weights *weights;
    const struct params *params; /* may have n_items 0: the bare base model */
};
/* All pointers in config are borrowed until close. */
enum status model_open(struct model **out, const struct model_config *config, struct err *err);
void model_close(struct model *m);
/* Tokens of the longest sequence that will come, as far as it is known: room for so many is made at once. The
 * room grows when a longer one comes. */
void model_expect(struct model *m, int64_t n_tokens);
/* Bytes that the workspace (model/cost.h) may take; 0, as at the start: any. Training keeps what the way back
 * needs of as many layers as fit; what it needs of the others is computed again when the way back comes to
 * them, which costs time and changes no bit. model_loss says once how many that are, and fails (ST_ENV) where
 * even all of them are too few. */
void model_set_budget(struct model *m, size_t n_bytes);
/* Whether model_loss may take over what it computed for the sequence before (the start; see there). */
void model_set_reuse(struct model *m, bool reuse);
const struct arch *model_arch(const struct model *m);
/* V: rows of the head with the new ones. */
int64_t model_vocab(const struct model *m);
/* The trainable values used from now on: device memory [params->n_values], borrowed. To be called again
 * whenever they have changed: until then the model takes what it computed with them for current. */
void model_set_values(struct model *m, const float *values);

/* Loss of a packed sequence. *loss_sum += sum over targets of -log p (double). When grad is not NULL (device
 * [n_values]) grad += grad_scale * d loss_sum / d values. token_loss: NULL or host [T], 0 where unlabelled.
 * Tokens that the sequence before begins with as well (model_common; say, the prompt of the shard before) are
 * not computed again on the way up, while the workspace has the activations of all layers. That changes no
 * bit.
 * Not collective. ST_ENV when memory is short, ST_INPUT when an id is out of range. */
enum status model_loss(struct model *m, const struct packed *seq, float grad_scale, float *grad,
                       double *loss_sum, float *token_loss, struct err *err);
/* A stem: tokens that several sequences begin with, before their first labels. What flows back into it
 * through its keys and values can be added up over the sequences first, so that the way back goes through it
 * once. model_loss_above is model_loss, but for the stem's part of the gradient: in place of that, the
 * gradients of its keys and values are added to the model_stem_values floats behind grad's n_values.
 * model_stem_back adds to grad's n_values the stem's part of all that was put there. ids [n_stem] are its
 * tokens. Not collective; ST_DEFECT for a stem that seq does not begin with or that is all of it, else as
 * model_loss. */
enum status model_loss_above(struct model *m, const struct packed *seq, int64_t n_stem, float grad_scale,
                             float *grad, double *loss_sum, float *token_loss, struct err *err);
enum status model_stem_back(struct model *m, const int32_t *ids, int64_t n_stem, float *grad,
                            struct err *err);
static inline int64_t model_stem_values(const struct arch *a, int64_t n_stem)
{
    return n_stem * a->n_layers * 2 * a->n_kv_heads * a->head_dim;
}
/* Logits of all positions, host [T, V]. For comparison and small models. */
enum status model_logits(struct model *m, const struct packed *seq, float *logits, struct err *err);

/* Decoding. A cache holds n_sequences of at most `capacity` tokens each. */
struct kv_cache;
enum status kv_cache_open(struct kv_cache **out, struct model *m, int32_t n_sequences, int32_t capacity,
                          struct err *err);
void kv_cache_close(struct kv_cache *c);
int32_t kv_cache_len(const struct kv_cache *c, int32_t sequence);
void kv_cache_reset(struct kv_cache *c);
/* Runs the prompt of one sequence (from position 0), fills its cache; logits host [V] of the last position.
 */
enum status model_prefill(struct model *m, struct kv_cache *c, int32_t sequence, const int32_t *ids,
                          int32_t n_tokens, float *logits, struct err *err);
/* Copies a sequence's cache: several samples of one prompt pay for it once. */
void kv_cache_copy(struct kv_cache *c, int32_t to, int32_t from);
/* One token for each of n sequences (sequence indices in `which`), logits host [n, V]. */
enum status model_decode(struct model *m, struct kv_cache *c, const int32_t *which, const int32_t *ids,
                         int32_t n, float *logits, struct err *err);

#endif
