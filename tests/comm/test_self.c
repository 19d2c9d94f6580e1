/* The table of one rank, and how a table is chosen. */
#include "comm/comm.h"
#include "util/buf.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void clear_launcher(void)
{
    static const char *const names[] = {
        "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
}

static void test_choice(void **state)
{
    clear_launcher();
    struct comm c;
    struct err err = ERR_INIT;
    assert_int_equal(comm_open(&c, "auto", &err), ST_OK);
    assert_string_equal(c.ops->name, "self");
    assert_int_equal(c.world_size, 1);
    assert_int_equal(c.local_size, 1);
    assert_int_equal(c.n_nodes, 1);
    assert_true(c.host[0] != '\0');
    comm_close(&c);

    /* A batch script has Slurm's variables too, without being a step of several tasks. */
    setenv("SLURM_PROCID", "0", 1);
    setenv("SLURM_NTASKS", "8", 1);
    assert_int_equal(comm_open(&c, "auto", &err), ST_OK);
    assert_string_equal(c.ops->name, "self");
    comm_close(&c);
    unsetenv("SLURM_NTASKS");
    clear_launcher();

    assert_int_equal(comm_open(&c, "carrier-pigeon", &err), ST_USAGE);
    assert_non_null(strstr(err.what, "carrier-pigeon"));
}

static void test_copies(void **state)
{
    struct comm c;
    struct err err = ERR_INIT;
    assert_int_equal(comm_open_self(&c, &err), ST_OK);
    struct buf part = BUF_INIT, out = BUF_INIT;
    assert_int_equal(buf_puts(&out, "old", &err), ST_OK);
    assert_int_equal(c.ops->scatter(&c, &part, &out, &err), ST_OK);
    assert_int_equal(out.n_bytes, 0);
    assert_int_equal(buf_puts(&part, "rows of rank 0", &err), ST_OK);
    assert_int_equal(c.ops->scatter(&c, &part, &out, &err), ST_OK);
    assert_string_equal(out.data, "rows of rank 0");
    assert_int_equal(c.ops->gather(&c, "abc", 3, &part, &err), ST_OK);
    assert_string_equal(part.data, "abc");

    int x = 7, y = 0;
    const void *send[] = {&x};
    void *recv[] = {&y};
    size_t n[] = {sizeof x}, wrong[] = {1};
    assert_int_equal(c.ops->exchange(&c, send, n, recv, n, &err), ST_OK);
    assert_int_equal(y, 7);
    assert_int_equal(c.ops->bcast(&c, 0, &x, sizeof x, &err), ST_OK);
    assert_int_equal(c.ops->bcast_nodes(&c, &x, sizeof x, &err), ST_OK);
    assert_int_equal(c.ops->barrier(&c, &err), ST_OK);
    assert_int_equal(c.ops->bcast(&c, 1, &x, sizeof x, &err), ST_DEFECT);
    struct err other = ERR_INIT;
    assert_int_equal(c.ops->exchange(&c, send, n, recv, wrong, &other), ST_DEFECT);
    buf_release(&part);
    buf_release(&out);
    comm_close(&c);
}

static void test_shared(void **state)
{
    struct comm c;
    struct err err = ERR_INIT;
    struct comm_shared s;
    assert_int_equal(comm_open_self(&c, &err), ST_OK);
    assert_int_equal(c.ops->shared_alloc(&c, 1000003, &s, &err), ST_OK);
    assert_int_equal((uintptr_t)s.data % 64, 0);
    assert_int_equal(s.n_bytes, 1000003);
    const char *bytes = s.data;
    for (size_t i = 0; i < s.n_bytes; i++)
        if (bytes[i] != 0)
            fail_msg("byte %zu is not zero", i);
    /* Pages wholly inside go, their neighbours' bytes stay; what does not fit the block is left alone. */
    memset(s.data, 7, s.n_bytes);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = page + 100, n = 8 * page;
    assert_true(from + n < s.n_bytes);
    c.ops->shared_forget(&c, &s, from, n);
    c.ops->shared_forget(&c, &s, 0, s.n_bytes + 1);
    c.ops->shared_forget(&c, &s, 100, 200);
    for (size_t i = 0; i < s.n_bytes; i++)
        assert_int_equal(bytes[i], i >= 2 * page && i < 9 * page ? 0 : 7);
    c.ops->shared_release(&c, &s);
    assert_null(s.data);
    assert_int_equal(c.ops->shared_alloc(&c, (size_t)1 << 62, &s, &err), ST_ENV);
    comm_close(&c);
}

static void test_agree_alone(void **state)
{
    struct comm c;
    struct err err = ERR_INIT;
    assert_int_equal(comm_open_self(&c, &err), ST_OK);
    assert_int_equal(comm_agree(&c, ST_OK, &err), ST_OK);
    err_set(&err, ST_INPUT, "row 3 is empty");
    assert_int_equal(comm_agree(&c, ST_INPUT, &err), ST_INPUT);
    assert_string_equal(err.what, "row 3 is empty");
    struct err bare = ERR_INIT;
    assert_int_equal(comm_agree(&c, ST_ENV, &bare), ST_ENV);
    assert_true(bare.what[0] != '\0');
    assert_int_equal(comm_agree(&c, ST_ENV, NULL), ST_ENV);
    comm_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_agree_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
