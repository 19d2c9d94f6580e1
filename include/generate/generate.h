/* From text to motion tokens: sampling under the length rules of E.8, on ids. */
#ifndef SMGPT_GENERATE_GENERATE_H
#define SMGPT_GENERATE_GENERATE_H

#include "data/template.h"
#include "model/model.h"

struct sampler {
    bool greedy;
    double temperature, top_p, repetition_penalty, end_logit_slope;
    int32_t no_repeat_ngram, max_new_tokens;
    bool per_prompt_vocab;
    uint64_t seed;
};

/* The automaton BEGIN, motion ids, END with its length limits, for one text. */
struct constraint {
    const struct motion_vocab *vocab;
    const int32_t *codes; /* allowed codebook ids, sorted; NULL: all */
    int32_t n_codes;
    int32_t hard_min, soft, hard_max;
    int32_t n_motion; /* motion ids so far */
    enum { CONSTRAINT_BEGIN, CONSTRAINT_MOTION, CONSTRAINT_DONE } at;
};
/* max_new_tokens bounds hard_max so that END always fits (defect 10 of E.10). */
void constraint_init(struct constraint *c, const struct motion_vocab *v, const char *text,
                     bool per_prompt_vocab, int32_t max_new_tokens);
/* Allowed ids now: into allowed (caller's, at least n_codes + 1 long), returns how many. */
int32_t constraint_allowed(const struct constraint *c, int32_t *allowed);
void constraint_advance(struct constraint *c, int32_t id);

struct generation {
    int32_t *motion; /* codebook ids, owned */
    int32_t n_motion;
    double logprob; /* sum of log p of the chosen ids under the constrained, tempered distribution */
    bool ended;     /* END was produced */
};
void generation_release(struct generation *g);

struct generate_request {
    const char *text;
    int32_t participant; /* -1: none */
    uint64_t index;      /* sample number: the random stream */
};
/* Generates all requests, in batches that fit; results [n] filled in order. Not collective. */
enum status generate_motion(struct model *m, struct template *tp, const struct motion_vocab *v,
                            const struct sampler *s, const struct generate_request *requests, int32_t n,
                            struct generation *results, struct err *err);

/* Plain continuation of ids, no constraint: greedy, or sampled with temperature and top_p. Stops at a stop id
 * (appended) or after max_new_tokens. */
enum status generate_plain(struct model *m, const int32_t *ids, int32_t n_ids, const int32_t *stop_ids,
                           int32_t n_stop, const struct sampler *s, struct ids *out, double *logprob,
                           struct err *err);

#endif
