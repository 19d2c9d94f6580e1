/* Shared by the files of the train room. */
#ifndef SMGPT_TRAIN_INTERNAL_H
#define SMGPT_TRAIN_INTERNAL_H

#include "comm/tree_sum.h"
#include "data/batch.h"
#include "data/plan.h"
#include "train/train.h"
#include "util/buf.h"
#include <pthread.h>
#include <stdatomic.h>

/* Whether device pointers are host pointers, so that nothing needs to be copied over. */
bool train__on_host(const struct ops *ops);
/* 0, or why to stop: a signal, or the deadline (deadline_s 0: none). */
bool train__stop_asked(double deadline_s);

/* ---- rows.c: rows of a pack, copied out of it (rank 0) ---- */
struct rows {
    int32_t *ids, *labels; /* of all rows, one behind the other */
    int64_t n_tokens, capacity;
    struct batch_row *items; /* [n] views into them */
    int64_t n, n_items;      /* n_items: room */
};
enum status rows__read(struct rows *r, struct pack *p, enum pack_group group, const int64_t *index, int64_t n,
                       struct err *err);
void rows__release(struct rows *r);

/* Tokens that a stem may have at most: what flows into it travels and is kept as the gradient is, so it must
 * not be much more than that. A function of the model and of what is trained alone. */
int32_t train__most_stem(const struct arch *a, const struct params *p);
/* The stem of a step: see step_stem. */
int32_t train__stem(const struct batch_row *rows, int32_t n_rows, int32_t n_shards, int32_t most);

/* ---- message.c: the messages of one step, made by rank 0 before they are needed ---- */
struct messages {
    struct pack *pack;
    struct plan *plan;
    int32_t n_shards, max_tokens, most_stem;
    bool share_prefix;
    int world_size;
    struct rows rows;
    int64_t *index;       /* [rows of a step] */
    int32_t *first_row;   /* [n_shards + 1] */
    struct shard *shards; /* [n_shards] */
    struct buf *parts;    /* [world_size]; all empty when making them failed */
    int64_t step;         /* they are of; -1: none made */
    enum status status;   /* of making them */
    struct err err;
};
enum status messages__open(struct messages *m, const struct train_context *c, const struct train_options *o,
                           struct plan *plan, struct err *err);
void messages__close(struct messages *m);
/* Failures are kept in m->status and told when the step comes. */
void messages__make(struct messages *m, int64_t step);
/* In place of that step's messages: nobody gets any, and all ranks end with this failure. */
void messages__refuse(struct messages *m, int64_t step, const struct err *why);

/* ---- optimizer.c: AdamW on the flat vector ---- */
struct optimizer {
    const struct ops *ops;
    struct device *dev;
    const struct params *params;
    float *m, *v; /* device [n_values]; equal on all ranks */
};
enum status optimizer__open(struct optimizer *opt, const struct ops *ops, struct device *dev,
                            const struct params *params, struct err *err);
void optimizer__close(struct optimizer *opt);
/* L2 norm of a gradient as torch's clip_grad_norm_ sees it: of the float32 norms of the tensors. */
float optimizer__norm(const struct optimizer *opt, const float *grad);
/* min(1, max_norm / (norm + 1e-6)) in float32; 1 when max_norm is 0. */
float optimizer__clip(float norm, double max_norm);
/* Update number t (from 1) with that rate. */
void optimizer__update(struct optimizer *opt, const struct train_options *o, float *values, const float *grad,
                       double lr, float clip, int64_t t);

/* ---- step.c ---- */
struct trainer {
    const struct train_context *c;
    const struct train_options *o;
    struct plan plan;
    struct messages messages; /* rank 0 */
    struct buf inbox;
    struct tree_sum *sum;
    struct optimizer optimizer;
    int64_t n_sums; /* floats that the step at hand adds up: n_values, then those of its stem */
    int64_t n_room; /* there is room for in total and grad */
    float *total;   /* host [n_sums]: the summed gradient, in the sum's own memory or here */
    float *own_total;
    float *grad;    /* device: of a shard, then the total; NULL when train__on_host */
    double *shards; /* what each own shard brings, see step.c */
    int64_t step, warmup_steps;
    bool said_no_labels;
};
struct step_result {
    struct step_head head;
    double loss, grad_norm, lr, seconds;
    bool stopped; /* given up; nothing has changed */
};
enum status trainer__open(struct trainer *t, const struct train_context *c, const struct train_options *o,
                          struct err *err);
void trainer__close(struct trainer *t);
/* Learning rate of the step that follows `step` finished ones. */
double trainer__lr(const struct trainer *t, int64_t step);
/* One optimizer step; counts t->step up. Collective. */
enum status trainer__step(struct trainer *t, struct step_result *r, struct err *err);

/* ---- evaluate.c ---- */
#define EVAL_ROWS 8 /* of a shard: enough to share a prefix, few enough to hear a signal in time */
enum status train__evaluate(const struct train_context *c, enum pack_group group, int32_t max_pack_tokens,
                            bool share_prefix, double deadline_s, double *loss_mean, int64_t *n_labels,
                            struct err *err);

/* ---- log.c: train_log.jsonl and the history that goes into trainer_state.json (rank 0) ---- */
struct train_log {
    char path[PATH_BYTES];
    json_t *history; /* array, as Trainer's log_history */
};
/* Drops lines of steps after `step` (all of them for -1); history: of the checkpoint, borrowed, may be NULL.
 */
