/* The cache that huggingface_hub shares: blobs by hash, snapshots of links to them, refs. */
#include "download_internal.h"
#include "util/json.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
    char repo[HUB_REPO_BYTES], revision[HUB_REPO_BYTES];
    char cache[PATH_BYTES], folder[2 * HUB_REPO_BYTES + 16]; /* models--owner--name */
    char root[PATH_BYTES];                                   /* both */
    char snapshot[PATH_BYTES];                               /* of the commit, once it is known */
};

static bool is_commit(const char *text)
{
    return strlen(text) == 40 && strspn(text, "0123456789abcdef") == 40;
}

static enum status cache_dir(char path[PATH_BYTES], struct err *err)
{
    static const char *const names[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"};
    char home[PATH_BYTES];
    for (size_t i = 0; i < 2; i++)
        if (getenv(names[i]) && *getenv(names[i]))
            return path_join(path, getenv(names[i]), "", err);
    TRY(hub_home(home, err));
    return path_join(path, home, "hub", err);
}

/* "owner/name[@revision]" and where the cache has it. */
static enum status find_place(struct place *p, const char *name, struct err *err)
{
    const char *at = strchr(name, '@');
    size_t n = at ? (size_t)(at - name) : strlen(name), length = strlen("models--");
    *p = (struct place){.revision = "main", .folder = "models--"};
    if (n >= sizeof p->repo ||
        (at && (strlen(at + 1) == 0 || strlen(at + 1) >= sizeof p->revision || strstr(at, ".."))))
        return err_set(err, ST_USAGE, "'%.100s' names no model of the Hub", name);
    memcpy(p->repo, name, n);
    if (at)
        strcpy(p->revision, at + 1);
    if (!hub_repo_is_valid(p->repo))
        return err_set(err, ST_USAGE, "'%.100s' names no model of the Hub", name);
    for (const char *c = p->repo; *c; c++)
        length += (size_t)snprintf(p->folder + length, sizeof p->folder - length, "%s",
                                   *c == '/' ? "--" : (char[]){*c, 0});
    TRY(cache_dir(p->cache, err));
    return path_join(p->root, p->cache, p->folder, err);
}

static enum status set_snapshot(struct place *p, const char *commit, struct err *err)
{
    char snapshots[PATH_BYTES];
    TRY(path_join(snapshots, p->root, "snapshots", err));
    return path_join(p->snapshot, snapshots, commit, err);
}

static enum status ref_path(const struct place *p, char path[PATH_BYTES], struct err *err)
{
    char refs[PATH_BYTES];
    TRY(path_join(refs, p->root, "refs", err));
    return path_join(path, refs, p->revision, err);
}

/* The commit that the cache knows a revision by; false: none. */
static bool cached_commit(const struct place *p, char commit[SHA1_HEX_BYTES])
{
    char path[PATH_BYTES];
    struct buf text = BUF_INIT;
    if (is_commit(p->revision)) {
        strcpy(commit, p->revision);
        return true;
    }
    bool good = ref_path(p, path, NULL) == ST_OK && file_exists(path) &&
                file_read(path, 64, &text, NULL) == ST_OK && text.data && is_commit(text.data);
    if (good)
        strcpy(commit, text.data);
    buf_release(&text);
    return good;
}

/* What training and generating read, at the root of the repository. */
static bool is_needed(const char *path)
{
    static const char *const names[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "chat_template.jinja",
                                        "model.safetensors.index.json"};
    size_t n = strlen(path);
    if (strchr(path, '/'))
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(path, names[i]) == 0)
            return true;
    return n > 12 && strncmp(path, "model", 5) == 0 && strcmp(path + n - 12, ".safetensors") == 0;
}

static bool holds(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    return path_join(path, dir, name, NULL) == ST_OK && file_exists(path);
}

/* All shards that the index names, if there is one. */
static bool shards_are_there(const char *dir)
{
    char path[PATH_BYTES];
    json_t *index = NULL, *value;
    const char *key;
    if (path_join(path, dir, "model.safetensors.index.json", NULL) != ST_OK ||
        json_read_file(&index, path, (size_t)64 << 20, NULL) != ST_OK)
        return false;
    bool all = json_object_size(json_object_get(index, "weight_map")) > 0;
    json_object_foreach(json_object_get(index, "weight_map"), key, value)
    {
        const char *name = json_string_value(value);
        all = all && name && !strchr(name, '/') && holds(dir, name);
    }
    json_decref(index);
    return all;
}

