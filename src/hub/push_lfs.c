/* Large files: git-lfs's batch call says where each goes; then the bytes, whole or in parts and several at a
 * time; then what has to be said of each when its bytes are there. */
#include "parallel_internal.h"
#include "push_internal.h"
#include "util/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OBJECTS_A_CALL 100
#define MAX_PARTS      10000
#define LFS_TYPE       "application/vnd.git-lfs+json"

/* One PUT: a file, or a part of it. */
struct transfer {
    struct batch *batch;
    const struct push_file *file;
    const char *url; /* borrowed from the batch's answer */
    int64_t from, n_bytes, sent;
    bool is_part;
    char etag[512];
};

/* A file that the Hub has not got. */
struct object {
    const struct push_file *file;
    const char *href;      /* of the completion; NULL when the file goes whole */
    const json_t *verify;  /* or NULL */
    size_t first, n_parts; /* its transfers */
};

struct batch {
    struct push *push;
    struct object *objects;
    struct transfer *transfers;
    size_t n_objects, n_transfers;
    _Atomic int64_t n_sent;
    int64_t before; /* bytes done in earlier batches, or there already */
};

static void on_sent(void *user, int64_t n_bytes)
{
    struct transfer *t = user;
    t->batch->n_sent += n_bytes - t->sent;
    t->sent = n_bytes;
}

static void show(void *user)
{
    const struct batch *b = user;
    const struct push_request *r = b->push->request;
    if (r->progress)
        r->progress(r->user, b->before + b->n_sent, b->push->all_bytes);
}

/* The store wants no token: the signature is in the URL. A 403 is one that has run out; a new batch gives a
 * new one. */
static enum status put(void *user, struct http *h, size_t i, struct err *err)
{
    struct batch *b = user;
    struct transfer *t = &b->transfers[i];
    const struct push_file *f = t->file;
    struct http_request request = {
        .method = HTTP_PUT, .url = t->url, .repeats = 5, .sent = on_sent, .user = t};
    struct http_reply reply;
    if (f->content) {
        request.body = f->content + t->from;
        request.body_bytes = (size_t)t->n_bytes;
    } else {
        request.file = f->local;
        request.file_from = t->from;
        request.file_bytes = t->n_bytes;
    }
    enum status st = http_send(h, &request, &reply, err);
    if (st == ST_OK)
        st = http_check(h, &reply, f->path, err);
    const char *etag = http_header(&reply, "etag");
    int n = snprintf(t->etag, sizeof t->etag, "%s", etag ? etag : "");
    if (st == ST_OK && t->is_part && (n == 0 || n >= (int)sizeof t->etag))
        st = err_set(err, ST_NET, "the store names no usable ETag for a part of '%s'", f->path);
    if (st == ST_OK)
        on_sent(t, t->n_bytes);
    http_reply_release(&reply);
    return st;
}

/* ---- what the batch call answers ---- */

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

/* "chunk_size" is a number or the text of one. */
static int64_t chunk_bytes(const json_t *map)
{
    const json_t *value = json_object_get(map, "chunk_size");
    if (json_is_integer(value))
        return json_integer_value(value);
    return json_is_string(value) ? strtoll(json_string_value(value), NULL, 10) : 0;
}

static enum status add_transfer(struct batch *b, const struct push_file *f, const char *url, int64_t from,
                                int64_t n_bytes, struct err *err)
{
    struct transfer *all = realloc(b->transfers, (b->n_transfers + 1) * sizeof *all);
    if (!all)
        return err_memory(err, "the list of parts", (b->n_transfers + 1) * sizeof *all);
    b->transfers = all;
    all[b->n_transfers++] =
        (struct transfer){.batch = b, .file = f, .url = url, .from = from, .n_bytes = n_bytes};
    return ST_OK;
}

static enum status plan_parts(struct batch *b, const struct push_file *f, const json_t *map, int64_t chunk,
                              struct err *err)
{
    int64_t n_parts = (f->n_bytes + chunk - 1) / chunk;
    if (n_parts > MAX_PARTS || part_url(map, n_parts + 1))
        return err_set(err, ST_NET, "'%s' has %lld parts of %lld bytes, the Hub has not as many places",
                       f->path, (long long)n_parts, (long long)chunk);
    for (int64_t k = 1; k <= n_parts; k++) {
        int64_t from = (k - 1) * chunk, n = f->n_bytes - from < chunk ? f->n_bytes - from : chunk;
        const char *url = part_url(map, k);
        if (!url)
            return err_set(err, ST_NET, "the Hub has no place for part %lld of '%s'", (long long)k, f->path);
        TRY(add_transfer(b, f, url, from, n, err));
        b->transfers[b->n_transfers - 1].is_part = true;
    }
    return ST_OK;
}

static enum status plan_object(struct batch *b, const struct push_file *f, const json_t *answer,
                               struct err *err)
{
    const json_t *actions = json_object_get(answer, "actions"), *upload = json_object_get(actions, "upload");
    const json_t *error = json_object_get(answer, "error"), *map = json_object_get(upload, "header");
    struct object *o = &b->objects[b->n_objects];
    const char *href;
    if (json_is_object(error)) {
        const char *text = json_string_value(json_object_get(error, "message"));
        return err_set(err, ST_NET, "the Hub does not take '%s': %.200s", f->path,
                       text ? text : "no reason given");
    }
    if (!json_is_object(upload)) { /* the Hub has it */
        b->before += f->n_bytes;
        return ST_OK;
    }
    int64_t chunk = chunk_bytes(map);
    TRY(http__string(upload, "href", false, NULL, &href, err));
    *o = (struct object){.file = f, .verify = json_object_get(actions, "verify"), .first = b->n_transfers};
    if (chunk > 0)
        TRY(plan_parts(b, f, map, chunk, err));
    else
        TRY(add_transfer(b, f, href, 0, f->n_bytes, err));
    o->href = chunk > 0 ? href : NULL;
    o->n_parts = b->n_transfers - o->first;
    b->n_objects++;
    return ST_OK;
}

