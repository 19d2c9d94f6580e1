/* Reading a doubtful file in a child process first. HDF5 keeps sums of its own tables only in files of its
 * newer format, which is the one that we write. In an older file (h5py writes those unless told otherwise)
 * one damaged byte can lead HDF5 1.10 out of its memory, and that must not be how a training run ends. */
#include "pack_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBE_MAX_S 600

/* The newer format's superblock has version 2 or above, in the byte behind the signature. */
static bool keeps_sums(const char *path)
{
    static const char signature[8] = "\x89HDF\r\n\x1a\n";
    char head[9];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof head);
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)sizeof head && !memcmp(head, signature, sizeof signature) && head[8] >= 2;
}

_Noreturn static void probe_child(const char *path)
{
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};
    const struct rlimit none = {0, 0};
    struct pack *p;
    struct pack_info info;
    setrlimit(RLIMIT_CORE, &none);
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC); /* for last words of the C library */
    if (nowhere >= 0)
        dup2(nowhere, STDERR_FILENO);
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        signal(deadly[i], SIG_DFL); /* no handler of MPI's or of a test's speaks for the child */
    alarm(PROBE_MAX_S);
    if (data__pack_read(&p, path, &info, 0, NULL) == ST_OK)
        pack_close(p);
    _exit(0); /* good or refused, it came to an end; the parent finds out which */
}

enum status data__pack_probe(const char *path, struct err *err)
{
    int state = 0;
    if (keeps_sums(path))
        return ST_OK;
    pid_t child = fork();
    if (child == 0)
        probe_child(path);
    if (child < 0)
        return ST_OK; /* no room for a process: read it unprobed */
    while (waitpid(child, &state, 0) < 0) {
        if (errno != EINTR)
            return ST_OK; /* somebody else waits for all children */
    }
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0)
        return ST_OK;
    err_set(err, ST_INPUT, "\"%s\": damaged so that the HDF5 library fails on it", path);
    return err_hint(err, "make it again with `smgpt-dist pack`, or fetch it again");
}
