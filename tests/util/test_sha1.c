/* Known answers of FIPS 180, and git's names. */
#include "support/scratch.h"
#include "util/sha1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void known_answers(void **unused)
{
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
    };
    char hex[SHA1_HEX_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sha1_buffer(cases[i].text, strlen(cases[i].text), hex);
        assert_string_equal(hex, cases[i].hex);
    }
}

static void a_million_in_uneven_pieces(void **unused)
{
    char piece[617], hex[SHA1_HEX_BYTES];
    struct sha1 h;
    memset(piece, 'a', sizeof piece);
    sha1_init(&h);
    for (size_t left = 1000000, n; left > 0; left -= n) {
        n = left < sizeof piece ? left : sizeof piece;
        sha1_update(&h, piece, n);
    }
    sha1_hex(&h, hex);
    assert_string_equal(hex, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

static void names_of_git(void **unused)
{
    struct scratch s;
    char hex[SHA1_HEX_BYTES];
    scratch_open(&s);
    assert_int_equal(sha1_file_blob(scratch_file(&s, "empty", ""), hex, NULL), ST_OK);
    assert_string_equal(hex, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    assert_int_equal(sha1_file_blob(scratch_file(&s, "hello", "hello\n"), hex, NULL), ST_OK);
    assert_string_equal(hex, "ce013625030ba8dba906f756967f9e9ca394464a");
    assert_int_equal(sha1_file_blob(scratch_path(&s, "missing"), hex, NULL), ST_INPUT);
    scratch_close(&s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(a_million_in_uneven_pieces),
        cmocka_unit_test(names_of_git),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
