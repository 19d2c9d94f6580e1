/* options.def as an array, and the search in it. */
#include "config/nearest.h"
#include "config_internal.h"
#include <ctype.h>
#include <string.h>

#define CURVE true
#define PLAIN false

#define ROW(k, e, c, type)                                                                                   \
    .key = #k, .env = e, .kind = type, .curve = c, .offset = offsetof(struct options, k)

const struct option_row config__rows[] = {
#define TEXT(k, e, c, d, h)      {ROW(k, e, c, KIND_TEXT), .text_def = d, .help = h},
#define PLACE(k, e, c, d, h)     {ROW(k, e, c, KIND_PLACE), .text_def = d, .help = h},
#define LIST(k, e, c, d, h)      {ROW(k, e, c, KIND_LIST), .text_def = d, .help = h},
#define SECONDS(k, e, c, d, h)   {ROW(k, e, c, KIND_SECONDS), .text_def = d, .help = h},
#define BYTES(k, e, c, d, h)     {ROW(k, e, c, KIND_BYTES), .text_def = d, .help = h},
#define BOOL(k, e, c, d, h)      {ROW(k, e, c, KIND_BOOL), .bool_def = d, .help = h},
#define CHOICE(k, e, c, d, w, h) {ROW(k, e, c, KIND_CHOICE), .text_def = d, .words = w, .help = h},
#define INTEGER(k, e, c, d, lo, hi, h)                                                                       \
    {ROW(k, e, c, KIND_INTEGER), .int_def = d, .int_min = lo, .int_max = hi, .help = h},
#define REAL(k, e, c, d, lo, hi, h)                                                                          \
    {ROW(k, e, c, KIND_REAL), .real_def = d, .real_min = lo, .real_max = hi, .help = h},
#include "config/options.def"
};

const size_t config__n_rows = sizeof config__rows / sizeof *config__rows;

const struct option_row *config__find(const char *key)
{
    for (size_t i = 0; i < config__n_rows; i++)
        if (strcmp(config__rows[i].key, key) == 0)
            return &config__rows[i];
    return NULL;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

/* The key under which people write a token; a mistyped space_tokens is none. */
static bool names_token(const char *key, const char *nearest)
{
    static const char *const ends[] = {"token", "api_key", "apikey", "secret", "password"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(key, ends[i]))
            return word_distance(key, nearest) > 2;
    return false;
}

enum status config__unknown(const char *name, const char *key, struct err *err)
{
    const char *keys[sizeof config__rows / sizeof *config__rows];
    for (size_t i = 0; i < config__n_rows; i++)
        keys[i] = config__rows[i].key;
    const char *nearest = keys[word_nearest(key, keys, config__n_rows)];
    if (config__holds_token(key))
        return config__refuse_token(name, NULL, err);
    if (names_token(key, nearest)) {
        err_set(
            err, ST_USAGE,
            "%s: '%.60s' is refused: an access token is never an option, it would be saved with the options",
            name, key);
        return err_hint(err, "give it in the variable HF_TOKEN");
    }
    err_set(err, ST_USAGE, "%s: unknown option '%.60s', the nearest is '%s'", name, key, nearest);
    return err_hint(err, "`smgpt-dist help options` lists all");
}

/* Tokens of the Hub are "hf_" and 30 or more letters and digits; 20 leaves room for other lengths. */
bool config__holds_token(const char *text)
{
    for (const char *at = strstr(text, "hf_"); at; at = strstr(at + 1, "hf_")) {
        if (at > text && isalnum((unsigned char)at[-1]))
            continue;
        size_t n = 0;
        while (isalnum((unsigned char)at[3 + n]))
            n++;
        if (n >= 20)
            return true;
    }
    return false;
}

enum status config__refuse_token(const char *name, const char *key, struct err *err)
{
    err_set(err, ST_USAGE,
            "%s%s%s: the value looks like an access token (hf_...); options are printed and saved, so it is "
            "refused",
            name, key ? ": " : "", key ? key : "");
    return err_hint(err, "give the token in the variable HF_TOKEN, and take it out of where it stands now");
}
