/* Status codes and the error record that travels upward with the first cause.
 *
 * Every function that can fail returns enum status (0 is good, everywhere) and takes a caller-owned
 * struct err as its last argument. The deepest cause survives: err_set on a record that already holds
 * a failure changes nothing. Callers on the way up may add where (err_where) and what to do (err_hint).
 */
#ifndef SMGPT_UTIL_ERR_H
#define SMGPT_UTIL_ERR_H

#include <stdarg.h>
#include <stddef.h>

/* name, exit code of the program, sentence */
#define STATUS_LIST(X)                                                                                       \
    X(ST_OK, 0, "done")                                                                                      \
    X(ST_DEFECT, 1, "a defect of smgpt-dist")                                                                \
    X(ST_USAGE, 2, "wrong usage or option")                                                                  \
    X(ST_INPUT, 3, "bad input")                                                                              \
    X(ST_ENV, 4, "environment: MPI, device, disk or memory")                                                 \
    X(ST_NET, 5, "network or Hub")                                                                           \
    X(ST_PENDING, 75, "saved, uploads are still waiting")                                                    \
    X(ST_STOPPED, 85, "stopped and saved, run again to go on")

enum status {
#define STATUS_ENUM(name, code, text) name = code,
    STATUS_LIST(STATUS_ENUM)
#undef STATUS_ENUM
};

struct err {
    enum status status;
    char what[1024]; /* one line, no capital, no full stop */
    char hint[512];  /* what to do; empty if nothing is known */
};

#define ERR_INIT                                                                                             \
    {                                                                                                        \
        .status = ST_OK                                                                                      \
    }

/* Records status and message unless err already holds a failure. Returns the status that err holds
 * afterwards, so that `return err_set(err, ...)` is the usual form. err may be NULL (message dropped). */
enum status err_set(struct err *err, enum status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Like err_set, with ": <strerror(errno)>" appended. */
enum status err_errno(struct err *err, enum status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Sets the hint if there is none yet. Returns err's status. */
enum status err_hint(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<text>: " in front of the message: where it happened, seen from a level above. Returns err's status.
 */
enum status err_where(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "no memory for <what> (<bytes> bytes)" as ST_ENV. */
enum status err_memory(struct err *err, const char *what, size_t bytes);

/* The sentence of STATUS_LIST. */
const char *status_text(enum status status);

/* Evaluates an expression of type enum status; on failure returns it from the calling function. */
#define TRY(expr)                                                                                            \
    do {                                                                                                     \
        enum status try_status_ = (expr);                                                                    \
        if (try_status_ != ST_OK)                                                                            \
            return try_status_;                                                                              \
    } while (0)

#endif
