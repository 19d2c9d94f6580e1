/* The Hub by hand: who the token belongs to, what is where, what waits, a checkpoint or any directory up. */
#include "checkpoint/ckpt.h"
#include "checkpoint/state.h"
#include "cli_internal.h"
#include "fetch_data.h"
#include "hub/download.h"
#include "hub/push.h"
#include "hub/spool.h"
#include "hub_client.h"
#include "hub_points.h"
#include "hub_repos.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/log.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CARD_BYTES ((size_t)1 << 20)

struct hub_arguments {
    const struct options *options;
    const char *action, *dir, *target; /* the words; dir is the repository of a pull */
    const char *repo, *folder, *url;   /* NULL: not given */
    bool shown;                        /* the last progress line */
};

static enum status not_offline(struct err *err)
{
    if (!hub_is_offline())
        return ST_OK;
    err_set(err, ST_NET, "HF_HUB_OFFLINE says that there is no Hub");
    return err_hint(err, "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE");
}

/* The token must be there. */
static enum status take_token(const struct hub_token **token, struct err *err)
{
    TRY(not_offline(err));
    TRY(hub_client_token(token, err));
    if ((*token)->text[0])
        return ST_OK;
    err_set(err, ST_NET, "no token for the Hub");
    return err_hint(err, "HF_TOKEN=hf_... (a token with write access: the Hub's settings, Access Tokens)");
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

/* A checkpoint's card is also that of its stage's repository. Another repository's README.md is its owner's.
 */
static enum status read_card(const struct hub_arguments *a, struct buf *card, struct err *err)
{
    char path[PATH_BYTES];
    TRY(path_join(path, a->dir, "README.md", err));
    return a->repo || !file_exists(path) ? ST_OK : file_read(path, CARD_BYTES, card, err);
}

static enum status push_to(struct http *h, struct hub_arguments *a, const char *repo, struct err *err)
{
    struct buf card = BUF_INIT;
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
    enum status st = read_card(a, &card, err);
    request.card = card.data;
    if (st == ST_OK)
        st = hub_push(h, &request, &result, err);
    buf_release(&card);
    TRY(st);
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

/* ---- what is where ---- */

static int by_step(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void print_steps(const char *label, int64_t *steps, size_t n)
{
    qsort(steps, n, sizeof *steps, by_step);
    printf("  %s", label);
    for (size_t i = 0; i < n; i++)
        printf(" %lld", (long long)steps[i]);
    printf(n ? "\n" : " nothing\n");
}

#define MAX_STEPS 64

/* The folders checkpoint-<step> of a repository; its files come in order. */
static size_t steps_on_hub(const struct hub_tree *tree, int64_t *steps)
{
    size_t n = 0;
    for (size_t i = 0; i < tree->n_files; i++) {
        int64_t step = hub_checkpoint_step(tree->files[i].path, NULL);
        bool known = false;
        for (size_t j = 0; j < n; j++)
            known = known || steps[j] == step;
        if (step >= 0 && !known && n < MAX_STEPS)
            steps[n++] = step;
    }
    return n;
}

static enum status steps_here(const char *out_dir, int64_t *steps, size_t *n, struct err *err)
{
    char **names = NULL;
    int n_names = 0;
    *n = 0;
    if (!dir_exists(out_dir))
        return ST_OK;
    TRY(dir_list(out_dir, &names, &n_names, err));
    for (int i = 0; i < n_names && *n < MAX_STEPS; i++)
        if (ckpt_step_of(names[i]) >= 0)
            steps[(*n)++] = ckpt_step_of(names[i]);
    names_free(names, n_names);
    return ST_OK;
}

/* Once the Hub cannot be asked, *why says so and it is not asked again. */
static void print_hub(struct http *h, const struct options *o, int stage, struct err *why)
{
    char repo[HUB_REPO_BYTES];
    int64_t steps[MAX_STEPS];
    struct hub_tree tree = {0};
    bool missing = false;
    if (why->status == ST_OK && hub_repo_of_stage(h, o, stage, repo, why) == ST_OK) {
        struct err own = ERR_INIT;
        if (hub_tree_read(h, repo, "main", &tree, &missing, &own) != ST_OK && !missing)
            *why = own;
    }
    if (why->status == ST_OK) {
        printf("stage %d  %s%s\n", stage, repo, missing ? "  (not there yet)" : "");
        print_steps("hub    ", steps, steps_on_hub(&tree, steps));
    } else {
        printf("stage %d\n  hub     cannot be asked\n", stage);
    }
    hub_tree_release(&tree);
}

static enum status print_stage(struct http *h, const struct options *o, int stage,
                               const struct spool_point *points, size_t n_points, struct err *why,
                               struct err *err)
{
    int64_t steps[MAX_STEPS];
    size_t n = 0;
    print_hub(h, o, stage, why);
    for (size_t i = 0; i < n_points && n < MAX_STEPS; i++)
        if (points[i].stage == stage)
            steps[n++] = points[i].step;
    print_steps("waiting", steps, n);
    TRY(steps_here(stage == 1 ? o->out_s1 : stage == 2 ? o->out_s2 : o->out_s3, steps, &n, err));
    print_steps("here   ", steps, n);
    return ST_OK;
}

/* What waits and what is here is shown without a Hub, too; then it ends as it would without. */
static enum status print_status(struct hub_arguments *a, struct err *err)
{
    char dir[PATH_BYTES];
    struct spool_point *points;
    const struct options *o = a->options;
    const struct hub_token *token;
    struct http *h = NULL;
    size_t n;
    struct err why = ERR_INIT;
    if (take_token(&token, &why) == ST_OK)
        hub_client_open(&h, &why);
    TRY(hub_spool_dir(dir, o, err));
    TRY(spool_list(dir, &points, &n, err));
    enum status st = ST_OK;
    for (int stage = 1; stage <= 3 && st == ST_OK; stage++)
        st = print_stage(h, o, stage, points, n, &why, err);
    free(points);
    http_close(h);
    TRY(st);
    *err = why;
    return why.status;
}

/* ---- what waits, up ---- */

static enum status sync_spool(struct hub_arguments *a, struct err *err)
{
    const struct hub_token *token;
    struct hub_points points;
    TRY(take_token(&token, err));
    TRY(hub_points_open(&points, a->options, token, err));
    struct err left = ERR_INIT;
    enum status st = hub_points_close(&points, true, &left);
    if (st == ST_OK)
        log_info("nothing waits for the Hub");
    return st == ST_PENDING ? err_set(err, ST_NET, "%s", left.what)
           : st == ST_OK    ? ST_OK
                            : err_set(err, st, "%s", left.what);
}

/* OWNER/NAME[@REVISION], all its files, into a directory. */
static enum status pull_files(struct hub_arguments *a, struct err *err)
{
    char repo[HUB_REPO_BYTES];
    const char *at = strchr(a->dir, '@');
    size_t n = at ? (size_t)(at - a->dir) : strlen(a->dir);
    struct http *h;
    char commit[SHA1_HEX_BYTES];
    if (n >= sizeof repo)
        return err_set(err, ST_USAGE, "'%.100s' is no name of a repository", a->dir);
    snprintf(repo, sizeof repo, "%.*s", (int)n, a->dir);
    TRY(not_offline(err));
    TRY(hub_client_open(&h, err));
    enum status st = hub_download_folder(h, repo, at ? at + 1 : "main", a->folder ? a->folder : "", a->target,
                                         commit, err);
    if (st == ST_OK)
        log_info("%s, commit %.12s, is in %s", repo, commit, a->target);
    http_close(h);
    return st;
}

static enum status with_client(struct hub_arguments *a, struct err *err)
{
    const struct hub_token *token;
    struct http *h;
    TRY(take_token(&token, err));
    TRY(hub_client_open(&h, err));
    enum status st = strcmp(a->action, "push") == 0 ? push(h, a, err) : whoami(h, err);
    http_close(h);
    return st;
}

static enum status fetch(struct hub_arguments *a, struct err *err)
{
    return fetch_data(a->options, a->url, err);
}

static const struct action {
    const char *name;
    enum status (*run)(struct hub_arguments *a, struct err *err);
    int n_words; /* behind the name */
} actions[] = {
    {"whoami", with_client, 0}, {"status", print_status, 0}, {"push", with_client, 1},
    {"pull", pull_files, 2},    {"sync", sync_spool, 0},     {"fetch-data", fetch, 0},
};

static enum status run(struct hub_arguments *a, int n_free, struct err *err)
{
    const struct action *action = NULL;
    for (size_t i = 0; a->action && i < sizeof actions / sizeof *actions; i++)
        if (strcmp(a->action, actions[i].name) == 0)
            action = &actions[i];
    if (!action) {
        if (a->action)
            err_set(err, ST_USAGE, "hub cannot '%.40s'", a->action);
        else
            err_set(err, ST_USAGE, "hub needs to know what to do");
        return err_hint(err, "hub whoami, status, push DIR, pull REPO DIR, sync, or fetch-data");
    }
    if (n_free != 1 + action->n_words)
        return err_set(err, ST_USAGE, "hub %s takes %d more word%s", action->name, action->n_words,
                       action->n_words == 1 ? "" : "s");
    stop_install();
    return action->run(a, err);
}

int cmd_hub(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    struct hub_arguments h = {.options = &o};
    const char *words[3] = {NULL, NULL, NULL};
    const struct argument items[] = {
        {.name = "--repo", .kind = ARG_TEXT, .value = &h.repo},
        {.name = "--folder", .kind = ARG_TEXT, .value = &h.folder},
        {.name = "--url", .kind = ARG_TEXT, .value = &h.url},
    };
    struct arguments a = {
        .items = items, .n_items = sizeof items / sizeof *items, .options = &o, .free = words, .max_free = 3};
    enum status st = arguments_parse(&a, argc, argv, &err);
    h.action = words[0];
    h.dir = words[1];
    h.target = words[2];
    if (st == ST_OK)
        st = run(&h, a.n_free, &err);
    return cli_end(st, &err);
}
