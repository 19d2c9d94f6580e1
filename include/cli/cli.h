/* The program as one function, and its table of commands. */
#ifndef SMGPT_CLI_CLI_H
#define SMGPT_CLI_CLI_H

struct command {
    const char *name;
    int (*run)(int argc,
               char **argv); /* argv[0] is the command's name; the program's exit code. NULL: not built yet */
    const char *help;        /* one line */
    const char *long_help;   /* usage and options, lines ended by line feeds; "" for those not built yet */
};

/* Ends with an entry whose name is NULL. */
extern const struct command cli_commands[];

/* Runs the command that argv names; none, or an option first, means `train`. Returns the exit code. */
int cli_main(int argc, char **argv);

#endif
