/* The options: one row each (options.def) gives the JSON key, environment variable, --set, range check, help
 * text and saved file. Later wins: built-in, config file, environment, command line. */
#ifndef SMGPT_CONFIG_OPTIONS_H
#define SMGPT_CONFIG_OPTIONS_H

#include "util/buf.h"
#include "util/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Bytes of a text option, with the NUL behind it. */
#define OPTION_TEXT_BYTES 1024

/* Rows of options.def. `curve` is CURVE for options that change what is learned, PLAIN for the rest.
 *   TEXT(key, env, curve, default, help)               char key[OPTION_TEXT_BYTES]
 *   PLACE(key, env, curve, default, help)              the same; {work_dir} and {data_dir} are filled in
 *   LIST(key, env, curve, default, help)               the same; words or numbers with commas between, JSON
 * takes an array too INTEGER(key, env, curve, default, min, max, help)  int64_t key REAL(key, env, curve,
 * default, min, max, help)     double key BOOL(key, env, curve, default, help)               bool key
 *   CHOICE(key, env, curve, default, "a|b|!c", help)   char key[OPTION_TEXT_BYTES], one of the words; "!"
 * marks a word that is known and refused as not built yet SECONDS(key, env, curve, default, help) char
 * key[OPTION_TEXT_BYTES] like 10m, 11h40m, 90s; options_seconds reads it BYTES(key, env, curve, default,
 * help) the same, like 900M or 24G; options_bytes reads it
 */
struct options {
#define TEXT(key, env, curve, def, help)              char key[OPTION_TEXT_BYTES];
#define PLACE(key, env, curve, def, help)             char key[OPTION_TEXT_BYTES];
#define LIST(key, env, curve, def, help)              char key[OPTION_TEXT_BYTES];
#define INTEGER(key, env, curve, def, min, max, help) int64_t key;
#define REAL(key, env, curve, def, min, max, help)    double key;
#define BOOL(key, env, curve, def, help)              bool key;
#define CHOICE(key, env, curve, def, words, help)     char key[OPTION_TEXT_BYTES];
#define SECONDS(key, env, curve, def, help)           char key[OPTION_TEXT_BYTES];
#define BYTES(key, env, curve, def, help)             char key[OPTION_TEXT_BYTES];
#include "config/options.def"
};

/* All failures below are ST_USAGE (ST_ENV for memory). A message names where the value came from (file,
 * variable or --set) and the key; a value that looks like a token is never repeated. */

void options_default(struct options *o);
/* A JSON object of keys. Unknown keys name the nearest key; a key or value that looks like a token is refused
 * with the reason; types are checked (a number in quotes is no number). */
enum status options_read_file(struct options *o, const char *path, struct err *err);
/* A variable that is set to an empty text counts as not set. Of OMP_NUM_THREADS, a list by OpenMP's rules,
 * the first number counts. */
enum status options_read_environment(struct options *o, struct err *err);
/* "key=value" as given to --set. */
enum status options_set(struct options *o, const char *assignment, struct err *err);
/* One option from text; name says where it came from ("--temperature") and leads the message. */
enum status options_put(struct options *o, const char *name, const char *key, const char *value,
                        struct err *err);
/* Fills in what depends on other options ({work_dir} and {data_dir} in paths) and checks options against each
 * other. Call once, last. */
enum status options_finish(struct options *o, struct err *err);
/* The effective values, keys in table order; options_read_file reads them back to the same. New reference. */
json_t *options_json(const struct options *o);
/* Only those that change the training curve (for the hash in smgpt_state.json). New reference. */
json_t *options_curve_json(const struct options *o);
/* Help lines of all options: key, environment, default, range, text. */
enum status options_help(struct buf *out, struct err *err);
/* Reads 90, 90s, 10m, 11h40m (hours, minutes, seconds in this order, each at most once). Empty text: 0. key
 * is the name in the message. */
enum status options_seconds(const char *text, const char *key, double *seconds, struct err *err);
/* Reads 4096, 900K, 900M, 24G, 1T (powers of 1024; MiB for M and so on). Empty text: 0. */
enum status options_bytes(const char *text, const char *key, int64_t *n_bytes, struct err *err);

/* Which of q_proj k_proj v_proj o_proj gate_proj up_proj down_proj (this order) lora_targets names; at least
 * one. */
#define OPTION_N_TARGETS 7
enum status options_lora_targets(const struct options *o, bool on[OPTION_N_TARGETS], struct err *err);
/* stage2_weights: T2M, M2T, denoise; not negative, their sum positive; as given, not normalised. */
enum status options_stage2_weights(const struct options *o, double weights[3], struct err *err);

#endif
