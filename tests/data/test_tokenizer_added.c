/* Added tokens: who wins where, and that plain text never becomes a special token. */
#include "data_support.h"
#include "tokenizer_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void longest_and_leftmost_wins(void **state)
{
    struct scratch s;
    scratch_open(&s);
    struct tokenizer *t =
        small_open(&s, &(struct small_tokenizer){
                           .vocab = "\"a\": 0, \"b\": 1, \"c\": 2",
                           .added = ADDED(3, "ab", false, true) "," ADDED(4, "abc", false, false) "," ADDED(
                               5, "bcbc", false, true) "," ADDED(6, "cc", false, true)});
    EXPECT_IDS(t, "abcbc", ENCODE_ADDED, 4, 1, 2); /* leftmost, though bcbc is longer */
    EXPECT_IDS(t, "abbcbc", ENCODE_ADDED, 3, 5);
    EXPECT_IDS(t, "aab", ENCODE_ADDED, 0, 3);
    EXPECT_IDS(t, "ccc", ENCODE_ADDED, 6, 2);
    EXPECT_IDS(t, "abcbcc", ENCODE_PLAIN, 0, 1, 2, 1, 2, 2);
    assert_int_equal(tokenizer_size(t), 7);
    tokenizer_close(t);
    scratch_close(&s);
}

/* Gemma's and SmolLM2's special tokens are in the vocabulary too, so merges may lead to them. */
static void merges_do_not_make_special_tokens(void **state)
{
    struct scratch s;
    scratch_open(&s);
    struct small_tokenizer small = {
        .vocab = "\"<\": 0, \"x\": 1, \">\": 2, \"<x\": 3, \"<x>\": 4, \"x>\": 5, \"<x><x>\": 6, \"<<\": 7",
        .merges = "[\"<\", \"x\"], [\"<x\", \">\"], [\"x\", \">\"], [\"<x>\", \"<x>\"], [\"<\", \"<\"]",
        .added = ADDED(4, "<x>", false, true) "," ADDED(7, "<<", false, false)};
    struct tokenizer *t = small_open(&s, &small);
    EXPECT_IDS(t, "<x>", ENCODE_ADDED, 4);
    EXPECT_IDS(t, "<x>", ENCODE_PLAIN, 3, 2);
    EXPECT_IDS(t, "x<x>x>", ENCODE_PLAIN, 1, 3, 2, 5);
    EXPECT_IDS(t, "<x><x>", ENCODE_PLAIN, 6); /* not special: as BPE gives it */
    EXPECT_IDS(t, "<<", ENCODE_PLAIN, 7);     /* added, but not special: as BPE gives it */
    EXPECT_IDS(t, "<x>", ENCODE_ADDED, 4);    /* the plain runs left nothing in the cache */
    tokenizer_close(t);

    small.options = "\"ignore_merges\": true,";
    small.merges = "[\"<\", \"x\"]";
    t = small_open(&s, &small);
    EXPECT_IDS(t, "<x>", ENCODE_PLAIN, 3, 2);
    EXPECT_IDS(t, "<x><x>", ENCODE_PLAIN, 6);
    tokenizer_close(t);
    scratch_close(&s);
}

static void single_characters_do_not_either(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    struct ids ids = IDS_INIT;
    scratch_open(&s);
    struct small_tokenizer small = {.vocab = "\"a\": 0, \"b\": 1, \"<0x61>\": 2, \"?\": 3",
                                    .added = ADDED(0, "a", false, true)};
    struct tokenizer *t = small_open(&s, &small);
    EXPECT_IDS(t, "ab", ENCODE_ADDED, 0, 1);
    assert_int_equal(tokenizer_encode(t, "ba", 2, ENCODE_PLAIN, &ids, &err), ST_INPUT);
    assert_string_equal(err.what, "\"a\" in a text is only known as a special token");
    assert_int_equal(ids.n, 0);
    tokenizer_close(t);

    small.options = "\"unk_token\": \"?\",";
    t = small_open(&s, &small);
    EXPECT_IDS(t, "bab", ENCODE_PLAIN, 1, 3, 1);
    tokenizer_close(t);

    small.options = "\"byte_fallback\": true,";
    t = small_open(&s, &small);
    EXPECT_IDS(t, "bab", ENCODE_PLAIN, 1, 2, 1);
    tokenizer_close(t);
    scratch_close(&s);
}

