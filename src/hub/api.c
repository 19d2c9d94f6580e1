/* Single questions to the Hub. */
#include "hub/api.h"
#include "http_internal.h"
#include "util/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPEATS   5
#define MAX_PAGES 1000 /* of 1000 files each */

bool hub_repo_is_valid(const char *repo)
{
    size_t n = strlen(repo), n_slashes = 0;
    if (n == 0 || n > 96 || strstr(repo, "--") || strstr(repo, "..") ||
        (n >= 4 && !strcmp(repo + n - 4, ".git")))
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = repo[i];
        bool edge = i == 0 || i + 1 == n || repo[i - 1] == '/' || repo[i + 1] == '/';
        n_slashes += c == '/';
        if (!isalnum((unsigned char)c) && !strchr("-_./", c))
            return false;
        if (edge && (c == '-' || c == '.' || (c == '/' && (i == 0 || i + 1 == n))))
            return false;
    }
    return n_slashes <= 1;
}

enum status hub_whoami(struct http *h, char name[HUB_REPO_BYTES], struct err *err)
{
    struct http_request request = {
        .url = "/api/whoami-v2", .authorize = true, .expect_json = true, .repeats = REPEATS};
    struct http_reply reply;
    json_t *json = NULL;
    const char *text = NULL;
    enum status st = http_send(h, &request, &reply, err);
    if (st == ST_OK)
        st = http_json(h, &reply, "asking who the token belongs to", &json, err);
    if (st == ST_OK)
        st = http__string(json, "name", false, NULL, &text, err);
    if (st == ST_OK && (strchr(text, '/') || !hub_repo_is_valid(text)))
        st = err_set(err, ST_NET, "the Hub names the token's owner as no name can be");
    if (st == ST_OK)
        snprintf(name, HUB_REPO_BYTES, "%s", text);
    json_decref(json);
    http_reply_release(&reply);
    return st;
}

/* Someone may see a repository and not be allowed to make it: an existing one is good whatever create says.
 */
static bool is_there(struct http *h, const char *repo)
{
    char url[HUB_REPO_BYTES + 32];
    struct http_reply reply;
    snprintf(url, sizeof url, "/api/models/%s", repo);
    struct http_request request = {.url = url, .authorize = true, .repeats = REPEATS};
    bool there = http_send(h, &request, &reply, NULL) == ST_OK && reply.status == 200;
    http_reply_release(&reply);
    return there;
}

/* A 409 says that it is there, or that someone is just making or removing it: that passes. */
static enum status make(struct http *h, const struct http_request *request, struct http_reply *reply,
                        struct err *err)
{
    for (int i = 0;; i++) {
        TRY(http_send(h, request, reply, err));
        bool busy =
            reply->status == 409 && reply->body.data && strstr(reply->body.data, "conflicting operation");
        if (!busy || i == REPEATS)
            return ST_OK;
        http_reply_release(reply);
        TRY(http__rest(h, h->pause_s * (i < 3 ? 1 << i : 8), "making the repository", err));
    }
}

enum status hub_repo_make(struct http *h, const char *repo, struct err *err)
{
    const char *slash = strchr(repo, '/');
    char owner[HUB_REPO_BYTES], body[3 * HUB_REPO_BYTES], what[HUB_REPO_BYTES + 32];
    struct http_reply reply;
    if (!slash || !hub_repo_is_valid(repo)) {
        err_set(err, ST_USAGE, "'%.100s' is no name of a repository", repo);
        return err_hint(err, "owner/name, of letters, digits, '-', '_' and '.'");
    }
    snprintf(owner, sizeof owner, "%.*s", (int)(slash - repo), repo);
    /* Names have passed hub_repo_is_valid: nothing in them needs an escape. An organization that is the
     * caller's own name means the caller. */
    int n = snprintf(
        body, sizeof body,
        "{\"name\": \"%s\", \"organization\": \"%s\", \"type\": \"model\", \"visibility\": \"private\", "
        "\"private\": true}",
        slash + 1, owner);
    struct http_request request = {.method = HTTP_POST,
                                   .url = "/api/repos/create",
                                   .authorize = true,
                                   .repeats = REPEATS,
                                   .content_type = "application/json",
                                   .body = body,
                                   .body_bytes = (size_t)n};
    enum status st = make(h, &request, &reply, err);
    snprintf(what, sizeof what, "making the repository %s", repo);
    if (st == ST_OK && reply.status != 409 &&
        !((reply.status == 401 || reply.status == 402 || reply.status == 403) && is_there(h, repo)))
        st = http_check(h, &reply, what, err);
    http_reply_release(&reply);
    return st;
}