enum status log__open(struct train_log *l, const char *out_dir, int64_t step, const json_t *history,
                      struct err *err);
void log__close(struct train_log *l);
enum status log__step(struct train_log *l, const struct trainer *t, const struct step_result *r,
                      struct err *err);
enum status log__eval(struct train_log *l, const struct trainer *t, double loss, int64_t n_labels,
                      double seconds, struct err *err);
/* The newest record of the history or of the file that has the key, at exactly that step (-1: at any): its
 * number into *out; false if there is none. */
bool log__last(const struct train_log *l, const char *key, int64_t step, double *out);
/* On disk for good. */
enum status log__sync(const struct train_log *l, struct err *err);

/* ---- digest.c ---- */
/* ST_ENV naming rank, host and tensor when a rank's values or moments differ from the others'. Collective. */
enum status train__check_equal(const struct trainer *t, struct err *err);

/* ---- row_order.c: the order of new rows in the files of a directory ---- */
/* Whether adapter_row_ids() lists any rows otherwise than by ascending ids. */
bool order__is_flipped(const struct params *p);
/* Turns a flat vector into that order in place; the second time turns it back. */
void order__flip(const struct params *p, float *values);
struct row_order {
    int64_t *embed, *head; /* [n_new] which of our rows the file's row k is */
    double dropout;        /* of LoRA, by that directory's config */
};
void order__release(struct row_order *o);
/* That of a directory; ST_INPUT when its lists have other ids than p, or LoRA is scaled otherwise. */
enum status order__read(struct row_order *o, const char *dir, const struct params *p, struct err *err);
/* Turns a flat vector from the file's order into ours, in place. */
enum status order__apply(const struct row_order *o, const struct params *p, float *values, struct err *err);

/* ---- whole_rows.c: new rows out of whole matrices (modules_to_save) ---- */
#define WHOLE_EMBED "base_model.model.model.embed_tokens.weight"
#define WHOLE_HEAD  "base_model.model.lm_head.weight"
/* The tensor that holds an item of new rows as a whole matrix; NULL for other items. */
const char *whole__name(const struct params *p, int32_t item);
/* Rows that such a matrix must have; 0 when the base is not at hand. */
int64_t whole__rows(const struct params *p);
/* The item's rows into out; ST_INPUT unless all other rows are the base's. */
enum status whole__take(const struct params *p, int32_t item, const struct tensor *t, const char *file,
                        float *out, struct err *err);
/* Widens *first .. *end by the rows of t that are not the base's. ST_INPUT when it is no matrix of the base's
 * width, or has fewer rows. */
enum status whole__find(const struct tensor *t, const struct weight *base, const char *file, int64_t *first,
                        int64_t *end, struct err *err);
/* Where one parameter serves both ends: ST_INPUT unless the head's matrix is there and equal. */
enum status whole__check_tied(const struct params *p, const struct tensor *embed, const struct tensor *head,
                              const char *file, struct err *err);
/* optimizer.pt with moments of whole matrices: s as optimizer_write wants it, but for params, exp_avg and
 * exp_avg_sq. */
struct optimizer_state;
enum status whole__optimizer_write(const char *path, const struct params *p, struct optimizer_state *s,
                                   const float *m, const float *v, struct err *err);
/* Tensors rounded to another type, those with data into *memory, which is the caller's to free. */
enum status adapter__round(struct tensor_list *list, enum dtype dtype, void **memory, struct err *err);
/* Second copies that PEFT writes of such modules when the base was grown. */
bool whole__is_copy(const char *name);

/* ---- checkpoint_io.c ---- */
/* All that a checkpoint is made from, so that the run may go on while it is written. */
struct save_point {
    const struct train_context *c; /* its params and files; what stands in them does not change */
    const struct train_options *o;
    int64_t step, max_steps, steps_per_epoch;
    double epoch, lr;      /* lr: of the next step */
    float *values, *m, *v; /* host [n_values]; changed and changed back while it is written */
    struct train_log log;  /* of that step */
    enum dtype dtype;      /* of the adapter file */
};
/* Rank 0. Talks to no other rank. */
enum status checkpoint__save(const struct save_point *p, struct err *err);
/* Values, moments and t->step from the checkpoint to resume from, on all ranks; *history (rank 0, new
 * reference or NULL). Leaves t->step 0 when there is nothing to resume. Collective. */
enum status checkpoint__restore(struct trainer *t, json_t **history, struct err *err);

/* ---- save_thread.c: at most one save at a time, in a thread of its own (rank 0) ---- */
struct saver {
    struct save_point point;
    float *copy; /* [3 n_values] while a save is under way */
    pthread_t thread;
    bool is_running; /* to be joined */
    atomic_bool is_over;
    enum status status; /* of the save, once it is over; then handed on once */
    struct err err;
};
/* Waits for the save before. Then copies the state, which is all that the caller waits for when
 * t->o->save_beside; else (or where there is no memory for a copy, or no thread) returns with the checkpoint
 * in place. A failure of the save before, or of this one as far as it is known. */
enum status saver__save(struct saver *s, const struct trainer *t, const struct train_log *l, enum dtype dtype,
                        struct err *err);
/* The failure of a save that is over; does not wait. */
enum status saver__check(struct saver *s, struct err *err);
/* Until nothing is under way. */
enum status saver__wait(struct saver *s, struct err *err);
/* The same; a failure that nobody has asked for becomes a warning. */
void saver__close(struct saver *s);

#endif
