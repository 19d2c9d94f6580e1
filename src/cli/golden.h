/* A golden directory: what the real transformers + PEFT computed for a model, its adapter and its pack. Each
 * check computes the same here and reports the largest difference (docs/fidelity.md says what is in the
 * files). */
#ifndef SMGPT_CLI_GOLDEN_H
#define SMGPT_CLI_GOLDEN_H

#include "comm/comm.h"
#include "config/options.h"

enum golden_measure {
    GOLDEN_LOGITS,        /* absolute */
    GOLDEN_FORWARD_LOSS,  /* relative, rows of the first step */
    GOLDEN_GRADIENTS,     /* of the largest gradient */
    GOLDEN_STEP_LOSS,     /* relative, largest over the trajectory */
    GOLDEN_GRAD_NORM,     /* relative */
    GOLDEN_LEARNING_RATE, /* absolute: must be 0 */
    GOLDEN_FINAL_ADAPTER, /* absolute */
    GOLDEN_EVAL_ROWS,     /* relative on each row's loss sum */
    GOLDEN_GREEDY,        /* tokens that differ */
    N_GOLDEN_MEASURES
};

struct golden_result {
    bool present[N_GOLDEN_MEASURES];
    double difference[N_GOLDEN_MEASURES], limit[N_GOLDEN_MEASURES];
    double noise[N_GOLDEN_MEASURES]; /* float32 against float64 in transformers itself; NaN if not measured */
    int64_t count[N_GOLDEN_MEASURES]; /* numbers compared */
};
const char *golden_name(enum golden_measure m);

/* Fills result with what dir has files for. out_dir takes the trajectory's log and checkpoints. */
/* The distance of bfloat16 trajectories to the float64 one: ours beside those that dir records of
 * transformers. */
enum bf16_measure { BF16_LOSS, BF16_GRAD_NORM, BF16_FINAL_ADAPTER, N_BF16_MEASURES };
struct golden_distance {
    double rms, max; /* loss and norm relative, adapter absolute */
};
struct golden_bf16 {
    struct golden_distance ours[N_BF16_MEASURES];
    struct golden_distance theirs[2][N_BF16_MEASURES]; /* bfloat16 weights; the same under autocast */
};
const char *golden_bf16_name(enum bf16_measure m);
/* ST_INPUT when dir has no bfloat16 records (train_float64.jsonl, train_bf16.jsonl, ...). */
enum status golden_check_bf16(const char *dir, const char *out_dir, struct comm *comm,
                              const struct options *o, struct golden_bf16 *result, struct err *err);

enum status golden_check(const char *dir, const char *out_dir, struct comm *comm, const struct options *o,
                         struct golden_result *result, struct err *err);

#endif
