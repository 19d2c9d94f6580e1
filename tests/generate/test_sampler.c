#include "generate_internal.h"
#include "util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (int32_t)(sizeof(a) / sizeof *(a))

static struct sampler sampling(double temperature, double top_p, uint64_t seed)
{
    return (struct sampler){.temperature = temperature,
                            .top_p = top_p,
                            .repetition_penalty = 1,
                            .max_new_tokens = 8,
                            .seed = seed};
}

static void start(struct candidates *c, const float *logits, const int32_t *ids, int32_t n)
{
    struct err err = ERR_INIT;
    if (!c->capacity)
        assert_int_equal(candidates__init(c, 64, &err), ST_OK);
    if (candidates__gather(c, logits, ids, n, &err))
        fail_msg("%s", err.what);
}

static void check_ids(const struct candidates *c, const int32_t *ids, int32_t n)
{
    assert_int_equal(c->n, n);
    assert_memory_equal(c->ids, ids, (size_t)n * sizeof *ids);
}

static void test_gather_takes_the_allowed_only(void **state)
{
    static const float logits[] = {9, 1, NAN, 3, 8};
    static const int32_t ids[] = {1, 3};
    struct candidates c = {0};
    start(&c, logits, ids, 2);
    check_ids(&c, ids, 2);
    assert_true(c.scores[0] == 1 && c.scores[1] == 3);
    candidates__release(&c);
}

static void test_bad_logits(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int32_t i = 0; i < COUNT(bad); i++) {
        struct err err = ERR_INIT;
        struct candidates c = {0};
        float logits[] = {0, bad[i], 0};
        assert_int_equal(candidates__init(&c, 3, &err), ST_OK);
        assert_int_equal(candidates__gather(&c, logits, NULL, 3, &err), ST_INPUT);
        assert_string_equal(err.what, "the model's logit of token id 1 is not finite");
        candidates__release(&c);
    }
}

static void test_penalty_once_for_each_id(void **state)
{
    static const float logits[] = {2, -2, 3, 0};
    static const int32_t history[] = {0, 1, 0, 1, 0, 99, -5};
    struct candidates c = {0};
    start(&c, logits, NULL, 4);
    candidates__penalize(&c, history, COUNT(history), 1.25);
    assert_true(c.scores[0] == 2 / 1.25 && c.scores[1] == -2 * 1.25 && c.scores[2] == 3 && c.scores[3] == 0);
    candidates__release(&c);
}

static void test_ngram_ban(void **state)
{
    static const float logits[] = {0, 0, 0, 0};
    static const struct {
        int32_t n_gram, history[8], n_history, left[4], n_left;
    } cases[] = {
        {3, {0, 1, 2, 0, 1}, 5, {0, 1, 3}, 3},       /* 0 1 2 would come again */
        {3, {0, 1, 2, 0, 1, 3, 0, 1}, 8, {0, 1}, 2}, /* 0 1 was followed by 2 and 3 */
        {3, {0, 1}, 2, {0, 1, 2, 3}, 4},             /* too short */
        {3, {1, 1, 1}, 3, {0, 2, 3}, 3},             /* a run overlaps itself */
        {1, {2, 2, 0}, 3, {1, 3}, 2},                /* no id twice */
        {0, {2, 2, 2}, 3, {0, 1, 2, 3}, 4},          /* off */
        {1, {3, 2, 1, 0}, 4, {0, 1, 2, 3}, 4},       /* would leave nothing: lifted */
        {2, {0, 7, 0}, 3, {0, 1, 2, 3}, 4},          /* bans an id that is no candidate */
    };
    struct candidates c = {0};
    for (int32_t i = 0; i < COUNT(cases); i++) {
        start(&c, logits, NULL, 4);
        candidates__ban_ngrams(&c, cases[i].history, cases[i].n_history, cases[i].n_gram);
        if (c.n != cases[i].n_left)
            fail_msg("case %d leaves %d", i, c.n);
        check_ids(&c, cases[i].left, cases[i].n_left);
    }
    candidates__release(&c);
}

