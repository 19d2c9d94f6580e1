/* The steps of generate_internal.h. Scores are doubles, sums run in a fixed order: a draw does not depend on
 * threads or batches. */
#include "generate_internal.h"
#include "util/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum status candidates__init(struct candidates *c, int32_t capacity, struct err *err)
{
    size_t n = (size_t)capacity;
    *c = (struct candidates){.capacity = capacity};
    c->ids = calloc(n, sizeof *c->ids);
    c->scores = calloc(n, sizeof *c->scores);
    c->mass = calloc(n, sizeof *c->mass);
    c->heap = calloc(n, sizeof *c->heap);
    c->mark = calloc(n, sizeof *c->mark);
    if (c->ids && c->scores && c->mass && c->heap && c->mark)
        return ST_OK;
    candidates__release(c);
    return err_memory(err, "candidates", n * (2 * sizeof(int32_t) + 2 * sizeof(double) + sizeof(bool)));
}

void candidates__release(struct candidates *c)
{
    free(c->ids);
    free(c->scores);
    free(c->mass);
    free(c->heap);
    free(c->mark);
    *c = (struct candidates){0};
}

enum status candidates__gather(struct candidates *c, const float *logits, const int32_t *allowed, int32_t n,
                               struct err *err)
{
    if (n < 1 || n > c->capacity)
        return err_set(err, ST_DEFECT, "%d candidates where there is room for 1 to %d", n, c->capacity);
    for (int32_t i = 0; i < n; i++) {
        int32_t id = allowed ? allowed[i] : i;
        if (!isfinite(logits[id])) {
            err_set(err, ST_INPUT, "the model's logit of token id %d is not finite", id);
            return err_hint(err, "the weights or the adapter are damaged, or training diverged");
        }
        c->ids[i] = id;
        c->scores[i] = logits[id];
    }
    c->n = n;
    return ST_OK;
}

/* Position of an id, or -1. */
static int32_t find(const struct candidates *c, int32_t id)
{
    int32_t low = 0, high = c->n;
    while (low < high) {
        int32_t at = low + (high - low) / 2;
        if (c->ids[at] < id)
            low = at + 1;
        else
            high = at;
    }
    return low < c->n && c->ids[low] == id ? low : -1;
}

void candidates__penalize(struct candidates *c, const int32_t *history, int32_t n_history, double penalty)
{
    if (penalty == 1)
        return;
    memset(c->mark, 0, (size_t)c->n * sizeof *c->mark);
    for (int32_t i = 0; i < n_history; i++) {
        int32_t at = find(c, history[i]);
        if (at < 0 || c->mark[at])
            continue;
        c->mark[at] = true;
        c->scores[at] = c->scores[at] < 0 ? c->scores[at] * penalty : c->scores[at] / penalty;
    }
}

void candidates__ban_ngrams(struct candidates *c, const int32_t *history, int32_t n_history, int32_t n_gram)
{
    if (n_gram < 1 || n_history < n_gram)
        return;
    size_t n_same = (size_t)(n_gram - 1) * sizeof *history;
    const int32_t *last = history + n_history - (n_gram - 1);
    int32_t n_banned = 0;
    memset(c->mark, 0, (size_t)c->n * sizeof *c->mark);
    for (int32_t i = 0; i + n_gram <= n_history; i++) {
        if (n_same && memcmp(history + i, last, n_same))
            continue;
        int32_t at = find(c, history[i + n_gram - 1]);
        if (at >= 0 && !c->mark[at]) {
            c->mark[at] = true;
            n_banned++;
        }
    }
    if (n_banned == c->n)
        return;
    int32_t n = 0;
    for (int32_t i = 0; i < c->n; i++)
        if (!c->mark[i]) {
            c->ids[n] = c->ids[i];
            c->scores[n++] = c->scores[i];
        }
    c->n = n;
}

void candidates__add(struct candidates *c, int32_t id, double bias)
{
    int32_t at = find(c, id);
    if (at >= 0)
        c->scores[at] += bias;
}

