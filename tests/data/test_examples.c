/* The JSON data set: index, statistics, rows read again, and what bad files say. */
#include "data/examples.h"
#include "support/scratch.h"
#include "util/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct examples *open_text(struct scratch *s, const char *text)
{
    struct examples *x;
    struct err err = ERR_INIT;
    const char *path = scratch_file(s, "data.json", text);
    if (examples_open(&x, path, &err) != ST_OK)
        fail_msg("%s", err.what);
    return x;
}

static void rows_are_as_written(void **unused)
{
    struct scratch s;
    scratch_open(&s);
    struct examples *x =
        open_text(&s, "\n [\r\n"
                      "{\"text_query\": \"a \\\"b\\\" \\u00e9{[\", \"motion_tokens\": \" 5 9\\t5\\n11 \", "
                      "\"participant_id\": \"S10\", \"extra\": {\"deep\": [1, {\"x\": \"]}\"}]}},"
                      "{\"motion_tokens\":[3, 0],\"text_query\":\"hello\", \"participant_id\": 7},\n"
                      "{\"motion_tokens\":\"0012\",\"text_query\":\"hello\", \"participant_id\": null}\n,"
                      "{\"motion_tokens\":\"1 2 3\",\"text_query\":\"hello\"},"
                      "{\"motion_tokens\":\"4 4 4 4\",\"text_query\":\"hello\", \"participant_id\": NaN},"
                      "{\"motion_tokens\":\"1\",\"text_query\":\"NaN\", \"participant_id\": \"NULL\"},"
                      "{\"motion_tokens\":\"1\",\"text_query\":\"x\", \"participant_id\": \"-1\"} ] \n");
    static const struct {
        const char *text;
        int32_t motion[4], n_motion, text_id, participant;
    } want[] = {{"a \"b\" \xc3\xa9{[", {5, 9, 5, 11}, 4, 0, 2},
                {"hello", {3, 0}, 2, 1, 1},
                {"hello", {12}, 1, 1, -1},
                {"hello", {1, 2, 3}, 3, 1, -1},
                {"hello", {4, 4, 4, 4}, 4, 1, -1},
                {"NaN", {1}, 1, 2, -1},
                {"x", {1}, 1, 3, 0}};
    struct example e = EXAMPLE_INIT;
    struct err err = ERR_INIT;
    assert_int_equal(examples_count(x), 7);
    for (int64_t r = 6; r >= 0; r--) {
        if (examples_read(x, r, &e, &err) != ST_OK)
            fail_msg("%s", err.what);
        assert_string_equal(e.text, want[r].text);
        assert_int_equal(e.n_motion, want[r].n_motion);
        assert_memory_equal(e.motion, want[r].motion, (size_t)e.n_motion * sizeof *e.motion);
        assert_int_equal(e.text_id, want[r].text_id);
        assert_int_equal(e.participant, want[r].participant);
    }
    assert_int_equal(examples_n_codes(x), 13);
    assert_int_equal(examples_n_participants(x), 3); /* sorted by bytes: "-1", "7", "S10" */
    assert_string_equal(examples_participant(x, 0), "-1");
    assert_string_equal(examples_participant(x, 1), "7");
    assert_string_equal(examples_participant(x, 2), "S10");
    assert_null(examples_participant(x, 3));
    assert_int_equal(examples_read(x, 7, &e, &err), ST_DEFECT);

    struct text_stats t;
    static const int32_t codes[] = {0, 1, 2, 3, 4, 12};
    examples_text_stats(x, 1, &t);
    assert_string_equal(t.text, "hello");
    assert_int_equal(t.n_rows, 4); /* lengths 2 1 3 4 */
    assert_int_equal(t.min_len, 1);
    assert_int_equal(t.median_len, 2); /* floor of 2.5 */
    assert_int_equal(t.max_len, 4);
    assert_int_equal(t.n_codes, 6);
    assert_memory_equal(t.codes, codes, sizeof codes);
    assert_int_equal(examples_n_texts(x), 4);
    assert_int_equal(examples_median_len(x), 2); /* 1 1 1 2 3 4 4 */
    example_release(&e);
    examples_close(x);
    scratch_close(&s);
}