static bool snapshot_is_whole(const struct place *p)
{
    return holds(p->snapshot, "config.json") &&
           (holds(p->snapshot, "model.safetensors") || shards_are_there(p->snapshot));
}

static enum status offline(struct place *p, struct err *err)
{
    char commit[SHA1_HEX_BYTES];
    if (cached_commit(p, commit)) {
        TRY(set_snapshot(p, commit, err));
        if (snapshot_is_whole(p))
            return ST_OK;
    }
    err_set(err, ST_INPUT, "the model %s (%s) is not in the cache %s, and the Hub is off", p->repo,
            p->revision, p->root);
    return err_hint(err, "take HF_HUB_OFFLINE away for the first time, or set model to a directory");
}

static enum status blob_path(const struct place *p, const char *oid, char path[PATH_BYTES], struct err *err)
{
    char dir[PATH_BYTES];
    TRY(path_join(dir, p->root, "blobs", err));
    return path_join(path, dir, oid, err);
}

/* Where links are not wanted (HF_HUB_DISABLE_SYMLINKS) or not to be had, the entry is the file itself. */
static enum status make_entry(const char *blob, const char *target, const char *tmp, bool *linked,
                              struct err *err)
{
    *linked = !hub_without_links() && symlink(target, tmp) == 0;
    if (*linked || link(blob, tmp) == 0)
        return ST_OK;
    return file_copy(blob, tmp, err);
}

/* The snapshot's entry: a link to the blob, as huggingface_hub makes it for files at the root. *linked: the
 * blob is needed there. */
static enum status add_entry(const struct place *p, const struct hub_file *f, bool *linked, struct err *err)
{
    char target[SHA256_HEX_BYTES + 32], path[PATH_BYTES], tmp[PATH_BYTES + 32], blob[PATH_BYTES];
    struct stat info;
    *linked = true;
    TRY(path_join(path, p->snapshot, f->path, err));
    TRY(blob_path(p, f->oid, blob, err));
    if (stat(path, &info) == 0)
        return ST_OK;
    snprintf(target, sizeof target, "../../blobs/%s", f->oid);
    snprintf(tmp, sizeof tmp, "%s.%ld", path, (long)getpid());
    unlink(tmp);
    TRY(make_entry(blob, target, tmp, linked, err));
    return rename(tmp, path) == 0 ? ST_OK : err_errno(err, ST_ENV, "cannot make '%s'", path);
}

/* Blobs of the snapshot that are still to come, each once: two files may have one content. Their locks are
 * taken by one process of ours at a time, and others hold one each, so that nobody waits in a circle. */
struct blobs {
    struct download *items;
    int *locks;
    bool *spare; /* ours alone, and no link leads to it: its content is in the snapshot itself */
    size_t n;
};

static enum status blobs_add(struct blobs *b, const struct place *p, const struct hub_file *f,
                             struct err *err)
{
    char path[PATH_BYTES];
    TRY(blob_path(p, f->oid, path, err));
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->items[i].path, path) == 0)
            return ST_OK;
    TRY(cache__lock(&b->locks[b->n], p->cache, p->folder, f->oid, err));
    b->spare[b->n] = !file_exists(path);
    b->items[b->n] = (struct download){.file = f, .path = strdup(path), .is_blob = true};
    return b->items[b->n++].path ? ST_OK : err_memory(err, "a path", 0);
}

static void blobs_release(struct blobs *b)
{
    for (size_t i = 0; i < b->n; i++) {
        close(b->locks[i]);
        free(b->items[i].path);
    }
    free(b->items);
    free(b->locks);
    free(b->spare);
}

static enum status add_entries(const struct place *p, const struct hub_tree *tree, struct blobs *b,
                               struct err *err)
{
    for (size_t i = 0; i < tree->n_files; i++) {
        const struct hub_file *f = &tree->files[i];
        bool linked = true;
        if (!is_needed(f->path))
            continue;
        TRY(add_entry(p, f, &linked, err));
        for (size_t j = 0; j < b->n; j++)
            if (strcmp(b->items[j].file->oid, f->oid) == 0 && linked)
                b->spare[j] = false;
    }
    for (size_t j = 0; j < b->n; j++)
        if (b->spare[j] && unlink(b->items[j].path) != 0)
            return err_errno(err, ST_ENV, "cannot remove '%s'", b->items[j].path);
    return dir_sync(p->snapshot, err);
}

