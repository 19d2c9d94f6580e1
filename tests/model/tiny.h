/* A tiny random model for tests: config text in, everything bound and ready out. */
#ifndef SMGPT_TESTS_MODEL_TINY_H
#define SMGPT_TESTS_MODEL_TINY_H

#include "model/model.h"

struct tiny {
    const struct ops *ops;
    struct device *dev;
    struct arch arch;
    struct weights weights;
    struct params params;
    struct model *model;
    void *block, *packed;
    float *values; /* [n_values], host = device on the CPU */
};

/* config.json of a model of each family with 37 rows, of three layers or four. */
enum { N_TINY_FAMILIES = 3 };
extern const char *const tiny_families[N_TINY_FAMILIES];

/* Random weights of a moderate size, non-trivial norms, A and B both random. Fails the test on error. */
void tiny_open(struct tiny *t, const char *ops_name, const char *config_json, int64_t new_first,
               int64_t n_new, bool untied, int r, uint64_t seed);
/* The same with the frozen matrices and the products in bfloat16, or not. */
void tiny_open_compute(struct tiny *t, enum compute compute, const char *ops_name, const char *config_json,
                       int64_t new_first, int64_t n_new, bool untied, int r, uint64_t seed);
void tiny_close(struct tiny *t);

/* Rows of random tokens: a shared prefix with two children, and rows of their own; labels on suffixes. */
struct packed *tiny_sequence(int64_t vocab, uint64_t seed, bool shared);
void tiny_sequence_free(struct packed *p);

#endif
