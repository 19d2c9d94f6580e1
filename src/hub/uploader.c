/* The thread that drains the spool: one point after the other, without MPI, never in a step's way. */
#include "http_internal.h"
#include "spool_internal.h"
#include "util/clock.h"
#include "util/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define CARD_BYTES  ((size_t)1 << 20)
#define N_STAGES    3
#define N_SAID      8
#define FAULT_BYTES sizeof((struct uploader_state *)0)->fault
#define NICENESS    10

/* What went wrong with a stage's points since one of them went through. */
struct trouble {
    int n_failures;
    bool refused; /* the last time the Hub said no: trying again soon is of no use */
    char what[FAULT_BYTES];
};

struct uploader {
    char dir[PATH_BYTES], owner[HUB_REPO_BYTES];
    struct http *http;       /* the thread's */
    bool made[N_STAGES + 1]; /* the stage's repository is there */
    struct trouble trouble[N_STAGES + 1];
    char said[N_SAID][FAULT_BYTES]; /* faults that were told already, without their numbers */
    int n_said;
    int keep;
    double pause_s;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards all below but cancel */
    pthread_cond_t changed;
    struct uploader_state state;
    int n_new;    /* told of since the last look at the directory */
    bool at_once; /* do not go on resting */
    bool ending;  /* somebody waits for the end */
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

/* Two faults that differ in numbers only (milliseconds, bytes, steps) are one. */
static void without_numbers(const char *text, char out[FAULT_BYTES])
{
    size_t n = 0;
    for (; *text && n + 1 < FAULT_BYTES; text++)
        if (!isdigit((unsigned char)*text))
            out[n++] = *text;
    out[n] = 0;
}

/* Whether it is the first of its kind since all went well. */
static bool is_news(struct uploader *u, const char *what)
{
    char text[FAULT_BYTES];
    int n = u->n_said < N_SAID ? u->n_said : N_SAID;
    without_numbers(what, text);
    for (int i = 0; i < n; i++)
        if (strcmp(u->said[i], text) == 0)
            return false;
    strcpy(u->said[u->n_said++ % N_SAID], text);
    return true;
}

/* The state that others see: failures of all stages, the first one's fault. */
static void publish(struct uploader *u, bool was_sent)
{
    pthread_mutex_lock(&u->mutex);
    struct uploader_state *s = &u->state;
    s->n_sent += was_sent;
    s->n_failures = 0;
    s->fault[0] = 0;
    for (int k = 0; k <= N_STAGES; k++) {
        s->n_failures += u->trouble[k].n_failures;
        if (!s->fault[0])
            memcpy(s->fault, u->trouble[k].what, sizeof s->fault);
    }
    s->done_bytes = s->all_bytes = 0;
    pthread_mutex_unlock(&u->mutex);
}

/* A fault is said when it is new, and how often it came when it has passed. Stage 0: of none. */
static void note(struct uploader *u, int stage, enum status st, const struct err *fault)
{
    struct trouble *t = &u->trouble[stage];
    if (st != ST_OK) {
        t->n_failures++;
        t->refused = st == ST_NET && http_refused(u->http);
        snprintf(t->what, sizeof t->what, "%.299s", fault->what);
        if (is_news(u, fault->what))
            log_warn("upload: %s; training goes on, it is tried again%s%s", fault->what,
                     fault->hint[0] ? "; " : "", fault->hint);
    } else {
        if (t->n_failures > 0)
            log_info("upload: went through after %d failure%s", t->n_failures, t->n_failures == 1 ? "" : "s");
        memset(t, 0, sizeof *t);
    }
    publish(u, st == ST_OK && stage > 0);
    if (u->state.n_failures == 0)
        u->n_said = 0;
}

/* hopeless: of each point the Hub says no. */
static void count_waiting(struct uploader *u, bool hopeless)
{
    int n = spool__count(u->dir);
    pthread_mutex_lock(&u->mutex);
    u->state.n_waiting = n;
    u->state.hopeless = hopeless && n > 0 && u->n_new == 0;
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->mutex);
}

