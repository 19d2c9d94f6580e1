/* One try of a request: libcurl set up, redirects followed by hand so that the token goes nowhere else. */
#include "http_internal.h"
#include "util/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define MAX_REDIRECTS      10
#define MAX_HEADER_BYTES   (256 << 10)
#define DEFAULT_BODY_BYTES ((size_t)16 << 20)

/* What libcurl's callbacks see. */
struct transfer {
    struct http *h;
    const struct http_request *request;
    struct http_reply *reply;
    struct err *err;
    int fd;             /* of request->file, or -1 */
    int64_t at;         /* bytes of the body read so far */
    bool away;          /* a redirect has led from the endpoint: no token from here on */
    bool sunk;          /* the sink was told of this try */
    bool too_long;      /* the reply does not fit into memory */
    enum status status; /* what the sink or the memory said */
    char text[CURL_ERROR_SIZE];
};

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct transfer *t = user;
    size_t n_bytes = size * n, length = n_bytes;
    struct buf *b = &t->reply->headers;
    if (n_bytes >= 5 && memcmp(data, "HTTP/", 5) == 0)
        buf_clear(b); /* of an earlier reply: 100 Continue, a proxy's */
    while (length > 0 && (data[length - 1] == '\r' || data[length - 1] == '\n'))
        length--;
    if (b->n_bytes + length + 1 > MAX_HEADER_BYTES) {
        t->too_long = true;
        return 0;
    }
    if (buf_append(b, data, length, t->err) != ST_OK || buf_append(b, "", 1, t->err) != ST_OK) {
        t->status = ST_ENV;
        return 0;
    }
    return n_bytes;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct transfer *t = user;
    const struct http_request *r = t->request;
    size_t n_bytes = size * n, limit = r->max_body_bytes ? r->max_body_bytes : DEFAULT_BODY_BYTES;
    long status = 0;
    curl_easy_getinfo(t->h->curl, CURLINFO_RESPONSE_CODE, &status);
    if (r->sink && (status == 200 || status == 206)) {
        t->status = r->sink(r->user, (int)status, !t->sunk, data, n_bytes, t->err);
        t->sunk = true;
    } else if (t->reply->body.n_bytes + n_bytes > limit) {
        t->too_long = true;
    } else {
        t->status = buf_append(&t->reply->body, data, n_bytes, t->err);
    }
    return t->status == ST_OK && !t->too_long ? n_bytes : 0;
}

static size_t on_read(char *out, size_t size, size_t n, void *user)
{
    struct transfer *t = user;
    const struct http_request *r = t->request;
    int64_t left = (r->file ? r->file_bytes : (int64_t)r->body_bytes) - t->at;
    size_t want = size * n < (size_t)left ? size * n : (size_t)left;
    if (want == 0)
        return 0;
    if (!r->file) {
        memcpy(out, (const char *)r->body + t->at, want);
    } else {
        ssize_t got = pread(t->fd, out, want, r->file_from + t->at);
        if (got <= 0) {
            t->status = got < 0 ? err_errno(t->err, ST_INPUT, "reading %s", r->file)
                                : err_set(t->err, ST_INPUT, "%s became shorter while it was sent", r->file);
            return CURL_READFUNC_ABORT;
        }
        want = (size_t)got;
    }
    t->at += (int64_t)want;
    return want;
}

static int on_seek(void *user, curl_off_t offset, int origin)
{
    struct transfer *t = user;
    if (origin != SEEK_SET)
        return CURL_SEEKFUNC_CANTSEEK;
    t->at = offset;
    return CURL_SEEKFUNC_OK;
}

static int on_progress(void *user, curl_off_t to_get, curl_off_t got, curl_off_t to_send, curl_off_t sent)
{
    struct transfer *t = user;
    if (t->request->sent)
        t->request->sent(t->request->user, sent);
    return http__cancelled(t->h) ? 1 : 0;
}

