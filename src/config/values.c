/* One value into its field: from text (environment, --set) or from JSON (file), checked against its row. */
#include "config_internal.h"
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Options whose field exists and of which one value alone is built so far. */
static enum status check_built(const struct options *o, const struct option_row *row, const char *name,
                               struct err *err)
{
    if (strcmp(row->key, "lora_dropout") == 0 && o->lora_dropout != 0)
        return err_set(err, ST_USAGE, "%s: lora_dropout %g is not built yet, only 0", name, o->lora_dropout);
    if (strcmp(row->key, "load_in_4bit") == 0 && o->load_in_4bit)
        return err_set(err, ST_USAGE, "%s: load_in_4bit is not built yet, only false", name);
    return ST_OK;
}

static enum status put_integer(struct options *o, const struct option_row *row, const char *name, int64_t v,
                               struct err *err)
{
    if (v < row->int_min || v > row->int_max)
        return err_set(err, ST_USAGE, "%s: %s %lld is out of range, it must be %lld to %lld", name, row->key,
                       (long long)v, (long long)row->int_min, (long long)row->int_max);
    *(int64_t *)config__field(o, row) = v;
    return ST_OK;
}

static enum status put_real(struct options *o, const struct option_row *row, const char *name, double v,
                            struct err *err)
{
    if (!(v >= row->real_min && v <= row->real_max))
        return err_set(err, ST_USAGE, "%s: %s %g is out of range, it must be %g to %.17g", name, row->key, v,
                       row->real_min, row->real_max);
    *(double *)config__field(o, row) = v;
    return ST_OK;
}

static enum status put_string(struct options *o, const struct option_row *row, const char *name,
                              const char *text, struct err *err)
{
    if (strlen(text) >= OPTION_TEXT_BYTES) {
        err_set(err, ST_USAGE, "%s: %s has %zu bytes, at most %d fit", name, row->key, strlen(text),
                OPTION_TEXT_BYTES - 1);
        return strcmp(row->key, "system_prompt")
                   ? ST_USAGE
                   : err_hint(err, "put it in a file and set system_prompt_file");
    }
    if (!*text && row->text_def[0])
        return err_set(err, ST_USAGE, "%s: %s is empty", name, row->key);
    json_t *check = json_string(text); /* refuses what is not UTF-8, and so could not be saved */
    if (!check)
        return err_set(err, ST_USAGE, "%s: %s is not valid UTF-8", name, row->key);
    json_decref(check);
    strcpy(config__field(o, row), text);
    return ST_OK;
}

static enum status put_choice(struct options *o, const struct option_row *row, const char *name,
                              const char *text, struct err *err)
{
    char shown[256] = "";
    size_t n_text = strlen(text);
    for (const char *at = row->words; *at;) {
        size_t n = strcspn(at, "|");
        bool planned = *at == '!';
        const char *word = at + planned;
        size_t n_word = n - planned;
        if (n_word == n_text && memcmp(word, text, n_word) == 0) {
            if (planned)
                return err_set(err, ST_USAGE, "%s: %s %s is not built yet", name, row->key, text);
            strcpy(config__field(o, row), text);
            return ST_OK;
        }
        size_t used = strlen(shown);
        if (!planned)
            snprintf(shown + used, sizeof shown - used, "%s%.*s", used ? ", " : "", (int)n_word, word);
        at += n + (at[n] == '|');
    }
    return err_set(err, ST_USAGE, "%s: %s '%.60s' is not one of: %s", name, row->key, text, shown);
}

static enum status put_seconds(struct options *o, const struct option_row *row, const char *name,
                               const char *text, struct err *err)
{
    double s;
    if (options_seconds(text, row->key, &s, err) != ST_OK)
        return err_where(err, "%s", name);
    if (s == 0 && row->text_def[0])
        return err_set(err, ST_USAGE, "%s: %s must be longer than 0 seconds", name, row->key);
    return put_string(o, row, name, text, err);
}

