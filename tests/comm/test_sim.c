/* The collectives under thousands of simulated schedules, and the simulation itself. A schedule that fails
 * says its seed; SMGPT_SIM_SEED=<seed> runs that one again, exactly. */
#include "sim/schedules.h"
#include "util/log.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_schedules(void **state)
{
    struct schedule_counts counts;
    assert_true(schedules_run(1, 1200, 1e9, &counts));
    if (getenv("SMGPT_SIM_SEED") != NULL)
        return;
    /* Both ends were met often. */
    assert_true(counts.n_returned > 1000);
    assert_true(counts.n_fatal > 1000);
}

int main(void)
{
#ifdef __SANITIZE_THREAD__
    fprintf(stderr, "skipped: stacks of our own are not known to the thread sanitizer\n");
    return 77;
#endif
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
