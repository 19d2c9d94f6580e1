/* Generation with a random model: what must hold whatever the weights. */
#include "generate/generate.h"
#include "tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (int32_t)(sizeof(a) / sizeof *(a))

static const char rows[] =
    "[{\"text_query\":\"hello\",\"motion_tokens\":\"3 1 4 1 5\",\"participant_id\":\"b\"},"
    "{\"text_query\":\"hello\",\"motion_tokens\":\"9 2 6 5 3 5 8 9 7\",\"participant_id\":\"a\"},"
    "{\"text_query\":\"thank you\",\"motion_tokens\":\"11 11 11 0 0 0 11 2 11 0 11 2\"},"
    "{\"text_query\":\"no\",\"motion_tokens\":\"7\"}]";

static struct sampler sampling(uint64_t seed)
{
    return (struct sampler){.temperature = 0.7,
                            .top_p = 0.9,
                            .repetition_penalty = 1.2,
                            .end_logit_slope = 0.25,
                            .no_repeat_ngram = 6,
                            .max_new_tokens = 256,
                            .per_prompt_vocab = true,
                            .seed = seed};
}

static void generate(const struct tiny *t, const struct sampler *s, const struct generate_request *requests,
                     int32_t n, struct generation *out)
{
    struct err err = ERR_INIT;
    if (generate_motion(t->model, t->template, &t->vocab, s, requests, n, out, &err))
        fail_msg("%s", err.what);
}

static void release(struct generation *g, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        generation_release(&g[i]);
}

/* Requests with repeated and mixed prompts, in no order. */
static void mix(struct generate_request *requests, int32_t n)
{
    static const char *const texts[] = {"hello", "no", "thank you", "not in the data", "hello", ""};
    for (int32_t i = 0; i < n; i++)
        requests[i] = (struct generate_request){
            .text = texts[(i * 5) % COUNT(texts)], .participant = i % 3 - 1, .index = (uint32_t)(i / 2)};
}

static void check_equal(const struct generation *a, const struct generation *b)
{
    assert_int_equal(a->n_motion, b->n_motion);
    assert_memory_equal(a->motion, b->motion, (size_t)a->n_motion * sizeof *a->motion);
    assert_true(a->ended == b->ended);
    assert_true(fabs(a->logprob - b->logprob) <= 1e-4 * (1 + fabs(b->logprob)));
}

/* 150 requests do not fit a batch: slots are used again, prompts change in the middle. */
static void batched_equals_single(bool space_tokens)
{
    enum { N = 150 };
    struct tiny t;
    struct generate_request requests[N];
    struct generation together[N], again[N], alone;
    struct sampler s = sampling(3);
    int32_t n_lengths = 0;
    tiny_open(&t, rows, space_tokens, 1);
    mix(requests, N);
    generate(&t, &s, requests, N, together);
    generate(&t, &s, requests, N, again);
    for (int32_t i = 0; i < N; i++) {
        generate(&t, &s, &requests[i], 1, &alone);
        check_equal(&together[i], &alone);
        check_equal(&together[i], &again[i]);
        assert_true(together[i].logprob == again[i].logprob);
        n_lengths += i > 0 && together[i].n_motion != together[i - 1].n_motion;
        generation_release(&alone);
    }
    assert_true(n_lengths > 20); /* sequences did leave the batch at different times */
    release(together, N);
    release(again, N);
    tiny_close(&t);
}

static void test_batched_equals_single(void **state)
{
    batched_equals_single(false);
}

static void test_batched_equals_single_with_spaces(void **state)
{
    batched_equals_single(true);
}

static bool is_known(const struct text_info *info, int32_t code)
{
    for (int32_t i = 0; i < info->n_codes; i++)
        if (info->codes[i] == code)
            return true;
    return false;
}

