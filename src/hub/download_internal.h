#ifndef SMGPT_HUB_DOWNLOAD_INTERNAL_H
#define SMGPT_HUB_DOWNLOAD_INTERNAL_H

#include "http_internal.h"
#include "hub/download.h"
#include "util/file.h"

#define INCOMPLETE ".incomplete"
#define DOWNLOAD_ROUNDS                                                                                      \
    4 /* how often a list of files and what it names are fetched, when they do not fit together */

struct body {
    const char *url;
    bool authorize;
    const char *path;        /* the unfinished file */
    int64_t n_bytes;         /* of the whole; < 0: not known */
    _Atomic int64_t *n_done; /* NULL, or raised by what came */
};
/* Fills body->path with the URL's bytes, going on where the file ends; repeats faults of the line and of the
 * server as long as bytes come, and a few times more. */
enum status download__body(struct http *h, const struct body *body, struct err *err);

/* Takes the lock "<name>.lock" of a repository's folder in the cache and waits for it; closing *fd gives it
 * back, -1 on a failure. ST_STOPPED: a signal came first. */
enum status cache__lock(int *fd, const char *cache, const char *folder, const char *name, struct err *err);

#endif
