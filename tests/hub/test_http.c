/* The HTTP client against scripted replies: where the token goes, repeats, limits, errors in words. */
#include "hub/http.h"
#include "line_server.h"
#include "support/scratch.h"
#include "util/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SECRET   "hf_SecretOfTheTest"
#define OK(body) "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n" body

static struct http *client(const char *endpoint)
{
    struct hub_token token = {.text = SECRET, .source = "HF_TOKEN"};
    struct http_config config = {.endpoint = endpoint, .token = &token, .pause_s = 0.01, .stall_s = 1};
    struct http *h;
    struct err err = ERR_INIT;
    assert_int_equal(http_open(&h, &config, &err), ST_OK);
    return h;
}

struct session {
    struct line_server *server;
    struct http *http;
    struct http_reply reply;
    struct err err;
};

static void start(struct session *s, const char *const *replies, size_t n)
{
    memset(s, 0, sizeof *s);
    s->server = line_server_open(replies, n);
    s->http = client(line_server_url(s->server));
}

static void end(struct session *s)
{
    assert_null(strstr(s->err.what, SECRET));
    assert_null(strstr(s->err.hint, SECRET));
    http_reply_release(&s->reply);
    http_close(s->http);
    line_server_close(s->server);
}

struct waiter {
    atomic_bool *cancel;
    struct line_server *server;
};

/* Once a reply was sent, and some time to read it has passed. */
static void *cancel_after_reply(void *user)
{
    struct waiter *w = user;
    while (line_server_n_requests(w->server) == 0)
        clock_sleep_s(0.01);
    clock_sleep_s(0.3);
    atomic_store(w->cancel, true);
    return NULL;
}

static enum status get(struct session *s, struct http_request request)
{
    if (!request.url)
        request.url = "/api/whoami-v2";
    return http_send(s->http, &request, &s->reply, &s->err);
}

static void test_token_goes_to_the_endpoint(void **state)
{
    const char *replies[] = {OK("{}")};
    struct session s;
    start(&s, replies, 1);
    assert_int_equal(get(&s, (struct http_request){.authorize = true}), ST_OK);
    assert_int_equal(s.reply.status, 200);
    assert_non_null(strstr(line_server_request(s.server, 0), "GET /api/whoami-v2 HTTP/1.1\r\n"));
    assert_non_null(strstr(line_server_request(s.server, 0), "Authorization: Bearer " SECRET "\r\n"));
    assert_string_equal(http_header(&s.reply, "content-TYPE"), "application/json");
    http_reply_release(&s.reply);
    assert_int_equal(get(&s, (struct http_request){.authorize = false}), ST_OK);
    assert_null(strstr(line_server_request(s.server, 1), SECRET));
    end(&s);
}

