/* W ranks in one process: each runs on a stack of its own, one at a time, in simulated time, under a
 * scheduler that draws everything from a seed. Messages come late and in any order (those of one sender,
 * receiver and tag are matched in the order posted, as MPI promises), ranks compute for long, are stopped for
 * a while, or die. The collectives are the product's own (src/comm/p2p_*.c); only the transport is simulated.
 *
 * util/fatal ends the rank that calls it and nobody else: whoever waits for it must find out by himself. */
#ifndef SMGPT_TESTS_SIM_H
#define SMGPT_TESTS_SIM_H

#include "comm/comm.h"
#include <stdbool.h>

#define SIM_MAX_RANKS  64
#define SIM_MAX_FAULTS 4

/* At the point-th call of the rank into the transport (from 1, or into sim_point) it is stopped for stop_s;
 * INFINITY: it is killed. */
struct sim_fault {
    int rank;
    int64_t point;
    double stop_s;
};

struct sim_options {
    int world_size, ranks_a_host; /* hosts are filled in order; 0: all on one */
    uint64_t seed;
    double timeout_s, limit_s; /* limit_s: of simulated time; who is not through by then hangs */
    size_t chunk_bytes;        /* of one message */
    size_t stack_bytes;        /* of a rank */
    double p_busy, p_stop; /* at each point: computes for up to 2 timeouts; is stopped for up to 0.4 of one */
    int n_faults;
    struct sim_fault faults[SIM_MAX_FAULTS];
};

enum sim_end { SIM_ALIVE, SIM_RETURNED, SIM_FATAL, SIM_KILLED, SIM_HUNG };

struct sim_rank_end {
    enum sim_end end;
    struct err err;      /* of SIM_FATAL */
    double at_s;         /* simulated */
    double stopped_at_s; /* beginning of the fault that stopped it; negative: none did */
    int64_t n_points;
};

struct sim_result {
    struct sim_rank_end ranks[SIM_MAX_RANKS];
    int64_t n_messages, n_switches;
};

/* Runs body on all ranks until each has come to an end. The table is closed by the body (comm_close). */
void sim_run(const struct sim_options *o, void (*body)(struct comm *c, void *user), void *user,
             struct sim_result *result);

/* Inside a body: a place where the rank may be stopped or killed besides its messages. */
void sim_point(void);
double sim_now_s(void); /* simulated; 0 outside of a body */

/* Whether a rank that ended by a silent peer named only peers that were silent; why[] if not. */
bool sim_blame_is_right(const struct sim_options *o, const struct sim_result *result, int rank, char *why,
                        size_t why_bytes);

/* Small numbers for the makers of schedules. */
uint64_t sim_mix(uint64_t *state);
int sim_draw(uint64_t *state, int n); /* 0 .. n - 1 */

#endif
