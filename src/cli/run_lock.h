/* One run at a time writes into an output directory. */
#ifndef SMGPT_CLI_RUN_LOCK_H
#define SMGPT_CLI_RUN_LOCK_H

#include "util/err.h"

/* Takes the directory, which is made if it is not there, for this process, until *fd is closed or the process
 * ends, however it ends. One that another run has is waited for some seconds, since a run that was killed may
 * still be ending; then ST_ENV. ST_STOPPED: a signal came first. Where the file system knows no locks, *fd is
 * -1 and all is well. */
enum status run_lock_take(int *fd, const char *out_dir, struct err *err);
void run_lock_release(int *fd);

#endif
