/* Files that are complete or absent. */
#include "util/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Behind the stdio stream stands our own write: stdio takes an interrupted write for a failure, and forgets
 * by the time of fclose why a write failed. */
struct file_sink {
    int fd;
    int write_errno;      /* of the first write that failed, 0 if none did */
    size_t n_since_begun; /* bytes written since the disk was last told to begin */
};

#define BEGIN_BYTES ((size_t)16 << 20)

static _Thread_local bool sync_later;

void file_writer_sync_later(bool later)
{
    sync_later = later;
}

/* The disk begins with what the file has; nobody waits, and trouble shows when somebody does. */
static void sync_begin(struct file_sink *sink)
{
    (void)sync_file_range(sink->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    sink->n_since_begun = 0;
}

static ssize_t sink_write(void *cookie, const char *data, size_t n_bytes)
{
    struct file_sink *sink = cookie;
    size_t done = 0;
    while (done < n_bytes) {
        ssize_t n = write(sink->fd, data + done, n_bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (!sink->write_errno)
                sink->write_errno = n < 0 ? errno : ENOSPC;
            return 0; /* the sign of failure for a cookie stream */
        }
        done += (size_t)n;
    }
    sink->n_since_begun += n_bytes;
    if (sync_later && sink->n_since_begun >= BEGIN_BYTES)
        sync_begin(sink);
    return (ssize_t)n_bytes;
}

static int sink_seek(void *cookie, off64_t *offset, int whence)
{
    struct file_sink *sink = cookie;
    off64_t at = lseek64(sink->fd, *offset, whence);
    if (at < 0)
        return -1;
    *offset = at;
    return 0;
}

static enum status write_failure(const char *path, int code, struct err *err)
{
    errno = code;
    enum status status = err_errno(err, ST_ENV, "cannot write \"%s\"", path);
    if (code == ENOSPC || code == EDQUOT)
        err_hint(err, "free space on the disk that holds it, or point work_dir to another disk");
    else if (code == EACCES || code == EROFS || code == EPERM)
        err_hint(err, "the directory must be writable; point work_dir to one that is");
    return status;
}

static void writer_drop(struct file_writer *w)
{
    if (w->f)
        fclose(w->f);
    if (w->sink) {
        close(w->sink->fd);
        free(w->sink);
    }
    w->f = NULL;
    w->sink = NULL;
}

enum status file_writer_open(struct file_writer *w, const char *path, struct err *err)
{
    w->f = NULL;
    w->sink = NULL;
    int n_path = snprintf(w->path, sizeof w->path, "%s", path);
    int n_tmp = snprintf(w->tmp_path, sizeof w->tmp_path, "%s.tmp.%ld", path, (long)getpid());
    if (n_path <= 0 || n_path >= (int)sizeof w->path || n_tmp >= (int)sizeof w->tmp_path)
        return err_set(err, ST_INPUT, "no usable path for a file: \"%.200s\"", path);
    if (dir_exists(path))
        return write_failure(path, EISDIR, err);
    struct file_sink *sink = calloc(1, sizeof *sink);
    if (!sink)
        return err_memory(err, "a file writer", sizeof *sink);
    /* A left-over of a dead process that had our number, or a link laid there: never written through. */
    unlink(w->tmp_path);
    do
        sink->fd = open(w->tmp_path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    while (sink->fd < 0 && errno == EINTR);
    if (sink->fd < 0) {
        int code = errno;
        free(sink);
        return write_failure(path, code, err);
    }
    w->sink = sink;
    w->f = fopencookie(sink, "w", (cookie_io_functions_t){.write = sink_write, .seek = sink_seek});
    if (!w->f) {
        file_writer_abort(w);
        return err_memory(err, "a file stream", 0);
    }
    return ST_OK;
}

enum status file_writer_put(struct file_writer *w, const void *data, size_t n_bytes, struct err *err)
{
    if (!w->f)
        return err_set(err, ST_DEFECT, "write to a closed file writer");
    if (n_bytes > 0 && fwrite(data, 1, n_bytes, w->f) != n_bytes)
        return write_failure(w->path, w->sink->write_errno ? w->sink->write_errno : EIO, err);
    return ST_OK;
}

static int sync_fd(int fd)
{
    int rc;
    do
        rc = fsync(fd);
    while (rc != 0 && errno == EINTR);
    /* File systems that cannot sync say so with these; nothing more can be done there. */
    if (rc != 0 && (errno == EINVAL || errno == ENOTSUP || errno == ENOSYS))
        rc = 0;
    return rc;
}

enum status dir_sync(const char *path, struct err *err)
{
    int fd = open(path[0] ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ST_ENV, "cannot open directory \"%s\"", path);
    int rc = sync_fd(fd);
    int code = errno;
    close(fd);
    errno = code;
    if (rc != 0)
        return err_errno(err, ST_ENV, "cannot sync directory \"%s\"", path);
    return ST_OK;
}

static enum status parent_sync(const char *path, struct err *err)
{
    char dir[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (slash == path ? 1 : (size_t)(slash - path)) : 0;
    memcpy(dir, path, n);
    dir[n] = '\0';
    return dir_sync(dir, err);
}

/* Everything up to the rename; errno-like code of the first thing that failed, 0 if all is on disk. */
static int writer_finish(struct file_writer *w)
{
    int code = 0;
    if (fflush(w->f) != 0 || ferror(w->f))
        code = w->sink->write_errno ? w->sink->write_errno : EIO;
    if (!code && sync_later)
        sync_begin(w->sink);
    else if (!code && sync_fd(w->sink->fd) != 0)
        code = errno;
    FILE *f = w->f;
    w->f = NULL;
    if (fclose(f) != 0 && !code)
        code = w->sink->write_errno ? w->sink->write_errno : EIO;
    /* Some file systems report a full disk or quota only here. */
    if (close(w->sink->fd) != 0 && errno != EINTR && !code)
        code = errno;
    free(w->sink);
    w->sink = NULL;
    return code;
}

enum status file_writer_commit(struct file_writer *w, struct err *err)
{
    if (!w->f)
        return err_set(err, ST_DEFECT, "commit of a closed file writer");
    int code = writer_finish(w);
    if (!code && rename(w->tmp_path, w->path) != 0)
        code = errno;
    if (code) {
        unlink(w->tmp_path);
        return write_failure(w->path, code, err);
    }
    return sync_later ? ST_OK : parent_sync(w->path, err);
}

void file_writer_abort(struct file_writer *w)
{
    if (!w->f && !w->sink)
        return;
    writer_drop(w);
    unlink(w->tmp_path);
}

enum status file_write(const char *path, const void *data, size_t n_bytes, struct err *err)
{
    struct file_writer w;
    TRY(file_writer_open(&w, path, err));
    enum status status = file_writer_put(&w, data, n_bytes, err);
    if (status != ST_OK) {
        file_writer_abort(&w);
        return status;
    }
    return file_writer_commit(&w, err);
}

static enum status copy_bytes(int fd, const char *from, struct file_writer *w, struct err *err)
{
    char chunk[65536];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, ST_ENV, "cannot read \"%s\"", from);
        if (n == 0)
            return ST_OK;
        TRY(file_writer_put(w, chunk, (size_t)n, err));
    }
}

enum status file_copy(const char *from, const char *to, struct err *err)
{
    int64_t n_bytes;
    TRY(file_size(from, &n_bytes, err));
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ST_INPUT, "cannot open \"%s\"", from);
    struct file_writer w;
    enum status status = file_writer_open(&w, to, err);
    if (status == ST_OK) {
        status = copy_bytes(fd, from, &w, err);
        if (status == ST_OK)
            status = file_writer_commit(&w, err);
        else
            file_writer_abort(&w);
    }
    close(fd);
    return status;
}
