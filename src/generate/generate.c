/* Text to motion for many requests. The sequences that are not finished step through the model together; a
 * finished one leaves its slot to the next request. Requests go in order of their prompts, and one more
 * sequence of the cache keeps the prompt that was run last, so that each prompt is run once however many
 * samples it has. */
#include "generate_internal.h"

#include <stdlib.h>
#include <string.h>

/* Sequences in a batch, and tokens that the cache holds for all of them together (8192 tokens of Qwen3-1.7B
 * are 1.9 GB). */
#define MAX_SLOTS        64
#define MAX_CACHE_TOKENS 8192

struct prompt {
    struct ids ids;
    const struct generate_request *request; /* the first with this prompt */
};

struct slot {
    struct constraint constraint;
    struct generation *result;              /* while it grows, motion holds token ids */
    const struct generate_request *request; /* NULL: free */
    uint64_t n_chosen;                      /* ids chosen so far */
    int32_t next;                           /* the id that goes into the model next */
    int32_t n_spaces;                       /* then as many ids that are given, not chosen */
};

struct run {
    struct model *m;
    const struct motion_vocab *vocab;
    const struct sampler *s;
    const struct generate_request *requests; /* [n] */
    struct generation *results;              /* [n] */
    int32_t n;
    int32_t *order;         /* [n] requests, equal prompts together */
    int32_t *prompt_of;     /* [n] in order */
    struct prompt *prompts; /* [n_prompts] */
    int32_t n_prompts;
    struct ids spaces;      /* what stands between two ids of a span */
    struct kv_cache *cache; /* n_slots sequences, then the one of prompt_held */
    int32_t n_slots, prompt_held, n_started;
    struct slot slots[MAX_SLOTS];
    float *prompt_logits; /* [V] */
    float *logits;        /* [n_slots, V] */
    int32_t *allowed;     /* [n_codes + 1] */
    struct candidates candidates;
};

void generation_release(struct generation *g)
{
    free(g->motion);
    *g = (struct generation){0};
}

static int compare_prompts(const void *a, const void *b, void *requests)
{
    const struct generate_request *r = requests;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    int text = strcmp(r[i].text, r[j].text);
    if (text)
        return text;
    if (r[i].participant != r[j].participant)
        return r[i].participant < r[j].participant ? -1 : 1;
    return i < j ? -1 : i > j;
}

static bool same_prompt(const struct generate_request *a, const struct generate_request *b)
{
    return a->participant == b->participant && strcmp(a->text, b->text) == 0;
}

/* Sorts the requests by prompt and encodes each prompt. */
static enum status make_prompts(struct run *r, struct template *tp, struct err *err)
{
    size_t n = (size_t)r->n;
    r->order = calloc(n, sizeof *r->order);
    r->prompt_of = calloc(n, sizeof *r->prompt_of);
    r->prompts = calloc(n, sizeof *r->prompts);
    if (!r->order || !r->prompt_of || !r->prompts)
        return err_memory(err, "requests", n * (2 * sizeof *r->order + sizeof *r->prompts));
    for (int32_t i = 0; i < r->n; i++)
        r->order[i] = i;
    qsort_r(r->order, n, sizeof *r->order, compare_prompts, (void *)(uintptr_t)r->requests);
    for (int32_t i = 0; i < r->n; i++) {
        const struct generate_request *q = &r->requests[r->order[i]];
        if (i == 0 || !same_prompt(q, r->prompts[r->n_prompts - 1].request)) {
            struct prompt *p = &r->prompts[r->n_prompts++];
            p->request = q;
            TRY(template_prompt(tp, q->text, q->participant, &p->ids, err));
        }
        r->prompt_of[i] = r->n_prompts - 1;
    }
    return ST_OK;
}

/* Training may put ids between BEGIN, motion and END (space_tokens); a row of one code shows which. */
static enum status find_spaces(struct run *r, struct template *tp, struct err *err)
{
    struct row row = {.ids = IDS_INIT, .labels = IDS_INIT};
    const int32_t code = 0, first = r->vocab->motion_first;
    enum status st = template_row(tp, TASK_T2M, "", &code, 1, NULL, -1, &row, err);
    int at = st == ST_OK ? row.ids.n : 0;
    while (at > 0 && row.ids.data[at - 1] != first)
        at--;
    int begin = at - 1;
    while (begin > 0 && row.ids.data[begin - 1] != r->vocab->begin)
        begin--;
    if (st == ST_OK && begin < 1)
        st = err_set(err, ST_DEFECT, "a row has no motion span");
    if (st == ST_OK)
        st = ids_append(&r->spaces, row.ids.data + begin, at - 1 - begin, err);
    ids_release(&row.ids);
    ids_release(&row.labels);
    return st;
}

