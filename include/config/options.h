/* The options: one row each (options.def) gives the JSON key, environment variable, --set, range check, help
 * text and saved file. Later wins: built-in, config file, environment, command line. */
#ifndef SMGPT_CONFIG_OPTIONS_H
#define SMGPT_CONFIG_OPTIONS_H

#include "util/buf.h"
#include "util/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Rows of options.def:
 *   TEXT(key, env, default, help)            char key[1024]
 *   INTEGER(key, env, default, min, max, help)  int64_t key
 *   REAL(key, env, default, min, max, help)     double key
 *   BOOL(key, env, default, help)               bool key
 *   CHOICE(key, env, default, "a|b|c", help)    char key[1024], one of the words
 *   SECONDS(key, env, default, help)            char key[1024] like 10m, 11h40m, 90s; options_seconds reads
 * it PLANNED(key, env, help)                     known, refused by name as not built yet
 */
struct options {
#define TEXT(key, env, def, help)              char key[1024];
#define INTEGER(key, env, def, min, max, help) int64_t key;
#define REAL(key, env, def, min, max, help)    double key;
#define BOOL(key, env, def, help)              bool key;
#define CHOICE(key, env, def, words, help)     char key[1024];
#define SECONDS(key, env, def, help)           char key[1024];
#define PLANNED(key, env, help)
#include "config/options.def"
};

void options_default(struct options *o);
/* A JSON object of keys. Unknown keys are ST_USAGE and name the nearest key; a key that looks like a token is
 * refused with the reason. */
enum status options_read_file(struct options *o, const char *path, struct err *err);
enum status options_read_environment(struct options *o, struct err *err);
/* "key=value" as given to --set. */
enum status options_set(struct options *o, const char *assignment, struct err *err);
/* Fills in what depends on other options: {work_dir} and {data_dir} in paths. Call once, last. */
enum status options_finish(struct options *o, struct err *err);
/* The effective values, keys in table order. New reference. */
json_t *options_json(const struct options *o);
/* Only those that change the training curve (for the hash in smgpt_state.json). New reference. */
json_t *options_curve_json(const struct options *o);
/* Help lines of all options: key, environment, default, text. */
enum status options_help(struct buf *out, struct err *err);
/* Reads 90, 90s, 10m, 11h40m; ST_USAGE else. Empty text: 0. */
enum status options_seconds(const char *text, const char *key, double *seconds, struct err *err);

#endif
