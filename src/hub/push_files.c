/* What is to be pushed: the files of a directory, with the hashes that the Hub names them by. */
#include "push_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_DEPTH 8
/* The Hub takes no larger file than 10 MiB but by LFS: git's name of such a one is never asked for. */
#define REGULAR_BYTES (11 << 20)

static enum status add(struct push *p, const struct push_file *file, struct err *err)
{
    struct push_file *files = realloc(p->files, (p->n_files + 1) * sizeof *files);
    if (!files)
        return err_memory(err, "the list of files", (p->n_files + 1) * sizeof *files);
    p->files = files;
    files[p->n_files++] = *file;
    return ST_OK;
}

/* The Hub takes no component ".git" or ".cache"; control characters would be a mistake. */
static enum status check_name(const char *name, const char *dir, struct err *err)
{
    bool good = strcmp(name, ".git") != 0 && strcmp(name, ".cache") != 0;
    for (const char *c = name; *c; c++)
        good = good && (unsigned char)*c >= 0x20 && *c != '\\';
    return good ? ST_OK
                : err_set(err, ST_INPUT, "'%s/%.100s' has a name that the Hub does not take", dir, name);
}

static enum status add_local(struct push *p, const char *local, const char *path, int64_t n_bytes,
                             struct err *err)
{
    struct push_file f = {.local = strdup(local), .path = strdup(path), .n_bytes = n_bytes};
    enum status st = f.local && f.path ? ST_OK : err_memory(err, "a path", strlen(local));
    if (st == ST_OK)
        st = sha256_file(local, f.sha256, err);
    if (st == ST_OK && n_bytes <= REGULAR_BYTES)
        st = sha1_file_blob(local, f.sha1, err);
    if (st == ST_OK)
        st = add(p, &f, err);
    if (st != ST_OK) {
        free(f.local);
        free(f.path);
    }
    return st;
}

static enum status add_dir(struct push *p, const char *dir, const char *folder, int depth, struct err *err)
{
    char **names = NULL, local[PATH_BYTES], path[PATH_BYTES];
    int n_names = 0;
    if (depth > MAX_DEPTH)
        return err_set(err, ST_INPUT, "'%s' is nested too deeply", dir);
    TRY(dir_list(dir, &names, &n_names, err));
    enum status st = ST_OK;
    for (int i = 0; i < n_names && st == ST_OK; i++) {
        struct stat info;
        st = check_name(names[i], dir, err);
        if (st == ST_OK)
            st = path_join(local, dir, names[i], err);
        if (st == ST_OK)
            st = path_join(path, folder, names[i], err);
        if (st == ST_OK && lstat(local, &info) != 0)
            st = err_errno(err, ST_INPUT, "'%s'", local);
        if (st == ST_OK && S_ISDIR(info.st_mode))
            st = add_dir(p, local, path, depth + 1, err);
        else if (st == ST_OK && S_ISREG(info.st_mode))
            st = add_local(p, local, path, info.st_size, err);
    }
    names_free(names, n_names);
    return st;
}

static enum status add_card(struct push *p, struct err *err)
{
    const char *text = p->request->card;
    struct push_file f = {.path = strdup("README.md"), .content = text, .n_bytes = (int64_t)strlen(text)};
    struct sha1 h;
    if (!f.path)
        return err_memory(err, "a path", 10);
    sha256_buffer(text, strlen(text), f.sha256);
    sha1_init_blob(&h, f.n_bytes);
    sha1_update(&h, text, strlen(text));
    sha1_hex(&h, f.sha1);
    enum status st = add(p, &f, err);
    if (st != ST_OK)
        free(f.path);
    return st;
}

enum status push__collect(struct push *p, struct err *err)
{
    TRY(add_dir(p, p->request->dir, p->request->folder, 0, err));
    return p->request->card ? add_card(p, err) : ST_OK;
}

void push__release(struct push *p)
{
    for (size_t i = 0; i < p->n_files; i++) {
        free(p->files[i].local);
        free(p->files[i].path);
    }
    free(p->files);
    p->files = NULL;
    p->n_files = 0;
}
