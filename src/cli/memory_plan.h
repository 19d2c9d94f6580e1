/* How much memory a run will take, asked of the functions that the run sizes its memory with. */
#ifndef SMGPT_CLI_MEMORY_PLAN_H
#define SMGPT_CLI_MEMORY_PLAN_H

#include "stages.h"

/* Bytes. What is shared stands once a host, whatever the number of its ranks. */
struct memory_plan {
    /* shared by the ranks of a host */
    size_t weights;        /* as read: [rows, cols] and norms */
    size_t weights_packed; /* the forms that the products read */
    size_t weights_unused; /* of `weights`: goes back to the system once packed */
    size_t weights_step;   /* of `weights`: the most that is read and packed at a time */
    size_t weight_files;   /* mapped while rank 0 reads them, such a part at a time */
    /* of a rank */
    struct train_memory train;
    int64_t room_tokens; /* that the workspace has room for */
    /* Activations and their gradients, resident as soon as they are made: when those of all layers are kept,
     * when those of all layers are computed again on the way back, and as the limit has it. */
    size_t workspace_kept, workspace_again, workspace;
    int32_t n_again, n_layers;   /* layers computed again, as the limit has it; of how many */
    bool fits;                   /* below the limit, at least with all layers computed again */
    size_t program, rank0_extra; /* as asked */
    /* sums: resident memory of rank 0 while it reads and packs, and while it trains; of another rank; of a
     * host's ranks */
    size_t reading, training, peak_rank0, peak_other, host;
    size_t needed; /* of a host's ranks, with all layers computed again; without the files' mapped pages,
                      which the system takes back when it needs them */
};

struct memory_question {
    int64_t train_longest, eval_longest; /* tokens of the longest sequence; 0: no evaluation */
    int64_t n_positions, stem;           /* stem: tokens of the longest one */
    int n_ranks, n_local;                /* in all; on the host of rank 0 */
    size_t program;                      /* resident before anything was opened: program and libraries */
    size_t rank0_extra;                  /* tokenizer, data set, pack, on rank 0 */
    int64_t limit;                       /* bytes of a host's ranks together */
};

/* The model needs no weights, its directory is read for the size of its files; the limit's budget is set on
 * it. Not collective. */
enum status memory_plan_make(struct memory_plan *out, const struct stage_ready *stage,
                             const struct memory_question *q, struct err *err);

/* What a limit leaves for the workspace of each of n_local ranks of a host. At least 1. */
size_t memory_plan_budget(const struct memory_plan *p, int64_t limit, int n_local);
/* Bytes that the ranks of a host may take together: option memory_limit, or most of what the machine and its
 * control group allow. */
enum status memory_plan_limit(int64_t *out, const struct options *o, struct err *err);

#endif
