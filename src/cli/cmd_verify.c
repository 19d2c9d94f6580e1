/* Comparison with recorded reference runs. */
#include "cli_internal.h"
#include "golden.h"
#include "ranks.h"
#include "util/file.h"
#include "util/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

/* Prints the table; how many measures are over their limit. */
static int print_result(const struct golden_result *r, json_t *out)
{
    int n_over = 0;
    printf("%-16s %12s %12s %12s %10s\n", "measure", "difference", "HF's noise", "limit", "compared");
    for (int i = 0; i < N_GOLDEN_MEASURES; i++) {
        if (!r->present[i])
            continue;
        bool over = !(r->difference[i] <= r->limit[i]);
        char noise[32] = "-";
        if (isfinite(r->noise[i]))
            snprintf(noise, sizeof noise, "%.2e", r->noise[i]);
        printf("%-16s %12.2e %12s %12.2e %10lld%s\n", golden_name((enum golden_measure)i), r->difference[i],
               noise, r->limit[i], (long long)r->count[i], over ? "  OVER" : "");
        n_over += over;
        json_object_set_new(out, golden_name((enum golden_measure)i),
                            json_pack("{s:o, s:o, s:f, s:I}", "difference", number(r->difference[i]), "noise",
                                      number(r->noise[i]), "limit", r->limit[i], "compared",
                                      (json_int_t)r->count[i]));
    }
    return n_over;
}

static enum status run(struct options *o, const char *dir, const char *json, struct err *err)
{
    struct comm comm;
    struct golden_result result;
    char out_dir[] = "/tmp/smgpt-verify-XXXXXX";
    TRY(argument_needed("--against", dir, err));
    if (!mkdtemp(out_dir))
        return err_errno(err, ST_ENV, "cannot make a temporary directory '%s'", out_dir);
    TRY(ranks_open_self(&comm, o, err));
    enum status st = golden_check(dir, out_dir, &comm, o, &result, err);
    dir_remove(out_dir, NULL);
    comm_close(&comm);
    TRY(st);
    json_t *out = json_object();
    int n_over = print_result(&result, out);
    if (json)
        st = json_write_file(json, out, false, err);
    json_decref(out);
    if (st == ST_OK && n_over)
        st = err_set(err, ST_DEFECT, "%d measures are over their limits", n_over);
    return st;
}

int cmd_verify(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    const char *dir = NULL, *json = NULL;
    const struct argument items[] = {
        {.name = "--against", .kind = ARG_TEXT, .value = &dir},
        {.name = "--json", .kind = ARG_TEXT, .value = &json},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&o, dir, json, &err);
    return cli_end(st, &err);
}
