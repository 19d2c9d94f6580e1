#include "util/log.h"
#include "util/clock.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES          4096
#define PROGRESS_INTERVAL_S 10.0

/* The one writer to stderr of this process: who speaks is a property of the process, so it is kept here. */
static struct {
    pthread_mutex_t lock; /* an upload thread logs beside the step loop */
    int rank, world_size;
    char host[128];
    enum log_level level;
    bool progress_open; /* the cursor stands behind an unfinished progress line */
    bool progress_shown;
    double progress_at_s; /* when the last progress line was printed */
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .world_size = 1, .level = LOG_INFO};

void log_init(int rank, int world_size, const char *host)
{
    pthread_mutex_lock(&state.lock);
    state.rank = rank;
    state.world_size = world_size;
    snprintf(state.host, sizeof state.host, "%s", host ? host : "");
    pthread_mutex_unlock(&state.lock);
}

void log_set_level(enum log_level level)
{
    pthread_mutex_lock(&state.lock);
    state.level = level;
    pthread_mutex_unlock(&state.lock);
}

/* One write for the whole text, so that lines of ranks that share a terminal do not mix. Lock held. */
static void emit(const char *text)
{
    char out[LINE_BYTES + 16];
    int n = snprintf(out, sizeof out, "%s%s", state.progress_open ? "\r\033[K" : "", text);
    state.progress_open = false;
    if (n >= (int)sizeof out) {
        n = (int)sizeof out - 1;
        out[n - 1] = '\n';
    }
    fwrite(out, 1, (size_t)n, stderr);
    fflush(stderr);
}

static void who(char *out, size_t size, bool each)
{
    out[0] = '\0';
    if (each && state.world_size > 1)
        snprintf(out, size, "rank %d on %s: ", state.rank, state.host);
}

static void speak(enum log_level level, bool each, const char *fmt, va_list args)
{
    pthread_mutex_lock(&state.lock);
    if (level >= state.level && (each || state.rank == 0)) {
        char from[192], message[LINE_BYTES - 512], line[LINE_BYTES];
        who(from, sizeof from, each);
        vsnprintf(message, sizeof message, fmt, args);
        snprintf(line, sizeof line, "%s%s%s\n", level >= LOG_WARN ? "smgpt-dist: warning: " : "", from,
                 message);
        emit(line);
    }
    pthread_mutex_unlock(&state.lock);
}

#define LOG_FUNCTION(name, level, each)                                                                      \
    void name(const char *fmt, ...)                                                                          \
    {                                                                                                        \
        va_list args;                                                                                        \
        va_start(args, fmt);                                                                                 \
        speak(level, each, fmt, args);                                                                       \
        va_end(args);                                                                                        \
    }

LOG_FUNCTION(log_debug, LOG_DEBUG, false)
LOG_FUNCTION(log_info, LOG_INFO, false)
LOG_FUNCTION(log_warn, LOG_WARN, false)
LOG_FUNCTION(log_each_info, LOG_INFO, true)
LOG_FUNCTION(log_each_warn, LOG_WARN, true)

void log_err(const struct err *err)
{
    if (!err || err->status == ST_OK)
        return;
    pthread_mutex_lock(&state.lock);
    char from[192], line[LINE_BYTES];
    /* An agreed failure names the rank it came from, which is not always the one that prints it. */
    from[0] = '\0';
    if (!strstr(err->what, "rank "))
        who(from, sizeof from, true);
    int n = snprintf(line, sizeof line, "smgpt-dist: error: %s%s\n", from, err->what);
    if (err->hint[0] && n > 0 && n < (int)sizeof line)
        snprintf(line + n, sizeof line - (size_t)n, "  hint: %s\n", err->hint);
    emit(line);
    pthread_mutex_unlock(&state.lock);
}

void log_progress(bool last, const char *fmt, ...)
{
    pthread_mutex_lock(&state.lock);
    if (state.rank == 0 && state.level <= LOG_INFO) {
        bool tty = isatty(STDERR_FILENO) == 1;
        double now_s = clock_s();
        bool due = !state.progress_shown || now_s - state.progress_at_s >= PROGRESS_INTERVAL_S;
        if (tty || due || last) {
            char message[LINE_BYTES - 16], line[LINE_BYTES];
            va_list args;
            va_start(args, fmt);
            vsnprintf(message, sizeof message, fmt, args);
            va_end(args);
            snprintf(line, sizeof line, "%s%s", message, tty && !last ? "" : "\n");
            emit(line);
            state.progress_open = tty && !last;
            state.progress_at_s = now_s;
            state.progress_shown = !last; /* the next task's first line is due at once */
        }
    }
    pthread_mutex_unlock(&state.lock);
}
