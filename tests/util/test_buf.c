#include "util/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void text_grows_and_ends_with_nul(void **unused)
{
    struct buf b = BUF_INIT;
    struct err err = ERR_INIT;
    assert_null(b.data);
    assert_int_equal(buf_append(&b, NULL, 0, &err), ST_OK);
    assert_string_equal(b.data, "");
    for (int i = 0; i < 1000; i++)
        assert_int_equal(buf_printf(&b, &err, "%d,", i), ST_OK);
    assert_int_equal(buf_puts(&b, "end", &err), ST_OK);
    assert_int_equal(b.n_bytes, 10 * 2 + 90 * 3 + 900 * 4 + 3);
    assert_int_equal(strlen(b.data), b.n_bytes);
    assert_memory_equal(b.data + b.n_bytes - 7, "999,end", 8);
    char *data = b.data;
    buf_clear(&b);
    assert_string_equal(b.data, "");
    assert_int_equal(buf_append(&b, "a\0b", 3, &err), ST_OK);
    assert_memory_equal(b.data, "a\0b", 4);
    assert_ptr_equal(b.data, data);
    buf_release(&b);
    assert_null(b.data);
    assert_int_equal(b.n_bytes + b.capacity, 0);
}

static void reserve_is_for_what_follows(void **unused)
{
    struct buf b = BUF_INIT;
    struct err err = ERR_INIT;
    assert_int_equal(buf_puts(&b, "head", &err), ST_OK);
    assert_int_equal(buf_reserve(&b, 5000, &err), ST_OK);
    assert_true(b.capacity >= 5005);
    assert_string_equal(b.data, "head");
    buf_release(&b);
}

static void impossible_sizes_are_refused(void **unused)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 4, SIZE_MAX / 2 + 10};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct buf b = BUF_INIT;
        struct err err = ERR_INIT;
        assert_int_equal(buf_puts(&b, "head", &err), ST_OK);
        assert_int_equal(buf_reserve(&b, sizes[i], &err), ST_ENV);
        assert_non_null(strstr(err.what, "no memory for a buffer"));
        assert_string_equal(b.data, "head");
        buf_release(&b);
    }
}

static void reader_stops_at_the_end(void **unused)
{
    struct err err = ERR_INIT;
    uint32_t x = 0;
    struct buf_reader r = {.data = "\1\0\0\0\2\0", .n_bytes = 6};
    assert_int_equal(buf_take(&r, &x, 4, &err), ST_OK);
    assert_int_equal(x, 1);
    assert_int_equal(buf_take(&r, NULL, 0, &err), ST_OK);
    assert_int_equal(buf_take(&r, &x, 4, &err), ST_DEFECT);
    assert_string_equal(err.what, "message too short: 4 bytes wanted at byte 4 of 6");
    assert_int_equal(r.at, 4);
    assert_int_equal(buf_take(&r, &x, SIZE_MAX, NULL), ST_DEFECT);
    assert_int_equal(buf_take(&r, &x, 2, NULL), ST_OK);
    assert_int_equal(buf_take(&r, &x, 1, NULL), ST_DEFECT);
    r.at = 7;
    assert_int_equal(buf_take(&r, &x, 1, NULL), ST_DEFECT);
}

static void sizes_do_not_wrap(void **unused)
{
    size_t out;
    assert_true(size_mul(SIZE_MAX, 1, &out));
    assert_true(out == SIZE_MAX);
    assert_true(size_mul(0, SIZE_MAX, &out));
    assert_false(size_mul(SIZE_MAX / 2 + 1, 2, &out));
    assert_true(size_add(SIZE_MAX, 0, &out));
    assert_false(size_add(SIZE_MAX, 1, &out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_grows_and_ends_with_nul),
        cmocka_unit_test(reserve_is_for_what_follows),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(reader_stops_at_the_end),
        cmocka_unit_test(sizes_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
