/* Files around a stage, on rank 0. */
#include "stage_files.h"
#include "base_model.h"
#include "checkpoint/ckpt.h"
#include "checkpoint/state.h"
#include "fetch_data.h"
#include "model_card.h"
#include "train/adapter.h"
#include "util/file.h"
#include "util/json.h"
#include "util/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYSTEM_PROMPT_MAX_BYTES (1 << 20)

static enum status system_prompt(const struct options *o, struct buf *text, const char **out, struct err *err)
{
    *out = o->system_prompt[0] ? o->system_prompt : NULL;
    if (!o->system_prompt_file[0])
        return ST_OK;
    if (*out)
        return err_set(err, ST_USAGE, "system_prompt and system_prompt_file are both set");
    TRY(file_read(o->system_prompt_file, SYSTEM_PROMPT_MAX_BYTES, text, err));
    *out = text->data ? text->data : "";
    return ST_OK;
}

static enum status open_tokenizer(struct stage_data *d, const struct options *o, bool needed, struct err *err)
{
    char path[PATH_BYTES];
    TRY(base_model_find(d->model_dir, o->model, err));
    TRY(path_join(path, d->model_dir, "tokenizer.json", err));
    if (!needed && !file_exists(path))
        return ST_OK;
    return tokenizer_open(&d->tokenizer, d->model_dir, err);
}

/* A given pack is one stage's data: of "all stages" that one is left, the first when the pack does not say.
 */
static enum status stage_of_pack(const struct options *o, int *first_stage, int *last_stage, struct err *err)
{
    struct pack *pack = NULL;
    struct pack_info info;
    if (*first_stage == *last_stage)
        return ST_OK;
    TRY(pack_open(&pack, o->pack, &info, err));
    pack_close(pack);
    *first_stage = *last_stage = info.stage ? info.stage : 1;
    return ST_OK;
}

enum status stage_data_open(struct stage_data *d, const struct options *o, int *first_stage, int *last_stage,
                            struct err *err)
{
    *d = (struct stage_data){0};
    if (o->pack[0]) {
        TRY(stage_of_pack(o, first_stage, last_stage, err));
        return open_tokenizer(d, o, false, err);
    }
    if (!file_exists(o->data_json) && o->gdrive_id[0])
        TRY(fetch_data(o, NULL, err));
    if (!file_exists(o->data_json)) {
        err_set(err, ST_INPUT, "data file '%s' does not exist", o->data_json);
        return err_hint(
            err, "set data_json to a JSON list of {text_query, motion_tokens, participant_id}, or gdrive_id");
    }
    TRY(open_tokenizer(d, o, true, err));
    TRY(examples_open(&d->examples, o->data_json, err));
    struct buf text = BUF_INIT;
    const char *prompt = NULL;
    enum status st = system_prompt(o, &text, &prompt, err);
    if (st == ST_OK)
        st = motion_vocab_make(&d->vocab, d->tokenizer, d->examples, prompt, o->space_tokens, err);
    buf_release(&text);
    TRY(st);
    d->has_vocab = true;
    log_info("data    %s: %lld rows, %d texts, %d codes, %d participants", o->data_json,
             (long long)examples_count(d->examples), examples_n_texts(d->examples),
             examples_n_codes(d->examples), examples_n_participants(d->examples));
    return ST_OK;
}

void stage_data_close(struct stage_data *d)
{
    if (d->has_vocab)
        motion_vocab_release(&d->vocab);
    examples_close(d->examples);
    tokenizer_close(d->tokenizer);
    *d = (struct stage_data){0};
}

enum status stage_pack_make(struct stage_data *d, const struct options *o, int stage, const char *dir,
                            char path[PATH_BYTES], struct err *err)
{
    struct pack_options p = {.stage = stage,
                             .max_seq_len = (int32_t)o->max_seq_len,
                             .split_test_size = o->split_test_size,
                             .split_seed = (uint64_t)o->split_seed,
                             .seed = (uint64_t)o->seed,
                             .denoise_prob = o->denoise_prob,
                             .progress = true};
    char name[32];
    bool skipped = false;
    snprintf(name, sizeof name, "stage%d.h5", stage);
    TRY(options_stage2_weights(o, p.stage2_weights, err));
    TRY(dir_make(dir, err));
    TRY(path_join(path, dir, name, err));
    TRY(pack_write(path, d->examples, d->tokenizer, &d->vocab, &p, &skipped, err));
    log_info("pack    %s%s", path, skipped ? " (there already, unchanged)" : "");
    return ST_OK;
}

