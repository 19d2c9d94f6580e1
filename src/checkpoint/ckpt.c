/* The life of a checkpoint directory: begin, commit or abort, rotate. At every moment out_dir holds whole
 * checkpoints under their names and rubbish only under names that nobody takes for a checkpoint. */
#include "checkpoint/ckpt.h"
#include "ckpt_internal.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 8

static enum status remove_leftovers(const char *out_dir, struct err *err)
{
    char **names = NULL;
    int n_names = 0;
    TRY(dir_list(out_dir, &names, &n_names, err));
    enum status status = ST_OK;
    for (int i = 0; i < n_names && status == ST_OK; i++) {
        char path[PATH_BYTES];
        if (strncmp(names[i], CKPT_TMP_PREFIX, strlen(CKPT_TMP_PREFIX)) != 0)
            continue;
        status = path_join(path, out_dir, names[i], err);
        if (status == ST_OK) {
            log_info("removing \"%s\", left by a run that was stopped while it saved", path);
            status = dir_remove(path, err);
        }
    }
    names_free(names, n_names);
    return status;
}

enum status ckpt_begin(struct ckpt_writer *w, const char *out_dir, int64_t step, struct err *err)
{
    *w = (struct ckpt_writer){.step = step};
    if (step < 0)
        return err_set(err, ST_DEFECT, "a checkpoint of step %" PRId64, step);
    char name[64];
    TRY(path_join(w->out_dir, out_dir, "", err));
    snprintf(name, sizeof name, "checkpoint-%" PRId64, step);
    TRY(path_join(w->final_dir, out_dir, name, err));
    snprintf(name, sizeof name, CKPT_TMP_PREFIX "%" PRId64, step);
    TRY(path_join(w->tmp_dir, out_dir, name, err));
    TRY(dir_make(out_dir, err));
    TRY(ckpt__recover(out_dir, err));
    TRY(remove_leftovers(out_dir, err));
    TRY(dir_make(w->tmp_dir, err));
    file_writer_sync_later(true);
    return ST_OK;
}

enum sync_pass { SYNC_START, SYNC_WAIT };

static enum status sync_file(const char *path, enum sync_pass pass, struct err *err)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ST_ENV, "cannot open \"%s\"", path);
    int rc = 0;
    if (pass == SYNC_START)
        (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* only a head start */
    else
        do
            rc = fsync(fd);
        while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno != EINVAL && errno != ENOTSUP && errno != ENOSYS) {
        enum status status = err_errno(err, ST_ENV, "cannot sync \"%s\"", path);
        close(fd);
        return status;
    }
    close(fd);
    return ST_OK;
}

/* All files of a tree, then its directories. Two passes: the first lets the disk begin with all files, the
 * second waits, so that the waiting overlaps. */
static enum status sync_tree(const char *dir, enum sync_pass pass, int depth, struct err *err)
{
    if (depth > MAX_DEPTH)
        return err_set(err, ST_DEFECT, "\"%s\" is too deep for a checkpoint", dir);
    char **names = NULL;
    int n_names = 0;
    TRY(dir_list(dir, &names, &n_names, err));
    enum status status = ST_OK;
    for (int i = 0; i < n_names && status == ST_OK; i++) {
        char path[PATH_BYTES];
        struct stat st;
        status = path_join(path, dir, names[i], err);
        if (status != ST_OK)
            break;
        if (lstat(path, &st) != 0)
            status = err_errno(err, ST_ENV, "cannot look at \"%s\"", path);
        else if (S_ISDIR(st.st_mode))
            status = sync_tree(path, pass, depth + 1, err);
        else if (S_ISREG(st.st_mode))
            status = sync_file(path, pass, err);
        else
            status = err_set(err, ST_DEFECT, "\"%s\" is neither a file nor a directory", path);
    }
    names_free(names, n_names);
    if (status == ST_OK && pass == SYNC_WAIT)
        status = dir_sync(dir, err);
    return status;
}

/* Moves the old directory aside, the new one in, and removes the old one. */
static enum status replace_by_steps(const struct ckpt_writer *w, struct err *err)
{
    char name[64], old[PATH_BYTES];
    snprintf(name, sizeof name, CKPT_OLD_PREFIX "%" PRId64, w->step);
    TRY(path_join(old, w->out_dir, name, err));
    TRY(dir_remove(old, err));
    if (rename(w->final_dir, old) != 0)
        return err_errno(err, ST_ENV, "cannot move \"%s\" aside", w->final_dir);
    if (rename(w->tmp_dir, w->final_dir) != 0) {
        enum status status =
            err_errno(err, ST_ENV, "cannot rename \"%s\" to \"%s\"", w->tmp_dir, w->final_dir);
        if (rename(old, w->final_dir) != 0)
            log_warn("\"%s\" is the checkpoint of step %" PRId64 "; it could not be put back", old, w->step);
        return status;
    }
    TRY(dir_sync(w->out_dir, err));
    return dir_remove(old, err);
}

