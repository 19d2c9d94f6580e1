/* Messages, questions and answers in simulated time. */
#include "sim_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Mostly at once, sometimes late, but far less late than a peer is given to answer. */
static double delay_s(struct sim *s)
{
    double x = sim__fraction(s), y = sim__fraction(s);
    return x < 0.5 ? 0 : x < 0.9 ? y * 1e-3 : y * s->o->timeout_s / 20;
}

static bool is_gone(const struct rank *r)
{
    return r->end->end != SIM_ALIVE;
}

static struct message *message_new(struct sim *s, int from, int to, int tag, size_t extra)
{
    struct message *m = calloc(1, sizeof *m + extra);
    if (m == NULL)
        abort();
    *m = (struct message){.from = from, .to = to, .tag = tag, .done_s = INFINITY, .older = s->messages};
    if (s->messages != NULL)
        s->messages->newer = m;
    s->messages = m;
    return m;
}

static void message_free(struct sim *s, struct message *m)
{
    if (m->newer != NULL)
        m->newer->older = m->older;
    else
        s->messages = m->older;
    if (m->older != NULL)
        m->older->newer = m->newer;
    if (m->eager && m->data != m + 1)
        free((void *)m->data);
    free(m);
}

void sim__release_messages(struct sim *s)
{
    while (s->messages != NULL)
        message_free(s, s->messages);
    for (struct mail *m = s->mail, *next; m != NULL; m = next) {
        next = m->next;
        free(m);
    }
    for (int r = 0; r < s->o->world_size; r++)
        for (struct mail *m = s->ranks[r].answers, *next; m != NULL; m = next) {
            next = m->next;
            free(m);
        }
}

/* The oldest half of that kind, taken out of the list. */
static struct message *half_take(struct rank *to, int from, int tag, bool sent)
{
    for (struct message **at = &to->half; *at != NULL; at = &(*at)->next) {
        struct message *m = *at;
        if (m->from == from && m->tag == tag && m->sent == sent) {
            *at = m->next;
            return m;
        }
    }
    return NULL;
}

static void half_put(struct rank *to, struct message *m)
{
    struct message **at = &to->half;
    while (*at != NULL)
        at = &(*at)->next;
    m->next = NULL;
    *at = m;
}

static void wake(struct rank *r, double at_s)
{
    if (r->aside && at_s < r->wake_s)
        r->wake_s = at_s;
}

static void pair(struct sim *s, struct message *m)
{
    m->done_s = fmax(s->now_s, m->arrives_s);
    wake(&s->ranks[m->from], m->done_s);
    wake(&s->ranks[m->to], m->done_s);
}

static void transport_send(struct comm *c, struct requests *set, int peer, const void *data, size_t n_bytes,
                           int tag)
{
    struct rank *r = c->impl;
    struct sim *s = r->sim;
    struct rank *to = &s->ranks[peer];
    sim__point(r);
    bool eager = n_bytes <= 64 && sim__fraction(s) < 0.7;
    struct message *m = half_take(to, c->rank, tag, false), *other = m;
    void *copy = NULL;
    if (m == NULL)
        m = message_new(s, c->rank, peer, tag, eager ? n_bytes : 0);
    if (eager)
        copy = other == NULL ? (void *)(m + 1) : malloc(n_bytes > 0 ? n_bytes : 1);
    if (copy != NULL)
        memcpy(copy, data, n_bytes);
    m->sent = true;
    m->eager = eager;
    m->data = eager ? copy : data;
    m->n_bytes = n_bytes;
    m->arrives_s = is_gone(to) ? INFINITY : s->now_s + delay_s(s);
    m->n_refs++;
    s->result->n_messages++;
    if (other == NULL)
        half_put(to, m);
    else
        pair(s, m);
    ((struct message **)set->items)[set->n] = m;
}

static void transport_recv(struct comm *c, struct requests *set, int peer, void *data, size_t n_bytes,
                           int tag)
{
    struct rank *r = c->impl;
    struct sim *s = r->sim;
    sim__point(r);
    struct message *m = half_take(r, peer, tag, true), *other = m;
    if (m == NULL)
        m = message_new(s, peer, c->rank, tag, 0);
    m->awaited = true;
    m->room = data;
    m->room_bytes = n_bytes;
    m->n_refs++;
    if (other == NULL)
        half_put(r, m);
    else
        pair(s, m);
    ((struct message **)set->items)[set->n] = m;
}

static void deliver(struct message *m)
{
    size_t n = m->n_bytes < m->room_bytes ? m->n_bytes : m->room_bytes;
    if (!m->delivered && n > 0)
        memcpy(m->room, m->data, n);
    m->delivered = true;
}