static void unknown_characters_stay_unknown(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    struct ids ids = IDS_INIT;
    scratch_open(&s);
    struct small_tokenizer small = {.vocab = "\"a\": 0, \"b\": 1, \"<unk>\": 2, \"ab\": 3",
                                    .merges = "[\"a\", \"b\"]",
                                    .options = "\"unk_token\": \"<unk>\", \"fuse_unk\": true,",
                                    .added = ADDED(2, "<unk>", false, true) "," ADDED(3, "ab", false, true)};
    struct tokenizer *t = small_open(&s, &small);
    EXPECT_IDS(t, "xyaz<unk>", ENCODE_ADDED, 2, 0, 2, 2);
    EXPECT_IDS(t, "xyaz", ENCODE_PLAIN, 2, 0, 2); /* the unknown token is no match of anything */
    EXPECT_IDS(t, "abx", ENCODE_PLAIN, 0, 1, 2);
    tokenizer_close(t);

    small.options = "\"unk_token\": \"<other>\",";
    t = small_open(&s, &small);
    EXPECT_IDS(t, "ba", ENCODE_ADDED, 1, 0);
    assert_int_equal(tokenizer_encode(t, "bza", 3, ENCODE_ADDED, &ids, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "\"z\" in a text has no token"));
    tokenizer_close(t);
    scratch_close(&s);
}

static void known_texts_keep_their_ids(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    int32_t id;
    scratch_open(&s);
    struct tokenizer *t = small_open(
        &s, &(struct small_tokenizer){.vocab = "\"a\": 0, \"b\": 1, \"ab\": 2, \"abab\": 3",
                                      .merges = "\"a b\", \"ab ab\"",
                                      .top = "\"normalizer\": {\"type\": \"Prepend\", \"prepend\": \"b\"},",
                                      .added = ADDED(4, "<n>", true, false)});
    EXPECT_IDS(t, "<n>", ENCODE_ADDED, 4);     /* the normalizer makes both the text and the token "b<n>" */
    EXPECT_IDS(t, "a<n>", ENCODE_ADDED, 1, 0); /* here there is no b before it, and < n > have no tokens */
    EXPECT_IDS(t, "abab", ENCODE_ADDED, 1, 3);
    good(tokenizer_add(t, "ab", &id, &err), &err); /* from the vocabulary */
    assert_int_equal(id, 2);
    assert_int_equal(tokenizer_size(t), 5);
    EXPECT_IDS(t, "aab", ENCODE_ADDED, 1, 0, 2);
    EXPECT_IDS(t, "aab", ENCODE_PLAIN, 1, 0, 0, 1);
    EXPECT_IDS(t, "abab", ENCODE_PLAIN, 1, 3);
    good(tokenizer_add(t, "<n>", &id, &err), &err); /* known, now special and matched in raw text */
    assert_int_equal(id, 4);
    EXPECT_IDS(t, "a<n>", ENCODE_ADDED, 1, 0, 4);
    good(tokenizer_add(t, "new", &id, &err), &err);
    assert_int_equal(id, 5);
    tokenizer_close(t);
    scratch_close(&s);
}

static void bad_additions_are_refused(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    int32_t id = 77;
    char text[1100];
    scratch_open(&s);
    struct tokenizer *t = small_open(&s, &(struct small_tokenizer){.vocab = "\"a\": 0"});
    assert_int_equal(tokenizer_add(t, "", &id, &err), ST_INPUT);
    memset(&err, 0, sizeof err);
    assert_int_equal(tokenizer_add(t, "a\xff", &id, &err), ST_INPUT);
    assert_string_equal(err.what, "added token: invalid UTF-8 at byte 1");
    memset(&err, 0, sizeof err);
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_int_equal(tokenizer_add(t, text, &id, &err), ST_INPUT);
    assert_int_equal(id, 77);
    assert_int_equal(tokenizer_size(t), 1);
    tokenizer_close(t);
    scratch_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(longest_and_leftmost_wins),
        cmocka_unit_test(merges_do_not_make_special_tokens),
        cmocka_unit_test(single_characters_do_not_either),
        cmocka_unit_test(unknown_characters_stay_unknown),
        cmocka_unit_test(known_texts_keep_their_ids),
        cmocka_unit_test(bad_additions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
