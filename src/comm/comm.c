#include "comm_internal.h"
#include "util/fatal.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_S 60.0

void comm__init(struct comm *c)
{
    memset(c, 0, sizeof *c);
    c->world_size = c->local_size = c->n_nodes = 1;
    c->timeout_s = DEFAULT_TIMEOUT_S;
    if (gethostname(c->host, sizeof c->host - 1) != 0 || c->host[0] == '\0')
        strcpy(c->host, "localhost");
}

static int env_int(const char *name, int absent)
{
    const char *text = getenv(name);
    if (text == NULL || text[0] == '\0')
        return absent;
    char *end;
    long v = strtol(text, &end, 10);
    return *end == '\0' && v > 0 && v < 100000000 ? (int)v : absent;
}

int comm__launched(void)
{
    /* Open MPI's mpirun; MPICH, Intel MPI and other Hydra launchers; MVAPICH. */
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int n = env_int(sizes[i], 0);
        if (n > 0)
            return n;
    }
    /* srun sets the size of the step, with and without PMIx. SLURM_NTASKS alone says nothing: a batch script
     * has it too, and a program that the script starts without srun is one process. */
    if (getenv("SLURM_PROCID") != NULL) {
        int n = env_int("SLURM_STEP_NUM_TASKS", 0);
        if (n > 1 || (n == 1 && getenv("PMIX_RANK") != NULL))
            return n;
    }
    return getenv("PMIX_RANK") != NULL || getenv("PMI_RANK") != NULL ? -1 : 0;
}

enum status comm_open(struct comm *c, const char *name, struct err *err)
{
    if (strcmp(name, "self") == 0)
        return comm_open_self(c, err);
    if (strcmp(name, "mpi") == 0)
        return comm__open_mpi(c, err);
    if (strcmp(name, "auto") != 0)
        return err_set(err, ST_USAGE, "unknown table of collectives \"%s\"; known are auto, self, mpi", name);
    return comm__launched() != 0 ? comm__open_mpi(c, err) : comm_open_self(c, err);
}

void comm_close(struct comm *c)
{
    if (c->ops != NULL)
        c->ops->close(c);
    c->ops = NULL;
    c->impl = NULL;
}

void comm_set_timeout(struct comm *c, double seconds)
{
    if (seconds > 0)
        c->timeout_s = seconds;
}

/* Agreed on before, further down: the rank is named already, and it need not be this one. */
static bool names_rank(const char *what)
{
    for (const char *at = strstr(what, "rank "); at != NULL; at = strstr(at + 1, "rank ")) {
        size_t n = strspn(at + 5, "0123456789");
        if (n > 0 && strncmp(at + 5 + n, " on ", 4) == 0)
            return true;
    }
    return false;
}

/* The failure of this rank as the others shall read it. */
static void failure_text(const struct comm *c, enum status mine, const struct err *err, struct err *out)
{
    memset(out, 0, sizeof *out);
    if (err != NULL)
        *out = *err;
    out->status = mine;
    if (out->what[0] == '\0')
        snprintf(out->what, sizeof out->what, "%s", status_text(mine));
    if (c->world_size > 1 && !names_rank(out->what))
        err_where(out, "rank %d on %s", c->rank, c->host);
}

/* Rank 0: the first part that is not empty decides. */
static void lowest_failure(const struct comm *c, const struct buf *parts, struct err *out)
{
    memset(out, 0, sizeof *out);
    for (int r = 0; r < c->world_size; r++) {
        if (parts[r].n_bytes != sizeof *out)
            continue;
        memcpy(out, parts[r].data, sizeof *out);
        return;
    }
}

enum status comm_agree(struct comm *c, enum status mine, struct err *err)
{
    if (c->world_size == 1) {
        if (mine != ST_OK && err != NULL && err->status == ST_OK)
            return err_set(err, mine, "%s", status_text(mine));
        return mine;
    }
    struct err worst = ERR_INIT;
    if (mine != ST_OK)
        failure_text(c, mine, err, &worst);
    struct buf *parts = NULL;
    if (c->rank == 0 && (parts = calloc((size_t)c->world_size, sizeof *parts)) == NULL) {
        struct err memory = ERR_INIT;
        err_memory(&memory, "an agreement of the ranks", (size_t)c->world_size * sizeof *parts);
        fatal(&memory);
    }

    struct err none = ERR_INIT;
    enum status st = c->ops->gather(c, &worst, mine != ST_OK ? sizeof worst : 0, parts, &none);
    if (c->rank == 0) {
        lowest_failure(c, parts, &worst);
        for (int r = 0; r < c->world_size; r++)
            buf_release(&parts[r]);
        free(parts);
    }
    int32_t agreed = (int32_t)worst.status;
    if (st == ST_OK)
        st = c->ops->bcast(c, 0, &agreed, sizeof agreed, &none);
    if (st == ST_OK && agreed != ST_OK)
        st = c->ops->bcast(c, 0, &worst, sizeof worst, &none);
    if (st == ST_OK && agreed == ST_OK)
        return ST_OK;
    if (err != NULL)
        *err = st == ST_OK ? worst : none;
    return st == ST_OK ? worst.status : st;
}

enum status comm__pages_alloc(size_t n_bytes, struct comm_shared *out, struct err *err)
{
    memset(out, 0, sizeof *out);
    size_t n = n_bytes > 0 ? n_bytes : 1;
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return err_memory(err, "memory shared by the ranks of a host", n_bytes);
    /* Large pages spare the walks through it page faults and TLB misses; where they are off nothing is lost.
     */
    madvise(p, n, MADV_HUGEPAGE);
    *out = (struct comm_shared){.data = p, .n_bytes = n_bytes};
    return ST_OK;
}

void comm__pages_release(struct comm_shared *s)
{
    if (s->data != NULL)
        munmap(s->data, s->n_bytes > 0 ? s->n_bytes : 1);
    memset(s, 0, sizeof *s);
}

void comm__pages_forget(const struct comm_shared *s, size_t from, size_t n_bytes, bool of_host)
{
    if (from > s->n_bytes || n_bytes > s->n_bytes - from)
        return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), offset = (uintptr_t)s->data % page;
    size_t first = (offset + from + page - 1) / page * page, end = (offset + from + n_bytes) / page * page;
    /* Where it is refused the memory is only held longer. */
    if (end > first)
        madvise((char *)s->data - offset + first, end - first, of_host ? MADV_REMOVE : MADV_DONTNEED);
}
