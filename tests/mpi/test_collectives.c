/* Every collective of the MPI table, on as many ranks as the launcher starts. */
#include "comm/comm.h"
#include "util/clock.h"
#include "util/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct comm comm;

static unsigned char byte_of(int from, size_t i)
{
    return (unsigned char)rng_u64(5, RNG_TEST, (uint32_t)from, i);
}

static void fill(unsigned char *p, int from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = byte_of(from, i % 65521);
}

static bool filled(const void *data, int from, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        if (p[i] != byte_of(from, i % 65521))
            return false;
    return true;
}

static void test_place(void **state)
{
    assert_string_equal(comm.ops->name, "mpi");
    assert_true(comm.rank >= 0 && comm.rank < comm.world_size);
    /* The tests run on one machine. */
    assert_int_equal(comm.n_nodes, 1);
    assert_int_equal(comm.local_rank, comm.rank);
    assert_int_equal(comm.local_size, comm.world_size);
}

static void test_bcast(void **state)
{
    /* Nothing, one byte, more than a chunk and not a multiple of it. */
    static const size_t sizes[] = {0, 1, 1000, 9u << 20 | 5};
    struct err err = ERR_INIT;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int root = 0; root < comm.world_size; root++) {
            unsigned char *p = calloc(sizes[k] + 1, 1);
            assert_non_null(p);
            if (comm.rank == root)
                fill(p, root, sizes[k]);
            assert_int_equal(comm.ops->bcast(&comm, root, p, sizes[k], &err), ST_OK);
            assert_true(filled(p, root, sizes[k]));
            assert_int_equal(p[sizes[k]], 0);
            free(p);
        }
    assert_int_equal(comm.ops->bcast(&comm, comm.world_size, NULL, 0, &err), ST_DEFECT);
}

static void test_bcast_nodes(void **state)
{
    struct err err = ERR_INIT;
    int x = comm.rank + 100;
    assert_int_equal(comm.ops->bcast_nodes(&comm, &x, sizeof x, &err), ST_OK);
    assert_int_equal(x, comm.rank + 100); /* one host: only its leader, which is the root, takes part */
}

static size_t part_size(int r)
{
    return r % 3 == 1 ? 0 : (size_t)r * 300007 + 3;
}

static void test_scatter_gather(void **state)
{
    struct err err = ERR_INIT;
    struct buf *parts = calloc((size_t)comm.world_size, sizeof *parts), out = BUF_INIT;
    assert_non_null(parts);
    assert_int_equal(buf_puts(&out, "of the step before", &err), ST_OK);
    for (int round = 0; round < 3; round++) {
        for (int r = 0; r < comm.world_size && comm.rank == 0; r++) {
            size_t n = part_size(r + round);
            unsigned char *p = malloc(n + 1);
            assert_non_null(p);
            fill(p, r, n);
            buf_clear(&parts[r]);
            assert_int_equal(buf_append(&parts[r], p, n, &err), ST_OK);
            free(p);
        }
        assert_int_equal(comm.ops->scatter(&comm, parts, &out, &err), ST_OK);
        assert_int_equal(out.n_bytes, part_size(comm.rank + round));
        assert_true(filled(out.data, comm.rank, out.n_bytes));

        /* And back, into buffers that hold the old bytes. */
        assert_int_equal(comm.ops->gather(&comm, out.data, out.n_bytes, parts, &err), ST_OK);
        for (int r = 0; r < comm.world_size && comm.rank == 0; r++) {
            assert_int_equal(parts[r].n_bytes, part_size(r + round));
            assert_true(filled(parts[r].data, r, parts[r].n_bytes));
        }
    }
    for (int r = 0; r < comm.world_size; r++)
        buf_release(&parts[r]);
    free(parts);
    buf_release(&out);
}

static size_t pair_size(int from, int to)
{
    return from == to ? 17 : (from + to) % 4 == 3 ? 0 : (size_t)(from * 7 + to) * 10007;
}

