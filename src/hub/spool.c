/* The directory of points. */
#include "spool_internal.h"
#include "util/json.h"
#include "util/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POINT_BYTES 65536
#define HALF_MADE   ".tmp-"

void spool__name(const struct spool_point *point, char name[SPOOL_NAME_BYTES])
{
    snprintf(name, SPOOL_NAME_BYTES, "stage%d-checkpoint-%lld", point->stage, (long long)point->step);
}

/* What tells two checkpoints of one step apart: smgpt_state.json holds the digest of the parameters. */
static enum status identity(const char *checkpoint, char hex[SHA256_HEX_BYTES], struct err *err)
{
    char path[PATH_BYTES];
    TRY(path_join(path, checkpoint, "smgpt_state.json", err));
    return sha256_file(path, hex, err);
}

static enum status sent_path(const char *dir, const char *name, char path[PATH_BYTES], struct err *err)
{
    char sent[PATH_BYTES];
    TRY(path_join(sent, dir, "sent", err));
    return path_join(path, sent, name, err);
}

/* A file whose whole content is `hex`. */
static bool says(const char *path, const char *hex)
{
    struct buf text = BUF_INIT;
    bool same = file_exists(path) && file_read(path, 1024, &text, NULL) == ST_OK && text.data &&
                strncmp(text.data, hex, SHA256_HEX_BYTES - 1) == 0;
    buf_release(&text);
    return same;
}

static enum status was_sent(const char *dir, const char *name, const char *checkpoint, bool *yes,
                            struct err *err)
{
    char path[PATH_BYTES], hex[SHA256_HEX_BYTES];
    TRY(identity(checkpoint, hex, err));
    TRY(sent_path(dir, name, path, err));
    *yes = says(path, hex);
    return ST_OK;
}

static enum status link_files(const char *from, const char *to, struct err *err)
{
    char **names = NULL, source[PATH_BYTES], target[PATH_BYTES];
    int n_names = 0;
    TRY(dir_make(to, err));
    TRY(dir_list(from, &names, &n_names, err));
    enum status st = ST_OK;
    for (int i = 0; i < n_names && st == ST_OK; i++) {
        struct stat info;
        st = path_join(source, from, names[i], err);
        if (st == ST_OK)
            st = path_join(target, to, names[i], err);
        if (st != ST_OK || lstat(source, &info) != 0 || !S_ISREG(info.st_mode))
            continue;
        if (link(source, target) != 0)
            st = file_copy(source, target, err);
    }
    names_free(names, n_names);
    return st == ST_OK ? dir_sync(to, err) : st;
}

static enum status write_point(const char *path, const struct spool_point *point, struct err *err)
{
    json_t *o = json_pack("{s:i, s:I, s:s}", "stage", point->stage, "step", (json_int_t)point->step, "repo",
                          point->repo);
    if (!o)
        return err_memory(err, "a point", 0);
    enum status st = json_write_file(path, o, true, err);
    json_decref(o);
    return st;
}

static enum status fill(const char *tmp, const struct spool_point *point, const char *checkpoint,
                        struct err *err)
{
    char path[PATH_BYTES];
    TRY(dir_remove(tmp, err));
    TRY(dir_make(tmp, err));
    TRY(path_join(path, tmp, "files", err));
    TRY(link_files(checkpoint, path, err));
    TRY(path_join(path, tmp, "point.json", err));
    TRY(write_point(path, point, err));
    return dir_sync(tmp, err);
}

enum status spool_put(const char *dir, const struct spool_point *point, const char *checkpoint,
                      struct err *err)
{
    char name[SPOOL_NAME_BYTES], hidden[SPOOL_NAME_BYTES + 32], tmp[PATH_BYTES], final[PATH_BYTES];
    char state[PATH_BYTES], hex[SHA256_HEX_BYTES], there[SHA256_HEX_BYTES];
    bool sent = false;
    spool__name(point, name);
    TRY(was_sent(dir, name, checkpoint, &sent, err));
    if (sent)
        return ST_OK;
    snprintf(hidden, sizeof hidden, HALF_MADE "%ld-%s", (long)getpid(), name);
    TRY(path_join(final, dir, name, err));
    TRY(path_join(tmp, dir, hidden, err));
    TRY(path_join(state, final, "files", err));
    if (dir_exists(final) && identity(checkpoint, hex, NULL) == ST_OK &&
        identity(state, there, NULL) == ST_OK && strcmp(hex, there) == 0)
        return ST_OK;
    enum status st = fill(tmp, point, checkpoint, err);
    if (st == ST_OK)
        st = dir_remove(final, err); /* another attempt at the same step */
    if (st == ST_OK && rename(tmp, final) != 0)
        st = err_errno(err, ST_ENV, "cannot rename '%s' to '%s'", tmp, final);
    if (st != ST_OK) {
        dir_remove(tmp, NULL);
        return st;
    }
    return dir_sync(dir, err);
}

