/* How long each operation takes, for measuring commands. A table of the same name that passes every call on
 * to the real one and counts; nothing of it is in the way of a process that does not install it. */
#ifndef SMGPT_OPS_TIMING_H
#define SMGPT_OPS_TIMING_H

#include <stdint.h>

struct op_time {
    char name[64]; /* the slot; of products also the sizes that do not depend on the number of tokens */
    int64_t calls;
    double seconds; /* of the calling thread, from call to return */
    double flops;   /* multiplications and additions of products and attention; 0 for all others */
};

/* From now on ops_by_name(name) gives the counting table. Process-wide, once, before that table is asked for
 * the first time; calls must come from one thread at a time. An unknown name changes nothing. */
void ops_timing_install(const char *name);
/* Forgets what was counted so far. */
void ops_timing_reset(void);
/* At most max entries into out, the longest first; returns how many. All zero when nothing is installed. */
int ops_timing_read(struct op_time *out, int max);

#endif
