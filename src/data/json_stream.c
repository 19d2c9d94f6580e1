/* Finds the objects of a JSON array in a file of any size. Only brackets and quotes are looked at here;
 * whether an object is good JSON is for the parser that gets its bytes. */
#include "examples_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WINDOW_BYTES (1u << 20)

/* Moves what begins at *keep to the front of the window and reads on behind it. */
static enum status stream_refill(struct json_stream *s, size_t *keep, struct err *err)
{
    size_t kept = s->n_bytes - *keep;
    if (kept > ROW_MAX_BYTES)
        return err_set(err, ST_INPUT, "\"%s\": row %lld (byte %lld) is longer than %u MiB", s->path,
                       (long long)s->n_rows, (long long)(s->base + (int64_t)*keep), ROW_MAX_BYTES >> 20);
    memmove(s->data, s->data + *keep, kept);
    s->base += (int64_t)*keep;
    s->at -= *keep;
    s->n_bytes = kept;
    *keep = 0;
    if (s->capacity - kept < WINDOW_BYTES / 2) {
        char *data = realloc(s->data, 2 * s->capacity);
        if (!data)
            return err_memory(err, "a row of the data set", 2 * s->capacity);
        s->data = data;
        s->capacity *= 2;
    }
    ssize_t n;
    do
        n = read(s->fd, s->data + kept, s->capacity - kept);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(err, ST_ENV, "\"%s\": cannot read at byte %lld", s->path,
                         (long long)(s->base + (int64_t)kept));
    sha256_update(&s->sha, s->data + kept, (size_t)n);
    s->n_bytes += (size_t)n;
    s->end_of_file = n == 0;
    return ST_OK;
}

/* The next byte that is not white space, not taken yet; -1 at the end of the file. */
static enum status stream_peek(struct json_stream *s, int *c, struct err *err)
{
    for (;;) {
        if (s->at == s->n_bytes) {
            if (s->end_of_file) {
                *c = -1;
                return ST_OK;
            }
            size_t keep = s->at;
            TRY(stream_refill(s, &keep, err));
            continue;
        }
        *c = (unsigned char)s->data[s->at];
        if (*c != ' ' && *c != '\t' && *c != '\n' && *c != '\r')
            return ST_OK;
        s->at++;
    }
}

static bool window_begins(const struct json_stream *s, const char *bytes, size_t n)
{
    return s->n_bytes - s->at >= n && !memcmp(s->data + s->at, bytes, n);
}

/* Says what the file seems to be when it is no array. */
static enum status not_an_array(const struct json_stream *s, int c, struct err *err)
{
    if (c < 0) {
        err_set(err, ST_INPUT, "\"%s\": the file is empty", s->path);
        return err_hint(
            err, "give a JSON array of {\"text_query\", \"motion_tokens\", \"participant_id\"} objects");
    }
    if (window_begins(s, "\xef\xbb\xbf", 3) || window_begins(s, "\xff\xfe", 2) ||
        window_begins(s, "\xfe\xff", 2)) {
        err_set(err, ST_INPUT, "\"%s\": the file begins with a byte order mark", s->path);
        return err_hint(err, "save it as UTF-8 without a byte order mark");
    }
    if (c == '<') {
        err_set(err, ST_INPUT, "\"%s\": an HTML page, not JSON", s->path);
        return err_hint(err,
                        "the download gave a web page (a quota or sign-in notice): fetch the file again");
    }
    if (window_begins(s, "version https://git-lfs", 23)) {
        err_set(err, ST_INPUT, "\"%s\": a Git LFS pointer, not the file itself", s->path);
        return err_hint(err, "fetch it with: git lfs pull");
    }
    if (c == '{') {
        err_set(err, ST_INPUT, "\"%s\": a JSON object, not an array", s->path);
        return err_hint(err, "put the rows into one array: [ {...}, {...} ] (JSON Lines are not read)");
    }
    return err_set(err, ST_INPUT, "\"%s\": not a JSON array: byte %lld is 0x%02x", s->path,
                   (long long)(s->base + (int64_t)s->at), (unsigned)c);
}

