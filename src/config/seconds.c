/* Lengths of time as people write them in job scripts. */
#include "config_internal.h"
#include <ctype.h>
#include <string.h>

/* A hundred years: above that it is a slip, and sums with clocks stay exact. */
#define MAX_SECONDS 3.2e9

static enum status malformed(const char *text, const char *key, struct err *err)
{
    err_set(err, ST_USAGE, "%s '%.60s' is not a length of time", key, text);
    return err_hint(err, "write it as 90, 90s, 10m or 11h40m");
}

enum status options_seconds(const char *text, const char *key, double *seconds, struct err *err)
{
    static const char units[] = "hms";
    static const double unit_s[] = {3600, 60, 1};
    double sum = 0;
    size_t next = 0; /* units before this one are used up */
    for (const char *at = text; *at;) {
        if (!isdigit((unsigned char)*at))
            return malformed(text, key, err);
        double n = 0;
        for (; isdigit((unsigned char)*at) && n < MAX_SECONDS; at++)
            n = n * 10 + (*at - '0');
        if (!*at && next == 0) { /* a number alone is seconds; behind a unit it could be meant as anything */
            sum = n;
            break;
        }
        const char *unit = *at ? strchr(units, *at) : NULL;
        if (!unit || (size_t)(unit - units) < next)
            return n >= MAX_SECONDS ? err_set(err, ST_USAGE, "%s '%.60s' is too long", key, text)
                                    : malformed(text, key, err);
        sum += n * unit_s[unit - units];
        next = (size_t)(unit - units) + 1;
        at++;
    }
    if (sum > MAX_SECONDS)
        return err_set(err, ST_USAGE, "%s '%.60s' is too long", key, text);
    *seconds = sum;
    return ST_OK;
}
