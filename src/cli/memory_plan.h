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
    size_t weight_files;   /* mapped while rank 0 reads them */
    /* of a rank */
    struct train_memory train;
    int64_t room_tokens;         /* that the workspace has room for */
    size_t workspace;            /* activations and their gradients, resident as soon as it is made */
    size_t program, rank0_extra; /* as asked */
    /* sums: resident memory of rank 0 while it reads, packs, trains; of another rank; of a host's ranks */
    size_t reading, packing, training, peak_rank0, peak_other, host;
};

struct memory_question {
    int64_t train_longest, eval_longest; /* tokens of the longest sequence; 0: no evaluation */
    int64_t n_positions;
    int n_ranks, n_local; /* in all; on the host of rank 0 */
    size_t program;       /* resident before anything was opened: program and libraries */
    size_t rank0_extra;   /* tokenizer, data set, pack, on rank 0 */
};

/* The model needs no weights, its directory is read for the size of its files. Not collective. */
enum status memory_plan_make(struct memory_plan *out, const struct stage_ready *stage,
                             const struct memory_question *q, struct err *err);

#endif
