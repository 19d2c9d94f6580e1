/* The collectives under thousands of simulated schedules, and the simulation itself. A schedule that fails
 * says its seed; SMGPT_SIM_SEED=<seed> runs that one again, exactly. */
#include "sim/schedules.h"
#include "util/log.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct sim_options options(int world_size, uint64_t seed)
{
    return (struct sim_options){.world_size = world_size,
                                .seed = seed,
                                .timeout_s = 60,
                                .limit_s = 6000,
                                .chunk_bytes = 64,
                                .stack_bytes = 256 << 10};
}

/* A seed says everything. */
static void test_again(void **state)
{
    for (uint64_t seed = 1; seed < 60; seed++) {
        struct schedule_counts a = {0}, b = {0};
        assert_true(schedule_run(seed, &a));
        assert_true(schedule_run(seed, &b));
        assert_memory_equal(&a, &b, sizeof a);
    }
}

/* ---- the scheduler's orders ---- */

static int arrivals[4], n_arrived;

static void arrive(struct comm *c, void *user)
{
    c->ops->barrier(c, NULL);
    arrivals[n_arrived++] = c->rank;
    comm_close(c);
}

/* Ranks leave a barrier in any order. */
static void test_orders(void **state)
{
    static struct sim_result result;
    bool seen[256] = {false};
    int n_orders = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct sim_options o = options(4, seed);
        n_arrived = 0;
        sim_run(&o, arrive, NULL, &result);
        assert_int_equal(n_arrived, 4);
        int order = arrivals[0] * 64 + arrivals[1] * 16 + arrivals[2] * 4 + arrivals[3];
        n_orders += !seen[order];
        seen[order] = true;
    }
    assert_true(n_orders >= 20); /* of 24 */
}

/* ---- defects of a program, one by one ---- */

static void crossed_roots(struct comm *c, void *user)
{
    int x = 0;
    c->ops->bcast(c, (c->rank + 1) % c->world_size, &x, sizeof x, NULL);
    comm_close(c);
}

/* Everybody waits for the next rank, which sends nothing. */
static void nobody_sends(struct comm *c, void *user)
{
    const void *send[8] = {NULL};
    char byte;
    void *recv[8] = {NULL};
    size_t send_bytes[8] = {0}, recv_bytes[8] = {0};
    int from = (c->rank + 1) % c->world_size;
    recv[from] = &byte;
    recv_bytes[from] = 1;
    c->ops->exchange(c, send, send_bytes, recv, recv_bytes, NULL);
    comm_close(c);
}

static void one_more_barrier(struct comm *c, void *user)
{
    if (c->rank == 1)
        c->ops->barrier(c, NULL);
    comm_close(c);
}

/* All roots pass through: seen only by what the close compares. */
static void all_are_roots(struct comm *c, void *user)
{
    int x = 0;
    c->ops->bcast(c, c->rank, &x, c->world_size == 2 ? sizeof x : 0, NULL);
    comm_close(c);
}

static void close_only(struct comm *c, void *user)
{
    comm_close(c);
}

struct directed {
    const char *name;
    void (*body)(struct comm *c, void *user);
    int world_size;
    int killed; /* rank; -1: none */
    const char *what;
    enum status status;
    double until_s; /* the first to find it does so by then */
};

/* For some seeds: nobody hangs, and the first that ends says what it shall. */
static void run_directed(const struct directed *d)
{
    static struct sim_result result;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct sim_options o = options(d->world_size, seed);
        const struct sim_rank_end *first = NULL;
        if (d->killed >= 0) {
            o.n_faults = 1;
            o.faults[0] = (struct sim_fault){.rank = d->killed, .point = 1, .stop_s = INFINITY};
        }
        sim_run(&o, d->body, NULL, &result);
        for (int r = 0; r < d->world_size; r++) {
            const struct sim_rank_end *e = &result.ranks[r];
            if (e->end != (r == d->killed ? SIM_KILLED : SIM_FATAL))
                fail_msg("%s, seed %d: rank %d ended otherwise (%d)", d->name, (int)seed, r, (int)e->end);
            if (e->end == SIM_FATAL && (first == NULL || e->at_s < first->at_s))
                first = e;
        }
        if (strstr(first->err.what, d->what) == NULL || first->err.status != d->status)
            fail_msg("%s, seed %d: \"%s\" lacks \"%s\"", d->name, (int)seed, first->err.what, d->what);
        if (first->at_s > d->until_s)
            fail_msg("%s, seed %d: found after %g s", d->name, (int)seed, first->at_s);
    }
}

static void test_directed(void **state)
{
    static const struct directed all[] = {
        {"crossed roots", crossed_roots, 2, -1, "ranks disagree about bcast (operation 1): 4 bytes of rank ",
         ST_DEFECT, 120},
        {"a ring of roots", crossed_roots, 5, -1, "ranks disagree about bcast (operation 1)", ST_DEFECT, 120},
        {"nobody sends, two", nobody_sends, 2, -1, "ranks disagree about exchange (operation 1): rank ",
         ST_DEFECT, 120},
        {"nobody sends, three", nobody_sends, 3, -1, "which sends 0", ST_DEFECT, 120},
        {"one more barrier", one_more_barrier, 3, -1, "ranks wait for each other: rank ", ST_DEFECT, 120},
        {"all are roots", all_are_roots, 3, -1, "ranks went different ways: before close (operation 2) rank ",
         ST_DEFECT, 10},
        {"a dead rank", close_only, 2, 1, "nothing heard for 60 s from rank 1 on host0 (close, operation 1)",
         ST_ENV, 75},
        {"a dead rank 0", close_only, 7, 0, "from rank 0 on host0 (close, operation 1)", ST_ENV, 75},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        run_directed(&all[i]);
}

static void test_schedules(void **state)
{
    struct schedule_counts counts;
    /* A rank that was held up took an old answer of a peer, which had gone on, for a deadlock. */
    assert_true(schedule_run(1000833, &(struct schedule_counts){0}));
    assert_true(schedules_run(1, 1200, 1e9, &counts));
    if (getenv("SMGPT_SIM_SEED") != NULL)
        return;
    /* Both ends were met often. */
    assert_true(counts.n_returned > 1000);
    assert_true(counts.n_fatal > 1000);
}

int main(void)
{
#ifdef __SANITIZE_THREAD__
    fprintf(stderr, "skipped: stacks of our own are not known to the thread sanitizer\n");
    return 77;
#endif
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_directed),
        cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
