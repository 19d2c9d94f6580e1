/* Shared by the files of the HTTP client. */
#ifndef SMGPT_HUB_HTTP_INTERNAL_H
#define SMGPT_HUB_HTTP_INTERNAL_H

#include "hub/http.h"
#include <curl/curl.h>

#define URL_BYTES       8192
#define PUBLIC_ENDPOINT "https://huggingface.co"

struct http {
    CURL *curl;
    char endpoint[1024], origin[512]; /* origin: scheme://host:port, small letters */
    struct hub_token token;
    double connect_s, stall_s, pause_s;
    const atomic_bool *cancel;
    bool stoppable;
    bool refused; /* the last reply that was checked was a refusal */
    bool silent;  /* the last request got no reply at all, for all its repeats */
};

/* One try, redirects included. A fault of the line is ST_NET. */
enum status http__once(struct http *h, const struct http_request *request, struct http_reply *reply,
                       struct err *err);

/* First pause before a repeat: $SMGPT_HUB_PAUSE_S, else 1 second. Tests make it short. */
double http__pause_s(void);

bool http__cancelled(const struct http *h);
/* Waits; ST_STOPPED, "<what> was given up", once cancelled. */
enum status http__rest(const struct http *h, double seconds, const char *what, struct err *err);

/* "scheme://host:port" of an absolute URL, default port written out, small letters; false when it is none,
 * names another scheme than http and https, or carries a user name. */
bool url__origin(const char *url, char *origin, size_t n_bytes);
/* `location` as seen from `base` into out [URL_BYTES]; false when it makes no URL. */
bool url__resolve(const char *base, const char *location, char *out);
/* Without query and fragment, cut to n_bytes: what may stand in a message. */
void url__plain(const char *url, char *out, size_t n_bytes);

/* Seconds that the reply asks to wait (RateLimit, or Retry-After in seconds or as a date); < 0: it does not
 * say. */
double http__asked_pause_s(const struct http_reply *reply);

/* Fields of a reply, as json_get_* reads them; one that is missing or of another kind is ST_NET: what came is
 * not what the Hub sent, or not the Hub. */
enum status http__string(const json_t *o, const char *key, bool has_default, const char *def,
                         const char **out, struct err *err);
enum status http__int(const json_t *o, const char *key, int64_t min, int64_t max, bool has_default,
                      int64_t def, int64_t *out, struct err *err);
enum status http__bool(const json_t *o, const char *key, bool has_default, bool def, bool *out,
                       struct err *err);

#endif
