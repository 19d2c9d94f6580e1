/* adapter_config.json of PEFT. What would change the adapter's meaning and is not known here is refused by
 * its name; what PEFT ignores when it loads an adapter is ignored as well. */
#include "checkpoint/state.h"
#include "checkpoint_internal.h"
#include "util/file.h"
#include "util/json.h"
#include "util/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX_BYTES ((size_t)64 << 20)
#define ROW_MAX          INT32_MAX

static const char *const projections[] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
};
#define N_PROJECTIONS ((int)(sizeof projections / sizeof *projections))

void adapter_config_release(struct adapter_config *c)
{
    free(c->embed_rows);
    free(c->head_rows);
    *c = (struct adapter_config){0};
}

/* null, false, "", [] and {} switch a key off. */
static bool is_off(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0);
}

static enum status refuse(const char *path, const char *key, const char *why, struct err *err)
{
    err_set(err, ST_INPUT, "\"%s\": %s %s", path, key, why);
    return err_hint(err, "export the adapter as plain LoRA, or merge it into its base model");
}

/* Keys that must be off, and why. */
static enum status check_off(const json_t *o, const char *path, struct err *err)
{
    static const struct {
        const char *key, *why;
    } keys[] = {
        {"use_dora", "(DoRA) is not supported"},
        {"lora_bias", "is not supported"},
        {"rank_pattern", "(ranks by module) is not supported"},
        {"alpha_pattern", "(alphas by module) is not supported"},
        {"layers_to_transform", "(LoRA on chosen layers) is not supported"},
        {"layer_replication", "is not supported"},
        {"fan_in_fan_out", "is not supported"},
        {"megatron_config", "is not supported"},
        {"exclude_modules", "is not supported"},
        {"target_parameters", "is not supported"},
        {"alora_invocation_tokens", "(activated LoRA) is not supported"},
        {"arrow_config", "is not supported"},
        {"use_qalora", "is not supported"},
        {"use_bdlora", "is not supported"},
        {"kasa_config", "is not supported"},
        {"lora_ga_config", "is not supported"},
        {"monteclora_config", "is not supported"},
        {"velora_config", "is not supported"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!is_off(json_object_get(o, keys[i].key)))
            return refuse(path, keys[i].key, keys[i].why, err);
    }
    return ST_OK;
}

/* Keys that are read, must be off, or mean nothing once the adapter exists. */
static bool is_known(const char *key)
{
    static const char *const known[] = {
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "trainable_token_indices",
        "use_rslora",
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(key, known[i]) == 0)
            return true;
    }
    return false;
}

static enum status check_string(const json_t *o, const char *path, const char *key, const char *wanted,
                                struct err *err)
{
    const char *text = NULL;
    TRY(json_get_string(o, path, key, true, wanted, &text, err));
    if (strcmp(text, wanted) == 0)
        return ST_OK;
    char why[QUOTE_BYTES + 64];
    snprintf(why, sizeof why, "\"%s\" is not supported, only \"%s\"", checkpoint__quote_z(text).text, wanted);
    return refuse(path, key, why, err);
}

/* The schemes other than true, false and "gaussian" alter the base's weights as well. */
static enum status check_init(const json_t *o, const char *path, struct err *err)
{
    const json_t *v = json_object_get(o, "init_lora_weights");
    const char *text = json_string_value(v);
    if (!v || json_is_null(v) || json_is_boolean(v) || (text && strcmp(text, "gaussian") == 0))
        return ST_OK;
    char why[QUOTE_BYTES + 64];
    snprintf(why, sizeof why, "\"%s\" is not supported: it alters the base model",
             text ? checkpoint__quote_z(text).text : "(no name)");
    return refuse(path, "init_lora_weights", why, err);
}

static enum status add_target(struct adapter_config *c, const char *name, size_t n, const char *path,
                              struct err *err)
{
    for (int i = 0; i < N_PROJECTIONS; i++) {
        if (strlen(projections[i]) != n || memcmp(projections[i], name, n) != 0)
            continue;
        for (int k = 0; k < c->n_targets; k++) {
            if (strcmp(c->targets[k], projections[i]) == 0)
                return ST_OK;
        }
        snprintf(c->targets[c->n_targets++], sizeof c->targets[0], "%s", projections[i]);
        return ST_OK;
    }
    err_set(err, ST_INPUT, "\"%s\": target_modules \"%s\" is not supported", path,
            checkpoint__quote(name, n).text);
    return err_hint(err,
                    "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj are, in all layers");
}

/* An item names all modules whose path ends in it; "self_attn.q_proj" is the same as "q_proj" here. */
static enum status add_target_item(struct adapter_config *c, const char *name, const char *path,
                                   struct err *err)
{
    static const char *const parents[] = {"self_attn.", "mlp."};
    const char *last = name;
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(parents[i]);
        bool is_attention = i == 0;
        if (strncmp(name, parents[i], n) == 0 &&
            is_attention == (strlen(name + n) == strlen("q_proj") && strcmp(name + n + 1, "_proj") == 0))
            last = name + n;
    }
    return add_target(c, last, strlen(last), path, err);
}

