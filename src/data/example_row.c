/* One object of the data set: its bytes to text, motion and participant. */
#include "examples_internal.h"
#include "util/json.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct place { /* for messages */
    const char *path;
    int64_t row, offset;
};

__attribute__((format(printf, 3, 4))) static enum status row_error(struct err *err, const struct place *p,
                                                                   const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    for (char *c = text; *c; c++) { /* the bytes of a bad file stay one printable line */
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = '?';
    }
    return err_set(err, ST_INPUT, "\"%s\": row %lld (byte %lld): %s", p->path, (long long)p->row,
                   (long long)p->offset, text);
}

/* Python writes NaN for a missing number; such rows are read with the value null. */
static json_t *parse_python(const struct json_span *span)
{
    json_t *object = NULL;
    struct err ignored = ERR_INIT;
    if (memmem(span->data, span->n_bytes, "NaN", 3) || memmem(span->data, span->n_bytes, "Infinity", 8))
        json_read_python(&object, span->data, span->n_bytes, "row", &ignored);
    return ignored.status == ST_OK ? object : NULL;
}

static enum status parse_object(struct row_fields *f, const struct json_span *span, const struct place *p,
                                struct err *err)
{
    json_error_t error;
    f->object = json_loadb(span->data, span->n_bytes, 0, &error);
    if (f->object)
        return ST_OK;
    f->object = parse_python(span);
    if (f->object)
        return ST_OK;
    struct place at = *p;
    at.offset += error.position > 0 ? error.position : 0;
    return row_error(err, &at, "%s", error.text);
}

static enum status motion_push(struct example *out, long long code, const struct place *p, struct err *err)
{
    if (code < 0 || code > CODE_MAX)
        return row_error(err, p, "motion_tokens: %lld is not in 0..%d", code, CODE_MAX);
    if (out->n_motion == out->motion_capacity) {
        int32_t capacity = out->motion_capacity ? 2 * out->motion_capacity : 64; /* at most ROW_MAX_BYTES */
        int32_t *motion = realloc(out->motion, (size_t)capacity * sizeof *motion);
        if (!motion)
            return err_memory(err, "motion tokens", (size_t)capacity * sizeof *motion);
        out->motion = motion;
        out->motion_capacity = capacity;
    }
    out->motion[out->n_motion++] = (int32_t)code;
    return ST_OK;
}

static enum status motion_from_text(struct example *out, const char *text, const struct place *p,
                                    struct err *err)
{
    for (;;) {
        while (isspace((unsigned char)*text))
            text++;
        if (!*text)
            return ST_OK;
        const char *word = text;
        long long code = 0;
        for (; *text >= '0' && *text <= '9'; text++)
            code = code <= CODE_MAX ? 10 * code + (*text - '0') : code; /* stays too large once it is */
        if (text == word || (*text && !isspace((unsigned char)*text)))
            return row_error(err, p, "motion_tokens: \"%.20s\" is no decimal codebook id", word);
        TRY(motion_push(out, code, p, err));
    }
}

static enum status motion_from_list(struct example *out, const json_t *list, const struct place *p,
                                    struct err *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (!json_is_integer(item))
            return row_error(err, p, "motion_tokens[%zu] is no integer", i);
        TRY(motion_push(out, json_integer_value(item), p, err));
    }
    return ST_OK;
}

static enum status read_motion(struct row_fields *f, struct example *out, const struct place *p,
                               struct err *err)
{
    const json_t *motion = json_object_get(f->object, "motion_tokens");
    out->n_motion = 0;
    if (!motion)
        return row_error(err, p, "motion_tokens is missing");
    if (json_is_string(motion))
        TRY(motion_from_text(out, json_string_value(motion), p, err));
    else if (json_is_array(motion))
        TRY(motion_from_list(out, motion, p, err));
    else
        return row_error(err, p, "motion_tokens is neither a string nor a list");
    if (out->n_motion == 0)
        return row_error(err, p, "motion_tokens is empty");
    return ST_OK;
}

static enum status read_participant(struct row_fields *f, const struct place *p, struct err *err)
{
    const json_t *id = json_object_get(f->object, "participant_id");
    if (!id || json_is_null(id))
        return ST_OK;
    if (json_is_integer(id)) {
        snprintf(f->number, sizeof f->number, "%" JSON_INTEGER_FORMAT, json_integer_value(id));
        f->participant = f->number;
        return ST_OK;
    }
    if (!json_is_string(id))
        return row_error(err, p, "participant_id is neither a string nor an integer nor null");
    f->participant = json_string_value(id);
    if (json_string_length(id) > PARTICIPANT_MAX_BYTES)
        return row_error(err, p, "participant_id is longer than %d bytes", PARTICIPANT_MAX_BYTES);
    /* Its token would be <PID_NULL>, which stands for "no participant" (in Hugging Face's vocabulary too). */
    if (!strcmp(f->participant, "NULL"))
        f->participant = NULL;
    return ST_OK;
}

enum status data__row_decode(struct row_fields *f, struct example *out, const char *path, int64_t row,
                             const struct json_span *span, struct err *err)
{
    struct place p = {path, row, span->offset};
    *f = (struct row_fields){0};
    TRY(parse_object(f, span, &p, err));
    if (!json_is_object(f->object))
        return row_error(err, &p, "not an object");
    const json_t *text = json_object_get(f->object, "text_query");
    if (!text)
        return row_error(err, &p, "text_query is missing");
    if (!json_is_string(text))
        return row_error(err, &p, "text_query is no string");
    if (json_string_length(text) == 0)
        return row_error(err, &p, "text_query is empty");
    f->text = json_string_value(text);
    TRY(read_motion(f, out, &p, err));
    return read_participant(f, &p, err);
}

void data__row_release(struct row_fields *f)
{
    json_decref(f->object);
    *f = (struct row_fields){0};
}
