/* Where values come from: built-in, file, environment, command line. */
#include "config/options.h"
#include "config_internal.h"
#include "util/json.h"
#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)1 << 20)

void options_default(struct options *o)
{
    memset(o, 0, sizeof *o);
    for (size_t i = 0; i < config__n_rows; i++) {
        const struct option_row *row = &config__rows[i];
        switch (row->kind) {
        case KIND_INTEGER:
            *(int64_t *)config__field(o, row) = row->int_def;
            break;
        case KIND_REAL:
            *(double *)config__field(o, row) = row->real_def;
            break;
        case KIND_BOOL:
            *(bool *)config__field(o, row) = row->bool_def;
            break;
        default:
            strcpy(config__field(o, row), row->text_def);
        }
    }
}

static enum status read_object(struct options *o, const char *path, json_t *root, struct err *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(root))
        return err_set(err, ST_USAGE, "%s: not a JSON object of options", path);
    json_object_foreach(root, key, value)
    {
        const struct option_row *row = config__find(key);
        if (!row)
            return config__unknown(path, key, err);
        TRY(config__put_json(o, row, path, value, err));
    }
    return ST_OK;
}

enum status options_read_file(struct options *o, const char *path, struct err *err)
{
    json_t *root = NULL;
    struct err cause = ERR_INIT;
    if (json_read_file(&root, path, MAX_FILE_BYTES, &cause) != ST_OK) {
        /* A broken file of options is wrong usage (exit code 2), not bad data. */
        err_set(err, cause.status == ST_INPUT ? ST_USAGE : cause.status, "%s", cause.what);
        return cause.hint[0] ? err_hint(err, "%s", cause.hint)
                             : err_hint(err, "this file holds the options (--config)");
    }
    enum status st = read_object(o, path, root, err);
    json_decref(root);
    return st;
}

enum status options_put(struct options *o, const char *name, const char *key, const char *value,
                        struct err *err)
{
    const struct option_row *row = config__find(key);
    if (!row)
        return config__holds_token(value) ? config__refuse_token(name, NULL, err)
                                          : config__unknown(name, key, err);
    return config__put_text(o, row, name, value, err);
}

enum status options_set(struct options *o, const char *assignment, struct err *err)
{
    char key[64];
    const char *equal = strchr(assignment, '=');
    if (!equal) {
        if (config__holds_token(assignment))
            return config__refuse_token("--set", NULL, err);
        return err_set(err, ST_USAGE, "--set '%.60s' is not of the form key=value", assignment);
    }
    size_t n = (size_t)(equal - assignment);
    if (n >= sizeof key)
        n = sizeof key - 1; /* longer than any key: unknown in any case */
    memcpy(key, assignment, n);
    key[n] = '\0';
    return options_put(o, "--set", key, equal + 1, err);
}

static enum status read_variable(struct options *o, const struct option_row *row, const char *value,
                                 struct err *err)
{
    char name[80], first[32];
    snprintf(name, sizeof name, "environment variable %s", row->env);
    /* OpenMP allows a list, one number for each level of nesting; ours is the first. */
    size_t n = strcspn(value, ",");
    if (strcmp(row->env, "OMP_NUM_THREADS") == 0 && value[n] && n < sizeof first) {
        memcpy(first, value, n);
        first[n] = '\0';
        value = first;
    }
    return config__put_text(o, row, name, value, err);
}

enum status options_read_environment(struct options *o, struct err *err)
{
    for (size_t i = 0; i < config__n_rows; i++) {
        const struct option_row *row = &config__rows[i];
        const char *value = row->env[0] ? getenv(row->env) : NULL;
        if (value && *value)
            TRY(read_variable(o, row, value, err));
    }
    return ST_OK;
}
