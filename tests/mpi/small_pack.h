/* A small pack file of random rows, as interface.md describes the format. */
#ifndef SMGPT_TESTS_MPI_SMALL_PACK_H
#define SMGPT_TESTS_MPI_SMALL_PACK_H

#include <stdbool.h>
#include <stdint.h>

struct small_pack {
    int64_t n_rows[2]; /* train, eval */
    int32_t vocab, new_first;
    int32_t strange_id; /* >= 0: the last id of every row, else none */
    int32_t pack_vocab; /* what the file says; 0: vocab */
    bool labelled;
    uint64_t seed;
};
/* Rows of 4 to 30 tokens, two of three with a common beginning; row 3 has no label. */
void small_pack_write(const char *path, const struct small_pack *p);

#endif
