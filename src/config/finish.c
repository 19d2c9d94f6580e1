/* What depends on more than one option: places within places, and lists taken apart. */
#include "config_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Length of "{name}" at `at` when name is lower-case letters and underscores, else 0. */
static size_t placeholder(const char *at)
{
    size_t n = strspn(at + 1, "abcdefghijklmnopqrstuvwxyz_");
    return *at == '{' && n > 0 && at[1 + n] == '}' ? n + 2 : 0;
}

static bool is_name(const char *at, size_t n, const char *name)
{
    return n == strlen(name) && memcmp(at, name, n) == 0;
}

/* Replaces placeholders once; what is put in is not looked at again. NULL: not known at this place. */
static enum status fill_in(char *text, const char *key, const char *work_dir, const char *data_dir,
                           struct err *err)
{
    char out[OPTION_TEXT_BYTES];
    size_t n_out = 0;
    for (const char *at = text; *at;) {
        size_t n = placeholder(at), n_put = n ? n : 1;
        const char *put = at;
        if (n) {
            put = is_name(at, n, "{work_dir}") ? work_dir : is_name(at, n, "{data_dir}") ? data_dir : NULL;
            if (!put) {
                err_set(err, ST_USAGE, "%s: %.*s cannot stand here", key, n > 40 ? 40 : (int)n, at);
                return err_hint(
                    err, "{work_dir} and {data_dir} are filled in, work_dir and data_dir not in themselves");
            }
            n_put = strlen(put);
        }
        if (n_out + n_put >= sizeof out)
            return err_set(err, ST_USAGE,
                           "%s has more than %d bytes after {work_dir} and {data_dir} are filled in", key,
                           OPTION_TEXT_BYTES - 1);
        memcpy(out + n_out, put, n_put);
        n_out += n_put;
        at += n ? n : 1;
    }
    memcpy(text, out, n_out);
    text[n_out] = '\0';
    return ST_OK;
}

static enum status fill_places(struct options *o, struct err *err)
{
    TRY(fill_in(o->work_dir, "work_dir", NULL, NULL, err));
    TRY(fill_in(o->data_dir, "data_dir", o->work_dir, NULL, err));
    for (size_t i = 0; i < config__n_rows; i++) {
        const struct option_row *row = &config__rows[i];
        char *field = config__field(o, row);
        if (row->kind == KIND_PLACE && field != o->work_dir && field != o->data_dir)
            TRY(fill_in(field, row->key, o->work_dir, o->data_dir, err));
    }
    return ST_OK;
}

enum status options_lora_targets(const struct options *o, bool on[OPTION_N_TARGETS], struct err *err)
{
    static const char *const names[OPTION_N_TARGETS] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                        "gate_proj", "up_proj", "down_proj"};
    memset(on, 0, OPTION_N_TARGETS * sizeof *on);
    for (const char *at = o->lora_targets;;) {
        size_t n = strcspn(at, ","), i = 0;
        while (i < OPTION_N_TARGETS && !is_name(at, n, names[i]))
            i++;
        if (i == OPTION_N_TARGETS) {
            err_set(err, ST_USAGE, "lora_targets: '%.*s' is no projection", n > 40 ? 40 : (int)n, at);
            return err_hint(
                err,
                "known are q_proj k_proj v_proj o_proj gate_proj up_proj down_proj, with commas between");
        }
        if (on[i])
            return err_set(err, ST_USAGE, "lora_targets: %s stands there twice", names[i]);
        on[i] = true;
        if (!at[n])
            return ST_OK;
        at += n + 1;
        at += strspn(at, " ");
    }
}

enum status options_stage2_weights(const struct options *o, double weights[3], struct err *err)
{
    const char *at = o->stage2_weights;
    double sum = 0;
    int n = 0;
    for (;; at++) {
        size_t n_bytes = strcspn(at, ",");
        char *end;
        double w = strtod(at, &end);
        bool decimal = n_bytes > 0 && strspn(at, "0123456789+.eE-") >= n_bytes && end == at + n_bytes;
        if (n == 3 || !decimal || !isfinite(w) || w < 0)
            break;
        weights[n++] = w;
        sum += w;
        at = end;
        if (!*at)
            break;
        at += strspn(at + 1, " ");
    }
    if (n == 3 && !*at && sum > 0 && isfinite(sum))
        return ST_OK;
    err_set(err, ST_USAGE,
            "stage2_weights '%.60s' is not three numbers of 0 or more with commas between, not all 0",
            o->stage2_weights);
    return err_hint(err, "such as 0.5,0.3,0.2 for text to motion, motion to text, denoise");
}

enum status options_finish(struct options *o, struct err *err)
{
    bool targets[OPTION_N_TARGETS];
    double weights[3];
    TRY(fill_places(o, err));
    TRY(options_lora_targets(o, targets, err));
    TRY(options_stage2_weights(o, weights, err));
    if (o->system_prompt[0] && o->system_prompt_file[0])
        return err_set(err, ST_USAGE, "system_prompt and system_prompt_file are both set");
    return ST_OK;
}
