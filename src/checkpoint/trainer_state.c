/* trainer_state.json. Trainer passes its keys to a constructor, so there are exactly these twenty. */
#include "checkpoint/state.h"
#include "util/file.h"
#include "util/json.h"

#include <math.h>
#include <string.h>

#define STATE_MAX_BYTES ((size_t)256 << 20)
/* Trainer's default where a run has no such interval; it divides by them. */
#define DEFAULT_INTERVAL 500

static json_int_t interval(int64_t steps)
{
    return steps >= 1 ? steps : DEFAULT_INTERVAL;
}

/* {"TrainerControl": ...}; Trainer looks it up without asking whether it is there. */
static json_t *callbacks(bool finished)
{
    return json_pack("{s:{s:{s:b,s:b,s:b,s:b,s:b},s:{}}}", "TrainerControl", "args", "should_epoch_stop", 0,
                     "should_evaluate", 0, "should_log", 0, "should_save", 1, "should_training_stop",
                     (int)finished, "attributes");
}

/* The history without null fields: that is how a NaN of a diverged run reads. */
static json_t *clean_history(const json_t *history)
{
    json_t *out = json_array();
    for (size_t i = 0; out && i < json_array_size(history); i++) {
        json_t *entry = json_copy(json_array_get(history, i));
        const char *key;
        json_t *value;
        void *next;
        json_object_foreach_safe(entry, next, key, value)
        {
            if (json_is_null(value))
                json_object_del(entry, key);
        }
        if (json_array_append_new(out, entry) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *make_state(const struct trainer_state *s)
{
    return json_pack(
        "{s:n,s:n,s:n,s:f,s:I,s:I,s:b,s:b,s:b,s:o,s:I,s:I,s:i,s:I,s:I,s:o,s:f,s:I,s:n,s:n}",
        "best_global_step", "best_metric", "best_model_checkpoint", "epoch", s->epoch, "eval_steps",
        interval(s->eval_steps), "global_step", (json_int_t)s->global_step, "is_hyper_param_search", 0,
        "is_local_process_zero", 1, "is_world_process_zero", 1, "log_history", clean_history(s->log_history),
        "logging_steps", interval(s->logging_steps), "max_steps", (json_int_t)s->max_steps,
        "num_input_tokens_seen", 0, "num_train_epochs", (json_int_t)ceil(s->num_train_epochs), "save_steps",
        interval(s->save_steps), "stateful_callbacks", callbacks(s->finished), "total_flos", 0.0,
        "train_batch_size", (json_int_t)s->train_batch_size, "trial_name", "trial_params");
}

enum status trainer_state_write(const char *path, const struct trainer_state *s, struct err *err)
{
    if (!isfinite(s->epoch) || !(s->num_train_epochs >= 0 && s->num_train_epochs < 1e15) ||
        s->global_step < 0 || s->train_batch_size < 1)
        return err_set(
            err, ST_DEFECT, "trainer state cannot be written: epoch %g of %g, step %lld, batch size %lld",
            s->epoch, s->num_train_epochs, (long long)s->global_step, (long long)s->train_batch_size);
    json_t *state = make_state(s);
    if (!state)
        return err_memory(err, "trainer_state.json", 0);
    enum status status = json_write_file(path, state, true, err);
    json_decref(state);
    return status;
}

/* An interval may be a real number in files of old versions. */
static enum status get_interval(const json_t *o, const char *path, const char *key, int64_t *out,
                                struct err *err)
{
    double v = 0;
    TRY(json_get_double(o, path, key, true, DEFAULT_INTERVAL, &v, err));
    *out = v >= 1 && v < 1e15 ? (int64_t)v : DEFAULT_INTERVAL;
    return ST_OK;
}

static enum status read_history(const json_t *o, const char *path, json_t **out, struct err *err)
{
    json_t *history = json_object_get(o, "log_history");
    if (!history || json_is_null(history))
        return ST_OK;
    if (!json_is_array(history))
        return err_set(err, ST_INPUT, "\"%s\": the field \"log_history\" must be a list", path);
    for (size_t i = 0; i < json_array_size(history); i++) {
        if (!json_is_object(json_array_get(history, i)))
            return err_set(err, ST_INPUT, "\"%s\": entry %zu of \"log_history\" must be an object", path, i);
    }
    *out = json_incref(history);
    return ST_OK;
}

static enum status read_fields(const json_t *o, const char *path, struct trainer_state *s, struct err *err)
{
    const int64_t most = (int64_t)1 << 53;
    TRY(json_get_int(o, path, "global_step", 0, most, false, 0, &s->global_step, err));
    TRY(json_get_int(o, path, "max_steps", -1, most, true, 0, &s->max_steps, err));
    TRY(json_get_int(o, path, "train_batch_size", 0, most, true, 0, &s->train_batch_size, err));
    TRY(json_get_double(o, path, "epoch", true, 0, &s->epoch, err));
    TRY(json_get_double(o, path, "num_train_epochs", true, 0, &s->num_train_epochs, err));
    TRY(get_interval(o, path, "logging_steps", &s->logging_steps, err));
    TRY(get_interval(o, path, "eval_steps", &s->eval_steps, err));
    TRY(get_interval(o, path, "save_steps", &s->save_steps, err));
    const json_t *args =
        json_object_get(json_object_get(json_object_get(o, "stateful_callbacks"), "TrainerControl"), "args");
    s->finished = json_is_true(json_object_get(args, "should_training_stop"));
    return read_history(o, path, &s->log_history, err);
}

enum status trainer_state_read(const char *path, struct trainer_state *s, struct err *err)
{
    *s = (struct trainer_state){0};
    struct buf text = BUF_INIT;
    json_t *o = NULL;
    enum status status = file_read(path, STATE_MAX_BYTES, &text, err);
    if (status == ST_OK)
        status = json_read_python(&o, text.data, text.n_bytes, path, err);
    buf_release(&text);
    if (status == ST_OK)
        status = read_fields(o, path, s, err);
    json_decref(o);
    return status;
}

void trainer_state_release(struct trainer_state *s)
{
    json_decref(s->log_history);
    *s = (struct trainer_state){0};
}
