/* Text to motion tokens. */
#include "cli_internal.h"
#include "generation_files.h"
#include "prompts.h"
#include "ranks.h"
#include "util/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SAMPLES      1000000
#define NAMES_IN_MESSAGE 5

struct request {
    const char *model_path, *prompt, *prompts, *participant, *output;
    int64_t n;
    bool greedy, per_prompt_vocab;
};

/* Samples lie prompt by prompt: sample k of prompt i at i * n + k. */
struct job {
    const struct request *request;
    struct prompts prompts;
    struct generate_request *samples;
    struct generation *results;
    int32_t n_samples;
};

static enum status read_prompts(struct job *j, struct err *err)
{
    const struct request *r = j->request;
    TRY(argument_needed("--model_path", r->model_path, err));
    if (!r->prompt == !r->prompts)
        return err_set(err, ST_USAGE, "%s",
                       r->prompt ? "--prompt and --prompts are both given"
                                 : "--prompt or --prompts is missing");
    TRY(r->prompt ? prompts_one(&j->prompts, r->prompt, err) : prompts_read(&j->prompts, r->prompts, err));
    if (j->prompts.n * r->n > MAX_SAMPLES)
        return err_set(err, ST_USAGE, "%d prompts with %lld samples each are more than %d samples",
                       j->prompts.n, (long long)r->n, MAX_SAMPLES);
    j->n_samples = (int32_t)(j->prompts.n * r->n);
    return ST_OK;
}

static enum status find_participant(const struct motion_vocab *v, const char *name, int32_t *out,
                                    struct err *err)
{
    *out = name ? motion_vocab_participant(v, name) : -1;
    if (!name || *out >= 0)
        return ST_OK;
    err_set(err, ST_USAGE, "--participant_id '%.60s' is not known to the model", name);
    if (v->n_participants == 0)
        return err_hint(err, "its data set names no participants: leave --participant_id out");
    struct buf names = BUF_INIT;
    int32_t n = v->n_participants < NAMES_IN_MESSAGE ? v->n_participants : NAMES_IN_MESSAGE;
    enum status st = ST_OK;
    for (int32_t i = 0; i < n && st == ST_OK; i++)
        st = buf_printf(&names, NULL, "%s'%.60s'", i ? ", " : "", v->participants[i]);
    if (n < v->n_participants && st == ST_OK)
        st = buf_printf(&names, NULL, " and %d more", v->n_participants - n);
    if (st == ST_OK)
        err_hint(err, "it knows %s", names.data);
    buf_release(&names);
    return ST_USAGE;
}

static enum status number_samples(struct job *j, int32_t participant, struct err *err)
{
    int32_t n = (int32_t)j->request->n;
    uint32_t *streams = calloc((size_t)j->prompts.n, sizeof *streams);
    j->samples = calloc((size_t)j->n_samples, sizeof *j->samples);
    j->results = calloc((size_t)j->n_samples, sizeof *j->results);
    enum status st = streams && j->samples && j->results
                         ? prompts_streams(&j->prompts, (uint32_t)n, streams, err)
                         : err_memory(err, "samples", (size_t)j->n_samples);
    for (int32_t i = 0; i < j->n_samples && st == ST_OK; i++)
        j->samples[i] = (struct generate_request){.text = j->prompts.items[i / n],
                                                  .participant = participant,
                                                  .index = streams[i / n] + (uint32_t)(i % n)};
    free(streams);
    return st;
}

static enum status put_motion(const struct generation *g, struct buf *out, struct err *err)
{
    for (int32_t i = 0; i < g->n_motion; i++)
        TRY(buf_printf(out, err, "%s%d", i ? " " : "", g->motion[i]));
    return ST_OK;
}

static enum status put_lines(const struct job *j, struct buf *out, struct err *err)
{
    for (int32_t i = 0; i < j->n_samples; i++) {
        TRY(put_motion(&j->results[i], out, err));
        TRY(buf_puts(out, "\n", err));
    }
    return ST_OK;
}

static enum status list_samples(const struct job *j, json_t *list, struct buf *scratch, struct err *err)
{
    for (int32_t i = 0; i < j->n_samples; i++) {
        const struct generation *g = &j->results[i];
        buf_clear(scratch);
        TRY(put_motion(g, scratch, err));
        if (json_array_append_new(
                list, json_pack("{s:s, s:s?, s:s, s:i, s:f, s:b}", "prompt", j->samples[i].text,
                                "participant_id", j->request->participant, "motion_tokens", scratch->data,
                                "n_tokens", g->n_motion, "logprob", g->logprob, "ended", g->ended)))
            return err_memory(err, "the result", scratch->n_bytes);
    }
    return ST_OK;
}