enum status stage_pack_open(struct stage_data *d, const struct options *o, int stage, struct pack **pack,
                            struct pack_info *info, struct err *err)
{
    char path[PATH_BYTES], dir[PATH_BYTES];
    if (o->pack[0]) {
        snprintf(path, sizeof path, "%s", o->pack);
    } else {
        TRY(path_join(dir, o->work_dir, "packs", err));
        TRY(stage_pack_make(d, o, stage, dir, path, err));
    }
    TRY(pack_open(pack, path, info, err));
    if (info->stage && info->stage != stage) {
        err_set(err, ST_USAGE, "pack '%s' was made for stage %d, not %d", path, info->stage, stage);
        return err_hint(err, "give --stage %d", info->stage);
    }
    return ST_OK;
}

static enum status write_adapter_config(const struct stage_files_user *u, const char *dir, struct err *err)
{
    const struct params *p = u->params;
    struct adapter_config c = {.r = p->lora.r, .alpha = p->lora.alpha, .use_rslora = p->lora.use_rslora};
    snprintf(c.base_model, sizeof c.base_model, "%s", u->options->model);
    for (int i = 0; i < N_PROJ; i++)
        if (p->lora.target[i])
            snprintf(c.targets[c.n_targets++], sizeof c.targets[0], "%s", proj_name((enum proj)i));
    c.embed_rows = malloc((size_t)p->n_new * 2 * sizeof *c.embed_rows + 1);
    if (!c.embed_rows)
        return err_memory(err, "the list of new rows", (size_t)p->n_new * 16);
    c.head_rows = c.embed_rows + p->n_new;
    if (strcmp(u->options->checkpoint_layout, "modules_to_save") == 0) {
        c.modules_to_save_embed = c.modules_to_save_head = p->n_new > 0;
        c.ensure_weight_tying = p->n_new > 0 && p->index_head_rows < 0;
    } else {
        adapter_row_ids(p, c.embed_rows, c.head_rows);
        c.n_embed_rows = p->n_new;
        c.n_head_rows = p->index_head_rows >= 0 ? p->n_new : 0;
    }
    enum status st = adapter_config_write(&c, dir, err);
    free(c.embed_rows);
    return st;
}

enum status stage_add_files(void *user, const char *dir, int32_t stage, int64_t step, struct err *err)
{
    const struct stage_files_user *u = user;
    char path[PATH_BYTES];
    TRY(write_adapter_config(u, dir, err));
    if (u->data->tokenizer)
        TRY(tokenizer_save(u->data->tokenizer, dir, err));
    if (u->data->has_vocab) {
        TRY(path_join(path, dir, "smgpt_data.json", err));
        TRY(motion_vocab_save(&u->data->vocab, path, err));
    }
    TRY(path_join(path, dir, "smgpt_options.json", err));
    json_t *options = options_json(u->options);
    enum status st = json_write_file(path, options, false, err);
    json_decref(options);
    TRY(st);
    return model_card_write(u, dir, stage, step, err);
}

enum status stage_check_finished(const char *dir, int stage, struct err *err)
{
    char path[PATH_BYTES];
    struct trainer_state s = {0};
    TRY(path_join(path, dir, "trainer_state.json", err));
    TRY(trainer_state_read(path, &s, err));
    enum status st = ST_OK;
    if (s.global_step < s.max_steps) {
        st = err_set(err, ST_INPUT, "stage %d is not finished: %s is step %lld of %lld", stage, dir,
                     (long long)s.global_step, (long long)s.max_steps);
        err_hint(err, "run --stage %d to its end first, or set init_adapter to start from it as it is",
                 stage);
    }
    trainer_state_release(&s);
    return st;
}

static bool has_checkpoints(const char *out_dir)
{
    char **names = NULL;
    int n = 0;
    bool found = false;
    struct err ignored = ERR_INIT;
    if (!dir_exists(out_dir) || dir_list(out_dir, &names, &n, &ignored) != ST_OK)
        return false;
    for (int i = 0; i < n; i++)
        found |= ckpt_step_of(names[i]) >= 0;
    names_free(names, n);
    return found;
}

enum status stage_set_aside(const char *out_dir, struct err *err)
{
    char to[PATH_BYTES];
    if (!has_checkpoints(out_dir))
        return ST_OK;
    for (int i = 1; i < 10000; i++) {
        if (snprintf(to, sizeof to, "%s.old%d", out_dir, i) >= (int)sizeof to)
            break;
        if (dir_exists(to))
            continue;
        if (rename(out_dir, to) != 0)
            return err_errno(err, ST_ENV, "cannot rename '%s' to '%s'", out_dir, to);
        log_info("starting over: '%s' was renamed to '%s'", out_dir, to);
        return ST_OK;
    }
    return err_set(err, ST_ENV, "no free name to set '%s' aside", out_dir);
}
