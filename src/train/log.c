/* train_log.jsonl: one JSON object a line, in order of steps; a resume cuts off what comes after its step. */
#include "util/log.h"
#include "train_internal.h"
#include "util/clock.h"
#include "util/json.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_LOG_BYTES ((size_t)1 << 30)
#define LINE_FLAGS    (JSON_COMPACT | JSON_REAL_PRECISION(17)) /* 17 digits: doubles read back equal */

/* Whether the line stays: a whole record of a step that the run still stands on. */
static bool line_stays(const char *line, size_t n_bytes, int64_t step, const char *path, int64_t number)
{
    json_t *record = NULL;
    struct err err = ERR_INIT;
    int64_t of = 0;
    bool stays = json_read_text(&record, line, n_bytes, path, &err) == ST_OK &&
                 json_get_int(record, path, "step", 0, INT64_MAX, false, 0, &of, &err) == ST_OK;
    if (!stays)
        log_warn("%s: line %lld is no record and is dropped", path, (long long)number);
    json_decref(record);
    return stays && of <= step;
}

static enum status cut_lines(const struct buf *in, int64_t step, const char *path, struct buf *out,
                             struct err *err)
{
    int64_t number = 1;
    for (size_t at = 0; at < in->n_bytes; number++) {
        const char *end = memchr(in->data + at, '\n', in->n_bytes - at);
        size_t n = end != NULL ? (size_t)(end - in->data) - at : in->n_bytes - at;
        if (line_stays(in->data + at, n, step, path, number)) {
            TRY(buf_append(out, in->data + at, n, err));
            TRY(buf_append(out, "\n", 1, err));
        }
        at += n + 1;
    }
    return ST_OK;
}

static enum status log_cut(const char *path, int64_t step, struct err *err)
{
    struct buf in = BUF_INIT, out = BUF_INIT;
    enum status st = ST_OK;
    if (file_exists(path)) {
        st = file_read(path, MAX_LOG_BYTES, &in, err);
        if (st == ST_OK && step >= 0)
            st = cut_lines(&in, step, path, &out, err);
        if (st == ST_OK && in.n_bytes != out.n_bytes)
            st = file_write(path, out.n_bytes > 0 ? out.data : "", out.n_bytes, err);
    }
    buf_release(&in);
    buf_release(&out);
    return st;
}

enum status log__open(struct train_log *l, const char *out_dir, int64_t step, const json_t *history,
                      struct err *err)
{
    memset(l, 0, sizeof *l);
    TRY(dir_make(out_dir, err));
    TRY(path_join(l->path, out_dir, "train_log.jsonl", err));
    TRY(log_cut(l->path, step, err));
    l->history = json_is_array(history) ? json_deep_copy(history) : json_array();
    return l->history != NULL ? ST_OK : err_memory(err, "the history of the run", 0);
}

void log__close(struct train_log *l)
{
    json_decref(l->history);
    l->history = NULL;
}

/* One write a line, so that a reader or a crash sees whole lines but for the last. Consumes record. */
static enum status append(const struct train_log *l, json_t *record, struct err *err)
{
    char *text = record != NULL ? json_dumps(record, LINE_FLAGS) : NULL;
    json_decref(record);
    if (text == NULL)
        return err_memory(err, "a line of the log", 0);
    enum status st = ST_OK;
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the NUL: the line is written with its length */
    int fd = open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) {
        st = err_errno(err, ST_ENV, "cannot open '%s'", l->path);
    } else {
        ssize_t done = write(fd, text, n + 1);
        if (done != (ssize_t)(n + 1)) {
            if (done >= 0)
                errno = ENOSPC;
            st = err_errno(err, ST_ENV, "cannot write '%s'", l->path);
        }
        if (close(fd) != 0 && st == ST_OK)
            st = err_errno(err, ST_ENV, "cannot write '%s'", l->path);
    }
    free(text);
    return st;
}