static enum status read_point(const char *dir, const char *name, struct spool_point *point, struct err *err)
{
    char path[PATH_BYTES], folder[PATH_BYTES], expected[SPOOL_NAME_BYTES];
    json_t *o = NULL;
    int64_t stage = 0;
    const char *repo = "";
    TRY(path_join(folder, dir, name, err));
    TRY(path_join(path, folder, "point.json", err));
    TRY(json_read_file(&o, path, POINT_BYTES, err));
    enum status st = json_get_int(o, path, "stage", 1, 3, false, 0, &stage, err);
    if (st == ST_OK)
        st = json_get_int(o, path, "step", 0, (int64_t)1 << 53, false, 0, &point->step, err);
    if (st == ST_OK)
        st = json_get_string(o, path, "repo", false, NULL, &repo, err);
    point->stage = (int)stage;
    if (st == ST_OK && !hub_repo_is_valid(repo))
        st = err_set(err, ST_INPUT, "'%s' names no repository", path);
    if (st == ST_OK)
        snprintf(point->repo, sizeof point->repo, "%s", repo);
    spool__name(point, expected);
    if (st == ST_OK && strcmp(expected, name) != 0)
        st = err_set(err, ST_INPUT, "'%s' is of %s", path, expected);
    json_decref(o);
    return st;
}

static int compare(const void *a, const void *b)
{
    const struct spool_point *x = a, *y = b;
    if (x->stage != y->stage)
        return x->stage < y->stage ? -1 : 1;
    return x->step < y->step ? -1 : x->step > y->step;
}

static enum status list(const char *dir, bool tell, struct spool_point **points, size_t *n_points,
                        struct err *err)
{
    char **names = NULL;
    int n_names = 0;
    *points = NULL;
    *n_points = 0;
    if (!dir_exists(dir))
        return ST_OK;
    TRY(dir_list(dir, &names, &n_names, err));
    *points = calloc((size_t)n_names + 1, sizeof **points);
    for (int i = 0; i < n_names && *points; i++) {
        struct err own = ERR_INIT;
        if (strncmp(names[i], "stage", 5) != 0)
            continue;
        if (read_point(dir, names[i], &(*points)[*n_points], &own) == ST_OK)
            ++*n_points;
        else if (tell)
            log_warn("left out of what waits for the Hub: %s", own.what);
    }
    names_free(names, n_names);
    if (!*points)
        return err_memory(err, "the waiting points", (size_t)n_names * sizeof **points);
    qsort(*points, *n_points, sizeof **points, compare);
    return ST_OK;
}

enum status spool_list(const char *dir, struct spool_point **points, size_t *n_points, struct err *err)
{
    return list(dir, true, points, n_points, err);
}

int spool__count(const char *dir)
{
    struct spool_point *points = NULL;
    size_t n = 0;
    int count = list(dir, false, &points, &n, NULL) == ST_OK ? (int)n : 0;
    free(points);
    return count;
}

enum status spool_note_sent(const char *dir, const struct spool_point *point, const char *checkpoint,
                            struct err *err)
{
    char name[SPOOL_NAME_BYTES], sent[PATH_BYTES], note[PATH_BYTES], hex[SHA256_HEX_BYTES];
    spool__name(point, name);
    TRY(identity(checkpoint, hex, err));
    TRY(path_join(sent, dir, "sent", err));
    TRY(dir_make(sent, err));
    TRY(path_join(note, sent, name, err));
    return file_write(note, hex, strlen(hex), err);
}

enum status spool__sent(const char *dir, const struct spool_point *point, struct err *err)
{
    char name[SPOOL_NAME_BYTES], hidden[SPOOL_NAME_BYTES + 32], path[PATH_BYTES], files[PATH_BYTES],
        gone[PATH_BYTES];
    spool__name(point, name);
    snprintf(hidden, sizeof hidden, HALF_MADE "%ld-%s", (long)getpid(), name);
    TRY(path_join(path, dir, name, err));
    TRY(path_join(files, path, "files", err));
    TRY(path_join(gone, dir, hidden, err));
    TRY(spool_note_sent(dir, point, files, err));
    TRY(dir_remove(gone, err));
    if (rename(path, gone) != 0)
        return err_errno(err, ST_ENV, "cannot rename '%s'", path);
    return dir_remove(gone, err);
}

/* The number behind HALF_MADE is the process that makes it: another one's is left while that one lives. */
static bool is_leftover(const char *name)
{
    if (strncmp(name, HALF_MADE, strlen(HALF_MADE)) != 0)
        return false;
    long pid = strtol(name + strlen(HALF_MADE), NULL, 10);
    return pid <= 0 || pid == (long)getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH);
}

void spool__clean(const char *dir)
{
    char **names = NULL, path[PATH_BYTES];
    int n_names = 0;
    if (!dir_exists(dir) || dir_list(dir, &names, &n_names, NULL) != ST_OK)
        return;
    for (int i = 0; i < n_names; i++)
        if (is_leftover(names[i]) && path_join(path, dir, names[i], NULL) == ST_OK)
            dir_remove(path, NULL);
    names_free(names, n_names);
}
