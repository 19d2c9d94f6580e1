/* Files that are broken, hostile, or of a kind that is not supported. */
#include "data_support.h"
#include "tokenizer_support.h"
#include "util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define AB "\"a\": 0, \"b\": 1, \"ab\": 2"
#define SPLIT(x)                                                                                             \
    "\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"invert\": false, "               \
    "\"pattern\": " x "},"

static const struct {
    struct small_tokenizer small;
    const char *message;
} cases[] = {
    /* ids and tokens */
    {{.vocab = "\"a\": -1"}, "model.vocab[\"a\"]: id -1 is not in 0.."},
    {{.vocab = "\"a\": 4194304"}, "model.vocab[\"a\"]: id 4194304 is not in 0..4194303"},
    {{.vocab = "\"a\": 99999999999999999999999"}, "is not in 0..4194303"},
    {{.vocab = "\"a\": 1.0"}, "model.vocab[\"a\"]: the id is no whole number"},
    {{.vocab = "\"a\": 1e3"}, "model.vocab[\"a\"]: the id is no whole number"},
    {{.vocab = "\"a\": \"1\""}, "model.vocab[\"a\"]: the id is no whole number"},
    {{.vocab = "\"a\": null"}, "model.vocab[\"a\"]: the id is no whole number"},
    {{.vocab = "\"a\": [1]"}, "model.vocab[\"a\"]: the id is no whole number"},
    {{.vocab = "\"a\": 0, \"b\": 0"}, "model.vocab[\"b\"]: id 0 is already that of \"a\""},
    {{.vocab = "\"a\": 0, \"a\": 1"}, "model.vocab: the token \"a\" stands twice"},
    {{.vocab = "\"a\": 0, \"\\u0061\": 1"}, "model.vocab: the token \"a\" stands twice"},
    {{.vocab = "\"\\ud800\": 0"}, "invalid Unicode"},
    {{.vocab = "\"\\udc00x\": 0"}, "invalid Unicode"},
    {{.vocab = "\"\\q\": 0"}, "invalid escape"},
    {{.vocab = "\"\xff\": 0"}, "byte 0xff"},
    {{.vocab = "\"a\": 0,"}, "line 2"},
    {{.vocab = "\"a\" 0"}, "line 2"},
    {{.vocab = "\"a\": 0 \"b\": 1"}, "line 2"},
    {{.vocab = "\"a\": 0} x"}, "line 2"},
    {{.vocab = "\"a\": 0}, \"vocab\": {"}, "duplicate object key"},
    /* merges */
    {{.vocab = AB, .merges = "\"a c\""}, "model.merges[0]: \"c\" is not in model.vocab"},
    {{.vocab = AB, .merges = "\"c a\""}, "model.merges[0]: \"c\" is not in model.vocab"},
    {{.vocab = AB, .merges = "[\"a\", \"b\"], [\"b\", \"a\"]"},
     "model.merges[1]: \"ba\" is not in model.vocab"},
    {{.vocab = AB, .merges = "[\"a\", \"\"]"}, "model.merges[0]: \"\" is not in model.vocab"},
    {{.vocab = AB, .merges = "\"ab\""}, "model.merges[0]: neither \"left right\" nor"},
    {{.vocab = AB, .merges = "\"a b c\""}, "model.merges[0]: neither"},
    {{.vocab = AB, .merges = "[\"a\"]"}, "model.merges[0]: neither"},
    {{.vocab = AB, .merges = "[\"a\", \"b\", \"c\"]"}, "model.merges[0]: neither"},
    {{.vocab = AB, .merges = "[\"a\", 1]"}, "model.merges[0]: neither"},
    {{.vocab = AB, .merges = "7"}, "model.merges[0]: neither"},
    {{.vocab = AB, .merges = "\"a b\", [\"a\", \"b\"]"}, "model.merges[1]: neither"},
    {{.vocab = AB, .merges = "\"a b\" \"a b\""}, "line 2"},
    {{.vocab = AB, .merges = "\"a b\"], \"merges\": ["}, "duplicate object key"},
    /* options of the model */
    {{.vocab = AB, .options = "\"continuing_subword_prefix\": \"##\","},
     "model\": continuing_subword_prefix \"##\" is not supported"},
    {{.vocab = AB, .options = "\"end_of_word_suffix\": \"</w>\","},
     "model\": end_of_word_suffix \"</w>\" is not supported"},
    {{.vocab = AB, .options = "\"dropout\": 0.1,"}, "model\": dropout is not supported"},
    {{.vocab = AB, .options = "\"dropout\": \"x\","}, "dropout"},
    {{.vocab = AB, .options = "\"fuse_unk\": 1,"}, "fuse_unk"},
    {{.vocab = AB, .options = "\"byte_fallback\": \"yes\","}, "byte_fallback"},
    {{.vocab = AB, .options = "\"unk_token\": 5,"}, "unk_token"},
    /* added tokens */
    {{.vocab = AB, .added = "7"}, "added_tokens[0]\": not an object"},
    {{.vocab = AB, .added = "{}"}, "added_tokens[0]"},
    {{.vocab = AB, .added = ADDED(-3, "x", false, true)}, "id"},
    {{.vocab = AB, .added = ADDED(99999999999, "x", false, true)}, "id"},
    {{.vocab = AB, .added = ADDED(5, "x", false, true)},
     "\"x\" has id 5, but the tokenizers library would give it 3"},
    {{.vocab = AB, .added = ADDED(3, "a", false, true)},
     "\"a\" has id 3, but the tokenizers library would give it 0"},
    {{.vocab = AB, .added = ADDED(3, "x", false, true) "," ADDED(3, "x", false, true)},
     "added_tokens[1]\": \"x\" stands twice"},
    {{.vocab = AB, .added = ADDED(3, "x", 5, true)}, "normalized"},
    {{.vocab = AB, .added = ADDED(3, "", false, true)}, "an added token of 0 bytes"},
    {{.vocab = "\"a\": 0, \"b\": 2", .added = ADDED(2, "x", false, true)}, "id 2 is already that of \"b\""},
    {{.vocab = AB,
      .added = ADDED(3, "x", true, true),
      .top = "\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \"x\"}, \"content\": \"\"},"},
     "leaves nothing of the added token \"x\""},
    /* normalizers */
    {{.vocab = AB, .top = "\"normalizer\": {\"type\": \"Lowercase\"},"},
     "normalizer\": Lowercase is not supported"},
    {{.vocab = AB, .top = "\"normalizer\": {\"type\": \"NFX\"},"}, "normalizer\": NFX is not supported"},
    {{.vocab = AB,
      .top = "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": "
             "\"StripAccents\"}]},"},
     "StripAccents is not supported"},
    {{.vocab = AB, .top = "\"normalizer\": {\"type\": \"Sequence\"},"}, "normalizers: not a list"},
    {{.vocab = AB, .top = "\"normalizer\": \"NFC\","}, "normalizer\": not an object"},
    {{.vocab = AB, .top = "\"normalizer\": {},"}, "type"},
    {{.vocab = AB, .top = "\"normalizer\": {\"type\": \"Replace\", \"content\": \"\"},"}, "pattern: neither"},
    {{.vocab = AB, .top = "\"normalizer\": {\"type\": \"Prepend\"},"}, "prepend"},
    /* pre-tokenizers */
    {{.vocab = AB, .top = "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},"},
     "pre_tokenizer\": BertPreTokenizer is not supported"},
    {{.vocab = AB, .top = SPLIT("{\"Regex\": \"(\"}")}, "bad regular expression \"(\""},
    {{.vocab = AB, .top = SPLIT("{\"Regex\": \"\\\\w+\"}")},
     "the regular expression with \"\\w\" is not supported"},
    {{.vocab = AB, .top = SPLIT("7")}, "pattern: neither"},
    {{.vocab = AB, .top = SPLIT("{\"String\": \"a\", \"Regex\": \"a\"}")}, "pattern: neither"},
    {{.vocab = AB,
      .top = "\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Sideways\", \"pattern\": {\"String\": "
             "\"a\"}},"},
     "Sideways is not supported"},
    {{.vocab = AB, .top = "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"ab\"},"},
     "replacement \"ab\" is not one character"},
    {{.vocab = AB,
      .top = "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\", \"add_prefix_space\": "
             "false},"},
     "add_prefix_space is false, but prepend_scheme is \"always\""},
    {{.vocab = AB,
      .top = "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\", "
             "\"add_prefix_space\": true}, "
             "{\"type\": \"Digits\"}]},"},
     "a step behind ByteLevel is not supported"},
    /* post-processors and decoders */
    {{.vocab = AB, .top = "\"post_processor\": {\"type\": \"RobertaProcessing\"},"},
     "post_processor\": RobertaProcessing is not supported"},
    {{.vocab = AB,
      .top = "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": "
             "\"B\"}}]},"},
     "single[0]: neither a special token nor sequence A"},
    {{.vocab = AB, .top = "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": []},"},
     "exactly once is not supported"},
    {{.vocab = AB,
      .top = "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
             "{\"id\": \"x\"}}], "
             "\"special_tokens\": {\"x\": {\"ids\": [3]}}},"},
     "special_tokens[\"x\"].ids[0] is no token's id"},
    {{.vocab = AB, .top = "\"decoder\": {\"type\": \"WordPiece\"},"},
     "decoder\": WordPiece is not supported"},
    {{.vocab = AB,
      .top = "\"decoder\": {\"type\": \"Strip\", \"content\": \" \", \"start\": -1, \"stop\": 0},"},
     "start"},
    {{.vocab = AB, .top = "\"added_tokens\": [],"}, "duplicate object key"},
};

