/* The data set: a JSON array of {text_query, motion_tokens, participant_id?}. Opened by one streaming pass
 * that checks every row and keeps an index only (some bytes a row); rows are read again on demand. */
#ifndef SMGPT_DATA_EXAMPLES_H
#define SMGPT_DATA_EXAMPLES_H

#include "util/buf.h"
#include "util/err.h"
#include "util/sha256.h"
#include <stdbool.h>
#include <stdint.h>

struct examples;

/* One row, decoded. Owned by the caller's struct, reused from call to call. */
struct example {
    char *text;      /* UTF-8, NUL-terminated */
    int32_t *motion; /* codebook ids */
    int32_t n_motion;
    int32_t text_id;     /* index among the distinct texts, in order of appearance */
    int32_t participant; /* index among the sorted distinct participants, or -1 when the row has none */
    size_t text_capacity;
    int32_t motion_capacity;
    struct buf bytes; /* the row as it stands in the file */
};
#define EXAMPLE_INIT                                                                                         \
    {                                                                                                        \
        0                                                                                                    \
    }
void example_release(struct example *e);

/* What generation needs to know about one text: lengths in tokens, the codes seen (sorted). */
struct text_stats {
    const char *text;
    int64_t n_rows;
    int32_t min_len, median_len, max_len; /* even n: floor of the mean of the middle two */
    const int32_t *codes;
    int32_t n_codes;
};

/* motion_tokens is a string of decimal ids or a list of integers; participant_id a string, an integer (taken
 * as its decimal text), or null, missing, NaN or "NULL", which all mean none. Other keys are ignored. Every
 * error names the file, the row (from 0) and the byte. Not UTF-8, a missing or empty text, an empty or
 * non-numeric motion string, a code above 1,000,000 are ST_INPUT, as is a file that is no array, ends early,
 * has something behind the array, or has a byte order mark. The file stays open; rows are read from it again.
 */
enum status examples_open(struct examples **out, const char *path, struct err *err);
void examples_close(struct examples *x);
int64_t examples_count(const struct examples *x);
int32_t examples_n_codes(const struct examples *x);        /* 1 + largest code */
int32_t examples_n_participants(const struct examples *x); /* 0 when no row names one */
const char *examples_participant(const struct examples *x, int32_t i);
int32_t examples_n_texts(const struct examples *x);
void examples_text_stats(const struct examples *x, int32_t text_id, struct text_stats *out);
int32_t examples_median_len(const struct examples *x); /* upper median over all rows */
const char *examples_sha256(const struct examples *x); /* of the file */
const char *examples_path(const struct examples *x);   /* as it was opened */
/* Reads a row again; ST_INPUT when the file was written to since it was opened. */
enum status examples_read(const struct examples *x, int64_t row, struct example *out, struct err *err);

/* The split that datasets.train_test_split makes (numpy's PCG64 permutation, test rows first): *train and
 * *test are owned by the caller (free). test_size in [0, 1), else ST_USAGE. Where the library refuses (no row
 * would be left to train on) one row is kept for training, so that *n_test may be 0. */
enum status split_make(int64_t n_rows, double test_size, uint64_t seed, int64_t **train, int64_t *n_train,
                       int64_t **test, int64_t *n_test, struct err *err);

#endif
