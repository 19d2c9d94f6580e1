#include "util/json.h"
#include "util/buf.h"
#include "util/file.h"

#include <string.h>

/* What people find in place of a JSON file after a failed download. */
static void hint_foreign(const char *text, size_t n_bytes, struct err *err)
{
    static const char lfs[] = "version https://git-lfs";
    while (n_bytes > 0 && (*text == ' ' || *text == '\n' || *text == '\r' || *text == '\t')) {
        text++;
        n_bytes--;
    }
    if (n_bytes == 0)
        err_hint(err, "the file is empty");
    else if (n_bytes >= sizeof lfs - 1 && memcmp(text, lfs, sizeof lfs - 1) == 0)
        err_hint(err, "this is a Git LFS pointer, not the file itself; download the file");
    else if (text[0] == '<')
        err_hint(err, "this looks like a web page; download the file again");
}

/* Places are counted as people see them: behind the byte order mark that some editors put in front. */
static enum status parse(json_t **out, const char *text, size_t n_bytes, json_error_t *at)
{
    static const char bom[] = "\xef\xbb\xbf";
    int n_skipped = n_bytes >= 3 && memcmp(text, bom, 3) == 0 ? 3 : 0;
    text = (text ? text : "") + n_skipped;
    n_bytes -= (size_t)n_skipped;
    *out = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, at);
    if (*out)
        return ST_OK;
    at->position += n_skipped;
    return json_error_code(at) == json_error_out_of_memory ? ST_ENV : ST_INPUT;
}

static enum status parse_failure(enum status status, const char *name, const json_error_t *at,
                                 const char *text, size_t n_bytes, struct err *err)
{
    if (status == ST_ENV)
        return err_memory(err, name, n_bytes);
    status = err_set(err, ST_INPUT, "\"%s\", line %d, column %d: %s", name, at->line, at->column, at->text);
    hint_foreign(text, n_bytes, err);
    return status;
}

enum status json_read_text(json_t **out, const char *text, size_t n_bytes, const char *name, struct err *err)
{
    json_error_t at;
    enum status status = parse(out, text, n_bytes, &at);
    return status == ST_OK ? ST_OK : parse_failure(status, name, &at, text, n_bytes, err);
}

enum status json_read_file(json_t **out, const char *path, size_t max_bytes, struct err *err)
{
    *out = NULL;
    struct buf text = BUF_INIT;
    enum status status = file_read(path, max_bytes, &text, err);
    if (status == ST_OK)
        status = json_read_text(out, text.data, text.n_bytes, path, err);
    buf_release(&text);
    return status;
}

/* Length of a Python constant at text, 0 if there is none. */
static size_t python_constant(const char *text, size_t n_bytes)
{
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (n_bytes >= n && memcmp(text, words[i], n) == 0)
            return n;
    }
    return 0;
}

/* Rewrites constants outside strings as null, padded to the old length where that is longer. "NaN" grows by
 * one byte; where that happened goes to `grown` as offsets (size_t) into out. */
static enum status python_rewrite(struct buf *out, struct buf *grown, const char *text, size_t n_bytes,
                                  struct err *err)
{
    bool in_string = false;
    size_t kept = 0; /* up to here the text is in out */
    for (size_t i = 0; i < n_bytes;) {
        char c = text[i];
        size_t n = 0;
        if (in_string && c == '\\') {
            i += 2;
            continue;
        }
        if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == 'N' || c == 'I' || c == '-'))
            n = python_constant(text + i, n_bytes - i);
        if (n == 0) {
            i++;
            continue;
        }
        TRY(buf_append(out, text + kept, i - kept, err));
        if (n < 4)
            TRY(buf_append(grown, &out->n_bytes, sizeof out->n_bytes, err));
        TRY(buf_append(out, "null     ", n < 4 ? 4 : n, err));
        i += n;
        kept = i;
    }
    return buf_append(out, text + kept, n_bytes - kept, err);
}

/* Takes what the line grew by off the column, so that the message speaks of the text as it was. */
static void python_column(json_error_t *at, const struct buf *plain, const struct buf *grown)
{
    size_t end = at->position < 0 ? 0 : (size_t)at->position;
    if (end > plain->n_bytes)
        end = plain->n_bytes;
    size_t start = end;
    while (start > 0 && plain->data[start - 1] != '\n')
        start--;
    for (size_t i = 0; i + sizeof(size_t) <= grown->n_bytes; i += sizeof(size_t)) {
        size_t place;
        memcpy(&place, grown->data + i, sizeof place);
        if (place >= start && place < end)
            at->column--;
    }
}