/* The message of opening what is in s; NULL if it opens. */
static const char *open_fails(struct scratch *s, struct err *err)
{
    struct tokenizer *t = NULL;
    *err = (struct err)ERR_INIT;
    if (tokenizer_open(&t, s->dir, err) == ST_OK) {
        assert_non_null(t);
        tokenizer_close(t);
        return NULL;
    }
    assert_null(t);
    assert_int_equal(err->status, ST_INPUT);
    return err->what;
}

static void bad_files_are_named(void **state)
{
    struct scratch s;
    struct err err;
    int n_wrong = 0;
    scratch_open(&s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = small_text(&cases[i].small);
        scratch_file(&s, "tokenizer.json", text);
        const char *message = open_fails(&s, &err);
        if (!message || !strstr(message, cases[i].message) || !strstr(message, "tokenizer.json")) {
            print_error("case %zu: \"%s\" instead of \"%s\"\n%s", i, message ? message : "(opened)",
                        cases[i].message, text);
            n_wrong++;
        }
        free(text);
    }
    assert_int_equal(n_wrong, 0);
    scratch_close(&s);
}

static void foreign_files_are_named(void **state)
{
    static const char *const bad[][2] = {
        {"", "tokenizer.json"},
        {"[]", "expected an object"},
        {"7", "expected an object"},
        {"{}", "model\": missing"},
        {"{\"model\": 5}", "model\": not an object"},
        {"{\"model\": {}}", "model\": vocab: missing or not an object"},
        {"{\"model\": {\"vocab\": [], \"merges\": []}}", "model\": vocab: missing or not an object"},
        {"{\"model\": {\"vocab\": {}, \"merges\": {}}}", "model\": merges: missing or not a list"},
        {"{\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"a\", -1.5]]}}",
         "model type \"Unigram\" is not supported"},
        {"{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": 0}}}",
         "model type \"WordPiece\" is not supported"},
        {"{\"model\": {\"vocab\": {}, \"merges\": []}} x", "line 1"},
        {"{\"model\": {\"vocab\": {}, \"merges\": []}, \"model\": {\"vocab\": {}, \"merges\": []}}",
         "duplicate object key"},
        {"<html></html>", "line 1"},
    };
    struct scratch s;
    struct err err;
    scratch_open(&s);
    assert_non_null(open_fails(&s, &err)); /* no file at all */
    assert_non_null(strstr(err.what, "tokenizer.json"));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        scratch_file(&s, "tokenizer.json", bad[i][0]);
        const char *message = open_fails(&s, &err);
        if (!message || !strstr(message, bad[i][1]))
            fail_msg("\"%s\" for %s", message ? message : "(opened)", bad[i][0]);
    }
    scratch_file(&s, "tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    assert_non_null(open_fails(&s, &err));
    assert_non_null(strstr(err.hint, "Git LFS"));
    scratch_close(&s);
}

