/* Plain continuation of a text or of id lists, without the rules of motion. */
#include "cli_internal.h"
#include "generation_files.h"
#include "ranks.h"
#include "util/json.h"

#include <stdio.h>
#include <string.h>

#define MAX_IDS_BYTES    ((size_t)256 << 20)
#define MAX_CONFIG_BYTES ((size_t)1 << 20)
#define MAX_STOP_IDS     64

struct request {
    const char *model_path, *text, *ids, *json;
    bool greedy;
};

struct job {
    const struct request *request;
    struct model_path path;
    struct tokenizer *tokenizer; /* for --text only: id lists need none */
    json_t *inputs;              /* list of id lists */
    int32_t stop_ids[MAX_STOP_IDS];
    int32_t n_stop;
};

static enum status to_ids(const json_t *list, struct ids *ids, struct err *err)
{
    ids_clear(ids);
    if (!json_is_array(list) || json_array_size(list) == 0)
        return err_set(err, ST_INPUT, "not a list of ids with something in it");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return err_set(err, ST_INPUT, "id %zu is not a whole number from 0 to %d", i, INT32_MAX);
        TRY(ids_push(ids, (int32_t)json_integer_value(id), err));
    }
    return ST_OK;
}

static json_t *from_ids(const struct ids *ids)
{
    json_t *list = json_array();
    for (int i = 0; list && i < ids->n; i++)
        json_array_append_new(list, json_integer(ids->data[i]));
    return list;
}

/* The text as transformers would encode it, with what the post-processor puts in front. */
static enum status encode_text(struct job *j, struct err *err)
{
    struct ids ids = IDS_INIT;
    const char *text = j->request->text;
    TRY(tokenizer_open(&j->tokenizer, tokenizer_dir_of(&j->path), err));
    enum status st =
        tokenizer_encode(j->tokenizer, text, strlen(text), ENCODE_ADDED | ENCODE_SPECIAL, &ids, err);
    if (st == ST_OK)
        json_array_append_new(j->inputs, from_ids(&ids));
    ids_release(&ids);
    return st;
}

static enum status read_lists(struct job *j, struct err *err)
{
    struct ids ids = IDS_INIT;
    const char *file = j->request->ids;
    TRY(json_read_file(&j->inputs, file, MAX_IDS_BYTES, err));
    enum status st = ST_OK;
    if (!json_is_array(j->inputs))
        st = err_set(err, ST_INPUT, "\"%s\": not a JSON list of id lists", file);
    for (size_t i = 0; i < json_array_size(j->inputs) && st == ST_OK; i++) {
        st = to_ids(json_array_get(j->inputs, i), &ids, err);
        if (st != ST_OK)
            err_where(err, "\"%s\": item %zu", file, i);
    }
    ids_release(&ids);
    return st;
}

static enum status add_stop(struct job *j, const json_t *id, const char *path, struct err *err)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX ||
        j->n_stop == MAX_STOP_IDS)
        return err_set(err, ST_INPUT, "\"%s\": eos_token_id is neither an id nor a short list of ids", path);
    j->stop_ids[j->n_stop++] = (int32_t)json_integer_value(id);
    return ST_OK;
}

/* As transformers' generate: eos_token_id of generation_config.json, or of config.json without that file. */
static enum status read_stops(struct job *j, const struct arch *a, struct err *err)
{
    char path[PATH_BYTES];
    json_t *config;
    TRY(path_join(path, j->path.model_dir, "generation_config.json", err));
    if (!file_exists(path)) {
        memcpy(j->stop_ids, a->eos_ids, (size_t)a->n_eos_ids * sizeof *a->eos_ids);
        j->n_stop = a->n_eos_ids;
        return ST_OK;
    }
    TRY(json_read_file(&config, path, MAX_CONFIG_BYTES, err));
    const json_t *eos = json_object_get(config, "eos_token_id");
    enum status st = ST_OK;
    if (json_is_array(eos))
        for (size_t i = 0; i < json_array_size(eos) && st == ST_OK; i++)
            st = add_stop(j, json_array_get(eos, i), path, err);
    else if (eos && !json_is_null(eos))
        st = add_stop(j, eos, path, err);
    json_decref(config);
    return st;
}

