/* adapter_config.json with the keys of peft 0.18: newer versions fill in theirs, older ones drop some. */
#include "checkpoint/state.h"
#include "util/file.h"
#include "util/json.h"

#include <math.h>
#include <string.h>

#define PEFT_VERSION "0.18.0"

/* Whole numbers as integers, as PEFT's users write them. */
static json_t *number(double v)
{
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

static json_t *rows_list(const int64_t *rows, int64_t n)
{
    json_t *out = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(out, json_integer(rows[i]));
    return out;
}

static json_t *token_indices(const struct adapter_config *c)
{
    if (c->n_embed_rows == 0 && c->n_head_rows == 0)
        return json_null();
    json_t *out = json_object();
    if (c->n_embed_rows > 0)
        json_object_set_new(out, "embed_tokens", rows_list(c->embed_rows, c->n_embed_rows));
    if (c->n_head_rows > 0)
        json_object_set_new(out, "lm_head", rows_list(c->head_rows, c->n_head_rows));
    return out;
}

static json_t *modules_to_save(const struct adapter_config *c)
{
    if (!c->modules_to_save_embed && !c->modules_to_save_head)
        return json_null();
    json_t *out = json_array();
    if (c->modules_to_save_embed)
        json_array_append_new(out, json_string("embed_tokens"));
    if (c->modules_to_save_head)
        json_array_append_new(out, json_string("lm_head"));
    return out;
}

static json_t *target_modules(const struct adapter_config *c)
{
    json_t *out = json_array();
    for (int32_t i = 0; i < c->n_targets; i++)
        json_array_append_new(out, json_string(c->targets[i]));
    return out;
}

/* Keys without meaning for us, at the values that switch them off. */
static void set_constants(json_t *o)
{
    static const char *const nulls[] = {
        "alora_invocation_tokens",
        "arrow_config",
        "auto_mapping",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "layer_replication",
        "layers_pattern",
        "layers_to_transform",
        "megatron_config",
        "revision",
        "target_parameters",
    };
    static const char *const falses[] = {
        "fan_in_fan_out",
        "lora_bias",
        "use_dora",
        "use_qalora",
    };
    static const char *const objects[] = {"alpha_pattern", "loftq_config", "rank_pattern"};
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        json_object_set_new(o, nulls[i], json_null());
    for (size_t i = 0; i < sizeof falses / sizeof *falses; i++)
        json_object_set_new(o, falses[i], json_false());
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        json_object_set_new(o, objects[i], json_object());
    json_object_set_new(o, "bias", json_string("none"));
    json_object_set_new(o, "inference_mode", json_true());
    json_object_set_new(o, "init_lora_weights", json_true());
    json_object_set_new(o, "megatron_core", json_string("megatron.core"));
    json_object_set_new(o, "peft_type", json_string("LORA"));
    json_object_set_new(o, "peft_version", json_string(PEFT_VERSION));
    json_object_set_new(o, "qalora_group_size", json_integer(16));
    json_object_set_new(o, "task_type", json_string("CAUSAL_LM"));
}

enum status adapter_config_write(const struct adapter_config *c, const char *dir, struct err *err)
{
    char path[PATH_BYTES];
    TRY(path_join(path, dir, "adapter_config.json", err));
    if (c->r < 1 || !isfinite(c->alpha) || !isfinite(c->dropout) || c->n_targets < 0 || c->n_targets > 16)
        return err_set(err, ST_DEFECT, "adapter configuration cannot be written: rank %d, alpha %g", c->r,
                       c->alpha);
    json_t *base = json_string(c->base_model);
    if (!base)
        return err_set(err, ST_INPUT, "the name of the base model is no UTF-8");
    json_t *o = json_object();
    set_constants(o);
    json_object_set_new(o, "base_model_name_or_path", base);
    json_object_set_new(o, "ensure_weight_tying", json_boolean(c->ensure_weight_tying));
    json_object_set_new(o, "lora_alpha", number(c->alpha));
    json_object_set_new(o, "lora_dropout", json_real(c->dropout));
    json_object_set_new(o, "modules_to_save", modules_to_save(c));
    json_object_set_new(o, "r", json_integer(c->r));
    json_object_set_new(o, "target_modules", target_modules(c));
    json_object_set_new(o, "trainable_token_indices", token_indices(c));
    int failed = json_object_set_new(o, "use_rslora", json_boolean(c->use_rslora));
    /* Earlier failures for want of memory leave a key out. */
    enum status status = ST_OK;
    if (failed || json_object_size(o) != 36)
        status = err_memory(err, "adapter_config.json", 0);
    if (status == ST_OK)
        status = json_write_file(path, o, true, err);
    json_decref(o);
    return status;
}
