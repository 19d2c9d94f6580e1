/* Which repository of the Hub a stage belongs to. */
#ifndef SMGPT_CLI_HUB_REPOS_H
#define SMGPT_CLI_HUB_REPOS_H

#include "config/options.h"
#include "hub/api.h"

/* The option hub_repo_s<stage>, else "<owner>/signmotiongpt-stage<stage>", where the owner is the option
 * hf_user, else the token's: that one is asked for. ST_USAGE when the name is none, ST_NET when the owner is
 * not told. */
enum status hub_repo_of_stage(struct http *h, const struct options *o, int stage, char repo[HUB_REPO_BYTES],
                              struct err *err);

#endif
