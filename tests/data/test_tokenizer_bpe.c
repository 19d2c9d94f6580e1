/* Merging beside the definition of BPE, for pieces of all lengths, and on texts that would take for ever if
 * anything were quadratic. */
#include "data_support.h"
#include "tokenizer_support.h"
#include "util/clock.h"
#include "util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_LETTERS 4
#define N_MERGES  40

/* Random merges over four letters; pairs[] as ids, the merged one being N_LETTERS + rank. */
struct random_bpe {
    int32_t left[N_MERGES], right[N_MERGES];
    char text[N_LETTERS + N_MERGES][16];
    int n;
};

static bool is_known(const struct random_bpe *b, const char *text)
{
    for (int i = 0; i < N_LETTERS + b->n; i++)
        if (strcmp(b->text[i], text) == 0)
            return true;
    return false;
}

static void random_merges(struct random_bpe *b, uint64_t seed)
{
    b->n = 0;
    for (int i = 0; i < N_LETTERS; i++)
        snprintf(b->text[i], sizeof b->text[i], "%c", 'a' + i);
    for (uint64_t draw = 0; b->n < N_MERGES; draw++) {
        int32_t left = (int32_t)(rng_u64(seed, RNG_TEST, 0, draw) % (uint64_t)(N_LETTERS + b->n));
        int32_t right = (int32_t)(rng_u64(seed, RNG_TEST, 1, draw) % (uint64_t)(N_LETTERS + b->n));
        char *text = b->text[N_LETTERS + b->n];
        if (strlen(b->text[left]) + strlen(b->text[right]) > 12)
            continue;
        stpcpy(stpcpy(text, b->text[left]), b->text[right]);
        if (is_known(b, text))
            continue;
        b->left[b->n] = left;
        b->right[b->n++] = right;
    }
}

static struct tokenizer *random_open(struct scratch *s, const struct random_bpe *b)
{
    json_t *vocab = json_object(), *merges = json_array();
    for (int i = 0; i < N_LETTERS + b->n; i++)
        json_object_set_new(vocab, b->text[i], json_integer(i));
    for (int i = 0; i < b->n; i++)
        json_array_append_new(merges, json_pack("[s, s]", b->text[b->left[i]], b->text[b->right[i]]));
    json_t *root = json_pack("{s: {s: o, s: o}}", "model", "merges", merges, "vocab", vocab);
    struct tokenizer *t = tokenizer_of(s, root);
    json_decref(root);
    return t;
}

/* The definition: the pair of lowest rank, leftmost first, until none is left. */
static int define(const struct random_bpe *b, int32_t *ids, int n)
{
    for (;;) {
        int best_rank = b->n, best_at = 0;
        for (int i = 0; i + 1 < n; i++)
            for (int r = 0; r < best_rank; r++)
                if (b->left[r] == ids[i] && b->right[r] == ids[i + 1]) {
                    best_rank = r;
                    best_at = i;
                }
        if (best_rank == b->n)
            return n;
        ids[best_at] = N_LETTERS + best_rank;
        memmove(ids + best_at + 1, ids + best_at + 2, (size_t)(n - best_at - 2) * sizeof *ids);
        n--;
    }
}

static void merges_follow_the_definition(void **state)
{
    static struct random_bpe b;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct scratch s;
        scratch_open(&s);
        random_merges(&b, seed);
        struct tokenizer *t = random_open(&s, &b);
        for (int n = 1; n <= 260; n++) { /* over the border between short and long pieces */
            char text[260];
            int32_t ids[260];
            for (int i = 0; i < n; i++) {
                ids[i] = (int32_t)(rng_u64(seed, RNG_TEST, 2 + (uint32_t)n, (uint64_t)i) % N_LETTERS);
                text[i] = (char)('a' + ids[i]);
            }
            expect_ids(t, text, (size_t)n, ENCODE_PLAIN, ids, define(&b, ids, n));
        }
        tokenizer_close(t);
        scratch_close(&s);
    }
}

static char *repeated(const char *part, size_t n_bytes)
{
    size_t n = strlen(part);
    char *text = malloc(n_bytes);
    assert_non_null(text);
    for (size_t i = 0; i < n_bytes; i++)
        text[i] = part[i % n];
    return text;
}

#define LONG_BYTES ((size_t)1 << 20)

static void one_long_piece_is_quick(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    struct ids ids = IDS_INIT;
    scratch_open(&s);
    struct tokenizer *t = small_open(
        &s, &(struct small_tokenizer){.vocab = "\"a\": 0, \"aa\": 1, \"aaaa\": 2, \"b\": 3, \"ab\": 4",
                                      .merges = "[\"a\", \"a\"], [\"aa\", \"aa\"], [\"a\", \"b\"]"});
    char *text = repeated("a", LONG_BYTES);
    double start = clock_s();
    good(tokenizer_encode(t, text, LONG_BYTES - 1, ENCODE_ADDED, &ids, &err), &err);
    assert_int_equal(ids.n, LONG_BYTES / 4 + 1);
    for (int i = 0; i < ids.n - 2; i++)
        assert_int_equal(ids.data[i], 2);
    assert_int_equal(ids.data[ids.n - 2], 1);
    assert_int_equal(ids.data[ids.n - 1], 0);
    assert_true(clock_s() - start < 30);
    free(text);
    ids_release(&ids);
    tokenizer_close(t);
    scratch_close(&s);
}

/* Texts that are hard on some part: marks without end, blanks, quotes, half tokens. */
static void hard_texts_are_quick(void **state)
{
    static const char *const parts[] = {
        "\xcc\x81\xcc\xa3", " ", "\n ", "'", "a", "1", "<|im_star", "\xe3\x80\x80", "\xf0\x9f\x98\x80"};
    struct scratch s;
    struct err err = ERR_INIT;
    scratch_open(&s);
    good(tokenizer_write_bytes(s.dir, &err), &err);
    json_error_t at;
    json_t *root = json_load_file(scratch_path(&s, "tokenizer.json"), 0, &at);
    json_object_set_new(root, "normalizer", json_pack("{s:s}", "type", "NFC"));
    json_object_set_new(root, "pre_tokenizer",
                        json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b}]}", "type", "Sequence",
                                  "pretokenizers", "type", "Split", "pattern", "Regex",
                                  "(?:[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)",
                                  "behavior", "Isolated", "invert", 0, "type", "ByteLevel",
                                  "add_prefix_space", 0, "use_regex", 1));
    struct tokenizer *t = tokenizer_of(&s, root);
    json_decref(root);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        struct ids ids = IDS_INIT;
        size_t n = LONG_BYTES / strlen(parts[i]) * strlen(parts[i]);
        char *text = repeated(parts[i], n);
        double start = clock_s();
        good(tokenizer_encode(t, text, n, ENCODE_ADDED, &ids, &err), &err);
        assert_int_equal(ids.n, n);
        assert_true(clock_s() - start < 30);
        free(text);
        ids_release(&ids);
    }
    tokenizer_close(t);
    scratch_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_follow_the_definition),
        cmocka_unit_test(one_long_piece_is_quick),
        cmocka_unit_test(hard_texts_are_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
