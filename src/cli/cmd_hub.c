/* The Hub by hand: who the token belongs to, a checkpoint or any directory up. */
#include "checkpoint/ckpt.h"
#include "checkpoint/state.h"
#include "cli_internal.h"
#include "hub/push.h"
#include "hub_repos.h"
#include "util/file.h"
#include "util/log.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hub_arguments {
    const struct options *options;
    const char *action, *dir, *repo, *folder; /* the last three may be NULL */
    bool shown;                               /* the last progress line */
};

static enum status open_client(struct http **h, struct err *err)
{
    struct hub_token token;
    *h = NULL;
    if (hub_is_offline()) {
        err_set(err, ST_NET, "HF_HUB_OFFLINE says that there is no Hub");
        return err_hint(err, "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE");
    }
    TRY(hub_token_take(&token, err));
    enum status st = ST_OK;
    if (!token.text[0]) {
        st = err_set(err, ST_NET, "no token for the Hub");
        err_hint(err, "HF_TOKEN=hf_... (a token with write access: the Hub's settings, Access Tokens)");
    }
    if (st == ST_OK)
        st = http_open(h, &(struct http_config){.token = &token}, err);
    hub_token_forget(&token);
    return st;
}

static enum status whoami(struct http *h, struct err *err)
{
    char name[HUB_REPO_BYTES];
    TRY(hub_whoami(h, name, err));
    printf("%s\n", name);
    return ST_OK;
}

/* The stage that a directory's checkpoint is of; 0: it does not say. */
static enum status stage_of(const char *dir, int *stage, struct err *err)
{
    char path[PATH_BYTES];
    struct run_state state;
    bool present;
    *stage = 0;
    TRY(path_join(path, dir, "smgpt_state.json", err));
    TRY(run_state_read(path, &state, &present, err));
    if (present)
        *stage = state.stage;
    run_state_release(&state);
    return ST_OK;
}

static void show(void *user, int64_t done_bytes, int64_t all_bytes)
{
    struct hub_arguments *a = user;
    bool last = done_bytes == all_bytes;
    if (last && a->shown)
        return;
    a->shown = last;
    log_progress(last, "%s: %.1f of %.1f MB up", a->dir, (double)done_bytes / 1e6, (double)all_bytes / 1e6);
}

static enum status push_to(struct http *h, struct hub_arguments *a, const char *repo, struct err *err)
{
    char copy[PATH_BYTES], absolute[PATH_BYTES], summary[300];
    struct push_result result;
    if (!realpath(a->dir, absolute))
        return err_errno(err, ST_INPUT, "'%s'", a->dir);
    strcpy(copy, absolute);
    const char *name = basename(copy), *folder = a->folder ? a->folder : name;
    bool checkpoint = ckpt_step_of(folder) >= 0;
    snprintf(summary, sizeof summary, "Upload %.200s", folder[0] ? folder : name);
    struct push_request request = {.repo = repo,
                                   .dir = absolute,
                                   .folder = folder,
                                   .summary = summary,
                                   .keep = checkpoint ? 2 : 0,
                                   .progress = show,
                                   .user = a};
    TRY(hub_repo_make(h, repo, err));
    TRY(hub_push(h, &request, &result, err));
    log_info("%s is in %s/%s%s%s, commit %.12s", a->dir, http_endpoint(h), repo,
             result.unchanged ? ", as it was" : "", result.n_rounds > 1 ? ", after faults" : "",
             result.commit);
    return ST_OK;
}

static enum status push(struct http *h, struct hub_arguments *a, struct err *err)
{
    char repo[HUB_REPO_BYTES];
    int stage;
    if (!dir_exists(a->dir))
        return err_set(err, ST_INPUT, "'%s' is no directory", a->dir);
    if (a->repo) {
        if (strlen(a->repo) >= sizeof repo)
            return err_set(err, ST_USAGE, "'%.100s' is no name of a repository", a->repo);
        strcpy(repo, a->repo);
    } else {
        TRY(stage_of(a->dir, &stage, err));
        if (stage == 0) {
            err_set(err, ST_USAGE, "'%s' does not say of which stage it is", a->dir);
            return err_hint(err, "name the repository: --repo owner/name");
        }
        TRY(hub_repo_of_stage(h, a->options, stage, repo, err));
    }
    return push_to(h, a, repo, err);
}

static enum status run(struct hub_arguments *a, int n_free, struct err *err)
{
    struct http *h;
    bool pushes = a->action && strcmp(a->action, "push") == 0;
    if (!a->action || (!pushes && strcmp(a->action, "whoami") != 0)) {
        err_set(err, ST_USAGE, a->action ? "hub cannot '%.40s'" : "hub needs to know what to do%.0s",
                a->action);
        return err_hint(err, "hub whoami, or hub push DIR");
    }
    if (n_free != (pushes ? 2 : 1))
        return err_set(err, ST_USAGE,
                       pushes ? "hub push takes one directory" : "hub whoami takes nothing more");
    TRY(open_client(&h, err));
    enum status st = pushes ? push(h, a, err) : whoami(h, err);
    http_close(h);
    return st;
}

int cmd_hub(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    struct hub_arguments h = {.options = &o};
    const char *words[2] = {NULL, NULL};
    const struct argument items[] = {
        {.name = "--repo", .kind = ARG_TEXT, .value = &h.repo},
        {.name = "--folder", .kind = ARG_TEXT, .value = &h.folder},
    };
    struct arguments a = {
        .items = items, .n_items = sizeof items / sizeof *items, .options = &o, .free = words, .max_free = 2};
    enum status st = arguments_parse(&a, argc, argv, &err);
    h.action = words[0];
    h.dir = words[1];
    if (st == ST_OK)
        st = run(&h, a.n_free, &err);
    return cli_end(st, &err);
}
