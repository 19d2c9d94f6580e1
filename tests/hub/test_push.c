/* A push against scripted replies: what is sent, what is not sent twice, what ends it. */
#include "hub/push.h"
#include "line_server.h"
#include "support/scratch.h"

#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define HEAD         "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n"
#define C1           "1111111111111111111111111111111111111111"
#define C2           "2222222222222222222222222222222222222222"
#define INFO(commit) HEAD "{\"sha\": \"" commit "\"}"
/* git's name of "hello\n" */
#define HELLO "ce013625030ba8dba906f756967f9e9ca394464a"

static struct scratch dir;

static enum status push(const char *const *replies, size_t n, struct line_server **server,
                        struct push_result *result, struct err *err)
{
    static const struct hub_token token = {.text = "hf_SecretOfTheTest", .source = "HF_TOKEN"};
    struct http *h;
    *server = line_server_open(replies, n);
    struct http_config config = {.endpoint = line_server_url(*server), .token = &token, .pause_s = 0.01};
    assert_int_equal(http_open(&h, &config, err), ST_OK);
    struct push_request request = {
        .repo = "alice/m", .dir = dir.dir, .folder = "checkpoint-30", .summary = "step 30", .keep = 2};
    enum status st = hub_push(h, &request, result, err);
    http_close(h);
    return st;
}

static int set_up(void **state)
{
    scratch_open(&dir);
    scratch_file(&dir, "a.txt", "hello\n");
    return 0;
}

static int tear_down(void **state)
{
    scratch_close(&dir);
    return 0;
}

static const char *body_of(struct line_server *s, int i)
{
    const char *end = strstr(line_server_request(s, i), "\r\n\r\n");
    return end ? end + 4 : "";
}

#define MODES     HEAD "{\"files\": [{\"path\": \"checkpoint-30/a.txt\", \"uploadMode\": \"regular\"}]}"
#define COMMITTED HEAD "{\"commitOid\": \"" C2 "\"}"

static void test_commit_and_rotation(void **state)
{
    const char *replies[] = {
        INFO(C1),
        HEAD "[{\"type\": \"directory\", \"path\": \"checkpoint-10\", \"oid\": \"" C1 "\", \"size\": 0},"
             "{\"type\": \"file\", \"path\": \"checkpoint-10/smgpt_state.json\", \"oid\": \"" C1
             "\", \"size\": 1},"
             "{\"type\": \"file\", \"path\": \"checkpoint-15/model.bin\", \"oid\": \"" C1 "\", \"size\": 1},"
             "{\"type\": \"file\", \"path\": \"checkpoint-20/smgpt_state.json\", \"oid\": \"" C1
             "\", \"size\": 1},"
             "{\"type\": \"file\", \"path\": \"checkpoint-20/trainer_state.json\", \"oid\": \"" C1
             "\", \"size\": 1},"
             "{\"type\": \"file\", \"path\": \"checkpoint-30/left\", \"oid\": \"" C1 "\", \"size\": 1},"
             "{\"type\": \"file\", \"path\": \"notes/mine\", \"oid\": \"" C1 "\", \"size\": 1}]",
        MODES, COMMITTED};
    struct line_server *s;
    struct push_result result;
    struct err err = ERR_INIT;
    assert_int_equal(push(replies, 4, &s, &result, &err), ST_OK);
    assert_string_equal(result.commit, C2);
    assert_false(result.unchanged);
    const char *body = body_of(s, 3);
    assert_non_null(strstr(body, "\"parentCommit\":\"" C1 "\""));
    assert_non_null(
        strstr(body, "{\"key\":\"file\",\"value\":{\"path\":\"checkpoint-30/a.txt\",\"content\":\"aGVsbG8K\","
                     "\"encoding\":\"base64\"}}\n"));
    assert_non_null(strstr(body, "{\"key\":\"deletedFile\",\"value\":{\"path\":\"checkpoint-30/left\"}}\n"));
    assert_non_null(strstr(body, "{\"key\":\"deletedFolder\",\"value\":{\"path\":\"checkpoint-10\"}}\n"));
    assert_null(strstr(body, "checkpoint-20"));
    assert_null(strstr(body, "checkpoint-15"));
    assert_null(strstr(body, "notes"));
    line_server_close(s);
}

