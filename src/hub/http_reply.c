/* What a reply says: headers, pauses asked for, errors in words. */
#include "http_internal.h"
#include "util/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

const char *http_header(const struct http_reply *reply, const char *name)
{
    const struct buf *b = &reply->headers;
    size_t length = strlen(name);
    for (size_t at = 0; at < b->n_bytes; at += strlen(b->data + at) + 1) {
        const char *line = b->data + at;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            return line + strspn(line, " \t");
        }
    }
    return NULL;
}

/* `RateLimit: "api";r=0;t=37` says how many requests are left and when the window ends; `Retry-After: 37` is
 * seconds, and proxies send dates. */
double http__asked_pause_s(const struct http_reply *reply)
{
    const char *limit = http_header(reply, "ratelimit"), *after = http_header(reply, "retry-after");
    char *end;
    double s;
    if (limit && strstr(limit, "r=0") && strstr(limit, "t=")) {
        s = strtod(strstr(limit, "t=") + 2, &end);
        if (s >= 0 && s < 1e6)
            return s;
    }
    if (after && isdigit((unsigned char)*after)) {
        s = strtod(after, &end);
        if (s >= 0 && s < 1e6)
            return s;
    } else if (after) {
        time_t date = curl_getdate(after, NULL), now = time(NULL);
        if (date != -1)
            return date > now ? (double)(date - now) : 0;
    }
    return -1;
}

/* The first words of the error that a body of JSON holds, else of a short plain body. Borrowed from `json` or
 * the reply. */
static const char *body_words(const struct http_reply *reply, json_t **json)
{
    json_t *e = NULL;
    const char *text = reply->body.data ? reply->body.data : "";
    if (json_read_text(json, text, reply->body.n_bytes, "reply", NULL) == ST_OK) {
        e = json_object_get(*json, "error");
        if (json_is_array(e))
            e = json_array_get(e, 0);
        if (!e)
            e = json_object_get(json_array_get(json_object_get(*json, "errors"), 0), "message");
        return json_is_string(e) ? json_string_value(e) : "";
    }
    while (isspace((unsigned char)*text))
        text++;
    return *text == '<' ? "an HTML page" : text;
}

/* One printable line of at most n_bytes - 1; the token, should the server echo it, is masked. */
static void print_words(const struct http *h, const char *words, char *out, size_t n_bytes)
{
    size_t length = strlen(h->token.text), n = 0;
    for (const char *c = words; *c && n + 4 < n_bytes;) {
        if (length > 0 && strncmp(c, h->token.text, length) == 0) {
            n += (size_t)snprintf(out + n, n_bytes - n, "***");
            c += length;
        } else {
            out[n++] = (unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c;
            c++;
        }
    }
    out[n] = 0;
}

static void add_hint(const struct http *h, const struct http_reply *reply, struct err *err)
{
    const char *code = http_header(reply, "x-error-code");
    bool gated = code && strcmp(code, "GatedRepo") == 0;
    if (gated)
        err_hint(
            err,
            "the owner asks for agreement: open the repository's page, accept, and use that account's token");
    else if (reply->status == 401)
        err_hint(err,
                 h->token.text[0]
                     ? "the token from %s is not valid (any more), or the repository is not there or not "
                       "yours to see"
                     : "no token is set%.0s: HF_TOKEN=hf_...",
                 h->token.source);
    else if (reply->status == 403)
        err_hint(err, "the token may not do this: it needs write access to this owner's repositories");
    else if (reply->status == 404)
        err_hint(
            err,
            "the name may be misspelt, or the repository private: then a token is needed that may see it");
    else if (reply->status == 429)
        err_hint(err, "too many requests for now; what is waiting is tried again later");
}

bool http_refused(const struct http *h)
{
    return h->refused;
}

enum status http_check(struct http *h, const struct http_reply *reply, const char *what, struct err *err)
{
    char words[300];
    json_t *json = NULL;
    h->refused = reply->status >= 401 && reply->status <= 403;
    if (reply->status >= 200 && reply->status < 300)
        return ST_OK;
    const char *said = http_header(reply, "x-error-message");
    print_words(h, said && *said ? said : body_words(reply, &json), words, sizeof words);
    json_decref(json);
    err_set(err, ST_NET, "%s: the Hub says %d%s%s", what, reply->status, words[0] ? ": " : "", words);
    add_hint(h, reply, err);
    return ST_NET;
}

enum status http_json(struct http *h, const struct http_reply *reply, const char *what, json_t **out,
                      struct err *err)
{
    struct err cause = ERR_INIT;
    const char *text = reply->body.data ? reply->body.data : "";
    *out = NULL;
    TRY(http_check(h, reply, what, err));
    if (json_read_text(out, text, reply->body.n_bytes, "reply", &cause) == ST_OK)
        return ST_OK;
    if (text[strspn(text, " \t\r\n")] == '<') {
        err_set(err, ST_NET, "%s: an HTML page came instead of JSON", what);
        return err_hint(err, "a proxy or a login page of the network stands between here and the Hub");
    }
    return err_set(err, ST_NET, "%s: %s", what, cause.what);
}

#define REPLY "the Hub's reply"

static enum status as_net(enum status st, const struct err *own, struct err *err)
{
    return st == ST_OK ? ST_OK : err_set(err, st == ST_INPUT ? ST_NET : st, "%s", own->what);
}

enum status http__string(const json_t *o, const char *key, bool has_default, const char *def,
                         const char **out, struct err *err)
{
    struct err own = ERR_INIT;
    return as_net(json_get_string(o, REPLY, key, has_default, def, out, &own), &own, err);
}

enum status http__int(const json_t *o, const char *key, int64_t min, int64_t max, bool has_default,
                      int64_t def, int64_t *out, struct err *err)
{
    struct err own = ERR_INIT;
    return as_net(json_get_int(o, REPLY, key, min, max, has_default, def, out, &own), &own, err);
}

enum status http__bool(const json_t *o, const char *key, bool has_default, bool def, bool *out,
                       struct err *err)
{
    struct err own = ERR_INIT;
    return as_net(json_get_bool(o, REPLY, key, has_default, def, out, &own), &own, err);
}