static void bad_files_are_named(void **unused)
{
#define GOOD "{\"text_query\":\"a\",\"motion_tokens\":\"1\"}"
    static const struct {
        const char *text, *what, *hint;
    } cases[] = {
        {"", "the file is empty", "JSON array"},
        {"  \n", "the file is empty", "JSON array"},
        {"\xef\xbb\xbf[" GOOD "]", "byte order mark", "without"},
        {"\xff\xfe[", "byte order mark", "UTF-8"},
        {"<!DOCTYPE html><html>", "an HTML page", "web page"},
        {"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer", "git lfs pull"},
        {GOOD, "a JSON object, not an array", "one array"},
        {"\"text\"", "not a JSON array: byte 0 is 0x22", ""},
        {"[]", "the array is empty", ""},
        {"[" GOOD "] x", "something follows the array at byte 41", ""},
        {"[" GOOD "][]", "something follows the array", ""},
        {"[" GOOD ",]", "row 1 (byte 40) is not an object", ""},
        {"[," GOOD "]", "row 0 (byte 1) is not an object", ""},
        {"[" GOOD " " GOOD "]", "expected a comma or the closing bracket after row 0, at byte 40", ""},
        {"[5]", "row 0 (byte 1) is not an object", ""},
        {"[" GOOD, "the file ends at byte 39 after 1 rows", "truncated"},
        {"[" GOOD ",", "the file ends at byte 40 after 1 rows", "truncated"},
        {"[" GOOD ",{\"text_query\":\"a\",\"mot", "ends at byte 62 inside row 1 (which begins at byte 40)",
         "truncated"},
        {"[" GOOD ",{\"text_query\":\"a]}", "inside row 1", "quote"},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"1\",}]", "row 0 (byte ", ""},
        {"[{\"text_query\":\"a\" \"motion_tokens\":\"1\"}]", "row 0 (byte 34)", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"1\"]]", "'}' expected near ']'", ""},
        {"[{\"text_query\":\"\xff\",\"motion_tokens\":\"1\"}]", "row 0 (byte 16): unable to decode byte 0xff",
         ""},
        {"[" GOOD ",{\"motion_tokens\":\"1\"}]", "row 1 (byte 40): text_query is missing", ""},
        {"[{\"text_query\":\"\",\"motion_tokens\":\"1\"}]", "row 0 (byte 1): text_query is empty", ""},
        {"[{\"text_query\":5,\"motion_tokens\":\"1\"}]", "text_query is no string", ""},
        {"[{\"text_query\":\"a\\u0000b\",\"motion_tokens\":\"1\"}]", "row 0", ""},
        {"[{\"text_query\":\"a\"}]", "motion_tokens is missing", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"\"}]", "motion_tokens is empty", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":[]}]", "motion_tokens is empty", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":null}]", "neither a string nor a list", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"1 x2\"}]", "\"x2\" is no decimal codebook id", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"1 2x 3\"}]", "\"2x 3\" is no decimal codebook id", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"-1\"}]", "\"-1\" is no decimal codebook id", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"1.5\"}]", "is no decimal codebook id", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"1000001\"}]", "1000001 is not in 0..1000000", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"99999999999999999999\"}]", "is not in 0..1000000", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":[1, -2]}]", "-2 is not in 0..1000000", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":[1, \"2\"]}]", "motion_tokens[1] is no integer", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"1\",\"participant_id\":1.5}]",
         "participant_id is neither", ""},
        {"[{\"text_query\":\"a\",\"motion_tokens\":\"1\",\"participant_id\":{}}]",
         "participant_id is neither", ""},
    };
    struct scratch s;
    scratch_open(&s);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct examples *x;
        struct err err = ERR_INIT;
        const char *path = scratch_file(&s, "bad.json", cases[c].text);
        if (examples_open(&x, path, &err) != ST_INPUT)
            fail_msg("case %zu: %s", c, err.what);
        assert_null(x);
        if (!strstr(err.what, cases[c].what) || !strstr(err.hint, cases[c].hint) ||
            !strstr(err.what, "bad.json"))
            fail_msg("case %zu: \"%s\" / \"%s\" lacks \"%s\" / \"%s\"", c, err.what, err.hint, cases[c].what,
                     cases[c].hint);
        for (const char *t = err.what; *t; t++)
            assert_in_range((unsigned char)*t, 0x20, 0x7e);
    }
    struct examples *x;
    struct err err = ERR_INIT;
    assert_int_equal(examples_open(&x, scratch_path(&s, "absent.json"), &err), ST_INPUT);
    assert_non_null(strstr(err.what, "absent.json"));
    err = (struct err)ERR_INIT;
    assert_int_equal(examples_open(&x, s.dir, &err), ST_INPUT);
    scratch_close(&s);
}

