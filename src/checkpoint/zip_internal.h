/* Zip archives as torch writes and reads them: stored entries only, payloads on multiples of 64. */
#ifndef SMGPT_CHECKPOINT_ZIP_INTERNAL_H
#define SMGPT_CHECKPOINT_ZIP_INTERNAL_H

#include "util/crc32.h"
#include "util/err.h"
#include "util/file.h"
#include <stdbool.h>
#include <stdint.h>

struct zip_entry {
    const char *name; /* in the map, not terminated */
    size_t n_name;
    const unsigned char *data; /* in the map */
    size_t n_bytes;
    uint32_t crc;
    bool is_checked; /* the CRC was compared */
};
struct zip {
    struct file_map map;
    struct zip_entry *entries; /* sorted by name */
    size_t n_entries;
    char root[256]; /* directory of the first entry in the central directory, without the slash */
    char path[PATH_BYTES];
};
/* Checks the whole structure: end records, central directory, each local header, that payloads lie inside
 * the file and apart from each other, that names are unique and inside the root. */
enum status zip__open(struct zip *z, const char *path, struct err *err);
void zip__close(struct zip *z);
/* "<root>/<name>"; NULL if absent. The CRC is compared at the first look. */
enum status zip__find(struct zip *z, const char *name, size_t n_name, const struct zip_entry **out,
                      struct err *err);
/* Compares the CRC of every entry. */
enum status zip__check_all(struct zip *z, struct err *err);

/* Writing, entry by entry. */
struct zip_writer {
    struct file_writer file;
    struct buf directory; /* central directory so far */
    uint64_t at;          /* bytes written */
    uint64_t n_entries;
    uint64_t zip64_from; /* sizes and offsets from here on need zip64 fields */
    char root[256];
};
/* The root is the base name of path without its suffix. */
enum status zip__begin(struct zip_writer *w, const char *path, struct err *err);
enum status zip__put(struct zip_writer *w, const char *name, const void *data, size_t n_bytes,
                     struct err *err);
/* Consumes w, also in failure. */
enum status zip__commit(struct zip_writer *w, struct err *err);
void zip__abort(struct zip_writer *w);

#endif
