/* Bad memory: one bit of a rank's values turns over while it trains. */
#ifndef SMGPT_TESTS_FLIP_H
#define SMGPT_TESTS_FLIP_H

#include "comm/comm.h"

/* From now on the rank's n-th scatter (from 1; training without evaluations has one a step) first turns a bit
 * of *x over. c's table is replaced by one that counts; flip_remove puts it back. One table in a process; at
 * most 64 ranks of it. */
void flip_install(struct comm *c, int64_t n, float *x);
void flip_remove(struct comm *c);

#endif