static void unref(struct sim *s, struct message *m)
{
    if (--m->n_refs > 0 || !m->sent || !m->awaited)
        return;
    message_free(s, m);
}

static bool transport_test(struct comm *c, struct requests *set)
{
    struct rank *r = c->impl;
    struct sim *s = r->sim;
    struct message **items = set->items;
    bool moved = false;
    sim__point(r);
    r->next_done_s = INFINITY;
    for (int i = 0; i < set->n; i++) {
        if (set->through[i])
            continue;
        struct message *m = items[i];
        bool through = (!set->incoming && m->eager) || m->done_s <= s->now_s;
        if (!through) {
            r->next_done_s = fmin(r->next_done_s, m->done_s);
            continue;
        }
        size_t came = m->n_bytes > m->room_bytes ? P2P_MORE : m->n_bytes;
        if (m->done_s <= s->now_s)
            deliver(m);
        unref(s, m);
        moved = true;
        p2p__through(c, set, i, came);
    }
    return moved;
}

/* Until something comes through or it is time to look at the peers. */
static void transport_aside(struct comm *c, double idle_s, double *nap_s)
{
    struct rank *r = c->impl;
    struct sim *s = r->sim;
    sim__point(r);
    r->aside = true;
    double nap = s->o->timeout_s / 40 * (0.5 + sim__fraction(s));
    sim__sleep(r, fmax(0, fmin(nap, r->next_done_s - s->now_s)));
    r->aside = false;
}

static double transport_now(struct comm *c)
{
    const struct rank *r = c->impl;
    return r->sim->now_s + r->clock_offset_s;
}

/* ---- questions and answers ---- */

static void mail_put(struct sim *s, const struct mail *m)
{
    struct mail *copy = malloc(sizeof *copy);
    if (copy == NULL)
        abort();
    *copy = *m;
    copy->next = s->mail;
    s->mail = copy;
}

static void transport_ask(struct comm *c, int peer)
{
    struct rank *r = c->impl;
    struct sim *s = r->sim;
    sim__point(r);
    mail_put(s, &(struct mail){.from = c->rank, .to = peer, .at_s = s->now_s + delay_s(s)});
}

static bool transport_answer(struct comm *c, int *rank, struct pong *out)
{
    struct rank *r = c->impl;
    struct mail *m = r->answers;
    if (m == NULL)
        return false;
    r->answers = m->next;
    *rank = m->from;
    *out = m->body;
    free(m);
    return true;
}

/* The thread that answers is stopped with its process, and looks for questions now and then. */
static void question_due(struct sim *s, struct mail *m)
{
    struct rank *r = &s->ranks[m->to];
    if (is_gone(r))
        return;
    if (r->stopped_until_s > s->now_s) {
        m->at_s = r->stopped_until_s + 0.1 * sim__fraction(s);
        mail_put(s, m);
        return;
    }
    struct mail answer = {.from = m->to, .to = m->from, .is_answer = true, .at_s = s->now_s + delay_s(s)};
    answer.body = p2p__pong(&r->p2p, m->from, s->now_s + r->clock_offset_s);
    mail_put(s, &answer);
}

void sim__mail_due(struct sim *s)
{
    for (struct mail **at = &s->mail; *at != NULL;) {
        struct mail *m = *at;
        if (m->at_s > s->now_s) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        if (m->is_answer) {
            m->next = s->ranks[m->to].answers;
            s->ranks[m->to].answers = m;
            continue;
        }
        question_due(s, m);
        free(m);
        at = &s->mail; /* what was put in front may be due as well */
    }
}

double sim__mail_next_s(const struct sim *s)
{
    double next_s = INFINITY;
    for (const struct mail *m = s->mail; m != NULL; m = m->next)
        next_s = fmin(next_s, m->at_s);
    return next_s;
}

/* What it sent without a copy can no longer be fetched, what was meant for it no longer be taken. */
void sim__lose_messages(struct rank *r)
{
    struct sim *s = r->sim;
    for (struct message *m = s->messages; m != NULL; m = m->older) {
        bool done = m->done_s <= s->now_s || m->delivered;
        bool mine = m->from == r->comm.rank, lost = !m->eager || sim__fraction(s) < 0.5;
        if (done && mine && !m->eager)
            deliver(m); /* its memory lives on here, but not in the world that is simulated */
        if (!done && ((mine && m->sent && lost) || m->to == r->comm.rank))
            m->done_s = m->arrives_s = INFINITY;
    }
}

const struct transport sim__transport = {
    .request_bytes = sizeof(struct message *),
    .send = transport_send,
    .recv = transport_recv,
    .test = transport_test,
    .aside = transport_aside,
    .now_s = transport_now,
    .ask = transport_ask,
    .answer = transport_answer,
};
