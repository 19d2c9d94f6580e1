/* Learning rates against those that Hugging Face's Trainer logs. */
#include "train/train.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

/* max_steps 20, warm-up ratio 0.1, base rate 1e-5, cosine; printed with six digits. */
static void test_cosine(void **state)
{
    static const double rates[20] = {0,          5e-6,       1e-5,       9.92404e-6, 9.69846e-6,
                                     9.33013e-6, 8.83022e-6, 8.21394e-6, 7.5e-6,     6.7101e-6,
                                     5.86824e-6, 5e-6,       4.13176e-6, 3.2899e-6,  2.5e-6,
                                     1.78606e-6, 1.16978e-6, 6.69873e-7, 3.01537e-7, 7.59612e-8};
    assert_int_equal(schedule_warmup(20, 0.1), 2);
    for (int k = 1; k <= 20; k++) {
        double lr = 1e-5 * schedule_factor(SCHEDULE_COSINE, k - 1, 2, 20);
        if (fabs(lr - rates[k - 1]) > 6e-6 * rates[k - 1])
            fail_msg("step %d: %.9g, expected %.6g", k, lr, rates[k - 1]);
    }
    assert_true(schedule_factor(SCHEDULE_COSINE, 20, 2, 20) == 0);
}

/* Rates of a logged run to the last bit: 30 steps, ratio 0.1, base rate 1e-3. */
static void test_exact(void **state)
{
    assert_int_equal(schedule_warmup(30, 0.1), 3);
    assert_true(1e-3 * schedule_factor(SCHEDULE_COSINE, 0, 3, 30) == 0.0);
    assert_true(1e-3 * schedule_factor(SCHEDULE_COSINE, 1, 3, 30) == 0.0003333333333333333);
    assert_true(1e-3 * schedule_factor(SCHEDULE_COSINE, 2, 3, 30) == 0.0006666666666666666);
    assert_true(1e-3 * schedule_factor(SCHEDULE_COSINE, 3, 3, 30) == 0.001);
    assert_true(1e-3 * schedule_factor(SCHEDULE_COSINE, 4, 3, 30) == 0.0009966191788709714);
    assert_true(1e-3 * schedule_factor(SCHEDULE_COSINE, 5, 3, 30) == 0.0009865224352899118);
    assert_true(1e-3 * schedule_factor(SCHEDULE_COSINE, 6, 3, 30) == 0.0009698463103929542);
}

static void test_others(void **state)
{
    for (int s = 0; s < 10; s++) {
        double warm = s < 4 ? s / 4.0 : 1;
        assert_true(schedule_factor(SCHEDULE_CONSTANT_WITH_WARMUP, s, 4, 10) == warm);
        assert_true(schedule_factor(SCHEDULE_LINEAR, s, 4, 10) == (s < 4 ? warm : (10 - s) / 6.0));
        assert_true(schedule_factor(SCHEDULE_CONSTANT, s, 4, 10) == 1);
        assert_true(schedule_factor(SCHEDULE_LINEAR, s, 0, 10) == (10 - s) / 10.0);
    }
    /* Borders: nothing but warm-up, one step, beyond the end. */
    assert_int_equal(schedule_warmup(7, 1.0), 7);
    assert_int_equal(schedule_warmup(7, 0.0), 0);
    assert_int_equal(schedule_warmup(1, 0.1), 1);
    assert_true(schedule_factor(SCHEDULE_COSINE, 6, 7, 7) == 6.0 / 7);
    assert_true(schedule_factor(SCHEDULE_COSINE, 0, 0, 1) == 1);
    assert_true(schedule_factor(SCHEDULE_COSINE, 0, 1, 1) == 0);
    assert_true(schedule_factor(SCHEDULE_LINEAR, 12, 2, 10) == 0);
    assert_true(schedule_factor(SCHEDULE_LINEAR, 10, 10, 10) == 0);
}

static void test_names(void **state)
{
    static const char *const names[] = {"cosine", "linear", "constant", "constant_with_warmup"};
    static const enum schedule_kind kinds[] = {SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT,
                                               SCHEDULE_CONSTANT_WITH_WARMUP};
    for (int i = 0; i < 4; i++) {
        enum schedule_kind kind = kinds[(i + 1) % 4];
        assert_true(schedule_by_name(names[i], &kind));
        assert_int_equal(kind, kinds[i]);
    }
    enum schedule_kind kept = SCHEDULE_LINEAR;
    assert_false(schedule_by_name("constant_", &kept));
    assert_false(schedule_by_name("", &kept));
    assert_int_equal(kept, SCHEDULE_LINEAR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cosine),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