/* The forms of a pattern that are understood: [^] .* [\.] name [$] and [^] .* [\.] (name|name...) [$]. */
static enum status add_target_pattern(struct adapter_config *c, const char *pattern, const char *path,
                                      struct err *err)
{
    const char *at = pattern, *end = pattern + strlen(pattern);
    at += *at == '^';
    if (end > at && end[-1] == '$')
        end--;
    bool is_understood = end - at > 2 && strncmp(at, ".*", 2) == 0;
    at += is_understood ? 2 : 0;
    if (is_understood && end - at > 2 && strncmp(at, "\\.", 2) == 0)
        at += 2;
    if (is_understood && end - at > 2 && *at == '(' && end[-1] == ')') {
        at += strncmp(at, "(?:", 3) == 0 ? 3 : 1;
        end--;
    }
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz_|";
    if (!is_understood || (size_t)(end - at) == 0 || strspn(at, plain) < (size_t)(end - at)) {
        err_set(err, ST_INPUT, "\"%s\": the pattern \"%s\" of target_modules is not understood", path,
                checkpoint__quote_z(pattern).text);
        return err_hint(err, "write target_modules as a list of names, as [\"q_proj\", \"v_proj\"]");
    }
    const char *bar;
    do {
        bar = memchr(at, '|', (size_t)(end - at));
        const char *stop = bar ? bar : end;
        TRY(add_target(c, at, (size_t)(stop - at), path, err));
        at = stop + 1;
    } while (bar);
    return ST_OK;
}

static enum status read_targets(const json_t *o, const char *path, struct adapter_config *c, struct err *err)
{
    const json_t *v = json_object_get(o, "target_modules");
    const char *text = json_string_value(v);
    if (text && strcmp(text, "all-linear") == 0) {
        for (int i = 0; i < N_PROJECTIONS; i++)
            TRY(add_target(c, projections[i], strlen(projections[i]), path, err));
        return ST_OK;
    }
    if (text)
        return add_target_pattern(c, text, path, err);
    if (v && !json_is_null(v) && !json_is_array(v))
        return err_set(err, ST_INPUT, "\"%s\": target_modules must be a list or a string", path);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *name = json_string_value(json_array_get(v, i));
        if (!name)
            return err_set(err, ST_INPUT, "\"%s\": item %zu of target_modules is no string", path, i);
        TRY(add_target_item(c, name, path, err));
    }
    return ST_OK;
}

/* Whether a module's path is the embedding (1), the head (2) or neither (0). */
static int which_module(const char *name)
{
    const char *dot = strrchr(name, '.'), *last = dot ? dot + 1 : name;
    return strcmp(last, "embed_tokens") == 0 ? 1 : strcmp(last, "lm_head") == 0 ? 2 : 0;
}

static enum status read_modules_to_save(const json_t *o, const char *path, struct adapter_config *c,
                                        struct err *err)
{
    const json_t *v = json_object_get(o, "modules_to_save");
    if (v && !json_is_null(v) && !json_is_array(v))
        return err_set(err, ST_INPUT, "\"%s\": modules_to_save must be a list", path);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *name = json_string_value(json_array_get(v, i));
        int which = name ? which_module(name) : 0;
        if (!which)
            return err_set(
                err, ST_INPUT,
                "\"%s\": modules_to_save \"%s\" is not supported, only embed_tokens and lm_head are", path,
                name ? checkpoint__quote_z(name).text : "(no string)");
        c->modules_to_save_embed |= which == 1;
        c->modules_to_save_head |= which == 2;
    }
    return ST_OK;
}

static int by_row(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Each row once. */
static enum status check_rows(const int64_t *rows, size_t n, const char *path, struct err *err)
{
    int64_t *sorted = malloc((n + 1) * sizeof *sorted);
    if (!sorted)
        return err_memory(err, "token rows", n * sizeof *sorted);
    memcpy(sorted, rows, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_row);
    enum status status = ST_OK;
    for (size_t i = 1; i < n && status == ST_OK; i++) {
        if (sorted[i] == sorted[i - 1])
            status = err_set(err, ST_INPUT, "\"%s\": trainable_token_indices has %lld twice", path,
                             (long long)sorted[i]);
    }
    free(sorted);
    return status;
}

static enum status read_rows(const json_t *list, const char *path, int64_t **rows, int64_t *n_rows,
                             struct err *err)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || *rows)
        return err_set(err, ST_INPUT,
                       "\"%s\": trainable_token_indices must be a list for each of embed_tokens "
                       "and lm_head",
                       path);
    *rows = malloc((n + 1) * sizeof **rows);
    if (!*rows)
        return err_memory(err, "token rows", n * sizeof **rows);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(list, i);
        (*rows)[i] = json_integer_value(row);
        if (!json_is_integer(row) || (*rows)[i] < 0 || (*rows)[i] > ROW_MAX)
            return err_set(err, ST_INPUT, "\"%s\": item %zu of trainable_token_indices is no row number",
                           path, i);
    }
    *n_rows = (int64_t)n;
    return check_rows(*rows, n, path, err);
}

