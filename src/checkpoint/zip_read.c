/* Reading a zip archive from the back: end record, zip64 end record, central directory, local headers. */
#include "checkpoint_internal.h"
#include "zip_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define END_BYTES         22
#define LOCATOR_BYTES     20
#define END64_BYTES       56
#define CENTRAL_BYTES     46
#define LOCAL_BYTES       30
#define COMMENT_MAX_BYTES 65535
#define ENTRIES_MAX       1000000

static uint16_t u16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const unsigned char *p)
{
    return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const unsigned char *p)
{
    return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32;
}

/* The central directory's place. */
struct directory {
    uint64_t n_entries, start, n_bytes;
};

static enum status damaged(const struct zip *z, const char *what, uint64_t at, struct err *err)
{
    err_set(err, ST_INPUT, "\"%s\", byte %" PRIu64 ": %s", z->path, at, what);
    return err_hint(err, "the file is damaged or cut short; download or copy it again");
}

/* The end record's offset. Its comment must reach to the end of the file: no bytes behind the archive. */
static enum status find_end(const struct zip *z, size_t *at, struct err *err)
{
    size_t n = z->map.n_bytes;
    if (n >= END_BYTES) {
        size_t lowest = n > END_BYTES + COMMENT_MAX_BYTES ? n - END_BYTES - COMMENT_MAX_BYTES : 0;
        for (size_t i = n - END_BYTES + 1; i-- > lowest;) {
            const unsigned char *p = z->map.data + i;
            if (memcmp(p, "PK\5\6", 4) == 0 && i + END_BYTES + u16(p + 20) == n) {
                *at = i;
                return ST_OK;
            }
        }
    }
    return damaged(z, "no end record of a zip archive", n, err);
}

/* A field of the end record: the value behind 0xFFFF.. is in the zip64 record, any other must agree. */
static bool merge(uint64_t small, uint64_t saturated, uint64_t big, uint64_t *out)
{
    *out = big;
    return small == saturated || small == big;
}

static enum status read_end64(const struct zip *z, size_t end, struct directory *d, size_t *limit,
                              struct err *err)
{
    const unsigned char *p = z->map.data + end, *locator = p - LOCATOR_BYTES;
    uint64_t at = u64(locator + 8);
    if (u32(locator + 4) != 0 || u32(locator + 16) > 1)
        return damaged(z, "an archive of several parts", end - LOCATOR_BYTES, err);
    if (end < LOCATOR_BYTES + END64_BYTES || at > end - LOCATOR_BYTES - END64_BYTES ||
        memcmp(z->map.data + at, "PK\6\6", 4) != 0)
        return damaged(z, "the zip64 end record is not where the locator points", end - LOCATOR_BYTES, err);
    const unsigned char *q = z->map.data + at;
    if (u32(q + 16) != 0 || u32(q + 20) != 0 || u64(q + 24) != u64(q + 32))
        return damaged(z, "an archive of several parts", at, err);
    if (!merge(u16(p + 10), 0xffff, u64(q + 32), &d->n_entries) ||
        !merge(u32(p + 12), 0xffffffff, u64(q + 40), &d->n_bytes) ||
        !merge(u32(p + 16), 0xffffffff, u64(q + 48), &d->start))
        return damaged(z, "the two end records disagree", end, err);
    *limit = (size_t)at;
    return ST_OK;
}

static enum status read_end(const struct zip *z, struct directory *d, struct err *err)
{
    size_t end = 0;
    TRY(find_end(z, &end, err));
    const unsigned char *p = z->map.data + end;
    size_t limit = end;
    d->n_entries = u16(p + 10);
    d->n_bytes = u32(p + 12);
    d->start = u32(p + 16);
    if (end >= LOCATOR_BYTES && memcmp(p - LOCATOR_BYTES, "PK\6\7", 4) == 0)
        TRY(read_end64(z, end, d, &limit, err));
    if (u16(p + 4) != 0 || u16(p + 6) != 0 || (u16(p + 8) != u16(p + 10)))
        return damaged(z, "an archive of several parts", end, err);
    if (d->start > limit || d->n_bytes != limit - d->start)
        return damaged(z, "the central directory does not end at the end record", end, err);
    if (d->n_entries == 0 || d->n_entries > ENTRIES_MAX || d->n_entries > d->n_bytes / CENTRAL_BYTES)
        return damaged(z, "an impossible number of entries", end, err);
    return ST_OK;
}

/* One entry as the central directory gives it. */
struct central {
    const unsigned char *p;
    uint64_t at, csize, usize, offset;
    uint16_t flags, method, n_name, n_extra, n_comment;
};

