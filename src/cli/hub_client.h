/* The process's one token, and clients of the Hub that use it. */
#ifndef SMGPT_CLI_HUB_CLIENT_H
#define SMGPT_CLI_HUB_CLIENT_H

#include "hub/api.h"

/* Taken at the first call, from the environment or the token file, and kept; may be empty. */
enum status hub_client_token(const struct hub_token **token, struct err *err);
/* A client, with the token if there is one. *h NULL and ST_OK: HF_HUB_OFFLINE. To be closed by http_close. */
enum status hub_client_open(struct http **h, struct err *err);
/* Name of the token's owner; the Hub is asked once a process, since it counts these questions. Borrowed. */
enum status hub_client_owner(struct http *h, const char **name, struct err *err);
/* The same if it was asked before, else "". */
const char *hub_client_known_owner(void);
/* For ranks that talk to no network. */
void hub_client_forget(void);

#endif