static enum status add_file(struct hub_tree *tree, const json_t *entry, struct err *err)
{
    const char *path, *oid;
    const json_t *lfs = json_object_get(entry, "lfs");
    struct hub_file f = {.is_lfs = json_is_object(lfs)};
    TRY(http__string(entry, "path", false, NULL, &path, err));
    TRY(http__string(f.is_lfs ? lfs : entry, "oid", false, NULL, &oid, err));
    TRY(http__int(f.is_lfs ? lfs : entry, "size", 0, INT64_MAX, false, 0, &f.n_bytes, err));
    /* It becomes a file's name in the cache. */
    if (strlen(oid) != (f.is_lfs ? 64u : 40u) || strspn(oid, "0123456789abcdef") != strlen(oid))
        return err_set(err, ST_NET, "the Hub's list has an odd hash for '%.200s'", path);
    memcpy(f.oid, oid, strlen(oid) + 1);
    struct hub_file *files = realloc(tree->files, (tree->n_files + 1) * sizeof *files);
    if (files)
        tree->files = files;
    f.path = strdup(path);
    if (!files || !f.path) {
        free(f.path);
        return err_memory(err, "the list of files", tree->n_files * sizeof *files);
    }
    tree->files[tree->n_files++] = f;
    return ST_OK;
}

static enum status add_page(struct hub_tree *tree, const json_t *page, struct err *err)
{
    size_t i;
    json_t *entry;
    if (!json_is_array(page))
        return err_set(err, ST_NET, "the Hub's list of files is no list");
    json_array_foreach(page, i, entry)
    {
        const char *type = json_string_value(json_object_get(entry, "type"));
        if (type && strcmp(type, "file") == 0)
            TRY(add_file(tree, entry, err));
    }
    return ST_OK;
}

/* The URL of `<URL>; rel="next"` among the links of a header, which stand between commas; its length, 0:
 * there is none. */
static size_t next_link(const char *links, const char **url)
{
    for (const char *link = strchr(links, '<'); link; link = strchr(link, '<')) {
        const char *end = strchr(link, '>'), *stop = end ? strchr(end, '<') : NULL;
        if (!end)
            return 0;
        const char *rel = strcasestr(end, "rel=");
        bool is_next = rel && (!stop || rel < stop) && strncasecmp(rel + 4 + (rel[4] == '"'), "next", 4) == 0;
        *url = link + 1;
        if (is_next)
            return (size_t)(end - *url);
        link = end;
    }
    return 0;
}

/* Where the list goes on, into url [URL_BYTES], which holds the page that was read; *more false: that was the
 * last one. A page elsewhere than at the endpoint, or the same again, is not gone to. */
static enum status next_page(const struct http *h, const struct http_reply *reply, char *url, bool *more,
                             struct err *err)
{
    const char *links = http_header(reply, "link"), *at = NULL;
    char link[URL_BYTES], next[URL_BYTES], origin[sizeof h->origin];
    size_t n = links ? next_link(links, &at) : 0;
    *more = n > 0;
    if (!*more)
        return ST_OK;
    snprintf(link, sizeof link, "%.*s", (int)n, at);
    /* The public Hub's URLs are the endpoint's: http_request says so. */
    bool is_public = strncmp(link, PUBLIC_ENDPOINT "/", strlen(PUBLIC_ENDPOINT) + 1) == 0;
    bool good = n < sizeof link && url__resolve(h->endpoint, link, next) && strcmp(next, url) != 0 &&
                url__origin(next, origin, sizeof origin) && (is_public || strcmp(origin, h->origin) == 0);
    if (!good)
        return err_set(err, ST_NET, "the Hub's list of files goes on at an odd place");
    strcpy(url, next);
    return ST_OK;
}

static enum status read_pages(struct http *h, struct hub_tree *tree, char *url, const char *what,
                              struct err *err)
{
    bool more = true;
    for (int page = 0; more; page++) {
        struct http_request request = {
            .url = url, .authorize = true, .expect_json = true, .repeats = REPEATS};
        struct http_reply reply;
        json_t *json = NULL;
        if (page == MAX_PAGES)
            return err_set(err, ST_NET, "%s: the list of files does not end", what);
        enum status st = http_send(h, &request, &reply, err);
        if (st == ST_OK)
            st = http_json(h, &reply, what, &json, err);
        if (st == ST_OK)
            st = add_page(tree, json, err);
        if (st == ST_OK)
            st = next_page(h, &reply, url, &more, err);
        json_decref(json);
        http_reply_release(&reply);
        TRY(st);
    }
    return ST_OK;
}

