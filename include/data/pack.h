/* The HDF5 pack of interface.md: one stage's rows as tokens. Written once by streaming, read by rank 0. */
#ifndef SMGPT_DATA_PACK_H
#define SMGPT_DATA_PACK_H

#include "data/examples.h"
#include "data/template.h"

struct pack_options {
    int stage; /* 1, 2, 3 */
    int32_t max_seq_len;
    double split_test_size;
    uint64_t split_seed, seed; /* seed: task draws and masks */
    double stage2_weights[3];  /* T2M, M2T, denoise */
    double denoise_prob;
    bool progress; /* show a progress line */
};

/* Writes path unless it is there already with the same source, tokenizer and options (*skipped then).
 * A row longer than max_seq_len is dropped, counted and warned of: never truncated into a wrong label;
 * ST_INPUT when none is left to train on. Rows are in the order of split_make, train then eval. The file is
 * made beside and renamed; ST_STOPPED, without a file, when a signal asks for it. */
enum status pack_write(const char *path, const struct examples *x, const struct tokenizer *t,
                       const struct motion_vocab *v, const struct pack_options *o, bool *skipped,
                       struct err *err);

struct pack;
enum pack_group { PACK_TRAIN, PACK_EVAL };
struct pack_info {
    int stage; /* 0 when the file does not say */
    int32_t vocab_size, base_vocab_size;
    int64_t n_rows[2], n_tokens[2]; /* by pack_group */
    int32_t max_row_tokens;
    char tokenizer_sha256[SHA256_HEX_BYTES], source_sha256[SHA256_HEX_BYTES],
        options_sha256[SHA256_HEX_BYTES];
    char sha256[SHA256_HEX_BYTES]; /* of the rows: ids, labels and offsets of both groups */
};
/* Checks everything: versions, shapes, rising offsets (no empty row), ids in [0, vocab_size), labels -100 or
 * in the same range, rows_sha256 where it is given. /train or /eval may have no rows. Reads other makers'
 * packs: stage and the hashes may be missing. Links and storage outside the file, and filters other than
 * deflate, shuffle and fletcher32 are refused. A file of HDF5's older format is read in a child process
 * first. ST_INPUT names group, row and token. */
enum status pack_open(struct pack **out, const char *path, struct pack_info *info, struct err *err);
void pack_close(struct pack *p);
/* Borrowed until the next call or close. */
enum status pack_row(struct pack *p, enum pack_group group, int64_t row, const int32_t **ids,
                     const int32_t **labels, int32_t *n_tokens, struct err *err);

#endif
