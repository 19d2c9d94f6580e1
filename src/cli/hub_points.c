#include "hub_points.h"
#include "checkpoint/ckpt.h"
#include "checkpoint/state.h"
#include "hub_client.h"
#include "util/clock.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP 2 /* checkpoints of a stage on the Hub */

enum status hub_spool_dir(char dir[PATH_BYTES], const struct options *o, struct err *err)
{
    return path_join(dir, o->work_dir, "spool", err);
}

/* Stage and step of a checkpoint directory; *is_point: it is one of the two that go up. */
static enum status look(const char *checkpoint, struct spool_point *point, bool *is_point, struct err *err)
{
    char path[PATH_BYTES];
    struct trainer_state t = {0};
    struct run_state r;
    bool present = false;
    *is_point = false;
    TRY(path_join(path, checkpoint, "smgpt_state.json", err));
    TRY(run_state_read(path, &r, &present, err));
    point->stage = r.stage;
    run_state_release(&r);
    if (!present || point->stage < 1)
        return ST_OK; /* another program's */
    TRY(path_join(path, checkpoint, "trainer_state.json", err));
    TRY(trainer_state_read(path, &t, err));
    int64_t half = t.max_steps / 2 > 1 ? t.max_steps / 2 : 1;
    point->step = t.global_step;
    *is_point = t.global_step == half || t.global_step == t.max_steps;
    trainer_state_release(&t);
    return ST_OK;
}

static enum status name_repo(const struct options *o, struct spool_point *point, struct err *err)
{
    const char *given = point->stage == 1   ? o->hub_repo_s1
                        : point->stage == 2 ? o->hub_repo_s2
                                            : o->hub_repo_s3;
    const char *owner = o->hf_user[0] ? o->hf_user : hub_client_known_owner();
    char name[OPTION_TEXT_BYTES + 64];
    if (given[0])
        snprintf(name, sizeof name, "%s", given);
    else
        snprintf(name, sizeof name, "%s%ssignmotiongpt-stage%d", owner, owner[0] ? "/" : "", point->stage);
    if (strlen(name) >= sizeof point->repo || !hub_repo_is_valid(name)) {
        err_set(err, ST_USAGE, "'%.100s' is no name of a repository", name);
        return err_hint(err, "set hub_repo_s%d=owner/name, or hf_user", point->stage);
    }
    strcpy(point->repo, name);
    return ST_OK;
}

static enum status put(struct hub_points *p, const char *checkpoint, bool *added, struct err *err)
{
    struct spool_point point = {0};
    *added = false;
    TRY(look(checkpoint, &point, added, err));
    if (!*added)
        return ST_OK;
    TRY(name_repo(p->options, &point, err));
    return spool_put(p->dir, &point, checkpoint, err);
}

enum status hub_points_add(struct hub_points *p, const char *checkpoint, struct err *err)
{
    bool added = false;
    if (!p->uploader)
        return ST_OK;
    TRY(put(p, checkpoint, &added, err));
    if (added)
        uploader_wake(p->uploader);
    return ST_OK;
}

/* A run that was killed between the save and the spool left checkpoints that nobody sends. */
static enum status catch_up(struct hub_points *p, struct err *err)
{
    const struct options *o = p->options;
    const char *const dirs[] = {o->out_s1, o->out_s2, o->out_s3};
    for (size_t k = 0; k < 3; k++) {
        char **names = NULL, path[PATH_BYTES];
        int n_names = 0;
        bool added;
        if (!dir_exists(dirs[k]))
            continue;
        TRY(dir_list(dirs[k], &names, &n_names, err));
        enum status st = ST_OK;
        for (int i = 0; i < n_names && st == ST_OK; i++) {
            struct err own = ERR_INIT;
            if (ckpt_step_of(names[i]) < 0 || path_join(path, dirs[k], names[i], NULL) != ST_OK)
                continue;
            st = put(p, path, &added, &own);
            if (st == ST_INPUT) { /* a damaged one: the resume says more of it */
                log_warn("not for the Hub: %s", own.what);
                st = ST_OK;
            }
            if (st != ST_OK)
                err_set(err, st, "%s", own.what);
        }
        names_free(names, n_names);
        TRY(st);
    }
    return ST_OK;
}

enum status hub_points_open(struct hub_points *p, const struct options *o, const struct hub_token *token,
                            struct err *err)
{
    *p = (struct hub_points){.options = o};
    if (!token->text[0] || hub_is_offline()) {
        log_info("hub     off: %s", token->text[0] ? "HF_HUB_OFFLINE" : "no token (HF_TOKEN)");
        return ST_OK;
    }
    TRY(hub_spool_dir(p->dir, o, err));
    TRY(catch_up(p, err));
    struct uploader_config config = {.dir = p->dir, .token = token, .keep = KEEP};
    TRY(uploader_open(&p->uploader, &config, err));
    log_info("hub     on, token from %s; two checkpoints a stage go up beside training", token->source);
    return ST_OK;
}

void hub_points_note(struct hub_points *p, char *text, size_t n_bytes)
{
    struct uploader_state s = {0};
    text[0] = 0;
    if (p->uploader)
        uploader_state(p->uploader, &s);
    if (s.all_bytes > 0)
        snprintf(text, n_bytes, "  up %.0f%%", 100.0 * (double)s.done_bytes / (double)s.all_bytes);
    else if (s.n_failures > 0)
        snprintf(text, n_bytes, "  %d to upload, %d failures", s.n_waiting, s.n_failures);
}

static bool signalled(void)
{
    return stop_requested() != 0;
}

enum status hub_points_close(struct hub_points *p, bool wait, struct err *err)
{
    double seconds = 0;
    int n_left = 0;
    struct uploader_state s;
    if (!p->uploader)
        return ST_OK;
    enum status st = options_seconds(p->options->upload_wait, "upload_wait", &seconds, err);
    uploader_wait(p->uploader, wait && st == ST_OK ? seconds : 0, signalled, &n_left);
    uploader_state(p->uploader, &s);
    uploader_close(p->uploader);
    p->uploader = NULL;
    if (st != ST_OK || n_left == 0)
        return st;
    char why[sizeof s.fault + 64] = "";
    if (s.n_failures > 0)
        snprintf(why, sizeof why, " (%d failure%s): %s", s.n_failures, s.n_failures == 1 ? "" : "s", s.fault);
    err_set(err, ST_PENDING, "%d checkpoint%s still wait%s in %s for the Hub%s", n_left,
            n_left == 1 ? "" : "s", n_left == 1 ? "s" : "", p->dir, why);
    return err_hint(err, "smgpt-dist hub sync, or the next start, sends them");
}
