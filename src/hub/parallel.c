#include "parallel_internal.h"
#include "util/clock.h"

#include <pthread.h>

#define MAX_THREADS 4

struct pool {
    struct http *http;
    const struct parallel *p;
    _Atomic size_t next;
    atomic_int n_running;
    atomic_bool failed;
    pthread_mutex_t mutex; /* of err */
    struct err err;
};

static enum status clone_client(struct http **out, const struct http *h, struct err *err)
{
    struct http_config config = {.endpoint = h->endpoint,
                                 .token = &h->token,
                                 .connect_s = h->connect_s,
                                 .stall_s = h->stall_s,
                                 .pause_s = h->pause_s,
                                 .cancel = h->cancel,
                                 .stoppable = h->stoppable};
    return http_open(out, &config, err);
}

static void *run(void *user)
{
    struct pool *w = user;
    struct http *h = NULL;
    struct err err = ERR_INIT;
    enum status st = clone_client(&h, w->http, &err);
    for (size_t i; st == ST_OK && !w->failed && (i = w->next++) < w->p->n_jobs;)
        st = w->p->run(w->p->user, h, i, &err);
    http_close(h);
    if (st != ST_OK) {
        pthread_mutex_lock(&w->mutex);
        if (w->err.status == ST_OK)
            w->err = err;
        pthread_mutex_unlock(&w->mutex);
        w->failed = true;
    }
    w->n_running--;
    return NULL;
}

enum status parallel__run(struct http *h, const struct parallel *p, struct err *err)
{
    struct pool w = {.http = h, .p = p, .mutex = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[MAX_THREADS];
    int n = p->n_jobs < MAX_THREADS ? (int)p->n_jobs : MAX_THREADS, n_threads = 0;
    w.n_running = n;
    for (int i = 0; i < n; i++) {
        if (pthread_create(&threads[n_threads], NULL, run, &w) == 0)
            n_threads++;
        else
            w.n_running--;
    }
    if (n > 0 && n_threads == 0)
        return err_set(err, ST_ENV, "no thread for transfers");
    while (w.n_running > 0) {
        if (p->tick)
            p->tick(p->user);
        clock_sleep_s(0.02);
    }
    for (int i = 0; i < n_threads; i++)
        pthread_join(threads[i], NULL);
    if (p->tick)
        p->tick(p->user);
    if (w.err.status == ST_OK)
        return ST_OK;
    err_set(err, w.err.status, "%s", w.err.what);
    return w.err.hint[0] ? err_hint(err, "%s", w.err.hint) : w.err.status;
}
