#include "util/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static volatile sig_atomic_t n_alarms;

static void on_alarm(int unused)
{
    n_alarms++;
}

static void sleep_survives_signals(void **unused)
{
    signal(SIGALRM, on_alarm);
    struct itimerval often = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    double start_s = clock_s();
    clock_sleep_s(0.1);
    double slept_s = clock_s() - start_s;
    setitimer(ITIMER_REAL, &never, NULL);
    assert_true(n_alarms >= 1);
    assert_true(slept_s >= 0.1);
    start_s = clock_s();
    clock_sleep_s(0);
    clock_sleep_s(-5);
    clock_sleep_s(0.0 / (n_alarms - n_alarms)); /* NaN */
    assert_true(clock_s() - start_s < 5);
}

/* Runs body in a child; the answer is its exit code, or minus the signal that ended it. */
static int in_child(void (*body)(void))
{
    pid_t child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child)
        return 1000;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void each_signal_sets_the_flag(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            stop_install();
            if (stop_requested() != 0)
                _exit(1);
            raise(numbers[i]);
            _exit(stop_requested() == numbers[i] ? 0 : 2);
        }
        int status;
        waitpid(child, &status, 0);
        if (status != 0)
            _exit(10 + i);
    }
}

static void first_reason_stays(void)
{
    stop_install();
    stop_request(SIGALRM);
    raise(SIGUSR1);
    raise(SIGTERM);
    raise(SIGTERM);
    raise(SIGINT);
    _exit(stop_requested() == SIGALRM ? 0 : 1);
}

static void interrupted_twice(void)
{
    stop_install();
    raise(SIGINT);
    raise(SIGINT);
}

static void stop_signals(void **unused)
{
    assert_int_equal(in_child(each_signal_sets_the_flag), 0);
    assert_int_equal(in_child(first_reason_stays), 0);
    assert_int_equal(in_child(interrupted_twice), -SIGINT);
}

static void peak_memory_follows_use(void **unused)
{
    int64_t before = peak_rss_bytes();
    assert_true(before > 100000);
    size_t n_bytes = (size_t)64 << 20;
    volatile char *block = malloc(n_bytes);
    assert_non_null(block);
    for (size_t i = 0; i < n_bytes; i += 4096)
        block[i] = 1;
    int64_t after = peak_rss_bytes();
    free((void *)block);
    assert_true(after >= (int64_t)n_bytes);
    /* The peak stays when the block is gone; the kernel's counters are exact to some pages only. */
    assert_true(peak_rss_bytes() >= after - (1 << 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sleep_survives_signals),
        cmocka_unit_test(stop_signals),
        cmocka_unit_test(peak_memory_follows_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
