/* Shared by the files of the comm room. */
#ifndef SMGPT_COMM_INTERNAL_H
#define SMGPT_COMM_INTERNAL_H

#include "comm/comm.h"
#include <stdbool.h>

/* Fills the fields that do not depend on the table; the name of the host. */
void comm__init(struct comm *c);

/* The MPI table. ST_ENV in a build without MPI. */
enum status comm__open_mpi(struct comm *c, struct err *err);

/* What a launcher (mpirun, srun) says in the environment: the number of processes it started for this job,
 * 0 when no launcher is seen, -1 when there is one that does not tell. */
int comm__launched(void);

/* Zeroed pages of this process alone: shared memory of a host with one rank. */
enum status comm__pages_alloc(size_t n_bytes, struct comm_shared *out, struct err *err);
void comm__pages_release(struct comm_shared *s);
/* The whole pages of [from, from + n_bytes); of_host: they are shared with other processes. */
void comm__pages_forget(const struct comm_shared *s, size_t from, size_t n_bytes, bool of_host);

#endif