static void test_exchange(void **state)
{
    enum { MAX = 16 };
    const void *send[MAX];
    void *recv[MAX];
    size_t send_bytes[MAX], recv_bytes[MAX];
    struct err err = ERR_INIT;
    assert_true(comm.world_size <= MAX);
    for (int r = 0; r < comm.world_size; r++) {
        send_bytes[r] = pair_size(comm.rank, r);
        recv_bytes[r] = pair_size(r, comm.rank);
        unsigned char *p = malloc(send_bytes[r] + 1);
        recv[r] = malloc(recv_bytes[r] + 1);
        assert_non_null(p);
        assert_non_null(recv[r]);
        fill(p, comm.rank * 50 + r, send_bytes[r]);
        send[r] = p;
    }
    assert_int_equal(comm.ops->exchange(&comm, send, send_bytes, recv, recv_bytes, &err), ST_OK);
    for (int r = 0; r < comm.world_size; r++) {
        assert_true(filled(recv[r], r * 50 + comm.rank, recv_bytes[r]));
        free((void *)send[r]);
        free(recv[r]);
    }
}

static void test_shared(void **state)
{
    const size_t n = (5u << 20) + 77;
    struct comm_shared s;
    struct err err = ERR_INIT;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(comm.ops->shared_alloc(&comm, n, &s, &err), ST_OK);
        assert_int_equal(s.n_bytes, n);
        assert_int_equal((uintptr_t)s.data % 64, 0);
        if (comm.local_rank == 0)
            fill(s.data, round, n);
        assert_int_equal(comm.ops->barrier(&comm, &err), ST_OK);
        assert_true(filled(s.data, round, n));
        /* What is forgotten leaves the rest alone, on all ranks. */
        assert_int_equal(comm.ops->barrier(&comm, &err), ST_OK);
        const size_t first = 4097, end = 40 * 65521; /* where fill begins anew */
        comm.ops->shared_forget(&comm, &s, first, end - first);
        assert_int_equal(comm.ops->barrier(&comm, &err), ST_OK);
        assert_true(filled(s.data, round, first));
        assert_true(filled((const char *)s.data + end, round, n - end));
        comm.ops->shared_release(&comm, &s);
        assert_null(s.data);
    }
    /* More than any machine has: refused on all ranks, and the table goes on. */
    assert_int_equal(comm.ops->shared_alloc(&comm, (size_t)1 << 52, &s, &err), ST_ENV);
    assert_null(s.data);
    if (comm.world_size > 1)
        assert_non_null(strstr(err.hint, "shm"));
    assert_int_equal(comm.ops->barrier(&comm, &err), ST_OK);
}

static void test_agree(void **state)
{
    struct err err = ERR_INIT;
    assert_int_equal(comm_agree(&comm, ST_OK, &err), ST_OK);
    for (int failing = 0; failing < comm.world_size; failing++) {
        /* That rank and all above fail, each in its own way. */
        err = (struct err)ERR_INIT;
        enum status mine = ST_OK;
        if (comm.rank >= failing) {
            mine = comm.rank == failing ? ST_INPUT : ST_ENV;
            err_set(&err, mine, "fault of %d", comm.rank);
            err_hint(&err, "mend %d", comm.rank);
        }
        assert_int_equal(comm_agree(&comm, mine, &err), ST_INPUT);
        char expected[200], hint[40];
        snprintf(expected, sizeof expected, "rank %d on %s: fault of %d", failing, comm.host, failing);
        snprintf(hint, sizeof hint, "mend %d", failing);
        assert_string_equal(err.what, comm.world_size > 1 ? expected : "fault of 0");
        assert_string_equal(err.hint, hint);
        assert_int_equal(err.status, ST_INPUT);
        assert_int_equal(comm_agree(&comm, mine, NULL), ST_INPUT);
    }
}

/* A rank that is busy for longer than the time limit is alive, and must not end the run. */
static void test_slow_is_not_dead(void **state)
{
    struct err err = ERR_INIT;
    if (comm.world_size == 1)
        skip();
    comm_set_timeout(&comm, 1.0);
    if (comm.rank == comm.world_size - 1)
        clock_sleep_s(3.0);
    double start_s = clock_s();
    assert_int_equal(comm.ops->barrier(&comm, &err), ST_OK);
    if (comm.rank != comm.world_size - 1)
        assert_true(clock_s() - start_s > 2.0);
    comm_set_timeout(&comm, 60.0);
}

int main(void)
{
    struct err err = ERR_INIT;
    if (comm_open(&comm, "mpi", &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.what);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_place),       cmocka_unit_test(test_bcast),
        cmocka_unit_test(test_bcast_nodes), cmocka_unit_test(test_scatter_gather),
        cmocka_unit_test(test_exchange),    cmocka_unit_test(test_shared),
        cmocka_unit_test(test_agree),       cmocka_unit_test(test_slow_is_not_dead),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&comm);
    return failed;
}
