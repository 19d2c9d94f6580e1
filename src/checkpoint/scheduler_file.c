/* scheduler.pt of Trainer's LambdaLR over two parameter groups. */
#include "checkpoint/state.h"
#include "checkpoint/torch_file.h"

#include <math.h>

static void put_pair(struct torch_writer *w, const char *key, double value)
{
    torch_put_string(w, key);
    torch_put_list(w);
    torch_put_float(w, value);
    torch_put_float(w, value);
    torch_put_end(w);
}

enum status scheduler_write(const char *path, const struct scheduler_state *s, struct err *err)
{
    struct torch_writer *w = NULL;
    TRY(torch_writer_open(&w, path, err));
    torch_put_dict(w);
    put_pair(w, "base_lrs", s->base_lr);
    torch_put_string(w, "last_epoch");
    torch_put_int(w, s->last_epoch);
    torch_put_string(w, "_step_count");
    torch_put_int(w, s->last_epoch + 1);
    torch_put_string(w, "_is_initial");
    torch_put_bool(w, false);
    torch_put_string(w, "_get_lr_called_within_step");
    torch_put_bool(w, false);
    put_pair(w, "_last_lr", s->last_lr);
    /* An empty dict stands for a schedule with arguments (functools.partial), as cosine is. */
    torch_put_string(w, "lr_lambdas");
    torch_put_list(w);
    for (int group = 0; group < 2; group++) {
        torch_put_dict(w);
        torch_put_end(w);
    }
    torch_put_end(w);
    torch_put_end(w);
    return torch_writer_commit(w, err);
}

/* First number of a list; -1 when the key is absent. */
static enum status first_rate(const struct value *root, const char *path, const char *key, double *out,
                              struct err *err)
{
    const struct value *list = value_get(root, key);
    *out = -1;
    if (!list || list->kind == VALUE_NONE)
        return ST_OK;
    if ((list->kind != VALUE_LIST && list->kind != VALUE_TUPLE) || list->list.n == 0 ||
        !value_number(list->list.items[0], out) || !(*out >= 0 && *out < INFINITY))
        return err_set(err, ST_INPUT, "\"%s\": \"%s\" does not begin with a learning rate", path, key);
    return ST_OK;
}

static enum status read_root(const struct value *root, const char *path, struct scheduler_state *s,
                             struct err *err)
{
    double last_epoch = -1;
    if (!value_number(value_get(root, "last_epoch"), &last_epoch) ||
        !(last_epoch >= 0 && last_epoch < 1e15) || last_epoch != floor(last_epoch))
        return err_set(err, ST_INPUT, "\"%s\" holds no scheduler: no usable \"last_epoch\"", path);
    s->last_epoch = (int64_t)last_epoch;
    TRY(first_rate(root, path, "base_lrs", &s->base_lr, err));
    return first_rate(root, path, "_last_lr", &s->last_lr, err);
}

enum status scheduler_read(const char *path, struct scheduler_state *s, struct err *err)
{
    *s = (struct scheduler_state){0};
    struct torch_file f;
    TRY(torch_file_open(&f, path, err));
    enum status status = read_root(f.root, path, s, err);
    torch_file_close(&f);
    return status;
}