/* The commit that a revision names now: a list read at it does not change between two pages. */
static enum status read_commit(struct http *h, const char *repo, const char *revision, const char *what,
                               char commit[SHA1_HEX_BYTES], bool *missing, struct err *err)
{
    struct buf url = BUF_INIT;
    struct http_reply reply = {0};
    json_t *json = NULL;
    const char *sha = NULL;
    enum status st = buf_printf(&url, err, "/api/models/%s/revision/", repo);
    if (st == ST_OK)
        st = url_encode(&url, revision, false, err);
    struct http_request request = {
        .url = url.data, .authorize = true, .expect_json = true, .repeats = REPEATS};
    if (st == ST_OK)
        st = http_send(h, &request, &reply, err);
    if (st == ST_OK && missing)
        *missing = reply.status == 404 || (reply.status == 401 && !http_header(&reply, "x-error-message"));
    if (st == ST_OK)
        st = http_json(h, &reply, what, &json, err);
    if (st == ST_OK)
        st = http__string(json, "sha", false, NULL, &sha, err);
    if (st == ST_OK && (strlen(sha) != 40 || strspn(sha, "0123456789abcdef") != 40))
        st = err_set(err, ST_NET, "%s: '%.50s' is no commit", what, sha);
    if (st == ST_OK)
        memcpy(commit, sha, SHA1_HEX_BYTES);
    json_decref(json);
    http_reply_release(&reply);
    buf_release(&url);
    return st;
}

static enum status read_tree(struct http *h, const char *repo, const char *revision, const char *what,
                             struct hub_tree *tree, bool *missing, struct err *err)
{
    char url[URL_BYTES];
    memset(tree, 0, sizeof *tree);
    *missing = false;
    TRY(read_commit(h, repo, revision, what, tree->commit, missing, err));
    snprintf(url, sizeof url, "/api/models/%s/tree/%s?recursive=true&expand=false", repo, tree->commit);
    enum status st = read_pages(h, tree, url, what, err);
    if (st != ST_OK)
        hub_tree_release(tree);
    return st;
}

enum status hub_tree_read(struct http *h, const char *repo, const char *revision, struct hub_tree *tree,
                          bool *missing, struct err *err)
{
    char what[HUB_REPO_BYTES + 32];
    bool own_missing;
    if (!missing)
        missing = &own_missing;
    *missing = false;
    memset(tree, 0, sizeof *tree);
    if (!hub_repo_is_valid(repo))
        return err_set(err, ST_USAGE, "'%.100s' is no name of a repository", repo);
    snprintf(what, sizeof what, "listing %s", repo);
    /* JSON that is whole and wrong came from a line that changes bytes: it is asked for once more. */
    struct err fault = ERR_INIT;
    enum status st = read_tree(h, repo, revision, what, tree, missing, &fault);
    if (st == ST_NET && !*missing && !h->silent) {
        struct err again = ERR_INIT;
        st = read_tree(h, repo, revision, what, tree, missing, &again);
        fault = again;
    }
    if (st != ST_OK) {
        err_set(err, st, "%s", fault.what);
        if (fault.hint[0])
            err_hint(err, "%s", fault.hint);
    }
    return st;
}

void hub_tree_release(struct hub_tree *tree)
{
    for (size_t i = 0; i < tree->n_files; i++)
        free(tree->files[i].path);
    free(tree->files);
    memset(tree, 0, sizeof *tree);
}

const struct hub_file *hub_tree_find(const struct hub_tree *tree, const char *path)
{
    for (size_t i = 0; i < tree->n_files; i++)
        if (strcmp(tree->files[i].path, path) == 0)
            return &tree->files[i];
    return NULL;
}

int64_t hub_checkpoint_step(const char *path, size_t *n_bytes)
{
    static const char head[] = "checkpoint-";
    size_t n = sizeof head - 1, digits = 0;
    if (strncmp(path, head, n) != 0)
        return -1;
    while (isdigit((unsigned char)path[n + digits]))
        digits++;
    if (digits == 0 || digits > 18 || (path[n + digits] != '/' && path[n + digits] != 0))
        return -1;
    if (n_bytes)
        *n_bytes = n + digits;
    return strtoll(path + n, NULL, 10);
}
