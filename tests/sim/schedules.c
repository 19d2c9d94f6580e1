#include "schedules.h"
#include "comm/tree_sum.h"
#include "util/clock.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STEPS  10
#define MAX_VALUES 300
#define MAX_EACH   3
#define TIMEOUT_S  60.0

enum kind {
    BARRIER,
    BCAST,
    BCAST_NODES,
    SCATTER,
    GATHER,
    EXCHANGE,
    AGREE,
    TREE_SUM,
    DOUBLES,
    SHARED,
    N_KINDS
};

enum astray { SKIP, OTHER, TWICE, OTHER_ROOT, OTHER_SIZE, EXPECT_MORE, N_ASTRAY };

struct step {
    enum kind kind;
    uint64_t seed; /* of sizes and contents */
    int n_leaves, n_values;
    float total[MAX_VALUES];
    double numbers[MAX_EACH]; /* n_values of them */
};

struct program {
    uint64_t seed;
    int world_size, n_steps;
    struct step steps[MAX_STEPS];
    int astray_rank, astray_step; /* rank -1: none */
    enum astray astray;
    char bad[200]; /* the first content that is not right */
};

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t state = a ^ (b << 32) ^ (c * 0x9e3779b97f4a7c15u);
    return sim_mix(&state);
}

static void fill(unsigned char *p, uint64_t seed, int from, int to, size_t n)
{
    uint64_t state = mix(seed, (uint64_t)from, (uint64_t)to);
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(state >> (i % 8 * 8)) + (unsigned char)i;
}

static bool filled(const void *data, uint64_t seed, int from, int to, size_t n)
{
    uint64_t state = mix(seed, (uint64_t)from, (uint64_t)to);
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        if (p[i] != (unsigned char)((unsigned char)(state >> (i % 8 * 8)) + (unsigned char)i))
            return false;
    return true;
}

/* Of a message; one in four is empty. */
static size_t size_of(uint64_t seed, int from, int to)
{
    uint64_t x = mix(seed, (uint64_t)from + 1000, (uint64_t)to);
    return x % 4 == 0 ? 0 : (size_t)(x >> 8) % 150;
}

/* Of very different magnitudes, so that another order of additions gives another sum. */
static double value_of(uint64_t seed, int leaf, int64_t i)
{
    uint64_t x = mix(seed, (uint64_t)leaf, (uint64_t)i);
    return ldexp((double)(int64_t)x * 0x1p-63, (int)(x & 31) - 16);
}

static void bad(struct program *p, const struct comm *c, int k, const char *what)
{
    if (p->bad[0] == '\0' && p->astray_rank < 0)
        snprintf(p->bad, sizeof p->bad, "rank %d, step %d: %s", c->rank, k, what);
}

#define CHECK(cond, what)                                                                                    \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            bad(p, c, k, what);                                                                              \
    } while (0)

/* ---- the steps, each on one rank ---- */

static void run_bcast(struct program *p, struct comm *c, int k, bool nodes)
{
    const struct step *s = &p->steps[k];
    bool off = c->rank == p->astray_rank && k == p->astray_step;
    size_t n = size_of(s->seed, 0, 0) * 3 + (p->astray_rank >= 0);
    int root = nodes ? 0 : (int)(s->seed % (uint64_t)c->world_size);
    if (off && p->astray == OTHER_ROOT)
        root = (root + 1) % c->world_size;
    if (off && p->astray == OTHER_SIZE)
        n += 1 + s->seed % 40;
    unsigned char *data = calloc(n + 1, 1);
    if (c->rank == root)
        fill(data, s->seed, root, 0, n);
    enum status st = nodes ? c->ops->bcast_nodes(c, data, n, NULL) : c->ops->bcast(c, root, data, n, NULL);
    CHECK(st == ST_OK, "status of a broadcast");
    if (!nodes || c->local_rank == 0)
        CHECK(filled(data, s->seed, root, 0, n), "content of a broadcast");
    free(data);
}

static void parts_free(struct buf *parts, int n)
{
    for (int r = 0; r < n; r++)
        buf_release(&parts[r]);
    free(parts);
}

