/* A server of scripted replies on loopback, for what the HTTP client does with them. */
#ifndef TESTS_HUB_LINE_SERVER_H
#define TESTS_HUB_LINE_SERVER_H

#include <stddef.h>

#define LINE_SERVER_MAX 16

struct line_server;

/* Each connection gets the next of the replies, sent as it is, then is closed; the last one serves all
 * further connections. A reply of "" closes at once; one that ends in "\1" is sent without it and the
 * connection stays open in silence until the server is closed. Strings are borrowed. */
struct line_server *line_server_open(const char *const *replies, size_t n_replies);
void line_server_close(struct line_server *s);
/* "http://127.0.0.1:PORT"; lives until close. */
const char *line_server_url(const struct line_server *s);
/* Connections that were served, and the bytes that the i-th sent (its first 64 KiB). Valid after the client
 * has its reply. */
int line_server_n_requests(struct line_server *s);
const char *line_server_request(struct line_server *s, int i);

#endif
