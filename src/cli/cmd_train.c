/* Training: on every rank the same command line, then the stage loop. */
#include "cli_internal.h"
#include "hub_client.h"
#include "hub_points.h"
#include "hub_restore.h"
#include "ranks.h"
#include "stages.h"
#include "util/clock.h"
#include "util/log.h"

#include <string.h>

static enum status check_device(const char *device, struct err *err)
{
    if (strcmp(device, "cuda") != 0)
        return ST_OK;
    err_set(err, ST_ENV, "--device cuda: this build has no CUDA plug-in");
    return err_hint(err, "use --device cpu or auto");
}

/* What the Hub has of this run and this machine has not. Rank 0. */
static enum status restore(const struct options *o, const struct stages_request *r, struct err *err)
{
    struct http *h;
    TRY(hub_client_open(&h, err));
    enum status st = h && !o->pack[0] ? hub_restore(h, o, r->first_stage, r->last_stage, err) : ST_OK;
    http_close(h);
    if (st == ST_NET)
        err_hint(err, "HF_HUB_OFFLINE=1 trains without looking at the Hub");
    return st;
}

/* Every rank forgets the token; rank 0 first takes it to the uploader. Collective. */
static enum status open_hub(struct hub_points *hub, struct comm *comm, const struct options *o,
                            const struct stages_request *r, struct err *err)
{
    const struct hub_token *token;
    enum status st = hub_client_token(&token, err);
    if (st == ST_OK && comm->rank == 0 && !r->dry_run && r->resume == RESUME_AUTO && token->text[0])
        st = restore(o, r, err);
    if (st == ST_OK && comm->rank == 0 && !r->dry_run)
        st = hub_points_open(hub, o, token, err);
    if (comm->rank != 0)
        hub_client_forget();
    return comm_agree(comm, st, err);
}

static enum status run(struct options *o, struct stages_request *r, const char *stage, const char *resume,
                       const char *device, struct err *err)
{
    struct comm comm;
    struct hub_points hub = {0};
    TRY(check_device(device, err));
    argument_stages(stage, &r->first_stage, &r->last_stage);
    r->resume = strcmp(resume, "auto") == 0   ? RESUME_AUTO
                : strcmp(resume, "none") == 0 ? RESUME_NONE
                                              : RESUME_DIR;
    r->resume_dir = resume;
    r->options = o;
    stop_install(); /* before the ranks meet: whoever is asked to stop meanwhile still ends with all others */
    TRY(ranks_open(&comm, o, err));
    r->hub = comm.rank == 0 ? &hub : NULL;
    enum status st = open_hub(&hub, &comm, o, r, err);
    if (st == ST_OK)
        st = stages_run(&comm, r, err);
    ranks_close(&comm, st, err);
    /* The other ranks are gone: uploads hold up nobody. */
    struct err waiting = ERR_INIT;
    enum status uploads = hub_points_close(&hub, st == ST_OK, &waiting);
    if (st == ST_OK && uploads != ST_OK) {
        *err = waiting;
        return uploads;
    }
    if (uploads != ST_OK)
        log_info("%s", waiting.what);
    return st;
}

int cmd_train(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    struct stages_request r = {.start_s = clock_s()};
    const char *stage = "all", *resume = "auto", *device = "auto";
    const struct argument items[] = {
        {.name = "--stage", .kind = ARG_CHOICE, .value = &stage, .words = "1|2|3|all"},
        {.name = "--device", .kind = ARG_CHOICE, .value = &device, .words = "auto|cpu|cuda"},
        {.name = "--resume", .kind = ARG_TEXT, .value = &resume},
        {.name = "--dry-run", .kind = ARG_FLAG, .value = &r.dry_run},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&o, &r, stage, resume, device, &err);
    return cli_end(st, &err);
}
