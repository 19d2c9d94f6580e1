/* HDF5's errors as ours, and the attributes of a pack. */
#include "pack_internal.h"
#include "util/file.h"
#include <stdio.h>
#include <string.h>

/* Unpacked chunks kept for each series; the slots are a prime far above the number of chunks that fit. */
#define CACHE_BYTES ((size_t)96 << 20)
#define CACHE_SLOTS 20011

const char *const data__pack_group_names[2] = {"train", "eval"};

void data__h5_quiet(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0); /* a file may name a filter, but not have it loaded from somewhere */
}

#define REASON_BYTES 400

/* Of a failed system call HDF5 tells times, buffers and offsets; only the system's own words are kept. */
static herr_t innermost(unsigned n, const H5E_error2_t *error, void *user)
{
    static const char words[] = "error message = '";
    char *text = user;
    if (n > 0 || !error->desc)
        return 0;
    const char *system = strstr(error->desc, words);
    snprintf(text, REASON_BYTES, "%s", system ? system + strlen(words) : error->desc);
    char *end = system ? strchr(text, '\'') : NULL;
    if (end)
        *end = 0;
    return 0;
}

enum status data__h5_fail(struct err *err, enum status status, const char *path, const char *what)
{
    char text[REASON_BYTES] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, text);
    err_set(err, status, "\"%s\": %s%s%s", path, what, *text ? ": " : "", text);
    return status == ST_ENV
               ? err_hint(err, "is the disk full or the directory read-only?")
               : err_hint(err, "the file is damaged or no pack: make it again with `smgpt-dist pack`");
}

hid_t data__h5_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
#if H5_VERSION_GE(1, 10, 7)
    if (access >= 0)
        H5Pset_file_locking(access, false, true);
#endif
    if (access >= 0)
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    return access;
}

enum status data__pack_file_open(const char *path, hid_t *file, struct err *err)
{
    int64_t n_bytes;
    *file = -1;
    data__h5_quiet();
    TRY(file_size(path, &n_bytes, err));
    if (H5Fis_hdf5(path) <= 0) {
        err_set(err, ST_INPUT, "\"%s\": not an HDF5 file", path);
        return err_hint(err, "make it with `smgpt-dist pack`, or fetch it again");
    }
    hid_t access = data__h5_access();
    H5Pset_cache(access, 0, CACHE_SLOTS, CACHE_BYTES, 0.75); /* rows of a large pack are read in any order */
    *file = H5Fopen(path, H5F_ACC_RDONLY, access);
    enum status status = *file < 0 ? data__h5_fail(err, ST_INPUT, path, "cannot open") : ST_OK;
    H5Pclose(access);
    return status;
}

/* One integer of any width; *out keeps its value when the attribute is absent and may be. */
static enum status read_number(hid_t file, const char *path, const char *name, int64_t min, int64_t max,
                               bool required, int64_t *out, struct err *err)
{
    char what[96];
    htri_t there = H5Aexists(file, name);
    if (there == 0 && !required)
        return ST_OK;
    snprintf(what, sizeof what, "attribute %s", name);
    hid_t attribute = there > 0 ? H5Aopen(file, name, H5P_DEFAULT) : -1;
    if (attribute < 0) {
        snprintf(what, sizeof what, "attribute %s is missing", name);
        return data__h5_fail(err, ST_INPUT, path, what);
    }
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool good = type >= 0 && space >= 0 && H5Tget_class(type) == H5T_INTEGER &&
                H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, H5T_NATIVE_INT64, out) >= 0;
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    if (!good)
        return err_set(err, ST_INPUT, "\"%s\": attribute %s is no single integer", path, name);
    if (*out < min || *out > max)
        return err_set(err, ST_INPUT, "\"%s\": attribute %s is %lld, must be in %lld..%lld", path, name,
                       (long long)*out, (long long)min, (long long)max);
    return ST_OK;
}

