/* What the float32 and the bfloat16 comparison share. */
#ifndef SMGPT_CLI_GOLDEN_INTERNAL_H
#define SMGPT_CLI_GOLDEN_INTERNAL_H

#include "assemble.h"
#include "golden.h"
#include "util/json.h"

#define GOLDEN_JSON_BYTES (256u << 20)

struct golden {
    const char *dir, *out_dir;
    struct comm *comm;
    const struct options *o;
    struct golden_result *result;
    struct assembly s;
    float *host; /* [n_values] scratch */
};

/* A JSON file of the directory; *out is NULL when it is not there. New reference. */
enum status golden__read(struct golden *g, const char *name, json_t **out, struct err *err);
/* Base model and an adapter of the directory. */
enum status golden__open(struct golden *g, const char *name, struct err *err);
/* Lines of a JSONL file whose objects have a loss, as a list. New reference. */
enum status golden__steps(const char *path, json_t **out, struct err *err);
/* Trains n_steps on pack.h5 with the recorded settings; the log is in out_dir. */
enum status golden__train(struct golden *g, const json_t *totals, int64_t n_steps, struct err *err);
/* A number of an object, or NaN. */
double golden__field(const json_t *o, const char *key);

#endif
