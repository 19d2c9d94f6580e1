#include "util/crc32.h"
#include "util_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void known_and_equal(void **state)
{
    /* The check value of CRC-32/ISO-HDLC. */
    assert_int_equal(crc32_add(0, "123456789", 9), 0xcbf43926u);
    uint32_t halves = crc32_add(crc32_add(0, "1234", 4), "56789", 5);
    assert_int_equal(halves, 0xcbf43926u);
    char zeros[100] = {0};
    assert_int_equal(crc32_add(0, zeros, 32), 0x190a55adu);
    /* Both ways of computing it agree, at any length and alignment. */
    unsigned char noise[700];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (unsigned char)(i * i * 31 + i / 7);
    for (size_t n = 0; n + 5 < sizeof noise; n += 1 + n / 9)
        for (size_t at = 0; at < 5; at++)
            assert_int_equal(crc32_add((uint32_t)n, noise + at, n),
                             ~util__crc32_tables(~(uint32_t)n, noise + at, n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_and_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