static void set_body(struct transfer *t, CURL *c)
{
    const struct http_request *r = t->request;
    int64_t n_bytes = r->file ? r->file_bytes : (int64_t)r->body_bytes;
    switch (r->method) {
    case HTTP_GET:
        curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
        return;
    case HTTP_HEAD:
        curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
        return;
    case HTTP_DELETE:
        curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, "DELETE");
        if (n_bytes == 0)
            return;
        break;
    case HTTP_POST:
        break;
    case HTTP_PUT:
        curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)n_bytes);
        curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 1L << 20);
        break;
    }
    if (r->method != HTTP_PUT) {
        curl_easy_setopt(c, CURLOPT_POST, 1L);
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, NULL); /* read through the function */
        curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)n_bytes);
    }
    curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(c, CURLOPT_READDATA, t);
    curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(c, CURLOPT_SEEKDATA, t);
}

static bool add_header(struct curl_slist **list, const char *name, const char *value)
{
    char line[512];
    struct curl_slist *longer;
    if (!value)
        return true;
    snprintf(line, sizeof line, *value ? "%s: %s" : "%s:", name, value);
    longer = curl_slist_append(*list, line);
    if (longer)
        *list = longer;
    return longer != NULL;
}

/* A file that trickles in slower than this for as long as a stall counts as stalled. */
#define TRICKLE_BYTES 1000L

static void set_limits(struct transfer *t, CURL *c)
{
    const struct http_request *r = t->request;
    double total_s = r->total_s, stall_s = t->h->stall_s * (r->slow ? 2.5 : 1);
    if (total_s == 0)
        total_s = 60 + (double)(r->file ? r->file_bytes : (int64_t)r->body_bytes) / 50e3;
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)(t->h->connect_s * 1000));
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, r->sink ? TRICKLE_BYTES : 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)(stall_s < 1 ? 1 : stall_s));
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)(total_s * 1000));
}

static struct curl_slist *set_up(struct transfer *t, CURL *c, const char *url)
{
    const struct http_request *r = t->request;
    struct curl_slist *list = NULL;
    char origin[sizeof t->h->origin], range[32];
    curl_easy_reset(c); /* connections are kept */
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR,
                     strncmp(t->h->origin, "https", 5) == 0 ? "https" : "https,http");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "smgpt-dist/" SMGPT_VERSION);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, t->text);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
    set_limits(t, c);
    set_body(t, c);
    /* libcurl gives a bearer to the host of this transfer alone; the next hop is a transfer of its own. */
    t->away = t->away || !url__origin(url, origin, sizeof origin) || strcmp(origin, t->h->origin) != 0;
    if (r->authorize && t->h->token.text[0] && !t->away) {
        curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, t->h->token.text);
    }
    if (r->range_from > 0) {
        snprintf(range, sizeof range, "%lld-", (long long)r->range_from);
        curl_easy_setopt(c, CURLOPT_RANGE, range);
    }
    bool has_body = r->method == HTTP_POST || r->method == HTTP_PUT;
    if (!add_header(&list, "Content-Type",
                    r->content_type ? r->content_type
                    : has_body      ? ""
                                    : NULL) ||
        !add_header(&list, "Accept", r->accept) || !add_header(&list, "Expect", "") ||
        /* Lengths, ranges and hashes are those of the bytes as they are. */
        !add_header(&list, "Accept-Encoding", r->sink ? "identity" : NULL)) {
        curl_slist_free_all(list);
        return NULL;
    }
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
    return list;
}

static const char *const method_names[] = {"GET", "HEAD", "POST", "PUT", "DELETE"};

