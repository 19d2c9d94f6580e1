/* Many more schedules than test_sim.c runs: 25 seconds of them. */
#include "sim/schedules.h"
#include "util/clock.h"
#include "util/log.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECONDS 25.0

static void test_schedules(void **state)
{
    struct schedule_counts n;
    double start_s = clock_s();
    assert_true(schedules_run(1000000, INT64_MAX, SECONDS, &n));
    print_message("%" PRId64 " schedules, %.0f a minute; %" PRId64 " messages, %" PRId64 " switches, %" PRId64
                  " ranks returned, %" PRId64 " ended\n",
                  n.n_schedules, 60 * (double)n.n_schedules / (clock_s() - start_s), n.n_messages,
                  n.n_switches, n.n_returned, n.n_fatal);
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
