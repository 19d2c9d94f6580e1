#include "hub_repos.h"
#include "hub_client.h"

#include <stdio.h>
#include <string.h>

enum status hub_repo_of_stage(struct http *h, const struct options *o, int stage, char repo[HUB_REPO_BYTES],
                              struct err *err)
{
    const char *given = stage == 1 ? o->hub_repo_s1 : stage == 2 ? o->hub_repo_s2 : o->hub_repo_s3;
    const char *owner = o->hf_user;
    char name[OPTION_TEXT_BYTES + 64];
    if (!given[0] && !owner[0])
        TRY(hub_client_owner(h, &owner, err));
    if (given[0])
        snprintf(name, sizeof name, "%s", given);
    else
        snprintf(name, sizeof name, "%s/signmotiongpt-stage%d", owner, stage);
    if (!strchr(name, '/') || strlen(name) >= HUB_REPO_BYTES || !hub_repo_is_valid(name)) {
        err_set(err, ST_USAGE, "'%.100s' is no name of a repository", name);
        return err_hint(err, "set hub_repo_s%d=owner/name, or hf_user", stage);
    }
    strcpy(repo, name);
    return ST_OK;
}
