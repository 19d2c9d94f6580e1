/* Time and signals. */
#ifndef SMGPT_UTIL_CLOCK_H
#define SMGPT_UTIL_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

double clock_s(void);             /* monotonic seconds */
void clock_sleep_s(double s);     /* survives signals */
int64_t peak_rss_bytes(void);     /* VmHWM of this process */
int64_t memory_limit_bytes(void); /* the smaller of physical memory and the cgroup's limit */
int cpu_count(void);              /* processors this process may use (affinity and cgroup quota) */

/* SIGTERM, SIGINT and SIGUSR1 set a flag; the second SIGINT ends the process at once. */
void stop_install(void);
int stop_requested(void);             /* 0, or the signal's number */
void stop_request(int signal_number); /* as if the signal had come (deadline, tests) */

#endif