static void check_valid(const struct tiny *t, const struct sampler *s, const struct generate_request *q,
                        const struct generation *g)
{
    struct constraint c;
    const struct text_info *info = motion_vocab_text(&t->vocab, q->text);
    constraint_init(&c, &t->vocab, q->text, s->per_prompt_vocab, s->max_new_tokens);
    assert_true(g->ended);
    assert_in_range(g->n_motion, c.hard_min, c.hard_max);
    assert_in_range(g->n_motion, 1, s->max_new_tokens - 2);
    assert_true(isfinite(g->logprob) && g->logprob <= 0);
    for (int32_t i = 0; i < g->n_motion; i++) {
        assert_in_range(g->motion[i], 0, t->vocab.n_codes - 1);
        assert_true(!s->per_prompt_vocab || !info || is_known(info, g->motion[i]));
    }
}

static void test_always_valid(void **state)
{
    enum { N = 30 };
    static const int32_t max_new[] = {256, 3, 4, 9, 256};
    struct tiny t;
    struct generate_request requests[N];
    struct generation g[N];
    tiny_open(&t, rows, false, 2);
    mix(requests, N);
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct sampler s = sampling(seed);
        s.per_prompt_vocab = seed % 2;
        s.greedy = seed % 7 == 6;
        s.no_repeat_ngram = (int32_t)(seed % 4);
        s.max_new_tokens = max_new[seed % COUNT(max_new)];
        s.temperature = seed % 3 ? 0.7 : 50; /* hot: every allowed id comes */
        generate(&t, &s, requests, N, g);
        for (int32_t i = 0; i < N; i++)
            check_valid(&t, &s, &requests[i], &g[i]);
        release(g, N);
    }
    tiny_close(&t);
}

static void test_seed_and_index_matter(void **state)
{
    enum { N = 16 };
    struct tiny t;
    struct generate_request requests[N];
    struct generation a[N], b[N];
    struct sampler s = sampling(1), other = sampling(2);
    int32_t same_index = 0, same_seed = 0;
    tiny_open(&t, rows, false, 3);
    for (int32_t i = 0; i < N; i++)
        requests[i] = (struct generate_request){.text = "unknown", .participant = -1, .index = (uint32_t)i};
    generate(&t, &s, requests, N, a);
    generate(&t, &other, requests, N, b);
    for (int32_t i = 0; i < N; i++) {
        size_t bytes = (size_t)a[i].n_motion * sizeof *a[i].motion;
        same_seed += a[i].n_motion == b[i].n_motion && memcmp(a[i].motion, b[i].motion, bytes) == 0;
        same_index += i && a[i].n_motion == a[0].n_motion && memcmp(a[i].motion, a[0].motion, bytes) == 0;
    }
    assert_true(same_seed < 3 && same_index < 3);
    release(a, N);
    release(b, N);
    tiny_close(&t);
}

/* ---- Greedy generation again, from the rules: no cache, no batch, nothing of the sampler. */

static bool run_seen(const int32_t *ids, int32_t n, int32_t id, int32_t n_gram)
{
    for (int32_t i = 0; n_gram > 0 && i + n_gram <= n; i++)
        if (ids[i + n_gram - 1] == id &&
            memcmp(ids + i, ids + n - (n_gram - 1), (size_t)(n_gram - 1) * sizeof *ids) == 0)
            return true;
    return false;
}

/* Score of every id behind the motion ids so far; -inf where not allowed. */
static void rule_scores(const struct tiny *t, const struct sampler *s, const struct constraint *c,
                        const int32_t *motion, int32_t n, const float *logits, double *scores)
{
    int32_t v = (int32_t)model_vocab(t->model), n_left = 0;
    for (int pass = 0; pass < 2 && n_left == 0; pass++)
        for (int32_t id = 0; id < v; id++) {
            int32_t code = id - t->vocab.motion_first;
            bool is_motion = code >= 0 && code < t->vocab.n_codes && n < c->hard_max, used = false;
            for (int32_t i = 0; i < c->n_codes && c->codes && is_motion; i++)
                used |= c->codes[i] == code;
            is_motion &= !c->codes || used;
            used = false;
            for (int32_t i = 0; i < n; i++)
                used |= motion[i] == id;
            scores[id] = logits[id];
            if (used)
                scores[id] *= logits[id] < 0 ? s->repetition_penalty : 1 / s->repetition_penalty;
            if (id == t->vocab.end && n >= c->hard_min)
                scores[id] += n > c->soft ? s->end_logit_slope * (n - c->soft) : 0;
            else if (!is_motion || (pass == 0 && run_seen(motion, n, id, s->no_repeat_ngram)))
                scores[id] = -INFINITY;
            n_left += scores[id] > -INFINITY;
        }
}

