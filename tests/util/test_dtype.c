#include "util/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void names(void **unused)
{
    static const size_t sizes[N_DTYPES] = {4, 8, 2, 2, 1, 1, 2, 4, 8, 1};
    for (int t = 0; t < N_DTYPES; t++) {
        enum dtype back;
        assert_int_equal(dtype_bytes((enum dtype)t), sizes[t]);
        assert_true(dtype_from_name(dtype_name((enum dtype)t), &back));
        assert_int_equal(back, t);
    }
    enum dtype untouched = DT_I8;
    assert_false(dtype_from_name("F8_E4M3", &untouched));
    assert_false(dtype_from_name("f32", &untouched));
    assert_false(dtype_from_name("", &untouched));
    assert_int_equal(untouched, DT_I8);
    assert_int_equal(dtype_bytes(N_DTYPES), 0);
}

/* The value of a half by its definition. */
static double half_value(uint16_t x)
{
    int exponent = x >> 10 & 31, fraction = x & 0x3ff;
    double v = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return x & 0x8000 ? -v : v;
}

static void every_half(void **unused)
{
    for (uint32_t x = 0; x < 65536; x++) {
        float f = f16_to_f32((uint16_t)x);
        if ((x & 0x7c00) == 0x7c00 && (x & 0x3ff)) {
            assert_true(isnan(f));
            assert_int_equal(f16_from_f32(f), x | 0x200);
            continue;
        }
        if ((x & 0x7c00) == 0x7c00)
            assert_true(isinf(f) && !!signbit(f) == (x >> 15));
        else
            assert_true((double)f == half_value((uint16_t)x) && !!signbit(f) == (x >> 15));
        assert_int_equal(f16_from_f32(f), x);
    }
}

/* Between two neighbours: just below the middle, the middle (to the even one), just above. */
static void half_rounding(void **unused)
{
    for (uint32_t x = 0; x < 0x7c00; x++) {
        double low = half_value((uint16_t)x), high = x == 0x7bff ? 65536 : half_value((uint16_t)(x + 1));
        float middle = (float)((low + high) / 2);
        assert_true((double)middle == (low + high) / 2);
        uint32_t even = x & 1 ? x + 1 : x;
        assert_int_equal(f16_from_f32(middle), even);
        assert_int_equal(f16_from_f32(float_of(bits_of(middle) - 1)), x);
        assert_int_equal(f16_from_f32(float_of(bits_of(middle) + 1)), x + 1);
        assert_int_equal(f16_from_f32(-middle), even | 0x8000);
    }
    assert_int_equal(f16_from_f32(1e30f), 0x7c00);
    assert_int_equal(f16_from_f32(-INFINITY), 0xfc00);
    assert_int_equal(f16_from_f32(1e-30f), 0);
    assert_int_equal(f16_from_f32(-1e-45f), 0x8000);
    assert_int_equal(f16_from_f32(float_of(0x7f800001)) & 0x7e00, 0x7e00);
}

static void brain_float(void **unused)
{
    for (uint32_t x = 0; x < 65536; x++) {
        float f = bf16_to_f32((uint16_t)x);
        assert_int_equal(bits_of(f), x << 16);
        if (!isnan(f))
            assert_int_equal(bf16_from_f32(f), x);
        else
            assert_true(isnan(bf16_to_f32(bf16_from_f32(f))));
    }
    assert_int_equal(bf16_from_f32(float_of(0x3f807fff)), 0x3f80);
    assert_int_equal(bf16_from_f32(float_of(0x3f808000)), 0x3f80);
    assert_int_equal(bf16_from_f32(float_of(0x3f808001)), 0x3f81);
    assert_int_equal(bf16_from_f32(float_of(0x3f818000)), 0x3f82);
    assert_int_equal(bf16_from_f32(float_of(0x7f7fffff)), 0x7f80);
    assert_true(isnan(bf16_to_f32(bf16_from_f32(float_of(0x7f800001)))));
    assert_true(isnan(bf16_to_f32(bf16_from_f32(float_of(0xffffffff)))));
}

static void rows_at_odd_addresses(void **unused)
{
    static const enum dtype types[] = {DT_F32, DT_F64, DT_F16, DT_BF16};
    static const float values[5] = {0, -1.5f, 0.25f, 1024, -0.0078125f};
    for (int i = 0; i < 4; i++) {
        unsigned char bytes[48];
        float back[5];
        assert_true(dtype_from_f32(types[i], values, bytes + 1, 5));
        assert_true(dtype_to_f32(types[i], bytes + 1, back, 5));
        assert_memory_equal(back, values, sizeof values);
        assert_true(dtype_to_f32(types[i], NULL, back, 0));
        assert_true(dtype_from_f32(types[i], NULL, bytes, 0));
    }
    float x = 1;
    assert_false(dtype_to_f32(DT_I32, &x, &x, 1));
    assert_false(dtype_from_f32(DT_BOOL, &x, &x, 1));
    assert_true(x == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(every_half),
        cmocka_unit_test(half_rounding),
        cmocka_unit_test(brain_float),
        cmocka_unit_test(rows_at_odd_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
