/* Files of a repository, several at a time. */
#include "download_internal.h"
#include "parallel_internal.h"
#include "util/log.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_WRONG 2 /* times that a file came with a wrong hash */

struct work {
    const char *repo, *commit, *what;
    const struct download *items;
    size_t n_items;
    _Atomic int64_t n_done;
    int64_t all_bytes;
};

static enum status check_hash(const struct download *d, const char *path, bool *right, struct err *err)
{
    char sha256[SHA256_HEX_BYTES], sha1[SHA1_HEX_BYTES];
    if (d->file->is_lfs)
        TRY(sha256_file(path, sha256, err));
    else
        TRY(sha1_file_blob(path, sha1, err));
    *right = strcmp(d->file->is_lfs ? sha256 : sha1, d->file->oid) == 0;
    return ST_OK;
}

/* A blob is named by its hash; any other file of the right length may be of an older commit. */
static bool is_there(const struct download *d)
{
    struct stat info;
    bool right = false;
    if (stat(d->path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size != d->file->n_bytes)
        return false;
    return d->is_blob || (check_hash(d, d->path, &right, NULL) == ST_OK && right);
}

static enum status url_of(const struct work *w, const struct download *d, struct buf *url, struct err *err)
{
    TRY(buf_printf(url, err, "/%s/resolve/%s/", w->repo, w->commit));
    return url_encode(url, d->file->path, true, err);
}

static enum status fetch(struct work *w, struct http *h, const struct download *d, struct err *err)
{
    char part[PATH_BYTES + 16];
    struct buf url = BUF_INIT;
    bool right = false;
    snprintf(part, sizeof part, "%s" INCOMPLETE, d->path);
    enum status st = url_of(w, d, &url, err);
    struct body body = {
        .url = url.data, .authorize = true, .path = part, .n_bytes = d->file->n_bytes, .n_done = &w->n_done};
    for (int i = 0; i < MAX_WRONG && st == ST_OK && !right; i++) {
        st = download__body(h, &body, err);
        if (st == ST_OK)
            st = check_hash(d, part, &right, err);
        if (st == ST_OK && !right) {
            w->n_done -= d->file->n_bytes;
            unlink(part);
        }
    }
    buf_release(&url);
    TRY(st);
    if (!right) {
        err_set(err, ST_NET, "%s: %s came %d times with bytes that are not the Hub's", w->repo, d->file->path,
                MAX_WRONG);
        return err_hint(err, "something between here and the Hub changes what passes through");
    }
    if (rename(part, d->path) != 0)
        return err_errno(err, ST_ENV, "cannot rename '%s'", part);
    return ST_OK;
}

static enum status run(void *user, struct http *h, size_t i, struct err *err)
{
    struct work *w = user;
    return is_there(&w->items[i]) ? ST_OK : fetch(w, h, &w->items[i], err);
}

static void show(void *user)
{
    const struct work *w = user;
    log_progress(false, "%s: %.1f of %.1f MB", w->what, (double)w->n_done / 1e6, (double)w->all_bytes / 1e6);
}

static enum status sync_dirs(const struct work *w, struct err *err)
{
    char last[PATH_BYTES] = "", dir[PATH_BYTES];
    for (size_t i = 0; i < w->n_items; i++) {
        snprintf(dir, sizeof dir, "%s", w->items[i].path);
        const char *name = dirname(dir);
        if (strcmp(name, last) != 0)
            TRY(dir_sync(name, err));
        snprintf(last, sizeof last, "%s", name);
    }
    return ST_OK;
}

enum status hub_download(struct http *h, const char *repo, const char *commit, const struct download *items,
                         size_t n_items, const char *what, struct err *err)
{
    struct work w = {.repo = repo, .commit = commit, .items = items, .n_items = n_items, .what = what};
    size_t n_missing = 0;
    for (size_t i = 0; i < n_items; i++)
        if (!is_there(&items[i])) {
            n_missing++;
            w.all_bytes += items[i].file->n_bytes;
        }
    if (n_missing == 0)
        return ST_OK;
    struct parallel jobs = {.n_jobs = n_items, .run = run, .tick = show, .user = &w};
    TRY(parallel__run(h, &jobs, err));
    log_progress(true, "%s: %.1f of %.1f MB", what, (double)w.n_done / 1e6, (double)w.all_bytes / 1e6);
    return sync_dirs(&w, err);
}

/* A path of the Hub below dir: relative, no component that climbs or is empty. */
static enum status place(const char *dir, const char *path, char out[PATH_BYTES], struct err *err)
{
    char parent[PATH_BYTES];
    for (const char *c = path; *c;) {
        size_t n = strcspn(c, "/");
        if (n == 0 || (n == 1 && c[0] == '.') || (n == 2 && c[0] == '.' && c[1] == '.'))
            return err_set(err, ST_NET, "the Hub names a file '%.200s'", path);
        c += n + (c[n] == '/');
    }
    TRY(path_join(out, dir, path, err));
    snprintf(parent, sizeof parent, "%s", out);
    return dir_make(dirname(parent), err);
}

static enum status folder_once(struct http *h, const char *repo, const struct hub_tree *tree,
                               const char *folder, const char *dir, struct err *err)
{
    struct download *items = calloc(tree->n_files + 1, sizeof *items);
    size_t n = 0, length = strlen(folder);
    char path[PATH_BYTES], what[HUB_REPO_BYTES + 80];
    enum status st =
        items ? dir_make(dir, err) : err_memory(err, "the list of files", tree->n_files * sizeof *items);
    for (size_t i = 0; i < tree->n_files && st == ST_OK; i++) {
        const char *name = tree->files[i].path;
        if (length > 0 && (strncmp(name, folder, length) != 0 || name[length] != '/'))
            continue;
        st = place(dir, name + length + (length > 0), path, err);
        if (st == ST_OK) {
            items[n].file = &tree->files[i];
            items[n].path = strdup(path);
            st = items[n].path ? ST_OK : err_memory(err, "a path", strlen(path));
            n++;
        }
    }
    snprintf(what, sizeof what, "%s%s%.40s", repo, length ? "/" : "", folder);
    if (st == ST_OK)
        st = hub_download(h, repo, tree->commit, items, n, what, err);
    for (size_t i = 0; i < n; i++)
        free(items[i].path);
    free(items);
    return st;
}

enum status hub_download_folder(struct http *h, const char *repo, const char *revision, const char *folder,
                                const char *dir, char commit[SHA1_HEX_BYTES], struct err *err)
{
    /* A hash in the list may itself have come wrong: what does not fit is looked up anew. */
    for (int i = 0;; i++) {
        struct hub_tree tree;
        struct err fault = ERR_INIT;
        TRY(hub_tree_read(h, repo, revision, &tree, NULL, err));
        enum status st = folder_once(h, repo, &tree, folder, dir, &fault);
        memcpy(commit, tree.commit, SHA1_HEX_BYTES);
        hub_tree_release(&tree);
        if (st == ST_NET && i + 1 < DOWNLOAD_ROUNDS && !h->silent)
            continue;
        if (st != ST_OK)
            err_set(err, st, "%s", fault.what);
        return fault.hint[0] ? err_hint(err, "%s", fault.hint) : st;
    }
}

enum status hub_download_url(struct http *h, const char *url, const char *path, struct err *err)
{
    char part[PATH_BYTES + 16];
    snprintf(part, sizeof part, "%s" INCOMPLETE, path);
    struct body body = {.url = url, .path = part, .n_bytes = -1};
    TRY(download__body(h, &body, err));
    return rename(part, path) == 0 ? ST_OK : err_errno(err, ST_ENV, "cannot rename '%s'", part);
}
