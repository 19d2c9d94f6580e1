/* The bytes of one URL into a file that may hold their beginning already. */
#include "download_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONGEST_ASKED_S  60
#define UNKNOWN_LENGTH_S 3600
#define SLOWEST_BYTES_S  50e3 /* one try may take as long; the next one goes on where it ended */
#define MAX_FAULTS       6    /* in a row, without a byte in between */

struct sink {
    const struct body *body;
    int fd;
    int64_t at;
    const struct http_reply *reply; /* of the try that runs */
};

/* A number behind a prefix of Content-Range; -1: it says something else. */
static int64_t range_number(const struct http_reply *reply, const char *prefix)
{
    const char *text = http_header(reply, "Content-Range");
    size_t n = strlen(prefix);
    if (!text || strncmp(text, prefix, n) != 0 || text[n] < '0' || text[n] > '9')
        return -1;
    errno = 0;
    long long number = strtoll(text + n, NULL, 10);
    return errno == 0 ? number : -1;
}

/* Nothing of the file can be used: the next try begins anew. */
static enum status begin_anew(struct sink *s, struct err *err)
{
    if (s->body->n_done)
        *s->body->n_done -= s->at;
    s->at = 0;
    return ftruncate(s->fd, 0) == 0 ? ST_OK : err_errno(err, ST_ENV, "cannot cut '%s'", s->body->path);
}

/* A 206 goes on where the file ended, a 200 is the whole again. */
static enum status take(void *user, int status, bool restart, const void *data, size_t n_bytes,
                        struct err *err)
{
    struct sink *s = user;
    const char *p = data;
    if (restart && s->at > 0 && status == 200)
        TRY(begin_anew(s, err));
    if (restart && status == 206 && range_number(s->reply, "bytes ") != s->at) {
        TRY(begin_anew(s, err));
        return err_set(err, ST_NET, "%s: another piece came than the one asked for", s->body->path);
    }
    if (s->body->n_bytes >= 0 && s->at + (int64_t)n_bytes > s->body->n_bytes)
        return err_set(err, ST_NET, "%s: more bytes came than the file has", s->body->path);
    while (n_bytes > 0) {
        ssize_t n = pwrite(s->fd, p, n_bytes, s->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(err, ST_ENV, "cannot write '%s'", s->body->path);
        p += n;
        n_bytes -= (size_t)n;
        s->at += n;
        if (s->body->n_done)
            *s->body->n_done += n;
    }
    return ST_OK;
}

/* *done: all is there. A refusal (401, 403, 404, ...) is final; but 403 behind a redirect is a signed URL
 * that has run out, and the next try gets a new one. *asked_s: the pause that the server asks for, or less
 * than 0. */
static enum status try_once(struct http *h, struct sink *s, bool *done, bool *final, double *asked_s,
                            struct err *err)
{
    const struct body *b = s->body;
    struct http_reply reply;
    struct http_request request = {
        .url = b->url,
        .authorize = b->authorize,
        .range_from = s->at,
        .total_s = b->n_bytes < 0 ? UNKNOWN_LENGTH_S : 60 + (double)(b->n_bytes - s->at) / SLOWEST_BYTES_S,
        .sink = take,
        .user = s};
    s->reply = &reply;
    enum status st = http_send(h, &request, &reply, err);
    *final = st != ST_OK && st != ST_NET;
    *done = false;
    *asked_s = -1;
    if (st == ST_OK && reply.status == 416 && s->at > 0) {
        *done = s->at == (b->n_bytes < 0 ? range_number(&reply, "bytes */") : b->n_bytes);
        if (!*done)
            st = begin_anew(s, err);
    } else if (st == ST_OK && (reply.status == 200 || reply.status == 206)) {
        *done = b->n_bytes < 0 || s->at == b->n_bytes;
        if (!*done)
            st = err_set(err, ST_NET, "%s: the transfer ended early", b->path);
    } else if (st == ST_OK) {
        int code = reply.status;
        size_t n = strlen(h->endpoint);
        bool elsewhere = strncmp(reply.url, h->endpoint, n) != 0 || reply.url[n] != '/';
        *final = code >= 400 && code < 500 && code != 408 && code != 429 &&
                 !(code == 403 && elsewhere && b->authorize);
        st = http_check(h, &reply, reply.url, err);
        *asked_s = http__asked_pause_s(&reply);
    }
    http_reply_release(&reply);
    return st;
}

static enum status fill(struct http *h, struct sink *s, struct err *err)
{
    int n_faults = 0;
    for (;;) {
        struct err fault = ERR_INIT;
        bool done, final;
        double asked_s;
        int64_t before = s->at;
        enum status st = try_once(h, s, &done, &final, &asked_s, &fault);
        if (done)
            return ST_OK;
        n_faults = s->at > before ? 1 : n_faults + 1;
        if (final || n_faults >= MAX_FAULTS) {
            err_set(err, st == ST_OK ? ST_NET : st, "%s",
                    fault.what[0] ? fault.what : "the download does not end");
            if (fault.hint[0])
                err_hint(err, "%s", fault.hint);
            return err->status;
        }
        double asked = asked_s > 0 ? (asked_s < LONGEST_ASKED_S ? asked_s : LONGEST_ASKED_S) : 0;
        TRY(http__rest(h, asked + h->pause_s * n_faults, "the download", err));
    }
}

enum status download__body(struct http *h, const struct body *body, struct err *err)
{
    struct stat info;
    struct sink s = {.body = body, .fd = open(body->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
    if (s.fd < 0 || fstat(s.fd, &info) != 0) {
        if (s.fd >= 0)
            close(s.fd);
        return err_errno(err, ST_ENV, "cannot open '%s'", body->path);
    }
    s.at = info.st_size;
    enum status st = ST_OK;
    if (body->n_bytes >= 0 && s.at > body->n_bytes) {
        s.at = 0;
        st = ftruncate(s.fd, 0) == 0 ? ST_OK : err_errno(err, ST_ENV, "cannot cut '%s'", body->path);
    }
    if (body->n_done)
        *body->n_done += s.at;
    if (st == ST_OK && s.at != body->n_bytes)
        st = fill(h, &s, err);
    if (st == ST_OK && fsync(s.fd) != 0)
        st = err_errno(err, ST_ENV, "cannot write '%s' to disk", body->path);
    close(s.fd);
    return st;
}
