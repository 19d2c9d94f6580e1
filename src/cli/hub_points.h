/* Training and the Hub: the checkpoints that go up, and waiting for them at the end. Rank 0 alone. */
#ifndef SMGPT_CLI_HUB_POINTS_H
#define SMGPT_CLI_HUB_POINTS_H

#include "config/options.h"
#include "hub/spool.h"
#include "util/file.h"

struct hub_points {
    const struct options *options;
    struct uploader *uploader; /* NULL: the Hub is off */
    char dir[PATH_BYTES];
};

/* With a token: starts the uploader, and puts into the spool what an earlier run left lying in the output
 * directories. Without one, or offline: the Hub is off, which is said. */
enum status hub_points_open(struct hub_points *p, const struct options *o, const struct hub_token *token,
                            struct err *err);
/* train_files.committed's work: of a stage's checkpoints the one of step max(1, max_steps / 2) and the last
 * one enter the spool; others are left. */
enum status hub_points_add(struct hub_points *p, const char *checkpoint, struct err *err);
/* One short phrase on uploads for the progress line; empty when there is nothing to say. */
void hub_points_note(struct hub_points *p, char *text, size_t n_bytes);
/* Waits (when `wait`) up to upload_wait or a signal, then ends the uploader. ST_PENDING names what still
 * waits. */
enum status hub_points_close(struct hub_points *p, bool wait, struct err *err);

/* "{work_dir}/spool" */
enum status hub_spool_dir(char dir[PATH_BYTES], const struct options *o, struct err *err);

#endif