/* Cut after any byte, a file gives an error and not a shorter data set. */
static void every_truncation_is_seen(void **unused)
{
    static const char text[] = "[" GOOD ", {\"text_query\":\"b \\\" {\",\"motion_tokens\":[1,2],\"x\":[{}]}]";
    struct scratch s;
    scratch_open(&s);
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char cut[sizeof text];
        struct examples *x;
        struct err err = ERR_INIT;
        snprintf(cut, sizeof cut, "%.*s", (int)n, text);
        assert_int_equal(examples_open(&x, scratch_file(&s, "cut.json", cut), &err), ST_INPUT);
        assert_true(strstr(err.what, "ends at byte") || strstr(err.what, "is empty"));
    }
    scratch_close(&s);
}

static void depth_and_length_are_bounded(void **unused)
{
    struct scratch s;
    struct buf text = BUF_INIT;
    struct examples *x;
    struct err err = ERR_INIT;
    scratch_open(&s);
    buf_puts(&text, "[{\"text_query\":\"a\",\"motion_tokens\":\"1\",\"x\":", &err);
    for (int i = 0; i < 100000; i++)
        buf_puts(&text, "[", &err);
    assert_int_equal(examples_open(&x, scratch_file(&s, "deep.json", text.data), &err), ST_INPUT);
    assert_non_null(strstr(err.what, "nested deeper"));
    /* a quote that never ends, in a file of 20 MB */
    buf_clear(&text);
    err = (struct err)ERR_INIT;
    buf_puts(&text, "[" GOOD ",{\"text_query\":\"", &err);
    buf_reserve(&text, 20u << 20, &err);
    memset(text.data + text.n_bytes, 'a', 20u << 20);
    text.n_bytes += 20u << 20;
    text.data[text.n_bytes] = 0;
    assert_int_equal(examples_open(&x, scratch_file(&s, "long.json", text.data), &err), ST_INPUT);
    assert_non_null(strstr(err.what, "row 1 (byte 40) is longer than 16 MiB"));
    buf_release(&text);
    scratch_close(&s);
}

