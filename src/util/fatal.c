#include "util/fatal.h"
#include "util/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static void (*_Atomic fatal_hook)(int exit_code);

void fatal_set_hook(void (*hook)(int exit_code))
{
    atomic_store(&fatal_hook, hook);
}

_Noreturn void fatal(const struct err *err)
{
    static const struct err unknown = {.status = ST_DEFECT, .what = "ended without a recorded error"};
    if (!err || err->status == ST_OK)
        err = &unknown;
    log_err(err);
    fflush(stdout);
    /* Taken out, so that a hook that fails itself does not come back here for ever. */
    void (*hook)(int) = atomic_exchange(&fatal_hook, NULL);
    if (hook)
        hook((int)err->status);
    /* No atexit handlers: they belong to libraries whose state may be what is broken. */
    _exit((int)err->status);
}
