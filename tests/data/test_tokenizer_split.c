/* The splitting patterns by hand, beside the same patterns run by PCRE2. */
#include "data_support.h"
#include "tokenizer_internal.h"
#include "util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
#define HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char qwen[] = HEAD TAIL;
static const char llama3[] = HEAD "{1,3}" TAIL;

/* Old enough to be of one class in every Unicode version. */
static const char *const atoms[] = {
    "a",
    "b",
    "Z",
    "s",
    "S",
    "t",
    "re",
    "RE",
    "ve",
    "m",
    "lL",
    "d",
    "'",
    "'",
    "'",
    "\xe2\x80\x99",
    "\xc5\xbf",
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\xc2\xa0",
    "\xc2\x85",
    "\xe1\xa0\x8e",
    "\xe2\x80\x83",
    "\xe2\x80\xa8",
    "\xe3\x80\x80",
    "\xe2\x80\x8b",
    "\x1c",
    "1",
    "23",
    "456",
    "7890",
    "\xc2\xbd",
    "\xe2\x85\xa7",
    "\xd9\xa3",
    "\xe0\xa5\xaa",
    "-",
    "_",
    "!!",
    "<|",
    "\xc3\xa9",
    "e\xcc\x81",
    "\xd0\x96",
    "\xce\xa9",
    "\xe4\xb8\xad",
    "\xea\xb0\x81",
    "\xe0\xa4\x95\xe0\xa4\xbf",
    "\xf0\x9f\x98\x80",
    "\xe2\x82\xac",
    "\xf0\x9d\x92\x9c",
};

static size_t piece_end(const struct char_classes *c, int digits, const char *text, size_t n, size_t at)
{
    return digits ? tokenizer__word_qwen(c, digits, text, n, at) : tokenizer__word_gpt2(c, text, n, at);
}

static void compare_on(const struct char_classes *c, const struct pattern *p, int digits, const char *text,
                       size_t n)
{
    struct err err = ERR_INIT;
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    for (size_t at = 0; at < n;) {
        bool found;
        size_t start, end, hand = piece_end(c, digits, text, n, at);
        good(tokenizer__pattern_find(p, data, text, n, at, &found, &start, &end, &err), &err);
        if (!found || start != at || end != hand)
            fail_msg("digits %d, byte %zu of \"%.*s\": PCRE2 ends at %zu, we at %zu", digits, at, (int)n,
                     text, end, hand);
        at = end;
    }
    pcre2_match_data_free(data);
}

static void compare(const char *regex, int digits)
{
    struct err err = ERR_INIT;
    struct char_classes classes;
    struct pattern p = {0};
    json_t *json = json_pack("{s:s}", "Regex", regex);
    good(tokenizer__classes_init(&classes, &err), &err);
    good(tokenizer__pattern_load(&p, json, "test", &err), &err);
    assert_non_null(p.code);
    for (uint64_t i = 0; i < 20000; i++) {
        char text[512];
        size_t n = 0;
        for (uint64_t k = 0; k < 1 + rng_u64(3, RNG_TEST, 0, i) % 12; k++) {
            const char *atom =
                atoms[rng_u64(3, RNG_TEST, 1 + (uint32_t)k, i) % (sizeof atoms / sizeof atoms[0])];
            memcpy(text + n, atom, strlen(atom));
            n += strlen(atom);
        }
        char *exact = malloc(n); /* so that a read past the end shows under a sanitizer */
        memcpy(exact, text, n);
        compare_on(&classes, &p, digits, exact, n);
        free(exact);
    }
    tokenizer__pattern_release(&p);
    tokenizer__classes_release(&classes);
    json_decref(json);
}

static void gpt2_is_its_pattern(void **state)
{
    compare(gpt2, 0);
}

static void qwen_is_its_pattern(void **state)
{
    compare(qwen, 1);
}

static void llama3_is_its_pattern(void **state)
{
    compare(llama3, 3);
}

