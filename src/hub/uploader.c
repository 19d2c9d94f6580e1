/* The thread that drains the spool: one point after the other, without MPI, never in a step's way. */
#include "http_internal.h"
#include "spool_internal.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define CARD_BYTES ((size_t)1 << 20)

struct uploader {
    char dir[PATH_BYTES], owner[HUB_REPO_BYTES];
    struct http *http; /* the thread's */
    bool made[4];      /* the stage's repository is there */
    int keep;
    double pause_s;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards all below but cancel */
    pthread_cond_t changed;
    struct uploader_state state;
    bool has_news;
    atomic_bool cancel;
};

static void on_progress(void *user, int64_t done_bytes, int64_t all_bytes)
{
    struct uploader *u = user;
    pthread_mutex_lock(&u->mutex);
    u->state.done_bytes = done_bytes;
    u->state.all_bytes = all_bytes;
    pthread_mutex_unlock(&u->mutex);
}

static enum status full_name(struct uploader *u, struct http *h, const struct spool_point *point,
                             char repo[2 * HUB_REPO_BYTES], struct err *err)
{
    if (strchr(point->repo, '/')) {
        snprintf(repo, 2 * HUB_REPO_BYTES, "%s", point->repo);
        return ST_OK;
    }
    if (!u->owner[0])
        TRY(hub_whoami(h, u->owner, err));
    snprintf(repo, 2 * HUB_REPO_BYTES, "%s/%s", u->owner, point->repo);
    return ST_OK;
}

static enum status send_point(struct uploader *u, struct http *h, const struct spool_point *point,
                              struct err *err)
{
    char name[SPOOL_NAME_BYTES], path[PATH_BYTES], files[PATH_BYTES], card_path[PATH_BYTES];
    char repo[2 * HUB_REPO_BYTES], folder[64], summary[64];
    struct buf card = BUF_INIT;
    struct push_result result;
    spool__name(point, name);
    TRY(path_join(path, u->dir, name, err));
    TRY(path_join(files, path, "files", err));
    TRY(path_join(card_path, files, "README.md", err));
    TRY(full_name(u, h, point, repo, err));
    if (!u->made[point->stage])
        TRY(hub_repo_make(h, repo, err));
    u->made[point->stage] = true;
    if (file_exists(card_path))
        TRY(file_read(card_path, CARD_BYTES, &card, err));
    snprintf(folder, sizeof folder, "checkpoint-%lld", (long long)point->step);
    snprintf(summary, sizeof summary, "Stage %d, step %lld", point->stage, (long long)point->step);
    struct push_request request = {.repo = repo,
                                   .dir = files,
                                   .folder = folder,
                                   .card = card.data,
                                   .summary = summary,
                                   .keep = u->keep,
                                   .progress = on_progress,
                                   .user = u};
    enum status st = hub_push(h, &request, &result, err);
    buf_release(&card);
    TRY(st);
    log_info("on the Hub: %s, %s, commit %.12s", repo, folder, result.commit);
    return spool__sent(u->dir, point, err);
}

/* A fault is said when it is new, and how often it came when it has passed. */
static void note(struct uploader *u, enum status st, const struct err *fault)
{
    pthread_mutex_lock(&u->mutex);
    struct uploader_state *s = &u->state;
    bool is_new = st != ST_OK && strncmp(s->fault, fault->what, sizeof s->fault - 1) != 0;
    int n = s->n_failures;
    if (st == ST_OK) {
        s->n_sent++;
        s->fault[0] = 0;
        s->n_failures = 0;
    } else {
        s->n_failures++;
        snprintf(s->fault, sizeof s->fault, "%.299s", fault->what);
    }
    s->done_bytes = s->all_bytes = 0;
    pthread_mutex_unlock(&u->mutex);
    if (is_new)
        log_warn("upload: %s; training goes on, it is tried again%s%s", fault->what,
                 fault->hint[0] ? "; " : "", fault->hint);
    else if (st == ST_OK && n > 0)
        log_info("upload: went through after %d failures", n);
}

static void set_waiting(struct uploader *u, int n)
{
    pthread_mutex_lock(&u->mutex);
    u->state.n_waiting = n + u->has_news; /* one that came meanwhile is not among the n */
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->mutex);
}

/* All points once, oldest first; a failed one holds up those of its repository. *failed: some are left. */
static void pass(struct uploader *u, struct http *h, bool *failed)
{
    struct spool_point *points;
    size_t n = 0;
    struct err err = ERR_INIT;
    *failed = false;
    if (spool_list(u->dir, &points, &n, &err) != ST_OK) {
        note(u, err.status, &err);
        *failed = true;
        return;
    }
    set_waiting(u, (int)n);
    bool stage_failed[4] = {false};
    int n_left = (int)n;
    for (size_t i = 0; i < n && !atomic_load(&u->cancel); i++) {
        struct err fault = ERR_INIT;
        if (stage_failed[points[i].stage])
            continue;
        enum status st = send_point(u, h, &points[i], &fault);
        if (st == ST_STOPPED)
            break;
        note(u, st, &fault);
        stage_failed[points[i].stage] = st != ST_OK;
        *failed = *failed || st != ST_OK;
        n_left -= st == ST_OK;
        set_waiting(u, n_left);
    }
    free(points);
}