enum status log__sync(const struct train_log *l, struct err *err)
{
    int fd = open(l->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ST_OK : err_errno(err, ST_ENV, "cannot open '%s'", l->path);
    enum status st = fsync(fd) == 0 ? ST_OK : err_errno(err, ST_ENV, "cannot write '%s' to disk", l->path);
    close(fd);
    return st;
}

/* What every line begins with. */
static json_t *line_begin(const struct trainer *t)
{
    return json_pack("{s:i, s:I, s:I, s:f}", "stage", (int)t->o->stage, "step", (json_int_t)t->step,
                     "max_steps", (json_int_t)t->plan.max_steps, "epoch", plan_epoch(&t->plan, t->step));
}

static enum status history_add(struct train_log *l, json_t *entry, struct err *err)
{
    if (entry == NULL || json_array_append_new(l->history, entry) != 0)
        return err_memory(err, "the history of the run", 0);
    return ST_OK;
}

static double rate(double n, double seconds)
{
    return seconds > 0 ? n / seconds : 0;
}

enum status log__step(struct train_log *l, const struct trainer *t, const struct step_result *r,
                      struct err *err)
{
    const struct step_head *h = &r->head;
    json_t *line = line_begin(t);
    json_t *rest = json_pack(
        "{s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:i}", "loss", r->loss, "grad_norm", r->grad_norm,
        "learning_rate", r->lr, "examples", (json_int_t)h->n_rows, "tokens", (json_int_t)h->n_tokens,
        "label_tokens", (json_int_t)h->n_labels, "seconds", r->seconds, "examples_per_second",
        rate((double)h->n_rows, r->seconds), "tokens_per_second", rate((double)h->n_tokens, r->seconds),
        "rss_bytes", (json_int_t)peak_rss_bytes(), "world_size", t->c->comm->world_size);
    if (line != NULL && json_object_update(line, rest) != 0) {
        json_decref(line);
        line = NULL;
    }
    json_decref(rest);
    TRY(append(l, line, err));
    return history_add(l,
                       json_pack("{s:f, s:f, s:f, s:f, s:I}", "epoch", plan_epoch(&t->plan, t->step),
                                 "grad_norm", r->grad_norm, "learning_rate", r->lr, "loss", r->loss, "step",
                                 (json_int_t)t->step),
                       err);
}

enum status log__eval(struct train_log *l, const struct trainer *t, double loss, int64_t n_labels,
                      double seconds, struct err *err)
{
    const int64_t n_rows = t->c->pack_info.n_rows[PACK_EVAL];
    if (!isfinite(loss))
        return ST_OK; /* no label in the whole group, or diverged: JSON has no such number */
    json_t *line = line_begin(t);
    json_t *rest = json_pack("{s:f, s:I, s:I, s:f, s:f, s:i}", "eval_loss", loss, "eval_examples",
                             (json_int_t)n_rows, "eval_label_tokens", (json_int_t)n_labels, "eval_runtime",
                             seconds, "eval_samples_per_second", rate((double)n_rows, seconds), "world_size",
                             t->c->comm->world_size);
    if (line != NULL && json_object_update(line, rest) != 0) {
        json_decref(line);
        line = NULL;
    }
    json_decref(rest);
    TRY(append(l, line, err));
    return history_add(l,
                       json_pack("{s:f, s:f, s:I}", "epoch", plan_epoch(&t->plan, t->step), "eval_loss", loss,
                                 "step", (json_int_t)t->step),
                       err);
}

static bool record_has(const json_t *record, const char *key, int64_t step, double *out)
{
    const json_t *x = json_object_get(record, key), *of = json_object_get(record, "step");
    if (!json_is_number(x) || (step >= 0 && (!json_is_integer(of) || json_integer_value(of) != step)))
        return false;
    *out = json_number_value(x);
    return true;
}

/* An evaluation of a finished stage is in the file only: it came after the last save. */
static bool file_last(const struct train_log *l, const char *key, int64_t step, double *out)
{
    struct buf text = BUF_INIT;
    bool found = false;
    if (file_exists(l->path) && file_read(l->path, MAX_LOG_BYTES, &text, NULL) == ST_OK) {
        for (size_t at = 0; at < text.n_bytes;) {
            const char *end = memchr(text.data + at, '\n', text.n_bytes - at);
            size_t n = end != NULL ? (size_t)(end - text.data) - at : text.n_bytes - at;
            json_t *record = NULL;
            if (json_read_text(&record, text.data + at, n, l->path, NULL) == ST_OK)
                found |= record_has(record, key, step, out);
            json_decref(record);
            at += n + 1;
        }
    }
    buf_release(&text);
    return found;
}

bool log__last(const struct train_log *l, const char *key, int64_t step, double *out)
{
    for (size_t i = json_array_size(l->history); i > 0; i--)
        if (record_has(json_array_get(l->history, i - 1), key, step, out))
            return true;
    return file_last(l, key, step, out);
}