enum status json_read_python(json_t **out, const char *text, size_t n_bytes, const char *name,
                             struct err *err)
{
    *out = NULL;
    struct buf plain = BUF_INIT, grown = BUF_INIT;
    enum status status = python_rewrite(&plain, &grown, text, n_bytes, err);
    if (status == ST_OK) {
        json_error_t at;
        status = parse(out, plain.data, plain.n_bytes, &at);
        if (status != ST_OK) {
            python_column(&at, &plain, &grown);
            status = parse_failure(status, name, &at, text, n_bytes, err);
        }
    }
    buf_release(&plain);
    buf_release(&grown);
    return status;
}

static const char *type_text(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    default:
        return "null";
    }
}

/* *value is NULL when the default holds. */
static enum status field_get(const json_t *o, const char *name, const char *key, bool has_default,
                             const json_t **value, struct err *err)
{
    if (!json_is_object(o))
        return err_set(err, ST_INPUT, "\"%s\": an object with the field \"%s\" is expected, not %s", name,
                       key, o ? type_text(o) : "nothing");
    *value = json_object_get(o, key);
    if (json_is_null(*value))
        *value = NULL;
    if (!*value && !has_default)
        return err_set(err, ST_INPUT, "\"%s\": the field \"%s\" is missing", name, key);
    return ST_OK;
}

static enum status field_type(const char *name, const char *key, const char *wanted, const json_t *value,
                              struct err *err)
{
    return err_set(err, ST_INPUT, "\"%s\": the field \"%s\" must be %s, not %s", name, key, wanted,
                   type_text(value));
}

enum status json_get_int(const json_t *o, const char *name, const char *key, int64_t min, int64_t max,
                         bool has_default, int64_t def, int64_t *out, struct err *err)
{
    const json_t *value = NULL;
    TRY(field_get(o, name, key, has_default, &value, err));
    if (!value) {
        *out = def;
        return ST_OK;
    }
    if (!json_is_integer(value))
        return field_type(name, key, "an integer", value, err);
    int64_t x = json_integer_value(value);
    if (x < min || x > max)
        return err_set(err, ST_INPUT, "\"%s\": the field \"%s\" is %lld, allowed are %lld to %lld", name, key,
                       (long long)x, (long long)min, (long long)max);
    *out = x;
    return ST_OK;
}

enum status json_get_double(const json_t *o, const char *name, const char *key, bool has_default, double def,
                            double *out, struct err *err)
{
    const json_t *value = NULL;
    TRY(field_get(o, name, key, has_default, &value, err));
    if (value && !json_is_number(value))
        return field_type(name, key, "a number", value, err);
    *out = value ? json_number_value(value) : def;
    return ST_OK;
}

enum status json_get_bool(const json_t *o, const char *name, const char *key, bool has_default, bool def,
                          bool *out, struct err *err)
{
    const json_t *value = NULL;
    TRY(field_get(o, name, key, has_default, &value, err));
    if (value && !json_is_boolean(value))
        return field_type(name, key, "true or false", value, err);
    *out = value ? json_is_true(value) : def;
    return ST_OK;
}

enum status json_get_string(const json_t *o, const char *name, const char *key, bool has_default,
                            const char *def, const char **out, struct err *err)
{
    const json_t *value = NULL;
    TRY(field_get(o, name, key, has_default, &value, err));
    if (value && !json_is_string(value))
        return field_type(name, key, "a string", value, err);
    *out = value ? json_string_value(value) : def;
    return ST_OK;
}

static int dump_to_writer(const char *text, size_t n_bytes, void *writer)
{
    return fwrite(text, 1, n_bytes, ((struct file_writer *)writer)->f) == n_bytes ? 0 : -1;
}

enum status json_write_file(const char *path, const json_t *value, bool sort_keys, struct err *err)
{
    struct file_writer w;
    TRY(file_writer_open(&w, path, err));
    size_t flags = JSON_INDENT(2) | JSON_ENCODE_ANY | (sort_keys ? JSON_SORT_KEYS : 0);
    enum status status = ST_OK;
    if (json_dump_callback(value, dump_to_writer, &w, flags) != 0 && !ferror(w.f))
        status = err_set(err, ST_DEFECT, "cannot write \"%s\": the value cannot be put into JSON", path);
    if (status == ST_OK)
        status = file_writer_put(&w, "\n", 1, err);
    if (status == ST_OK)
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return status;
}
