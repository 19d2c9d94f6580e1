/* The spool: points are whole or absent, sent once, and outlive the uploader. */
#include "hub/spool.h"
#include "line_server.h"
#include "spool_internal.h"
#include "support/scratch.h"
#include "util/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct scratch s;
static char spool[PATH_BYTES], checkpoint[PATH_BYTES];

static void write_in(const char *dir, const char *name, const char *text)
{
    char path[PATH_BYTES];
    assert_int_equal(path_join(path, dir, name, NULL), ST_OK);
    assert_int_equal(file_write(path, text, strlen(text), NULL), ST_OK);
}

static int set_up(void **state)
{
    scratch_open(&s);
    strcpy(spool, scratch_path(&s, "spool"));
    strcpy(checkpoint, scratch_path(&s, "checkpoint-3"));
    mkdir(checkpoint, 0755);
    write_in(checkpoint, "smgpt_state.json", "{\"params\": 1}");
    write_in(checkpoint, "a.txt", "hello\n");
    return 0;
}

static int tear_down(void **state)
{
    scratch_close(&s);
    return 0;
}

static enum status put(int stage, int64_t step)
{
    struct spool_point point = {.stage = stage, .step = step, .repo = "alice/m"};
    return spool_put(spool, &point, checkpoint, NULL);
}

static size_t list(struct spool_point *first)
{
    struct spool_point *points;
    size_t n;
    assert_int_equal(spool_list(spool, &points, &n, NULL), ST_OK);
    if (n > 0 && first)
        *first = points[0];
    free(points);
    return n;
}

static void test_put_and_list(void **state)
{
    struct spool_point first;
    assert_int_equal(list(NULL), 0);
    assert_int_equal(put(2, 30), ST_OK);
    assert_int_equal(put(2, 4), ST_OK);
    assert_int_equal(put(1, 100), ST_OK);
    assert_int_equal(put(2, 4), ST_OK);
    assert_int_equal(list(&first), 3);
    assert_int_equal(first.stage, 1);
    assert_int_equal(first.step, 100);
    assert_string_equal(first.repo, "alice/m");
    /* The files stay when the checkpoint goes. */
    assert_int_equal(dir_remove(checkpoint, NULL), ST_OK);
    char *text = scratch_read(scratch_path(&s, "spool/stage2-checkpoint-4/files/a.txt"));
    assert_string_equal(text, "hello\n");
    free(text);
    assert_int_equal(put(3, 1), ST_INPUT);
    assert_int_equal(list(NULL), 3);
}

static void test_sent_once(void **state)
{
    struct spool_point point = {.stage = 2, .step = 4, .repo = "alice/m"};
    assert_int_equal(put(2, 4), ST_OK);
    assert_int_equal(spool__sent(spool, &point, NULL), ST_OK);
    assert_int_equal(list(NULL), 0);
    assert_int_equal(put(2, 4), ST_OK);
    assert_int_equal(list(NULL), 0);
    /* The same step of another run is another checkpoint. */
    write_in(checkpoint, "smgpt_state.json", "{\"params\": 2}");
    assert_int_equal(put(2, 4), ST_OK);
    assert_int_equal(list(NULL), 1);
}

static void test_another_attempt_replaces(void **state)
{
    assert_int_equal(put(2, 4), ST_OK);
    write_in(checkpoint, "smgpt_state.json", "{\"params\": 2}");
    write_in(checkpoint, "a.txt", "other\n");
    assert_int_equal(put(2, 4), ST_OK);
    assert_int_equal(list(NULL), 1);
    char *text = scratch_read(scratch_path(&s, "spool/stage2-checkpoint-4/files/a.txt"));
    assert_string_equal(text, "other\n");
    free(text);
}

static void test_damaged_points_are_left_out(void **state)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "{\"stage\": 2, \"step\": 5, \"repo\": \"a/m\"}",
                                      "{\"stage\": 2, \"step\": 4, \"repo\": \"../m\"}",
                                      "{\"stage\": 9, \"step\": 4, \"repo\": \"a/m\"}",
                                      "{\"stage\": 2, \"step\": 4}"};
    assert_int_equal(put(1, 1), ST_OK);
    assert_int_equal(put(2, 4), ST_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_in(scratch_path(&s, "spool/stage2-checkpoint-4"), "point.json", bad[i]);
        assert_int_equal(list(NULL), 1);
    }
}

static void test_leftovers_are_removed(void **state)
{
    assert_int_equal(put(1, 1), ST_OK);
    assert_int_equal(mkdir(scratch_path(&s, "spool/.tmp-1-stage1-checkpoint-2"), 0755),
                     0); /* process 1 lives */
    assert_int_equal(mkdir(scratch_path(&s, "spool/.tmp-999999999-stage1-checkpoint-2"), 0755), 0);
    spool__clean(spool);
    assert_true(dir_exists(scratch_path(&s, "spool/.tmp-1-stage1-checkpoint-2")));
    assert_false(dir_exists(scratch_path(&s, "spool/.tmp-999999999-stage1-checkpoint-2")));
    assert_int_equal(list(NULL), 1);
}

static struct uploader *start(const char *endpoint)
{
    static const struct hub_token token = {.text = "hf_SecretOfTheTest", .source = "HF_TOKEN"};
    struct uploader_config config = {
        .dir = spool, .endpoint = endpoint, .token = &token, .keep = 2, .pause_s = 0.1};
    struct uploader *u;
    assert_int_equal(uploader_open(&u, &config, NULL), ST_OK);
    return u;
}

