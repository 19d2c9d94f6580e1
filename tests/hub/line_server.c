#include "line_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES 65536

struct line_server {
    int fd, silent[LINE_SERVER_MAX], n_silent;
    char url[64];
    const char *const *replies;
    size_t n_replies;
    atomic_int n_requests;
    atomic_bool ends;
    char *requests[LINE_SERVER_MAX];
    pthread_t thread;
};

static size_t body_bytes(const char *request)
{
    const char *field = strcasestr(request, "content-length:");
    return field ? (size_t)strtoul(field + 15, NULL, 10) : 0;
}

/* Until the headers and the body that they announce are there, or the client is silent for a second. */
static void read_request(int fd, char *text)
{
    size_t n = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (n + 1 < REQUEST_BYTES && poll(&p, 1, 1000) == 1) {
        ssize_t got = read(fd, text + n, REQUEST_BYTES - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
        text[n] = 0;
        const char *end = strstr(text, "\r\n\r\n");
        if (end && n >= (size_t)(end + 4 - text) + body_bytes(text))
            break;
    }
}

static void serve(struct line_server *s, int fd)
{
    int i = atomic_load(&s->n_requests);
    const char *reply = s->replies[(size_t)i < s->n_replies ? (size_t)i : s->n_replies - 1];
    size_t n = strlen(reply);
    char *text = calloc(1, REQUEST_BYTES);
    if (!text)
        abort();
    read_request(fd, text);
    if (i < LINE_SERVER_MAX)
        s->requests[i] = text;
    else
        free(text);
    atomic_store(&s->n_requests, i + 1);
    int silent = n > 0 && reply[n - 1] == '\1';
    for (size_t at = 0, end = n - (size_t)silent; at < end;) {
        ssize_t sent = send(fd, reply + at, end - at, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        at += (size_t)sent;
    }
    if (silent && s->n_silent < LINE_SERVER_MAX)
        s->silent[s->n_silent++] = fd;
    else
        close(fd);
}

static void *run(void *user)
{
    struct line_server *s = user;
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    while (!atomic_load(&s->ends)) {
        if (poll(&p, 1, 50) != 1)
            continue;
        int fd = accept(s->fd, NULL, NULL);
        if (fd >= 0)
            serve(s, fd);
    }
    return NULL;
}

struct line_server *line_server_open(const char *const *replies, size_t n_replies)
{
    struct line_server *s = calloc(1, sizeof *s);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    s->replies = replies;
    s->n_replies = n_replies;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(s->fd, (struct sockaddr *)&address, sizeof address) || listen(s->fd, 16) ||
        getsockname(s->fd, (struct sockaddr *)&address, &n) || pthread_create(&s->thread, NULL, run, s)) {
        perror("line_server");
        exit(1);
    }
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    return s;
}

void line_server_close(struct line_server *s)
{
    atomic_store(&s->ends, true);
    pthread_join(s->thread, NULL);
    close(s->fd);
    for (int i = 0; i < s->n_silent; i++)
        close(s->silent[i]);
    for (int i = 0; i < LINE_SERVER_MAX; i++)
        free(s->requests[i]);
    free(s);
}

const char *line_server_url(const struct line_server *s)
{
    return s->url;
}

int line_server_n_requests(struct line_server *s)
{
    return atomic_load(&s->n_requests);
}

const char *line_server_request(struct line_server *s, int i)
{
    return i < line_server_n_requests(s) && i < LINE_SERVER_MAX ? s->requests[i] : "";
}
