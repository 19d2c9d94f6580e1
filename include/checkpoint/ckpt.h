/* checkpoint-<step> directories as transactions: whole or absent. */
#ifndef SMGPT_CHECKPOINT_CKPT_H
#define SMGPT_CHECKPOINT_CKPT_H

#include "util/err.h"
#include "util/file.h"
#include <stdbool.h>
#include <stdint.h>

/* A directory being filled: "<out_dir>/.tmp-checkpoint-<step>"; leftovers of a killed run are removed first.
 * Only one process may write below an out_dir at a time. Between begin and commit (or abort) the thread's
 * files are written without waiting for the disk (file_writer_sync_later): commit does that for all of them.
 */
struct ckpt_writer {
    char tmp_dir[PATH_BYTES], final_dir[PATH_BYTES], out_dir[PATH_BYTES];
    int64_t step;
};
enum status ckpt_begin(struct ckpt_writer *w, const char *out_dir, int64_t step, struct err *err);
/* fsync of every file and of the directory, then rename, then fsync of out_dir. An older directory of the
 * same step is replaced. Consumes w. On failure the temporary is removed and older checkpoints are untouched.
 */
enum status ckpt_commit(struct ckpt_writer *w, struct err *err);
void ckpt_abort(struct ckpt_writer *w);

/* "checkpoint-<digits>" -> step, or -1. */
int64_t ckpt_step_of(const char *name);
/* Whether a directory is a complete checkpoint of that step: adapter, adapter_config, trainer_state with the
 * right global_step and both of optimizer and scheduler whole as zip archives (checksums included). ST_INPUT
 * names what is missing or broken. */
enum status ckpt_check(const char *path, int64_t step, struct err *err);
/* Newest complete checkpoint of out_dir. *step = -1 and path "" when
 * there is none, also when out_dir does not exist. What is skipped is logged as a warning with the reason;
 * trouble with memory or the disk is an error, not a reason to fall back to something older. */
enum status ckpt_newest(const char *out_dir, char path[PATH_BYTES], int64_t *step, struct err *err);
/* The same of those whose step is less than `below`. */
enum status ckpt_newest_below(const char *out_dir, int64_t below, char path[PATH_BYTES], int64_t *step,
                              struct err *err);
/* Removes all but the newest `keep` directories "checkpoint-<step>", complete or not; the newest complete one
 * stays in any case. Links are left alone. keep < 1 removes nothing. */
enum status ckpt_rotate(const char *out_dir, int keep, struct err *err);

#endif
