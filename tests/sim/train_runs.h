/* Training of a tiny model on simulated ranks, in processes of their own: who is killed frees nothing. */
#ifndef SMGPT_TESTS_TRAIN_RUNS_H
#define SMGPT_TESTS_TRAIN_RUNS_H

#include <stdbool.h>
#include <stdint.h>

struct train_counts {
    int64_t n_kills, n_from_checkpoint; /* resumes that found one */
};

/* For each world size: trains to the end; then kills one rank at every stride-th of its points, and rank 0
 * wherever it is saving, looks at what the others do and at what is left, and goes on with it on another
 * number of ranks, to the bytes of the straight run on one. False, and why on stderr, at the first that is
 * not so; the environment's SMGPT_SIM_SEED=<world size>:<rank>:<point> runs that one again. */
bool train_kills_run(const int *world_sizes, int n_world_sizes, int64_t stride, struct train_counts *counts);

/* That many times a bit of some rank's values turns over in some step: every rank ends alike, naming it, at
 * the next log line or save, and what is on disk is from before. */
bool train_flips_run(int n_flips);

#endif
