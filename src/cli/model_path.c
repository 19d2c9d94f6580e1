/* What a --model_path stands for. */
#include "assemble.h"
#include "base_model.h"
#include "checkpoint/ckpt.h"

#include <stdio.h>
#include <string.h>

static bool has(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    return path_join(path, dir, name, NULL) == ST_OK && file_exists(path);
}

static bool is_model(const char *dir)
{
    return has(dir, "config.json") &&
           (has(dir, "model.safetensors") || has(dir, "model.safetensors.index.json"));
}

/* `name` below dir, then below each directory above it: an adapter moves together with the tree it was made
 * in. */
static bool find_above(char out[PATH_BYTES], const char *dir, const char *name)
{
    char at[PATH_BYTES];
    if (snprintf(at, sizeof at, "%s", dir) >= (int)sizeof at)
        return false;
    for (;;) {
        if (path_join(out, at, name, NULL) == ST_OK && is_model(out))
            return true;
        char *slash = strrchr(at, '/');
        if (!slash)
            break;
        *slash = '\0';
        if (slash == at)
            break;
    }
    return path_join(out, ".", name, NULL) == ST_OK && is_model(out);
}

static enum status base_of_adapter(struct model_path *out, struct err *err)
{
    struct adapter_config c = {0};
    TRY(adapter_config_read(&c, out->adapter_dir, err));
    struct err fault = ERR_INIT;
    enum status st = ST_OK;
    if (is_model(c.base_model))
        snprintf(out->model_dir, sizeof out->model_dir, "%s", c.base_model);
    else if ((c.base_model[0] == '/' || !find_above(out->model_dir, out->adapter_dir, c.base_model)) &&
             base_model_find(out->model_dir, c.base_model, &fault) != ST_OK) {
        st = err_set(err, ST_INPUT, "%s: its base model '%s' is not here: %s", out->adapter_dir, c.base_model,
                     fault.what);
        err_hint(
            err,
            "put the base model at that path, or start from the directory in which the adapter was trained");
    }
    adapter_config_release(&c);
    return st;
}

enum status model_path_resolve(struct model_path *out, const char *path, struct err *err)
{
    int64_t step = -1;
    *out = (struct model_path){0};
    if (!dir_exists(path)) {
        err_set(err, ST_INPUT, "model path '%s' is not a directory", path);
        return err_hint(err,
                        "give a stage's output directory, a checkpoint, a PEFT adapter or a model directory");
    }
    if (has(path, "adapter_config.json")) {
        snprintf(out->adapter_dir, sizeof out->adapter_dir, "%s", path);
        return base_of_adapter(out, err);
    }
    if (is_model(path)) {
        snprintf(out->model_dir, sizeof out->model_dir, "%s", path);
        return ST_OK;
    }
    TRY(ckpt_newest(path, out->adapter_dir, &step, err));
    if (step >= 0)
        return base_of_adapter(out, err);
    if (has(path, "config.json")) {
        err_set(err, ST_INPUT, "model directory '%s' has no weights", path);
        return err_hint(err, "expected model.safetensors or model.safetensors.index.json");
    }
    err_set(err, ST_INPUT, "'%s' holds neither a model, nor an adapter, nor a complete checkpoint", path);
    return err_hint(err,
                    "give a stage's output directory, a checkpoint, a PEFT adapter or a model directory");
}
