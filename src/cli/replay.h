/* Whether this machine makes the same steps again: a stretch before a checkpoint is trained anew and
 * compared. */
#ifndef SMGPT_CLI_REPLAY_H
#define SMGPT_CLI_REPLAY_H

#include "comm/comm.h"
#include "config/options.h"

struct replay_result {
    int64_t from_step, to_step;
    bool equal;
    char difference[512]; /* the first tensor that differs, and by how much; "" when equal */
};

/* checkpoint: a checkpoint-<step> directory among others of its run. Starts from the newest one that is at
 * least n_steps earlier (the oldest when none is; 0: the newest earlier one), with the options saved beside
 * the checkpoint (what the command line sets about ranks, threads, cpu_path and about where model, data_json,
 * pack and system_prompt_file lie holds). Writes to a temporary directory only. Collective. */
enum status replay_checkpoint(struct comm *comm, const struct options *o, const char *checkpoint,
                              int64_t n_steps, struct replay_result *result, struct err *err);

#endif