/* Sizes and offset that did not fit stand in the zip64 extra field, in this order, only those. */
static enum status read_extra64(const struct zip *z, struct central *c, struct err *err)
{
    const unsigned char *p = c->p + CENTRAL_BYTES + c->n_name, *end = p + c->n_extra;
    uint64_t *fields[3] = {&c->usize, &c->csize, &c->offset};
    bool is_found = c->usize != 0xffffffff && c->csize != 0xffffffff && c->offset != 0xffffffff;
    while (!is_found && end - p >= 4 && end - p >= 4 + u16(p + 2)) {
        const unsigned char *value = p + 4, *stop = value + u16(p + 2);
        is_found = u16(p) == 1;
        for (int i = 0; is_found && i < 3; i++) {
            if (*fields[i] != 0xffffffff)
                continue;
            if (stop - value < 8)
                return damaged(z, "a zip64 field is too short", c->at, err);
            *fields[i] = u64(value);
            value += 8;
        }
        p = stop;
    }
    /* Without the field, 0xFFFFFFFF stands for itself. */
    return ST_OK;
}

static enum status read_central(const struct zip *z, uint64_t at, uint64_t end, struct central *c,
                                struct err *err)
{
    const unsigned char *p = z->map.data + at;
    if (end - at < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0)
        return damaged(z, "no entry of the central directory", at, err);
    *c = (struct central){.p = p,
                          .at = at,
                          .csize = u32(p + 20),
                          .usize = u32(p + 24),
                          .offset = u32(p + 42),
                          .flags = u16(p + 8),
                          .method = u16(p + 10),
                          .n_name = u16(p + 28),
                          .n_extra = u16(p + 30),
                          .n_comment = u16(p + 32)};
    if (end - at - CENTRAL_BYTES < (uint64_t)c->n_name + c->n_extra + c->n_comment)
        return damaged(z, "an entry of the central directory is cut short", at, err);
    return read_extra64(z, c, err);
}

static enum status check_method(const struct zip *z, const struct central *c, struct err *err)
{
    struct quoted name = checkpoint__quote((const char *)c->p + CENTRAL_BYTES, c->n_name);
    if (c->flags & 0x2041)
        return err_set(err, ST_INPUT, "\"%s\": entry \"%s\" is encrypted", z->path, name.text);
    if (c->method != 0)
        return err_set(err, ST_INPUT,
                       "\"%s\": entry \"%s\" is compressed (method %d%s); torch stores plainly", z->path,
                       name.text, c->method, c->method == 8 ? ", deflated" : "");
    if (c->csize != c->usize)
        return err_set(err, ST_INPUT, "\"%s\": entry \"%s\" has two different sizes", z->path, name.text);
    return ST_OK;
}

/* Finds the payload behind the local header, which must tell the same as the central directory. */
static enum status read_local(const struct zip *z, const struct central *c, uint64_t limit,
                              struct zip_entry *out, struct err *err)
{
    if (c->offset > limit || limit - c->offset < LOCAL_BYTES)
        return damaged(z, "an entry lies outside the file", c->at, err);
    const unsigned char *p = z->map.data + c->offset;
    uint64_t n_head = LOCAL_BYTES + (uint64_t)u16(p + 26) + u16(p + 28);
    uint64_t room = limit - c->offset;
    if (memcmp(p, "PK\3\4", 4) != 0)
        return damaged(z, "no local header where the directory points", c->offset, err);
    if (n_head > room || c->usize > room - n_head)
        return damaged(z, "an entry reaches beyond the entries' part of the file", c->offset, err);
    if (u16(p + 26) != c->n_name || memcmp(p + LOCAL_BYTES, c->p + CENTRAL_BYTES, c->n_name) != 0 ||
        u16(p + 8) != c->method || (u16(p + 6) & 0x2041))
        return damaged(z, "local header and directory disagree", c->offset, err);
    /* With flag 8 checksum and sizes stand behind the data; the directory has them as well. */
    if (!(u16(p + 6) & 8) &&
        (u32(p + 14) != u32(c->p + 16) || (u32(p + 18) != 0xffffffff && u32(p + 18) != c->csize)))
        return damaged(z, "local header and directory disagree", c->offset, err);
    *out = (struct zip_entry){.name = (const char *)c->p + CENTRAL_BYTES,
                              .n_name = c->n_name,
                              .data = p + n_head,
                              .n_bytes = (size_t)c->usize,
                              .crc = u32(c->p + 16)};
    return ST_OK;
}

static enum status set_root(struct zip *z, const struct zip_entry *first, struct err *err)
{
    const char *slash = memchr(first->name, '/', first->n_name);
    size_t n = slash ? (size_t)(slash - first->name) : 0;
    if (n == 0 || n >= sizeof z->root || memchr(first->name, '\0', n))
        return err_set(err, ST_INPUT, "\"%s\": entry \"%s\" has no usable directory part: no torch file",
                       z->path, checkpoint__quote(first->name, first->n_name).text);
    memcpy(z->root, first->name, n);
    z->root[n] = '\0';
    return ST_OK;
}

