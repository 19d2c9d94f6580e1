/* The one commit of a push: lines of JSON, additions and deletions together. */
#include "http_internal.h"
#include "push_internal.h"
#include "util/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status add_line(struct buf *body, const char *key, json_t *value, struct err *err)
{
    json_t *line = value ? json_pack("{s:s, s:o}", "key", key, "value", value) : NULL;
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    enum status st = text ? buf_puts(body, text, err) : err_memory(err, "a commit", 0);
    if (st == ST_OK)
        st = buf_puts(body, "\n", err);
    free(text);
    json_decref(line);
    return st;
}

/* Files that travel inside the commit. They are small: the Hub says which. */
static enum status add_regular(struct buf *body, const struct push_file *f, struct err *err)
{
    struct buf text = BUF_INIT;
    enum status st = ST_OK;
    if (f->content) {
        st = base64_append(&text, f->content, (size_t)f->n_bytes, err);
    } else {
        struct file_map map;
        char sha256[SHA256_HEX_BYTES];
        TRY(file_map(&map, f->local, err));
        sha256_buffer(map.data, map.n_bytes, sha256);
        if (strcmp(sha256, f->sha256) != 0)
            st = err_set(err, ST_INPUT, "'%s' changed while it was pushed", f->local);
        if (st == ST_OK)
            st = base64_append(&text, map.data, map.n_bytes, err);
        file_unmap(&map);
    }
    if (st == ST_OK)
        st = add_line(body, "file",
                      json_pack("{s:s, s:s, s:s}", "path", f->path, "content", text.data ? text.data : "",
                                "encoding", "base64"),
                      err);
    buf_release(&text);
    return st;
}

static enum status add_files(const struct push *p, struct buf *body, size_t *n_lines, struct err *err)
{
    for (size_t i = 0; i < p->n_files; i++) {
        const struct push_file *f = &p->files[i];
        if (!f->needed || f->ignored)
            continue;
        if (f->is_lfs)
            TRY(add_line(body, "lfsFile",
                         json_pack("{s:s, s:s, s:s, s:I}", "path", f->path, "algo", "sha256", "oid",
                                   f->sha256, "size", (json_int_t)f->n_bytes),
                         err));
        else
            TRY(add_regular(body, f, err));
        ++*n_lines;
    }
    return ST_OK;
}

/* What lies in the pushed folder and is not pushed: left from another attempt at the same step. */
static enum status delete_leftovers(const struct push *p, const struct hub_tree *tree, struct buf *body,
                                    size_t *n_lines, struct err *err)
{
    size_t n = strlen(p->request->folder);
    for (size_t i = 0; n > 0 && i < tree->n_files; i++) {
        const char *path = tree->files[i].path;
        bool ours = false;
        if (strncmp(path, p->request->folder, n) != 0 || path[n] != '/')
            continue;
        for (size_t j = 0; j < p->n_files; j++)
            ours = ours || strcmp(p->files[j].path, path) == 0;
        if (!ours) {
            TRY(add_line(body, "deletedFile", json_pack("{s:s}", "path", path), err));
            ++*n_lines;
        }
    }
    return ST_OK;
}

/* How many checkpoints will be there that are newer than `step`. A folder of that name is one when it has
 * what every checkpoint of Trainer's and ours has: rubbish pushes none out. */
static int n_newer(const struct push *p, const struct hub_tree *tree, int64_t step)
{
    size_t length;
    int64_t own = hub_checkpoint_step(p->request->folder, &length);
    int n = own > step;
    for (size_t i = 0; i < tree->n_files; i++) {
        const char *path = tree->files[i].path;
        int64_t other = hub_checkpoint_step(path, &length);
        n += other > step && other != own && strcmp(path + length, "/trainer_state.json") == 0;
    }
    return n;
}

static enum status delete_rotated(const struct push *p, const struct hub_tree *tree, struct buf *body,
                                  size_t *n_lines, struct err *err)
{
    size_t length, own_length;
    int64_t own = hub_checkpoint_step(p->request->folder, &own_length);
    for (size_t i = 0; p->request->keep > 0 && i < tree->n_files; i++) {
        const char *path = tree->files[i].path;
        int64_t step = hub_checkpoint_step(path, &length);
        char folder[64];
        if (step < 0 || step == own || strcmp(path + length, "/smgpt_state.json") != 0 ||
            n_newer(p, tree, step) < p->request->keep)
            continue;
        snprintf(folder, sizeof folder, "%.*s", (int)length, path);
        TRY(add_line(body, "deletedFolder", json_pack("{s:s}", "path", folder), err));
        ++*n_lines;
    }
    return ST_OK;
}

/* The one call that is never repeated as it is: whether it went through is seen from the branch. */
static enum status send_commit(struct push *p, const struct buf *body, struct err *err)
{
    char url[HUB_REPO_BYTES + 128];
    struct http_reply reply;
    json_t *answer = NULL;
    const char *oid = NULL;
    snprintf(url, sizeof url, "/api/models/%s/commit/%s", p->request->repo, PUSH_BRANCH);
    struct http_request request = {.method = HTTP_POST,
                                   .url = url,
                                   .authorize = true,
                                   .content_type = "application/x-ndjson",
                                   .body = body->data,
                                   .body_bytes = body->n_bytes,
                                   .slow = true,
                                   .total_s = 120 + (double)body->n_bytes / 50e3};
    enum status st = http_send(p->http, &request, &reply, err);
    if (st == ST_OK)
        st = push__check(p, &reply, "the commit", err);
    if (st == ST_OK) {
        st = http_json(p->http, &reply, "the commit", &answer, err);
    }
    if (st == ST_OK) {
        st = http__string(answer, "commitOid", true, "", &oid, err);
        if (st == ST_OK && strlen(oid) == 40)
            memcpy(p->result->commit, oid, SHA1_HEX_BYTES);
    }
    json_decref(answer);
    http_reply_release(&reply);
    return st;
}

enum status push__commit(struct push *p, const struct hub_tree *tree, size_t *n_lines, struct err *err)
{
    struct buf body = BUF_INIT;
    *n_lines = 0;
    enum status st = add_line(&body, "header",
                              json_pack("{s:s, s:s, s:s}", "summary", p->request->summary, "description", "",
                                        "parentCommit", tree->commit),
                              err);
    if (st == ST_OK)
        st = add_files(p, &body, n_lines, err);
    if (st == ST_OK)
        st = delete_leftovers(p, tree, &body, n_lines, err);
    if (st == ST_OK)
        st = delete_rotated(p, tree, &body, n_lines, err);
    if (st == ST_OK && *n_lines > 0)
        st = send_commit(p, &body, err);
    buf_release(&body);
    return st;
}
