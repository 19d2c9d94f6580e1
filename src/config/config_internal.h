/* The option rows as data, shared by the files of this room. */
#ifndef SMGPT_CONFIG_INTERNAL_H
#define SMGPT_CONFIG_INTERNAL_H

#include "config/options.h"

enum option_kind {
    KIND_TEXT,
    KIND_PLACE,
    KIND_LIST,
    KIND_INTEGER,
    KIND_REAL,
    KIND_BOOL,
    KIND_CHOICE,
    KIND_SECONDS,
    KIND_BYTES
};

struct option_row {
    const char *key, *env; /* env "" if there is no variable */
    enum option_kind kind;
    bool curve;
    size_t offset;        /* of the field in struct options */
    const char *text_def; /* text kinds */
    const char *words;    /* KIND_CHOICE */
    int64_t int_def, int_min, int_max;
    double real_def, real_min, real_max;
    bool bool_def;
    const char *help;
};

/* Defined in table.c; config__n_rows of them. */
extern const struct option_row config__rows[];
extern const size_t config__n_rows;

/* The row of a key, or NULL. */
const struct option_row *config__find(const char *key);
/* The error for a key without a row. name: file or "--set". */
enum status config__unknown(const char *name, const char *key, struct err *err);

/* True for a text that holds an access token of the Hub. */
bool config__holds_token(const char *text);
/* Refuses such a text without repeating it; key may be NULL when the key itself is the token. */
enum status config__refuse_token(const char *name, const char *key, struct err *err);

/* Store a value in its field, checked. name: file, variable or "--set", for messages. */
enum status config__put_text(struct options *o, const struct option_row *row, const char *name,
                             const char *text, struct err *err);
enum status config__put_json(struct options *o, const struct option_row *row, const char *name,
                             const json_t *value, struct err *err);

static inline void *config__field(struct options *o, const struct option_row *row)
{
    return (char *)o + row->offset;
}

static inline const void *config__field_const(const struct options *o, const struct option_row *row)
{
    return (const char *)o + row->offset;
}

#endif
