/* The token: where it is found, and that it is gone from there afterwards. */
#include "hub/token.h"
#include "support/scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SECRET "hf_AbcDef0123456789"

static struct scratch home;

static int set_up(void **state)
{
    static const char *const names[] = {"HF_TOKEN",      "HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN",
                                        "HF_TOKEN_PATH", "HF_HUB_OFFLINE",        "TRANSFORMERS_OFFLINE",
                                        "XDG_CACHE_HOME"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    scratch_open(&home);
    return setenv("HF_HOME", home.dir, 1);
}

static int tear_down(void **state)
{
    scratch_close(&home);
    return 0;
}

static void put_file(const char *text, mode_t mode)
{
    assert_int_equal(chmod(scratch_file(&home, "token", text), mode), 0);
}

static void test_none(void **state)
{
    struct hub_token t;
    struct err err = ERR_INIT;
    setenv("HF_TOKEN", " \n", 1);
    assert_int_equal(hub_token_take(&t, &err), ST_OK);
    assert_string_equal(t.text, "");
    unsetenv("HF_HOME");
    unsetenv("HOME");
    assert_int_equal(hub_token_take(&t, &err), ST_OK);
    assert_string_equal(t.text, "");
}

static void test_order(void **state)
{
    struct hub_token t;
    struct err err = ERR_INIT;
    put_file("hf_file\n", 0600);
    setenv("HUGGING_FACE_HUB_TOKEN", "hf_third", 1);
    setenv("HUGGINGFACE_HUB_TOKEN", "hf_second", 1);
    setenv("HF_TOKEN", " " SECRET "\r\n", 1);
    assert_int_equal(hub_token_take(&t, &err), ST_OK);
    assert_string_equal(t.text, SECRET);
    assert_string_equal(t.source, "HF_TOKEN");
    assert_null(getenv("HF_TOKEN"));
    assert_null(getenv("HUGGINGFACE_HUB_TOKEN"));
    assert_null(getenv("HUGGING_FACE_HUB_TOKEN"));
    assert_int_equal(hub_token_take(&t, &err), ST_OK);
    assert_string_equal(t.text, "hf_file");
    assert_string_equal(t.source, "the token file");
    hub_token_forget(&t);
    assert_string_equal(t.text, "");
}

static void test_file_elsewhere(void **state)
{
    struct hub_token t;
    struct err err = ERR_INIT;
    put_file("hf_default", 0644);
    assert_int_equal(hub_token_take(&t, &err), ST_OK); /* with a warning */
    assert_string_equal(t.text, "hf_default");
    setenv("HF_TOKEN_PATH", scratch_file(&home, "mine", "hf_mine"), 1);
    assert_int_equal(hub_token_take(&t, &err), ST_OK);
    assert_string_equal(t.text, "hf_mine");
}

static void test_bad(void **state)
{
    static const char *const bad[] = {"hf_two words", "hf_line\nX-Evil: 1", "hf_\xc3\xa9"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hub_token t;
        struct err err = ERR_INIT;
        setenv("HF_TOKEN", bad[i], 1);
        assert_int_equal(hub_token_take(&t, &err), ST_INPUT);
        assert_string_equal(t.text, "");
        assert_null(strstr(err.what, "hf_two"));
        assert_null(strstr(err.what, "hf_line"));
        assert_null(getenv("HF_TOKEN"));
    }
    char longest[TOKEN_BYTES + 1];
    struct hub_token t;
    struct err err = ERR_INIT;
    memset(longest, 'a', TOKEN_BYTES);
    longest[TOKEN_BYTES] = 0;
    setenv("HF_TOKEN", longest, 1);
    assert_int_equal(hub_token_take(&t, &err), ST_INPUT);
}

/* A process that was started with the variable, as a user's is. */
static void test_environment_of_the_process(void **state)
{
    char self[PATH_BYTES], command[PATH_BYTES + 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = 0;
    snprintf(command, sizeof command, "HF_TOKEN=%s '%s' child", SECRET, self);
    assert_int_equal(system(command), 0);
}

static bool file_has(const char *path, const char *text)
{
    static char data[1 << 20];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, data, sizeof data);
    if (fd >= 0)
        close(fd);
    return n > 0 && memmem(data, (size_t)n, text, strlen(text));
}

static int child(void)
{
    struct hub_token t;
    struct err err = ERR_INIT;
    bool before = file_has("/proc/self/environ", SECRET);
    enum status st = hub_token_take(&t, &err);
    bool after = file_has("/proc/self/environ", SECRET);
    bool filtered = file_has("/proc/self/coredump_filter", "00000000");
    return before && !after && filtered && st == ST_OK && strcmp(t.text, SECRET) == 0 ? 0 : 1;
}

static void test_offline(void **state)
{
    assert_false(hub_is_offline());
    setenv("HF_HUB_OFFLINE", "0", 1);
    assert_false(hub_is_offline());
    setenv("TRANSFORMERS_OFFLINE", "True", 1);
    assert_true(hub_is_offline());
}

static void test_home(void **state)
{
    char path[PATH_BYTES];
    struct err err = ERR_INIT;
    assert_int_equal(hub_home(path, &err), ST_OK);
    assert_string_equal(path, home.dir);
    unsetenv("HF_HOME");
    setenv("HOME", "/u", 1);
    assert_int_equal(hub_home(path, &err), ST_OK);
    assert_string_equal(path, "/u/.cache/huggingface");
    setenv("XDG_CACHE_HOME", "/c", 1);
    assert_int_equal(hub_home(path, &err), ST_OK);
    assert_string_equal(path, "/c/huggingface");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    assert_int_equal(hub_home(path, &err), ST_ENV);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(test_none),
        TEST(test_order),
        TEST(test_file_elsewhere),
        TEST(test_bad),
        TEST(test_home),
        TEST(test_offline),
        TEST(test_environment_of_the_process),
    };
    if (argc > 1)
        return child();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
