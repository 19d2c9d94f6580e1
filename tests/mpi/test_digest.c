/* A rank whose values are not those of the others is found and named, on all ranks alike; ranks that agree
 * are left alone. */
#include "../../src/train/train_internal.h"
#include "comm/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct comm comm;

enum { N_FIRST = 37, N_SECOND = 64 };

struct fixture {
    struct param items[2];
    struct params params;
    struct train_context context;
    struct trainer trainer;
    float values[N_FIRST + N_SECOND], m[N_FIRST + N_SECOND], v[N_FIRST + N_SECOND];
};

static void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < N_FIRST + N_SECOND; i++) {
        f->values[i] = 0.5f * (float)i;
        f->m[i] = 0.25f * (float)i;
        f->v[i] = (float)i;
    }
    f->items[0] = (struct param){.name = "first.weight", .rows = 1, .cols = N_FIRST};
    f->items[1] = (struct param){.name = "second.weight", .rows = 8, .cols = N_SECOND / 8, .offset = N_FIRST};
    f->params = (struct params){.items = f->items, .n_items = 2, .n_values = N_FIRST + N_SECOND};
    f->context = (struct train_context){
        .comm = &comm, .ops = ops_by_name("reference"), .params = &f->params, .values = f->values};
    f->trainer = (struct trainer){.c = &f->context, .step = 12};
    f->trainer.optimizer.m = f->m;
    f->trainer.optimizer.v = f->v;
}

static void test_equal(void **state)
{
    struct fixture f;
    struct err err = ERR_INIT;
    fixture_init(&f);
    assert_int_equal(train__check_equal(&f.trainer, &err), ST_OK);
}

static void flip(float *x)
{
    unsigned bits;
    memcpy(&bits, x, sizeof bits);
    bits ^= 1;
    memcpy(x, &bits, sizeof bits);
}

/* One bit on the last rank, in each kind of vector. */
static void test_odd(void **state)
{
    static const char *const kinds[] = {"the values of second.weight", "the first moments of first.weight",
                                        "the second moments of second.weight"};
    char rank[96];
    snprintf(rank, sizeof rank, "rank %d on %s", comm.world_size - 1, comm.host);
    for (int k = 0; k < 3 && comm.world_size > 1; k++) {
        struct fixture f;
        struct err err = ERR_INIT;
        fixture_init(&f);
        float *vectors[3] = {f.values, f.m, f.v};
        if (comm.rank == comm.world_size - 1)
            flip(&vectors[k][k == 1 ? 5 : N_FIRST + 9]);
        assert_int_equal(train__check_equal(&f.trainer, &err), ST_ENV);
        assert_non_null(strstr(err.what, kinds[k]));
        assert_non_null(strstr(err.what, rank));
        assert_non_null(strstr(err.what, "after step 12"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal), cmocka_unit_test(test_odd)};
    struct err err = ERR_INIT;
    if (comm_open(&comm, "mpi", &err) != ST_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&comm);
    return failed;
}