static void bad_configs_are_named(void **state)
{
    static const char *const bad[][2] = {
        {"[]", "not an object"},
        {"{", "line 1"},
        {"{\"eos_token\": 5}", "eos_token: neither a string nor an object"},
        {"{\"eos_token\": {\"text\": \"a\"}}", "eos_token: neither a string nor an object"},
        {"{\"eos_token\": \"</s>\"}", "eos_token \"</s>\" is no token of tokenizer.json"}};
    static const struct {
        const char *text;
        int eos;
    } fine[] = {{"{}", -1},
                {"{\"eos_token\": null}", -1},
                {"{\"eos_token\": \"b\"}", 1},
                {"{\"eos_token\": {\"content\": \"ab\"}}", 2}};
    struct scratch s;
    struct err err;
    scratch_open(&s);
    char *text = small_text(&(struct small_tokenizer){.vocab = AB});
    scratch_file(&s, "tokenizer.json", text);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        scratch_file(&s, "tokenizer_config.json", bad[i][0]);
        const char *message = open_fails(&s, &err);
        if (!message || !strstr(message, bad[i][1]) || !strstr(message, "tokenizer_config.json"))
            fail_msg("\"%s\" for %s", message ? message : "(opened)", bad[i][0]);
    }
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        struct tokenizer *t;
        err = (struct err)ERR_INIT;
        scratch_file(&s, "tokenizer_config.json", fine[i].text);
        good(tokenizer_open(&t, s.dir, &err), &err);
        assert_int_equal(tokenizer_eos(t), fine[i].eos);
        tokenizer_close(t);
    }
    free(text);
    scratch_close(&s);
}

