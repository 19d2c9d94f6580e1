/* Each case speaks in a child process whose stderr is a pipe or a pseudo terminal; the parent reads it. */
#include "util/clock.h"
#include "util/fatal.h"
#include "util/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SAID_BYTES 65536

/* What body says on stderr goes to said; the answer is the exit code. */
static int listen_to(void (*body)(void), bool terminal, char said[SAID_BYTES])
{
    int in, out, ends[2];
    if (terminal) {
        in = posix_openpt(O_RDWR | O_NOCTTY);
        assert_true(in >= 0);
        assert_int_equal(grantpt(in), 0);
        assert_int_equal(unlockpt(in), 0);
        out = open(ptsname(in), O_RDWR | O_NOCTTY);
        assert_true(out >= 0);
    } else {
        assert_int_equal(pipe(ends), 0);
        in = ends[0];
        out = ends[1];
    }
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(out, STDERR_FILENO);
        close(out);
        close(in);
        body();
        _exit(0);
    }
    close(out);
    size_t n = 0;
    ssize_t got;
    while (n + 1 < SAID_BYTES && (got = read(in, said + n, SAID_BYTES - 1 - n)) > 0)
        n += (size_t)got;
    said[n] = '\0';
    close(in);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void speak_alone(void)
{
    log_debug("hidden");
    log_info("plain %d", 1);
    log_warn("careful");
    log_each_info("each");
    log_each_warn("each careful");
    struct err err = ERR_INIT;
    log_err(&err);
    err_set(&err, ST_INPUT, "no such row");
    log_err(&err);
    err_hint(&err, "count again");
    log_err(&err);
    log_set_level(LOG_DEBUG);
    log_debug("shown");
    log_set_level(LOG_ERROR);
    log_warn("hidden");
    log_err(&err);
}

static void one_rank(void **unused)
{
    char said[SAID_BYTES];
    assert_int_equal(listen_to(speak_alone, false, said), 0);
    assert_string_equal(said, "plain 1\n"
                              "smgpt-dist: warning: careful\n"
                              "each\n"
                              "smgpt-dist: warning: each careful\n"
                              "smgpt-dist: error: no such row\n"
                              "smgpt-dist: error: no such row\n  hint: count again\n"
                              "shown\n"
                              "smgpt-dist: error: no such row\n  hint: count again\n");
}

static void speak_rank_2(void)
{
    char host[] = "node7";
    log_init(2, 4, host);
    host[0] = 'x';
    log_info("not here");
    log_warn("not here");
    log_progress(true, "not here");
    log_each_info("hello");
    log_each_warn("careful");
    struct err err = ERR_INIT;
    err_set(&err, ST_ENV, "no disk");
    log_err(&err);
}

static void other_rank(void **unused)
{
    char said[SAID_BYTES];
    assert_int_equal(listen_to(speak_rank_2, false, said), 0);
    assert_string_equal(said, "rank 2 on node7: hello\n"
                              "smgpt-dist: warning: rank 2 on node7: careful\n"
                              "smgpt-dist: error: rank 2 on node7: no disk\n");
}

static void speak_long(void)
{
    char text[10000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_info("%s", text);
    log_info("next");
}

static void long_lines_are_cut(void **unused)
{
    char said[SAID_BYTES];
    assert_int_equal(listen_to(speak_long, false, said), 0);
    char *end = strchr(said, '\n');
    assert_non_null(end);
    assert_true(end - said > 1000);
    assert_string_equal(end, "\nnext\n");
}

static void progress(void)
{
    log_progress(false, "step 1");
    log_progress(false, "step 2");
    log_warn("careful");
    log_progress(false, "step 3");
    log_progress(true, "step 4");
    log_progress(false, "next 1");
    log_progress(false, "next 2");
}

static void progress_in_a_file_is_rare(void **unused)
{
    char said[SAID_BYTES];
    assert_int_equal(listen_to(progress, false, said), 0);
    assert_string_equal(said, "step 1\nsmgpt-dist: warning: careful\nstep 4\nnext 1\n");
}

static void progress_on_a_terminal_is_rewritten(void **unused)
{
    char said[SAID_BYTES];
    assert_int_equal(listen_to(progress, true, said), 0);
    /* The terminal line discipline turns each line feed into two bytes. */
    assert_string_equal(said, "step 1\r\033[Kstep 2\r\033[Ksmgpt-dist: warning: careful\r\nstep 3"
                              "\r\033[Kstep 4\r\nnext 1\r\033[Knext 2");
}

static void hook_speaks(int exit_code)
{
    fprintf(stderr, "hook %d\n", exit_code);
}

static void hook_ends(int exit_code)
{
    _exit(exit_code + 1);
}

static void hook_falls_back(int exit_code)
{
    struct err err = ERR_INIT;
    err_set(&err, ST_NET, "in the hook");
    fatal(&err);
}

static void die_plain(void)
{
    struct err err = ERR_INIT;
    err_set(&err, ST_ENV, "rank 3 is gone");
    fatal_set_hook(hook_speaks);
    fatal(&err);
}

static void die_by_hook(void)
{
    struct err err = ERR_INIT;
    err_set(&err, ST_ENV, "rank 3 is gone");
    fatal_set_hook(hook_ends);
    fatal(&err);
}

static void die_twice(void)
{
    struct err err = ERR_INIT;
    err_set(&err, ST_ENV, "first");
    fatal_set_hook(hook_falls_back);
    fatal(&err);
}

static void die_without_error(void)
{
    fatal(NULL);
}

static void fatal_ends_the_process(void **unused)
{
    char said[SAID_BYTES];
    assert_int_equal(listen_to(die_plain, false, said), ST_ENV);
    assert_string_equal(said, "smgpt-dist: error: rank 3 is gone\nhook 4\n");
    assert_int_equal(listen_to(die_by_hook, false, said), ST_ENV + 1);
    assert_int_equal(listen_to(die_twice, false, said), ST_NET);
    assert_string_equal(said, "smgpt-dist: error: first\nsmgpt-dist: error: in the hook\n");
    assert_int_equal(listen_to(die_without_error, false, said), ST_DEFECT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank),
        cmocka_unit_test(other_rank),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(progress_in_a_file_is_rare),
        cmocka_unit_test(progress_on_a_terminal_is_rewritten),
        cmocka_unit_test(fatal_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