static void generate_by_rules(const struct tiny *t, const struct sampler *s, const struct generate_request *q,
                              const int32_t *spaces, int32_t n_spaces, struct generation *out)
{
    struct err err = ERR_INIT;
    struct constraint c;
    struct ids ids = IDS_INIT;
    int32_t v = (int32_t)model_vocab(t->model), motion[256];
    float *logits = malloc((size_t)v * sizeof *logits);
    double *scores = malloc((size_t)v * sizeof *scores);
    *out = (struct generation){0};
    constraint_init(&c, &t->vocab, q->text, s->per_prompt_vocab, s->max_new_tokens);
    assert_int_equal(template_prompt(t->template, q->text, q->participant, &ids, &err), ST_OK);
    assert_int_equal(ids_push(&ids, t->vocab.begin, &err), ST_OK);
    while (!out->ended) {
        double total = 0;
        int32_t top = 0;
        assert_int_equal(ids_append(&ids, spaces, n_spaces, &err), ST_OK);
        tiny_last_logits(t, ids.data, ids.n, logits);
        rule_scores(t, s, &c, motion, out->n_motion, logits, scores);
        for (int32_t id = 0; id < v; id++)
            top = scores[id] > scores[top] ? id : top;
        for (int32_t id = 0; id < v; id++)
            total += exp(scores[id] - scores[top]);
        out->logprob -= log(total);
        out->ended = top == t->vocab.end;
        if (!out->ended)
            motion[out->n_motion++] = top;
        assert_int_equal(ids_push(&ids, top, &err), ST_OK);
    }
    out->motion = malloc(sizeof motion);
    for (int32_t i = 0; i < out->n_motion; i++)
        out->motion[i] = motion[i] - t->vocab.motion_first;
    ids_release(&ids);
    free(logits);
    free(scores);
}

static void greedy_follows_the_rules(bool space_tokens)
{
    static const char *const texts[] = {"hello", "no", "thank you", "else"};
    struct generation expected, got;
    for (uint64_t k = 0; k < 12; k++) {
        struct tiny t;
        struct sampler s = sampling(0);
        struct generate_request q = {.text = texts[k % 4], .participant = (int32_t)(k % 3) - 1};
        int32_t space = ' ', n_spaces = space_tokens;
        s.greedy = true;
        s.no_repeat_ngram = (int32_t)(k % 4);
        s.repetition_penalty = k % 2 ? 1.2 : 0.5;
        s.end_logit_slope = k % 5 ? 0.25 : 3;
        tiny_open(&t, rows, space_tokens, 100 + k);
        if (space_tokens)
            space = tokenizer_id(t.tokenizer, "\xc4\xa0");
        assert_true(space >= 0);
        generate(&t, &s, &q, 1, &got);
        generate_by_rules(&t, &s, &q, &space, n_spaces, &expected);
        check_equal(&got, &expected);
        generation_release(&got);
        generation_release(&expected);
        tiny_close(&t);
    }
}

static void test_greedy_follows_the_rules(void **state)
{
    greedy_follows_the_rules(false);
}

static void test_greedy_follows_the_rules_with_spaces(void **state)
{
    greedy_follows_the_rules(true);
}

