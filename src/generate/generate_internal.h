/* Choosing one id: a list of candidates whose scores pass through one step after the other. */
#ifndef SMGPT_GENERATE_INTERNAL_H
#define SMGPT_GENERATE_INTERNAL_H

#include "generate/generate.h"

/* Only ids that may come next are held, so that a choice among a few hundred costs that much, not a walk over
 * the vocabulary. Memory is taken once and serves every choice. */
struct candidates {
    int32_t *ids;   /* [n] rising */
    double *scores; /* [n] */
    double *mass;   /* [n] scratch: softmax without its divisor */
    int32_t *heap;  /* [n] scratch: positions, for top_p */
    bool *mark;     /* [n] scratch */
    int32_t n, capacity;
};
enum status candidates__init(struct candidates *c, int32_t capacity, struct err *err);
void candidates__release(struct candidates *c);

/* Starts a choice among the n rising ids (at most capacity): scores are their logits, [V] in all. allowed
 * NULL: the ids 0 .. n - 1. ST_INPUT when a logit is no finite number. */
enum status candidates__gather(struct candidates *c, const float *logits, const int32_t *allowed, int32_t n,
                               struct err *err);
/* Every id of history once: x < 0 ? x p : x / p. */
void candidates__penalize(struct candidates *c, const int32_t *history, int32_t n_history, double penalty);
/* Drops the ids that would end a run of n_gram ids that history has already; drops none when none would be
 * left. n_gram < 1: nothing. */
void candidates__ban_ngrams(struct candidates *c, const int32_t *history, int32_t n_history, int32_t n_gram);
/* Adds to the score of an id, if it is among them. */
void candidates__add(struct candidates *c, int32_t id, double bias);
/* The chosen id. Random numbers come from (seed, index, token) alone. *logprob: of the chosen among the
 * candidates, tempered unless greedy, before top_p. */
int32_t candidates__choose(struct candidates *c, const struct sampler *s, uint32_t index, uint64_t token,
                           double *logprob);

/* ST_USAGE naming the setting that is out of range. */
enum status sampler__check(const struct sampler *s, struct err *err);

#endif