/* Until woken, closed, or the seconds are over (< 0: no end). */
static void rest(struct uploader *u, double seconds)
{
    double end = clock_s() + seconds;
    pthread_mutex_lock(&u->mutex);
    while (!u->has_news && !atomic_load(&u->cancel) && (seconds < 0 || clock_s() < end)) {
        struct timespec at;
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_nsec += 200000000;
        at.tv_sec += at.tv_nsec / 1000000000;
        at.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&u->changed, &u->mutex, &at);
    }
    u->has_news = false;
    pthread_mutex_unlock(&u->mutex);
}

/* One process sends; another that finds the lock taken waits for its turn. */
static int take_lock(struct uploader *u)
{
    char path[PATH_BYTES];
    bool said = false;
    int fd =
        path_join(path, u->dir, "lock", NULL) == ST_OK ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
    while (fd >= 0 && !atomic_load(&u->cancel) && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            break; /* a file system without locks: two who send do no harm, only double work */
        if (!said)
            log_info("upload: another process sends what is in %s", u->dir);
        said = true;
        rest(u, 2);
    }
    return fd;
}

static void *run(void *user)
{
    struct uploader *u = user;
    int n_failed = 0, lock = take_lock(u);
    while (!atomic_load(&u->cancel)) {
        bool failed;
        pass(u, u->http, &failed);
        n_failed = failed ? n_failed + 1 : 0;
        double pause_s = u->pause_s * (n_failed < 5 ? 1 << (n_failed > 0 ? n_failed - 1 : 0) : 20);
        rest(u, failed ? pause_s : -1);
    }
    if (lock >= 0)
        close(lock);
    return NULL;
}

enum status uploader_open(struct uploader **out, const struct uploader_config *config, struct err *err)
{
    struct spool_point *points;
    size_t n = 0;
    sigset_t all, before;
    *out = NULL;
    TRY(dir_make(config->dir, err));
    TRY(spool_list(config->dir, &points, &n, err));
    free(points);
    struct uploader *u = calloc(1, sizeof *u);
    if (!u)
        return err_memory(err, "the uploader", sizeof *u);
    snprintf(u->dir, sizeof u->dir, "%s", config->dir);
    u->keep = config->keep;
    u->pause_s = config->pause_s > 0 ? config->pause_s : 15 * http__pause_s();
    u->state.n_waiting = (int)n;
    spool__clean(u->dir);
    struct http_config http = {.endpoint = config->endpoint, .token = config->token, .cancel = &u->cancel};
    enum status st = http_open(&u->http, &http, err);
    if (st != ST_OK) {
        free(u);
        return st;
    }
    pthread_mutex_init(&u->mutex, NULL);
    pthread_cond_init(&u->changed, NULL);
    /* Signals are for the thread that trains. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&u->thread, NULL, run, u);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        http_close(u->http);
        free(u);
        return err_set(err, ST_ENV, "no thread for uploads: %s", strerror(failed));
    }
    *out = u;
    return ST_OK;
}

void uploader_wake(struct uploader *u)
{
    pthread_mutex_lock(&u->mutex);
    u->has_news = true;
    u->state.n_waiting++; /* put right by the next pass */
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->mutex);
}

void uploader_state(struct uploader *u, struct uploader_state *state)
{
    pthread_mutex_lock(&u->mutex);
    *state = u->state;
    pthread_mutex_unlock(&u->mutex);
}

void uploader_wait(struct uploader *u, double seconds, bool (*stop)(void), int *n_left)
{
    double end = clock_s() + seconds;
    struct uploader_state s;
    uploader_state(u, &s);
    while (s.n_waiting > 0 && clock_s() < end && !(stop && stop())) {
        log_progress(false, "upload  %d waiting, %.1f of %.1f MB of the first one, %.0f s left to wait",
                     s.n_waiting, (double)s.done_bytes / 1e6, (double)s.all_bytes / 1e6, end - clock_s());
        clock_sleep_s(0.1);
        uploader_state(u, &s);
    }
    *n_left = s.n_waiting;
}

void uploader_close(struct uploader *u)
{
    if (!u)
        return;
    atomic_store(&u->cancel, true);
    pthread_mutex_lock(&u->mutex);
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->mutex);
    pthread_join(u->thread, NULL);
    pthread_cond_destroy(&u->changed);
    pthread_mutex_destroy(&u->mutex);
    http_close(u->http);
    free(u);
}