/* The first of the largest scores: ids rise, so the lowest id on ties. */
static int32_t best(const struct candidates *c)
{
    int32_t at = 0;
    for (int32_t i = 1; i < c->n; i++)
        if (c->scores[i] > c->scores[at])
            at = i;
    return at;
}

/* Larger mass first, then the lower id. */
static bool before(const struct candidates *c, int32_t a, int32_t b)
{
    return c->mass[a] > c->mass[b] || (c->mass[a] == c->mass[b] && a < b);
}

static void sift_down(struct candidates *c, int32_t at, int32_t n)
{
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(c, c->heap[child + 1], c->heap[child]))
            child++;
        if (before(c, c->heap[at], c->heap[child]))
            return;
        int32_t held = c->heap[at];
        c->heap[at] = c->heap[child];
        c->heap[child] = held;
    }
}

/* Moves the candidates that top_p keeps to the end of heap, the most likely last, and returns how many: those
 * before which less than top_p of the mass stands, so one at least. A heap, because of a whole vocabulary a
 * few are kept. *kept: their mass, summed in the order in which `draw` walks. */
static int32_t nucleus(struct candidates *c, double total, double top_p, double *kept)
{
    int32_t n = c->n;
    for (int32_t i = 0; i < n; i++)
        c->heap[i] = i;
    for (int32_t i = n / 2; i-- > 0;)
        sift_down(c, i, n);
    *kept = 0;
    while (n > 0 && (n == c->n || *kept < top_p * total)) {
        int32_t top = c->heap[0];
        *kept += c->mass[top];
        c->heap[0] = c->heap[--n];
        c->heap[n] = top;
        sift_down(c, 0, n);
    }
    return c->n - n;
}

/* Position in heap order from the end, or in the order of ids when everything is kept. */
static int32_t draw(struct candidates *c, double total, double top_p, double u)
{
    double kept = total, sum = 0;
    int32_t n = top_p < 1 ? nucleus(c, total, top_p, &kept) : c->n, at = 0;
    for (int32_t i = 0; i < n; i++) {
        at = top_p < 1 ? c->heap[c->n - 1 - i] : i;
        sum += c->mass[at];
        if (sum > u * kept)
            break;
    }
    return at;
}

int32_t candidates__choose(struct candidates *c, const struct sampler *s, uint32_t index, uint64_t token,
                           double *logprob)
{
    double t = s->greedy ? 1 : s->temperature, total = 0;
    int32_t top = best(c);
    for (int32_t i = 0; i < c->n; i++) {
        c->mass[i] = exp((c->scores[i] - c->scores[top]) / t);
        total += c->mass[i];
    }
    int32_t at = s->greedy ? top : draw(c, total, s->top_p, rng_uniform(s->seed, RNG_SAMPLER, index, token));
    *logprob = (c->scores[at] - c->scores[top]) / t - log(total);
    return c->ids[at];
}

enum status sampler__check(const struct sampler *s, struct err *err)
{
    if (!s->greedy && !(s->temperature > 0 && isfinite(s->temperature))) {
        err_set(err, ST_USAGE, "temperature %g is not above 0", s->temperature);
        return err_hint(err, "greedy decoding takes the best token");
    }
    if (!s->greedy && !(s->top_p > 0 && s->top_p <= 1))
        return err_set(err, ST_USAGE, "top_p %g is not above 0 and at most 1", s->top_p);
    if (!(s->repetition_penalty > 0 && isfinite(s->repetition_penalty)))
        return err_set(err, ST_USAGE, "repetition penalty %g is not above 0", s->repetition_penalty);
    if (!isfinite(s->end_logit_slope))
        return err_set(err, ST_USAGE, "end logit slope %g is not a number", s->end_logit_slope);
    if (s->no_repeat_ngram < 0)
        return err_set(err, ST_USAGE, "no-repeat n-gram %d is below 0", s->no_repeat_ngram);
    if (s->max_new_tokens < 1)
        return err_set(err, ST_USAGE, "max_new_tokens %d is below 1", s->max_new_tokens);
    return ST_OK;
}
