/* The head in chunks: how labelled rows are cut changes no loss, and no gradient but in the order of a sum.
 */
#include "model_internal.h"
#include "tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 40, BASE = 37, NEW = 3, H = 32, N_ROWS = NEW * H }; /* the new rows stand first */

static const char config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":37,\"tie_word_embeddings\":true}";

static double run(const char *ops, int64_t chunk, float *grad, float *token_loss, size_t *n_values)
{
    struct tiny t;
    struct err err = ERR_INIT;
    double loss = 0;
    tiny_open(&t, ops, config, BASE, NEW, false, 4, 11);
    struct packed *seq = tiny_sequence(VOCAB, 3, false);
    for (int32_t i = 0; i < seq->n_tokens; i++) { /* every token has a label */
        seq->labels[i] = (i * 7 + 3) % VOCAB;
        seq->first_label[i + 1] = i + 1;
    }
    seq->n_labels = seq->n_tokens;
    assert_int_equal(seq->n_tokens, 36);
    t.model->chunk = chunk;
    assert_int_equal(model_loss(t.model, seq, 0.125F, grad, &loss, token_loss, &err), ST_OK);
    assert_true(t.params.index_rows == 0 && t.params.items[0].rows * t.params.items[0].cols == N_ROWS);
    *n_values = (size_t)t.params.n_values;
    tiny_sequence_free(seq);
    tiny_close(&t);
    return loss;
}

static void check_chunks(const char *ops)
{
    enum { ROOM = 20000 };
    size_t n_values = 0;
    float *whole = calloc(ROOM, sizeof *whole), *cut = calloc(ROOM, sizeof *cut);
    float losses[36], again[36];
    const double loss = run(ops, 48, whole, losses, &n_values);
    assert_true(n_values <= ROOM);
    for (int64_t chunk = 16; chunk <= 32; chunk += 16) { /* 16, 16 and 4 rows; 32 and 4 */
        memset(cut, 0, ROOM * sizeof *cut);
        assert_true(run(ops, chunk, cut, again, &n_values) == loss);
        assert_memory_equal(again, losses, sizeof losses);
        assert_memory_equal(cut + N_ROWS, whole + N_ROWS, (n_values - N_ROWS) * sizeof *cut);
        for (size_t i = 0; i < N_ROWS; i++)
            assert_true(fabsf(cut[i] - whole[i]) <= 1e-5F * (1 + fabsf(whole[i])));
    }
    free(whole);
    free(cut);
}

static void test_chunks(void **state)
{
    check_chunks("reference");
    check_chunks("cpu");
}

/* What a chunk takes is bounded for any vocabulary, and is no fewer rows than products want. */
static void test_rows_of_a_chunk(void **state)
{
    static const struct {
        int64_t v, rows;
    } cases[] = {{49681, 256}, {152465, 128}, {262673, 64}, {10000000, 16}, {1000, 4192}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct arch a = {.n_layers = 1, .n_embed_rows = (int32_t)cases[i].v};
        const struct params p = {0};
        const struct model_config c = {.arch = &a, .params = &p, .ops = ops_by_name("reference")};
        struct err err = ERR_INIT;
        struct model *m = NULL;
        assert_int_equal(model_open(&m, &c, &err), ST_OK);
        assert_int_equal(m->chunk, cases[i].rows);
        model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_chunks), cmocka_unit_test(test_rows_of_a_chunk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
