#include "fixture.h"
#include "support/scratch.h"
#include "util/rng.h"
#include "zip_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct scratch scratch;

const char *fixture_make(void)
{
    scratch_open(&scratch);
    return scratch.dir;
}

void fixture_remove(void)
{
    scratch_close(&scratch);
}

const char *fixture_path(const char *name)
{
    return scratch_path(&scratch, name);
}

void fixture_write(const char *name, const void *data, size_t n_bytes)
{
    const char *path = fixture_path(name);
    remove(path); /* some file systems flush a file that is written over */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(n_bytes ? fwrite(data, 1, n_bytes, f) : 0, n_bytes);
    assert_int_equal(fclose(f), 0);
}

void fixture_read(const char *path, struct buf *out)
{
    struct err err = ERR_INIT;
    assert_int_equal(file_read(path, (size_t)1 << 30, out, &err), ST_OK);
}

const char *shared_dir(void)
{
    static char path[PATH_BYTES];
    const char *set = getenv("SMGPT_SHARED");
    snprintf(path, sizeof path, "%s", set && *set ? set : SMGPT_SOURCE_DIR "/../shared");
    return dir_exists(path) ? path : NULL;
}

void expect_error(enum status status, enum status wanted, const struct err *err, const char *text)
{
    if (status != wanted || !strstr(err->what, text))
        fail_msg("status %d instead of %d, or \"%s\" lacks \"%s\"", (int)status, (int)wanted, err->what,
                 text);
}

void damage(struct buf *copy, const struct buf *data, unsigned round)
{
    struct err err = ERR_INIT;
    buf_clear(copy);
    assert_int_equal(buf_append(copy, data->data, data->n_bytes, &err), ST_OK);
    uint64_t n_changes = 1 + rng_u64(1, RNG_TEST, round, 0) % 4;
    for (uint64_t i = 0; i < n_changes && copy->n_bytes > 0; i++) {
        uint64_t kind = rng_u64(2, RNG_TEST, round, i) % 16;
        uint64_t x = rng_u64(3, RNG_TEST, round, i);
        /* Half of the changes hit the last or first 512 bytes, where the structure is. */
        uint64_t span = copy->n_bytes, at = rng_u64(4, RNG_TEST, round, i) % span;
        if (x % 4 == 0 && span > 512)
            at = span - 1 - at % 512;
        else if (x % 4 == 1 && span > 512)
            at %= 512;
        if (kind == 0) {
            copy->n_bytes = at;
        } else if (kind < 4) {
            static const unsigned char extremes[] = {0, 0xff, 0x7f, 0x80};
            for (uint64_t j = at; j < at + 8 && j < copy->n_bytes; j++)
                copy->data[j] = (char)extremes[(x >> 8) % 4];
        } else if (kind < 8) {
            copy->data[at] = (char)(x >> 16);
        } else {
            copy->data[at] = (char)(copy->data[at] ^ (1 << ((x >> 16) % 8)));
        }
    }
}

void damage_pickle(struct buf *copy, const struct buf *file, unsigned round)
{
    struct err err = ERR_INIT;
    struct buf pickle = BUF_INIT, damaged = BUF_INIT;
    uint16_t n_name, n_extra;
    uint32_t n, crc;
    buf_clear(copy);
    buf_append(copy, file->data, file->n_bytes, &err);
    memcpy(&n, copy->data + 22, 4);
    memcpy(&n_name, copy->data + 26, 2);
    memcpy(&n_extra, copy->data + 28, 2);
    char *at = copy->data + 30 + n_name + n_extra;
    buf_append(&pickle, at, n, &err);
    assert_int_equal(err.status, ST_OK);
    damage(&damaged, &pickle, round);
    memset(at, 0, n);
    memcpy(at, damaged.data, damaged.n_bytes);
    crc = crc32_add(0, at, n);
    char *central = memmem(at + n, copy->n_bytes - (size_t)(at + n - copy->data), "PK\1\2", 4);
    assert_non_null(central);
    memcpy(copy->data + 14, &crc, 4);
    memcpy(central + 16, &crc, 4);
    buf_release(&pickle);
    buf_release(&damaged);
}
