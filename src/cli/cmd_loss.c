/* Loss of each row of a pack. */
#include "assemble.h"
#include "cli_internal.h"
#include "measure.h"
#include "ranks.h"
#include "util/json.h"

#include <stdio.h>
#include <string.h>

struct request {
    const char *model_path, *pack, *group, *json;
};

/* Rows in order; the mean is over all labelled tokens. A row without labels has sum 0 and count 0. */
static enum status measure_all(struct model *m, struct pack *pack, enum pack_group group, int64_t n_rows,
                               json_t *out, struct err *err)
{
    json_t *rows = json_array();
    double total = 0;
    int64_t n_total = 0;
    json_object_set_new(out, "rows", rows);
    for (int64_t i = 0; i < n_rows; i++) {
        const int32_t *ids, *labels;
        int32_t n;
        double sum;
        int64_t n_labels;
        TRY(pack_row(pack, group, i, &ids, &labels, &n, err));
        enum status st = measure_row(m, ids, labels, n, &sum, &n_labels, err);
        if (st != ST_OK)
            return err_where(err, "row %lld", (long long)i);
        json_array_append_new(rows, json_pack("{s:I, s:f, s:I}", "row", (json_int_t)i, "loss_sum", sum,
                                              "n_labels", (json_int_t)n_labels));
        total += sum;
        n_total += n_labels;
    }
    json_object_set_new(out, "n_labels", json_integer(n_total));
    json_object_set_new(out, "loss", n_total ? json_real(total / (double)n_total) : json_null());
    return ST_OK;
}

static enum status measure(struct assembly *s, const struct request *r, json_t *out, struct err *err)
{
    struct pack *pack = NULL;
    struct pack_info info;
    enum pack_group group = strcmp(r->group, "eval") == 0 ? PACK_EVAL : PACK_TRAIN;
    TRY(pack_open(&pack, r->pack, &info, err));
    enum status st = ST_OK;
    if (info.vocab_size > model_vocab(s->model)) {
        st = err_set(err, ST_INPUT, "pack '%s' has ids up to %d, the model has %lld rows", r->pack,
                     info.vocab_size, (long long)model_vocab(s->model));
        err_hint(err, "the pack and the adapter do not belong together");
    }
    if (st == ST_OK)
        st = measure_all(s->model, pack, group, info.n_rows[group], out, err);
    pack_close(pack);
    return st;
}

static enum status run(struct options *o, const struct request *r, struct err *err)
{
    struct comm comm;
    struct model_path path;
    struct assembly s = {0};
    TRY(argument_needed("--model_path", r->model_path, err));
    TRY(argument_needed("--pack", r->pack, err));
    TRY(ranks_open_self(&comm, o, err));
    json_t *out = json_object();
    enum status st = model_path_resolve(&path, r->model_path, err);
    if (st == ST_OK)
        st = assembly_open_path(&s, &comm, o, &path, err);
    if (st == ST_OK)
        st = measure(&s, r, out, err);
    assembly_close(&s);
    if (st == ST_OK && r->json)
        st = json_write_file(r->json, out, false, err);
    if (st == ST_OK)
        printf("loss %.9g over %lld labelled tokens of %zu rows\n",
               json_number_value(json_object_get(out, "loss")),
               (long long)json_integer_value(json_object_get(out, "n_labels")),
               json_array_size(json_object_get(out, "rows")));
    json_decref(out);
    comm_close(&comm);
    return st;
}

int cmd_loss(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    struct request r = {.group = "train"};
    const struct argument items[] = {
        {.name = "--model_path", .kind = ARG_TEXT, .value = &r.model_path},
        {.name = "--pack", .kind = ARG_TEXT, .value = &r.pack},
        {.name = "--group", .kind = ARG_CHOICE, .value = &r.group, .words = "train|eval"},
        {.name = "--json", .kind = ARG_TEXT, .value = &r.json},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&o, &r, &err);
    return cli_end(st, &err);
}