static enum status line_fault(const struct transfer *t, CURLcode code)
{
    const struct http_reply *reply = t->reply;
    const char *method = method_names[t->request->method];
    if (t->status != ST_OK)
        return t->status;
    if (t->too_long)
        return err_set(t->err, ST_NET, "%s %s: the reply is longer than expected", method, reply->url);
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return err_set(t->err, ST_STOPPED, "%s %s: given up", method, reply->url);
    err_set(t->err, ST_NET, "%s %s: %s", method, reply->url, t->text[0] ? t->text : curl_easy_strerror(code));
    if (code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT)
        err_hint(t->err, "is there a network here? (in a Kaggle notebook: Settings, Internet)");
    if (code == CURLE_PEER_FAILED_VERIFICATION)
        err_hint(t->err, "the server's certificate is not trusted here; a proxy's own one belongs into the "
                         "system's certificates (ca-certificates)");
    return ST_NET;
}

static enum status one_hop(struct transfer *t, const char *url)
{
    CURL *c = t->h->curl;
    long status = 0;
    url__plain(url, t->reply->url, sizeof t->reply->url);
    buf_clear(&t->reply->headers);
    buf_clear(&t->reply->body);
    t->at = 0;
    t->text[0] = 0;
    struct curl_slist *list = set_up(t, c, url);
    if (!list)
        return err_memory(t->err, "a request's headers", 512);
    CURLcode code = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    t->reply->status = (int)status;
    curl_easy_reset(c);
    curl_slist_free_all(list);
    return code == CURLE_OK ? ST_OK : line_fault(t, code);
}

/* The URL to go on with into url [URL_BYTES]; *more says whether there is one. */
static enum status next_hop(const struct transfer *t, char *url, bool *more)
{
    const struct http_request *r = t->request;
    const char *location = http_header(t->reply, "location");
    int status = t->reply->status;
    char next[URL_BYTES], origin[sizeof t->h->origin];
    bool reads = r->method == HTTP_GET || r->method == HTTP_HEAD;
    bool redirect =
        status == 307 || status == 308 || (reads && (status == 301 || status == 302 || status == 303));
    *more = false;
    if (!redirect || !location || r->follow == HTTP_FOLLOW_NONE)
        return ST_OK;
    /* "//host/path" names a host without a scheme. */
    if (r->follow == HTTP_FOLLOW_RELATIVE && (strstr(location, "://") || strncmp(location, "//", 2) == 0))
        return ST_OK;
    if (!url__resolve(url, location, next) || !url__origin(next, origin, sizeof origin) ||
        (strncmp(t->h->origin, "https:", 6) == 0 && strncmp(origin, "https:", 6) != 0))
        return err_set(t->err, ST_NET, "%s: redirects to what is no https URL", t->reply->url);
    strcpy(url, next);
    *more = true;
    return ST_OK;
}

static enum status follow(struct transfer *t, char *url)
{
    bool more = true;
    for (int hop = 0; more; hop++) {
        if (hop > MAX_REDIRECTS)
            return err_set(t->err, ST_NET, "%s: more than %d redirects", t->reply->url, MAX_REDIRECTS);
        TRY(one_hop(t, url));
        TRY(next_hop(t, url, &more));
    }
    return ST_OK;
}

enum status http__once(struct http *h, const struct http_request *request, struct http_reply *reply,
                       struct err *err)
{
    struct transfer t = {.h = h, .request = request, .reply = reply, .err = err, .fd = -1};
    char url[URL_BYTES];
    const size_t n_public = strlen(PUBLIC_ENDPOINT);
    const char *path = request->url;
    if (strncmp(path, PUBLIC_ENDPOINT "/", n_public + 1) == 0)
        path += n_public;
    int n = snprintf(url, sizeof url, "%s%s", path[0] == '/' ? h->endpoint : "", path);
    if (n < 0 || (size_t)n >= sizeof url)
        return err_set(err, ST_INPUT, "a URL of %d bytes is too long", n);
    if (request->file) {
        t.fd = open(request->file, O_RDONLY | O_CLOEXEC);
        if (t.fd < 0)
            return err_errno(err, ST_INPUT, "%s", request->file);
    }
    enum status st = follow(&t, url);
    if (t.fd >= 0)
        close(t.fd);
    return st;
}
