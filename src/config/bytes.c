/* Amounts of memory as people write them in job scripts. */
#include "config_internal.h"
#include <ctype.h>
#include <string.h>

static enum status malformed(const char *text, const char *key, struct err *err)
{
    err_set(err, ST_USAGE, "%s '%.60s' is not a number of bytes", key, text);
    return err_hint(err, "write it as 24G, 900M or 25769803776");
}

enum status options_bytes(const char *text, const char *key, int64_t *n_bytes, struct err *err)
{
    static const char units[] = "KMGT";
    int64_t n = 0, unit = 1;
    const char *at = text;
    if (*text && !isdigit((unsigned char)*text))
        return malformed(text, key, err);
    for (; isdigit((unsigned char)*at); at++) {
        if (n > (INT64_MAX - 9) / 10)
            return err_set(err, ST_USAGE, "%s '%.60s' is too large", key, text);
        n = n * 10 + (*at - '0');
    }
    const char *found = *at ? strchr(units, *at) : NULL;
    if (found) {
        unit = (int64_t)1 << (10 * (found - units + 1));
        at += strcmp(at + 1, "iB") == 0 ? 3 : 1;
    }
    if (*at)
        return malformed(text, key, err);
    if (n > INT64_MAX / unit)
        return err_set(err, ST_USAGE, "%s '%.60s' is too large", key, text);
    *n_bytes = n * unit;
    return ST_OK;
}
