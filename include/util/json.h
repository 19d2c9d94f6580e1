/* jansson with our errors: every message names the file and the path of the field. */
#ifndef SMGPT_UTIL_JSON_H
#define SMGPT_UTIL_JSON_H

#include "util/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* New reference. Duplicate keys are refused. ST_INPUT with file, line and column. max_bytes guards memory. */
enum status json_read_file(json_t **out, const char *path, size_t max_bytes, struct err *err);
enum status json_read_text(json_t **out, const char *text, size_t n_bytes, const char *name, struct err *err);
/* As json_read_text, and Python's NaN, Infinity and -Infinity outside strings are read as null. */
enum status json_read_python(json_t **out, const char *text, size_t n_bytes, const char *name,
                             struct err *err);

/* Fields of an object. `name` is the file for messages. A missing or null field gives the default when
 * has_default, else ST_INPUT; a field of another type or out of [min, max] is always ST_INPUT. */
enum status json_get_int(const json_t *o, const char *name, const char *key, int64_t min, int64_t max,
                         bool has_default, int64_t def, int64_t *out, struct err *err);
enum status json_get_double(const json_t *o, const char *name, const char *key, bool has_default, double def,
                            double *out, struct err *err);
enum status json_get_bool(const json_t *o, const char *name, const char *key, bool has_default, bool def,
                          bool *out, struct err *err);
/* Borrowed from the object. */
enum status json_get_string(const json_t *o, const char *name, const char *key, bool has_default,
                            const char *def, const char **out, struct err *err);
/* Dumps with indent 2 (sort_keys on request) and a line feed, written beside and renamed. */
enum status json_write_file(const char *path, const json_t *value, bool sort_keys, struct err *err);

#endif
