/* The scheduler. */
#include "sim_internal.h"
#include "util/fatal.h"
#include "util/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

#define GUARD_BYTES 4096

struct sim *sim__now;

uint64_t sim_mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 (Steele, Lea, Flood, 2014) */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int sim_draw(uint64_t *state, int n)
{
    return (int)(sim_mix(state) % (uint64_t)n);
}

double sim__fraction(struct sim *s)
{
    return (double)(sim_mix(&s->random) >> 11) * 0x1p-53;
}

double sim_now_s(void)
{
    return sim__now != NULL ? sim__now->now_s : 0;
}

/* ---- stacks ---- */

static void *stack_of(const struct sim *s, int rank, char *all)
{
    return all + (size_t)rank * (s->o->stack_bytes + GUARD_BYTES) + GUARD_BYTES;
}

/* One block, kept for the next simulation: a fresh page costs more than a schedule's step. */
static char *stacks_take(size_t n_bytes, size_t each)
{
    static char *all;
    static size_t all_bytes, all_each;
    if (all != NULL && (all_bytes < n_bytes || all_each != each)) {
        munmap(all, all_bytes);
        all = NULL;
    }
    if (all == NULL) {
        all = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED)
            abort();
        all_bytes = n_bytes;
        all_each = each;
        for (size_t at = 0; at < n_bytes; at += each)
            mprotect(all + at, GUARD_BYTES, PROT_NONE);
    }
    return all;
}

void sim__switch_away(struct rank *r, bool for_ever)
{
    struct sim *s = r->sim;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(for_ever ? NULL : &r->fake_stack, s->main_stack, s->main_stack_bytes);
#endif
    swapcontext(&r->context, &s->main);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(r->fake_stack, &s->main_stack, &s->main_stack_bytes);
#endif
}

static void switch_to(struct rank *r)
{
    struct sim *s = r->sim;
    s->current = r;
    s->result->n_switches++;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&s->fake_stack, r->context.uc_stack.ss_sp, r->context.uc_stack.ss_size);
#endif
    swapcontext(&s->main, &r->context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(s->fake_stack, NULL, NULL);
#endif
    s->current = NULL;
}

_Noreturn void sim__end(struct rank *r, enum sim_end end)
{
    r->end->end = end;
    r->end->at_s = r->sim->now_s;
    if (end != SIM_RETURNED)
        sim__lose_messages(r);
    sim__switch_away(r, true);
    abort();
}

static void rank_main(void)
{
    struct sim *s = sim__now;
    struct rank *r = s->current;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, &s->main_stack, &s->main_stack_bytes);
#endif
    s->body(&r->comm, s->user);
    sim__end(r, SIM_RETURNED);
}

/* ---- what can happen to a rank ---- */

void sim__sleep(struct rank *r, double seconds)
{
    r->wake_s = r->sim->now_s + seconds;
    sim__switch_away(r, false);
}

static void stop(struct rank *r, double seconds)
{
    r->stopped_until_s = r->sim->now_s + seconds;
    sim__sleep(r, seconds);
}

void sim__point(struct rank *r)
{
    struct sim *s = r->sim;
    const struct sim_options *o = s->o;
    r->end->n_points++;
    for (int i = 0; i < o->n_faults; i++) {
        const struct sim_fault *f = &o->faults[i];
        if (f->rank != r->comm.rank || f->point != r->end->n_points)
            continue;
        r->end->stopped_at_s = s->now_s;
        if (isinf(f->stop_s))
            sim__end(r, SIM_KILLED);
        stop(r, f->stop_s);
    }
    double x = sim__fraction(s);
    /* Between two stops it has the time to answer. */
    if (x < o->p_stop && s->now_s - r->stopped_until_s > o->timeout_s / 2)
        stop(r, sim__fraction(s) * o->timeout_s * 0.4);
    else if (x < o->p_stop + o->p_busy)
        sim__sleep(r, sim__fraction(s) * o->timeout_s * 2);
    else if (x > 0.8)
        sim__sleep(r, 0);
}

