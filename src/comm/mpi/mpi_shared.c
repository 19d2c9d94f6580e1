/* Memory that the ranks of a host share. */
#include "mpi_internal.h"
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#define ALIGN_BYTES 64
#define SHM_DIR     "/dev/shm" /* where the windows of MPI libraries on Linux get their pages */

/* The pages are taken when they are first written: a file system that is too small would then end the process
 * by SIGBUS in the middle of a copy, so the room is looked at before. */
static enum status check_room(const struct comm *c, size_t n_bytes, struct err *err)
{
    struct statvfs fs;
    if (c->local_rank != 0 || statvfs(SHM_DIR, &fs) != 0)
        return ST_OK;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes >= n_bytes)
        return ST_OK;
    err_set(err, ST_ENV, "no room to share %.1f MB between the %d ranks of host %s: %s has %.1f MB left",
            1e-6 * (double)n_bytes, c->local_size, c->host, SHM_DIR, 1e-6 * (double)free_bytes);
    return err_hint(
        err,
        "make it larger (mount -o remount,size=..., or --shm-size of a container), or start one rank a host");
}

static enum status window_alloc(struct comm *c, size_t n_bytes, struct comm_shared *out, struct err *err)
{
    struct mpi_state *s = c->impl;
    MPI_Win *win = malloc(sizeof *win);
    if (win == NULL)
        return err_memory(err, "shared window", sizeof *win);
    void *base = NULL;
    MPI_Aint n = c->local_rank == 0 ? (MPI_Aint)(n_bytes + ALIGN_BYTES) : 0, n_seen = 0;
    int unit = 1;
    pthread_mutex_lock(&s->p2p.lock);
    int code = MPI_Win_allocate_shared(n, 1, MPI_INFO_NULL, s->node, &base, win);
    if (code == MPI_SUCCESS)
        code = MPI_Win_shared_query(*win, 0, &n_seen, &unit, &base);
    pthread_mutex_unlock(&s->p2p.lock);
    if (code != MPI_SUCCESS) {
        char text[MPI_MAX_ERROR_STRING] = "";
        int len = 0;
        MPI_Error_string(code, text, &len);
        free(win);
        err_set(err, ST_ENV, "MPI shares no %.1f MB between the ranks of host %s: %.200s",
                1e-6 * (double)n_bytes, c->host, text);
        return err_hint(err, "start one rank a host");
    }
    /* Maps begin on pages, so that the distance to the next border is the same in every process. */
    uintptr_t at = ((uintptr_t)base + ALIGN_BYTES - 1) & ~(uintptr_t)(ALIGN_BYTES - 1);
    *out = (struct comm_shared){.data = (void *)at, .n_bytes = n_bytes, .impl = win};
    return ST_OK;
}

static void block_free(struct comm *c, struct comm_shared *s)
{
    struct mpi_state *state = c->impl;
    if (s->impl == NULL) {
        comm__pages_release(s);
        return;
    }
    pthread_mutex_lock(&state->p2p.lock);
    MPI_Win_free(s->impl);
    pthread_mutex_unlock(&state->p2p.lock);
    free(s->impl);
    memset(s, 0, sizeof *s);
}

enum status mpi__shared_alloc(struct comm *c, size_t n_bytes, struct comm_shared *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    bool alone = c->local_size == 1;
    /* Agreed before the window is made, so that nobody waits inside the library for a rank that gave up. */
    TRY(comm_agree(c, alone ? ST_OK : check_room(c, n_bytes, err), err));
    enum status st = alone ? comm__pages_alloc(n_bytes, out, err) : window_alloc(c, n_bytes, out, err);
    st = comm_agree(c, st, err);
    if (st != ST_OK)
        block_free(c, out);
    return st;
}

void mpi__shared_forget(struct comm *c, struct comm_shared *s, size_t from, size_t n_bytes)
{
    if (c->local_rank == 0)
        comm__pages_forget(s, from, n_bytes, s->impl != NULL);
}

void mpi__shared_release(struct comm *c, struct comm_shared *s)
{
    /* The library waits busily and for ever for the last rank of the host; our barrier does neither. */
    c->ops->barrier(c, NULL);
    block_free(c, s);
}
