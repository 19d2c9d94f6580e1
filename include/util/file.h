/* Files and directories: whole reads, read-only maps, and writes that are complete or absent. */
#ifndef SMGPT_UTIL_FILE_H
#define SMGPT_UTIL_FILE_H

#include "util/buf.h"
#include "util/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* "a/b" with one slash, into a caller's buffer of `size` bytes; ST_INPUT if it does not fit. */
#define PATH_BYTES 4096
enum status path_join(char out[PATH_BYTES], const char *dir, const char *name, struct err *err);

bool file_exists(const char *path);
bool dir_exists(const char *path);
/* Size of a regular file; ST_INPUT naming the path when it is missing or no regular file. */
enum status file_size(const char *path, int64_t *n_bytes, struct err *err);

/* Reads a whole file of at most max_bytes into out (cleared first). ST_INPUT when missing or too large. */
enum status file_read(const char *path, size_t max_bytes, struct buf *out, struct err *err);

/* Read-only private map. An empty file maps as data = NULL, n_bytes = 0. */
struct file_map {
    const unsigned char *data; /* valid until file_unmap */
    size_t n_bytes;
};
enum status file_map(struct file_map *map, const char *path, struct err *err);
void file_unmap(struct file_map *map);
/* Takes the pages out of this process's memory; they are read again where they are looked at again. */
void file_map_forget(const struct file_map *map);

/* A file that appears under its name only when it is complete: written to "<path>.tmp.<pid>" beside it,
 * then fsync, rename, fsync of the directory. Write with fwrite to `f`, or file_writer_put. */
struct file_sink;
struct file_writer {
    FILE *f; /* has no file descriptor of its own (fileno fails); fseek works */
    struct file_sink *sink;
    char path[PATH_BYTES], tmp_path[PATH_BYTES];
};
enum status file_writer_open(struct file_writer *w, const char *path, struct err *err);
enum status file_writer_put(struct file_writer *w, const void *data, size_t n_bytes, struct err *err);
/* Consumes w in success and failure; after a failure the old file is untouched and the temporary gone
 * (only when the directory's own fsync fails is the new file already in place). */
enum status file_writer_commit(struct file_writer *w, struct err *err);
void file_writer_abort(struct file_writer *w); /* no-op on a closed writer */

/* From here on this thread's commits only tell the disk to begin and do not wait for it, until `false`: for a
 * directory that is filled under a passing name and synced as a whole before it gets its own (ckpt.h).
 * Waiting for each file in turn would keep disk and processor idle by turns. */
void file_writer_sync_later(bool later);

/* open + put + commit. */
enum status file_write(const char *path, const void *data, size_t n_bytes, struct err *err);
/* Copies a regular file's bytes with the same guarantee. */
enum status file_copy(const char *from, const char *to, struct err *err);

enum status dir_make(const char *path, struct err *err); /* with parents; existing is good */
enum status dir_sync(const char *path, struct err *err); /* fsync of the directory itself */
enum status dir_remove(const char *path,
                       struct err *err); /* whole tree, never follows links; missing is good */
/* A new empty directory for this process alone, under $TMPDIR or /tmp: path is filled in. */
enum status dir_make_temporary(char path[PATH_BYTES], const char *name, struct err *err);
/* Names in a directory, sorted by bytes, without "." and "..". *names owned by the caller: names_free. */
enum status dir_list(const char *path, char ***names, int *n_names, struct err *err);
void names_free(char **names, int n_names);

#endif
