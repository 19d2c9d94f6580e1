/* Ranks that are killed in the middle of training, in a simulation: see sim/train_runs.h. */
#include "sim/train_runs.h"
#include "util/log.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_kills(void **state)
{
    const int world_sizes[] = {3};
    struct train_counts n;
    assert_true(train_kills_run(world_sizes, sizeof world_sizes / sizeof world_sizes[0], 67, &n));
    print_message("%" PRId64 " kills, %" PRId64 " of them after a checkpoint\n", n.n_kills,
                  n.n_from_checkpoint);
    if (getenv("SMGPT_SIM_SEED") != NULL)
        return;
    assert_true(n.n_from_checkpoint > 0);
    assert_true(n.n_from_checkpoint < n.n_kills);
}

static void test_flips(void **state)
{
    assert_true(train_flips_run(12));
}

int main(void)
{
#ifdef __SANITIZE_THREAD__
    fprintf(stderr, "skipped: stacks of our own are not known to the thread sanitizer\n");
    return 77;
#endif
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kills),
        cmocka_unit_test(test_flips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
