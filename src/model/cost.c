/* Counting work. */
#include "model/cost.h"

void model_load_add(struct model_load *l, const struct packed *seq, const struct packed *before,
                    int64_t n_stem, const struct arch *a, const struct params *p)
{
    const int64_t n_kept = before ? model_common(before, seq) : 0;
    l->n_kept += n_kept;
    l->n_stem += n_stem;
    l->n_sequences++;
    l->n_tokens += seq->n_tokens;
    l->n_labels += seq->n_labels;
    if (seq->n_tokens > l->longest)
        l->longest = seq->n_tokens;
    for (int32_t t = 0; t < seq->n_tokens; t++) {
        int64_t seen = (int64_t)seq->positions[t] + 1;
        int64_t near = a->window > 0 && seen > a->window ? a->window : seen;
        if (seen > l->n_positions)
            l->n_positions = seen;
        l->pairs += (double)seen;
        l->window_pairs += (double)near;
        l->kept_pairs += t < n_kept ? (double)seen : 0;
        l->kept_window_pairs += t < n_kept ? (double)near : 0;
        l->stem_pairs += t < n_stem ? (double)seen : 0;
        l->stem_window_pairs += t < n_stem ? (double)near : 0;
        const bool labelled = packed_n_labels(seq, t) > 0;
        l->n_labelled += labelled;
        l->label_pairs += labelled ? (double)seen : 0;
        l->label_window_pairs += labelled ? (double)near : 0;
        l->n_new += t >= n_stem && seq->ids[t] >= p->new_first && seq->ids[t] < p->new_first + p->n_new;
    }
}

void model_load_stem(struct model_load *l, const struct packed *seq, int64_t n_stem, const struct arch *a,
                     const struct params *p)
{
    l->n_stem -= n_stem;
    for (int64_t t = 0; t < n_stem; t++) {
        l->stem_pairs -= (double)(t + 1);
        l->stem_window_pairs -= (double)(a->window > 0 && t + 1 > a->window ? a->window : t + 1);
        l->n_new += seq->ids[t] >= p->new_first && seq->ids[t] < p->new_first + p->n_new;
    }
}

static void projection_flops(struct model_flops *out, const struct arch *a, const struct params *p,
                             const struct model_load *l, int32_t layer, enum proj proj)
{
    bool first = layer == 0, last = layer == a->n_layers - 1;
    bool reads_input = proj == PROJ_Q || proj == PROJ_K || proj == PROJ_V;
    int64_t n_out, n_in;
    proj_shape(a, proj, &n_out, &n_in);
    /* Tokens whose output is read, those that run on the way up and down, and those whose input gradient is
     * read. */
    bool wanted = last && proj != PROJ_K && proj != PROJ_V;
    double n = (double)(wanted ? l->n_labelled : l->n_tokens);
    double n_up = wanted ? n : n - (double)l->n_kept;
    double n_down = wanted ? n : n - (double)l->n_stem;
    double n_back = first && reads_input && (double)l->n_new < n_down ? (double)l->n_new : n_down;
    out->projections += 2.0 * (double)(n_out * n_in) * (n_up + n_back);
    if (!p->index_lora || p->index_lora[layer][proj] < 0)
        return;
    /* Forward u = A x, B u; backward dB, du, dA and the input's gradient. */
    double r = p->lora.r;
    out->lora +=
        2 * r * ((double)(n_out + n_in) * n_up + (double)(2 * n_out + n_in) * n_down + (double)n_in * n_back);
}

static void layer_flops(struct model_flops *out, const struct arch *a, const struct params *p,
                        const struct model_load *l, int32_t layer)
{
    for (int i = 0; i < N_PROJ; i++)
        projection_flops(out, a, p, l, layer, (enum proj)i);
    double pairs = a->sliding[layer] ? l->window_pairs : l->pairs;
    double kept = a->sliding[layer] ? l->kept_window_pairs : l->kept_pairs;
    double stem = a->sliding[layer] ? l->stem_window_pairs : l->stem_pairs;
    if (layer == a->n_layers - 1) {
        pairs = a->sliding[layer] ? l->label_window_pairs : l->label_pairs;
        kept = stem = 0;
    }
    /* Scores and values forward; gradients of values, of probabilities, of queries and of keys backward. */
    out->attention += 2.0 * (2 * (pairs - kept) + 4 * (pairs - stem)) * a->n_q_heads * a->head_dim;
}

void model_flops(struct model_flops *out, const struct arch *a, const struct params *p,
                 const struct model_load *l)
{
    *out = (struct model_flops){0};
    for (int32_t i = 0; i < a->n_layers; i++)
        layer_flops(out, a, p, l, i);
    double v = a->n_embed_rows;
    if (p->new_first + p->n_new > a->n_embed_rows)
        v = (double)(p->new_first + p->n_new);
    double h = a->hidden, n = (double)l->n_labelled;
    out->head = 2 * n * h * (2 * v + (double)p->n_new);
    out->total = out->projections + out->lora + out->attention + out->head;
}
