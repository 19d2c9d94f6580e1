/* The published Qwen3 tokenizer and that of stories260K beside the golden ids, from the shared data. */
#include "data_support.h"
#include "tokenizer_support.h"
#include "util/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *golden;

static struct tokenizer *open_shared(const char *name)
{
    struct err err = ERR_INIT;
    struct tokenizer *t;
    const char *dir = shared_path(name);
    if (!dir)
        skip();
    double start = clock_s();
    good(tokenizer_open(&t, dir, &err), &err);
    print_message("%s: opened in %.3f s\n", name, clock_s() - start);
    return t;
}

static void check_list(const struct tokenizer *t, const json_t *texts, const json_t *ids,
                       const json_t *decoded, int flags)
{
    assert_true(json_array_size(texts) > 0);
    assert_int_equal(json_array_size(texts), json_array_size(ids));
    for (size_t i = 0; i < json_array_size(texts); i++) {
        struct ids want = IDS_INIT;
        struct err err = ERR_INIT;
        const json_t *list = json_array_get(ids, i), *text = json_array_get(texts, i);
        for (size_t k = 0; k < json_array_size(list); k++)
            good(ids_push(&want, (int32_t)json_integer_value(json_array_get(list, k)), &err), &err);
        expect_ids(t, json_string_value(text), json_string_length(text), flags, want.data, want.n);
        const json_t *back = json_array_get(decoded, i);
        if (back)
            expect_text(t, want.data, want.n, false, json_string_value(back), json_string_length(back));
        ids_release(&want);
    }
}

static void add_all(struct tokenizer *t)
{
    const json_t *added = json_object_get(golden, "added_tokens");
    int32_t id = -1, size = tokenizer_size(t);
    for (size_t i = 0; i < json_array_size(added); i++) {
        struct err err = ERR_INIT;
        good(tokenizer_add(t, json_string_value(json_array_get(added, i)), &id, &err), &err);
        assert_int_equal(id, size + (int32_t)i);
    }
}

/* The same texts as a user's words: no token added or special may come out. */
static void check_plain(const struct tokenizer *t, const json_t *texts, int32_t first_added)
{
    struct ids ids = IDS_INIT;
    for (size_t i = 0; i < json_array_size(texts); i++) {
        struct err err = ERR_INIT;
        const json_t *text = json_array_get(texts, i);
        good(tokenizer_encode(t, json_string_value(text), json_string_length(text), ENCODE_PLAIN, &ids, &err),
             &err);
    }
    for (int i = 0; i < ids.n; i++)
        assert_true(ids.data[i] < first_added);
    ids_release(&ids);
}

static void check_model(const char *name, const char *dir, int32_t first_added)
{
    if (!golden)
        skip();
    struct tokenizer *t = open_shared(dir);
    const json_t *model = json_object_get(json_object_get(golden, "models"), name);
    const json_t *motion = json_object_get(golden, "motion_texts"), *texts = json_object_get(golden, "texts");
    assert_string_equal(tokenizer_sha256(t), json_string_value(json_object_get(model, "tokenizer_sha256")));
    assert_int_equal(tokenizer_size(t), json_integer_value(json_object_get(model, "vocab_size_before")));
    check_list(t, texts, json_object_get(model, "ids"), json_object_get(model, "decoded"), ENCODE_ADDED);
    json_t *hello = json_pack("[s]", "hello"),
           *ids = json_pack("[O]", json_object_get(model, "hello_with_special"));
    check_list(t, hello, ids, NULL, ENCODE_ADDED | ENCODE_SPECIAL);
    json_decref(hello);
    json_decref(ids);
    add_all(t);
    assert_int_equal(tokenizer_size(t), json_integer_value(json_object_get(model, "vocab_size_after")));
    check_list(t, motion, json_object_get(model, "motion_ids"), NULL, ENCODE_ADDED);
    check_list(t, texts, json_object_get(model, "ids"), NULL, ENCODE_ADDED);
    check_plain(t, motion, first_added);
    tokenizer_close(t);
}

static void qwen3_ids_are_golden(void **state)
{
    check_model("qwen3", "data/qwen3-tokenizer", 151643);
}

static void stories_ids_are_golden(void **state)
{
    check_model("stories260k", "data/stories260k", 512);
}

static void qwen3_odd_texts(void **state)
{
    struct tokenizer *t = open_shared("data/qwen3-tokenizer");
    EXPECT_IDS(t, "Hello world", ENCODE_ADDED, 9707, 1879);
    EXPECT_IDS(t, "  leading", ENCODE_ADDED, 220, 6388);
    EXPECT_IDS(t, "line1\n\n  line2", ENCODE_ADDED, 1056, 16, 271, 220, 1555, 17);
    EXPECT_IDS(t, "I'm we'LL they've", ENCODE_ADDED, 40, 2776, 582, 6, 4086, 807, 3003);
    EXPECT_IDS(t, "e\xcc\x81", ENCODE_ADDED, 963);
    EXPECT_IDS(t, "\xe2\x84\xab", ENCODE_ADDED, 144044);
    EXPECT_IDS(t,
               "a\xe2\x80\x83"
               "b",
               ENCODE_ADDED, 64, 378, 225, 65);
    EXPECT_IDS(t, "\xe3\x80\x80\xe5\x85\xa8\xe8\xa7\x92", ENCODE_ADDED, 22441, 35987, 63836);
    EXPECT_IDS(t, " <|im_end|> ", ENCODE_ADDED, 220, 151645, 220);
    assert_int_equal(tokenizer_eos(t), 151645);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen3_ids_are_golden),
        cmocka_unit_test(stories_ids_are_golden),
        cmocka_unit_test(qwen3_odd_texts),
    };
    const char *path = shared_path("data/tokenizer-golden/golden.json");
    json_error_t at;
    if (!path)
        return 77;
    golden = json_load_file(path, 0, &at);
    if (!golden) {
        print_error("%s: %s\n", path, at.text);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(golden);
    return failed;
}