static enum status plan(struct batch *b, struct push_file *const *files, size_t n, const json_t *answer,
                        struct err *err)
{
    const json_t *objects = json_object_get(answer, "objects");
    b->objects = calloc(n, sizeof *b->objects);
    if (!b->objects)
        return err_memory(err, "the list of large files", n * sizeof *b->objects);
    for (size_t i = 0; i < n; i++) {
        size_t j;
        json_t *object, *found = NULL;
        json_array_foreach(objects, j, object)
        {
            const char *oid = json_string_value(json_object_get(object, "oid"));
            if (oid && strcmp(oid, files[i]->sha256) == 0)
                found = object;
        }
        if (!found)
            return err_set(err, ST_NET, "the Hub gives no place for '%s'", files[i]->path);
        TRY(plan_object(b, files[i], found, err));
    }
    return ST_OK;
}

/* ---- what follows the bytes ---- */

static enum status post_json(struct http *h, const char *url, bool authorize, const json_t *value,
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
                                   .slow = true,
                                   .content_type = type,
                                   .accept = type,
                                   .body = body,
                                   .body_bytes = strlen(body)};
    enum status st = http_send(h, &request, &reply, err);
    if (st == ST_OK)
        st = http_check(h, &reply, what, err);
    free(body);
    http_reply_release(&reply);
    return st;
}

static enum status put_together(struct http *h, const struct batch *b, const struct object *o,
                                struct err *err)
{
    json_t *parts = json_array(), *whole;
    for (size_t k = 0; k < o->n_parts; k++)
        json_array_append_new(parts, json_pack("{s:I, s:s}", "partNumber", (json_int_t)k + 1, "etag",
                                               b->transfers[o->first + k].etag));
    if (json_array_size(parts) != o->n_parts) {
        json_decref(parts);
        return err_memory(err, "the list of parts", 0);
    }
    whole = json_pack("{s:s, s:o}", "oid", o->file->sha256, "parts", parts);
    enum status st = post_json(h, o->href, false, whole, LFS_TYPE, "putting the parts together", err);
    json_decref(whole);
    return st;
}

static enum status finish(void *user, struct http *h, size_t i, struct err *err)
{
    const struct batch *b = user;
    const struct object *o = &b->objects[i];
    const char *href;
    if (o->href)
        TRY(put_together(h, b, o, err));
    if (!json_is_object(o->verify))
        return ST_OK;
    TRY(http__string(o->verify, "href", false, NULL, &href, err));
    json_t *whole = json_pack("{s:s, s:I}", "oid", o->file->sha256, "size", (json_int_t)o->file->n_bytes);
    enum status st = post_json(h, href, true, whole, "application/json", "checking a large file", err);
    json_decref(whole);
    return st;
}

/* ---- the call ---- */

static json_t *batch_body(struct push_file *const *files, size_t n)
{
    json_t *objects = json_array();
    for (size_t i = 0; objects && i < n; i++)
        json_array_append_new(
            objects, json_pack("{s:s, s:I}", "oid", files[i]->sha256, "size", (json_int_t)files[i]->n_bytes));
    return json_pack("{s:s, s:[s, s], s:s, s:{s:s}, s:o}", "operation", "upload", "transfers", "basic",
                     "multipart", "hash_algo", "sha256", "ref", "name", PUSH_BRANCH, "objects", objects);
}

static enum status ask(struct push *p, struct push_file *const *files, size_t n, json_t **answer,
                       struct err *err)
{
    char url[HUB_REPO_BYTES + 64];
    json_t *question = batch_body(files, n);
    if (!question)
        return err_memory(err, "a request", 0);
    snprintf(url, sizeof url, "/%s.git/info/lfs/objects/batch", p->request->repo);
    enum status st = push__ask(p, url, question, LFS_TYPE, "announcing the large files", answer, err);
    json_decref(question);
    return st;
}

static enum status send_batch(struct push *p, struct push_file *const *files, size_t n, struct err *err)
{
    struct batch b = {.push = p, .before = p->done_bytes};
    json_t *answer = NULL;
    enum status st = ask(p, files, n, &answer, err);
    if (st == ST_OK)
        st = plan(&b, files, n, answer, err);
    struct parallel puts = {.n_jobs = b.n_transfers, .run = put, .tick = show, .user = &b};
    if (st == ST_OK)
        st = parallel__run(p->http, &puts, err);
    p->result->sent_bytes += b.n_sent;
    p->done_bytes = b.before + b.n_sent;
    /* The store joins parts while it is asked to: also of several files at a time. */
    struct parallel ends = {.n_jobs = b.n_objects, .run = finish, .user = &b};
    if (st == ST_OK)
        st = parallel__run(p->http, &ends, err);
    free(b.objects);
    free(b.transfers);
    json_decref(answer);
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
