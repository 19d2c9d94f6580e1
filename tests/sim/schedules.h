/* Programs of random collectives under random schedules; everything follows from a seed. */
#ifndef SMGPT_TESTS_SCHEDULES_H
#define SMGPT_TESTS_SCHEDULES_H

#include "sim.h"

/* What is done to the ranks; a seed's is seed % N_TROUBLES. */
enum trouble { TROUBLE_DELAYS, TROUBLE_KILL, TROUBLE_LONG_STOP, TROUBLE_ASTRAY, N_TROUBLES };

struct schedule_counts {
    int64_t n_schedules, n_messages, n_switches;
    int64_t n_returned, n_fatal; /* ranks, over all schedules */
};

/* One schedule. False, and why on stderr, when it does not end as it should. */
bool schedule_run(uint64_t seed, struct schedule_counts *counts);

/* Seeds first .. first + n - 1 or those of seconds s, whichever is less; stops at the first that fails. The
 * environment's SMGPT_SIM_SEED picks one instead. */
bool schedules_run(uint64_t first, int64_t n, double seconds, struct schedule_counts *counts);

#endif
