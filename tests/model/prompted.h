/* Sequences of a prompt and rows that hang on it, for tests. */
#ifndef SMGPT_TESTS_MODEL_PROMPTED_H
#define SMGPT_TESTS_MODEL_PROMPTED_H

#include "util/packed.h"

enum { PROMPTED_VOCAB = 40, PROMPTED_TOKENS = 200 };

struct prompted {
    struct packed p; /* views of what follows */
    int32_t ids[PROMPTED_TOKENS], positions[PROMPTED_TOKENS];
    int32_t first_label[PROMPTED_TOKENS + 1], labels[PROMPTED_TOKENS];
    struct segment segments[16];
};

/* The first segment has n_prompt tokens, a function of the prompt's number and their place; then come the
 * n_rows rows, of the lengths given and the numbers `rows` on, each with labels on all but its first token.
 */
void prompted_make(struct prompted *m, int32_t n_prompt, uint64_t prompt, const int32_t *lengths, int n_rows,
                   uint64_t rows);

#endif
