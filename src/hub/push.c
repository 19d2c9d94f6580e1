/* A push, in rounds: look at what the Hub has, send what it lacks, commit. A fault that a single call cannot
 * mend ends the round, and the next one begins with a new look: so nothing is sent twice, and no commit is
 * repeated blindly. */
#include "http_internal.h"
#include "push_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROUNDS 8

enum status push__check(struct push *p, const struct http_reply *reply, const char *what, struct err *err)
{
    char where[HUB_REPO_BYTES + 64];
    snprintf(where, sizeof where, "%s (%s)", what, p->request->repo);
    const char *code = http_header(reply, "x-error-code");
    int s = reply->status;
    /* A file to be deleted that is not there any more: the list was old. */
    p->again = (s < 401 || s > 403) && (s != 404 || (code && strcmp(code, "EntryNotFound") == 0));
    return http_check(p->http, reply, where, err);
}

enum status push__ask(struct push *p, const char *url, const json_t *question, const char *type,
                      const char *what, json_t **answer, struct err *err)
{
    struct http_reply reply;
    char *body = json_dumps(question, JSON_COMPACT);
    if (!body)
        return err_memory(err, "a request", 0);
    struct http_request request = {.method = HTTP_POST,
                                   .url = url,
                                   .authorize = true,
                                   .expect_json = true,
                                   .repeats = 5,
                                   .content_type = type,
                                   .accept = type,
                                   .body = body,
                                   .body_bytes = strlen(body)};
    enum status st = http_send(p->http, &request, &reply, err);
    if (st == ST_OK)
        st = push__check(p, &reply, what, err);
    if (st == ST_OK)
        st = http_json(p->http, &reply, what, answer, err);
    free(body);
    http_reply_release(&reply);
    return st;
}

static void mark_needed(struct push *p, const struct hub_tree *tree)
{
    for (size_t i = 0; i < p->n_files; i++) {
        struct push_file *f = &p->files[i];
        const struct hub_file *there = hub_tree_find(tree, f->path);
        f->needed = !there || there->n_bytes != f->n_bytes ||
                    strcmp(there->oid, there->is_lfs ? f->sha256 : f->sha1) != 0;
    }
}

static enum status round_once(struct push *p, struct err *err)
{
    struct hub_tree tree;
    size_t n_lines = 0;
    bool missing = false;
    p->again = true;
    enum status st = hub_tree_read(p->http, p->request->repo, PUSH_BRANCH, &tree, &missing, err);
    if (st != ST_OK) {
        p->again = !missing;
        return st;
    }
    mark_needed(p, &tree);
    st = push__ask_modes(p, err);
    if (st == ST_OK)
        st = push__upload(p, err);
    memcpy(p->result->commit, tree.commit, SHA1_HEX_BYTES);
    if (st == ST_OK)
        st = push__commit(p, &tree, &n_lines, err);
    /* Nothing to do in a later round: the commit of the round before, whose answer was lost, went through. */
    if (st == ST_OK && n_lines == 0)
        p->result->unchanged = p->result->n_rounds == 1;
    hub_tree_release(&tree);
    return st;
}

enum status hub_push(struct http *h, const struct push_request *request, struct push_result *result,
                     struct err *err)
{
    struct push p = {.http = h, .request = request, .result = result};
    memset(result, 0, sizeof *result);
    enum status st = push__collect(&p, err);
    while (st == ST_OK) {
        struct err fault = ERR_INIT;
        result->n_rounds++;
        st = round_once(&p, &fault);
        if (st == ST_OK)
            break;
        if (st != ST_NET || !p.again || result->n_rounds == MAX_ROUNDS) {
            err_set(err, st, "%s", fault.what);
            if (fault.hint[0])
                err_hint(err, "%s", fault.hint);
            break;
        }
        st = http__rest(h, h->pause_s * result->n_rounds, "the push", err);
    }
    push__release(&p);
    return st;
}