/* The constraint of a request. Spaces take their part of max_new_tokens: BEGIN, h times (spaces, motion),
 * spaces, END. */
static void constrain(const struct run *r, const struct generate_request *q, struct constraint *c)
{
    int32_t n = r->spaces.n, room = (r->s->max_new_tokens - 2 - n) / (1 + n);
    constraint_init(c, r->vocab, q->text, r->s->per_prompt_vocab, room + 2);
}

/* Tokens that the longest sequence brings into the cache; END is never fed. */
static enum status cache_capacity(const struct run *r, int32_t *capacity, struct err *err)
{
    int64_t longest = 0;
    for (int32_t i = 0; i < r->n_prompts; i++) {
        struct constraint c;
        constrain(r, r->prompts[i].request, &c);
        int64_t n = r->prompts[i].ids.n + ((int64_t)c.hard_max + 1) * (1 + r->spaces.n);
        longest = n > longest ? n : longest;
    }
    if (longest > INT32_MAX / (MAX_SLOTS + 1))
        return err_set(err, ST_USAGE, "sequences of %lld tokens are too long", (long long)longest);
    *capacity = (int32_t)longest;
    return ST_OK;
}

/* As many slots as memory holds: results do not depend on their number. */
static enum status open_cache(struct run *r, int32_t capacity, struct err *err)
{
    r->n_slots = MAX_CACHE_TOKENS / capacity;
    if (r->n_slots > MAX_SLOTS)
        r->n_slots = MAX_SLOTS;
    if (r->n_slots > r->n)
        r->n_slots = r->n;
    if (r->n_slots < 1)
        r->n_slots = 1;
    for (;;) {
        struct err attempt = ERR_INIT;
        enum status st = kv_cache_open(&r->cache, r->m, r->n_slots + 1, capacity, &attempt);
        if (st == ST_ENV && r->n_slots > 1) {
            r->n_slots /= 2;
            continue;
        }
        return st == ST_OK ? ST_OK : err_set(err, st, "%s", attempt.what);
    }
}

static enum status open_run(struct run *r, struct template *tp, struct err *err)
{
    int32_t capacity = 0, v = (int32_t)model_vocab(r->m), n_allowed = r->vocab->n_codes + 1;
    TRY(sampler__check(r->s, err));
    if (r->vocab->vocab_size > v) {
        err_set(err, ST_INPUT, "the motion vocabulary has ids below %d, the model has %d rows",
                r->vocab->vocab_size, v);
        return err_hint(err, "the adapter and smgpt_data.json do not belong together");
    }
    TRY(find_spaces(r, tp, err));
    int32_t fewest = 3 + 2 * r->spaces.n;
    if (r->s->max_new_tokens < fewest)
        return err_set(err, ST_USAGE,
                       "max_new_tokens %d is too few, one motion token between its marks takes %d",
                       r->s->max_new_tokens, fewest);
    TRY(make_prompts(r, tp, err));
    TRY(cache_capacity(r, &capacity, err));
    TRY(open_cache(r, capacity, err));
    r->prompt_held = -1;
    r->prompt_logits = malloc((size_t)v * sizeof(float));
    r->logits = malloc((size_t)r->n_slots * (size_t)v * sizeof(float));
    r->allowed = malloc((size_t)n_allowed * sizeof *r->allowed);
    if (!r->prompt_logits || !r->logits || !r->allowed)
        return err_memory(err, "logits", ((size_t)r->n_slots + 1) * (size_t)v * sizeof(float));
    return candidates__init(&r->candidates, n_allowed, err);
}

static void close_run(struct run *r)
{
    kv_cache_close(r->cache);
    for (int32_t i = 0; i < r->n_prompts; i++)
        ids_release(&r->prompts[i].ids);
    ids_release(&r->spaces);
    candidates__release(&r->candidates);
    free(r->prompts);
    free(r->order);
    free(r->prompt_of);
    free(r->prompt_logits);
    free(r->logits);
    free(r->allowed);
}