#define OURS(step)                                                                                           \
    "{\"type\": \"file\", \"path\": \"checkpoint-" step "/smgpt_state.json\", \"oid\": \"" C1                \
    "\", \"size\": 1},"                                                                                      \
    "{\"type\": \"file\", \"path\": \"checkpoint-" step "/trainer_state.json\", \"oid\": \"" C1              \
    "\", \"size\": 1}"
#define OTHER(path) "{\"type\": \"file\", \"path\": \"" path "\", \"oid\": \"" C1 "\", \"size\": 1}"

/* A list in no order, on two pages, and folders that are named like checkpoints and are none: the two newest
 * checkpoints stay all the same. */
static void test_rotation_without_order(void **state)
{
    static char first[4096];
    const char *replies[] = {INFO(C1), first, HEAD "[" OTHER("checkpoint-90/notes.txt") ", " OURS("20") "]",
                             MODES, COMMITTED};
    struct line_server *s;
    struct push_result result;
    struct err err = ERR_INIT;
    /* Of the links of a header the next one is meant, at the endpoint itself. */
    snprintf(first, sizeof first,
             "HTTP/1.1 200 OK\r\nConnection: close\r\nlink: </x>; rel=\"prev\", "
             "</api/models/alice/m/tree/x?cursor=b>; rel=\"next\"\r\n\r\n[%s, %s, %s]",
             OTHER("checkpoint-20/a"), OURS("10"), OTHER("checkpoint-20/z"));
    assert_int_equal(push(replies, 5, &s, &result, &err), ST_OK);
    assert_non_null(strstr(line_server_request(s, 2), "GET /api/models/alice/m/tree/x?cursor=b "));
    assert_non_null(
        strstr(body_of(s, 4), "{\"key\":\"deletedFolder\",\"value\":{\"path\":\"checkpoint-10\"}}"));
    assert_null(strstr(body_of(s, 4), "checkpoint-20"));
    assert_null(strstr(body_of(s, 4), "checkpoint-90"));
    line_server_close(s);
}

