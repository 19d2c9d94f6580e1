/* Large files: git-lfs's batch call, then the bytes to where its signed URLs point, whole or in parts. */
#include "http_internal.h"
#include "push_internal.h"
#include "util/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OBJECTS_A_CALL 100
#define MAX_PARTS      10000
#define LFS_TYPE       "application/vnd.git-lfs+json"

static void on_sent(void *user, int64_t n_bytes)
{
    struct push *p = user;
    if (p->request->progress)
        p->request->progress(p->request->user, p->done_bytes + n_bytes, p->all_bytes);
}

/* Bytes [from, from + n_bytes) of the file to a signed URL; etag (NULL, or [256]) is the store's. The store
 * wants no token: the signature is in the URL. */
static enum status put(struct push *p, const struct push_file *f, const char *url, int64_t from,
                       int64_t n_bytes, char *etag, struct err *err)
{
    struct http_request request = {.method = HTTP_PUT, .url = url, .repeats = 5, .sent = on_sent, .user = p};
    struct http_reply reply;
    if (f->content) {
        request.body = f->content + from;
        request.body_bytes = (size_t)n_bytes;
    } else {
        request.file = f->local;
        request.file_from = from;
        request.file_bytes = n_bytes;
    }
    enum status st = http_send(p->http, &request, &reply, err);
    if (st == ST_OK && (reply.status < 200 || reply.status > 299)) {
        /* Also 403: the URL has run out, a new batch gives a new one. */
        st = http_check(p->http, &reply, f->path, err);
    }
    if (st == ST_OK && etag) {
        const char *value = http_header(&reply, "etag");
        snprintf(etag, 256, "%s", value ? value : "");
    }
    if (st == ST_OK) {
        p->done_bytes += n_bytes;
        p->result->sent_bytes += n_bytes;
        on_sent(p, 0);
    }
    http_reply_release(&reply);
    return st;
}

/* The URL of part number k in a header map whose keys are numbers, zero-padded or not. */
static const char *part_url(const json_t *map, int64_t k)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
    {
        char *end;
        if (isdigit((unsigned char)*key) && strtoll(key, &end, 10) == k && *end == 0)
            return json_string_value(value);
    }
    return NULL;
}

static enum status post_json(struct push *p, const char *url, bool authorize, const json_t *value,
                             const char *type, const char *what, struct err *err)
{
    struct http_reply reply = {0};
    char *body = json_dumps(value, JSON_COMPACT);
    if (!body)
        return err_memory(err, "a request", 0);
    struct http_request request = {.method = HTTP_POST,
                                   .url = url,
                                   .authorize = authorize,
                                   .repeats = 5,
                                   .content_type = type,
                                   .accept = type,
                                   .body = body,
                                   .body_bytes = strlen(body)};
    enum status st = http_send(p->http, &request, &reply, err);
    if (st == ST_OK)
        st = http_check(p->http, &reply, what, err);
    free(body);
    http_reply_release(&reply);
    return st;
}

static enum status put_parts(struct push *p, const struct push_file *f, const char *href, const json_t *map,
                             int64_t chunk, struct err *err)
{
    int64_t n_parts = (f->n_bytes + chunk - 1) / chunk;
    json_t *parts = json_array();
    enum status st = parts ? ST_OK : err_memory(err, "the list of parts", 0);
    if (st == ST_OK && (n_parts > MAX_PARTS || part_url(map, n_parts + 1) || !part_url(map, n_parts))) {
        st = err_set(err, ST_NET, "'%s' has %lld parts of %lld bytes, the Hub has not as many places",
                     f->path, (long long)n_parts, (long long)chunk);
    }
    for (int64_t k = 1; k <= n_parts && st == ST_OK; k++) {
        int64_t from = (k - 1) * chunk, n = f->n_bytes - from < chunk ? f->n_bytes - from : chunk;
        const char *url = part_url(map, k);
        char etag[256] = "";
        if (!url) {
            st = err_set(err, ST_NET, "the Hub has no place for part %lld of '%s'", (long long)k, f->path);
        }
        if (st == ST_OK)
            st = put(p, f, url, from, n, etag, err);
        if (st == ST_OK && json_array_append_new(parts, json_pack("{s:I, s:s}", "partNumber", (json_int_t)k,
                                                                  "etag", etag)) != 0)
            st = err_memory(err, "the list of parts", 0);
    }
    if (st == ST_OK) {
        json_t *whole = json_pack("{s:s, s:O}", "oid", f->sha256, "parts", parts);
        st = post_json(p, href, false, whole, LFS_TYPE, "putting the parts together", err);
        json_decref(whole);
    }
    json_decref(parts);
    return st;
}

/* "chunk_size" is a number or the text of one. */
static int64_t chunk_bytes(const json_t *map)
{
    const json_t *value = json_object_get(map, "chunk_size");
    if (json_is_integer(value))
        return json_integer_value(value);
    return json_is_string(value) ? strtoll(json_string_value(value), NULL, 10) : 0;
}