enum status ckpt__replace(const struct ckpt_writer *w, bool can_exchange, struct err *err)
{
    if (renameat2(AT_FDCWD, w->tmp_dir, AT_FDCWD, w->final_dir, RENAME_NOREPLACE) == 0)
        return dir_sync(w->out_dir, err);
    /* Where the flag is not known, rename replaces nothing but an empty directory. */
    if (errno != EEXIST && rename(w->tmp_dir, w->final_dir) == 0)
        return dir_sync(w->out_dir, err);
    if (errno != EEXIST && errno != ENOTEMPTY)
        return err_errno(err, ST_ENV, "cannot rename \"%s\" to \"%s\"", w->tmp_dir, w->final_dir);
    if (can_exchange && renameat2(AT_FDCWD, w->tmp_dir, AT_FDCWD, w->final_dir, RENAME_EXCHANGE) == 0) {
        TRY(dir_sync(w->out_dir, err));
        return dir_remove(w->tmp_dir, err); /* now the former checkpoint */
    }
    return replace_by_steps(w, err);
}

enum status ckpt_commit(struct ckpt_writer *w, struct err *err)
{
    file_writer_sync_later(false);
    enum status status = sync_tree(w->tmp_dir, SYNC_START, 0, err);
    if (status == ST_OK)
        status = sync_tree(w->tmp_dir, SYNC_WAIT, 0, err);
    if (status == ST_OK)
        status = ckpt__replace(w, true, err);
    if (status != ST_OK)
        ckpt_abort(w);
    *w = (struct ckpt_writer){.step = -1};
    return status;
}

void ckpt_abort(struct ckpt_writer *w)
{
    struct err err = ERR_INIT;
    file_writer_sync_later(false);
    if (w->tmp_dir[0] && dir_remove(w->tmp_dir, &err) != ST_OK)
        log_warn("%s", err.what);
    *w = (struct ckpt_writer){.step = -1};
}

enum status ckpt__recover(const char *out_dir, struct err *err)
{
    char **names = NULL;
    int n_names = 0;
    TRY(dir_list(out_dir, &names, &n_names, err));
    enum status status = ST_OK;
    for (int i = 0; i < n_names && status == ST_OK; i++) {
        char old[PATH_BYTES], final[PATH_BYTES];
        if (strncmp(names[i], CKPT_OLD_PREFIX, strlen(CKPT_OLD_PREFIX)) != 0)
            continue;
        status = path_join(old, out_dir, names[i], err);
        if (status == ST_OK)
            status = path_join(final, out_dir, names[i] + strlen(".old-"), err);
        if (status != ST_OK)
            break;
        if (dir_exists(final))
            status = dir_remove(old, err);
        else if (rename(old, final) != 0)
            status = err_errno(err, ST_ENV, "cannot put \"%s\" back as \"%s\"", old, final);
        else
            log_warn("\"%s\" was put back: a run was stopped while it replaced it", final);
    }
    names_free(names, n_names);
    return status;
}

/* Out of the way under one rename, so that a kill leaves no half checkpoint under its name. A link to a
 * directory is somebody's own arrangement and stays. */
static enum status remove_checkpoint(const char *out_dir, const char *name, struct err *err)
{
    char path[PATH_BYTES], doomed[PATH_BYTES], tmp_name[300];
    struct stat st;
    TRY(path_join(path, out_dir, name, err));
    if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
        return ST_OK;
    snprintf(tmp_name, sizeof tmp_name, CKPT_TMP_PREFIX "removed-%s", name);
    TRY(path_join(doomed, out_dir, tmp_name, err));
    TRY(dir_remove(doomed, err));
    if (rename(path, doomed) != 0)
        return err_errno(err, ST_ENV, "cannot remove \"%s\"", path);
    return dir_remove(doomed, err);
}

/* Index of the newest complete entry, -1 if there is none. */
static int newest_complete(const char *out_dir, const struct ckpt_entries *list)
{
    for (int i = 0; i < list->n_items; i++) {
        char path[PATH_BYTES];
        struct err err = ERR_INIT;
        if (path_join(path, out_dir, list->items[i].name, &err) == ST_OK &&
            ckpt_check(path, list->items[i].step, &err) == ST_OK)
            return i;
    }
    return -1;
}

enum status ckpt_rotate(const char *out_dir, int keep, struct err *err)
{
    struct ckpt_entries list = {0};
    if (keep < 1)
        return ST_OK;
    TRY(ckpt__list(out_dir, &list, err));
    enum status status = ST_OK;
    int complete = list.n_items > keep ? newest_complete(out_dir, &list) : -1;
    for (int i = keep; i < list.n_items && status == ST_OK; i++) {
        if (i != complete)
            status = remove_checkpoint(out_dir, list.items[i].name, err);
    }
    ckpt__list_release(&list);
    return status;
}
