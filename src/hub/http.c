/* The client: opening it, and repeating what a fault of the line or a busy server spoiled. */
#include "http_internal.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define LONGEST_PAUSE_S 310 /* the Hub counts requests in windows of 300 s */

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void open_library(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

double http__pause_s(void)
{
    const char *text = getenv("SMGPT_HUB_PAUSE_S");
    double s = text ? strtod(text, NULL) : 0;
    return s >= 0.001 && s <= 60 ? s : 1;
}

static enum status set_endpoint(struct http *h, const char *endpoint, struct err *err)
{
    if (!endpoint || !*endpoint)
        endpoint = getenv("HF_ENDPOINT");
    if (!endpoint || !*endpoint)
        endpoint = PUBLIC_ENDPOINT;
    size_t n = strlen(endpoint);
    while (n > 0 && endpoint[n - 1] == '/')
        n--;
    int written = snprintf(h->endpoint, sizeof h->endpoint, "%.*s", (int)n, endpoint);
    if (written < 0 || (size_t)written >= sizeof h->endpoint || strpbrk(h->endpoint, "?# ") ||
        !url__origin(h->endpoint, h->origin, sizeof h->origin)) {
        err_set(err, ST_USAGE, "the endpoint of the Hub is no URL of http or https");
        return err_hint(err, "HF_ENDPOINT=https://huggingface.co");
    }
    return ST_OK;
}

enum status http_open(struct http **out, const struct http_config *config, struct err *err)
{
    struct http *h = calloc(1, sizeof *h);
    *out = NULL;
    if (!h)
        return err_memory(err, "the Hub's client", sizeof *h);
    pthread_once(&library_once, open_library);
    h->connect_s = config->connect_s > 0 ? config->connect_s : 15;
    h->stall_s = config->stall_s > 0 ? config->stall_s : 30;
    h->pause_s = config->pause_s > 0 ? config->pause_s : http__pause_s();
    h->cancel = config->cancel;
    h->stoppable = config->stoppable;
    if (config->token)
        h->token = *config->token;
    h->curl = curl_easy_init();
    enum status st = h->curl ? set_endpoint(h, config->endpoint, err) : err_memory(err, "libcurl", 0);
    if (st != ST_OK) {
        http_close(h);
        return st;
    }
    *out = h;
    return ST_OK;
}

void http_close(struct http *h)
{
    if (!h)
        return;
    if (h->curl)
        curl_easy_cleanup(h->curl);
    hub_token_forget(&h->token);
    free(h);
}

const char *http_endpoint(const struct http *h)
{
    return h->endpoint;
}

bool http_has_token(const struct http *h)
{
    return h->token.text[0] != 0;
}

bool http__cancelled(const struct http *h)
{
    return (h->cancel && atomic_load(h->cancel)) || (h->stoppable && stop_requested());
}

enum status http__rest(const struct http *h, double seconds, const char *what, struct err *err)
{
    double end = clock_s() + seconds;
    for (double left = seconds; left > 0; left = end - clock_s()) {
        if (http__cancelled(h))
            return err_set(err, ST_STOPPED, "%s was given up", what);
        clock_sleep_s(left < 0.1 ? left : 0.1);
    }
    return ST_OK;
}

void http_reply_release(struct http_reply *reply)
{
    buf_release(&reply->headers);
    buf_release(&reply->body);
    memset(reply, 0, sizeof *reply);
}

/* Between 3/4 and 5/4 of it, so that many who failed at once do not come back at once. */
static double spread(double s)
{
    unsigned char byte = 128;
    if (getrandom(&byte, 1, GRND_NONBLOCK) != 1)
        byte = 128;
    return s * (0.75 + byte / 510.0);
}

static enum status pause_before(struct http *h, int n_repeats, double asked_s, struct err *err)
{
    int doublings = n_repeats < 3 ? n_repeats : 3;
    double s = asked_s >= 0 ? asked_s + spread(h->pause_s) : spread(h->pause_s * (1 << doublings));
    return http__rest(h, s < LONGEST_PAUSE_S ? s : LONGEST_PAUSE_S, "waiting for the Hub", err);
}

static bool is_json(const struct http_reply *reply)
{
    json_t *value = NULL;
    bool good = json_read_text(&value, reply->body.data ? reply->body.data : "", reply->body.n_bytes, "reply",
                               NULL) == ST_OK;
    json_decref(value);
    return good;
}

/* Whether the same request may fare better in a moment. */
static bool is_passing(const struct http_request *request, const struct http_reply *reply, enum status st)
{
    int s = reply->status;
    if (st != ST_OK)
        return st == ST_NET;
    if (s == 408 || s == 429 || s == 500 || s == 502 || s == 503 || s == 504)
        return true;
    return request->expect_json && s >= 200 && s < 300 && !is_json(reply);
}

enum status http_send(struct http *h, const struct http_request *request, struct http_reply *reply,
                      struct err *err)
{
    memset(reply, 0, sizeof *reply);
    h->refused = false;
    for (;;) {
        struct err fault = ERR_INIT;
        enum status st = http__once(h, request, reply, &fault);
        if (!is_passing(request, reply, st) || reply->n_repeats >= request->repeats) {
            h->silent = st == ST_NET;
            if (st != ST_OK) {
                err_set(err, st, "%s", fault.what);
                if (fault.hint[0])
                    err_hint(err, "%s", fault.hint);
            }
            return st;
        }
        double asked_s = st == ST_OK && reply->status == 429 ? http__asked_pause_s(reply) : -1;
        if (st == ST_OK && reply->status == 503)
            asked_s = http__asked_pause_s(reply);
        TRY(pause_before(h, reply->n_repeats, asked_s, err));
        reply->n_repeats++;
    }
}