static enum status verify(struct push *p, const struct push_file *f, const json_t *action, struct err *err)
{
    const char *href;
    if (!json_is_object(action))
        return ST_OK;
    TRY(http__string(action, "href", false, NULL, &href, err));
    json_t *whole = json_pack("{s:s, s:I}", "oid", f->sha256, "size", (json_int_t)f->n_bytes);
    enum status st = post_json(p, href, true, whole, "application/json", "checking a large file", err);
    json_decref(whole);
    return st;
}

static enum status send_object(struct push *p, const struct push_file *f, const json_t *object,
                               struct err *err)
{
    const json_t *actions = json_object_get(object, "actions"), *upload = json_object_get(actions, "upload");
    const json_t *error = json_object_get(object, "error");
    if (json_is_object(error)) {
        const char *text = json_string_value(json_object_get(error, "message"));
        return err_set(err, ST_NET, "the Hub does not take '%s': %.200s", f->path,
                       text ? text : "no reason given");
    }
    if (!json_is_object(upload)) { /* the Hub has it */
        p->done_bytes += f->n_bytes;
        on_sent(p, 0);
        return ST_OK;
    }
    const char *href;
    const json_t *map = json_object_get(upload, "header");
    int64_t chunk = chunk_bytes(map);
    TRY(http__string(upload, "href", false, NULL, &href, err));
    if (chunk > 0)
        TRY(put_parts(p, f, href, map, chunk, err));
    else
        TRY(put(p, f, href, 0, f->n_bytes, NULL, err));
    return verify(p, f, json_object_get(actions, "verify"), err);
}

static enum status send_objects(struct push *p, struct push_file *const *files, size_t n,
                                const json_t *answer, struct err *err)
{
    const json_t *objects = json_object_get(answer, "objects");
    for (size_t i = 0; i < n; i++) {
        size_t j;
        json_t *object, *found = NULL;
        json_array_foreach(objects, j, object)
        {
            const char *oid = json_string_value(json_object_get(object, "oid"));
            if (oid && strcmp(oid, files[i]->sha256) == 0)
                found = object;
        }
        if (!found) {
            return err_set(err, ST_NET, "the Hub gives no place for '%s'", files[i]->path);
        }
        TRY(send_object(p, files[i], found, err));
    }
    return ST_OK;
}

static json_t *batch_body(const struct push *p, struct push_file *const *files, size_t n)
{
    json_t *objects = json_array();
    for (size_t i = 0; objects && i < n; i++)
        json_array_append_new(
            objects, json_pack("{s:s, s:I}", "oid", files[i]->sha256, "size", (json_int_t)files[i]->n_bytes));
    return json_pack("{s:s, s:[s, s], s:s, s:{s:s}, s:o}", "operation", "upload", "transfers", "basic",
                     "multipart", "hash_algo", "sha256", "ref", "name", PUSH_BRANCH, "objects", objects);
}

static enum status send_batch(struct push *p, struct push_file *const *files, size_t n, struct err *err)
{
    char url[HUB_REPO_BYTES + 64];
    struct http_reply reply = {0};
    json_t *whole = batch_body(p, files, n), *answer = NULL;
    char *body = whole ? json_dumps(whole, JSON_COMPACT) : NULL;
    enum status st = body ? ST_OK : err_memory(err, "a request", 0);
    snprintf(url, sizeof url, "/%s.git/info/lfs/objects/batch", p->request->repo);
    if (st == ST_OK) {
        struct http_request request = {.method = HTTP_POST,
                                       .url = url,
                                       .authorize = true,
                                       .expect_json = true,
                                       .repeats = 5,
                                       .content_type = LFS_TYPE,
                                       .accept = LFS_TYPE,
                                       .body = body,
                                       .body_bytes = strlen(body)};
        st = http_send(p->http, &request, &reply, err);
    }
    if (st == ST_OK)
        st = push__check(p, &reply, "announcing the large files", err);
    if (st == ST_OK)
        st = http_json(p->http, &reply, "announcing the large files", &answer, err);
    if (st == ST_OK)
        st = send_objects(p, files, n, answer, err);
    free(body);
    json_decref(whole);
    json_decref(answer);
    http_reply_release(&reply);
    return st;
}

enum status push__upload(struct push *p, struct err *err)
{
    struct push_file *files[OBJECTS_A_CALL];
    size_t n = 0;
    p->all_bytes = p->done_bytes = 0;
    for (size_t i = 0; i < p->n_files; i++)
        if (p->files[i].needed && p->files[i].is_lfs && !p->files[i].ignored)
            p->all_bytes += p->files[i].n_bytes;
    for (size_t i = 0; i < p->n_files; i++) {
        struct push_file *f = &p->files[i];
        bool twice = false;
        for (size_t j = 0; j < n; j++)
            twice = twice || strcmp(files[j]->sha256, f->sha256) == 0;
        if (f->needed && f->is_lfs && !f->ignored && !twice)
            files[n++] = f;
        if (n == OBJECTS_A_CALL || (n > 0 && i + 1 == p->n_files)) {
            TRY(send_batch(p, files, n, err));
            n = 0;
        }
    }
    return ST_OK;
}
