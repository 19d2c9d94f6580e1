/* The locks of the cache that huggingface_hub shares: one file a blob, held with flock while the blob is
 * being written. Versions below 1.0 write "<blob>.incomplete" as we do and go on with what they find there
 * without looking at a hash, so two writers would leave a broken file under a good name. */
#include "download_internal.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* What the lock waits for may take as long as a download: a signal ends the wait. */
static enum status wait_for(int fd, const char *what, struct err *err)
{
    bool told = false;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_errno(err, ST_ENV, "cannot lock '%s'", what);
        if (stop_requested())
            return err_set(err, ST_STOPPED, "stopped while another program was fetching");
        if (!told)
            log_info("another program is fetching the same file, waiting for %s", what);
        told = true;
        clock_sleep_s(0.1);
    }
    return ST_OK;
}

enum status cache__lock(int *fd, const char *cache, const char *folder, const char *name, struct err *err)
{
    char locks[PATH_BYTES], dir[PATH_BYTES], file[SHA256_HEX_BYTES + 8], path[PATH_BYTES];
    TRY(path_join(locks, cache, ".locks", err));
    TRY(path_join(dir, locks, folder, err));
    TRY(dir_make(dir, err));
    snprintf(file, sizeof file, "%s.lock", name);
    TRY(path_join(path, dir, file, err));
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    if (*fd < 0)
        return err_errno(err, ST_ENV, "cannot open '%s'", path);
    enum status st = wait_for(*fd, path, err);
    if (st != ST_OK) {
        close(*fd);
        *fd = -1;
    }
    return st;
}
