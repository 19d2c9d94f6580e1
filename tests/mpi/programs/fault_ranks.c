/* Ranks that misbehave; check_faults.sh looks at what the others say.
 *   stop   the last rank stops itself before a barrier
 *   apart  the last rank is in another collective than the others
 *   agree  the last rank fails alone, all end with its message
 *   open   does nothing between open and close */
#include "comm/comm.h"
#include "util/fatal.h"
#include "util/log.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

static enum status misbehave(struct comm *c, const char *how, struct err *err)
{
    bool last = c->rank == c->world_size - 1;
    int x = 0;
    if (strcmp(how, "stop") == 0) {
        if (last)
            raise(SIGSTOP);
        return c->ops->barrier(c, err);
    }
    if (strcmp(how, "apart") == 0)
        return last ? c->ops->bcast(c, 0, &x, sizeof x, err) : c->ops->barrier(c, err);
    if (strcmp(how, "agree") == 0) {
        enum status st = comm_agree(c, last ? err_set(err, ST_INPUT, "tensor \"a\" is missing") : ST_OK, err);
        return comm_agree(c, st, err); /* as callers on several levels do: the first place stands */
    }
    return ST_OK;
}

int main(int argc, char **argv)
{
    struct comm c;
    struct err err = ERR_INIT;
    enum status st = comm_open(&c, "auto", &err);
    if (st != ST_OK) {
        log_err(&err);
        return (int)st;
    }
    comm_set_timeout(&c, 1.0);
    st = misbehave(&c, argc > 1 ? argv[1] : "open", &err);
    if (st != ST_OK && c.rank == 0)
        fprintf(stderr, "all end: %s\n", err.what);
    comm_close(&c);
    return (int)st;
}