static void run_scatter(struct program *p, struct comm *c, int k, bool back)
{
    const struct step *s = &p->steps[k];
    struct buf *parts = calloc((size_t)c->world_size, sizeof *parts), out = BUF_INIT;
    unsigned char bytes[150];
    struct err err = ERR_INIT;
    size_t mine = size_of(s->seed, 0, c->rank);
    if (back) {
        fill(bytes, s->seed, 0, c->rank, mine);
        CHECK(c->ops->gather(c, bytes, mine, parts, &err) == ST_OK, "status of a gather");
        for (int r = 0; r < c->world_size && c->rank == 0; r++)
            CHECK(parts[r].n_bytes == size_of(s->seed, 0, r) &&
                      filled(parts[r].data, s->seed, 0, r, parts[r].n_bytes),
                  "content of a gather");
    } else {
        for (int r = 0; r < c->world_size && c->rank == 0; r++) {
            fill(bytes, s->seed, 0, r, size_of(s->seed, 0, r));
            buf_append(&parts[r], bytes, size_of(s->seed, 0, r), &err);
        }
        CHECK(c->ops->scatter(c, parts, &out, &err) == ST_OK, "status of a scatter");
        CHECK(out.n_bytes == mine && filled(out.data, s->seed, 0, c->rank, mine), "content of a scatter");
    }
    parts_free(parts, c->world_size);
    buf_release(&out);
}

static void run_exchange(struct program *p, struct comm *c, int k)
{
    const struct step *s = &p->steps[k];
    const void *send[SIM_MAX_RANKS];
    void *recv[SIM_MAX_RANKS];
    size_t send_bytes[SIM_MAX_RANKS], recv_bytes[SIM_MAX_RANKS];
    unsigned char *bytes = calloc((size_t)c->world_size, 400);
    for (int r = 0; r < c->world_size; r++) {
        send_bytes[r] = size_of(s->seed, c->rank, r);
        recv_bytes[r] = size_of(s->seed, r, c->rank);
        fill(bytes + r * 400, s->seed, c->rank, r, send_bytes[r]);
        send[r] = bytes + r * 400;
        recv[r] = bytes + r * 400 + 200;
    }
    int victim = (c->rank + 1) % c->world_size;
    if (c->rank == p->astray_rank && k == p->astray_step && p->astray == EXPECT_MORE)
        recv_bytes[victim] += 1 + s->seed % 40;
    CHECK(c->ops->exchange(c, send, send_bytes, recv, recv_bytes, NULL) == ST_OK, "status of an exchange");
    for (int r = 0; r < c->world_size; r++)
        CHECK(filled(recv[r], s->seed, r, c->rank, size_of(s->seed, r, c->rank)), "content of an exchange");
    free(bytes);
}

/* Whether rank r fails in that step. */
static bool fails(const struct step *s, int r)
{
    return s->seed % 3 != 0 && mix(s->seed, 77, (uint64_t)r) % 4 == 0;
}

static void run_agree(struct program *p, struct comm *c, int k)
{
    const struct step *s = &p->steps[k];
    struct err err = ERR_INIT;
    char what[200] = "", hint[40] = "";
    enum status mine = ST_OK, expected = ST_OK;
    for (int r = c->world_size - 1; r >= 0; r--)
        if (fails(s, r)) {
            expected = r % 2 ? ST_INPUT : ST_ENV;
            snprintf(what, sizeof what, "rank %d on ", r);
            snprintf(hint, sizeof hint, "mend %d", r);
        }
    if (fails(s, c->rank)) {
        mine = c->rank % 2 ? ST_INPUT : ST_ENV;
        err_set(&err, mine, "fault of %d", c->rank);
        err_hint(&err, "mend %d", c->rank);
    }
    CHECK(comm_agree(c, mine, &err) == expected, "agreed status");
    CHECK(err.status == expected && strncmp(err.what, what, strlen(what)) == 0, "agreed message");
    CHECK(strcmp(err.hint, hint) == 0, "agreed hint");
}

static bool sum_run(const struct step *s, struct comm *c, float *total)
{
    struct tree_sum *ts = NULL;
    int first, end;
    if (tree_sum_open(&ts, c, s->n_values, s->n_leaves, NULL) != ST_OK)
        return false;
    tree_sum_range(s->n_leaves, c->world_size, c->rank, &first, &end);
    for (int leaf = first; leaf < end; leaf++) {
        float *values = tree_sum_leaf(ts);
        for (int i = 0; i < s->n_values; i++)
            values[i] = (float)value_of(s->seed, leaf, i);
        tree_sum_push(ts);
    }
    enum status st = tree_sum_finish(ts, c, total, NULL);
    tree_sum_close(ts);
    return st == ST_OK;
}

