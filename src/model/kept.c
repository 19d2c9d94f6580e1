/* What two sequences that follow each other have in common at their beginnings. A token's activations depend
 * on the trainable values and on the tokens that it sees, itself included: where both sequences have the same
 * tokens at the same places in the same segments, those of the first one are those of the second. */
#include "model/cost.h"
#include "model_internal.h"

#include <string.h>

/* Tokens from `first` on, `most` at most, that both have. */
static int32_t same_tokens(const struct packed *a, const struct packed *b, int32_t first, int32_t most)
{
    int32_t n = 0;
    while (n < most && a->ids[first + n] == b->ids[first + n] &&
           a->positions[first + n] == b->positions[first + n])
        n++;
    return n;
}

int64_t model_common(const struct packed *before, const struct packed *seq)
{
    int32_t label = 0, n = 0;
    while (label < seq->n_tokens && packed_n_labels(seq, label) == 0)
        label++;
    for (int32_t i = 0; i < before->n_segments && i < seq->n_segments; i++) {
        const struct segment *a = &before->segments[i], *b = &seq->segments[i];
        /* What comes before is the same to its end, and this hangs on it in the same way. */
        if (n != b->start || a->start != b->start || a->parent != b->parent)
            break;
        n += same_tokens(before, seq, b->start, a->n_tokens < b->n_tokens ? a->n_tokens : b->n_tokens);
        if (a->n_tokens != b->n_tokens)
            break;
    }
    return n < label ? n : label;
}

int64_t model__kept(const struct model *m, const struct packed *seq)
{
    return m->kept.n_tokens > 0 && !m->apart ? model_common(&m->kept, seq) : 0;
}

void model__keep(struct model *m, const struct packed *seq)
{
    struct packed *k = &m->kept;
    if (!m->training || m->n_again > 0 || seq->n_segments > m->capacity)
        return;
    k->n_tokens = seq->n_tokens;
    k->n_segments = seq->n_segments;
    memcpy(k->ids, seq->ids, (size_t)seq->n_tokens * sizeof *k->ids);
    memcpy(k->positions, seq->positions, (size_t)seq->n_tokens * sizeof *k->positions);
    memcpy(k->segments, seq->segments, (size_t)seq->n_segments * sizeof *k->segments);
}
