/* Ids, texts and files: small tokenizers of every kind beside what the tokenizers library answers (the files
 * of tokenizer_cases/), the byte tokenizer, saving, threads. */
#include "data_support.h"
#include "tokenizer_support.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CASES SMGPT_SOURCE_DIR "/tests/data/tokenizer_cases"

/* A list of ids as an ids list. */
static struct ids ids_of(const json_t *list)
{
    struct ids ids = IDS_INIT;
    struct err err = ERR_INIT;
    assert_true(json_is_array(list));
    for (size_t i = 0; i < json_array_size(list); i++)
        good(ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, i)), &err), &err);
    return ids;
}

static void check_encode(const struct tokenizer *t, const json_t *row)
{
    const json_t *text = json_object_get(row, "text"), *decoded = json_object_get(row, "decoded");
    struct ids ids = ids_of(json_object_get(row, "ids")),
               special = ids_of(json_object_get(row, "with_special"));
    const char *bytes = json_string_value(text);
    size_t n_bytes = json_string_length(text);
    expect_ids(t, bytes, n_bytes, ENCODE_ADDED, ids.data, ids.n);
    expect_ids(t, bytes, n_bytes, ENCODE_ADDED | ENCODE_SPECIAL, special.data, special.n);
    expect_ids(t, bytes, n_bytes, ENCODE_ADDED, ids.data, ids.n); /* now out of the cache */
    expect_text(t, ids.data, ids.n, false, json_string_value(decoded), json_string_length(decoded));
    ids_release(&ids);
    ids_release(&special);
}

static void check_decode(const struct tokenizer *t, const json_t *row)
{
    const json_t *all = json_object_get(row, "decoded"), *skipped = json_object_get(row, "skipped");
    struct ids ids = ids_of(json_object_get(row, "decode"));
    expect_text(t, ids.data, ids.n, false, json_string_value(all), json_string_length(all));
    expect_text(t, ids.data, ids.n, true, json_string_value(skipped), json_string_length(skipped));
    ids_release(&ids);
}

static void check_rows(const struct tokenizer *t, const json_t *rows)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (json_object_get(row, "text"))
            check_encode(t, row);
        else
            check_decode(t, row);
    }
}

static void check_file(struct scratch *s, const char *path)
{
    json_error_t at;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &at);
    assert_non_null(root);
    struct tokenizer *t = tokenizer_of(s, json_object_get(root, "tokenizer"));
    const json_t *rows = json_object_get(root, "rows");
    assert_true(json_array_size(rows) > 40);
    check_rows(t, rows);

    struct err err = ERR_INIT; /* and once more from what we write ourselves */
    struct tokenizer *again;
    char dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", scratch_path(s, "saved"));
    good(dir_make(dir, &err), &err);
    good(tokenizer_save(t, dir, &err), &err);
    good(tokenizer_open(&again, dir, &err), &err);
    assert_int_equal(tokenizer_size(again), tokenizer_size(t));
    check_rows(again, rows);
    tokenizer_close(again);
    tokenizer_close(t);
    json_decref(root);
}

static void every_kind_is_as_the_library(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    char **names;
    int n_names, n_files = 0;
    good(dir_list(CASES, &names, &n_names, &err), &err);
    for (int i = 0; i < n_names; i++) {
        char path[PATH_BYTES];
        size_t n = strlen(names[i]);
        if (n < 5 || strcmp(names[i] + n - 5, ".json") != 0)
            continue;
        good(path_join(path, CASES, names[i], &err), &err);
        print_message("%s\n", names[i]);
        scratch_open(&s);
        check_file(&s, path);
        scratch_close(&s);
        n_files++;
    }
    assert_int_equal(n_files, 15);
    names_free(names, n_names);
}

