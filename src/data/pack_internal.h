/* Private to the data room: HDF5 with our errors, and the layout of a pack.
 *
 * /            attributes format_version 1, stage, vocab_size, base_vocab_size, template_version (int64),
 *              tokenizer_sha256, source_sha256, options_sha256, rows_sha256 (64 ASCII characters)
 * /train, /eval   input_ids, labels int32 [n_tokens]; row_offsets int64 [n_rows + 1]; source_row int64
 * [n_rows], the row of the data set. Chunked, shuffled, deflated, with Fletcher-32 sums.
 */
#ifndef SMGPT_DATA_PACK_INTERNAL_H
#define SMGPT_DATA_PACK_INTERNAL_H

#include "data/pack.h"
#include <hdf5.h>

#define PACK_FORMAT_VERSION 1
/* Counts up when the same options give other rows, so that old files are made again. */
#define PACK_TEMPLATE_VERSION 1
#define PACK_LABEL_NONE       (-100)

extern const char *const data__pack_group_names[2];

/* HDF5 prints its errors unless told otherwise; ours carry its text. Call before the first use. */
void data__h5_quiet(void);
/* Records a failure with the innermost text of HDF5's error stack behind it. */
enum status data__h5_fail(struct err *err, enum status status, const char *path, const char *what);
/* Access properties without file locks, which network file systems lack. Negative on failure; close. */
hid_t data__h5_access(void);

/* The hash of a pack's rows: of train's and then eval's numbers of rows and tokens (int64), and the hashes of
 * their row_offsets, input_ids and labels. */
struct rows_hash {
    int64_t n_rows, n_tokens;
    struct sha256 offsets, ids, labels;
};
void data__rows_hash_init(struct rows_hash *h);
/* Uses up both. */
void data__rows_hash_hex(struct rows_hash groups[2], char hex[SHA256_HEX_BYTES]);

struct pack_header {
    int stage;
    int32_t vocab_size, base_vocab_size;
    char tokenizer_sha256[SHA256_HEX_BYTES], source_sha256[SHA256_HEX_BYTES],
        options_sha256[SHA256_HEX_BYTES];
    char rows_sha256[SHA256_HEX_BYTES]; /* empty in other makers' packs */
};
enum status data__pack_header_read(hid_t file, const char *path, struct pack_header *out, struct err *err);
enum status data__pack_header_write(hid_t file, const char *path, const struct pack_header *h,
                                    struct err *err);
/* The hash of the rows is known last. */
enum status data__pack_hash_write(hid_t file, const char *path, const char *rows_sha256, struct err *err);
/* Opens an existing pack's file for reading. */
enum status data__pack_file_open(const char *path, hid_t *file, struct err *err);

/* ST_INPUT for a file on which the HDF5 library itself fails. */
enum status data__pack_probe(const char *path, struct err *err);
/* pack_open without the probe; packs below memory_max_bytes are held in memory. */
enum status data__pack_read(struct pack **out, const char *path, struct pack_info *info,
                            int64_t memory_max_bytes, struct err *err);

/* A group being written; rows come one at a time, memory is a chunk a series. */
enum series_kind { SERIES_IDS, SERIES_LABELS, SERIES_OFFSETS, SERIES_SOURCE, N_SERIES };
struct series {
    hid_t dataset, memory_type;
    size_t item_bytes;
    char *pending; /* a chunk */
    hsize_t n_pending, n_written;
};
struct group_writer {
    const char *path, *name;
    hid_t group;
    struct series series[N_SERIES];
    struct rows_hash hash; /* and the counts so far */
};
enum status data__group_open(struct group_writer *g, hid_t file, const char *path, const char *name,
                             struct err *err);
enum status data__group_add(struct group_writer *g, const struct row *row, int64_t source_row,
                            struct err *err);
/* Writes what is pending and closes; with good == false it only closes. */
enum status data__group_close(struct group_writer *g, bool good, struct err *err);

#endif
