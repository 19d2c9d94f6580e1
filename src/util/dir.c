/* Directories: make, list, remove. */
#include "util/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Deeper trees than this are none of ours; the bound also keeps the number of open directories small. */
#define REMOVE_MAX_DEPTH 64

enum status dir_make(const char *path, struct err *err)
{
    char part[PATH_BYTES];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return err_set(err, ST_INPUT, "no usable path for a directory: \"%.200s\"", path);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char end = part[i];
        part[i] = '\0';
        /* EEXIST is good whoever made it; some read-only mounts say EROFS or EACCES first for what exists. */
        if (mkdir(part, 0777) != 0) {
            int code = errno; /* the look below sets another */
            if (dir_exists(part)) {
                part[i] = end;
                continue;
            }
            errno = code == EEXIST ? ENOTDIR : code;
            err_errno(err, ST_ENV, "cannot make directory \"%s\"", part);
            return err_hint(err, "point work_dir to a directory that can be written");
        }
        part[i] = end;
    }
    return ST_OK;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void names_free(char **names, int n_names)
{
    for (int i = 0; i < n_names; i++)
        free(names[i]);
    free(names);
}

static enum status names_add(char ***names, int *n_names, int *capacity, const char *name, struct err *err)
{
    if (*n_names == *capacity) {
        if (*capacity > INT_MAX / 2)
            return err_set(err, ST_ENV, "directory holds too many names");
        int grown = *capacity ? 2 * *capacity : 16;
        char **more = realloc(*names, (size_t)grown * sizeof **names);
        if (!more)
            return err_memory(err, "a list of names", (size_t)grown * sizeof **names);
        *names = more;
        *capacity = grown;
    }
    (*names)[*n_names] = strdup(name);
    if (!(*names)[*n_names])
        return err_memory(err, "a file name", strlen(name) + 1);
    *n_names += 1;
    return ST_OK;
}

enum status dir_list(const char *path, char ***names, int *n_names, struct err *err)
{
    *names = NULL;
    *n_names = 0;
    DIR *dir = opendir(path);
    if (!dir)
        return err_errno(err, ST_INPUT, "cannot list directory \"%s\"", path);
    int capacity = 0;
    enum status status = ST_OK;
    while (status == ST_OK) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno)
                status = err_errno(err, ST_ENV, "cannot list directory \"%s\"", path);
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = names_add(names, n_names, &capacity, entry->d_name, err);
    }
    closedir(dir);
    if (status != ST_OK) {
        names_free(*names, *n_names);
        *names = NULL;
        *n_names = 0;
    } else if (*n_names > 1) {
        qsort(*names, (size_t)*n_names, sizeof **names, by_bytes);
    }
    return status;
}

static enum status remove_at(int parent, const char *name, const char *top, int depth, struct err *err);

/* Consumes fd. Entries that vanish meanwhile are what was wanted. */
static enum status remove_entries(int fd, const char *top, int depth, struct err *err)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return err_memory(err, "a directory stream", 0);
    }
    enum status status = ST_OK;
    while (status == ST_OK) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno)
                status = err_errno(err, ST_ENV, "cannot list a directory under \"%s\"", top);
            break;
        }
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
            continue;
        if (errno == EISDIR || errno == EPERM)
            status = remove_at(fd, name, top, depth + 1, err);
        else
            status = err_errno(err, ST_ENV, "cannot remove \"%s\" under \"%s\"", name, top);
    }
    closedir(dir);
    return status;
}

/* Opens by name in an open directory and without following a link, so that nothing that is swapped in
 * meanwhile leads out of the tree. */
static enum status remove_at(int parent, const char *name, const char *top, int depth, struct err *err)
{
    if (depth > REMOVE_MAX_DEPTH)
        return err_set(err, ST_ENV, "cannot remove \"%s\": more than %d directories deep", top,
                       REMOVE_MAX_DEPTH);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return ST_OK;
    if (fd < 0)
        return err_errno(err, ST_ENV, "cannot open \"%s\" to remove \"%s\"", name, top);
    TRY(remove_entries(fd, top, depth, err));
    if (unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        return err_errno(err, ST_ENV, "cannot remove directory \"%s\" under \"%s\"", name, top);
    return ST_OK;
}

enum status dir_remove(const char *path, struct err *err)
{
    char plain[PATH_BYTES];
    size_t n = strlen(path);
    /* "link/" would be followed to the directory behind the link. */
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (n == 0 || n >= sizeof plain || (n == 1 && path[0] == '/'))
        return err_set(err, ST_INPUT, "will not remove directory \"%.200s\"", path);
    memcpy(plain, path, n);
    plain[n] = '\0';
    struct stat st;
    if (lstat(plain, &st) != 0) {
        if (errno == ENOENT)
            return ST_OK;
        return err_errno(err, ST_ENV, "cannot remove \"%s\"", plain);
    }
    if (S_ISLNK(st.st_mode)) {
        if (unlink(plain) != 0 && errno != ENOENT)
            return err_errno(err, ST_ENV, "cannot remove link \"%s\"", plain);
        return ST_OK;
    }
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ST_INPUT, "cannot remove \"%s\": no directory", plain);
    return remove_at(AT_FDCWD, plain, plain, 0, err);
}
enum status dir_make_temporary(char path[PATH_BYTES], const char *name, struct err *err)
{
    const char *root = getenv("TMPDIR");
    char file[256];
    snprintf(file, sizeof file, "%.200s-XXXXXX", name);
    TRY(path_join(path, root && *root ? root : "/tmp", file, err));
    if (!mkdtemp(path))
        return err_errno(err, ST_ENV, "cannot make a temporary directory \"%.200s\"", path);
    return ST_OK;
}