static void bytes_are_ids(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    struct tokenizer *t;
    scratch_open(&s);
    good(tokenizer_write_bytes(s.dir, &err), &err);
    good(tokenizer_open(&t, s.dir, &err), &err);
    assert_int_equal(tokenizer_size(t), 259);
    assert_int_equal(tokenizer_id(t, "<|endoftext|>"), 256);
    assert_int_equal(tokenizer_id(t, "<|im_start|>"), 257);
    assert_int_equal(tokenizer_id(t, "<|im_end|>"), 258);
    assert_int_equal(tokenizer_eos(t), 258);
    assert_int_equal(tokenizer_bos(t), -1);
    EXPECT_IDS(t, "h\xc3\xa9 <|im_end|>\n", ENCODE_ADDED, 104, 0xc3, 0xa9, 32, 258, 10);
    EXPECT_IDS(t, "<|im_end|>", ENCODE_PLAIN, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    char text[256 + 128];
    size_t n = 0;
    int32_t ids[256 + 128];
    for (int c = 0; c < 256;
         c++) { /* every character of Latin-1: so every byte that UTF-8 has below U+0100 */
        if (c >= 128)
            text[n++] = (char)(0xc0 | c >> 6);
        text[n++] = (char)(c < 128 ? c : 0x80 | (c & 0x3f));
    }
    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)text[i];
    expect_ids(t, text, n, ENCODE_PLAIN, ids, (int)n);
    expect_text(t, ids, (int)n, false, text, n);
    tokenizer_close(t);
    scratch_close(&s);
}

