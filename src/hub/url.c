/* URLs: taking them apart, and writing parts of them. */
#include "http_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

bool url__origin(const char *url, char *origin, size_t n_bytes)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL;
    bool good = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_OK &&
                (strcmp(scheme, "https") == 0 || strcmp(scheme, "http") == 0);
    if (good) {
        int n = snprintf(origin, n_bytes, "%s://%s:%s", scheme, host, port);
        good = n > 0 && (size_t)n < n_bytes;
        for (char *c = origin; good && *c; c++)
            *c = (char)tolower((unsigned char)*c);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(user);
    curl_url_cleanup(u);
    return good;
}

bool url__resolve(const char *base, const char *location, char *out)
{
    CURLU *u = curl_url();
    char *whole = NULL;
    bool good = u && curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK &&
                curl_url_set(u, CURLUPART_URL, location, CURLU_URLENCODE) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_URL, &whole, 0) == CURLUE_OK && strlen(whole) < URL_BYTES;
    if (good)
        strcpy(out, whole);
    curl_free(whole);
    curl_url_cleanup(u);
    return good;
}

void url__plain(const char *url, char *out, size_t n_bytes)
{
    snprintf(out, n_bytes, "%.*s", (int)strcspn(url, "?#"), url);
}

enum status url_encode(struct buf *out, const char *text, bool keep_slash, struct err *err)
{
    for (const char *c = text; *c; c++) {
        unsigned char byte = (unsigned char)*c;
        bool plain = byte < 0x80 && (isalnum(byte) || strchr("-._~", byte) || (keep_slash && byte == '/'));
        if (plain)
            TRY(buf_append(out, c, 1, err));
        else
            TRY(buf_printf(out, err, "%%%02X", byte));
    }
    return ST_OK;
}
