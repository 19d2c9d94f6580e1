/* A random model of a few thousand weights with the data it speaks about: all that generation needs, in
 * memory and one temporary directory. */
#ifndef TESTS_GENERATE_TINY_H
#define TESTS_GENERATE_TINY_H

#include "data/template.h"
#include "model/model.h"

struct tiny {
    char dir[64];
    struct tokenizer *tokenizer;
    struct motion_vocab vocab;
    struct template *template;
    const struct ops *ops;
    struct device *dev;
    struct arch arch;
    struct weights weights;
    struct params params;
    struct model *model;
    void *block, *packed;
    float *values;
};

/* rows: the data set's JSON. */
void tiny_open(struct tiny *t, const char *rows, bool space_tokens, uint64_t seed);
void tiny_close(struct tiny *t);

/* Logits [V] behind the last of n ids, by a whole pass without a cache. */
void tiny_last_logits(const struct tiny *t, const int32_t *ids, int32_t n, float *logits);

#endif
