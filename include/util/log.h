/* Messages for people, on stderr. Priority x audience: log_* speaks on rank 0 only, log_each_* on every
 * rank, with "rank R on HOST: " in front when there is more than one. Results never go through here: they go
 * to stdout. */
#ifndef SMGPT_UTIL_LOG_H
#define SMGPT_UTIL_LOG_H

#include "util/err.h"
#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Until called: rank 0 of 1, level LOG_INFO. host is copied. */
void log_init(int rank, int world_size, const char *host);
void log_set_level(enum log_level level);

void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_each_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_each_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints the two lines of an error, "smgpt-dist: error: ..." and "  hint: ...", on whatever rank calls;
 * with more than one rank "rank R on HOST: " stands in front of the message. */
void log_err(const struct err *err);

/* The progress line: rewritten in place on a terminal, else printed at most once every 10 s (and always
 * when last is true). Ends with a line feed when last. Rank 0 only. */
void log_progress(bool last, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