/* A good file with most kinds of fields, as text. */
static char *rich_text(void)
{
    return small_text(&(struct small_tokenizer){
        .vocab = AB ", \"\\u00e9\\n\\ud83d\\ude00\": 3",
        .merges = "[\"a\", \"b\"]",
        .added = ADDED(4, "<x>", false, true) "," ADDED(5, "y", true, false),
        .options = "\"unk_token\": \"a\", \"fuse_unk\": true, \"dropout\": null,",
        .top = "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": "
               "\"Replace\", "
               "\"pattern\": {\"Regex\": \"[ ]+\"}, \"content\": \"_\"}]}, \"pre_tokenizer\": {\"type\": "
               "\"Metaspace\", "
               "\"replacement\": \"_\", \"prepend_scheme\": \"first\", \"split\": true}, \"decoder\": "
               "{\"type\": \"Sequence\", "
               "\"decoders\": [{\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, "
               "\"stop\": 0}]}, "
               "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
               "{\"id\": \"<x>\"}}, "
               "{\"Sequence\": {\"id\": \"A\"}}], \"special_tokens\": {\"<x>\": {\"ids\": [4]}}},"});
}

static void every_cut_is_refused(void **state)
{
    struct scratch s;
    struct err err;
    scratch_open(&s);
    char *text = rich_text();
    scratch_file(&s, "tokenizer.json", text);
    assert_null(open_fails(&s, &err));
    for (size_t n = strlen(text) - 2; n > 0; n--) {
        text[n] = '\0';
        scratch_file(&s, "tokenizer.json", text);
        if (!open_fails(&s, &err))
            fail_msg("opened when cut to %zu bytes", n);
        assert_non_null(strstr(err.what, "tokenizer.json"));
    }
    free(text);
    scratch_close(&s);
}

