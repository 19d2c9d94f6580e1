/* A directory of its own for a test, and small files in it. Failures end the test (cmocka). */
#ifndef SMGPT_TESTS_SCRATCH_H
#define SMGPT_TESTS_SCRATCH_H

#include "util/file.h"

struct scratch {
    char dir[PATH_BYTES]; /* under $TMPDIR, or where the C library keeps temporary files */
};
void scratch_open(struct scratch *s);
void scratch_close(struct scratch *s); /* removes the tree */

/* "<dir>/<name>", valid until the fourth next call. */
const char *scratch_path(const struct scratch *s, const char *name);
/* Writes text as a file of that name; answers its path as scratch_path does. */
const char *scratch_file(const struct scratch *s, const char *name, const char *text);
/* The whole file in malloc'ed memory with a NUL behind it; NULL if it cannot be read. */
char *scratch_read(const char *path);

#endif