/* *ending: somebody waits already, whom this look at things will tell. */
static enum status list_all(struct uploader *u, struct spool_point **points, size_t *n, bool *ending,
                            struct err *err)
{
    pthread_mutex_lock(&u->mutex);
    u->n_new = 0;
    *ending = u->ending;
    pthread_mutex_unlock(&u->mutex);
    return spool_list(u->dir, points, n, err);
}

/* All points once, oldest first; a failed one holds up those of its repository. *failed: some are left. */
static void pass(struct uploader *u, struct http *h, bool *failed)
{
    struct spool_point *points;
    size_t n = 0;
    struct err err = ERR_INIT;
    bool ending, stage_failed[N_STAGES + 1] = {false}, hopeless = true;
    enum status listed = list_all(u, &points, &n, &ending, &err);
    *failed = listed != ST_OK;
    if (*failed || u->trouble[0].n_failures > 0)
        note(u, 0, listed, &err);
    if (*failed)
        return;
    count_waiting(u, false);
    for (size_t i = 0; i < n && !atomic_load(&u->cancel); i++) {
        struct err fault = ERR_INIT;
        int stage = points[i].stage;
        if (stage_failed[stage])
            continue;
        enum status st = send_point(u, h, &points[i], &fault);
        if (st == ST_STOPPED)
            break;
        note(u, stage, st, &fault);
        /* Somebody may have removed the repository. */
        u->made[stage] = st == ST_OK;
        stage_failed[stage] = st != ST_OK;
        *failed = *failed || st != ST_OK;
        hopeless = hopeless && (st == ST_OK || u->trouble[stage].refused);
        count_waiting(u, false);
    }
    count_waiting(u, ending && hopeless);
    free(points);
}

/* Until something came, or all is to be quick or closed, or the seconds are over (< 0: no end). */
static void rest(struct uploader *u, double seconds)
{
    double end = clock_s() + seconds;
    pthread_mutex_lock(&u->mutex);
    while (u->n_new == 0 && !u->at_once && !atomic_load(&u->cancel) && (seconds < 0 || clock_s() < end)) {
        struct timespec at;
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_nsec += 200000000;
        at.tv_sec += at.tv_nsec / 1000000000;
        at.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&u->changed, &u->mutex, &at);
    }
    u->at_once = false;
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
        count_waiting(u, false); /* the other one sends */
        rest(u, 2);
    }
    return fd;
}

/* After the n-th failing pass in a row: doubles up to 20 times the first one, up to 4 times at the end. */
static double pause_after(struct uploader *u, int n_failed)
{
    double most = 20;
    pthread_mutex_lock(&u->mutex);
    if (u->ending)
        most = 4;
    pthread_mutex_unlock(&u->mutex);
    double factor = n_failed < 6 ? 1 << (n_failed - 1) : 20;
    return u->pause_s * (factor < most ? factor : most);
}

static void *run(void *user)
{
    struct uploader *u = user;
    /* Hashing and encrypting yield to the threads that train; those that this one starts inherit it. Linux
     * knows such a value of each thread. Without it uploads only cost a little more. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
    int n_failed = 0, lock = take_lock(u);
    while (!atomic_load(&u->cancel)) {
        bool failed;
        pass(u, u->http, &failed);
        n_failed = failed ? n_failed + 1 : 0;
        rest(u, failed ? pause_after(u, n_failed) : -1);
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
    int n = spool__count(u->dir);
    pthread_mutex_lock(&u->mutex);
    u->n_new++;
    u->state.n_waiting = n;
    u->state.hopeless = false;
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
    pthread_mutex_lock(&u->mutex);
    u->ending = u->at_once = true;
    u->state.hopeless = false; /* of the past; the next pass knows better */
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->mutex);
    uploader_state(u, &s);
    while (s.n_waiting > 0 && clock_s() < end && !s.hopeless && !(stop && stop())) {
        log_progress(false, "upload  %d waiting, %.1f of %.1f MB of the first one, %.0f s left to wait",
                     s.n_waiting, (double)s.done_bytes / 1e6, (double)s.all_bytes / 1e6, end - clock_s());
        clock_sleep_s(0.1);
        uploader_state(u, &s);
    }
    *n_left = spool__count(u->dir);
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
