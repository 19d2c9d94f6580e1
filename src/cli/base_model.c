#include "base_model.h"
#include "hub/download.h"
#include "hub_client.h"
#include "util/log.h"

#include <stdio.h>
#include <string.h>

/* "owner/name", perhaps with a revision; no path says it so, but for one of two components that is not there.
 */
static bool is_hub_name(const char *name)
{
    char repo[HUB_REPO_BYTES];
    size_t n = strcspn(name, "@");
    if (n >= sizeof repo)
        return false;
    snprintf(repo, sizeof repo, "%.*s", (int)n, name);
    return strchr(repo, '/') && hub_repo_is_valid(repo);
}

enum status base_model_find(char dir[PATH_BYTES], const char *name, struct err *err)
{
    struct http *h;
    if (dir_exists(name))
        return path_join(dir, name, "", err);
    if (!is_hub_name(name)) {
        err_set(err, ST_INPUT, "model directory '%s' does not exist", name);
        return err_hint(
            err, "set `model` to a directory with config.json, model.safetensors and tokenizer.json, or to a "
                 "model of the Hub as owner/name");
    }
    TRY(hub_client_open(&h, err));
    enum status st = hub_model(h, name, dir, err);
    http_close(h);
    if (st != ST_OK)
        return err_where(err, "no directory '%s', and from the Hub", name);
    log_info("base    %s in %s", name, dir);
    return ST_OK;
}
