/* Several transfers at once. */
#ifndef SMGPT_HUB_PARALLEL_INTERNAL_H
#define SMGPT_HUB_PARALLEL_INTERNAL_H

#include "http_internal.h"

struct parallel {
    size_t n_jobs;
    /* Does job i with a client of its thread's own. */
    enum status (*run)(void *user, struct http *h, size_t i, struct err *err);
    void (*tick)(void *user); /* NULL, or called now and then by the caller's thread */
    void *user;
};
/* Up to four threads, each with a clone of h. After a failure no further job begins; the first one is the
 * result. */
enum status parallel__run(struct http *h, const struct parallel *p, struct err *err);

#endif
