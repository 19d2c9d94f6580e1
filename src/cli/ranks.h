/* The ranks of a command: opened with the options' settings, ended so that an error is said once. */
#ifndef SMGPT_CLI_RANKS_H
#define SMGPT_CLI_RANKS_H

#include "comm/comm.h"
#include "config/options.h"

/* All ranks of the launcher; sets o->threads when it is 0, the log's audience, the fatal hook. Collective. */
enum status ranks_open(struct comm *comm, struct options *o, struct err *err);
/* One rank, whatever the launcher says: commands that do not compute together. */
enum status ranks_open_self(struct comm *comm, struct options *o, struct err *err);
/* After an agreed failure rank 0 says the message, which is the same on all, before anybody ends: the first
 * rank that is gone with a failure makes launchers kill the others. err is empty afterwards. */
void ranks_close(struct comm *comm, enum status status, struct err *err);

#endif
