/* Small tokenizers for tests. */
#ifndef SMGPT_TESTS_TOKENIZER_SUPPORT_H
#define SMGPT_TESTS_TOKENIZER_SUPPORT_H

#include "data/tokenizer.h"
#include "support/scratch.h"
#include <jansson.h>

/* Writes the object as tokenizer.json and opens it. */
struct tokenizer *tokenizer_of(struct scratch *s, const json_t *root);

/* The text of a tokenizer.json; a NULL part is left out of its place (null, or empty for lists). */
struct small_tokenizer {
    const char *added;          /* inside of the list: {"id": 9, ...}, see ADDED */
    const char *options;        /* of the model, with a comma behind each */
    const char *vocab, *merges; /* inside of the braces and the brackets */
    const char *top;            /* more top-level fields, with a comma behind each */
};
char *small_text(const struct small_tokenizer *t); /* malloc'ed */
struct tokenizer *small_open(struct scratch *s, const struct small_tokenizer *t);

#define ADDED(id, content, normalized, special)                                                              \
    "{\"id\": " #id ", \"content\": \"" content "\", \"single_word\": false, \"lstrip\": false, "            \
    "\"rstrip\": false, \"normalized\": " #normalized ", \"special\": " #special "}"

/* Fails unless the text's ids are the n given ones; the message shows both. */
void expect_ids(const struct tokenizer *t, const char *text, size_t n_bytes, int flags, const int32_t *ids,
                int n);
#define EXPECT_IDS(t, text, flags, ...)                                                                      \
    do {                                                                                                     \
        const int32_t ids_[] = {__VA_ARGS__};                                                                \
        expect_ids(t, text, strlen(text), flags, ids_, (int)(sizeof ids_ / sizeof ids_[0]));                 \
    } while (0)
/* Fails unless the ids decode to the text. */
void expect_text(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special, const char *text,
                 size_t n_bytes);

#endif