/* Whatever byte is broken: it opens, or says what is wrong; what opens can be used. */
static void broken_bytes_do_no_harm(void **state)
{
    static const char bytes[] = "\"\\{}[],:0-9ea \x01\xff\xc3";
    struct scratch s;
    struct err err = ERR_INIT;
    int n_opened = 0, n_refused = 0;
    scratch_open(&s);
    for (uint64_t i = 0; i < 3000; i++) {
        struct tokenizer *t;
        char *text = rich_text();
        uint64_t n = strlen(text);
        for (uint32_t k = 0; k <= i % 3; k++)
            text[rng_u64(9, RNG_TEST, 2 * k, i) % n] =
                bytes[rng_u64(9, RNG_TEST, 2 * k + 1, i) % (sizeof bytes - 1)];
        scratch_file(&s, "tokenizer.json", text);
        err = (struct err)ERR_INIT;
        if (tokenizer_open(&t, s.dir, &err) == ST_OK) {
            struct ids ids = IDS_INIT;
            struct buf out = BUF_INIT;
            n_opened++;
            if (tokenizer_encode(t, text, tokenizer_size(t) > 3 ? 40 : 20, ENCODE_ADDED | ENCODE_SPECIAL,
                                 &ids, &err) == ST_OK)
                good(tokenizer_decode(t, ids.data, ids.n, false, &out, &err), &err);
            ids_release(&ids);
            buf_release(&out);
            tokenizer_close(t);
        } else {
            assert_int_equal(err.status, ST_INPUT);
            n_refused++;
        }
        free(text);
    }
    assert_true(n_opened > 100 && n_refused > 1000);
    scratch_close(&s);
}

static void deep_files_do_no_harm(void **state)
{
    struct scratch s;
    struct err err;
    enum { DEPTH = 200000 };
    scratch_open(&s);
    char *text = malloc(2 * DEPTH + 64);
    assert_non_null(text);
    char *p = stpcpy(text, "{\"version\": ");
    memset(p, '[', DEPTH);
    memset(p + DEPTH, ']', DEPTH);
    strcpy(p + 2 * DEPTH, "}");
    scratch_file(&s, "tokenizer.json", text);
    assert_non_null(open_fails(&s, &err));
    assert_non_null(strstr(err.what, "depth"));
    free(text);

    struct buf nested = BUF_INIT; /* sequences within sequences */
    good(buf_puts(&nested, "\"normalizer\": ", &err), &err);
    for (int i = 0; i < 100; i++)
        good(buf_puts(&nested, "{\"type\": \"Sequence\", \"normalizers\": [", &err), &err);
    for (int i = 0; i < 100; i++)
        good(buf_puts(&nested, "]}", &err), &err);
    good(buf_puts(&nested, ",", &err), &err);
    text = small_text(&(struct small_tokenizer){.vocab = AB, .top = nested.data});
    scratch_file(&s, "tokenizer.json", text);
    assert_non_null(open_fails(&s, &err));
    assert_non_null(strstr(err.what, "Sequence is not supported"));
    free(text);
    buf_release(&nested);
    scratch_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files_are_named),     cmocka_unit_test(foreign_files_are_named),
        cmocka_unit_test(bad_configs_are_named),   cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(broken_bytes_do_no_harm), cmocka_unit_test(deep_files_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
