/* Time, and the signals that end a run in good order. */
#include "util/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

double clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void clock_sleep_s(double s)
{
    if (!(s > 0))
        return;
    if (s > 1e9)
        s = 1e9;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    time_t whole = (time_t)s;
    until.tv_sec += whole;
    until.tv_nsec += (long)((s - (double)whole) * 1e9);
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec += 1;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* Signals have no other way in than process-wide state. */
static atomic_int stop_signal;
static atomic_int n_interrupts;

static void on_signal(int number)
{
    if (number == SIGINT && atomic_fetch_add(&n_interrupts, 1) > 0) {
        /* Delivered again, with its usual effect, as soon as this handler returns. */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
        return;
    }
    stop_request(number);
}

void stop_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

int stop_requested(void)
{
    return atomic_load(&stop_signal);
}

void stop_request(int signal_number)
{
    int none = 0;
    atomic_compare_exchange_strong(&stop_signal, &none, signal_number);
}
