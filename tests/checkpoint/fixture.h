/* What the tests of this room share: a directory that goes away, files in it, damaged copies, shared data. */
#ifndef SMGPT_TESTS_CHECKPOINT_FIXTURE_H
#define SMGPT_TESTS_CHECKPOINT_FIXTURE_H

#include "util/err.h"
#include "util/file.h"

/* A fresh directory; its path is valid until fixture_remove. Fails the test on error. */
const char *fixture_make(void);
void fixture_remove(void);
/* "<directory>/<name>", valid until the fourth next call. */
const char *fixture_path(const char *name);
void fixture_write(const char *name, const void *data, size_t n_bytes);
void fixture_read(const char *path, struct buf *out);

/* Directory of reference data, or NULL when there is none: $SMGPT_SHARED, else ../shared beside the sources.
 */
const char *shared_dir(void);

/* Fails unless status is ST_INPUT (or `status`) and the message contains `text`. */
void expect_error(enum status status, enum status wanted, const struct err *err, const char *text);

/* Random flips, cuts and overwrites in a copy of data, a pure function of round. */
void damage(struct buf *copy, const struct buf *data, unsigned round);
/* The same inside data.pkl, the first entry of a torch file of ours, with the checksums put right: this is
 * how the checks behind them are met. What is cut off is made up with zeros. */
void damage_pickle(struct buf *copy, const struct buf *file, unsigned round);

#endif