static bool doubles_run(const struct step *s, struct comm *c, double *total)
{
    int first, end;
    tree_sum_range(s->n_leaves, c->world_size, c->rank, &first, &end);
    double *mine = calloc((size_t)(end - first) * MAX_EACH + 1, sizeof *mine);
    for (int leaf = first; leaf < end; leaf++)
        for (int i = 0; i < s->n_values; i++)
            mine[(leaf - first) * s->n_values + i] = value_of(s->seed, leaf, i);
    enum status st = tree_sum_doubles(c, mine, s->n_leaves, s->n_values, total, NULL);
    free(mine);
    return st == ST_OK;
}

static void run_sum(struct program *p, struct comm *c, int k)
{
    const struct step *s = &p->steps[k];
    float total[MAX_VALUES];
    double numbers[MAX_EACH];
    if (s->kind == TREE_SUM) {
        CHECK(sum_run(s, c, total), "status of a tree sum");
        CHECK(memcmp(total, s->total, (size_t)s->n_values * sizeof *total) == 0, "bytes of a tree sum");
    } else {
        CHECK(doubles_run(s, c, numbers), "status of a sum of numbers");
        CHECK(memcmp(numbers, s->numbers, (size_t)s->n_values * sizeof *numbers) == 0,
              "bytes of a sum of numbers");
    }
}

static void run_shared(struct program *p, struct comm *c, int k)
{
    const struct step *s = &p->steps[k];
    size_t n = size_of(s->seed, 1, 1) + 1;
    struct comm_shared block;
    if (c->ops->shared_alloc(c, n, &block, NULL) != ST_OK || block.data == NULL) {
        bad(p, c, k, "status of a shared block"); /* astray ranks may well get here */
        return;
    }
    if (c->local_rank == 0)
        fill(block.data, s->seed, c->node, 0, n);
    c->ops->barrier(c, NULL);
    CHECK(filled(block.data, s->seed, c->node, 0, n), "content of a shared block");
    c->ops->shared_release(c, &block);
}

static void run_step(struct program *p, struct comm *c, int k)
{
    switch (p->steps[k].kind) {
    case BARRIER:
        CHECK(c->ops->barrier(c, NULL) == ST_OK, "status of a barrier");
        break;
    case BCAST:
    case BCAST_NODES:
        run_bcast(p, c, k, p->steps[k].kind == BCAST_NODES);
        break;
    case SCATTER:
    case GATHER:
        run_scatter(p, c, k, p->steps[k].kind == GATHER);
        break;
    case EXCHANGE:
        run_exchange(p, c, k);
        break;
    case AGREE:
        run_agree(p, c, k);
        break;
    case TREE_SUM:
    case DOUBLES:
        run_sum(p, c, k);
        break;
    default:
        run_shared(p, c, k);
    }
}

static void body(struct comm *c, void *user)
{
    struct program *p = user;
    for (int k = 0; k < p->n_steps; k++) {
        bool off = c->rank == p->astray_rank && k == p->astray_step;
        int x = 0;
        if (off && p->astray == OTHER && p->steps[k].kind == BARRIER)
            c->ops->bcast(c, 0, &x, sizeof x, NULL);
        else if (off && (p->astray == OTHER || p->astray == TWICE))
            c->ops->barrier(c, NULL);
        if (!off || (p->astray != OTHER && p->astray != SKIP))
            run_step(p, c, k);
    }
    comm_close(c);
}

/* ---- making a program ---- */

static int draw_world(uint64_t *state)
{
    int x = sim_draw(state, 100);
    return x < 40   ? 2 + sim_draw(state, 3)
           : x < 85 ? 5 + sim_draw(state, 5)
           : x < 97 ? 10 + sim_draw(state, 15)
                    : 25 + sim_draw(state, SIM_MAX_RANKS - 24);
}

static void step_make(struct program *p, struct step *s, uint64_t *state)
{
    s->kind = (enum kind)sim_draw(state, N_KINDS);
    s->seed = sim_mix(state);
    s->n_leaves = p->world_size + sim_draw(state, sim_draw(state, 2) ? 4 : 40);
    s->n_values = s->kind == DOUBLES ? 1 + sim_draw(state, MAX_EACH) : sim_draw(state, MAX_VALUES);
}

