/* Stands for the MPI table in a build without MPI. */
#include "comm_internal.h"

enum status comm__open_mpi(struct comm *c, struct err *err)
{
    comm__init(c);
    int n = comm__launched();
    if (n == 1)
        return comm_open_self(c, err);
    if (n > 1)
        err_set(err, ST_ENV, "the launcher started %d processes, but this build has no MPI", n);
    else
        err_set(err, ST_ENV, "this build has no MPI");
    return err_hint(err, "configure with -DSMGPT_MPI=ON, or start the program without mpirun or srun");
}
