/* smgpt_state.json: {"format", "stage", "step", hashes, "cpu_path", "options"}, keys sorted. */
#include "checkpoint/state.h"
#include "util/file.h"
#include "util/json.h"

#include <stdio.h>
#include <string.h>

#define RUN_STATE_FORMAT    1
#define RUN_STATE_MAX_BYTES ((size_t)16 << 20)

enum status run_state_write(const char *path, const struct run_state *s, struct err *err)
{
    json_t *options = s->options ? json_incref(s->options) : json_object();
    json_t *o = json_pack("{s:i,s:i,s:I,s:s,s:s,s:s,s:s,s:s,s:o}", "format", RUN_STATE_FORMAT, "stage",
                          (int)s->stage, "step", (json_int_t)s->step, "pack_sha256", s->pack_sha256,
                          "options_sha256", s->options_sha256, "model_sha256", s->model_sha256,
                          "values_sha256", s->values_sha256, "cpu_path", s->cpu_path, "options", options);
    if (!o)
        return err_memory(err, "smgpt_state.json", 0);
    enum status status = json_write_file(path, o, true, err);
    json_decref(o);
    return status;
}

/* 64 hex digits, or nothing where the writer did not know the hash. */
static enum status get_hash(const json_t *o, const char *path, const char *key, char out[SHA256_HEX_BYTES],
                            struct err *err)
{
    const char *text = "";
    TRY(json_get_string(o, path, key, true, "", &text, err));
    size_t n = strlen(text);
    if (n != 0 && (n != SHA256_HEX_BYTES - 1 || strspn(text, "0123456789abcdef") != n))
        return err_set(err, ST_INPUT, "\"%s\": the field \"%s\" is no SHA-256", path, key);
    memcpy(out, text, n + 1);
    return ST_OK;
}

static enum status read_fields(const json_t *o, const char *path, struct run_state *s, struct err *err)
{
    int64_t format = 0, stage = 0;
    const char *cpu_path = "";
    TRY(json_get_int(o, path, "format", 1, INT32_MAX, false, 0, &format, err));
    if (format > RUN_STATE_FORMAT) {
        err_set(err, ST_INPUT, "\"%s\" has format %lld, this program reads up to %d", path, (long long)format,
                RUN_STATE_FORMAT);
        return err_hint(err, "use the version of the program that wrote it, or a later one");
    }
    TRY(json_get_int(o, path, "stage", 0, 3, false, 0, &stage, err));
    TRY(json_get_int(o, path, "step", 0, (int64_t)1 << 53, false, 0, &s->step, err));
    s->stage = (int32_t)stage;
    TRY(get_hash(o, path, "pack_sha256", s->pack_sha256, err));
    TRY(get_hash(o, path, "options_sha256", s->options_sha256, err));
    TRY(get_hash(o, path, "model_sha256", s->model_sha256, err));
    TRY(get_hash(o, path, "values_sha256", s->values_sha256, err));
    TRY(json_get_string(o, path, "cpu_path", true, "", &cpu_path, err));
    if (strlen(cpu_path) >= sizeof s->cpu_path)
        return err_set(err, ST_INPUT, "\"%s\": the field \"cpu_path\" is too long", path);
    memcpy(s->cpu_path, cpu_path, strlen(cpu_path) + 1);
    json_t *options = json_object_get(o, "options");
    if (options && !json_is_null(options) && !json_is_object(options))
        return err_set(err, ST_INPUT, "\"%s\": the field \"options\" must be an object", path);
    s->options = json_is_object(options) ? json_incref(options) : NULL;
    return ST_OK;
}

enum status run_state_read(const char *path, struct run_state *s, bool *present, struct err *err)
{
    *s = (struct run_state){0};
    *present = false;
    if (!file_exists(path))
        return ST_OK;
    json_t *o = NULL;
    TRY(json_read_file(&o, path, RUN_STATE_MAX_BYTES, err));
    enum status status = read_fields(o, path, s, err);
    json_decref(o);
    *present = status == ST_OK;
    return status;
}

void run_state_release(struct run_state *s)
{
    json_decref(s->options);
    *s = (struct run_state){0};
}