static enum status make_dirs(const struct place *p, struct err *err)
{
    char blobs[PATH_BYTES];
    TRY(path_join(blobs, p->root, "blobs", err));
    TRY(dir_make(blobs, err));
    return dir_make(p->snapshot, err);
}

static enum status check_weights(const struct place *p, const struct hub_tree *tree, struct err *err)
{
    for (size_t i = 0; i < tree->n_files; i++)
        if (is_needed(tree->files[i].path) && strstr(tree->files[i].path, ".safetensors"))
            return ST_OK;
    err_set(err, ST_INPUT, "%s has no safetensors", p->repo);
    return err_hint(err,
                    "convert it once with transformers' save_pretrained, and set model to that directory");
}

static enum status fetch(struct http *h, struct place *p, const struct hub_tree *tree, struct err *err)
{
    struct blobs b = {.items = calloc(tree->n_files + 1, sizeof *b.items),
                      .locks = calloc(tree->n_files + 1, sizeof *b.locks),
                      .spare = calloc(tree->n_files + 1, sizeof *b.spare)};
    enum status st =
        b.items && b.locks && b.spare ? check_weights(p, tree, err) : err_memory(err, "the list of files", 0);
    if (st == ST_OK)
        st = make_dirs(p, err);
    for (size_t i = 0; i < tree->n_files && st == ST_OK; i++)
        if (is_needed(tree->files[i].path) && !holds(p->snapshot, tree->files[i].path))
            st = blobs_add(&b, p, &tree->files[i], err);
    if (st == ST_OK)
        st = hub_download(h, p->repo, tree->commit, b.items, b.n, p->repo, err);
    if (st == ST_OK)
        st = add_entries(p, tree, &b, err);
    blobs_release(&b);
    return st;
}

static enum status write_ref(const struct place *p, const char *commit, struct err *err)
{
    char path[PATH_BYTES], parent[PATH_BYTES];
    if (is_commit(p->revision))
        return ST_OK;
    TRY(ref_path(p, path, err));
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = 0;
    TRY(dir_make(parent, err));
    return file_write(path, commit, strlen(commit), err);
}

/* From the Hub, at the commit that the revision names now. */
static enum status fetch_now(struct http *h, struct place *p, bool *missing, struct err *err)
{
    struct hub_tree tree;
    TRY(hub_tree_read(h, p->repo, p->revision, &tree, missing, err));
    /* One process of ours at a time fills a repository's place; who comes later finds the files there. */
    int lock = -1;
    enum status st = cache__lock(&lock, p->cache, p->folder, "smgpt", err);
    if (st == ST_OK)
        st = set_snapshot(p, tree.commit, err);
    if (st == ST_OK)
        st = fetch(h, p, &tree, err);
    if (st == ST_OK)
        st = write_ref(p, tree.commit, err);
    if (lock >= 0)
        close(lock);
    hub_tree_release(&tree);
    return st;
}

static enum status online(struct http *h, struct place *p, struct err *err)
{
    struct err fault = ERR_INIT;
    bool missing;
    enum status st = fetch_now(h, p, &missing, &fault);
    /* A hash in the list may have come wrong: once more, from the list on. */
    for (int i = 1; i < DOWNLOAD_ROUNDS && st == ST_NET && !missing && !h->silent; i++) {
        fault = (struct err)ERR_INIT;
        st = fetch_now(h, p, &missing, &fault);
    }
    if (st == ST_NET && !missing && offline(p, NULL) == ST_OK) {
        log_warn("%s; the model is taken from the cache", fault.what);
        return ST_OK;
    }
    if (st != ST_OK) {
        err_set(err, st, "%s", fault.what);
        return fault.hint[0] ? err_hint(err, "%s", fault.hint) : st;
    }
    return ST_OK;
}

enum status hub_model(struct http *h, const char *name, char path[], struct err *err)
{
    struct place p;
    char commit[SHA1_HEX_BYTES];
    TRY(find_place(&p, name, err));
    /* A commit never changes: what the cache has of it needs no question. */
    bool fixed = is_commit(p.revision) && cached_commit(&p, commit) &&
                 set_snapshot(&p, commit, NULL) == ST_OK && snapshot_is_whole(&p);
    if (!fixed)
        TRY(h ? online(h, &p, err) : offline(&p, err));
    strcpy(path, p.snapshot);
    return ST_OK;
}
