/* Shared by the files of the simulation. */
#ifndef SMGPT_TESTS_SIM_INTERNAL_H
#define SMGPT_TESTS_SIM_INTERNAL_H

#include "../../src/comm/p2p_internal.h"
#include "sim.h"
#include <ucontext.h>

struct message { /* a send, a receive, or the pair of both */
    int from, to, tag;
    bool sent, awaited, eager, delivered;
    const void *data; /* of the sender; of an eager one the copy behind this struct */
    void *room;
    size_t n_bytes, room_bytes;
    double arrives_s, done_s; /* done_s: of the pair */
    int n_refs;
    struct message *next;          /* in the receiver's list, while it lacks a half */
    struct message *newer, *older; /* all that there are */
};

struct mail { /* a question or an answer */
    int from, to;
    bool is_answer;
    double at_s;
    struct pong body;
    struct mail *next;
};

struct rank {
    struct p2p p2p; /* first: comm.impl */
    struct sim *sim;
    struct comm comm;
    struct sim_rank_end *end;
    ucontext_t context;
    void *fake_stack;
    double wake_s, stopped_until_s, clock_offset_s, next_done_s;
    bool aside;
    struct message *half; /* to this rank, lacking a half; in order */
    struct mail *answers;
};

struct sim {
    const struct sim_options *o;
    struct sim_result *result;
    struct rank *ranks, *current;
    struct comm_shared *blocks; /* [hosts] */
    ucontext_t main;
    void *fake_stack;
    const void *main_stack;
    size_t main_stack_bytes;
    double now_s;
    uint64_t random;
    struct message *messages;
    struct mail *mail;
    struct transport transport;
    void (*body)(struct comm *c, void *user);
    void *user;
};

extern struct sim *sim__now; /* the one that runs: util/fatal has no other way to find it */

double sim__fraction(struct sim *s); /* [0, 1) */
void sim__switch_away(struct rank *r, bool for_ever);
void sim__sleep(struct rank *r, double s);
/* A chance for the scheduler: others first, a pause, a fault. */
void sim__point(struct rank *r);
_Noreturn void sim__end(struct rank *r, enum sim_end end);

/* sim_transport.c */
extern const struct transport sim__transport;
void sim__mail_due(struct sim *s);
double sim__mail_next_s(const struct sim *s);
void sim__lose_messages(struct rank *r); /* it is dead */
void sim__release_messages(struct sim *s);

#endif
