#include "util/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void first_cause_is_kept(void **unused)
{
    struct err err = ERR_INIT;
    assert_int_equal(err_set(&err, ST_INPUT, "row %d is empty", 7), ST_INPUT);
    assert_int_equal(err_set(&err, ST_NET, "later"), ST_INPUT);
    errno = ENOENT;
    assert_int_equal(err_errno(&err, ST_ENV, "later"), ST_INPUT);
    assert_int_equal(err_memory(&err, "later", 1), ST_INPUT);
    assert_string_equal(err.what, "row 7 is empty");
    assert_int_equal(err.status, ST_INPUT);
}

static void hint_is_kept_and_needs_a_failure(void **unused)
{
    struct err err = ERR_INIT;
    assert_int_equal(err_hint(&err, "too early"), ST_OK);
    assert_string_equal(err.hint, "");
    err_set(&err, ST_NET, "no answer");
    assert_int_equal(err_hint(&err, "try %s", "again"), ST_NET);
    assert_int_equal(err_hint(&err, "something else"), ST_NET);
    assert_string_equal(err.hint, "try again");
}

static void where_goes_in_front(void **unused)
{
    struct err err = ERR_INIT;
    assert_int_equal(err_where(&err, "nowhere"), ST_OK);
    assert_string_equal(err.what, "");
    err_set(&err, ST_INPUT, "too short");
    assert_int_equal(err_where(&err, "tensor \"%s\"", "a.b"), ST_INPUT);
    assert_int_equal(err_where(&err, "file x"), ST_INPUT);
    assert_string_equal(err.what, "file x: tensor \"a.b\": too short");
}

static void where_cuts_the_end_when_full(void **unused)
{
    struct err err = ERR_INIT;
    char fill[2000];
    memset(fill, 'f', sizeof fill - 1);
    fill[sizeof fill - 1] = '\0';
    err_set(&err, ST_INPUT, "%s", fill);
    assert_int_equal(strlen(err.what), sizeof err.what - 1);
    err_where(&err, "here");
    assert_int_equal(strlen(err.what), sizeof err.what - 1);
    assert_memory_equal(err.what, "here: ff", 8);
    err_where(&err, "%s", fill);
    assert_int_equal(strlen(err.what), sizeof err.what - 1);
    assert_int_equal(err.what[sizeof err.what - 2], ' ');
}

static void errno_text_is_added(void **unused)
{
    struct err err = ERR_INIT;
    errno = ENOSPC;
    assert_int_equal(err_errno(&err, ST_ENV, "cannot write \"%s\"", "x"), ST_ENV);
    assert_string_equal(err.what, "cannot write \"x\": No space left on device");
}

static void no_record_keeps_the_status(void **unused)
{
    assert_int_equal(err_set(NULL, ST_NET, "x"), ST_NET);
    assert_int_equal(err_errno(NULL, ST_ENV, "x"), ST_ENV);
    assert_int_equal(err_memory(NULL, "x", 1) != ST_OK, 1);
    assert_int_not_equal(err_hint(NULL, "x"), ST_OK);
    assert_int_not_equal(err_where(NULL, "x"), ST_OK);
}

static void foreign_bytes_are_made_harmless(void **unused)
{
    struct err err = ERR_INIT;
    err_set(&err, ST_INPUT, "a\nb\tc\033[31m\x7f \xc3\xa4");
    assert_string_equal(err.what, "a b c?[31m? \xc3\xa4");
}

static void half_characters_are_dropped(void **unused)
{
    struct err err = ERR_INIT;
    char text[1100];
    for (size_t i = 0; i + 1 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa4", 2);
    text[1098] = '\0';
    err_set(&err, ST_INPUT, "%s", text); /* 1023 bytes fit: 511 characters and a half */
    assert_int_equal(strlen(err.what), 1022);
    err = (struct err)ERR_INIT;
    err_set(&err, ST_INPUT, "x%s", text); /* 1 + 511 whole characters: nothing to drop */
    assert_int_equal(strlen(err.what), 1023);
}

static enum status pass_on(enum status status, int *n_after)
{
    TRY(status);
    *n_after += 1;
    return ST_OK;
}

static void try_returns_failures(void **unused)
{
    int n_after = 0;
    assert_int_equal(pass_on(ST_OK, &n_after), ST_OK);
    assert_int_equal(pass_on(ST_STOPPED, &n_after), ST_STOPPED);
    assert_int_equal(n_after, 1);
}

static void statuses_are_the_exit_codes(void **unused)
{
    assert_int_equal(ST_OK, 0);
    assert_int_equal(ST_DEFECT, 1);
    assert_int_equal(ST_USAGE, 2);
    assert_int_equal(ST_INPUT, 3);
    assert_int_equal(ST_ENV, 4);
    assert_int_equal(ST_NET, 5);
    assert_int_equal(ST_PENDING, 75);
    assert_int_equal(ST_STOPPED, 85);
    assert_string_equal(status_text(ST_INPUT), "bad input");
    assert_string_equal(status_text((enum status)42), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_cause_is_kept),
        cmocka_unit_test(hint_is_kept_and_needs_a_failure),
        cmocka_unit_test(where_goes_in_front),
        cmocka_unit_test(where_cuts_the_end_when_full),
        cmocka_unit_test(errno_text_is_added),
        cmocka_unit_test(no_record_keeps_the_status),
        cmocka_unit_test(foreign_bytes_are_made_harmless),
        cmocka_unit_test(half_characters_are_dropped),
        cmocka_unit_test(try_returns_failures),
        cmocka_unit_test(statuses_are_the_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