/* The spaces take their part of max_new_tokens: what would be a fed span never exceeds it. */
static void test_spaces_count_as_new_tokens(void **state)
{
    struct tiny t;
    struct generation g;
    struct generate_request q = {.text = "thank you", .participant = -1};
    tiny_open(&t, rows, true, 4);
    for (int32_t max_new = 5; max_new < 20; max_new++) {
        struct sampler s = sampling((uint64_t)max_new);
        s.max_new_tokens = max_new;
        generate(&t, &s, &q, 1, &g);
        assert_true(g.ended && g.n_motion >= 1 && 3 + 2 * g.n_motion <= max_new);
        generation_release(&g);
    }
    tiny_close(&t);
}

static void test_refused(void **state)
{
    struct tiny t;
    struct sampler good = sampling(1), cold = good, few = good, spaced = good;
    struct motion_vocab large;
    cold.temperature = 0;
    few.max_new_tokens = 2;
    spaced.max_new_tokens = 4;
    tiny_open(&t, rows, false, 5);
    large = t.vocab;
    large.vocab_size++;
    const struct {
        const struct sampler *s;
        const struct motion_vocab *v;
        int32_t participant;
        enum status status;
        const char *what;
    } cases[] = {
        {&cold, &t.vocab, -1, ST_USAGE, "temperature 0 is not above 0"},
        {&few, &t.vocab, -1, ST_USAGE,
         "max_new_tokens 2 is too few, one motion token between its marks takes 3"},
        {&good, &large, -1, ST_INPUT, "the motion vocabulary has ids below 281, the model has 280 rows"},
        {&good, &t.vocab, 2, ST_INPUT, "participant 2 of 2"},
    };
    for (int32_t i = 0; i < COUNT(cases); i++) {
        struct err err = ERR_INIT;
        struct generation g[2];
        struct generate_request q[2] = {{.text = "hello", .participant = -1},
                                        {.text = "no", .participant = cases[i].participant}};
        assert_int_equal(generate_motion(t.model, t.template, cases[i].v, cases[i].s, q, 2, g, &err),
                         cases[i].status);
        assert_string_equal(err.what, cases[i].what);
        assert_null(g[0].motion);
        assert_null(g[1].motion);
    }
    struct err err = ERR_INIT;
    assert_int_equal(generate_motion(t.model, t.template, &t.vocab, &good, NULL, 0, NULL, &err), ST_OK);
    tiny_close(&t);
    tiny_open(&t, rows, true, 5);
    struct generate_request q = {.text = "hello", .participant = -1};
    struct generation g;
    assert_int_equal(generate_motion(t.model, t.template, &t.vocab, &spaced, &q, 1, &g, &err), ST_USAGE);
    assert_string_equal(err.what, "max_new_tokens 4 is too few, one motion token between its marks takes 5");
    tiny_close(&t);
}

/* Weights that are no numbers end in an error, in the middle of a batch, and leave nothing behind. */
static void test_damaged_weights(void **state)
{
    struct tiny t;
    struct err err = ERR_INIT;
    struct generation g[3];
    struct generate_request q[3];
    struct sampler s = sampling(1);
    tiny_open(&t, rows, false, 6);
    mix(q, 3);
    /* The row of a code that "hello" never looks at: the unknown text beside it does. */
    for (int32_t j = 0; j < t.arch.hidden; j++)
        t.values[t.params.items[t.params.index_rows].offset + (2 + 10) * t.arch.hidden + j] = NAN;
    assert_int_equal(generate_motion(t.model, t.template, &t.vocab, &s, q, 3, g, &err), ST_INPUT);
    assert_string_equal(err.what, "the model's logit of token id 271 is not finite");
    for (int i = 0; i < 3; i++)
        assert_null(g[i].motion);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batched_equals_single),
        cmocka_unit_test(test_batched_equals_single_with_spaces),
        cmocka_unit_test(test_always_valid),
        cmocka_unit_test(test_seed_and_index_matter),
        cmocka_unit_test(test_greedy_follows_the_rules),
        cmocka_unit_test(test_greedy_follows_the_rules_with_spaces),
        cmocka_unit_test(test_spaces_count_as_new_tokens),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damaged_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