enum status data__stream_open(struct json_stream *s, const char *path, struct err *err)
{
    *s = (struct json_stream){.path = path, .capacity = WINDOW_BYTES};
    sha256_init(&s->sha);
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0)
        return err_errno(err, ST_INPUT, "\"%s\": cannot open", path);
    s->data = malloc(s->capacity);
    if (!s->data)
        return err_memory(err, "a window of the data set", s->capacity);
    int c = 0;
    TRY(stream_peek(s, &c, err));
    if (c != '[')
        return not_an_array(s, c, err);
    s->at++;
    return ST_OK;
}

static enum status truncated_in_row(const struct json_stream *s, size_t start, struct err *err)
{
    err_set(err, ST_INPUT, "\"%s\": the file ends at byte %lld inside row %lld (which begins at byte %lld)",
            s->path, (long long)(s->base + (int64_t)s->n_bytes), (long long)s->n_rows,
            (long long)(s->base + (int64_t)start));
    return err_hint(err, "the file is truncated, or a quote or bracket is missing: copy or fetch it again");
}

/* Takes the object that begins here. */
static enum status stream_object(struct json_stream *s, struct json_span *span, struct err *err)
{
    size_t start = s->at;
    int depth = 0;
    bool in_string = false, escaped = false;
    do {
        if (s->at == s->n_bytes) {
            if (!s->end_of_file)
                TRY(stream_refill(s, &start, err));
            if (s->end_of_file)
                return truncated_in_row(s, start, err);
        }
        char c = s->data[s->at++];
        if (in_string) {
            if (escaped)
                escaped = false;
            else if (c == '\\')
                escaped = true;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > ROW_MAX_DEPTH)
                return err_set(err, ST_INPUT, "\"%s\": row %lld (byte %lld): nested deeper than %d levels",
                               s->path, (long long)s->n_rows, (long long)(s->base + (int64_t)s->at - 1),
                               ROW_MAX_DEPTH);
        } else if (c == '}' || c == ']') {
            depth--;
        }
    } while (depth > 0);
    span->data = s->data + start;
    span->n_bytes = s->at - start;
    span->offset = s->base + (int64_t)start;
    if (span->n_bytes > ROW_MAX_BYTES)
        return err_set(err, ST_INPUT, "\"%s\": row %lld (byte %lld) is longer than %u MiB", s->path,
                       (long long)s->n_rows, (long long)span->offset, ROW_MAX_BYTES >> 20);
    return ST_OK;
}

/* Behind the closing bracket nothing may come. */
static enum status stream_finish(struct json_stream *s, struct err *err)
{
    int c = 0;
    s->at++;
    TRY(stream_peek(s, &c, err));
    if (c >= 0)
        return err_set(err, ST_INPUT, "\"%s\": something follows the array at byte %lld", s->path,
                       (long long)(s->base + (int64_t)s->at));
    return ST_OK;
}

enum status data__stream_next(struct json_stream *s, struct json_span *span, bool *end, struct err *err)
{
    int c = 0;
    *end = false;
    TRY(stream_peek(s, &c, err));
    if (c == ']') {
        *end = true;
        return stream_finish(s, err);
    }
    if (c == ',' && s->n_rows > 0) {
        s->at++;
        TRY(stream_peek(s, &c, err));
    } else if (c >= 0 && s->n_rows > 0) {
        return err_set(err, ST_INPUT,
                       "\"%s\": expected a comma or the closing bracket after row %lld, at byte %lld",
                       s->path, (long long)s->n_rows - 1, (long long)(s->base + (int64_t)s->at));
    }
    if (c < 0) {
        err_set(err, ST_INPUT,
                "\"%s\": the file ends at byte %lld after %lld rows, without the closing bracket", s->path,
                (long long)(s->base + (int64_t)s->n_bytes), (long long)s->n_rows);
        return err_hint(err, "the file is truncated: copy or fetch it again");
    }
    if (c != '{')
        return err_set(err, ST_INPUT, "\"%s\": row %lld (byte %lld) is not an object", s->path,
                       (long long)s->n_rows, (long long)(s->base + (int64_t)s->at));
    TRY(stream_object(s, span, err));
    s->n_rows++;
    return ST_OK;
}

void data__stream_close(struct json_stream *s)
{
    if (s->fd >= 0)
        close(s->fd);
    free(s->data);
    *s = (struct json_stream){.fd = -1};
}