static void test_token_stays_when_redirected(void **state)
{
    const char *file[] = {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbytes"};
    struct line_server *other = line_server_open(file, 1);
    char there[512];
    snprintf(there, sizeof there, "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: %s/f?sig=1\r\n\r\n",
             line_server_url(other));
    const char *replies[] = {
        "HTTP/1.1 307 Temporary Redirect\r\nConnection: close\r\nLocation: /moved\r\n\r\n", there};
    struct session s;
    start(&s, replies, 2);
    assert_int_equal(get(&s, (struct http_request){.authorize = true}), ST_OK);
    assert_memory_equal(s.reply.body.data, "bytes", 6);
    assert_null(strchr(s.reply.url, '?'));
    assert_non_null(strstr(line_server_request(s.server, 1), "GET /moved "));
    assert_non_null(strstr(line_server_request(s.server, 1), SECRET));
    assert_int_equal(line_server_n_requests(other), 1);
    assert_null(strstr(line_server_request(other, 0), "uthorization"));
    line_server_close(other);
    end(&s);
}

/* A redirect that leads away and back does not bring the token back. */
static void test_token_stays_when_led_back(void **state)
{
    char there[512], back[512];
    const char *replies[] = {there, OK("{}")}, *others[] = {back};
    struct line_server *other = line_server_open(others, 1);
    struct session s;
    start(&s, replies, 2);
    snprintf(there, sizeof there, "HTTP/1.1 308 R\r\nConnection: close\r\nlocation: %s/a\r\n\r\n",
             line_server_url(other));
    snprintf(back, sizeof back, "HTTP/1.1 307 R\r\nConnection: close\r\nlocation: %s/b\r\n\r\n",
             line_server_url(s.server));
    assert_int_equal(get(&s, (struct http_request){.method = HTTP_POST,
                                                   .authorize = true,
                                                   .content_type = "application/json",
                                                   .body = "{\"a\":1}",
                                                   .body_bytes = 7}),
                     ST_OK);
    assert_non_null(strstr(line_server_request(s.server, 0), SECRET));
    assert_null(strstr(line_server_request(other, 0), SECRET));
    assert_non_null(strstr(line_server_request(s.server, 1), "POST /b "));
    assert_non_null(strstr(line_server_request(s.server, 1), "\r\n\r\n{\"a\":1}"));
    assert_null(strstr(line_server_request(s.server, 1), SECRET));
    line_server_close(other);
    end(&s);
}

/* What a mirror passes on of the public Hub is asked for at the mirror. */
static void test_public_urls_are_the_endpoints(void **state)
{
    const char *replies[] = {OK("{}")};
    struct session s;
    start(&s, replies, 1);
    assert_int_equal(
        get(&s, (struct http_request){.url = "https://huggingface.co/a/b?c=d", .authorize = true}), ST_OK);
    assert_non_null(strstr(line_server_request(s.server, 0), "GET /a/b?c=d HTTP"));
    assert_non_null(strstr(line_server_request(s.server, 0), SECRET));
    http_reply_release(&s.reply);
    assert_int_equal(get(&s, (struct http_request){.url = "https://huggingface.co.evil.invalid/a"}), ST_NET);
    assert_int_equal(line_server_n_requests(s.server), 1);
    end(&s);
}

/* HTTP/1.0 without a length, pieces, small letters. */
static void test_forms_of_replies(void **state)
{
    const char *replies[] = {"HTTP/1.0 200 OK\r\n\r\n{\"a\": 1}",
                             "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
                             "3;x=y\r\n{\"a\r\n6\r\n\": 1} \r\n0\r\nTrailer: t\r\n\r\n"};
    struct session s;
    json_t *json = NULL;
    start(&s, replies, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(get(&s, (struct http_request){.expect_json = true}), ST_OK);
        assert_int_equal(http_json(s.http, &s.reply, "x", &json, &s.err), ST_OK);
        assert_int_equal(json_integer_value(json_object_get(json, "a")), 1);
        json_decref(json);
        http_reply_release(&s.reply);
    }
    end(&s);
}

static void test_pause_as_a_date(void **state)
{
    const char *replies[] = {"HTTP/1.1 503 Busy\r\nConnection: close\r\n"
                             "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n",
                             OK("{}")};
    struct session s;
    start(&s, replies, 2);
    assert_int_equal(get(&s, (struct http_request){.repeats = 1}), ST_OK);
    assert_int_equal(s.reply.status, 200);
    http_reply_release(&s.reply);
    end(&s);
    /* A date to come is waited for: a signal finds the call waiting. */
    char later[256], date[64];
    time_t at = time(NULL) + 250;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&at));
    snprintf(later, sizeof later, "HTTP/1.1 429 Busy\r\nConnection: close\r\nRetry-After: %s\r\n\r\n", date);
    const char *slow[] = {later, OK("{}")};
    struct line_server *server = line_server_open(slow, 2);
    atomic_bool cancel = false;
    struct http_config config = {.endpoint = line_server_url(server), .pause_s = 0.01, .cancel = &cancel};
    struct waiter w = {.cancel = &cancel, .server = server};
    pthread_t thread;
    assert_int_equal(http_open(&s.http, &config, &s.err), ST_OK);
    assert_int_equal(pthread_create(&thread, NULL, cancel_after_reply, &w), 0);
    assert_int_equal(get(&s, (struct http_request){.repeats = 1}), ST_STOPPED);
    pthread_join(thread, NULL);
    assert_int_equal(line_server_n_requests(server), 1);
    http_reply_release(&s.reply);
    http_close(s.http);
    line_server_close(server);
}

static void test_absolute_urls_elsewhere_get_no_token(void **state)
{
    const char *replies[] = {OK("{}")};
    struct line_server *other = line_server_open(replies, 1);
    struct session s;
    start(&s, replies, 1);
    assert_int_equal(get(&s, (struct http_request){.url = line_server_url(other), .authorize = true}), ST_OK);
    assert_int_equal(line_server_n_requests(other), 1);
    assert_null(strstr(line_server_request(other, 0), SECRET));
    line_server_close(other);
    end(&s);
}

