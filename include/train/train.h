/* Training of one stage: optimizer, schedule, step, loop. */
#ifndef SMGPT_TRAIN_TRAIN_H
#define SMGPT_TRAIN_TRAIN_H

#include "comm/comm.h"
#include "data/pack.h"
#include "model/cost.h"
#include "model/model.h"
#include "util/file.h"
#include <jansson.h>

enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT, SCHEDULE_CONSTANT_WITH_WARMUP };

struct train_options {
    int32_t stage;
    char out_dir[PATH_BYTES];
    int32_t batch_train, grad_accum;
    uint64_t seed;
    bool shuffle, share_prefix;
    double epochs;
    int64_t max_steps; /* 0: from epochs */
    double lr, warmup_ratio, weight_decay, max_grad_norm, adam_beta1, adam_beta2, adam_epsilon;
    enum schedule_kind schedule;
    int32_t virtual_shards;
    int64_t logging_steps, eval_steps,
        save_steps;    /* eval 0: only at the end; save 0: only halfway and last */
    int64_t stop_step; /* ends after this step, saved there too; 0: at the stage's last */
    int32_t keep_checkpoints;
    bool whole_rows;         /* new rows are saved as whole matrices (modules_to_save) */
    bool for_bitsandbytes;   /* optimizer.pt with the names that its 8-bit AdamW goes on from */
    enum dtype save_dtype;   /* of the adapter file; what a stop saves is float32 in any case */
    bool save_beside;        /* steps go on while a checkpoint is written, from a copy of the state */
    int32_t max_pack_tokens; /* tokens of one packed sequence */
    double deadline_s;       /* clock_s at which to save and stop; 0: none */
    bool resume;             /* go on from resume_dir, or the newest checkpoint when that is empty */
    char resume_dir[PATH_BYTES];
    bool accept_changes;  /* go on although options, rows or base model are not the checkpoint's */
    json_t *options_json; /* options that change the curve, for smgpt_state.json; borrowed */
};

/* What a checkpoint holds besides the numbers: given by the level above, used on rank 0 only. With
 * save_beside add_files and committed are called in a thread, one call at a time: what they read must not
 * change. */
struct train_files {
    /* Copies tokenizer, smgpt_data.json, adapter_config.json, README into the directory being filled. */
    enum status (*add_files)(void *user, const char *dir, int32_t stage, int64_t step, struct err *err);
    /* After a checkpoint is committed (hub spool). May be NULL. */
    enum status (*committed)(void *user, const char *dir, int32_t stage, int64_t step, bool final,
                             struct err *err);
    /* A short phrase for the end of the progress line, or "". May be NULL. */
    void (*note)(void *user, char *text, size_t n_bytes);
    void *user;
};

struct train_context {
    struct comm *comm;
    const struct ops *ops;
    struct device *dev;
    struct model *model;
    const struct params *params;
    float *values;              /* device [n_values]: start values in, trained out; equal on all ranks */
    struct pack *pack;          /* rank 0 only, else NULL */
    struct pack_info pack_info; /* all ranks */
    char model_sha256[SHA256_HEX_BYTES];
    struct train_files files;
};

struct train_result {
    int64_t step, max_steps;
    double last_loss, eval_loss; /* token means; NaN if never computed */
    bool stopped;                /* by a signal or the deadline, saved */
};

/* Factor on the learning rate (transformers' schedules, in double): step counts finished optimizer steps, so
 * that the k-th step has step k - 1 and with warm-up the first rate is 0. "constant" has no warm-up,
 * whatever the ratio; "constant_with_warmup" has. */
double schedule_factor(enum schedule_kind kind, int64_t step, int64_t warmup_steps, int64_t max_steps);
/* By the option's word ("cosine", "linear", "constant", "constant_with_warmup"); false for any other. */
bool schedule_by_name(const char *name, enum schedule_kind *out);
/* ceil(max_steps * ratio). */
int64_t schedule_warmup(int64_t max_steps, double ratio);

/* Trains a stage to its end (or to a stop), with logs and checkpoints. Collective.
 *
 * A stop (signal or deadline) on any rank gives up the step under way, saves the last finished one and
 * returns ST_OK with result->stopped; before the first finished step there is nothing to save. Resuming goes
 * on along the same curve bit by bit, on any number of ranks: ST_USAGE names the option or the pack that
 * differs from the checkpoint's. Checkpoints of steps after the one resumed from, and the log's lines of
 * them, belong to an attempt that is given up: the lines are dropped, the directories moved to
 * <out_dir>/superseded. A loss or gradient that is not finite ends the run with ST_INPUT before it gets into
 * the values. A failed save (disk full, no permission) is ST_ENV, found before the next step at the latest
 * that begins after it; the checkpoint before it stays as it was. On return no save is under way.
 */
enum status train_stage(const struct train_context *c, const struct train_options *o,
                        struct train_result *result, struct err *err);

/* Token-mean loss of a pack's group, spread over the ranks; the same bits on all and for any number of them.
 * NaN and 0 labels when the group has none. ST_STOPPED after a signal. Collective. */
enum status train_evaluate(const struct train_context *c, enum pack_group group, int32_t max_pack_tokens,
                           bool share_prefix, double *loss_mean, int64_t *n_labels, struct err *err);

/* What steps hold, with and without shared prefixes; sequences without a label are not run and not counted.
 */
struct train_load {
    const struct arch *arch;  /* borrowed */
    int64_t max_steps;        /* of the whole stage */
    int64_t n_steps;          /* counted here */
    int64_t n_rows, n_tokens; /* shared prefixes counted in each row */
    int64_t longest_stem;     /* tokens; 0: no step has a stem */
    struct model_load shared, apart;
};
/* Tokens of the longest sequence that an evaluation of the pack runs; 0 without evaluation rows. Rank 0. */
enum status train_count_eval(int64_t *longest, const struct train_context *c, const struct train_options *o,
                             struct err *err);
/* Counts n steps behind the first `first` ones (n -1: all that follow) from the pack's rows as training would
 * pack them, whatever share_prefix says. Of more than `most` steps an even sample of at most so many. Rank 0.
 */
enum status train_count(struct train_load *out, const struct train_context *c, const struct train_options *o,
                        const struct arch *a, int64_t first, int64_t n, int64_t most, struct err *err);

/* Bytes that a rank of a run keeps beside weights and workspace, as the run allocates them on the host. */
struct train_memory {
    size_t values, moments, gradient;
    size_t sums;      /* partial sums over the virtual shards */
    size_t save_copy; /* while a checkpoint is written; rank 0 */
};
/* n_stem_values: of the longest stem (model_stem_values). ST_USAGE for more ranks than shards. Not
 * collective. */
enum status train_memory(struct train_memory *out, const struct params *p, int64_t n_stem_values,
                         int32_t virtual_shards, int world_size, int rank, struct err *err);

/* One step that train_measure made; clock_s times of this rank. */
struct train_step {
    int64_t step; /* from 1 */
    double begin_s, end_s, loss, grad_norm;
    int64_t n_rows, n_tokens, n_labels; /* of the global batch */
};
struct train_watch {
    void (*before)(void *user, int64_t step);
    void (*after)(void *user, const struct train_step *s);
    void *user;
};
/* The stage's first n_steps steps from the values in c: the steps that train_stage makes, without logs,
 * evaluation, comparison of digests or checkpoints. Collective. */
enum status train_measure(const struct train_context *c, const struct train_options *o, int64_t n_steps,
                          const struct train_watch *watch, struct err *err);

#endif
