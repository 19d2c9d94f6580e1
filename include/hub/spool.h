/* Checkpoints on their way to the Hub: a directory of points that outlives the process, and a thread that
 * sends them.
 *
 * <dir>/stage<k>-checkpoint-<step>/point.json   where it goes; the directory is whole or absent
 * <dir>/stage<k>-checkpoint-<step>/files/       hard links to the checkpoint's files (copies across file
 * systems), so that rotation of the local ones takes nothing away <dir>/sent/stage<k>-checkpoint-<step> what
 * is on the Hub: the hash of its smgpt_state.json <dir>/lock                                    held by the
 * one process that sends */
#ifndef SMGPT_HUB_SPOOL_H
#define SMGPT_HUB_SPOOL_H

#include "hub/push.h"

struct spool_point {
    int stage; /* 1..3 */
    int64_t step;
    char
        repo[HUB_REPO_BYTES]; /* "owner/name", or "name": the token's owner is put in front when it is sent */
};

/* Puts a complete checkpoint directory into the spool; durable on return. One that was sent with the same
 * smgpt_state.json, or waits already, is left as it is (ST_OK). Needs no network and no thread. ST_INPUT: the
 * checkpoint cannot be read; ST_ENV: the spool cannot be written. */
enum status spool_put(const char *dir, const struct spool_point *point, const char *checkpoint,
                      struct err *err);

/* Notes that the checkpoint is on the Hub already (it came from there): spool_put leaves it. */
enum status spool_note_sent(const char *dir, const struct spool_point *point, const char *checkpoint,
                            struct err *err);

/* The waiting points, oldest stage and step first, in a malloc'ed array. A directory that is no whole point
 * is said in a warning and left out. A missing spool is an empty one. */
enum status spool_list(const char *dir, struct spool_point **points, size_t *n_points, struct err *err);

struct uploader;
struct uploader_state {
    int n_waiting; /* the one under way included */
    int n_sent;
    int n_failures; /* of what waits, since it was put */
    bool hopeless;  /* the Hub refused all that waits (401, 402, 403) the last time: waiting mends nothing */
    int64_t done_bytes, all_bytes; /* of large files of the one under way */
    char fault[300];               /* of a point that waits; empty when nothing fails */
};
struct uploader_config {
    const char *dir, *endpoint; /* endpoint: as in http_config */
    const struct hub_token *token;
    int keep;       /* newest checkpoints that stay in a repository */
    double pause_s; /* 0: 15 s. After a failure; doubles up to 20 times it */
};
/* Starts the thread, which yields the processors to those that train. Leftovers of a killed process are
 * removed. Failures of sending are warnings; each kind is said once until all has gone through, numbers in it
 * apart. The thread goes on trying until closed. ST_ENV: no thread, no directory. Strings are
 * copied. */
enum status uploader_open(struct uploader **out, const struct uploader_config *config, struct err *err);
void uploader_wake(struct uploader *u); /* there is a new point */
void uploader_state(struct uploader *u, struct uploader_state *state);
/* Tries at once, and waits until nothing is left, or for seconds, or until `stop` (may be NULL) says so, or
 * the Hub has refused all that is left; *n_left points still wait. */
void uploader_wait(struct uploader *u, double seconds, bool (*stop)(void), int *n_left);
/* Ends the thread within about a second; what is under way is begun again by the next one. */
void uploader_close(struct uploader *u);

#endif
