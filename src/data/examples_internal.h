/* Private to the data room: the pieces that read the JSON data set. */
#ifndef SMGPT_DATA_EXAMPLES_INTERNAL_H
#define SMGPT_DATA_EXAMPLES_INTERNAL_H

#include "data/examples.h"
#include <jansson.h>

/* Distinct strings, numbered in order of appearance. */
struct strings {
    char **items; /* owned, as is each string */
    int32_t n, capacity;
    int32_t *slots; /* open addressing: index of a string, or -1 */
    uint32_t n_slots;
};
void data__strings_release(struct strings *s);
/* Copies text when it is new; *id is its number. */
enum status data__strings_add(struct strings *s, const char *text, int32_t *id, struct err *err);

/* A JSON array read block by block: hands out the bytes of one object of it at a time. Memory is one block,
 * or the longest object. */
struct json_stream {
    const char *path; /* borrowed */
    int fd;
    char *data; /* a window of the file */
    size_t n_bytes, capacity, at;
    int64_t base;   /* offset of data[0] in the file */
    int64_t n_rows; /* objects handed out */
    bool end_of_file;
    struct sha256 sha;
};
struct json_span {
    const char *data; /* borrowed until the next call */
    size_t n_bytes;
    int64_t offset; /* in the file */
};
/* Limits of one object; beyond them a quote or a bracket is more likely missing than meant. */
#define ROW_MAX_BYTES (16u << 20)
#define ROW_MAX_DEPTH 64

/* Opens the file and goes behind the opening bracket. */
enum status data__stream_open(struct json_stream *s, const char *path, struct err *err);
/* *end is set behind the closing bracket, when only white space followed. */
enum status data__stream_next(struct json_stream *s, struct json_span *span, bool *end, struct err *err);
void data__stream_close(struct json_stream *s);

/* One decoded object. */
struct row_fields {
    json_t *object;
    const char *text;        /* borrowed from object */
    const char *participant; /* borrowed, or in number; NULL when the row has none */
    char number[24];
};
#define PARTICIPANT_MAX_BYTES 200
#define CODE_MAX              1000000
/* Parses the bytes of row `row`, which lie at `offset` of the file; out's motion is filled. Release always.
 */
enum status data__row_decode(struct row_fields *f, struct example *out, const char *path, int64_t row,
                             const struct json_span *span, struct err *err);
void data__row_release(struct row_fields *f);

#endif