static void test_head_follows_relative_only(void **state)
{
    const char *replies[] = {"HTTP/1.1 307 R\r\nConnection: close\r\nLocation: /b\r\n\r\n",
                             "HTTP/1.1 302 R\r\nConnection: close\r\nX-Linked-Size: 7\r\n"
                             "Location: http://127.0.0.1:1/elsewhere\r\n\r\n"};
    struct session s;
    start(&s, replies, 2);
    assert_int_equal(get(&s, (struct http_request){.method = HTTP_HEAD, .follow = HTTP_FOLLOW_RELATIVE}),
                     ST_OK);
    assert_int_equal(s.reply.status, 302);
    assert_string_equal(http_header(&s.reply, "X-Linked-Size"), "7");
    end(&s);
}

static void test_redirects_end(void **state)
{
    const char *replies[] = {"HTTP/1.1 302 R\r\nConnection: close\r\nLocation: /again\r\n\r\n"};
    struct session s;
    start(&s, replies, 1);
    assert_int_equal(get(&s, (struct http_request){.authorize = true}), ST_NET);
    assert_non_null(strstr(s.err.what, "more than 10 redirects"));
    assert_int_equal(line_server_n_requests(s.server), 11);
    end(&s);
}

static void test_repeats(void **state)
{
    const char *replies[] = {"HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n",
                             "",
                             "HTTP/1.1 429 Slow\r\nConnection: close\r\nRetry-After: 0\r\n\r\n",
                             "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 50\r\n\r\n{\"half\":",
                             OK("<html>sign in</html>"),
                             OK("{\"name\": \"alice\"}")};
    struct session s;
    json_t *json = NULL;
    start(&s, replies, 6);
    assert_int_equal(get(&s, (struct http_request){.repeats = 5, .expect_json = true}), ST_OK);
    assert_int_equal(s.reply.n_repeats, 5);
    assert_int_equal(http_json(s.http, &s.reply, "whoami", &json, &s.err), ST_OK);
    assert_string_equal(json_string_value(json_object_get(json, "name")), "alice");
    json_decref(json);
    end(&s);
}

static void test_repeats_are_counted(void **state)
{
    const char *replies[] = {"HTTP/1.1 502 Bad\r\nConnection: close\r\n\r\n<html>proxy</html>"};
    struct session s;
    json_t *json;
    start(&s, replies, 1);
    assert_int_equal(get(&s, (struct http_request){.repeats = 2}), ST_OK);
    assert_int_equal(line_server_n_requests(s.server), 3);
    assert_int_equal(http_json(s.http, &s.reply, "whoami", &json, &s.err), ST_NET);
    assert_string_equal(s.err.what, "whoami: the Hub says 502: an HTML page");
    end(&s);
}

static void test_html_with_200(void **state)
{
    const char *replies[] = {OK("\n<!doctype html>")};
    struct session s;
    json_t *json;
    start(&s, replies, 1);
    assert_int_equal(get(&s, (struct http_request){0}), ST_OK);
    assert_int_equal(http_json(s.http, &s.reply, "whoami", &json, &s.err), ST_NET);
    assert_non_null(strstr(s.err.what, "HTML page came instead of JSON"));
    end(&s);
}

