#include "hub_restore.h"
#include "checkpoint/ckpt.h"
#include "hub/download.h"
#include "hub/spool.h"
#include "hub_points.h"
#include "hub_repos.h"
#include "util/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool has(const struct hub_tree *tree, int64_t step, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "checkpoint-%lld/%s", (long long)step, name);
    return hub_tree_find(tree, path) != NULL;
}

static bool is_complete(const struct hub_tree *tree, int64_t step)
{
    static const char *const names[] = {"adapter_config.json", "trainer_state.json", "optimizer.pt",
                                        "scheduler.pt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!has(tree, step, names[i]))
            return false;
    return has(tree, step, "adapter_model.safetensors") || has(tree, step, "adapter_model.bin");
}

/* The newest folder checkpoint-<step> before `below` that has all files a resume needs; -1: none. */
static int64_t newest_of(const struct hub_tree *tree, int64_t below)
{
    int64_t newest = -1;
    for (size_t i = 0; i < tree->n_files; i++) {
        int64_t step = hub_checkpoint_step(tree->files[i].path, NULL);
        if (step > newest && step < below && is_complete(tree, step))
            newest = step;
    }
    return newest;
}

static const char *out_dir_of(const struct options *o, int stage)
{
    return stage == 1 ? o->out_s1 : stage == 2 ? o->out_s2 : o->out_s3;
}

/* Every byte is what the Hub has; what the Hub has may have been broken when it was sent. */
static enum status check(const char *tmp, const char *repo, int64_t step, bool *good, struct err *err)
{
    struct err reason = ERR_INIT;
    enum status st = ckpt_check(tmp, step, &reason);
    *good = st == ST_OK;
    if (st != ST_OK && st != ST_INPUT)
        return err_set(err, st, "%s", reason.what);
    if (st == ST_OK)
        return ST_OK;
    log_warn("checkpoint-%lld of %s is passed over: %s", (long long)step, repo, reason.what);
    return dir_remove(tmp, err);
}

/* Into a hidden directory, which a broken transfer leaves for the next start to go on with; then renamed. */
static enum status fetch(struct http *h, const struct options *o, const char *repo,
                         const struct hub_tree *tree, int stage, int64_t step, bool *good, struct err *err)
{
    char commit[SHA1_HEX_BYTES], folder[64], hidden[128], tmp[PATH_BYTES], final[PATH_BYTES],
        spool[PATH_BYTES], state[PATH_BYTES];
    const char *out = out_dir_of(o, stage);
    struct spool_point point = {.stage = stage, .step = step};
    snprintf(folder, sizeof folder, "checkpoint-%lld", (long long)step);
    snprintf(hidden, sizeof hidden, ".hub-%.12s-%s", tree->commit, folder);
    TRY(path_join(tmp, out, hidden, err));
    TRY(path_join(final, out, folder, err));
    TRY(hub_download_folder(h, repo, tree->commit, folder, tmp, commit, err));
    TRY(check(tmp, repo, step, good, err));
    if (!*good)
        return ST_OK;
    TRY(dir_remove(final, err)); /* a broken one: no complete one of this step is here */
    if (rename(tmp, final) != 0)
        return err_errno(err, ST_ENV, "cannot rename '%s' to '%s'", tmp, final);
    TRY(dir_sync(out, err));
    log_info("from the Hub: %s, %s -> %s", repo, folder, final);
    TRY(path_join(state, final, "smgpt_state.json", err));
    TRY(hub_spool_dir(spool, o, err));
    return file_exists(state) ? spool_note_sent(spool, &point, final, err) : ST_OK;
}

/* *asked is false when the Hub gave no list: then there is nothing to go by but what is here. */
static enum status list(struct http *h, const struct options *o, int stage, char repo[HUB_REPO_BYTES],
                        struct hub_tree *tree, bool *missing, bool *asked, struct err *err)
{
    struct err fault = ERR_INIT;
    *missing = false;
    enum status st = hub_repo_of_stage(h, o, stage, repo, &fault);
    if (st == ST_OK)
        st = hub_tree_read(h, repo, "main", tree, missing, &fault);
    *asked = st == ST_OK || *missing;
    if (*asked)
        return ST_OK;
    if (st == ST_NET) {
        log_warn("the Hub cannot be asked for checkpoints, going on with what is here: %s", fault.what);
        if (fault.hint[0])
            log_warn("  hint: %s", fault.hint);
        return ST_OK;
    }
    err_set(err, st, "%s", fault.what);
    return fault.hint[0] ? err_hint(err, "%s", fault.hint) : st;
}

static enum status restore_stage(struct http *h, const struct options *o, int stage, bool *asked,
                                 struct err *err)
{
    char repo[HUB_REPO_BYTES], path[PATH_BYTES];
    struct hub_tree tree;
    int64_t here = -1;
    bool missing;
    TRY(ckpt_newest(out_dir_of(o, stage), path, &here, err));
    TRY(list(h, o, stage, repo, &tree, &missing, asked, err));
    if (!*asked || missing)
        return ST_OK;
    bool good = false;
    enum status st = ST_OK;
    for (int64_t step = newest_of(&tree, INT64_MAX); step > here && !good && st == ST_OK;
         step = newest_of(&tree, step))
        st = fetch(h, o, repo, &tree, stage, step, &good, err);
    hub_tree_release(&tree);
    return st;
}

enum status hub_restore(struct http *h, const struct options *o, int first, int last, struct err *err)
{
    bool asked = true;
    for (int stage = first > 1 ? first - 1 : 1; stage <= last && asked; stage++)
        TRY(restore_stage(h, o, stage, &asked, err));
    return ST_OK;
}
