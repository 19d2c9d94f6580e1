#include "support/scratch.h"
#include "util/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct scratch s;

static int open_scratch(void **unused)
{
    scratch_open(&s);
    return 0;
}

static int close_scratch(void **unused)
{
    scratch_close(&s);
    return 0;
}

static json_t *read_ok(const char *text)
{
    json_t *value = NULL;
    struct err err = ERR_INIT;
    if (json_read_text(&value, text, strlen(text), "x.json", &err) != ST_OK)
        fail_msg("%s", err.what);
    return value;
}

static void good_texts(void **unused)
{
    static const char *const texts[] = {
        "{}", "[]", " 1 ", "\"a\"", "null", "\xef\xbb\xbf{\"a\": 1}", "[1e300, -0.5]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        json_decref(read_ok(texts[i]));
}

static void bad_texts(void **unused)
{
    static const struct {
        const char *text, *what, *hint;
    } bad[] = {
        {"", "\"x.json\", line 1, column 0: ", "the file is empty"},
        {" \n ", "\"x.json\", line 2, column 1: ", "the file is empty"},
        {"{\"a\": 1,\n \"b\": }", "\"x.json\", line 2, column 7: ", ""},
        {"{\"a\": 1, \"a\": 2}", "duplicate object key", ""},
        {"[NaN]", "\"x.json\", line 1, column 4: ", ""},
        {"[1] x", "line 1, column 5: end of file expected", ""},
        {"[\"\xff\"]", "unable to decode byte 0xff", ""},
        {"[123456789012345678901234567890]", "too big integer", ""},
        {"[1e999]", "real number overflow", ""},
        {"<html><body>404", "\"x.json\", line 1, column 1: ", "this looks like a web page"},
        {"version https://git-lfs.github.com/spec/v1\noid", "\"x.json\", line 1",
         "this is a Git LFS pointer"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        json_t *value = (json_t *)&err;
        assert_int_equal(json_read_text(&value, bad[i].text, strlen(bad[i].text), "x.json", &err), ST_INPUT);
        assert_null(value);
        if (!strstr(err.what, bad[i].what) || !strstr(err.hint, bad[i].hint))
            fail_msg("case %zu: \"%s\", hint \"%s\"", i, err.what, err.hint);
    }
    assert_int_equal(json_read_text(&(json_t *){NULL}, NULL, 0, "x", NULL), ST_INPUT);
}

static void bottomless_nesting(void **unused)
{
    enum { DEPTH = 1000000 };
    char *text = malloc(DEPTH);
    assert_non_null(text);
    memset(text, '[', DEPTH);
    json_t *value;
    struct err err = ERR_INIT;
    assert_int_equal(json_read_text(&value, text, DEPTH, "deep", &err), ST_INPUT);
    assert_non_null(strstr(err.what, "maximum parsing depth reached"));
    free(text);
}

static void files(void **unused)
{
    struct err err = ERR_INIT;
    json_t *value = NULL;
    const char *path = scratch_file(&s, "a.json", "{\"a\": [1, 2}");
    assert_int_equal(json_read_file(&value, path, 1000, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "a.json\", line 1, column 12: "));
    assert_non_null(strstr(err.what, s.dir));
    err = (struct err)ERR_INIT;
    assert_int_equal(json_read_file(&value, path, 5, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "at most 5 are allowed"));
    assert_int_equal(json_read_file(&value, scratch_path(&s, "absent"), 5, NULL), ST_INPUT);

    json_t *object = read_ok("{\"z\": 0.1, \"a\": \"\xc3\xa4\", \"m\": [1, null]}");
    assert_int_equal(json_write_file(path, object, false, &err), ST_OK);
    assert_int_equal(json_read_file(&value, path, 1000, NULL), ST_OK);
    assert_true(json_equal(value, object));
    json_decref(value);
    assert_int_equal(json_write_file(path, object, true, NULL), ST_OK);
    json_decref(object);
    char *text = scratch_read(path);
    assert_string_equal(text, "{\n  \"a\": \"\xc3\xa4\",\n  \"m\": [\n    1,\n    null\n  ],\n"
                              "  \"z\": 0.10000000000000001\n}\n");
    free(text);
    err = (struct err)ERR_INIT;
    assert_int_equal(json_write_file(scratch_path(&s, "absent/x"), json_null(), false, &err), ST_ENV);
    assert_non_null(strstr(err.what, "absent/x"));
    assert_int_equal(json_write_file(path, NULL, false, NULL), ST_DEFECT);
}

static void python_constants(void **unused)
{
    static const char text[] =
        "{\"a\": NaN, \"b\": [Infinity, -Infinity,NaN], \"NaN\": \"Infinity \\\" NaN\", "
        "\"c\": -1, \"d\\\\\": NaN}";
    json_t *value = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(json_read_python(&value, text, strlen(text), "x", &err), ST_OK);
    json_t *want =
        read_ok("{\"a\": null, \"b\": [null, null, null], \"NaN\": \"Infinity \\\" NaN\", \"c\": -1, "
                "\"d\\\\\": null}");
    assert_true(json_equal(value, want));
    json_decref(want);
    json_decref(value);
    static const char *const bad[] = {"[xNaN]", "[NaNx]", "[-NaN]", "[1NaN]", "[--Infinity]", "[+Infinity]",
                                      "[nan]",  "NaN",    "\"",     "[\"\\",  "[Infinity1]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        enum status status = json_read_python(&value, bad[i], strlen(bad[i]), "x", NULL);
        assert_int_equal(status, strcmp(bad[i], "NaN") == 0 ? ST_OK : ST_INPUT);
        json_decref(value);
    }
}

static void python_places_are_those_of_the_text(void **unused)
{
    static const struct {
        const char *text, *what;
    } bad[] = {
        {"[1, 2, 3, 4 x]", "line 1, column 13"},      {"[NaN,NaN, 4 x]", "line 1, column 13"},
        {"[NaN,\nNaN, 4 x]", "line 2, column 8"},     {"[Infinity, x, NaN]", "line 1, column 12"},
        {"\xef\xbb\xbf[NaN, x]", "line 1, column 7"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        json_t *value;
        assert_int_equal(json_read_python(&value, bad[i].text, strlen(bad[i].text), "x", &err), ST_INPUT);
        if (!strstr(err.what, bad[i].what))
            fail_msg("case %zu: \"%s\"", i, err.what);
    }
}

static void good_fields(void **unused)
{
    json_t *o = read_ok("{\"i\": -3, \"r\": 0.5, \"t\": true, \"s\": \"text\", \"n\": null}");
    int64_t i = 0;
    double r = 0;
    bool t = false;
    const char *text = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(json_get_int(o, "x", "i", -3, -3, false, 0, &i, &err), ST_OK);
    assert_int_equal(i, -3);
    assert_int_equal(json_get_int(o, "x", "n", 0, 1, true, 77, &i, &err), ST_OK);
    assert_int_equal(i, 77);
    assert_int_equal(json_get_double(o, "x", "r", false, 0, &r, &err), ST_OK);
    assert_true(r == 0.5);
    assert_int_equal(json_get_double(o, "x", "i", false, 0, &r, &err), ST_OK);
    assert_true(r == -3);
    assert_int_equal(json_get_double(o, "x", "absent", true, 2.5, &r, &err), ST_OK);
    assert_true(r == 2.5);
    assert_int_equal(json_get_bool(o, "x", "t", false, false, &t, &err), ST_OK);
    assert_true(t);
    assert_int_equal(json_get_bool(o, "x", "n", true, false, &t, &err), ST_OK);
    assert_false(t);
    assert_int_equal(json_get_string(o, "x", "s", false, NULL, &text, &err), ST_OK);
    assert_string_equal(text, "text");
    assert_int_equal(json_get_string(o, "x", "absent", true, NULL, &text, &err), ST_OK);
    assert_null(text);
    json_decref(o);
}

static void bad_fields(void **unused)
{
    json_t *o = read_ok("{\"i\": 5, \"r\": 1.0, \"s\": \"5\", \"n\": null, \"l\": [], \"o\": {}}");
    int64_t i = 42;
    double r = 42;
    bool t = true;
    const char *text = "42";
    struct err err;
#define REFUSED(call, message)                                                                               \
    do {                                                                                                     \
        err = (struct err)ERR_INIT;                                                                          \
        assert_int_equal(call, ST_INPUT);                                                                    \
        assert_string_equal(err.what, message);                                                              \
    } while (0)
    REFUSED(json_get_int(o, "x", "i", 6, 9, true, 7, &i, &err),
            "\"x\": the field \"i\" is 5, allowed are 6 to 9");
    REFUSED(json_get_int(o, "x", "r", 0, 9, true, 7, &i, &err),
            "\"x\": the field \"r\" must be an integer, not a real number");
    REFUSED(json_get_int(o, "x", "n", 0, 9, false, 7, &i, &err), "\"x\": the field \"n\" is missing");
    REFUSED(json_get_double(o, "x", "s", true, 0, &r, &err),
            "\"x\": the field \"s\" must be a number, not a string");
    REFUSED(json_get_double(o, "x", "gone", false, 0, &r, &err), "\"x\": the field \"gone\" is missing");
    REFUSED(json_get_bool(o, "x", "i", true, false, &t, &err),
            "\"x\": the field \"i\" must be true or false, not an integer");
    REFUSED(json_get_string(o, "x", "l", true, "", &text, &err),
            "\"x\": the field \"l\" must be a string, not a list");
    REFUSED(json_get_string(o, "x", "o", true, "", &text, &err),
            "\"x\": the field \"o\" must be a string, not an object");
    json_t *list = json_object_get(o, "l");
    REFUSED(json_get_int(list, "x", "i", 0, 9, true, 7, &i, &err),
            "\"x\": an object with the field \"i\" is expected, not a list");
    REFUSED(json_get_int(NULL, "x", "i", 0, 9, true, 7, &i, &err),
            "\"x\": an object with the field \"i\" is expected, not nothing");
#undef REFUSED
    assert_int_equal(i, 42);
    assert_true(r == 42 && t);
    assert_string_equal(text, "42");
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_texts),         cmocka_unit_test(bad_texts),
        cmocka_unit_test(bottomless_nesting), cmocka_unit_test(files),
        cmocka_unit_test(python_constants),   cmocka_unit_test(python_places_are_those_of_the_text),
        cmocka_unit_test(good_fields),        cmocka_unit_test(bad_fields),
    };
    return cmocka_run_group_tests(tests, open_scratch, close_scratch);
}