static void test_greedy_takes_the_first_of_equals(void **state)
{
    static const float logits[] = {1, 5, 2, 5, 5};
    struct sampler s = {.greedy = true};
    struct candidates c = {0};
    double logprob;
    start(&c, logits, NULL, 5);
    assert_int_equal(candidates__choose(&c, &s, 0, 0, &logprob), 1);
    assert_true(fabs(logprob + log(3 + exp(-3) + exp(-4))) < 1e-15);
    candidates__add(&c, 3, 0.5);
    assert_int_equal(candidates__choose(&c, &s, 0, 0, &logprob), 3);
    candidates__release(&c);
}

/* Frequencies of many draws against probabilities; false when one is off by more than five deviations. */
static bool follows(struct candidates *c, const struct sampler *s, const double *p, int32_t n)
{
    enum { DRAWS = 20000 };
    int32_t seen[64] = {0};
    double logprob;
    for (uint32_t k = 0; k < DRAWS; k++) {
        int32_t id = candidates__choose(c, s, k, 3, &logprob);
        assert_true(id >= 0 && id < n);
        seen[id]++;
    }
    for (int32_t i = 0; i < n; i++)
        if (fabs(seen[i] - DRAWS * p[i]) > 5 * sqrt(DRAWS * p[i] * (1 - p[i])))
            return false;
    return true;
}

static void test_frequencies(void **state)
{
    const float logits[] = {logf(0.1f), logf(0.4f), logf(0.3f), logf(0.2f)};
    static const double plain[] = {0.1, 0.4, 0.3, 0.2};
    static const double half[] = {0.01 / 0.3, 0.16 / 0.3, 0.09 / 0.3,
                                  0.04 / 0.3};            /* temperature 1/2 squares */
    static const double cut[] = {0, 4 / 7.0, 3 / 7.0, 0}; /* 0.4 + 0.3 reach 0.65 */
    struct candidates c = {0};
    struct sampler s = sampling(1, 1, 11);
    start(&c, logits, NULL, 4);
    assert_true(follows(&c, &s, plain, 4));
    assert_false(follows(&c, &s, half, 4));
    s = sampling(0.5, 1, 12);
    assert_true(follows(&c, &s, half, 4));
    s = sampling(1, 0.65, 13);
    assert_true(follows(&c, &s, cut, 4));
    candidates__release(&c);
}

/* What top_p keeps, by the definition: rising order, dropped while the sum stays at 1 - p or below. */
static void kept_by_definition(const float *logits, int32_t n, double top_p, bool *kept)
{
    double total = 0, sum = 0;
    for (int32_t i = 0; i < n; i++)
        total += exp(logits[i]);
    bool used[64] = {0};
    for (int32_t k = 0; k < n; k++) {
        int32_t low = -1;
        for (int32_t i = 0; i < n; i++)
            if (!used[i] && (low < 0 || logits[i] < logits[low]))
                low = i;
        used[low] = true;
        sum += exp(logits[low]) / total;
        kept[low] = sum > 1 - top_p || k == n - 1;
    }
}

static void test_top_p_against_its_definition(void **state)
{
    static const double top_ps[] = {1e-6, 0.1, 0.5, 0.9, 0.99};
    struct candidates c = {0};
    double logprob;
    for (uint32_t k = 0; k < 40; k++) {
        float logits[24];
        bool kept[64], drawn[64] = {0};
        int32_t n = 2 + (int32_t)(rng_u64(9, RNG_TEST, k, 99) % 22);
        double top_p = top_ps[k % COUNT(top_ps)];
        for (int32_t i = 0; i < n; i++)
            logits[i] = (float)rng_normal(9, RNG_TEST, k, (uint64_t)i);
        kept_by_definition(logits, n, top_p, kept);
        start(&c, logits, NULL, n);
        struct sampler s = sampling(1, top_p, k);
        for (uint32_t i = 0; i < 4000; i++)
            drawn[candidates__choose(&c, &s, i, 0, &logprob)] = true;
        for (int32_t i = 0; i < n; i++)
            if (drawn[i] != kept[i])
                fail_msg("case %u, top_p %g: id %d is %s", k, top_p, i, kept[i] ? "never drawn" : "drawn");
    }
    candidates__release(&c);
}