/* No server: the point stays, closing is quick, and the message says why. */
static void test_no_network(void **state)
{
    int n_left;
    assert_int_equal(put(1, 1), ST_OK);
    struct uploader *u = start("http://127.0.0.1:1");
    uploader_wait(u, 0.5, NULL, &n_left);
    assert_int_equal(n_left, 1);
    double begin = clock_s();
    uploader_close(u);
    assert_true(clock_s() - begin < 5);
    assert_int_equal(list(NULL), 1);
}

#define OK(body) "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" body

/* All is on the Hub already: the point leaves the spool without a commit. A fault comes first, and is
 * overcome. */
static void test_drains(void **state)
{
    const char *replies[] = {
        "HTTP/1.1 404 No\r\nConnection: close\r\n\r\n",
        OK("{\"url\": \"x\"}"),
        OK("{\"sha\": \"1111111111111111111111111111111111111111\"}"),
        OK("[{\"type\": \"file\", \"path\": \"checkpoint-3/a.txt\", \"oid\": "
           "\"ce013625030ba8dba906f756967f9e9ca394464a\", \"size\": 6},"
           "{\"type\": \"file\", \"path\": \"checkpoint-3/smgpt_state.json\", \"size\": 13, \"oid\": "
           "\"c6cb0ee3a6f6fc5d9fc8a8d7c1cb1b7a7e6b0a0c\"}]"),
        OK("{\"files\": [{\"path\": \"checkpoint-3/smgpt_state.json\", \"uploadMode\": \"regular\"}]}"),
        OK("{\"commitOid\": \"2222222222222222222222222222222222222222\"}")};
    struct line_server *server = line_server_open(replies, 6);
    struct uploader_state state_now;
    int n_left;
    assert_int_equal(put(1, 3), ST_OK);
    struct uploader *u = start(line_server_url(server));
    uploader_wait(u, 10, NULL, &n_left);
    uploader_state(u, &state_now);
    assert_int_equal(n_left, 0);
    assert_int_equal(state_now.n_sent, 1);
    assert_string_equal(state_now.fault, "");
    uploader_close(u);
    assert_int_equal(list(NULL), 0);
    assert_non_null(strstr(line_server_request(server, 5), "checkpoint-3/smgpt_state.json"));
    assert_null(strstr(line_server_request(server, 5), "a.txt"));
    line_server_close(server);
}

/* Stderr of what `body` does goes to a file, whose text is returned. */
static char *told_by(void (*body)(void))
{
    const char *path = scratch_path(&s, "told");
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    FILE *file = freopen(path, "w", stderr);
    assert_non_null(file);
    body();
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    return scratch_read(path);
}

static int count(const char *text, const char *word)
{
    int n = 0;
    while ((text = strstr(text, word))) {
        n++;
        text += strlen(word);
    }
    return n;
}

/* Messages that differ in stage and time only. */
static void fail_for_long(void)
{
    struct uploader_state state_now = {0};
    struct uploader *u = start("http://127.0.0.1:1");
    for (int i = 0; i < 400 && state_now.n_failures < 6; i++) {
        int n_left;
        uploader_wait(u, 0, NULL, &n_left); /* hurries it */
        clock_sleep_s(0.05);
        uploader_state(u, &state_now);
    }
    uploader_close(u);
    assert_true(state_now.n_failures >= 6);
    assert_int_equal(state_now.n_waiting, 2);
    assert_false(state_now.hopeless);
}

static void test_faults_are_said_once(void **state)
{
    setenv("SMGPT_HUB_PAUSE_S", "0.001", 1);
    for (int k = 1; k <= 2; k++) {
        struct spool_point point = {.stage = k, .step = 20 + k};
        snprintf(point.repo, sizeof point.repo, "alice/stage%d", k);
        assert_int_equal(spool_put(spool, &point, checkpoint, NULL), ST_OK);
    }
    char *text = told_by(fail_for_long);
    unsetenv("SMGPT_HUB_PAUSE_S");
    assert_int_equal(count(text, "training goes on"), 1);
    free(text);
}

/* The Hub says no: nobody waits for it to change its mind. */
static void test_refusals_are_not_waited_for(void **state)
{
#define NO "HTTP/1.1 401 No\r\nConnection: close\r\n\r\n"
    const char *replies[] = {NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO};
    struct line_server *server = line_server_open(replies, sizeof replies / sizeof *replies);
    struct uploader_state state_now;
    int n_left;
    assert_int_equal(put(1, 3), ST_OK);
    struct uploader *u = start(line_server_url(server));
    double begin = clock_s();
    uploader_wait(u, 60, NULL, &n_left);
    assert_true(clock_s() - begin < 20);
    assert_int_equal(n_left, 1);
    uploader_state(u, &state_now);
    assert_true(state_now.hopeless);
    assert_non_null(strstr(state_now.fault, "401"));
    uploader_close(u);
    assert_int_equal(list(NULL), 1);
    line_server_close(server);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(test_put_and_list),
        TEST(test_sent_once),
        TEST(test_another_attempt_replaces),
        TEST(test_damaged_points_are_left_out),
        TEST(test_leftovers_are_removed),
        TEST(test_no_network),
        TEST(test_drains),
        TEST(test_faults_are_said_once),
        TEST(test_refusals_are_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
