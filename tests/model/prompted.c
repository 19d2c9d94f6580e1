#include "prompted.h"
#include "util/rng.h"

static int32_t token(uint64_t number, int32_t at)
{
    return (int32_t)(rng_u64(number, RNG_TEST, 0, (uint64_t)at) % PROMPTED_VOCAB);
}

void prompted_make(struct prompted *m, int32_t n_prompt, uint64_t prompt, const int32_t *lengths, int n_rows,
                   uint64_t rows)
{
    m->p = (struct packed){.ids = m->ids, .positions = m->positions};
    m->p.first_label = m->first_label;
    m->p.labels = m->labels;
    m->p.segments = m->segments;
    m->segments[m->p.n_segments++] = (struct segment){0, n_prompt, -1, -1};
    for (int32_t t = 0; t < n_prompt; t++) {
        m->ids[t] = token(prompt, t);
        m->positions[t] = t;
        m->first_label[t] = 0;
    }
    int32_t at = n_prompt;
    for (int r = 0; r < n_rows; r++) {
        m->segments[m->p.n_segments++] = (struct segment){at, lengths[r], 0, r};
        for (int32_t i = 0; i < lengths[r]; i++, at++) {
            m->ids[at] = token(rows + (uint64_t)r, i);
            m->positions[at] = n_prompt + i;
            m->first_label[at] = m->p.n_labels;
            if (i > 0)
                m->labels[m->p.n_labels++] = token(rows + (uint64_t)r + 100, i);
        }
    }
    m->first_label[at] = m->p.n_labels;
    m->p.n_tokens = at;
}
