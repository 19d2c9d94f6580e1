/* What this process and its machine are doing, for measurements; from /proc, 0 where that says nothing. */
#ifndef SMGPT_CLI_MACHINE_H
#define SMGPT_CLI_MACHINE_H

#include <stddef.h>
#include <stdint.h>

/* Seconds since this process was started (exec), to the kernel's clock tick. */
double machine_process_age_s(void);
/* Processor seconds of this process and its threads. */
double machine_own_cpu_s(void);
/* Processor seconds that all processes of the machine have used since it started. */
double machine_busy_s(void);
/* Resident memory of this process now, a page that n processes map counting 1/n. */
int64_t machine_pss_bytes(void);
/* Resident memory of this process now, shared pages counted in full. */
int64_t machine_rss_bytes(void);
/* The processor's name, "" when unknown. */
void machine_cpu_name(char *text, size_t n_bytes);

#endif