/* What one rank gets, without any message. */
static void step_expect(struct step *s)
{
    struct comm self;
    if (comm_open_self(&self, NULL) != ST_OK || (s->kind == TREE_SUM && !sum_run(s, &self, s->total)) ||
        (s->kind == DOUBLES && !doubles_run(s, &self, s->numbers)))
        abort();
    comm_close(&self);
}

static void program_make(struct program *p, uint64_t seed, uint64_t *state)
{
    memset(p, 0, sizeof *p);
    p->seed = seed;
    p->world_size = draw_world(state);
    p->n_steps = 1 + sim_draw(state, MAX_STEPS);
    p->astray_rank = -1;
    for (int k = 0; k < p->n_steps; k++)
        step_make(p, &p->steps[k], state);
    if (seed % N_TROUBLES == TROUBLE_ASTRAY) {
        p->astray_rank = sim_draw(state, p->world_size);
        p->astray_step = sim_draw(state, p->n_steps);
        p->astray = (enum astray)sim_draw(state, N_ASTRAY);
        if (p->astray == OTHER_ROOT || p->astray == OTHER_SIZE)
            p->steps[p->astray_step].kind = BCAST;
        else if (p->astray == EXPECT_MORE)
            p->steps[p->astray_step].kind = EXCHANGE;
    }
    for (int k = 0; k < p->n_steps; k++)
        step_expect(&p->steps[k]);
}

/* ---- running and judging ---- */

static struct sim_options options_make(const struct program *p, uint64_t *state)
{
    struct sim_options o = {.world_size = p->world_size,
                            .seed = sim_mix(state),
                            .timeout_s = TIMEOUT_S,
                            .limit_s = 4000 * TIMEOUT_S,
                            .chunk_bytes = 1 + (size_t)sim_draw(state, sim_draw(state, 3) ? 200 : 20),
                            .stack_bytes = 512 << 10};
    /* Heads and digests travel whole. */
    if (o.chunk_bytes < 16)
        o.chunk_bytes = 16;
    o.ranks_a_host = 1 + sim_draw(state, p->world_size);
    if (sim_draw(state, 2)) {
        o.p_busy = 0.01 / p->world_size;
        o.p_stop = 0.02 / p->world_size;
    }
    return o;
}

static bool complain(const struct program *p, const struct sim_options *o, const char *why)
{
    static const char *const names[] = {"delays", "kill", "long stop", "astray"};
    fprintf(stderr, "schedule of seed %" PRIu64 " (%s, %d ranks, %d steps): %s\n", p->seed,
            names[p->seed % N_TROUBLES], p->world_size, p->n_steps, why);
    for (int i = 0; i < o->n_faults; i++)
        fprintf(stderr, "  rank %d stops at its point %" PRId64 " for %g s\n", o->faults[i].rank,
                o->faults[i].point, o->faults[i].stop_s);
    if (p->astray_rank >= 0)
        fprintf(stderr, "  rank %d goes astray in step %d, way %d\n", p->astray_rank, p->astray_step,
                (int)p->astray);
    fprintf(stderr, "  again: SMGPT_SIM_SEED=%" PRIu64 "\n", p->seed);
    return false;
}

static void show_ends(const struct program *p, const struct sim_result *r)
{
    static const char *const names[] = {"alive", "returned", "fatal", "killed", "hung"};
    for (int i = 0; i < p->world_size; i++)
        fprintf(stderr, "  rank %d: %s at %.3f s, %" PRId64 " points %s\n", i, names[r->ranks[i].end],
                r->ranks[i].at_s, r->ranks[i].n_points, r->ranks[i].err.what);
}

static bool judge_delays(const struct program *p, const struct sim_options *o, const struct sim_result *r)
{
    for (int i = 0; i < p->world_size; i++)
        if (r->ranks[i].end != SIM_RETURNED)
            return complain(p, o, "a rank did not return");
    return true;
}

