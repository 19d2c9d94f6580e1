/* The only way out of the process besides returning from main. For states in which no agreement with the
 * other ranks is possible any more (a dead peer, broken memory); everything else returns enum status. */
#ifndef SMGPT_UTIL_FATAL_H
#define SMGPT_UTIL_FATAL_H

#include "util/err.h"

/* The hook ends all ranks (MPI_Abort); it may return, then the process exits with the status's code. */
void fatal_set_hook(void (*hook)(int exit_code));

/* Logs the error on this rank, calls the hook, exits. */
_Noreturn void fatal(const struct err *err);

#endif
