/* Plain continuation against whole passes without a cache. */
#include "generate/generate.h"
#include "tiny.h"
#include "util/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (int32_t)(sizeof(a) / sizeof *(a))

static const char rows[] = "[{\"text_query\":\"a\",\"motion_tokens\":\"0 1 2\"}]";

static int32_t argmax(const float *x, int32_t n)
{
    int32_t at = 0;
    for (int32_t i = 1; i < n; i++)
        at = x[i] > x[at] ? i : at;
    return at;
}

static void make_prompt(int32_t *ids, int32_t n, int64_t vocab, uint32_t k)
{
    for (int32_t i = 0; i < n; i++)
        ids[i] = (int32_t)(rng_u64(8, RNG_TEST, k, (uint64_t)i) % (uint64_t)vocab);
}

static void test_cache_equals_whole_pass(void **state)
{
    enum { N = 40 };
    struct tiny t;
    struct err err = ERR_INIT;
    struct kv_cache *cache;
    int32_t ids[N];
    tiny_open(&t, rows, false, 1);
    int32_t v = (int32_t)model_vocab(t.model), sequence = 1;
    float *stepped = malloc((size_t)v * sizeof *stepped), *whole = malloc((size_t)v * sizeof *whole);
    make_prompt(ids, N, v, 0);
    assert_int_equal(kv_cache_open(&cache, t.model, 3, N, &err), ST_OK);
    for (int32_t n = 11; n <= N; n++) {
        if (n == 11)
            assert_int_equal(model_prefill(t.model, cache, sequence, ids, n, stepped, &err), ST_OK);
        else
            assert_int_equal(model_decode(t.model, cache, &sequence, &ids[n - 1], 1, stepped, &err), ST_OK);
        if (n == 20) { /* goes on in the copy */
            kv_cache_copy(cache, 2, 1);
            sequence = 2;
        }
        tiny_last_logits(&t, ids, n, whole);
        for (int32_t i = 0; i < v; i++)
            if (!(fabsf(stepped[i] - whole[i]) <= 2e-5f * (1 + fabsf(whole[i]))))
                fail_msg("%d tokens, id %d: %g with the cache, %g without", n, i, stepped[i], whole[i]);
    }
    kv_cache_close(cache);
    free(stepped);
    free(whole);
    tiny_close(&t);
}

static void test_greedy_is_argmax(void **state)
{
    enum { N_NEW = 24 };
    struct tiny t;
    struct sampler s = {
        .greedy = true, .repetition_penalty = 1.2, .no_repeat_ngram = 2, .max_new_tokens = N_NEW};
    tiny_open(&t, rows, false, 2);
    int32_t v = (int32_t)model_vocab(t.model);
    float *logits = malloc((size_t)v * sizeof *logits);
    for (uint32_t k = 0; k < 6; k++) {
        struct err err = ERR_INIT;
        struct ids out = IDS_INIT;
        int32_t ids[9 + N_NEW], n = 1 + (int32_t)k;
        double logprob, expected = 0;
        make_prompt(ids, n, v, k);
        assert_int_equal(generate_plain(t.model, ids, n, NULL, 0, &s, &out, &logprob, &err), ST_OK);
        assert_int_equal(out.n, N_NEW);
        for (int32_t i = 0; i < N_NEW; i++) {
            double sum = 0;
            tiny_last_logits(&t, ids, n + i, logits);
            ids[n + i] = argmax(logits, v);
            assert_int_equal(out.data[i], ids[n + i]);
            for (int32_t j = 0; j < v; j++)
                sum += exp((double)logits[j] - logits[ids[n + i]]);
            expected -= log(sum);
        }
        assert_true(fabs(logprob - expected) < 1e-4 * fabs(expected));
        ids_release(&out);
    }
    free(logits);
    tiny_close(&t);
}

