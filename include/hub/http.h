/* HTTP for the Hub: one request and its reply, with the token where it may go, limits, and repeats. */
#ifndef SMGPT_HUB_HTTP_H
#define SMGPT_HUB_HTTP_H

#include "hub/token.h"
#include "util/buf.h"
#include <jansson.h>
#include <stdatomic.h>
#include <stdint.h>

/* A client: an endpoint, the token, connections that are kept. Used by one thread at a time; several clients
 * may work at once. */
struct http;

struct http_config {
    const char *endpoint; /* NULL: $HF_ENDPOINT, else the public one. "scheme://host[:port][/path]" */
    const struct hub_token *token; /* NULL: none. Copied */
    double connect_s, stall_s; /* 0: 15 and 30 seconds. A transfer below 1 byte/s for stall_s is given up */
    double pause_s; /* 0: $SMGPT_HUB_PAUSE_S, else 1 second. First pause before a repeat; doubles up to 8
                       times it */
    const atomic_bool *cancel; /* NULL, or: becomes true when all is to be given up within a second */
    bool stoppable; /* so does a signal to stop (stop_requested): for calls that somebody waits for */
};
/* Strings are copied. ST_USAGE: the endpoint is no URL of http or https; ST_ENV: no memory. */
enum status http_open(struct http **out, const struct http_config *config, struct err *err);
void http_close(struct http *h);
const char *http_endpoint(const struct http *h); /* without a slash at its end; borrowed */
bool http_has_token(const struct http *h);

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_DELETE };
enum http_follow {
    HTTP_FOLLOW_ALL,      /* up to 10 redirects; GET and HEAD any, others only 307 and 308 */
    HTTP_FOLLOW_RELATIVE, /* only those whose Location has no host: what HEAD of a file needs */
    HTTP_FOLLOW_NONE
};

struct http_request {
    enum http_method method;
    const char *url;  /* absolute, or "/path" below the endpoint. The public Hub's own URLs (in what a mirror
                         or a proxy answers) are taken as the endpoint's */
    bool authorize;   /* send the token, if the URL (each one along redirects) is at the endpoint's scheme,
                         host and port. Elsewhere it is never sent, nor behind a redirect that led elsewhere */
    bool expect_json; /* a good reply that is no JSON counts as a fault of the line: repeated, then ST_NET */
    int repeats;      /* how often to repeat after 408, 429, 500, 502, 503, 504 and faults of the line; what a
                         request does must not hurt twice */
    enum http_follow follow;
    const char *content_type, *accept; /* NULL: none */
    const void *body;                  /* borrowed */
    size_t body_bytes;
    const char *file; /* instead of body: a range of this file */
    int64_t file_from, file_bytes;
    int64_t range_from;    /* > 0: "Range: bytes=N-" */
    size_t max_body_bytes; /* of the reply into memory; 0: 16 MiB */
    double total_s;        /* 0: 60 s and one more for each 50 kB of body sent */
    bool slow; /* the server works before it answers: silence counts as a stall after 2.5 times as long */
    /* Where the bytes of a 200 or 206 go, instead of into reply->body. `restart` is true before the first
     * bytes of each try. A status other than ST_OK ends the request with it. */
    enum status (*sink)(void *user, int status, bool restart, const void *data, size_t n_bytes,
                        struct err *err);
    void (*sent)(void *user, int64_t n_bytes); /* NULL, or: told of the body's bytes sent so far */
    void *user;
};

struct http_reply {
    int status;         /* of the last reply */
    struct buf headers; /* its lines, each with a NUL behind it */
    struct buf body;    /* ends with a NUL that is not counted */
    char url[2048];     /* without its query, which may hold a signature: for messages */
    int n_repeats;      /* how often it was repeated */
};

/* Sends and waits. ST_OK: a reply came, whatever its status (after repeats, and of a redirect that is not
 * followed). ST_NET: none did; the message names method, host and cause. ST_STOPPED: cancelled. ST_INPUT: the
 * file cannot be read. The reply is to be released in every case. */
enum status http_send(struct http *h, const struct http_request *request, struct http_reply *reply,
                      struct err *err);
void http_reply_release(struct http_reply *reply);

/* The value of a header (name in any case), borrowed from the reply; NULL when it is not there. */
const char *http_header(const struct http_reply *reply, const char *name);

/* ST_OK for 2xx. Else ST_NET with what the Hub said (printable, one line, the token masked) and what to do:
 * 401, 403, gated and 404 are told apart. `what` is what was tried: "commit to alice/m". */
enum status http_check(struct http *h, const struct http_reply *reply, const char *what, struct err *err);
/* Whether the last reply that http_check saw was 401, 402 or 403: the same again would fare no better. */
bool http_refused(const struct http *h);
/* http_check, then the body as JSON (new reference); an HTML page is named as such. */
enum status http_json(struct http *h, const struct http_reply *reply, const char *what, json_t **out,
                      struct err *err);

/* Percent-encoding of everything but letters, digits and "-._~" (and "/" when keep_slash), appended to out.
 */
enum status url_encode(struct buf *out, const char *text, bool keep_slash, struct err *err);

#endif