void sim_point(void)
{
    if (sim__now != NULL && sim__now->current != NULL)
        sim__point(sim__now->current);
}

/* In place of util's, in programs that simulate: the rank's end, not the process's. */
_Noreturn void fatal(const struct err *err)
{
    struct rank *r = sim__now != NULL ? sim__now->current : NULL;
    if (r == NULL) {
        log_err(err);
        _exit((int)err->status);
    }
    r->end->err = *err;
    sim__end(r, SIM_FATAL);
}

void fatal_set_hook(void (*hook)(int exit_code))
{
}

/* ---- the table ---- */

static void table_close(struct comm *c)
{
    p2p__barrier_as(c, OP_CLOSE);
}

/* The host's lowest rank allocates; the others find it there after a barrier. */
static enum status shared_alloc(struct comm *c, size_t n_bytes, struct comm_shared *out, struct err *err)
{
    struct sim *s = ((struct rank *)c->impl)->sim;
    struct comm_shared *block = &s->blocks[c->node];
    enum status st = c->local_rank == 0 ? comm__pages_alloc(n_bytes, block, err) : ST_OK;
    st = comm_agree(c, st, err);
    memset(out, 0, sizeof *out);
    if (st == ST_OK)
        *out = *block;
    return st;
}

static void shared_forget(struct comm *c, struct comm_shared *block, size_t from, size_t n_bytes)
{
    if (c->local_rank == 0)
        comm__pages_forget(block, from, n_bytes, false);
}

static void shared_release(struct comm *c, struct comm_shared *block)
{
    p2p__barrier_as(c, OP_BARRIER);
    if (c->local_rank == 0)
        comm__pages_release(block);
    memset(block, 0, sizeof *block);
}

static void table_abort(struct comm *c, int exit_code)
{
    sim__end(c->impl, SIM_FATAL);
}

static const struct comm_ops sim_ops = {
    .name = "sim",
    .close = table_close,
    .barrier = p2p__barrier,
    .bcast = p2p__bcast,
    .bcast_nodes = p2p__bcast_nodes,
    .scatter = p2p__scatter,
    .gather = p2p__gather,
    .exchange = p2p__exchange,
    .shared_alloc = shared_alloc,
    .shared_forget = shared_forget,
    .shared_release = shared_release,
    .abort = table_abort,
};

static void rank_open(struct sim *s, int number, char *stacks)
{
    struct rank *r = &s->ranks[number];
    const struct sim_options *o = s->o;
    struct err err = ERR_INIT;
    int w = o->world_size, each = o->ranks_a_host > 0 ? o->ranks_a_host : w;
    r->sim = s;
    r->end = &s->result->ranks[number];
    *r->end = (struct sim_rank_end){.end = SIM_ALIVE, .stopped_at_s = -1};
    r->stopped_until_s = -o->timeout_s;
    r->clock_offset_s = 1e5 * sim__fraction(s);
    p2p__init(&r->p2p, &s->transport);
    if (p2p__alloc(&r->p2p, w, &err) != ST_OK)
        abort();
    r->p2p.answers = true;
    struct comm *c = &r->comm;
    *c = (struct comm){.ops = &sim_ops,
                       .impl = r,
                       .rank = number,
                       .world_size = w,
                       .local_rank = number % each,
                       .node = number / each,
                       .n_nodes = (w + each - 1) / each,
                       .timeout_s = o->timeout_s};
    c->local_size = c->node == c->n_nodes - 1 ? w - c->node * each : each;
    for (int i = 0; i < w; i++) {
        r->p2p.leaders[i] = i * each;
        snprintf(r->p2p.hosts[i], sizeof r->p2p.hosts[i], "host%d", i / each);
    }
    memcpy(c->host, r->p2p.hosts[number], sizeof c->host);
    getcontext(&r->context);
    r->context.uc_stack.ss_sp = stack_of(s, number, stacks);
    r->context.uc_stack.ss_size = o->stack_bytes;
    makecontext(&r->context, rank_main, 0);
}

