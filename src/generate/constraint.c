/* Which ids may come next: BEGIN, motion ids within the length limits, END. In token ids throughout; the
 * codes of a text are mapped here. */
#include "generate/generate.h"

#include <stddef.h>

#define UNKNOWN_MEDIAN 16

/* int() of a length in double; far above any length that fits, so that no cast overflows. */
static int32_t length_of(double x)
{
    return x < 1e9 ? (int32_t)x : 1000000000;
}

void constraint_init(struct constraint *c, const struct motion_vocab *v, const char *text,
                     bool per_prompt_vocab, int32_t max_new_tokens)
{
    const struct text_info *info = motion_vocab_text(v, text);
    int32_t m = info ? info->median_len : v->median_len, room = max_new_tokens - 2;
    if (m < 1)
        m = UNKNOWN_MEDIAN;
    *c = (struct constraint){.vocab = v, .n_codes = v->n_codes, .soft = m, .at = CONSTRAINT_BEGIN};
    if (info && per_prompt_vocab && info->n_codes > 0) {
        c->codes = info->codes;
        c->n_codes = info->n_codes;
    }
    c->hard_min = length_of(0.6 * m);
    if (c->hard_min < 1)
        c->hard_min = 1;
    c->hard_max = length_of(1.4 * m);
    if (c->hard_max < c->hard_min + 4)
        c->hard_max = c->hard_min + 4;
    if (room < 1)
        room = 1;
    if (c->hard_max > room)
        c->hard_max = room;
    if (c->hard_min > c->hard_max)
        c->hard_min = c->hard_max;
}

int32_t constraint_allowed(const struct constraint *c, int32_t *allowed)
{
    const struct motion_vocab *v = c->vocab;
    int32_t n = 0;
    if (c->at == CONSTRAINT_BEGIN) {
        allowed[n++] = v->begin;
        return n;
    }
    bool end = c->at == CONSTRAINT_DONE || c->n_motion >= c->hard_min;
    if (end && v->end < v->motion_first)
        allowed[n++] = v->end;
    if (c->at == CONSTRAINT_MOTION && c->n_motion < c->hard_max)
        for (int32_t i = 0; i < c->n_codes; i++)
            allowed[n++] = v->motion_first + (c->codes ? c->codes[i] : i);
    if (end && v->end > v->motion_first)
        allowed[n++] = v->end;
    return n;
}

double constraint_end_bias(const struct constraint *c, double slope)
{
    return c->at == CONSTRAINT_MOTION && c->n_motion > c->soft ? slope * (c->n_motion - c->soft) : 0;
}

void constraint_advance(struct constraint *c, int32_t id)
{
    if (id == c->vocab->end)
        c->at = CONSTRAINT_DONE;
    else if (id == c->vocab->begin)
        c->at = CONSTRAINT_MOTION;
    else
        c->n_motion++;
}
