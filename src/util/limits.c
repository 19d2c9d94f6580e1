/* What of this machine's memory and processors is ours. */
#include "util/clock.h"
#include "util_internal.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LIMITS_PATH_BYTES 8192

int64_t peak_rss_bytes(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    if (f) {
        char line[256];
        long long kib = -1;
        while (kib < 0 && fgets(line, sizeof line, f))
            if (sscanf(line, "VmHWM: %lld", &kib) != 1)
                kib = -1;
        fclose(f);
        if (kib >= 0)
            return (int64_t)kib * 1024;
    }
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

/* One mounted cgroup hierarchy and the place of this process in it. */
struct cgroup_place {
    char dir[LIMITS_PATH_BYTES]; /* of this process, on the file system */
    size_t n_mount;              /* bytes of dir that are the mount point: no higher directory is looked at */
    bool is_v2;
};

static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; *p;) {
        size_t length = strcspn(p, ",\n");
        if (length == n && strncmp(p, word, n) == 0)
            return true;
        p += length;
        p += *p != '\0';
    }
    return false;
}

/* The line "id:controllers:path" of /proc/self/cgroup; the line of version 2 has no controllers. */
static bool cgroup_own_path(const char *root, const char *controller, bool is_v2, char *out, size_t size)
{
    char path[LIMITS_PATH_BYTES], line[LIMITS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *place = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!place)
            continue;
        *place++ = '\0';
        controllers++;
        found = is_v2 ? controllers[0] == '\0' : list_has(controllers, controller);
        if (found)
            found = snprintf(out, size, "%s", place) < (int)size;
    }
    fclose(f);
    return found;
}

/* Fills place from one line of mountinfo: "... root mount-point ... - type source options". In a container
 * the mount's root is often not "/" and our path is seen from outside; then the mount point itself is our
 * group. */
static bool cgroup_mount_line(const char *root, char *line, const char *controller,
                              struct cgroup_place *place)
{
    char *tail = strstr(line, " - ");
    char mount_root[2048], mount_point[2048], type[32], options[1024], own[2048];
    if (!tail || sscanf(line, "%*s %*s %*s %2047s %2047s", mount_root, mount_point) != 2)
        return false;
    if (sscanf(tail, " - %31s %*s %1023s", type, options) != 2)
        return false;
    place->is_v2 = strcmp(type, "cgroup2") == 0;
    if (!place->is_v2 && (strcmp(type, "cgroup") != 0 || !list_has(options, controller)))
        return false;
    if (!cgroup_own_path(root, controller, place->is_v2, own, sizeof own))
        return false;
    size_t n_root = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);
    const char *rest = "";
    if (strncmp(own, mount_root, n_root) == 0 && (own[n_root] == '/' || own[n_root] == '\0'))
        rest = own + n_root;
    if (strcmp(rest, "/") == 0 || strstr(rest, "/.."))
        rest = "";
    place->n_mount = strlen(root) + strlen(mount_point);
    return snprintf(place->dir, sizeof place->dir, "%s%s%s", root, mount_point, rest) <
           (int)sizeof place->dir;
}

/* Calls visit for the group of this process and each group above it, in every hierarchy that knows
 * controller. */
static void cgroup_walk(const char *root, const char *controller,
                        void (*visit)(const char *dir, bool is_v2, void *out), void *out)
{
    char path[LIMITS_PATH_BYTES], line[LIMITS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    struct cgroup_place place;
    while (fgets(line, sizeof line, f)) {
        if (!cgroup_mount_line(root, line, controller, &place))
            continue;
        size_t n = strlen(place.dir);
        for (;;) {
            visit(place.dir, place.is_v2, out);
            while (n > place.n_mount && place.dir[n - 1] != '/')
                n--;
            if (n <= place.n_mount)
                break;
            place.dir[--n] = '\0';
        }
    }
    fclose(f);
}

/* How many of the numbers a and b the first line of dir/name holds; "max" ends the line, as no limit does. */
static int read_numbers(const char *dir, const char *name, long long *a, long long *b)
{
    char path[LIMITS_PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    int n = fscanf(f, "%lld %lld", a, b);
    fclose(f);
    return n < 0 ? 0 : n;
}

static void visit_memory(const char *dir, bool is_v2, void *out)
{
    int64_t *limit = out;
    long long bytes, unused;
    /* Version 1 writes "no limit" as a number near 2^63; it never is the smaller one. */
    if (read_numbers(dir, is_v2 ? "memory.max" : "memory.limit_in_bytes", &bytes, &unused) < 1 || bytes <= 0)
        return;
    if (*limit < 0 || bytes < *limit)
        *limit = bytes;
}

int64_t util__cgroup_memory_bytes(const char *root)
{
    int64_t limit = -1;
    cgroup_walk(root, "memory", visit_memory, &limit);
    return limit;
}

static void visit_cpus(const char *dir, bool is_v2, void *out)
{
    int *cpus = out;
    long long quota = -1, period = -1, unused;
    if (is_v2) {
        if (read_numbers(dir, "cpu.max", &quota, &period) < 2)
            return;
    } else if (read_numbers(dir, "cpu.cfs_quota_us", &quota, &unused) < 1 ||
               read_numbers(dir, "cpu.cfs_period_us", &period, &unused) < 1) {
        return;
    }
    if (quota <= 0 || period <= 0)
        return;
    /* Rounded down: one thread more than the quota carries makes all of them wait at each barrier. */
    long long whole = quota / period;
    if (whole < 1)
        whole = 1;
    if (whole < INT_MAX && (*cpus == 0 || whole < *cpus))
        *cpus = (int)whole;
}

int util__cgroup_cpus(const char *root)
{
    int cpus = 0;
    cgroup_walk(root, "cpu", visit_cpus, &cpus);
    return cpus;
}

int64_t memory_limit_bytes(void)
{
    int64_t pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    int64_t limit =
        pages > 0 && page_bytes > 0 && pages < INT64_MAX / page_bytes ? pages * page_bytes : INT64_MAX;
    int64_t group = util__cgroup_memory_bytes("");
    return group > 0 && group < limit ? group : limit;
}

static int affinity_cpus(void)
{
    /* The kernel refuses masks smaller than its own number of processors, so it is asked with larger ones. */
    for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)n_cpus);
        if (!set)
            break;
        size_t n_bytes = CPU_ALLOC_SIZE((size_t)n_cpus);
        int count = sched_getaffinity(0, n_bytes, set) == 0 ? CPU_COUNT_S(n_bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

int cpu_count(void)
{
    int count = affinity_cpus();
    int quota = util__cgroup_cpus("");
    return quota > 0 && quota < count ? quota : count;
}