static void bad_bytes_decode_to_replacements(void **state)
{
    static const struct {
        int32_t ids[6];
        int n;
        const char *text;
    } cases[] = {
        {{0x61, 0xff, 0x62},
         3,
         "a\xef\xbf\xbd"
         "b"},
        {{0xe2, 0x82, 0x61},
         3,
         "\xef\xbf\xbd"
         "a"}, /* a cut character is one */
        {{0xf0, 0x9f, 0x98}, 3, "\xef\xbf\xbd"},
        {{0xed, 0xa0, 0x80}, 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate is three */
        {{0xc0, 0x80}, 2, "\xef\xbf\xbd\xef\xbf\xbd"},
        {{0xf4, 0x90, 0x80, 0x80}, 4, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {{0xe2, 0x82, 0xac}, 3, "\xe2\x82\xac"},
        {{0}, 0, ""},
    };
    struct scratch s;
    struct err err = ERR_INIT;
    struct tokenizer *t;
    scratch_open(&s);
    good(tokenizer_write_bytes(s.dir, &err), &err);
    good(tokenizer_open(&t, s.dir, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_text(t, cases[i].ids, cases[i].n, false, cases[i].text, strlen(cases[i].text));
    static const int32_t unknown[][2] = {{65, 259}, {65, -1}, {65, INT32_MAX}};
    for (int i = 0; i < 3; i++) {
        struct buf text = BUF_INIT;
        memset(&err, 0, sizeof err);
        assert_int_equal(tokenizer_decode(t, unknown[i], 2, false, &text, &err), ST_INPUT);
        assert_non_null(strstr(err.what, "token 1 of 2: no token has id"));
        buf_release(&text);
    }
    tokenizer_close(t);
    scratch_close(&s);
}

static void invalid_text_is_refused_with_its_byte(void **state)
{
    static const struct {
        const char *text;
        size_t n_bytes, at;
    } cases[] = {{"abc\xff", 4, 3},
                 {"\x80", 1, 0},
                 {"123456789\xe2\x82", 11, 9},
                 {"\xc3\xa9\xed\xa0\x80", 5, 2},
                 {"\xc0\x80", 2, 0},
                 {"a\xf5\x80\x80\x80", 5, 1}};
    struct scratch s;
    struct err err = ERR_INIT;
    struct tokenizer *t;
    struct ids ids = IDS_INIT;
    scratch_open(&s);
    good(tokenizer_write_bytes(s.dir, &err), &err);
    good(tokenizer_open(&t, s.dir, &err), &err);
    good(ids_push(&ids, 7, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "text: invalid UTF-8 at byte %zu", cases[i].at);
        memset(&err, 0, sizeof err);
        assert_int_equal(tokenizer_encode(t, cases[i].text, cases[i].n_bytes, ENCODE_ADDED, &ids, &err),
                         ST_INPUT);
        assert_string_equal(err.what, wanted);
        assert_int_equal(ids.n, 1); /* nothing was left behind */
    }
    ids_release(&ids);
    tokenizer_close(t);
    scratch_close(&s);
}

static void saved_tokens_come_back(void **state)
{
    static const char *const names[] = {"<motion_0>", "<motion_1>", "a \"quoted\"\\ one\n", "h\xc3\xa9",
                                        "<motion_0>"};
    struct scratch s;
    struct err err = ERR_INIT;
    struct tokenizer *t, *again;
    scratch_open(&s);
    good(tokenizer_write_bytes(s.dir, &err), &err);
    good(tokenizer_open(&t, s.dir, &err), &err);
    for (int i = 0; i < 5; i++) {
        int32_t id = -1;
        good(tokenizer_add(t, names[i], &id, &err), &err);
        assert_int_equal(id, 259 + i % 4);
    }
    assert_int_equal(tokenizer_size(t), 263);
    char dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", scratch_path(&s, "out"));
    good(dir_make(dir, &err), &err);
    good(tokenizer_save(t, dir, &err), &err);
    good(tokenizer_open(&again, dir, &err), &err);
    for (int k = 0; k < 2; k++) {
        const struct tokenizer *x = k ? again : t;
        for (int i = 0; i < 4; i++)
            assert_string_equal(tokenizer_token(x, 259 + i), names[i]);
        assert_null(tokenizer_token(x, 263));
        assert_null(tokenizer_token(x, -1));
        assert_int_equal(tokenizer_eos(x), 258);
        EXPECT_IDS(x, "<motion_1><motion_0> <motion_1>h\xc3\xa9", ENCODE_ADDED, 260, 259, 32, 260, 262);
        EXPECT_IDS(x, "h\xc3\xa9", ENCODE_PLAIN, 'h', 0xc3, 0xa9);
    }
    json_error_t at;
    json_t *config = json_load_file(scratch_path(&s, "out/tokenizer_config.json"), 0, &at);
    assert_non_null(config);
    assert_int_equal(json_object_size(json_object_get(config, "added_tokens_decoder")), 7);
    assert_int_equal(json_array_size(json_object_get(config, "additional_special_tokens")), 4);
    assert_string_equal(json_string_value(json_object_get(config, "eos_token")), "<|im_end|>");
    json_decref(config);
    char sha[SHA256_HEX_BYTES];
    good(sha256_file(scratch_path(&s, "out/tokenizer.json"), sha, &err), &err);
    assert_string_equal(tokenizer_sha256(again), sha);
    assert_string_not_equal(tokenizer_sha256(t), sha);
    tokenizer_close(again);
    tokenizer_close(t);
    scratch_close(&s);
}

struct worker {
    const struct tokenizer *t;
    struct ids ids;
    enum status status;
};

static void *encode_often(void *arg)
{
    struct worker *w = arg;
    struct err err = ERR_INIT;
    char text[64];
    for (int i = 0; i < 2000 && w->status == ST_OK; i++) {
        int n = snprintf(text, sizeof text, "thank you %d<|im_end|> caf\xc3\xa9 %d", i % 37, i * i);
        w->status = tokenizer_encode(w->t, text, (size_t)n, ENCODE_ADDED, &w->ids, &err);
    }
    return NULL;
}

static void threads_do_not_meet(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    struct tokenizer *t;
    struct worker workers[4] = {0};
    pthread_t threads[4];
    scratch_open(&s);
    good(tokenizer_write_bytes(s.dir, &err), &err);
    good(tokenizer_open(&t, s.dir, &err), &err);
    for (int i = 0; i < 4; i++) {
        workers[i].t = t;
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].status, ST_OK);
        assert_int_equal(workers[i].ids.n, workers[0].ids.n);
        assert_memory_equal(workers[i].ids.data, workers[0].ids.data,
                            (size_t)workers[0].ids.n * sizeof(int32_t));
    }
    for (int i = 0; i < 4; i++)
        ids_release(&workers[i].ids);
    tokenizer_close(t);
    scratch_close(&s);
}

static void ids_lists_grow(void **state)
{
    struct ids ids = IDS_INIT;
    struct err err = ERR_INIT;
    for (int32_t i = 0; i < 1000; i++)
        good(ids_push(&ids, i, &err), &err);
    good(ids_append(&ids, ids.data, 0, &err), &err);
    static const int32_t more[] = {-5, INT32_MAX};
    good(ids_append(&ids, more, 2, &err), &err);
    assert_int_equal(ids.n, 1002);
    for (int32_t i = 0; i < 1000; i++)
        assert_int_equal(ids.data[i], i);
    assert_int_equal(ids.data[1001], INT32_MAX);
    ids_clear(&ids);
    assert_int_equal(ids.n, 0);
    assert_true(ids.capacity >= 1002);
    ids_release(&ids);
    assert_null(ids.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_as_the_library),
        cmocka_unit_test(bytes_are_ids),
        cmocka_unit_test(bad_bytes_decode_to_replacements),
        cmocka_unit_test(invalid_text_is_refused_with_its_byte),
        cmocka_unit_test(saved_tokens_come_back),
        cmocka_unit_test(threads_do_not_meet),
        cmocka_unit_test(ids_lists_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