static void test_next_page_elsewhere(void **state)
{
    static const char page[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
                               "Link: <http://127.0.0.1:1/api?cursor=b>; rel=\"next\"\r\n\r\n[]";
    const char *replies[] = {INFO(C1), page, INFO(C1), page}; /* asked for twice */
    struct line_server *s = line_server_open(replies, 4);
    struct http *h;
    struct hub_tree tree;
    struct err err = ERR_INIT;
    struct http_config config = {.endpoint = line_server_url(s), .pause_s = 0.01};
    assert_int_equal(http_open(&h, &config, &err), ST_OK);
    assert_int_equal(hub_tree_read(h, "alice/m", "main", &tree, NULL, &err), ST_NET);
    assert_non_null(strstr(err.what, "goes on at an odd place"));
    http_close(h);
    line_server_close(s);
}

/* "Just being made" passes, "made" is good, and neither is a refusal. */
static void test_repository_that_is_being_made(void **state)
{
    const char *replies[] = {
        "HTTP/1.1 409 Conflict\r\nConnection: close\r\n\r\n{\"error\": \"Cannot create repo: "
        "another conflicting operation is in progress\"}",
        "HTTP/1.1 409 Conflict\r\nConnection: close\r\n\r\n{\"error\": \"You already created "
        "this model repo\"}"};
    struct line_server *s = line_server_open(replies, 2);
    struct http *h;
    struct err err = ERR_INIT;
    struct http_config config = {.endpoint = line_server_url(s), .pause_s = 0.01};
    assert_int_equal(http_open(&h, &config, &err), ST_OK);
    assert_int_equal(hub_repo_make(h, "alice/m", &err), ST_OK);
    assert_int_equal(line_server_n_requests(s), 2);
    http_close(h);
    line_server_close(s);
}

/* The commit's answer is lost; the next look finds all there, and no second commit is made. */
static void test_lost_answer(void **state)
{
    const char *replies[] = {INFO(C1),
                             HEAD "[]",
                             MODES,
                             "",
                             INFO(C2),
                             HEAD "[{\"type\": \"file\", \"path\": \"checkpoint-30/a.txt\", \"oid\": \"" HELLO
                                  "\", \"size\": 6}]"};
    struct line_server *s;
    struct push_result result;
    struct err err = ERR_INIT;
    assert_int_equal(push(replies, 6, &s, &result, &err), ST_OK);
    assert_string_equal(result.commit, C2);
    assert_false(result.unchanged);
    assert_int_equal(result.n_rounds, 2);
    assert_int_equal(line_server_n_requests(s), 6);
    line_server_close(s);
}

/* Somebody else was faster: the commit goes on top of the new head. */
static void test_moved_branch(void **state)
{
    const char *replies[] = {INFO(C1), HEAD "[]", MODES, "HTTP/1.1 412 Moved\r\nConnection: close\r\n\r\n",
                             INFO(C2), HEAD "[]", MODES, COMMITTED};
    struct line_server *s;
    struct push_result result;
    struct err err = ERR_INIT;
    assert_int_equal(push(replies, 8, &s, &result, &err), ST_OK);
    assert_non_null(strstr(body_of(s, 7), "\"parentCommit\":\"" C2 "\""));
    line_server_close(s);
}

static void test_refused(void **state)
{
    const char *replies[] = {INFO(C1), HEAD "[]", MODES, "HTTP/1.1 403 No\r\nConnection: close\r\n\r\n"};
    struct line_server *s;
    struct push_result result;
    struct err err = ERR_INIT;
    assert_int_equal(push(replies, 4, &s, &result, &err), ST_NET);
    assert_int_equal(line_server_n_requests(s), 4);
    assert_string_equal(err.what, "the commit (alice/m): the Hub says 403");
    line_server_close(s);
}

static void test_large_file(void **state)
{
    /* sha256 of "hello\n" */
    static const char oid[] = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    static char batch[1024];
    /* The two parts come in any order. */
    const char *store_replies[] = {"HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"p\"\r\n\r\n",
                                   "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"p\"\r\n\r\n", HEAD "{}"};
    struct line_server *store = line_server_open(store_replies, 3);
    const char *url = line_server_url(store);
    snprintf(
        batch, sizeof batch,
        HEAD
        "{\"transfer\": \"multipart\", \"objects\": [{\"oid\": \"%s\", \"size\": 6, \"actions\": "
        "{\"upload\": "
        "{\"href\": \"%s/done\", \"header\": {\"chunk_size\": \"4\", \"00001\": \"%s/1?sig=a\", \"00002\": "
        "\"%s/2?sig=b\"}}}}]}",
        oid, url, url, url);
    const char *replies[] = {
        INFO(C1), HEAD "[]",
        HEAD "{\"files\": [{\"path\": \"checkpoint-30/a.txt\", \"uploadMode\": \"lfs\"}]}", batch, COMMITTED};
    struct line_server *s;
    struct push_result result;
    struct err err = ERR_INIT;
    assert_int_equal(push(replies, 5, &s, &result, &err), ST_OK);
    assert_int_equal(result.sent_bytes, 6);
    int second = strstr(line_server_request(store, 0), "PUT /2?") != NULL;
    assert_string_equal(body_of(store, second), "hell");
    assert_string_equal(body_of(store, 1 - second), "o\n");
    assert_non_null(strstr(body_of(store, 2), "{\"partNumber\":2,\"etag\":\"\\\"p\\\"\"}"));
    for (int i = 0; i < 3; i++)
        assert_null(strstr(line_server_request(store, i), "hf_"));
    assert_non_null(strstr(body_of(s, 4), "\"key\":\"lfsFile\""));
    assert_non_null(strstr(body_of(s, 4), oid));
    line_server_close(s);
    line_server_close(store);
}

static void test_names_of_repositories(void **state)
{
    static const char *const good[] = {"a", "a/b", "alice-x/m.y_z"};
    static const char *const bad[] = {"",    "/a",    "a/",   "a/b/c", "a--b", "a..b",
                                      "a b", "a.git", "-a/b", "a/b-",  "a\"b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(hub_repo_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(hub_repo_is_valid(bad[i]));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(test_commit_and_rotation),
        TEST(test_lost_answer),
        TEST(test_moved_branch),
        TEST(test_refused),
        TEST(test_large_file),
        TEST(test_names_of_repositories),
        TEST(test_rotation_without_order),
        TEST(test_next_page_elsewhere),
        TEST(test_repository_that_is_being_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