/* Reads a string of at most 64 bytes, fixed or variable in length; false when it is anything else. */
static bool read_text(hid_t attribute, hid_t type, char out[SHA256_HEX_BYTES])
{
    if (H5Tget_class(type) != H5T_STRING)
        return false;
    if (H5Tis_variable_str(type) > 0) {
        char *text = NULL;
        if (H5Aread(attribute, type, &text) < 0 || !text)
            return false;
        bool fits = strlen(text) < SHA256_HEX_BYTES;
        if (fits)
            memcpy(out, text, strlen(text) + 1);
        H5free_memory(text);
        return fits;
    }
    char text[SHA256_HEX_BYTES + 1] = "";
    if (H5Tget_size(type) > SHA256_HEX_BYTES || H5Aread(attribute, type, text) < 0 ||
        strlen(text) >= SHA256_HEX_BYTES)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static enum status read_hash(hid_t file, const char *path, const char *name, char out[SHA256_HEX_BYTES],
                             struct err *err)
{
    out[0] = 0;
    if (H5Aexists(file, name) <= 0)
        return ST_OK; /* packs of other makers may lack it */
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool good = attribute >= 0 && type >= 0 && space >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                read_text(attribute, type, out);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    if (!good || strlen(out) != 64 || strspn(out, "0123456789abcdef") != 64)
        return err_set(err, ST_INPUT, "\"%s\": attribute %s is no SHA-256 in lower-case hex", path, name);
    return ST_OK;
}

enum status data__pack_header_read(hid_t file, const char *path, struct pack_header *out, struct err *err)
{
    int64_t version = 0, stage = 0, vocab = 0, base = 0;
    *out = (struct pack_header){0};
    TRY(read_number(file, path, "format_version", INT64_MIN, INT64_MAX, true, &version, err));
    if (version != PACK_FORMAT_VERSION)
        return err_set(err, ST_INPUT, "\"%s\": format_version %lld, this program reads %d", path,
                       (long long)version, PACK_FORMAT_VERSION);
    TRY(read_number(file, path, "stage", 0, 3, false, &stage, err));
    TRY(read_number(file, path, "vocab_size", 1, INT32_MAX, true, &vocab, err));
    TRY(read_number(file, path, "base_vocab_size", 0, vocab, true, &base, err));
    out->stage = (int)stage;
    out->vocab_size = (int32_t)vocab;
    out->base_vocab_size = (int32_t)base;
    TRY(read_hash(file, path, "tokenizer_sha256", out->tokenizer_sha256, err));
    TRY(read_hash(file, path, "source_sha256", out->source_sha256, err));
    TRY(read_hash(file, path, "options_sha256", out->options_sha256, err));
    return read_hash(file, path, "rows_sha256", out->rows_sha256, err);
}

static bool write_attribute(hid_t file, const char *name, hid_t file_type, hid_t memory_type,
                            const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, memory_type, value) >= 0;
    if (attribute >= 0)
        good = H5Aclose(attribute) >= 0 && good;
    H5Sclose(space);
    return good;
}

static enum status write_hash(hid_t file, const char *path, const char *name, const char *hex,
                              struct err *err)
{
    hid_t text = H5Tcopy(H5T_C_S1);
    bool good = H5Tset_size(text, SHA256_HEX_BYTES - 1) >= 0 && H5Tset_strpad(text, H5T_STR_NULLPAD) >= 0 &&
                write_attribute(file, name, text, text, hex);
    enum status status = good ? ST_OK : data__h5_fail(err, ST_ENV, path, "cannot write the attributes");
    H5Tclose(text);
    return status;
}

enum status data__pack_header_write(hid_t file, const char *path, const struct pack_header *h,
                                    struct err *err)
{
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"format_version", PACK_FORMAT_VERSION},
                   {"stage", h->stage},
                   {"vocab_size", h->vocab_size},
                   {"base_vocab_size", h->base_vocab_size},
                   {"template_version", PACK_TEMPLATE_VERSION}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (!write_attribute(file, numbers[i].name, H5T_STD_I64LE, H5T_NATIVE_INT64, &numbers[i].value))
            return data__h5_fail(err, ST_ENV, path, "cannot write the attributes");
    }
    TRY(write_hash(file, path, "tokenizer_sha256", h->tokenizer_sha256, err));
    TRY(write_hash(file, path, "source_sha256", h->source_sha256, err));
    return write_hash(file, path, "options_sha256", h->options_sha256, err);
}

enum status data__pack_hash_write(hid_t file, const char *path, const char *rows_sha256, struct err *err)
{
    return write_hash(file, path, "rows_sha256", rows_sha256, err);
}

void data__rows_hash_init(struct rows_hash *h)
{
    *h = (struct rows_hash){0};
    sha256_init(&h->offsets);
    sha256_init(&h->ids);
    sha256_init(&h->labels);
}

void data__rows_hash_hex(struct rows_hash groups[2], char hex[SHA256_HEX_BYTES])
{
    struct sha256 all;
    sha256_init(&all);
    for (int i = 0; i < 2; i++) {
        const int64_t counts[2] = {groups[i].n_rows, groups[i].n_tokens};
        struct sha256 *parts[3] = {&groups[i].offsets, &groups[i].ids, &groups[i].labels};
        sha256_update(&all, counts, sizeof counts);
        for (int part = 0; part < 3; part++) {
            unsigned char digest[32];
            sha256_final(parts[part], digest);
            sha256_update(&all, digest, sizeof digest);
        }
    }
    sha256_hex(&all, hex);
}
