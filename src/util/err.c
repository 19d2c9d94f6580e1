#include "util/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Messages quote bytes from files and the network: what could steer a terminal or break the line is replaced,
 * and a UTF-8 character that the buffer cut in half is dropped. */
static void text_make_printable(char *text, size_t size)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n' || c == '\r' || c == '\t')
            text[i] = ' ';
        else if (c < 0x20 || c == 0x7f)
            text[i] = '?';
    }
    if (n + 1 < size)
        return;
    size_t start = n;
    while (start > 0 && n - start < 4 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0 || ((unsigned char)text[start - 1] & 0xc0) != 0xc0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (n - (start - 1) < want)
        text[start - 1] = '\0';
}

static void text_format(char *out, size_t size, const char *fmt, va_list args)
{
    if (vsnprintf(out, size, fmt, args) < 0)
        snprintf(out, size, "message could not be formatted: %s", fmt);
    text_make_printable(out, size);
}

enum status err_set(struct err *err, enum status status, const char *fmt, ...)
{
    if (!err)
        return status;
    if (err->status != ST_OK)
        return err->status;
    err->status = status;
    err->hint[0] = '\0';
    va_list args;
    va_start(args, fmt);
    text_format(err->what, sizeof err->what, fmt, args);
    va_end(args);
    return status;
}

enum status err_errno(struct err *err, enum status status, const char *fmt, ...)
{
    int code = errno;
    if (!err)
        return status;
    if (err->status != ST_OK)
        return err->status;
    char what[sizeof err->what];
    va_list args;
    va_start(args, fmt);
    text_format(what, sizeof what, fmt, args);
    va_end(args);
    char reason[128];
    /* The GNU strerror_r, which may answer with a constant instead of filling the buffer. */
    const char *text = strerror_r(code, reason, sizeof reason);
    return err_set(err, status, "%s: %s", what, text);
}

enum status err_hint(struct err *err, const char *fmt, ...)
{
    if (!err)
        return ST_DEFECT;
    if (err->hint[0] == '\0' && err->status != ST_OK) {
        va_list args;
        va_start(args, fmt);
        text_format(err->hint, sizeof err->hint, fmt, args);
        va_end(args);
    }
    return err->status;
}

enum status err_where(struct err *err, const char *fmt, ...)
{
    if (!err)
        return ST_DEFECT;
    if (err->status == ST_OK)
        return ST_OK;
    char where[sizeof err->what];
    va_list args;
    va_start(args, fmt);
    text_format(where, sizeof where - 2, fmt, args);
    va_end(args);
    /* The place goes in front; what no longer fits is cut off at the end of the message. */
    size_t n_where = strlen(where), n_what = strlen(err->what);
    memcpy(where + n_where, ": ", 2);
    n_where += 2;
    size_t room = sizeof err->what - 1 - n_where;
    if (n_what > room)
        n_what = room;
    memmove(err->what + n_where, err->what, n_what);
    memcpy(err->what, where, n_where);
    err->what[n_where + n_what] = '\0';
    text_make_printable(err->what, sizeof err->what);
    return err->status;
}

enum status err_memory(struct err *err, const char *what, size_t bytes)
{
    err_set(err, ST_ENV, "no memory for %s (%zu bytes)", what, bytes);
    return err_hint(err, "give the job more memory, or make max_seq_len or batch_train smaller");
}

const char *status_text(enum status status)
{
    switch (status) {
#define STATUS_CASE(name, code, text)                                                                        \
    case name:                                                                                               \
        return text;
        STATUS_LIST(STATUS_CASE)
#undef STATUS_CASE
    }
    return "unknown status";
}