/* END came: codebook ids instead of token ids, the slot is free. */
static void finish(struct run *r, struct slot *slot)
{
    struct generation *g = slot->result;
    for (int32_t i = 0; i < g->n_motion; i++)
        g->motion[i] -= r->vocab->motion_first;
    g->ended = true;
    slot->request = NULL;
}

/* Decides on the id behind the last one that went into the model, from that one's logits. */
static enum status choose(struct run *r, struct slot *slot, const float *logits, struct err *err)
{
    if (slot->n_spaces > 0) {
        slot->next = r->spaces.data[r->spaces.n - slot->n_spaces--];
        return ST_OK;
    }
    struct candidates *c = &r->candidates;
    struct generation *g = slot->result;
    double logprob;
    int32_t n = constraint_allowed(&slot->constraint, r->allowed);
    TRY(candidates__gather(c, logits, r->allowed, n, err));
    candidates__penalize(c, g->motion, g->n_motion, r->s->repetition_penalty);
    candidates__ban_ngrams(c, g->motion, g->n_motion, r->s->no_repeat_ngram);
    candidates__add(c, r->vocab->end, constraint_end_bias(&slot->constraint, r->s->end_logit_slope));
    int32_t id = candidates__choose(c, r->s, slot->request->index, slot->n_chosen++, &logprob);
    g->logprob += logprob;
    constraint_advance(&slot->constraint, id);
    slot->next = id;
    slot->n_spaces = r->spaces.n;
    if (id == r->vocab->end)
        finish(r, slot);
    else if (id != r->vocab->begin)
        g->motion[g->n_motion++] = id;
    return ST_OK;
}

/* The next request into a free slot. */
static enum status start(struct run *r, int32_t at, struct err *err)
{
    struct slot *slot = &r->slots[at];
    int32_t place = r->n_started++, prompt = r->prompt_of[place];
    const struct ids *ids = &r->prompts[prompt].ids;
    if (prompt != r->prompt_held) {
        r->prompt_held = -1;
        TRY(model_prefill(r->m, r->cache, r->n_slots, ids->data, ids->n, r->prompt_logits, err));
        r->prompt_held = prompt;
    }
    kv_cache_copy(r->cache, at, r->n_slots);
    *slot = (struct slot){.request = &r->requests[r->order[place]], .result = &r->results[r->order[place]]};
    constrain(r, slot->request, &slot->constraint);
    size_t bytes = (size_t)slot->constraint.hard_max * sizeof *slot->result->motion;
    slot->result->motion = malloc(bytes);
    if (!slot->result->motion)
        return err_memory(err, "motion tokens", bytes);
    return choose(r, slot, r->prompt_logits, err);
}

/* One token for every slot in use. */
static enum status step(struct run *r, struct err *err)
{
    int32_t which[MAX_SLOTS], ids[MAX_SLOTS], n = 0;
    for (int32_t i = 0; i < r->n_slots; i++)
        if (r->slots[i].request) {
            which[n] = i;
            ids[n++] = r->slots[i].next;
        }
    TRY(model_decode(r->m, r->cache, which, ids, n, r->logits, err));
    for (int32_t k = 0; k < n; k++)
        TRY(choose(r, &r->slots[which[k]], r->logits + k * model_vocab(r->m), err));
    return ST_OK;
}

static enum status generate_all(struct run *r, struct err *err)
{
    for (;;) {
        bool busy = false;
        for (int32_t i = 0; i < r->n_slots; i++) {
            if (!r->slots[i].request && r->n_started < r->n)
                TRY(start(r, i, err));
            busy |= r->slots[i].request != NULL;
        }
        if (!busy)
            return ST_OK;
        TRY(step(r, err));
    }
}

enum status generate_motion(struct model *m, struct template *tp, const struct motion_vocab *v,
                            const struct sampler *s, const struct generate_request *requests, int32_t n,
                            struct generation *results, struct err *err)
{
    if (n < 1)
        return ST_OK;
    struct run r = {.m = m, .vocab = v, .s = s, .requests = requests, .results = results, .n = n};
    memset(results, 0, (size_t)n * sizeof *results);
    enum status st = open_run(&r, tp, err);
    if (st == ST_OK)
        st = generate_all(&r, err);
    close_run(&r);
    for (int32_t i = 0; i < n && st != ST_OK; i++)
        generation_release(&results[i]);
    return st;
}
