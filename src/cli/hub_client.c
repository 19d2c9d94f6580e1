#include "hub_client.h"

static struct hub_token the_token;
static bool taken;
static char the_owner[HUB_REPO_BYTES];

enum status hub_client_token(const struct hub_token **token, struct err *err)
{
    *token = &the_token;
    if (taken)
        return ST_OK;
    TRY(hub_token_take(&the_token, err));
    taken = true;
    return ST_OK;
}

enum status hub_client_open(struct http **h, struct err *err)
{
    const struct hub_token *token;
    *h = NULL;
    TRY(hub_client_token(&token, err));
    if (hub_is_offline())
        return ST_OK;
    return http_open(h, &(struct http_config){.token = token, .stoppable = true}, err);
}

enum status hub_client_owner(struct http *h, const char **name, struct err *err)
{
    *name = the_owner;
    return the_owner[0] ? ST_OK : hub_whoami(h, the_owner, err);
}

const char *hub_client_known_owner(void)
{
    return the_owner;
}

void hub_client_forget(void)
{
    hub_token_forget(&the_token);
    taken = true;
}
