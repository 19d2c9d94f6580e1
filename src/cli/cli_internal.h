/* What the commands share: reading their arguments, ending with an error. */
#ifndef SMGPT_CLI_INTERNAL_H
#define SMGPT_CLI_INTERNAL_H

#include "config/options.h"
#include "util/err.h"
#include <stdbool.h>
#include <stdint.h>

/* Each command is one file, cmd_<name>.c. argv[0] is the command's name; the value is the exit code. */
int cmd_train(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_complete(int argc, char **argv);
int cmd_loss(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_hub(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_pack(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_init_model(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_version(int argc, char **argv);

enum argument_kind {
    ARG_TEXT,    /* value: const char ** (borrowed from argv) */
    ARG_FLAG,    /* value: bool *, becomes true; takes no value */
    ARG_BOOL,    /* value: bool *; --name true|false */
    ARG_INTEGER, /* value: int64_t *; min and max include their ends */
    ARG_CHOICE,  /* value: const char **; words "a|b|c" */
    ARG_OPTION   /* words: the key of the option that this is another name of; value: unused */
};

struct argument {
    const char *name; /* with its dashes: "--out" */
    enum argument_kind kind;
    void *value; /* keeps what stood there when the argument is not given */
    const char *words;
    int64_t min, max;
};

struct arguments {
    const struct argument *items;
    int n_items;
    /* When set: filled from built-in values, --config FILE (else $SMGPT_CONFIG, else ./smgpt.json when it is
     * there), environment, then --set and ARG_OPTION in their order; finished. */
    struct options *options;
    const char **free; /* arguments without dashes, borrowed */
    int max_free, n_free;
};

/* Reads argv[1..]. "--name value" and "--name=value"; a value that begins with "--" needs the second form;
 * "--" ends the options; of an argument given twice the last counts. Unknown names are ST_USAGE and name the
 * nearest. */
enum status arguments_parse(struct arguments *a, int argc, char **argv, struct err *err);

/* ST_USAGE "<name> is missing" when value is NULL. */
enum status argument_needed(const char *name, const char *value, struct err *err);

/* --stage: "all", "1", "2", "3" as a range. */
void argument_stages(const char *word, int *first, int *last);

/* Prints the error, if there is one, and returns the exit code. */
int cli_end(enum status status, const struct err *err);

#endif