static enum status put_json(const struct job *j, struct buf *out, struct err *err)
{
    struct buf scratch = BUF_INIT;
    json_t *list = json_array();
    enum status st = list ? list_samples(j, list, &scratch, err) : err_memory(err, "the result", 0);
    char *text = st == ST_OK ? json_dumps(list, JSON_INDENT(2)) : NULL;
    json_decref(list);
    buf_release(&scratch);
    TRY(st);
    st = text ? buf_printf(out, err, "%s\n", text) : err_memory(err, "the result", 0);
    free(text);
    return st;
}

static enum status generate_all(struct job *j, struct comm *comm, const struct options *o, struct err *err)
{
    struct model_path path;
    struct generation_files files;
    struct assembly s = {0};
    struct sampler sampler;
    int32_t participant;
    TRY(model_path_resolve(&path, j->request->model_path, err));
    TRY(generation_files_open(&files, &path, err));
    sampler_from_options(&sampler, o);
    sampler.greedy = j->request->greedy;
    sampler.per_prompt_vocab = j->request->per_prompt_vocab;
    enum status st = find_participant(&files.vocab, j->request->participant, &participant, err);
    if (st == ST_OK)
        st = number_samples(j, participant, err);
    if (st == ST_OK)
        st = assembly_open_path(&s, comm, o, &path, err);
    if (st == ST_OK)
        st = generate_motion(s.model, files.template, &files.vocab, &sampler, j->samples, j->n_samples,
                             j->results, err);
    assembly_close(&s);
    generation_files_close(&files);
    return st;
}

/* The output file is opened before the work begins: a directory that is not there costs nothing. */
static enum status generate_and_write(struct job *j, struct comm *comm, const struct options *o,
                                      struct err *err)
{
    struct file_writer w;
    struct buf text = BUF_INIT;
    const char *output = j->request->output;
    size_t n = output ? strlen(output) : 0;
    bool json = n > 5 && strcmp(output + n - 5, ".json") == 0;
    if (output)
        TRY(file_writer_open(&w, output, err));
    enum status st = generate_all(j, comm, o, err);
    if (st == ST_OK)
        st = json ? put_json(j, &text, err) : put_lines(j, &text, err);
    if (st == ST_OK && output)
        st = file_writer_put(&w, text.data, text.n_bytes, err);
    else if (st == ST_OK)
        fwrite(text.data, 1, text.n_bytes, stdout);
    if (output && st == ST_OK)
        st = file_writer_commit(&w, err);
    else if (output)
        file_writer_abort(&w);
    buf_release(&text);
    return st;
}

static enum status run(struct options *o, const struct request *r, struct err *err)
{
    struct comm comm;
    struct job j = {.request = r};
    enum status st = read_prompts(&j, err);
    if (st == ST_OK)
        st = ranks_open_self(&comm, o, err);
    if (st == ST_OK) {
        st = generate_and_write(&j, &comm, o, err);
        comm_close(&comm);
    }
    for (int32_t i = 0; i < j.n_samples && j.results; i++)
        generation_release(&j.results[i]);
    free(j.results);
    free(j.samples);
    prompts_release(&j.prompts);
    return st;
}

int cmd_generate(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    struct request r = {.n = 1, .per_prompt_vocab = true};
    const struct argument items[] = {
        {.name = "--model_path", .kind = ARG_TEXT, .value = &r.model_path},
        {.name = "--prompt", .kind = ARG_TEXT, .value = &r.prompt},
        {.name = "--prompts", .kind = ARG_TEXT, .value = &r.prompts},
        {.name = "--participant_id", .kind = ARG_TEXT, .value = &r.participant},
        {.name = "--n", .kind = ARG_INTEGER, .value = &r.n, .min = 1, .max = MAX_SAMPLES},
        {.name = "--output", .kind = ARG_TEXT, .value = &r.output},
        {.name = "--max_new_tokens", .kind = ARG_OPTION, .words = "gen_max_new_tokens"},
        {.name = "--temperature", .kind = ARG_OPTION, .words = "gen_temperature"},
        {.name = "--top_p", .kind = ARG_OPTION, .words = "gen_top_p"},
        {.name = "--seed", .kind = ARG_OPTION, .words = "seed"},
        {.name = "--per_prompt_vocab", .kind = ARG_BOOL, .value = &r.per_prompt_vocab},
        {.name = "--greedy", .kind = ARG_FLAG, .value = &r.greedy},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&o, &r, &err);
    return cli_end(st, &err);
}