static void test_draws_depend_on_their_place_alone(void **state)
{
    static const float logits[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    struct candidates c = {0};
    struct sampler s = sampling(0.7, 0.9, 5);
    int32_t first[32], differ[3] = {0};
    double logprob;
    start(&c, logits, NULL, 16);
    for (uint32_t k = 0; k < 32; k++)
        first[k] = candidates__choose(&c, &s, 4, k, &logprob);
    for (uint32_t k = 32; k-- > 0;)
        assert_int_equal(first[k], candidates__choose(&c, &s, 4, k, &logprob));
    for (uint32_t k = 0; k < 32; k++) {
        differ[0] += first[k] != first[0];
        differ[1] += first[k] != candidates__choose(&c, &s, 5, k, &logprob);
        s.seed = 6;
        differ[2] += first[k] != candidates__choose(&c, &s, 4, k, &logprob);
        s.seed = 5;
    }
    assert_true(differ[0] > 20 && differ[1] > 20 && differ[2] > 20);
    candidates__release(&c);
}

static void test_logprob_is_tempered_and_before_top_p(void **state)
{
    static const float logits[] = {0, 1, 2};
    struct candidates c = {0};
    struct sampler s = sampling(0.5, 0.01, 1);
    double logprob;
    start(&c, logits, NULL, 3);
    assert_int_equal(candidates__choose(&c, &s, 0, 0, &logprob), 2);
    assert_true(fabs(logprob + log(1 + exp(-2) + exp(-4))) < 1e-15);
    candidates__release(&c);
}

static void test_extreme_scores(void **state)
{
    static const float logits[] = {-3e38f, 3e38f, 0};
    struct candidates c = {0};
    struct sampler s = sampling(0.001, 1, 1);
    double logprob;
    start(&c, logits, NULL, 3);
    for (uint32_t k = 0; k < 100; k++)
        assert_int_equal(candidates__choose(&c, &s, k, 0, &logprob), 1);
    assert_true(logprob == 0);
    candidates__release(&c);
}

static void test_settings_out_of_range(void **state)
{
    static const struct {
        struct sampler s;
        const char *what;
    } cases[] = {
        {{.temperature = 0, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = 3},
         "temperature 0 is not above 0"},
        {{.temperature = NAN, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = 3},
         "temperature nan is not above 0"},
        {{.temperature = 1, .top_p = 0, .repetition_penalty = 1, .max_new_tokens = 3},
         "top_p 0 is not above 0 and at most 1"},
        {{.temperature = 1, .top_p = 1.5, .repetition_penalty = 1, .max_new_tokens = 3},
         "top_p 1.5 is not above 0 and at most 1"},
        {{.greedy = true, .repetition_penalty = 0, .max_new_tokens = 3},
         "repetition penalty 0 is not above 0"},
        {{.greedy = true, .repetition_penalty = 1, .end_logit_slope = NAN, .max_new_tokens = 3},
         "end logit slope nan is not a number"},
        {{.greedy = true, .repetition_penalty = 1, .no_repeat_ngram = -1, .max_new_tokens = 3},
         "no-repeat n-gram -1 is below 0"},
        {{.greedy = true, .repetition_penalty = 1, .max_new_tokens = 0}, "max_new_tokens 0 is below 1"},
    };
    for (int32_t i = 0; i < COUNT(cases); i++) {
        struct err err = ERR_INIT;
        assert_int_equal(sampler__check(&cases[i].s, &err), ST_USAGE);
        assert_string_equal(err.what, cases[i].what);
    }
    struct err err = ERR_INIT;
    struct sampler greedy = {.greedy = true, .repetition_penalty = 1, .max_new_tokens = 1};
    assert_int_equal(sampler__check(&greedy, &err), ST_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_takes_the_allowed_only),
        cmocka_unit_test(test_bad_logits),
        cmocka_unit_test(test_penalty_once_for_each_id),
        cmocka_unit_test(test_ngram_ban),
        cmocka_unit_test(test_greedy_takes_the_first_of_equals),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_top_p_against_its_definition),
        cmocka_unit_test(test_draws_depend_on_their_place_alone),
        cmocka_unit_test(test_logprob_is_tempered_and_before_top_p),
        cmocka_unit_test(test_extreme_scores),
        cmocka_unit_test(test_settings_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
