/* Limits of control groups, read from small copies of what the kernel shows. */
#include "support/scratch.h"
#include "util/clock.h"
#include "util_internal.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch s;

static int open_scratch(void **unused)
{
    scratch_open(&s);
    return 0;
}

static int close_scratch(void **unused)
{
    scratch_close(&s);
    return 0;
}

#define MAX_FILES 6

struct machine {
    const char *what;
    const char *cgroup, *mountinfo; /* /proc/self/... */
    struct {
        const char *path, *text;
    } files[MAX_FILES];
    int64_t memory_bytes;
    int cpus;
};

#define V2_MOUNT "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNTS                                                                                            \
    "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"                                    \
    "32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"

static const struct machine machines[] = {
    {.what = "nothing known", .memory_bytes = -1, .cpus = 0},
    {.what = "version 2, no limit",
     .cgroup = "0::/user.slice\n",
     .mountinfo = V2_MOUNT,
     .files = {{"/sys/fs/cgroup/user.slice/memory.max", "max\n"},
               {"/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"}},
     .memory_bytes = -1,
     .cpus = 0},
    {.what = "version 2, the tightest of the ancestors",
     .cgroup = "0::/job/step/task\n",
     .mountinfo = "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n" V2_MOUNT,
     .files = {{"/sys/fs/cgroup/job/step/task/memory.max", "max\n"},
               {"/sys/fs/cgroup/job/step/memory.max", "2000000\n"},
               {"/sys/fs/cgroup/job/memory.max", "3000000\n"},
               {"/sys/fs/cgroup/job/step/task/cpu.max", "800000 100000\n"},
               {"/sys/fs/cgroup/job/cpu.max", "390000 100000\n"}},
     .memory_bytes = 2000000,
     .cpus = 3},
    {.what = "version 2 in a container that sees its own group as root",
     .cgroup = "0::/\n",
     .mountinfo = V2_MOUNT,
     .files = {{"/sys/fs/cgroup/memory.max", "5000\n"}, {"/sys/fs/cgroup/cpu.max", "50000 100000\n"}},
     .memory_bytes = 5000,
     .cpus = 1},
    {.what = "version 1",
     .cgroup = "4:memory:/slurm/job_7\n2:cpu,cpuacct:/slurm/job_7\n",
     .mountinfo = V1_MOUNTS,
     .files = {{"/sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "9223372036854771712\n"},
               {"/sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", "123456789\n"},
               {"/sys/fs/cgroup/cpu/slurm/job_7/cpu.cfs_quota_us", "-1\n"},
               {"/sys/fs/cgroup/cpu/slurm/job_7/cpu.cfs_period_us", "100000\n"},
               {"/sys/fs/cgroup/cpu/slurm/cpu.cfs_quota_us", "200000\n"},
               {"/sys/fs/cgroup/cpu/slurm/cpu.cfs_period_us", "100000\n"}},
     .memory_bytes = 123456789,
     .cpus = 2},
    {.what = "version 1 in a container whose mount starts at its own group",
     .cgroup = "4:memory:/docker/abc\n",
     .mountinfo = "32 30 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
     .files = {{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "777\n"}},
     .memory_bytes = 777,
     .cpus = 0},
    {.what = "version 1 in a container that sees the path from outside",
     .cgroup = "4:memory:/docker/abc\n",
     .mountinfo = "32 30 0:28 /elsewhere /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
     .files = {{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "778\n"}},
     .memory_bytes = 778,
     .cpus = 0},
    {.what = "both versions, the tighter one",
     .cgroup = "4:memory:/a\n0::/b\n",
     .mountinfo = V2_MOUNT "32 30 0:28 / /mnt/memory rw - cgroup cgroup rw,memory\n",
     .files = {{"/mnt/memory/a/memory.limit_in_bytes", "100\n"}, {"/sys/fs/cgroup/b/memory.max", "200\n"}},
     .memory_bytes = 100,
     .cpus = 0},
    {.what = "nonsense",
     .cgroup = "4:memory\n:::\n\n0::/../..\n0",
     .mountinfo = "- - -\n\n30 24\n" V2_MOUNT "x - cgroup2\n",
     .files = {{"/sys/fs/cgroup/memory.max", "many\n"}, {"/sys/fs/cgroup/cpu.max", "-5 0\n"}},
     .memory_bytes = -1,
     .cpus = 0},
};

static void put(const char *root, const char *path, const char *text)
{
    char full[PATH_BYTES], dir[PATH_BYTES];
    assert_int_equal(path_join(full, root, path, NULL), ST_OK);
    strcpy(dir, full);
    *strrchr(dir, '/') = '\0';
    assert_int_equal(dir_make(dir, NULL), ST_OK);
    assert_int_equal(file_write(full, text, strlen(text), NULL), ST_OK);
}

static void control_groups(void **unused)
{
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        const struct machine *m = &machines[i];
        char name[32];
        snprintf(name, sizeof name, "m%zu", i);
        const char *root = scratch_path(&s, name);
        if (m->cgroup)
            put(root, "/proc/self/cgroup", m->cgroup);
        if (m->mountinfo)
            put(root, "/proc/self/mountinfo", m->mountinfo);
        for (int k = 0; k < MAX_FILES && m->files[k].path; k++)
            put(root, m->files[k].path, m->files[k].text);
        int64_t memory_bytes = util__cgroup_memory_bytes(root);
        int cpus = util__cgroup_cpus(root);
        if (memory_bytes != m->memory_bytes || cpus != m->cpus)
            fail_msg("%s: %lld bytes, %d processors", m->what, (long long)memory_bytes, cpus);
    }
}

static void this_machine(void **unused)
{
    assert_true(memory_limit_bytes() > 1 << 20);
    assert_true(memory_limit_bytes() <= (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int count = cpu_count();
    assert_in_range(count, 1, CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(cpu_count(), count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_groups),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, open_scratch, close_scratch);
}
