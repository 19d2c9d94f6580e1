#include "machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double machine_process_age_s(void)
{
    char text[1024];
    unsigned long long start = 0;
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    /* The program's name may hold anything; the fields count from behind its last bracket: 3 is the next. */
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at || sscanf(at, " %llu", &start) != 1)
        return 0;
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - (double)start / (double)sysconf(_SC_CLK_TCK);
}

double machine_own_cpu_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double machine_busy_s(void)
{
    /* user, nice, system, idle, waiting, irq, softirq */
    unsigned long long t[7] = {0};
    FILE *f = fopen("/proc/stat", "re");
    int n =
        f ? fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu", t, t + 1, t + 2, t + 3, t + 4, t + 5, t + 6)
          : 0;
    if (f)
        fclose(f);
    return n == 7 ? (double)(t[0] + t[1] + t[2] + t[5] + t[6]) / (double)sysconf(_SC_CLK_TCK) : 0;
}

/* The number behind a field's name in a file of lines "Name: number ...". */
static long long number_of(const char *path, const char *name)
{
    char line[256];
    long long value = 0;
    size_t n = strlen(name);
    FILE *f = fopen(path, "re");
    while (f && !value && fgets(line, sizeof line, f))
        if (strncmp(line, name, n) == 0)
            sscanf(line + n, "%lld", &value);
    if (f)
        fclose(f);
    return value;
}

int64_t machine_pss_bytes(void)
{
    return (int64_t)number_of("/proc/self/smaps_rollup", "Pss:") * 1024;
}

int64_t machine_rss_bytes(void)
{
    return (int64_t)number_of("/proc/self/status", "VmRSS:") * 1024;
}

void machine_cpu_name(char *text, size_t n_bytes)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    text[0] = '\0';
    while (f && !text[0] && fgets(line, sizeof line, f)) {
        const char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (colon)
            snprintf(text, n_bytes, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f)
        fclose(f);
}