/* When the fault struck, the first and the last rank that gave up. */
static bool judge_faults(const struct program *p, const struct sim_options *o, const struct sim_result *r)
{
    char why[400];
    double struck_s = r->ranks[o->faults[0].rank].stopped_at_s, first_s = INFINITY, last_s = 0;
    if (struck_s < 0)
        return complain(p, o, "the fault did not strike");
    for (int i = 0; i < p->world_size; i++) {
        const struct sim_rank_end *e = &r->ranks[i];
        if (e->end == SIM_HUNG)
            return complain(p, o, "a rank hangs");
        if (e->end == SIM_FATAL && (e->err.status != ST_ENV || strstr(e->err.what, "nothing heard") == NULL))
            return complain(p, o, "a rank ended by another failure than silence");
        if (e->end == SIM_FATAL && !sim_blame_is_right(o, r, i, why, sizeof why))
            return complain(p, o, why);
        if (e->end == SIM_FATAL) {
            first_s = fmin(first_s, e->at_s);
            last_s = fmax(last_s, e->at_s);
        }
    }
    /* Without pauses of other ranks the limit is kept closely, each time that one waits for the next. */
    if (o->p_busy == 0 && isfinite(first_s) && first_s > struck_s + 2 * o->timeout_s)
        return complain(p, o, "the silent rank was found late");
    if (o->p_busy == 0 && last_s > struck_s + 2 * o->timeout_s * p->world_size + 4 * o->timeout_s)
        return complain(p, o, "a rank ended late");
    return true;
}

static bool judge_astray(const struct program *p, const struct sim_options *o, const struct sim_result *r)
{
    bool found = false;
    for (int i = 0; i < p->world_size; i++) {
        const struct sim_rank_end *e = &r->ranks[i];
        if (e->end == SIM_HUNG)
            return complain(p, o, "a rank hangs");
        if (e->end == SIM_RETURNED)
            return complain(p, o, "a rank returned as if all had gone well");
        if (e->end == SIM_FATAL && e->err.status == ST_DEFECT) {
            char name[20];
            snprintf(name, sizeof name, "rank %d on", i);
            found = found || (strncmp(e->err.what, "ranks ", 6) == 0 && strstr(e->err.what, name) != NULL);
        }
    }
    return found || complain(p, o, "nobody named the ranks that went apart");
}

static bool program_run(struct program *p, const struct sim_options *o, struct schedule_counts *counts,
                        struct sim_result *r)
{
    sim_run(o, body, p, r);
    counts->n_schedules++;
    counts->n_messages += r->n_messages;
    counts->n_switches += r->n_switches;
    for (int i = 0; i < p->world_size; i++) {
        counts->n_returned += r->ranks[i].end == SIM_RETURNED;
        counts->n_fatal += r->ranks[i].end == SIM_FATAL;
    }
    return p->bad[0] == '\0' || complain(p, o, p->bad);
}

bool schedule_run(uint64_t seed, struct schedule_counts *counts)
{
    static struct sim_result r;
    uint64_t state = seed * 0x2545f4914f6cdd1du + 1;
    enum trouble trouble = (enum trouble)(seed % N_TROUBLES);
    struct program *p = malloc(sizeof *p);
    program_make(p, seed, &state);
    struct sim_options o = options_make(p, &state);
    bool good = program_run(p, &o, counts, &r);
    if (good && trouble != TROUBLE_ASTRAY)
        good = judge_delays(p, &o, &r);
    if (good && (trouble == TROUBLE_KILL || trouble == TROUBLE_LONG_STOP)) {
        /* The same again up to the fault, which therefore strikes inside. */
        int rank = sim_draw(&state, p->world_size);
        int64_t point = 1 + (int64_t)(sim_mix(&state) % (uint64_t)r.ranks[rank].n_points);
        double stop_s = o.timeout_s * (0.5 + 0.1 * sim_draw(&state, 40));
        o.n_faults = 1;
        o.faults[0] = (struct sim_fault){
            .rank = rank, .point = point, .stop_s = trouble == TROUBLE_KILL ? INFINITY : stop_s};
        good = program_run(p, &o, counts, &r) && judge_faults(p, &o, &r);
    }
    if (good && trouble == TROUBLE_ASTRAY)
        good = judge_astray(p, &o, &r);
    if (!good)
        show_ends(p, &r);
    free(p);
    return good;
}

bool schedules_run(uint64_t first, int64_t n, double seconds, struct schedule_counts *counts)
{
    const char *only = getenv("SMGPT_SIM_SEED");
    double until_s = clock_s() + seconds;
    memset(counts, 0, sizeof *counts);
    if (only != NULL && only[0] != '\0')
        return schedule_run(strtoull(only, NULL, 10), counts);
    for (int64_t i = 0; i < n && clock_s() < until_s; i++)
        if (!schedule_run(first + (uint64_t)i, counts))
            return false;
    return true;
}
