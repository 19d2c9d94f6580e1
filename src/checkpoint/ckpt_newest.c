/* Which checkpoints there are, and which is the newest that a run can go on from. */
#include "checkpoint/ckpt.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"
#include "ckpt_internal.h"
#include "util/json.h"
#include "util/log.h"
#include "zip_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX_BYTES ((size_t)64 << 20)

int64_t ckpt_step_of(const char *name)
{
    static const char prefix[] = "checkpoint-";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return -1;
    const char *digits = name + sizeof prefix - 1;
    size_t n = strlen(digits);
    if (n == 0 || n > 18 || strspn(digits, "0123456789") != n)
        return -1;
    return strtoll(digits, NULL, 10);
}

static int newest_first(const void *a, const void *b)
{
    const struct ckpt_entry *x = a, *y = b;
    if (x->step != y->step)
        return x->step > y->step ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool is_directory(const char *out_dir, const char *name)
{
    char path[PATH_BYTES];
    struct err ignored = ERR_INIT;
    return path_join(path, out_dir, name, &ignored) == ST_OK && dir_exists(path);
}

enum status ckpt__list(const char *out_dir, struct ckpt_entries *out, struct err *err)
{
    *out = (struct ckpt_entries){0};
    if (!dir_exists(out_dir))
        return ST_OK;
    char **names = NULL;
    int n_names = 0;
    TRY(dir_list(out_dir, &names, &n_names, err));
    out->items = calloc((size_t)n_names + 1, sizeof *out->items);
    if (!out->items) {
        names_free(names, n_names);
        return err_memory(err, "a list of checkpoints", (size_t)n_names * sizeof *out->items);
    }
    for (int i = 0; i < n_names; i++) {
        int64_t step = ckpt_step_of(names[i]);
        if (step < 0 || !is_directory(out_dir, names[i]))
            continue;
        out->items[out->n_items++] = (struct ckpt_entry){.step = step, .name = names[i]};
        names[i] = NULL; /* taken over */
    }
    names_free(names, n_names);
    qsort(out->items, (size_t)out->n_items, sizeof *out->items, newest_first);
    return ST_OK;
}

void ckpt__list_release(struct ckpt_entries *list)
{
    for (int i = 0; i < list->n_items; i++)
        free(list->items[i].name);
    free(list->items);
    *list = (struct ckpt_entries){0};
}

static enum status path_of(char out[PATH_BYTES], const char *dir, const char *name, struct err *err)
{
    TRY(path_join(out, dir, name, err));
    if (!file_exists(out))
        return err_set(err, ST_INPUT, "%s is missing", name);
    return ST_OK;
}

/* Structure and checksums; what the pickle says is looked at by whoever reads it. */
static enum status check_zip(const char *dir, const char *name, struct err *err)
{
    char path[PATH_BYTES];
    struct zip z;
    TRY(path_of(path, dir, name, err));
    TRY(zip__open(&z, path, err));
    enum status status = zip__check_all(&z, err);
    zip__close(&z);
    return status;
}

static enum status check_state(const char *dir, int64_t step, struct err *err)
{
    char path[PATH_BYTES];
    struct trainer_state s;
    TRY(path_of(path, dir, "trainer_state.json", err));
    TRY(trainer_state_read(path, &s, err));
    int64_t found = s.global_step;
    trainer_state_release(&s);
    if (found != step)
        return err_set(err, ST_INPUT, "trainer_state.json is of step %" PRId64 ", not %" PRId64, found, step);
    return ST_OK;
}

/* Only its being there and whole: a configuration that is not supported must become an error later, not a
 * silent start from something older. */
static enum status check_json(const char *dir, const char *name, struct err *err)
{
    char path[PATH_BYTES];
    json_t *o = NULL;
    TRY(path_of(path, dir, name, err));
    TRY(json_read_file(&o, path, CONFIG_MAX_BYTES, err));
    json_decref(o);
    return ST_OK;
}

/* Trainer's save_safetensors=False leaves the older form, which adapter_read takes where there is no other.
 */
static enum status check_adapter(const char *dir, struct err *err)
{
    char path[PATH_BYTES];
    struct safetensors adapter;
    TRY(path_join(path, dir, "adapter_model.bin", err));
    bool is_bin = file_exists(path);
    TRY(path_join(path, dir, "adapter_model.safetensors", err));
    if (is_bin && !file_exists(path))
        return check_zip(dir, "adapter_model.bin", err);
    TRY(path_of(path, dir, "adapter_model.safetensors", err));
    TRY(safetensors_open(&adapter, path, err));
    safetensors_close(&adapter);
    return ST_OK;
}

enum status ckpt_check(const char *path, int64_t step, struct err *err)
{
    char state[PATH_BYTES];
    TRY(check_adapter(path, err));
    TRY(check_json(path, "adapter_config.json", err));
    TRY(check_state(path, step, err));
    TRY(path_join(state, path, "smgpt_state.json", err));
    if (file_exists(state)) /* of ours: what a resume compares with */
        TRY(check_json(path, "smgpt_state.json", err));
    TRY(check_zip(path, "optimizer.pt", err));
    return check_zip(path, "scheduler.pt", err);
}

enum status ckpt_newest(const char *out_dir, char path[PATH_BYTES], int64_t *step, struct err *err)
{
    return ckpt_newest_below(out_dir, INT64_MAX, path, step, err);
}

enum status ckpt_newest_below(const char *out_dir, int64_t below, char path[PATH_BYTES], int64_t *step,
                              struct err *err)
{
    struct err ignored = ERR_INIT;
    struct ckpt_entries list = {0};
    path[0] = '\0';
    *step = -1;
    if (dir_exists(out_dir) && ckpt__recover(out_dir, &ignored) != ST_OK)
        log_warn("%s", ignored.what); /* a directory that can only be read is good enough */
    TRY(ckpt__list(out_dir, &list, err));
    enum status status = ST_OK;
    for (int i = 0; i < list.n_items && *step < 0 && status == ST_OK; i++) {
        struct err reason = ERR_INIT;
        if (list.items[i].step >= below)
            continue;
        status = path_join(path, out_dir, list.items[i].name, err);
        if (status != ST_OK)
            break;
        enum status complete = ckpt_check(path, list.items[i].step, &reason);
        if (complete == ST_OK)
            *step = list.items[i].step;
        else if (complete == ST_INPUT)
            log_warn("checkpoint \"%s\" is skipped: %s", path, reason.what);
        else
            status = err_set(err, complete, "checkpoint \"%s\": %s", path, reason.what);
    }
    if (*step < 0)
        path[0] = '\0';
    ckpt__list_release(&list);
    return status;
}