static int compare_name(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int order = memcmp(a, b, n_a < n_b ? n_a : n_b);
    return order ? order : (n_a > n_b) - (n_a < n_b);
}

static int by_name(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return compare_name(x->name, x->n_name, y->name, y->n_name);
}

static int by_place(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Payloads apart from each other, names unique; leaves the entries sorted by name. */
static enum status check_entries(struct zip *z, struct err *err)
{
    qsort(z->entries, z->n_entries, sizeof *z->entries, by_place);
    for (size_t i = 1; i < z->n_entries; i++) {
        const struct zip_entry *a = &z->entries[i - 1], *b = &z->entries[i];
        if (a->data + a->n_bytes > b->data)
            return err_set(err, ST_INPUT, "\"%s\": entries \"%s\" and \"%s\" overlap", z->path,
                           checkpoint__quote(a->name, a->n_name).text,
                           checkpoint__quote(b->name, b->n_name).text);
    }
    qsort(z->entries, z->n_entries, sizeof *z->entries, by_name);
    size_t n_root = strlen(z->root);
    for (size_t i = 0; i < z->n_entries; i++) {
        const struct zip_entry *e = &z->entries[i];
        if (i > 0 && by_name(e - 1, e) == 0)
            return err_set(err, ST_INPUT, "\"%s\": two entries \"%s\"", z->path,
                           checkpoint__quote(e->name, e->n_name).text);
        if (e->n_name <= n_root || memcmp(e->name, z->root, n_root) != 0 || e->name[n_root] != '/')
            return err_set(err, ST_INPUT, "\"%s\": entry \"%s\" is not in \"%s/\"", z->path,
                           checkpoint__quote(e->name, e->n_name).text, checkpoint__quote_z(z->root).text);
    }
    return ST_OK;
}

static enum status read_directory(struct zip *z, struct err *err)
{
    struct directory d = {0};
    TRY(read_end(z, &d, err));
    z->n_entries = (size_t)d.n_entries;
    z->entries = calloc(z->n_entries, sizeof *z->entries);
    if (!z->entries)
        return err_memory(err, "a zip directory", z->n_entries * sizeof *z->entries);
    uint64_t at = d.start, end = d.start + d.n_bytes;
    for (size_t i = 0; i < z->n_entries; i++) {
        struct central c;
        TRY(read_central(z, at, end, &c, err));
        TRY(check_method(z, &c, err));
        TRY(read_local(z, &c, d.start, &z->entries[i], err));
        at += CENTRAL_BYTES + (uint64_t)c.n_name + c.n_extra + c.n_comment;
    }
    if (at != end)
        return damaged(z, "bytes behind the central directory", at, err);
    TRY(set_root(z, &z->entries[0], err));
    return check_entries(z, err);
}

enum status zip__open(struct zip *z, const char *path, struct err *err)
{
    *z = (struct zip){0};
    snprintf(z->path, sizeof z->path, "%s", path);
    TRY(file_map(&z->map, path, err));
    enum status status = checkpoint__check_foreign(z->map.data, z->map.n_bytes, path, FOREIGN_ZIP, err);
    if (status == ST_OK && (z->map.n_bytes < 4 || memcmp(z->map.data, "PK\3\4", 4) != 0))
        status = err_set(err, ST_INPUT, "\"%s\" is no torch file: it does not begin as a zip archive", path);
    if (status == ST_OK)
        status = read_directory(z, err);
    if (status != ST_OK)
        zip__close(z);
    return status;
}

void zip__close(struct zip *z)
{
    file_unmap(&z->map);
    free(z->entries);
    *z = (struct zip){0};
}

static enum status check_crc(const struct zip *z, struct zip_entry *e, struct err *err)
{
    if (!e->is_checked && crc32_add(0, e->data, e->n_bytes) != e->crc) {
        err_set(err, ST_INPUT, "\"%s\": entry \"%s\" does not have its checksum", z->path,
                checkpoint__quote(e->name, e->n_name).text);
        return err_hint(err, "the file is damaged; download or copy it again");
    }
    e->is_checked = true;
    return ST_OK;
}

enum status zip__find(struct zip *z, const char *name, size_t n_name, const struct zip_entry **out,
                      struct err *err)
{
    size_t n_root = strlen(z->root) + 1, low = 0, high = z->n_entries;
    *out = NULL;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct zip_entry *e = &z->entries[middle]; /* all begin with the root and a slash */
        int order = compare_name(e->name + n_root, e->n_name - n_root, name, n_name);
        if (order == 0) {
            *out = e;
            return check_crc(z, e, err);
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return ST_OK;
}

enum status zip__check_all(struct zip *z, struct err *err)
{
    for (size_t i = 0; i < z->n_entries; i++)
        TRY(check_crc(z, &z->entries[i], err));
    return ST_OK;
}
