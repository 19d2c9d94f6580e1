#include "cli/cli.h"

#include <stdlib.h>
#include <unistd.h>

/* Threads of OpenMP that wait spin by default, and spinning threads of one rank take the cores that another
 * rank needs (13-24 times slower on two busy cores). libgomp reads its settings before main begins, so they
 * can only be set for a fresh start of the same program: a short spin, then sleep. */
static void wait_politely(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    setenv("OMP_WAIT_POLICY", "passive", 1);
    setenv("GOMP_SPINCOUNT", "10000", 1);
    execv("/proc/self/exe", argv); /* comes back only when it failed: then waiting costs more, nothing else */
}

int main(int argc, char **argv)
{
    wait_politely(argv);
    return cli_main(argc, argv);
}