/* Decimal digits with a sign at most, the whole text. */
static bool parse_integer(const char *text, int64_t *out)
{
    const char *digits = text + (*text == '-' || *text == '+');
    if (!*digits || digits[strspn(digits, "0123456789")])
        return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

/* Decimal notation only: strtod would also read hexadecimal numbers, inf, nan and leading blanks. */
static bool parse_real(const char *text, double *out)
{
    char *end;
    if (!*text || text[strspn(text, "0123456789+-.eE")])
        return false;
    *out = strtod(text, &end);
    return end != text && !*end && isfinite(*out);
}

static bool parse_bool(const char *text, bool *out)
{
    *out = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    return *out || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

static enum status put_bytes(struct options *o, const struct option_row *row, const char *name,
                             const char *text, struct err *err)
{
    int64_t n_bytes;
    if (options_bytes(text, row->key, &n_bytes, err) != ST_OK)
        return err_where(err, "%s", name);
    if (*text && n_bytes == 0)
        return err_set(err, ST_USAGE, "%s: %s must be more than 0 bytes", name, row->key);
    return put_string(o, row, name, text, err);
}

static enum status put_by_text(struct options *o, const struct option_row *row, const char *name,
                               const char *text, struct err *err)
{
    int64_t i;
    double r;
    bool b;
    switch (row->kind) {
    case KIND_INTEGER:
        if (!parse_integer(text, &i))
            return err_set(err, ST_USAGE, "%s: %s '%.60s' is not a whole number", name, row->key, text);
        return put_integer(o, row, name, i, err);
    case KIND_REAL:
        if (!parse_real(text, &r))
            return err_set(err, ST_USAGE, "%s: %s '%.60s' is not a finite number", name, row->key, text);
        return put_real(o, row, name, r, err);
    case KIND_BOOL:
        if (!parse_bool(text, &b))
            return err_set(err, ST_USAGE, "%s: %s '%.60s' is neither true nor false", name, row->key, text);
        *(bool *)config__field(o, row) = b;
        return ST_OK;
    case KIND_CHOICE:
        return put_choice(o, row, name, text, err);
    case KIND_SECONDS:
        return put_seconds(o, row, name, text, err);
    case KIND_BYTES:
        return put_bytes(o, row, name, text, err);
    default:
        return put_string(o, row, name, text, err);
    }
}

enum status config__put_text(struct options *o, const struct option_row *row, const char *name,
                             const char *text, struct err *err)
{
    if (config__holds_token(text))
        return config__refuse_token(name, row->key, err);
    TRY(put_by_text(o, row, name, text, err));
    return check_built(o, row, name, err);
}

static enum status wrong_type(const struct option_row *row, const char *name, const char *wanted,
                              const json_t *value, struct err *err)
{
    static const char *const types[] = {
        "an object", "an array", "a text", "a whole number", "a number with a fraction",
        "true",      "false",    "null"};
    err_set(err, ST_USAGE, "%s: %s must be %s, not %s", name, row->key, wanted, types[json_typeof(value)]);
    if (json_is_string(value) && row->kind != KIND_BOOL)
        err_hint(err, "take the quotation marks away");
    return ST_USAGE;
}

/* ["a", "b"] or [0.5, 0.3] as the text with commas. */
static enum status list_text(const struct option_row *row, const char *name, const json_t *array,
                             struct buf *out, struct err *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
    {
        if (i)
            TRY(buf_puts(out, ",", err));
        if (json_is_string(item) && !strchr(json_string_value(item), ','))
            TRY(buf_puts(out, json_string_value(item), err));
        else if (json_is_number(item))
            TRY(buf_printf(out, err, "%.17g", json_number_value(item)));
        else
            return err_set(err, ST_USAGE, "%s: %s: item %zu is neither a word nor a number", name, row->key,
                           i);
    }
    return buf_puts(out, "", err);
}

static enum status put_list_json(struct options *o, const struct option_row *row, const char *name,
                                 const json_t *array, struct err *err)
{
    struct buf text = BUF_INIT;
    enum status st = list_text(row, name, array, &text, err);
    if (st == ST_OK)
        st = config__put_text(o, row, name, text.data, err);
    buf_release(&text);
    return st;
}

enum status config__put_json(struct options *o, const struct option_row *row, const char *name,
                             const json_t *value, struct err *err)
{
    char number[32];
    if (json_is_string(value) && config__holds_token(json_string_value(value)))
        return config__refuse_token(name, row->key, err);
    switch (row->kind) {
    case KIND_INTEGER:
        if (!json_is_integer(value))
            return wrong_type(row, name, "a whole number", value, err);
        return put_integer(o, row, name, json_integer_value(value), err);
    case KIND_REAL:
        if (!json_is_number(value))
            return wrong_type(row, name, "a number", value, err);
        TRY(put_real(o, row, name, json_number_value(value), err));
        return check_built(o, row, name, err);
    case KIND_BOOL:
        if (!json_is_boolean(value))
            return wrong_type(row, name, "true or false", value, err);
        *(bool *)config__field(o, row) = json_is_true(value);
        return check_built(o, row, name, err);
    case KIND_LIST:
        if (json_is_array(value))
            return put_list_json(o, row, name, value, err);
        break;
    case KIND_SECONDS:
    case KIND_BYTES:
        if (json_is_integer(value)) {
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
            return config__put_text(o, row, name, number, err);
        }
        break;
    default:
        break;
    }
    if (!json_is_string(value))
        return err_set(err, ST_USAGE, "%s: %s must be a text", name, row->key);
    return config__put_text(o, row, name, json_string_value(value), err);
}