/* The rank to go on with; time passes when all sleep. NULL: all have ended. */
static struct rank *next_rank(struct sim *s)
{
    for (;;) {
        int n_ready = 0, n_alive = 0;
        double next_s = sim__mail_next_s(s);
        for (int r = 0; r < s->o->world_size; r++) {
            if (s->ranks[r].end->end != SIM_ALIVE)
                continue;
            n_alive++;
            n_ready += s->ranks[r].wake_s <= s->now_s;
            next_s = fmin(next_s, s->ranks[r].wake_s);
        }
        if (n_alive == 0)
            return NULL;
        int pick = n_ready > 0 ? sim_draw(&s->random, n_ready) : -1;
        for (int r = 0; r < s->o->world_size && pick >= 0; r++)
            if (s->ranks[r].end->end == SIM_ALIVE && s->ranks[r].wake_s <= s->now_s && pick-- == 0)
                return &s->ranks[r];
        if (next_s > s->o->limit_s)
            return NULL;
        s->now_s = next_s;
        sim__mail_due(s);
    }
}

static void release(struct sim *s)
{
    sim__release_messages(s);
    for (int r = 0; r < s->o->world_size; r++) {
        if (s->ranks[r].end->end == SIM_ALIVE) {
            s->ranks[r].end->end = SIM_HUNG;
            s->ranks[r].end->at_s = s->now_s;
        }
        p2p__release(&s->ranks[r].p2p);
    }
    free(s->ranks);
    free(s->blocks);
}

void sim_run(const struct sim_options *o, void (*body)(struct comm *c, void *user), void *user,
             struct sim_result *result)
{
    struct sim s = {.o = o, .result = result, .random = o->seed, .body = body, .user = user};
    size_t each = o->stack_bytes + GUARD_BYTES;
    char *stacks = stacks_take(each * (size_t)o->world_size, each);
    s.ranks = calloc((size_t)o->world_size, sizeof *s.ranks);
    s.blocks = calloc((size_t)o->world_size, sizeof *s.blocks);
    if (s.ranks == NULL || s.blocks == NULL)
        abort();
    memset(result, 0, sizeof *result);
    s.transport = sim__transport;
    s.transport.chunk_bytes = o->chunk_bytes;
    for (int r = 0; r < o->world_size; r++)
        rank_open(&s, r, stacks);
    sim__now = &s;
#ifdef __SANITIZE_ADDRESS__
    __lsan_disable(); /* who is killed frees nothing */
#endif
    for (struct rank *r = next_rank(&s); r != NULL; r = next_rank(&s))
        switch_to(r);
#ifdef __SANITIZE_ADDRESS__
    __lsan_enable();
#endif
    sim__now = NULL;
    release(&s);
}

/* ---- judging an end ---- */

bool sim_blame_is_right(const struct sim_options *o, const struct sim_result *result, int rank, char *why,
                        size_t why_bytes)
{
    const struct sim_rank_end *mine = &result->ranks[rank];
    int n_named = 0;
    if (strncmp(mine->err.what, "nothing heard for", 17) != 0)
        return true;
    for (const char *at = mine->err.what; (at = strstr(at, "rank ")) != NULL; at += 5, n_named++) {
        int r = atoi(at + 5);
        const struct sim_rank_end *e = &result->ranks[r];
        bool ended = e->end != SIM_ALIVE && e->end != SIM_HUNG && e->at_s < mine->at_s;
        bool stopped = e->stopped_at_s >= 0 && e->stopped_at_s < mine->at_s;
        if (r < 0 || r >= o->world_size || (!ended && !stopped)) {
            snprintf(why, why_bytes, "rank %d blames rank %d, which was alive: %s", rank, r, mine->err.what);
            return false;
        }
    }
    if (n_named == 0)
        snprintf(why, why_bytes, "rank %d blames nobody: %s", rank, mine->err.what);
    return n_named > 0;
}
