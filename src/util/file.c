/* Paths, whole reads and read-only maps. */
#include "util/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum status path_join(char out[PATH_BYTES], const char *dir, const char *name, struct err *err)
{
    size_t n_dir = strlen(dir);
    while (n_dir > 1 && dir[n_dir - 1] == '/')
        n_dir--;
    bool is_root = n_dir == 1 && dir[0] == '/';
    if (n_dir > 0)
        name += strspn(name, "/");
    size_t n_name = strlen(name);
    size_t n_slash = n_dir > 0 && n_name > 0 && !is_root ? 1 : 0;
    if (n_dir >= PATH_BYTES || n_name >= PATH_BYTES || n_dir + n_slash + n_name >= PATH_BYTES)
        return err_set(err, ST_INPUT, "path too long (more than %d bytes): \"%.200s...\"", PATH_BYTES - 1,
                       n_dir > 0 ? dir : name);
    /* memmove: callers extend a path in place. */
    memmove(out + n_dir + n_slash, name, n_name);
    memmove(out, dir, n_dir);
    if (n_slash)
        out[n_dir] = '/';
    out[n_dir + n_slash + n_name] = '\0';
    return ST_OK;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool dir_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* What is missing or forbidden is the caller's choice of path; what the machine ran out of is not. */
static enum status errno_status(int code)
{
    switch (code) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EIO:
    case ESTALE:
        return ST_ENV;
    default:
        return ST_INPUT;
    }
}

enum status file_size(const char *path, int64_t *n_bytes, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_errno(err, errno_status(errno), "cannot find \"%s\"", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ST_INPUT, "\"%s\" is no regular file", path);
    *n_bytes = (int64_t)st.st_size;
    return ST_OK;
}

static enum status open_read(int *fd, struct stat *st, const char *path, struct err *err)
{
    do
        *fd = open(path, O_RDONLY | O_CLOEXEC);
    while (*fd < 0 && errno == EINTR);
    if (*fd < 0)
        return err_errno(err, errno_status(errno), "cannot open \"%s\"", path);
    if (fstat(*fd, st) != 0) {
        err_errno(err, ST_ENV, "cannot inspect \"%s\"", path);
    } else if (S_ISDIR(st->st_mode)) {
        err_set(err, ST_INPUT, "\"%s\" is a directory, a file is expected", path);
    } else {
        return ST_OK;
    }
    close(*fd);
    *fd = -1;
    return err ? err->status : ST_INPUT;
}

/* The size that stat gives is only a first guess: pipes have none and a file may grow while it is read. */
static enum status read_all(int fd, size_t guess, size_t max_bytes, struct buf *out, const char *path,
                            struct err *err)
{
    TRY(buf_reserve(out, guess, err));
    for (;;) {
        if (out->n_bytes > max_bytes) {
            err_set(err, ST_INPUT, "\"%s\" is larger than the %zu bytes allowed here", path, max_bytes);
            return ST_INPUT;
        }
        size_t room = out->capacity - 1 - out->n_bytes;
        if (room == 0) {
            TRY(buf_reserve(out, 65536, err));
            room = out->capacity - 1 - out->n_bytes;
        }
        ssize_t n = read(fd, out->data + out->n_bytes, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, ST_ENV, "cannot read \"%s\" at byte %zu", path, out->n_bytes);
        if (n == 0)
            return ST_OK;
        out->n_bytes += (size_t)n;
        out->data[out->n_bytes] = '\0';
    }
}

enum status file_read(const char *path, size_t max_bytes, struct buf *out, struct err *err)
{
    buf_clear(out);
    int fd;
    struct stat st;
    TRY(open_read(&fd, &st, path, err));
    size_t guess = S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size : 0;
    enum status status;
    if (guess > max_bytes)
        status = err_set(err, ST_INPUT, "\"%s\" has %zu bytes, at most %zu are allowed here", path, guess,
                         max_bytes);
    else
        status = read_all(fd, guess + 1, max_bytes, out, path, err);
    close(fd);
    if (status != ST_OK)
        buf_clear(out);
    return status;
}

enum status file_map(struct file_map *map, const char *path, struct err *err)
{
    *map = (struct file_map){0};
    int fd;
    struct stat st;
    TRY(open_read(&fd, &st, path, err));
    enum status status = ST_OK;
    if (!S_ISREG(st.st_mode)) {
        status = err_set(err, ST_INPUT, "\"%s\" is no regular file", path);
    } else if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = err_errno(err, ST_ENV, "cannot map \"%s\" (%lld bytes)", path, (long long)st.st_size);
        else
            *map = (struct file_map){.data = data, .n_bytes = (size_t)st.st_size};
    }
    close(fd);
    return status;
}

void file_map_forget(const struct file_map *map)
{
    if (map->data)
        madvise((void *)(uintptr_t)map->data, map->n_bytes, MADV_DONTNEED);
}

void file_unmap(struct file_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->n_bytes);
    *map = (struct file_map){0};
}
