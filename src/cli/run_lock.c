/* The lock is on the directory itself: it leaves no file behind, and goes with its holder. */
#include "run_lock.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#define WAIT_S 15

static enum status wait_for(int fd, const char *out_dir, struct err *err)
{
    const double end = clock_s() + WAIT_S;
    bool said = false;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
        if (stop_requested())
            return err_set(err, ST_STOPPED, "stopped while another run was writing to '%s'", out_dir);
        if (clock_s() > end) {
            err_set(err, ST_ENV, "another run is writing to '%s'", out_dir);
            return err_hint(err, "wait for its end or stop it; another work_dir lets both run");
        }
        if (!said)
            log_info("another run still writes to '%s', waiting for its end", out_dir);
        said = true;
        clock_sleep_s(0.1);
    }
    return ST_OK;
}

enum status run_lock_take(int *fd, const char *out_dir, struct err *err)
{
    TRY(dir_make(out_dir, err));
    *fd = open(out_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return err_errno(err, ST_ENV, "cannot open '%s'", out_dir);
    enum status st = wait_for(*fd, out_dir, err);
    if (st != ST_OK)
        run_lock_release(fd);
    return st;
}

void run_lock_release(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