/* Pieces by the pattern's own words. */
static void pieces_are_the_known_ones(void **state)
{
    static const struct {
        const char *text;
        int digits;
        const char *pieces[6];
    } cases[] = {
        {"x'Sy", 1, {"x", "'S", "y"}},
        {"x'Sy", 0, {"x", "'", "Sy"}},
        {"a \n\n b", 1, {"a", " \n\n", " b"}},
        {"  \n  x", 1, {"  \n", " ", " x"}},
        {" -a", 1, {" -", "a"}},
        {"-a", 1, {"-a"}},
        {"!!\n\nx", 1, {"!!\n\n", "x"}},
        {"12345", 3, {"123", "45"}},
        {"12", 1, {"1", "2"}},
        {" 12", 0, {" 12"}},
        {"'\xc5\xbfz", 1, {"'\xc5\xbf", "z"}},
        {"a  ", 1, {"a", "  "}},
        {"a\r\n\r\nb", 1, {"a", "\r\n\r\n", "b"}},
        {"they'LL", 1, {"they", "'LL"}},
        {"\xe3\x80\x80y", 1, {"\xe3\x80\x80y"}},
        {" \t\n", 0, {" \t\n"}},
    };
    struct err err = ERR_INIT;
    struct char_classes classes;
    good(tokenizer__classes_init(&classes, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *text = cases[i].text;
        size_t at = 0, n = strlen(text);
        int k = 0;
        for (; at < n; k++) {
            size_t end = piece_end(&classes, cases[i].digits, text, n, at);
            assert_true(k < 6 && cases[i].pieces[k]);
            assert_int_equal(end - at, strlen(cases[i].pieces[k]));
            assert_memory_equal(text + at, cases[i].pieces[k], end - at);
            at = end;
        }
        assert_null(k < 6 ? cases[i].pieces[k] : NULL);
    }
    tokenizer__classes_release(&classes);
}

static void strange_patterns_are_refused(void **state)
{
    static const char *const bad[] = {"\\w+",    "a\\b",          "[\\S]",     "^a",     "a$",
                                      "[a[bc]]", "[a&&b]",        "(a){1,2}+", "(?m:a)", "(?P<n>a)",
                                      "(*UTF)a", "a\\",           "\\p{L",     "(?#c)",  "a)",
                                      "(a",      "\\p{Nonsense}", "[b-a]",     "\\1",    "[]a]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err err = ERR_INIT;
        struct pattern p = {0};
        json_t *json = json_pack("{s:s}", "Regex", bad[i]);
        if (tokenizer__pattern_load(&p, json, "test", &err) != ST_INPUT)
            fail_msg("accepted: %s", bad[i]);
        assert_non_null(strstr(err.what, "regular expression"));
        tokenizer__pattern_release(&p);
        json_decref(json);
    }
}

/* A pattern that needs exponential time ends with an error instead. */
static void exploding_patterns_end(void **state)
{
    struct err err = ERR_INIT;
    struct pattern p = {0};
    bool found;
    size_t start, end;
    char text[64];
    memset(text, 'a', sizeof text);
    json_t *json = json_pack("{s:s}", "Regex", "(?:a+)+b|(?:a|a)+(?:a|a)+c");
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    good(tokenizer__pattern_load(&p, json, "test", &err), &err);
    text[0] = 'b';
    enum status status =
        tokenizer__pattern_find(&p, data, text, sizeof text - 1, 0, &found, &start, &end, &err);
    if (status == ST_OK) /* PCRE2 may see that there is no b or c ahead */
        assert_false(found);
    else
        assert_non_null(strstr(err.what, "cannot be matched at byte"));
    pcre2_match_data_free(data);
    tokenizer__pattern_release(&p);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_is_its_pattern),          cmocka_unit_test(qwen_is_its_pattern),
        cmocka_unit_test(llama3_is_its_pattern),        cmocka_unit_test(pieces_are_the_known_ones),
        cmocka_unit_test(strange_patterns_are_refused), cmocka_unit_test(exploding_patterns_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
