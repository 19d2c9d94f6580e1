/* Writing a zip archive in one pass: sizes and checksums stand in the local headers, no descriptors. Times
 * are zero, so that equal contents give equal bytes. */
#include "checkpoint_internal.h"
#include "zip_internal.h"

#include <string.h>

#define ALIGNMENT     64
#define FLAG_UTF8     0x0800
#define VERSION_PLAIN 20
#define VERSION_ZIP64 45

/* A header under construction; the largest has 56 + 255 name + 28 + 67 bytes. */
struct record {
    unsigned char bytes[512];
    size_t n;
};

static void put(struct record *r, uint64_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        r->bytes[r->n++] = (unsigned char)(value >> (8 * i));
}

static void put_text(struct record *r, const char *text)
{
    size_t n = strlen(text);
    memcpy(r->bytes + r->n, text, n);
    r->n += n;
}

enum status zip__begin(struct zip_writer *w, const char *path, struct err *err)
{
    *w = (struct zip_writer){.zip64_from = 0xffffffff};
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    size_t n = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    if (n == 0 || n > 200)
        return err_set(err, ST_INPUT, "no usable file name: \"%.200s\"", path);
    memcpy(w->root, base, n);
    return file_writer_open(&w->file, path, err);
}

static enum status put_bytes(struct zip_writer *w, const void *data, size_t n_bytes, struct err *err)
{
    w->at += n_bytes;
    return file_writer_put(&w->file, data, n_bytes, err);
}

/* Version, flags, method, time, date, CRC and the two sizes are alike in both headers. */
static void put_common(struct record *r, bool is_zip64, uint32_t crc, uint64_t n_bytes)
{
    put(r, is_zip64 ? VERSION_ZIP64 : VERSION_PLAIN, 2);
    put(r, FLAG_UTF8, 2);
    put(r, 0, 2 + 2 + 2); /* stored; time; date */
    put(r, crc, 4);
    put(r, is_zip64 ? 0xffffffff : n_bytes, 4);
    put(r, is_zip64 ? 0xffffffff : n_bytes, 4);
}

static enum status put_central(struct zip_writer *w, const char *name, uint64_t n_bytes, uint32_t crc,
                               uint64_t offset, struct err *err)
{
    bool is_zip64 = n_bytes >= w->zip64_from || offset >= w->zip64_from;
    struct record r = {.n = 0};
    put(&r, 0x02014b50, 4);
    put(&r, is_zip64 ? VERSION_ZIP64 : VERSION_PLAIN, 2);
    put_common(&r, is_zip64, crc, n_bytes);
    put(&r, strlen(name), 2);
    put(&r, is_zip64 ? 28 : 0, 2);
    put(&r, 0, 2 + 2 + 2); /* comment, disk, internal attributes */
    put(&r, 0, 4);         /* external attributes */
    put(&r, is_zip64 ? 0xffffffff : offset, 4);
    put_text(&r, name);
    if (is_zip64) {
        put(&r, 1, 2);
        put(&r, 24, 2);
        put(&r, n_bytes, 8);
        put(&r, n_bytes, 8);
        put(&r, offset, 8);
    }
    return buf_append(&w->directory, r.bytes, r.n, err);
}

/* The extra field "FB" fills up to the next multiple of 64. */
static enum status put_local(struct zip_writer *w, const char *name, uint64_t n_bytes, uint32_t crc,
                             struct err *err)
{
    bool is_zip64 = n_bytes >= w->zip64_from;
    struct record r = {.n = 0};
    size_t n_zip64 = is_zip64 ? 20 : 0;
    uint64_t start = w->at + 30 + strlen(name) + n_zip64 + 4;
    size_t n_fill = (size_t)((ALIGNMENT - start % ALIGNMENT) % ALIGNMENT);
    put(&r, 0x04034b50, 4);
    put_common(&r, is_zip64, crc, n_bytes);
    put(&r, strlen(name), 2);
    put(&r, n_zip64 + 4 + n_fill, 2);
    put_text(&r, name);
    if (is_zip64) {
        put(&r, 1, 2);
        put(&r, 16, 2);
        put(&r, n_bytes, 8);
        put(&r, n_bytes, 8);
    }
    put_text(&r, "FB");
    put(&r, n_fill, 2);
    memset(r.bytes + r.n, 'Z', n_fill);
    r.n += n_fill;
    return put_bytes(w, r.bytes, r.n, err);
}

enum status zip__put(struct zip_writer *w, const char *name, const void *data, size_t n_bytes,
                     struct err *err)
{
    char full[256];
    int n = snprintf(full, sizeof full, "%s/%s", w->root, name);
    if (n < 0 || n >= (int)sizeof full)
        return err_set(err, ST_DEFECT, "zip entry name \"%.100s\" is too long", name);
    uint32_t crc = crc32_add(0, data, n_bytes);
    uint64_t offset = w->at;
    TRY(put_local(w, full, n_bytes, crc, err));
    TRY(put_bytes(w, data, n_bytes, err));
    TRY(put_central(w, full, n_bytes, crc, offset, err));
    w->n_entries++;
    return ST_OK;
}

/* The zip64 end record is always there, as in torch's files. */
static enum status put_end(struct zip_writer *w, struct err *err)
{
    uint64_t start = w->at, n_directory = w->directory.n_bytes;
    TRY(put_bytes(w, w->directory.data, w->directory.n_bytes, err));
    struct record r = {.n = 0};
    uint64_t end64 = w->at;
    put(&r, 0x06064b50, 4);
    put(&r, 44, 8);
    put(&r, VERSION_ZIP64, 2);
    put(&r, VERSION_ZIP64, 2);
    put(&r, 0, 4 + 4);
    put(&r, w->n_entries, 8);
    put(&r, w->n_entries, 8);
    put(&r, n_directory, 8);
    put(&r, start, 8);
    put(&r, 0x07064b50, 4); /* the locator */
    put(&r, 0, 4);
    put(&r, end64, 8);
    put(&r, 1, 4);
    bool is_zip64 = w->n_entries >= 0xffff || n_directory >= w->zip64_from || start >= w->zip64_from;
    put(&r, 0x06054b50, 4);
    put(&r, 0, 2 + 2);
    put(&r, is_zip64 ? 0xffff : w->n_entries, 2);
    put(&r, is_zip64 ? 0xffff : w->n_entries, 2);
    put(&r, is_zip64 ? 0xffffffff : n_directory, 4);
    put(&r, is_zip64 ? 0xffffffff : start, 4);
    put(&r, 0, 2);
    return put_bytes(w, r.bytes, r.n, err);
}

enum status zip__commit(struct zip_writer *w, struct err *err)
{
    enum status status = put_end(w, err);
    if (status == ST_OK) {
        buf_release(&w->directory);
        return file_writer_commit(&w->file, err);
    }
    zip__abort(w);
    return status;
}

void zip__abort(struct zip_writer *w)
{
    buf_release(&w->directory);
    file_writer_abort(&w->file);
}
