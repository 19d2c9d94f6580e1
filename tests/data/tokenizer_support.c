#include "tokenizer_support.h"
#include "data_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct tokenizer *tokenizer_of(struct scratch *s, const json_t *root)
{
    struct err err = ERR_INIT;
    struct tokenizer *t = NULL;
    char *text = json_dumps(root, 0);
    assert_non_null(text);
    scratch_file(s, "tokenizer.json", text);
    free(text);
    good(tokenizer_open(&t, s->dir, &err), &err);
    return t;
}

static const char *part(const char *text)
{
    return text ? text : "";
}

char *small_text(const struct small_tokenizer *t)
{
    char *text;
    int n = asprintf(&text,
                     "{\"version\": \"1.0\", %s \"added_tokens\": [%s],\n"
                     "\"model\": {\"type\": \"BPE\", %s \"vocab\": {%s}, \"merges\": [%s]}}\n",
                     part(t->top), part(t->added), part(t->options), part(t->vocab), part(t->merges));
    assert_true(n > 0);
    return text;
}

struct tokenizer *small_open(struct scratch *s, const struct small_tokenizer *small)
{
    struct err err = ERR_INIT;
    struct tokenizer *t = NULL;
    char *text = small_text(small);
    scratch_file(s, "tokenizer.json", text);
    free(text);
    good(tokenizer_open(&t, s->dir, &err), &err);
    return t;
}

static void show(const char *what, const int32_t *ids, int n)
{
    print_error("%s:", what);
    for (int i = 0; i < n; i++)
        print_error(" %d", (int)ids[i]);
    print_error("\n");
}

void expect_ids(const struct tokenizer *t, const char *text, size_t n_bytes, int flags, const int32_t *ids,
                int n)
{
    struct err err = ERR_INIT;
    struct ids got = IDS_INIT;
    good(tokenizer_encode(t, text, n_bytes, flags, &got, &err), &err);
    if (got.n != n || (n > 0 && memcmp(got.data, ids, (size_t)n * sizeof *ids) != 0)) {
        show("expected", ids, n);
        show("got", got.data, got.n);
        fail_msg("ids of \"%.*s\"", (int)n_bytes, text);
    }
    ids_release(&got);
}

void expect_text(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special, const char *text,
                 size_t n_bytes)
{
    struct err err = ERR_INIT;
    struct buf got = BUF_INIT;
    good(tokenizer_decode(t, ids, n, skip_special, &got, &err), &err);
    if (got.n_bytes != n_bytes || (n_bytes > 0 && memcmp(got.data, text, n_bytes) != 0)) {
        show("ids", ids, n);
        fail_msg("decoded \"%.*s\", not \"%.*s\"", (int)got.n_bytes, got.data ? got.data : "", (int)n_bytes,
                 text);
    }
    buf_release(&got);
}
