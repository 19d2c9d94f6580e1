/* Data set to packs, one file a stage. */
#include "cli_internal.h"
#include "stage_files.h"
#include "util/file.h"

static enum status run(struct options *o, const char *stage, const char *out, struct err *err)
{
    struct stage_data data;
    char path[PATH_BYTES];
    int first, last;
    TRY(argument_needed("--out", out, err));
    if (o->pack[0]) {
        err_set(err, ST_USAGE,
                "option pack names a pack to train from; this command makes packs from data_json");
        return err_hint(err, "take it away, or --set pack=");
    }
    argument_stages(stage, &first, &last);
    enum status st = stage_data_open(&data, o, &first, &last, err);
    for (int k = first; k <= last && st == ST_OK; k++)
        st = stage_pack_make(&data, o, k, out, path, err);
    stage_data_close(&data);
    return st;
}

int cmd_pack(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    const char *stage = "all", *out = NULL;
    const struct argument items[] = {
        {.name = "--data", .kind = ARG_OPTION, .words = "data_json"},
        {.name = "--model", .kind = ARG_OPTION, .words = "model"},
        {.name = "--stage", .kind = ARG_CHOICE, .value = &stage, .words = "1|2|3|all"},
        {.name = "--out", .kind = ARG_TEXT, .value = &out},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&o, stage, out, &err);
    return cli_end(st, &err);
}