static void test_stops_at_a_stop_id(void **state)
{
    struct tiny t;
    struct err err = ERR_INIT;
    struct ids all = IDS_INIT, out = IDS_INIT;
    struct sampler s = {
        .temperature = 5, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = 20, .seed = 4};
    const int32_t prompt[] = {1, 2, 3};
    double logprob, stopped;
    tiny_open(&t, rows, false, 3);
    assert_int_equal(generate_plain(t.model, prompt, 3, NULL, 0, &s, &all, &logprob, &err), ST_OK);
    assert_int_equal(all.n, 20);
    int32_t at = 0;
    while (all.data[at] != all.data[12])
        at++;
    const int32_t stop[] = {-1, all.data[12]};
    assert_int_equal(generate_plain(t.model, prompt, 3, stop, 2, &s, &out, &stopped, &err), ST_OK);
    assert_int_equal(out.n, at + 1);
    assert_memory_equal(out.data, all.data, (size_t)out.n * sizeof *out.data);
    assert_true(stopped > logprob && stopped < 0);
    s.max_new_tokens = 1;
    assert_int_equal(generate_plain(t.model, prompt, 3, stop, 2, &s, &out, &stopped, &err), ST_OK);
    assert_int_equal(out.n, 1);
    assert_int_equal(out.data[0], all.data[0]);
    ids_release(&all);
    ids_release(&out);
    tiny_close(&t);
}

/* The whole vocabulary is drawn from, and top_p 1e-6 leaves the argmax alone. */
static void test_sampling(void **state)
{
    struct tiny t;
    struct ids out = IDS_INIT, greedy = IDS_INIT;
    struct err err = ERR_INIT;
    struct sampler s = {.temperature = 1, .top_p = 1e-6, .repetition_penalty = 1, .max_new_tokens = 16};
    const int32_t prompt[] = {5, 6};
    int32_t differ = 0;
    double logprob;
    tiny_open(&t, rows, false, 4);
    assert_int_equal(generate_plain(t.model, prompt, 2, NULL, 0, &s, &out, &logprob, &err), ST_OK);
    s.greedy = true;
    assert_int_equal(generate_plain(t.model, prompt, 2, NULL, 0, &s, &greedy, &logprob, &err), ST_OK);
    assert_memory_equal(out.data, greedy.data, 16 * sizeof *out.data);
    s.greedy = false;
    s.top_p = 1;
    s.temperature = 3;
    for (s.seed = 0; s.seed < 8; s.seed++) {
        assert_int_equal(generate_plain(t.model, prompt, 2, NULL, 0, &s, &out, &logprob, &err), ST_OK);
        for (int32_t i = 0; i < 16; i++)
            differ += out.data[i] != greedy.data[i];
    }
    assert_true(differ > 64);
    s.temperature = 1000; /* about uniform: the ids are the random numbers, one a token */
    assert_int_equal(generate_plain(t.model, prompt, 2, NULL, 0, &s, &out, &logprob, &err), ST_OK);
    for (int32_t i = 1, n_repeated = 0; i < 16; i++) {
        n_repeated += out.data[i] == out.data[0];
        assert_true(n_repeated < 4);
    }
    ids_release(&out);
    ids_release(&greedy);
    tiny_close(&t);
}

static void test_refused(void **state)
{
    struct tiny t;
    struct sampler good = {.greedy = true, .repetition_penalty = 1, .max_new_tokens = 4}, none = good,
                   cut = good;
    none.max_new_tokens = 0;
    cut.greedy = false;
    cut.temperature = 1;
    tiny_open(&t, rows, false, 5);
    const struct {
        const struct sampler *s;
        int32_t id, n;
        enum status status;
        const char *what;
    } cases[] = {
        {&good, 0, 0, ST_USAGE, "there are no ids to continue"},
        {&good, 1000, 1, ST_INPUT, "token id 1000 at token 0 is not in the vocabulary of 268 rows"},
        {&good, -1, 1, ST_INPUT, "token id -1 at token 0 is not in the vocabulary of 268 rows"},
        {&none, 0, 1, ST_USAGE, "max_new_tokens 0 is below 1"},
        {&cut, 0, 1, ST_USAGE, "top_p 0 is not above 0 and at most 1"},
    };
    for (int32_t i = 0; i < COUNT(cases); i++) {
        struct err err = ERR_INIT;
        struct ids out = IDS_INIT;
        double logprob;
        assert_int_equal(
            generate_plain(t.model, &cases[i].id, cases[i].n, NULL, 0, cases[i].s, &out, &logprob, &err),
            cases[i].status);
        assert_string_equal(err.what, cases[i].what);
        ids_release(&out);
    }
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_equals_whole_pass),
        cmocka_unit_test(test_greedy_is_argmax),
        cmocka_unit_test(test_stops_at_a_stop_id),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