/* A list means the embedding; an object names the modules. */
static enum status read_token_indices(const json_t *o, const char *path, struct adapter_config *c,
                                      struct err *err)
{
    json_t *v = json_object_get(o, "trainable_token_indices");
    if (is_off(v))
        return ST_OK;
    if (!json_is_object(v))
        return read_rows(v, path, &c->embed_rows, &c->n_embed_rows, err);
    const char *key;
    json_t *list;
    json_object_foreach(v, key, list)
    {
        int which = which_module(key);
        if (!which)
            return err_set(err, ST_INPUT, "\"%s\": trainable_token_indices of \"%s\" are not supported", path,
                           checkpoint__quote_z(key).text);
        TRY(read_rows(list, path, which == 1 ? &c->embed_rows : &c->head_rows,
                      which == 1 ? &c->n_embed_rows : &c->n_head_rows, err));
    }
    if ((c->embed_rows && c->modules_to_save_embed) || (c->head_rows && c->modules_to_save_head))
        return err_set(err, ST_INPUT,
                       "\"%s\": a module is in both modules_to_save and trainable_token_indices", path);
    return ST_OK;
}

static enum status read_numbers(const json_t *o, const char *path, struct adapter_config *c, struct err *err)
{
    int64_t r = 0;
    const char *base = "";
    TRY(json_get_int(o, path, "r", 1, 1 << 20, false, 0, &r, err));
    TRY(json_get_double(o, path, "lora_alpha", true, 8, &c->alpha, err));
    TRY(json_get_double(o, path, "lora_dropout", true, 0, &c->dropout, err));
    TRY(json_get_bool(o, path, "use_rslora", true, false, &c->use_rslora, err));
    TRY(json_get_bool(o, path, "ensure_weight_tying", true, false, &c->ensure_weight_tying, err));
    TRY(json_get_string(o, path, "base_model_name_or_path", true, "", &base, err));
    c->r = (int32_t)r;
    if (!(c->dropout >= 0 && c->dropout < 1))
        return err_set(err, ST_INPUT, "\"%s\": lora_dropout is %g, allowed is 0 up to 1", path, c->dropout);
    if (!(fabs(c->alpha) < 1e9))
        return err_set(err, ST_INPUT, "\"%s\": lora_alpha is %g", path, c->alpha);
    if (strlen(base) >= sizeof c->base_model)
        return err_set(err, ST_INPUT, "\"%s\": base_model_name_or_path is too long", path);
    memcpy(c->base_model, base, strlen(base) + 1);
    return ST_OK;
}

/* PEFT drops unknown keys with a warning; so do we, when they are on. */
static void warn_unknown(json_t *o, const char *path)
{
    const char *key;
    json_t *value;
    json_object_foreach(o, key, value)
    {
        if (!is_known(key) && !is_off(value))
            log_warn("\"%s\": the key \"%s\" is unknown and ignored", path, checkpoint__quote_z(key).text);
    }
}

static enum status read_all(json_t *o, const char *path, struct adapter_config *c, struct err *err)
{
    if (!json_is_object(o))
        return err_set(err, ST_INPUT, "\"%s\" is no JSON object", path);
    TRY(check_string(o, path, "peft_type", "LORA", err));
    TRY(check_string(o, path, "task_type", "CAUSAL_LM", err));
    TRY(check_string(o, path, "bias", "none", err));
    TRY(check_off(o, path, err));
    TRY(check_init(o, path, err));
    TRY(read_numbers(o, path, c, err));
    TRY(read_targets(o, path, c, err));
    TRY(read_modules_to_save(o, path, c, err));
    TRY(read_token_indices(o, path, c, err));
    if (c->n_targets == 0)
        return err_set(err, ST_INPUT, "\"%s\": target_modules is empty", path);
    warn_unknown(o, path);
    return ST_OK;
}

enum status adapter_config_read(struct adapter_config *c, const char *dir, struct err *err)
{
    *c = (struct adapter_config){0};
    char path[PATH_BYTES];
    TRY(path_join(path, dir, "adapter_config.json", err));
    json_t *o = NULL;
    TRY(json_read_file(&o, path, CONFIG_MAX_BYTES, err));
    enum status status = read_all(o, path, c, err);
    json_decref(o);
    if (status != ST_OK)
        adapter_config_release(c);
    return status;
}
