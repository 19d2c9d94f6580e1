/* What writing, finding and rotating checkpoint directories share. */
#ifndef SMGPT_CHECKPOINT_CKPT_INTERNAL_H
#define SMGPT_CHECKPOINT_CKPT_INTERNAL_H

#include "checkpoint/ckpt.h"

/* Being filled or on the way out: never a checkpoint, removed at the next beginning. */
#define CKPT_TMP_PREFIX ".tmp-checkpoint-"
/* The former directory of a step while its successor takes its place, on file systems that cannot exchange
 * two names at once. If a kill leaves it alone, it is put back. */
#define CKPT_OLD_PREFIX ".old-checkpoint-"

struct ckpt_entry {
    int64_t step;
    char *name;
};
struct ckpt_entries {
    struct ckpt_entry *items; /* newest step first */
    int n_items;
};
/* The directories "checkpoint-<digits>" of out_dir; none when out_dir is missing. */
enum status ckpt__list(const char *out_dir, struct ckpt_entries *out, struct err *err);
void ckpt__list_release(struct ckpt_entries *list);
/* Puts the new directory in the place of the final one, which may exist. */
enum status ckpt__replace(const struct ckpt_writer *w, bool can_exchange, struct err *err);
/* Undoes or finishes what a kill interrupted in ckpt__replace. */
enum status ckpt__recover(const char *out_dir, struct err *err);

#endif