static enum status complete_all(const struct job *j, struct model *m, const struct sampler *s, json_t *out,
                                struct err *err)
{
    struct ids in = IDS_INIT, new_ids = IDS_INIT;
    enum status st = ST_OK;
    for (size_t i = 0; i < json_array_size(j->inputs) && st == ST_OK; i++) {
        double logprob;
        st = to_ids(json_array_get(j->inputs, i), &in, err);
        if (st == ST_OK)
            st = generate_plain(m, in.data, in.n, j->stop_ids, j->n_stop, s, &new_ids, &logprob, err);
        if (st == ST_OK)
            json_array_append_new(out,
                                  json_pack("{s:o, s:f}", "ids", from_ids(&new_ids), "logprob", logprob));
        else if (json_array_size(j->inputs) > 1)
            err_where(err, "item %zu", i);
    }
    ids_release(&in);
    ids_release(&new_ids);
    return st;
}

/* Ids that the tokenizer has no token for (a model may have more rows) have no text. */
static enum status print_text(const struct tokenizer *t, const json_t *item, struct err *err)
{
    struct ids all = IDS_INIT, known = IDS_INIT;
    struct buf text = BUF_INIT;
    enum status st = to_ids(json_object_get(item, "ids"), &all, err);
    for (int i = 0; i < all.n && st == ST_OK; i++)
        if (tokenizer_token(t, all.data[i]))
            st = ids_push(&known, all.data[i], err);
    if (st == ST_OK)
        st = tokenizer_decode(t, known.data, known.n, true, &text, err);
    if (st == ST_OK)
        printf("%s\n", text.data ? text.data : "");
    buf_release(&text);
    ids_release(&all);
    ids_release(&known);
    return st;
}

static void print_ids(const json_t *item)
{
    const json_t *ids = json_object_get(item, "ids");
    for (size_t i = 0; i < json_array_size(ids); i++)
        printf("%s%lld", i ? " " : "", (long long)json_integer_value(json_array_get(ids, i)));
    printf("\n");
}

static enum status deliver(const struct job *j, const json_t *out, struct err *err)
{
    if (j->request->json)
        return json_write_file(j->request->json, out, false, err);
    for (size_t i = 0; i < json_array_size(out); i++) {
        if (j->tokenizer)
            TRY(print_text(j->tokenizer, json_array_get(out, i), err));
        else
            print_ids(json_array_get(out, i));
    }
    return ST_OK;
}

static enum status complete(struct job *j, struct comm *comm, const struct options *o, struct err *err)
{
    struct assembly s = {0};
    struct sampler sampler;
    TRY(model_path_resolve(&j->path, j->request->model_path, err));
    if (j->request->text)
        TRY(encode_text(j, err));
    sampler_from_options(&sampler, o);
    sampler.greedy = j->request->greedy;
    json_t *out = json_array();
    enum status st = assembly_open_path(&s, comm, o, &j->path, err);
    if (st == ST_OK)
        st = read_stops(j, &s.arch, err);
    if (st == ST_OK)
        st = complete_all(j, s.model, &sampler, out, err);
    assembly_close(&s);
    if (st == ST_OK)
        st = deliver(j, out, err);
    json_decref(out);
    return st;
}

static enum status run(struct options *o, const struct request *r, struct err *err)
{
    struct comm comm;
    struct job j = {.request = r};
    TRY(argument_needed("--model_path", r->model_path, err));
    if (!r->text == !r->ids)
        return err_set(err, ST_USAGE, "%s",
                       r->text ? "--text and --ids are both given" : "--text or --ids is missing");
    TRY(ranks_open_self(&comm, o, err));
    enum status st = ST_OK;
    if (r->ids)
        st = read_lists(&j, err);
    else
        j.inputs = json_array();
    if (st == ST_OK)
        st = complete(&j, &comm, o, err);
    tokenizer_close(j.tokenizer);
    json_decref(j.inputs);
    comm_close(&comm);
    return st;
}

int cmd_complete(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    struct request r = {0};
    const struct argument items[] = {
        {.name = "--model_path", .kind = ARG_TEXT, .value = &r.model_path},
        {.name = "--text", .kind = ARG_TEXT, .value = &r.text},
        {.name = "--ids", .kind = ARG_TEXT, .value = &r.ids},
        {.name = "--max_new_tokens", .kind = ARG_OPTION, .words = "gen_max_new_tokens"},
        {.name = "--greedy", .kind = ARG_FLAG, .value = &r.greedy},
        {.name = "--json", .kind = ARG_TEXT, .value = &r.json},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&o, &r, &err);
    return cli_end(st, &err);
}
