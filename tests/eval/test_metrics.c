#include "eval/metrics.h"
#include "util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (int32_t)(sizeof(a) / sizeof *(a))

/* A letter is an id. */
static struct motion_span spell(const char *word, int32_t *ids)
{
    int32_t n = 0;
    for (; word[n]; n++)
        ids[n] = word[n];
    return (struct motion_span){ids, n};
}

static int32_t distance_of(struct motion_span a, struct motion_span b)
{
    struct err err = ERR_INIT;
    int32_t d = -1;
    assert_int_equal(edit_distance(a, b, &d, &err), ST_OK);
    return d;
}

static void test_known_words(void **state)
{
    static const struct {
        const char *a, *b;
        int32_t distance;
    } cases[] = {{"", "", 0},
                 {"", "abc", 3},
                 {"abc", "", 3},
                 {"a", "a", 0},
                 {"a", "b", 1},
                 {"kitten", "sitting", 3},
                 {"flaw", "lawn", 2},
                 {"intention", "execution", 5},
                 {"abcdef", "bcdefg", 2},
                 {"ab", "ba", 2},
                 {"aaaa", "aa", 2},
                 {"saturday", "sunday", 3}};
    for (int32_t i = 0; i < COUNT(cases); i++) {
        int32_t a[16], b[16];
        struct motion_span x = spell(cases[i].a, a), y = spell(cases[i].b, b);
        if (distance_of(x, y) != cases[i].distance || distance_of(y, x) != cases[i].distance)
            fail_msg("'%s' to '%s': %d and %d, expected %d", cases[i].a, cases[i].b, distance_of(x, y),
                     distance_of(y, x), cases[i].distance);
    }
}

/* The definition, without a table. */
static int32_t by_definition(struct motion_span a, struct motion_span b)
{
    if (a.n == 0 || b.n == 0)
        return a.n + b.n;
    struct motion_span a1 = {a.ids + 1, a.n - 1}, b1 = {b.ids + 1, b.n - 1};
    int32_t best = by_definition(a1, b1) + (a.ids[0] != b.ids[0]);
    int32_t skip_a = by_definition(a1, b) + 1, skip_b = by_definition(a, b1) + 1;
    best = skip_a < best ? skip_a : best;
    return skip_b < best ? skip_b : best;
}

static void test_random_spans_follow_the_definition(void **state)
{
    for (uint32_t k = 0; k < 300; k++) {
        int32_t a[7], b[7];
        struct motion_span x = {a, (int32_t)(rng_u64(1, RNG_TEST, k, 0) % 8)};
        struct motion_span y = {b, (int32_t)(rng_u64(1, RNG_TEST, k, 1) % 8)};
        for (int32_t i = 0; i < 7; i++) {
            a[i] = (int32_t)(rng_u64(2, RNG_TEST, k, (uint64_t)i) % 3) * 100000;
            b[i] = (int32_t)(rng_u64(3, RNG_TEST, k, (uint64_t)i) % 3) * 100000;
        }
        assert_int_equal(distance_of(x, y), by_definition(x, y));
    }
}

static void test_long_spans(void **state)
{
    enum { N = 3000 };
    int32_t *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b);
    for (int32_t i = 0; i < N; i++) {
        a[i] = i;
        b[i] = i + 7;
    }
    assert_int_equal(distance_of((struct motion_span){a, N}, (struct motion_span){b, N}), 14);
    assert_int_equal(distance_of((struct motion_span){a, N}, (struct motion_span){b, 0}), N);
    free(a);
    free(b);
}

static void test_nearest_reference(void **state)
{
    struct err err = ERR_INIT;
    int32_t text[16], r[4][16], distance, nearest;
    struct motion_span a = spell("kitten", text);
    struct motion_span references[4] = {spell("sitting", r[0]), spell("mitten", r[1]), spell("kitte", r[2]),
                                        spell("kitten", r[3])};
    assert_int_equal(edit_distance_min(a, references, 3, &distance, &nearest, &err), ST_OK);
    assert_int_equal(distance, 1);
    assert_int_equal(nearest, 1); /* the first of two at distance 1 */
    assert_int_equal(edit_distance_min(a, references, 4, &distance, NULL, &err), ST_OK);
    assert_int_equal(distance, 0);
    assert_int_equal(edit_distance_min(a, NULL, 0, &distance, &nearest, &err), ST_OK);
    assert_int_equal(distance, 6);
    assert_int_equal(nearest, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_words),
        cmocka_unit_test(test_random_spans_follow_the_definition),
        cmocka_unit_test(test_long_spans),
        cmocka_unit_test(test_nearest_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
