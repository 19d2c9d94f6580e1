/* Sharing out a host's memory among its ranks, before a stage's first step. */
#ifndef SMGPT_CLI_MEMORY_SHARE_H
#define SMGPT_CLI_MEMORY_SHARE_H

#include "stages.h"

/* Tells the model of the longest sequence that it has to expect and sets the budget of its workspace, the
 * same on all ranks: what the limits of all hosts leave. program, rank0_extra: resident memory as
 * memory_plan.h has it, rank 0's. ST_ENV with the memory that it takes where a limit is below what training
 * needs. Collective. */
enum status memory_share(const struct stage_ready *stage, const struct options *o, size_t program,
                         size_t rank0_extra, struct err *err);

#endif
