/* A plain model directory with the adapter merged in. */
#include "cli_internal.h"
#include "export.h"
#include "ranks.h"
#include "util/log.h"

#include <string.h>

static enum status run(struct options *o, const char *model_path, const char *merged, struct err *err)
{
    struct comm comm;
    struct model_path path;
    struct assembly s = {0};
    bool untied = false;
    TRY(argument_needed("--model_path", model_path, err));
    TRY(argument_needed("--merged", merged, err));
    strcpy(o->compute, "float32"); /* merging in bfloat16 would lose most of what LoRA adds */
    TRY(ranks_open_self(&comm, o, err));
    enum status st = model_path_resolve(&path, model_path, err);
    if (st == ST_OK)
        st = assembly_open_path(&s, &comm, o, &path, err);
    if (st == ST_OK)
        st = export_merged(&s, &path, merged, &untied, err);
    if (st == ST_OK && untied)
        log_info("the base ties input and output rows, the adapter trained them apart: the merged model has "
                 "a head of its own");
    if (st == ST_OK)
        log_info("merged model in %s", merged);
    assembly_close(&s);
    comm_close(&comm);
    return st;
}

int cmd_export(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    const char *model_path = NULL, *merged = NULL;
    const struct argument items[] = {
        {.name = "--model_path", .kind = ARG_TEXT, .value = &model_path},
        {.name = "--merged", .kind = ARG_TEXT, .value = &merged},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&o, model_path, merged, &err);
    return cli_end(st, &err);
}