static void test_refusals_are_told_apart(void **state)
{
    static const struct {
        const char *reply, *what, *hint;
    } cases[] = {
        {"HTTP/1.1 401 No\r\nConnection: close\r\n\r\n{\"error\": \"Invalid " SECRET " there\"}",
         "x: the Hub says 401: Invalid *** there", "the token from HF_TOKEN is not valid"},
        {"HTTP/1.1 403 No\r\nConnection: close\r\nX-Error-Code: GatedRepo\r\nX-Error-Message: ask "
         "first\r\n\r\n",
         "x: the Hub says 403: ask first", "the owner asks for agreement"},
        {"HTTP/1.1 403 No\r\nConnection: close\r\n\r\n{\"error\": [\"a\", \"b\"]}", "x: the Hub says 403: a",
         "write access"},
        {"HTTP/1.1 404 No\r\nConnection: close\r\n\r\n{\"errors\": [{\"message\": \"gone\\u0007\"}]}",
         "x: the Hub says 404: gone ", "misspelt"},
        {"HTTP/1.1 400 No\r\nConnection: close\r\n\r\n", "x: the Hub says 400", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct session s;
        start(&s, &cases[i].reply, 1);
        assert_int_equal(get(&s, (struct http_request){.authorize = true, .repeats = 3}), ST_OK);
        assert_int_equal(line_server_n_requests(s.server), 1);
        assert_int_equal(http_check(s.http, &s.reply, "x", &s.err), ST_NET);
        assert_string_equal(s.err.what, cases[i].what);
        assert_non_null(strstr(s.err.hint, cases[i].hint));
        end(&s);
    }
}

static void test_stall_and_no_server(void **state)
{
    const char *replies[] = {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf\1"};
    struct session s;
    double begin = clock_s();
    start(&s, replies, 1);
    assert_int_equal(get(&s, (struct http_request){0}), ST_NET);
    assert_true(clock_s() - begin < 10);
    http_reply_release(&s.reply);
    s.err = (struct err)ERR_INIT;
    assert_int_equal(get(&s, (struct http_request){.url = "http://127.0.0.1:1/"}), ST_NET);
    assert_non_null(strstr(s.err.hint, "is there a network here?"));
    end(&s);
}

static void test_reply_too_long(void **state)
{
    const char *replies[] = {OK("0123456789")};
    struct session s;
    start(&s, replies, 1);
    assert_int_equal(get(&s, (struct http_request){.max_body_bytes = 9}), ST_NET);
    assert_non_null(strstr(s.err.what, "longer than expected"));
    end(&s);
}

static void test_part_of_a_file_is_sent(void **state)
{
    const char *replies[] = {"HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n",
                             "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"e\"\r\n\r\n"};
    struct scratch scratch;
    struct session s;
    scratch_open(&scratch);
    const char *path = scratch_file(&scratch, "part", "0123456789");
    start(&s, replies, 2);
    assert_int_equal(
        get(&s,
            (struct http_request){
                .method = HTTP_PUT, .file = path, .file_from = 3, .file_bytes = 4, .repeats = 1}),
        ST_OK);
    for (int i = 0; i < 2; i++) {
        const char *sent = line_server_request(s.server, i);
        assert_non_null(strstr(sent, "Content-Length: 4\r\n"));
        assert_null(strstr(sent, "chunked"));
        assert_null(strstr(sent, "Content-Type"));
        assert_string_equal(strstr(sent, "\r\n\r\n") + 4, "3456");
    }
    assert_string_equal(http_header(&s.reply, "etag"), "\"e\"");
    http_reply_release(&s.reply);
    assert_int_equal(
        get(&s, (struct http_request){.method = HTTP_PUT, .file = path, .file_from = 8, .file_bytes = 4}),
        ST_INPUT);
    assert_non_null(strstr(s.err.what, "became shorter"));
    end(&s);
    scratch_close(&scratch);
}

static void test_post(void **state)
{
    const char *replies[] = {OK("{}")};
    struct session s;
    start(&s, replies, 1);
    assert_int_equal(get(&s, (struct http_request){.method = HTTP_POST,
                                                   .content_type = "application/json",
                                                   .body = "{\"a\":1}",
                                                   .body_bytes = 7}),
                     ST_OK);
    assert_non_null(strstr(line_server_request(s.server, 0), "POST /api/whoami-v2 "));
    assert_non_null(strstr(line_server_request(s.server, 0), "Content-Type: application/json\r\n"));
    assert_non_null(strstr(line_server_request(s.server, 0), "\r\n\r\n{\"a\":1}"));
    end(&s);
}

struct sunk {
    char text[64];
    int n_restarts;
};

static enum status sink(void *user, int status, bool restart, const void *data, size_t n_bytes,
                        struct err *err)
{
    struct sunk *k = user;
    if (restart) {
        k->n_restarts++;
        k->text[0] = 0;
    }
    strncat(k->text, data, n_bytes);
    return ST_OK;
}

static void test_sink_is_told_of_a_new_try(void **state)
{
    const char *replies[] = {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nabc",
                             "HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\nnot for the sink",
                             "HTTP/1.1 206 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nabcdefgh"};
    struct sunk k = {{0}, 0};
    struct session s;
    start(&s, replies, 3);
    assert_int_equal(get(&s, (struct http_request){.repeats = 2, .range_from = 5, .sink = sink, .user = &k}),
                     ST_OK);
    assert_string_equal(k.text, "abcdefgh");
    assert_int_equal(k.n_restarts, 2);
    assert_non_null(strstr(line_server_request(s.server, 2), "Range: bytes=5-\r\n"));
    assert_non_null(strstr(line_server_request(s.server, 2), "Accept-Encoding: identity\r\n"));
    end(&s);
}

static void test_cancel(void **state)
{
    const char *replies[] = {"HTTP/1.1 503 Busy\r\nConnection: close\r\nRetry-After: 200\r\n\r\n"};
    struct line_server *server = line_server_open(replies, 1);
    atomic_bool cancel = true;
    struct http_config config = {.endpoint = line_server_url(server), .cancel = &cancel};
    struct http *h;
    struct http_reply reply;
    struct err err = ERR_INIT;
    assert_int_equal(http_open(&h, &config, &err), ST_OK);
    double begin = clock_s();
    assert_int_equal(http_send(h, &(struct http_request){.url = "/", .repeats = 5}, &reply, &err),
                     ST_STOPPED);
    assert_true(clock_s() - begin < 10);
    http_reply_release(&reply);
    http_close(h);
    line_server_close(server);
}

/* Calls that somebody waits for end at a signal, in the silence of a server too; the uploader's go on. Last:
 * the signal stays. */
static void test_a_signal_ends_a_call(void **state)
{
    const char *replies[] = {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf\1", OK("{}")};
    struct line_server *server = line_server_open(replies, 2);
    struct http_config config = {
        .endpoint = line_server_url(server), .pause_s = 0.01, .stall_s = 300, .stoppable = true};
    struct http *h;
    struct http_reply reply;
    struct err err = ERR_INIT;
    stop_request(15);
    assert_int_equal(http_open(&h, &config, &err), ST_OK);
    assert_int_equal(http_send(h, &(struct http_request){.url = "/", .repeats = 5}, &reply, &err),
                     ST_STOPPED);
    http_reply_release(&reply);
    http_close(h);
    config.stoppable = false;
    config.stall_s = 1;
    err = (struct err)ERR_INIT;
    assert_int_equal(http_open(&h, &config, &err), ST_OK);
    assert_int_equal(http_send(h, &(struct http_request){.url = "/", .repeats = 5}, &reply, &err), ST_OK);
    http_reply_release(&reply);
    http_close(h);
    line_server_close(server);
}

static void test_endpoints(void **state)
{
    static const char *const bad[] = {"ftp://h", "huggingface.co", "https://user@h", "https://h/?q", "/x"};
    struct http *h;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        assert_int_equal(http_open(&h, &(struct http_config){.endpoint = bad[i]}, &err), ST_USAGE);
        assert_null(h);
    }
    struct err err = ERR_INIT;
    setenv("HF_ENDPOINT", "https://hub.example:8443/x//", 1);
    assert_int_equal(http_open(&h, &(struct http_config){0}, &err), ST_OK);
    assert_string_equal(http_endpoint(h), "https://hub.example:8443/x");
    assert_false(http_has_token(h));
    http_close(h);
    unsetenv("HF_ENDPOINT");
}

static void test_encoding(void **state)
{
    struct buf b = BUF_INIT;
    struct err err = ERR_INIT;
    assert_int_equal(url_encode(&b, "refs/pr/1 \xc3\xa9~", false, &err), ST_OK);
    assert_int_equal(url_encode(&b, "a/b#?", true, &err), ST_OK);
    assert_string_equal(b.data, "refs%2Fpr%2F1%20%C3%A9~a/b%23%3F");
    buf_release(&b);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_goes_to_the_endpoint),
        cmocka_unit_test(test_token_stays_when_redirected),
        cmocka_unit_test(test_token_stays_when_led_back),
        cmocka_unit_test(test_public_urls_are_the_endpoints),
        cmocka_unit_test(test_forms_of_replies),
        cmocka_unit_test(test_pause_as_a_date),
        cmocka_unit_test(test_absolute_urls_elsewhere_get_no_token),
        cmocka_unit_test(test_head_follows_relative_only),
        cmocka_unit_test(test_redirects_end),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_repeats_are_counted),
        cmocka_unit_test(test_html_with_200),
        cmocka_unit_test(test_refusals_are_told_apart),
        cmocka_unit_test(test_stall_and_no_server),
        cmocka_unit_test(test_reply_too_long),
        cmocka_unit_test(test_part_of_a_file_is_sent),
        cmocka_unit_test(test_post),
        cmocka_unit_test(test_sink_is_told_of_a_new_try),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_encoding),
        cmocka_unit_test(test_a_signal_ends_a_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
