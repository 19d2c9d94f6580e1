/* From text to motion tokens: sampling under length rules, on ids: at least 0.6 and at most 1.4 times
 * the median length of the text's examples, the end made likelier past the median. */
#ifndef SMGPT_GENERATE_GENERATE_H
#define SMGPT_GENERATE_GENERATE_H

#include "data/template.h"
#include "model/model.h"

/* The score of a candidate id goes through these, in this order: repetition_penalty p (x < 0 ? x p : x / p,
 * once for each distinct id), the ban of a no_repeat_ngram seen before, the rise of END by end_logit_slope
 * for each motion id past the usual length, temperature, top_p. The first two look at the motion ids
 * generated so far and at nothing else: neither prompt nor BEGIN nor END. */
struct sampler {
    bool greedy; /* the best score, lowest id on ties; temperature and top_p do not count */
    double temperature, top_p, repetition_penalty, end_logit_slope;
    int32_t no_repeat_ngram; /* 0: off */
    int32_t max_new_tokens;  /* BEGIN, END and spaces count */
    bool per_prompt_vocab;   /* known texts: only the codes seen with the text */
    uint64_t seed;
};

/* The automaton BEGIN, motion ids, END with its length limits, for one text. With the median m of the text's
 * lengths (unknown text: of all lengths, or 16): hard_min = max(1, int(0.6 m)), soft = m, hard_max =
 * max(hard_min + 4, int(1.4 m)), in double (E.8). */
struct constraint {
    const struct motion_vocab *vocab; /* borrowed */
    const int32_t *codes;             /* allowed codebook ids, sorted, borrowed from vocab; NULL: all */
    int32_t n_codes;
    int32_t hard_min, soft, hard_max;
    int32_t n_motion; /* motion ids so far */
    enum { CONSTRAINT_BEGIN, CONSTRAINT_MOTION, CONSTRAINT_DONE } at;
};
/* max_new_tokens (at least 3) bounds hard_max so that END always fits. */
void constraint_init(struct constraint *c, const struct motion_vocab *v, const char *text,
                     bool per_prompt_vocab, int32_t max_new_tokens);
/* Allowed ids now, rising: into allowed (caller's, at least n_codes + 1 long), returns how many. Never 0;
 * after END only END. */
int32_t constraint_allowed(const struct constraint *c, int32_t *allowed);
/* What END's score rises by now. */
double constraint_end_bias(const struct constraint *c, double slope);
/* id must be one of the allowed. */
void constraint_advance(struct constraint *c, int32_t id);

struct generation {
    int32_t *motion; /* codebook ids, owned */
    int32_t n_motion;
    /* Sum over BEGIN, motion ids and END of log p: softmax over the allowed ids of the scores, tempered
     * (greedy: not tempered), before top_p cuts. Spaces do not count. */
    double logprob;
    bool ended; /* END was produced: always, when generation succeeds */
};
void generation_release(struct generation *g);

struct generate_request {
    const char *text;
    int32_t participant; /* -1: none */
    uint32_t index;      /* sample number: the random stream, together with the seed */
};
/* Generates all requests, in batches that fit; results [n] filled in order, owned by the caller (release
 * each); nothing is left in them on failure. Each distinct prompt runs through the model once. A result
 * depends on its request and the seed, not on the other requests. With space_tokens the spaces that training
 * put between the ids are fed in where they belong. ST_USAGE: a sampler setting out of range, max_new_tokens
 * too few for one motion id; ST_INPUT: the vocabulary is not the model's, a logit that is no number; ST_ENV:
 * memory. Not collective. */
enum status generate_motion(struct model *m, struct template *tp, const struct motion_vocab *v,
                            const struct sampler *s, const struct generate_request *requests, int32_t n,
                            struct generation *results, struct err *err);

/* Plain continuation of ids, no constraint, no penalties: greedy (argmax of the logits), or sampled with
 * temperature and top_p. Stops at a stop id (appended) or after max_new_tokens. out: the new ids alone,
 * cleared first; logprob: sum of the log softmax of the chosen, tempered unless greedy, before top_p.
 * ST_USAGE without ids; else as above. */
enum status generate_plain(struct model *m, const int32_t *ids, int32_t n_ids, const int32_t *stop_ids,
                           int32_t n_stop, const struct sampler *s, struct ids *out, double *logprob,
                           struct err *err);

#endif
