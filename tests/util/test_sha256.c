#include "support/scratch.h"
#include "util/sha256.h"
#include "util_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* FIPS 180-4's examples and one of the lengths around the padding's border; the last from sha256sum. */
static const struct {
    const char *text, *hex;
} known[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrs"
     "tnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};

static void known_answers(void **unused)
{
    char hex[SHA256_HEX_BYTES];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        sha256_buffer(known[i].text, strlen(known[i].text), hex);
        assert_string_equal(hex, known[i].hex);
    }
}

static void a_million_letters(void **unused)
{
    char *text = malloc(1000000), hex[SHA256_HEX_BYTES];
    assert_non_null(text);
    memset(text, 'a', 1000000);
    sha256_buffer(text, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(text);
}

/* The digest of all digests of 0, 1, ..., 300 bytes covers each state of the block buffer and the padding. */
static void pieces_do_not_matter(void **unused)
{
    unsigned char text[300], digest[32];
    for (int i = 0; i < 300; i++)
        text[i] = (unsigned char)(i * 7 + 1);
    for (size_t n = 0; n <= sizeof text; n++) {
        char whole[SHA256_HEX_BYTES], pieces[SHA256_HEX_BYTES];
        sha256_buffer(text, n, whole);
        struct sha256 h;
        sha256_init(&h);
        for (size_t at = 0, step = 1; at < n; at += step, step = step % 71 + 1) {
            if (step > n - at)
                step = n - at;
            sha256_update(&h, text + at, step);
            sha256_update(&h, NULL, 0);
        }
        sha256_final(&h, digest);
        for (int i = 0; i < 32; i++)
            snprintf(pieces + 2 * i, 3, "%02x", digest[i]);
        assert_string_equal(pieces, whole);
    }
}

static void instructions_agree_with_plain(void **unused)
{
    if (!util__sha256_has_ni()) {
        print_message("this processor has no SHA instructions: only the plain version is used\n");
        skip();
    }
    unsigned char data[64 * 9 + 1];
    uint32_t x = 12345;
    for (size_t i = 0; i < sizeof data; i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = (unsigned char)(x >> 24);
    }
    for (size_t n = 0; n <= 9; n++) {
        uint32_t a[8], b[8];
        for (int i = 0; i < 8; i++)
            a[i] = b[i] = 0x01234567u * (uint32_t)(i + 1);
        util__sha256_blocks_plain(a, data + 1, n);
        util__sha256_blocks_ni(b, data + 1, n);
        assert_memory_equal(a, b, sizeof a);
    }
}

/* Each of the two is what it is alone, at lengths around whole blocks. */
static void two_at_once(void **unused)
{
    unsigned char a[700], b[700], digest[2][32], alone[32];
    for (size_t i = 0; i < sizeof a; i++) {
        a[i] = (unsigned char)(i * 13 + i / 5);
        b[i] = (unsigned char)(i * 7 + 200);
    }
    for (size_t n = 0; n <= sizeof a; n += n < 140 ? 1 : 61)
        for (int k = 0; k < 2; k++) {
            struct sha256 h;
            sha256_two(a, b, n, digest[0], digest[1]);
            sha256_init(&h);
            sha256_update(&h, k == 0 ? a : b, n);
            sha256_final(&h, alone);
            assert_memory_equal(alone, digest[k], sizeof alone);
        }
}

static void plain_version_alone(void **unused)
{
    /* "abc" with its padding, by hand: the dispatch above may never have used the plain version. */
    unsigned char block[64] = {'a', 'b', 'c', 0x80, [63] = 24};
    struct sha256 h;
    sha256_init(&h);
    util__sha256_blocks_plain(h.state, block, 1);
    static const uint32_t want[8] = {0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223,
                                     0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad};
    assert_memory_equal(h.state, want, sizeof want);
}

static void files(void **unused)
{
    struct scratch s;
    scratch_open(&s);
    struct err err = ERR_INIT;
    char hex[SHA256_HEX_BYTES];
    assert_int_equal(sha256_file(scratch_file(&s, "abc", "abc"), hex, &err), ST_OK);
    assert_string_equal(hex, known[1].hex);
    assert_int_equal(sha256_file(scratch_file(&s, "empty", ""), hex, &err), ST_OK);
    assert_string_equal(hex, known[0].hex);
    assert_int_equal(sha256_file(scratch_path(&s, "absent"), hex, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "absent\": No such file"));
    assert_int_equal(sha256_file(s.dir, hex, NULL), ST_INPUT);
    scratch_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(a_million_letters),
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(instructions_agree_with_plain),
        cmocka_unit_test(plain_version_alone),
        cmocka_unit_test(two_at_once),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