/* Rows across the borders of the blocks that are read, and their places in messages. */
static void large_files_keep_their_places(void **unused)
{
    enum { N_ROWS = 60000 };
    struct scratch s;
    struct buf text = BUF_INIT;
    struct err err = ERR_INIT;
    scratch_open(&s);
    buf_puts(&text, "[", &err);
    for (int i = 0; i < N_ROWS; i++)
        buf_printf(&text, &err,
                   "%s{\"text_query\": \"text %d\", \"motion_tokens\": \"%d %d %d\", \"participant_id\": %d}",
                   i ? ",\n" : "", i % 5000, i % 97, i % 89, i % 83, i % 12);
    size_t n_rows_bytes = text.n_bytes;
    buf_puts(&text, "]", &err);
    assert_true(text.n_bytes > 4u << 20);
    struct examples *x = open_text(&s, text.data);
    char sha[SHA256_HEX_BYTES];
    sha256_buffer(text.data, text.n_bytes, sha);
    assert_string_equal(examples_sha256(x), sha);
    assert_int_equal(examples_count(x), N_ROWS);
    assert_int_equal(examples_n_texts(x), 5000);
    assert_int_equal(examples_n_codes(x), 97);
    struct example e = EXAMPLE_INIT;
    for (int i = 0; i < N_ROWS; i += 7) {
        char want[32];
        assert_int_equal(examples_read(x, i, &e, &err), ST_OK);
        snprintf(want, sizeof want, "text %d", i % 5000);
        assert_string_equal(e.text, want);
        assert_true(e.n_motion == 3 && e.motion[0] == i % 97 && e.motion[2] == i % 83);
        snprintf(want, sizeof want, "%d", i % 12);
        assert_string_equal(examples_participant(x, e.participant), want);
    }
    example_release(&e);
    examples_close(x);

    struct examples *bad;
    text.n_bytes = n_rows_bytes;
    buf_puts(&text, ",{\"text_query\": \"a\"}]", &err);
    assert_int_equal(examples_open(&bad, scratch_file(&s, "bad.json", text.data), &err), ST_INPUT);
    char want[80];
    snprintf(want, sizeof want, "row %d (byte %zu): motion_tokens is missing", N_ROWS, n_rows_bytes + 1);
    if (!strstr(err.what, want))
        fail_msg("%s", err.what);
    buf_release(&text);
    scratch_close(&s);
}

static void a_file_that_changed_is_refused(void **unused)
{
    struct scratch s;
    scratch_open(&s);
    struct examples *x = open_text(&s, "[{\"text_query\":\"abc\",\"motion_tokens\":\"1 2\"}]");
    static const char *const texts[] = {"[{\"text_query\":\"abd\",\"motion_tokens\":\"1 2\"}]",
                                        "[{\"text_query\":\"abc\",\"motion_tokens\":\"1 9\"}]",
                                        "[{\"text_query\":\"abc\",\"motion_tokens\":\"123\"}]",
                                        "[{\"text_query\":\"abc\",\"motion_tokens\":\"1 2",
                                        "[{\"text_query\":\"abc\",\"motion_tokens\":\"1 2\"}]"};
    struct example e = EXAMPLE_INIT;
    for (size_t i = 0; i < 5; i++) {
        struct err err = ERR_INIT;
        scratch_file(&s, "data.json", texts[i]); /* written over, the same file */
        assert_int_equal(examples_read(x, 0, &e, &err), i < 4 ? ST_INPUT : ST_OK);
    }
    example_release(&e);
    examples_close(x);
    scratch_close(&s);
}

/* Counts of the real data, which lies beside the repository. */
static void real_data_is_read(void **unused)
{
    const char *shared = getenv("SMGPT_SHARED");
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/data/sign_motion_vq512.json",
             shared ? shared : SMGPT_SOURCE_DIR "/../shared");
    if (!file_exists(path)) {
        print_message("no %s\n", path);
        skip();
    }
    struct examples *x;
    struct err err = ERR_INIT;
    if (examples_open(&x, path, &err) != ST_OK)
        fail_msg("%s", err.what);
    assert_int_equal(examples_count(x), 7364);
    assert_int_equal(examples_n_texts(x), 58);
    assert_int_equal(examples_n_codes(x), 512);
    assert_int_equal(examples_n_participants(x), 10);
    for (int32_t i = 0; i < 58; i++) {
        struct text_stats t;
        examples_text_stats(x, i, &t);
        assert_true(t.min_len >= 9 && t.max_len <= 14 && t.median_len >= t.min_len && t.n_codes > 0);
    }
    examples_close(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_as_written),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(every_truncation_is_seen),
        cmocka_unit_test(depth_and_length_are_bounded),
        cmocka_unit_test(large_files_keep_their_places),
        cmocka_unit_test(a_file_that_changed_is_refused),
        cmocka_unit_test(real_data_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
