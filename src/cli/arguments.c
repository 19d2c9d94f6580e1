/* Command line of one command: its own arguments, --config and --set, from the table the command gives. */
#include "cli_internal.h"
#include "config/nearest.h"
#include "util/file.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMES 32

/* What the options are read from comes before what sets them, wherever they stand: two walks. */
enum walk { WALK_OWN, WALK_OPTIONS };

static const struct argument *find(const struct arguments *a, const char *name, size_t n)
{
    for (int i = 0; i < a->n_items; i++)
        if (strlen(a->items[i].name) == n && memcmp(a->items[i].name, name, n) == 0)
            return &a->items[i];
    return NULL;
}

static enum status unknown(const struct arguments *a, const char *command, const char *arg, size_t n,
                           struct err *err)
{
    const char *names[MAX_NAMES + 3];
    char name[64];
    size_t n_names = 0;
    for (int i = 0; i < a->n_items && i < MAX_NAMES; i++)
        names[n_names++] = a->items[i].name;
    if (a->options) {
        names[n_names++] = "--config";
        names[n_names++] = "--set";
    }
    names[n_names++] = "--help";
    snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : (int)sizeof name - 1, arg);
    err_set(err, ST_USAGE, "%s: unknown argument '%s', the nearest is '%s'", command, name,
            names[word_nearest(name, names, n_names)]);
    return err_hint(err, "`smgpt-dist help %s` lists the arguments%s", command,
                    a->options ? "; options are set by --set key=value" : "");
}

static bool is_word(const char *words, const char *text)
{
    size_t n_text = strlen(text);
    for (const char *at = words; *at;) {
        size_t n = strcspn(at, "|");
        if (n == n_text && memcmp(at, text, n) == 0)
            return true;
        at += n + (at[n] == '|');
    }
    return false;
}

static enum status put_integer(const struct argument *item, const char *text, struct err *err)
{
    const char *digits = text + (*text == '-');
    errno = 0;
    long long v = strtoll(text, NULL, 10);
    if (!*digits || digits[strspn(digits, "0123456789")] || errno)
        return err_set(err, ST_USAGE, "%s '%.60s' is not a whole number", item->name, text);
    if (v < item->min || v > item->max)
        return err_set(err, ST_USAGE, "%s %lld is out of range, it must be %lld to %lld", item->name, v,
                       (long long)item->min, (long long)item->max);
    *(int64_t *)item->value = v;
    return ST_OK;
}

static enum status put(const struct argument *item, const char *text, struct err *err)
{
    switch (item->kind) {
    case ARG_INTEGER:
        return put_integer(item, text, err);
    case ARG_BOOL:
        if (strcmp(text, "true") && strcmp(text, "false"))
            return err_set(err, ST_USAGE, "%s '%.60s' is neither true nor false", item->name, text);
        *(bool *)item->value = strcmp(text, "true") == 0;
        return ST_OK;
    case ARG_CHOICE:
        if (!is_word(item->words, text))
            return err_set(err, ST_USAGE, "%s '%.60s' is not one of %s", item->name, text, item->words);
        break;
    default:
        if (!*text)
            return err_set(err, ST_USAGE, "%s is empty", item->name);
    }
    *(const char **)item->value = text;
    return ST_OK;
}

/* One argument with dashes at argv[*at]; leaves *at on the last word used. */
static enum status take(struct arguments *a, enum walk walk, int argc, char **argv, int *at,
                        const char **config, struct err *err)
{
    const char *arg = argv[*at], *equal = strchr(arg, '=');
    size_t n = equal ? (size_t)(equal - arg) : strlen(arg);
    const struct argument *item = find(a, arg, n);
    bool is_config = a->options && n == 8 && memcmp(arg, "--config", n) == 0;
    bool is_set = a->options && n == 5 && memcmp(arg, "--set", n) == 0;
    if (!item && !is_config && !is_set)
        return unknown(a, argv[0], arg, n, err);
    if (item && item->kind == ARG_FLAG) {
        if (equal)
            return err_set(err, ST_USAGE, "%s takes no value", item->name);
        *(bool *)item->value = true;
        return ST_OK;
    }
    const char *value = equal ? equal + 1 : *at + 1 < argc ? argv[*at + 1] : NULL;
    if (!value || (!equal && strncmp(value, "--", 2) == 0)) {
        err_set(err, ST_USAGE, "%.*s needs a value", (int)n, arg);
        return value ? err_hint(err, "a value that begins with two dashes is written %.*s=VALUE", (int)n, arg)
                     : ST_USAGE;
    }
    *at += !equal;
    if (is_config)
        *config = value;
    else if (is_set)
        return walk == WALK_OPTIONS ? options_set(a->options, value, err) : ST_OK;
    else if (item->kind == ARG_OPTION)
        return walk == WALK_OPTIONS ? options_put(a->options, item->name, item->words, value, err) : ST_OK;
    else
        return put(item, value, err);
    return ST_OK;
}

static enum status walk_arguments(struct arguments *a, enum walk walk, int argc, char **argv,
                                  const char **config, struct err *err)
{
    bool only_free = false;
    a->n_free = 0;
    for (int i = 1; i < argc; i++) {
        if (!only_free && strcmp(argv[i], "--") == 0) {
            only_free = true;
        } else if (!only_free && argv[i][0] == '-' && argv[i][1]) {
            TRY(take(a, walk, argc, argv, &i, config, err));
        } else if (a->n_free < a->max_free) {
            a->free[a->n_free++] = argv[i];
        } else {
            err_set(err, ST_USAGE, "%s: '%.60s' is one argument too many", argv[0], argv[i]);
            return err_hint(err, "`smgpt-dist help %s` shows the usage", argv[0]);
        }
    }
    return ST_OK;
}

static enum status load_options(struct options *o, const char *config, struct err *err)
{
    const char *variable = getenv("SMGPT_CONFIG");
    options_default(o);
    if (!config && variable && *variable)
        config = variable;
    if (!config && file_exists("smgpt.json"))
        config = "smgpt.json";
    if (config)
        TRY(options_read_file(o, config, err));
    return options_read_environment(o, err);
}

enum status arguments_parse(struct arguments *a, int argc, char **argv, struct err *err)
{
    const char *config = NULL;
    TRY(walk_arguments(a, WALK_OWN, argc, argv, &config, err));
    if (!a->options)
        return ST_OK;
    TRY(load_options(a->options, config, err));
    TRY(walk_arguments(a, WALK_OPTIONS, argc, argv, &config, err));
    return options_finish(a->options, err);
}

enum status argument_needed(const char *name, const char *value, struct err *err)
{
    return value ? ST_OK : err_set(err, ST_USAGE, "%s is missing", name);
}

void argument_stages(const char *word, int *first, int *last)
{
    bool all = strcmp(word, "all") == 0;
    *first = all ? 1 : word[0] - '0';
    *last = all ? 3 : *first;
}

int cli_end(enum status status, const struct err *err)
{
    if (err->status != ST_OK)
        log_err(err);
    return (int)status;
}
