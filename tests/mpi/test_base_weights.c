/* A host whose frozen weights are not those of the others is named with the tensor, on all ranks alike. Hosts
 * are made up here: each rank is told to be alone on one, or two and two. */
#include "model/tiny.h"
#include "train/base_weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct comm comm;
static struct comm as_opened;

static const char config[] =
    "{\"model_type\":\"qwen3\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":8,\"vocab_size\":37,"
    "\"tie_word_embeddings\":true}";

struct fixture {
    struct tiny tiny;
    struct weights_memory memory;
};

/* Ranks in order, `a_host` on each host; false when the ranks do not make up two hosts. */
static bool spread(struct fixture *f, int a_host)
{
    tiny_open(&f->tiny, "cpu", config, 33, 4, false, 2, 11);
    comm.node = comm.rank / a_host;
    comm.n_nodes = (comm.world_size + a_host - 1) / a_host;
    snprintf(comm.host, sizeof comm.host, "node%d", comm.node + 1);
    f->memory = (struct weights_memory){
        .block = f->tiny.block, .packed = f->tiny.packed, .part = comm.rank % a_host, .n_parts = a_host};
    return comm.n_nodes > 1;
}

static enum status check(struct fixture *f, struct err *err)
{
    const struct arch *a = &f->tiny.arch;
    struct weight_digest digests[64] = {{0}};
    assert_true(weights_count(a) <= 64);
    for (int32_t g = 0; g < weights_n_groups(a); g++)
        assert_int_equal(
            weights_digest_group(digests, a, DT_F32, &f->memory, g, f->tiny.ops, f->tiny.dev, err), ST_OK);
    enum status st = base_weights_check(&comm, a, digests, err);
    tiny_close(&f->tiny);
    comm = as_opened;
    return st;
}

static void test_equal(void **state)
{
    for (int a_host = 1; a_host <= 2; a_host++) {
        struct fixture f;
        struct err err = ERR_INIT;
        spread(&f, a_host);
        assert_int_equal(check(&f, &err), ST_OK);
    }
}

static void expect(enum status st, const struct err *err, const char *who, const char *what)
{
    assert_int_equal(st, ST_ENV);
    if (strstr(err->what, who) == NULL || strstr(err->what, what) == NULL)
        fail_msg("not '%s' and '%s': %s", who, what, err->what);
}

/* One bit in the last host's copy, seen by each of its ranks; then the same bit in the packed form alone. */
static void test_odd(void **state)
{
    for (int a_host = 1; a_host <= 2; a_host++)
        for (int packed = 0; packed < 2; packed++) {
            struct fixture f;
            struct err err = ERR_INIT;
            char who[96];
            bool hosts = spread(&f, a_host);
            int first = (comm.n_nodes - 1) * a_host, last = comm.n_nodes - 1;
            if (hosts && comm.node == last)
                ((char *)(packed ? f.tiny.packed : f.tiny.block))[5] ^= 1;
            snprintf(who, sizeof who, "rank %d on node%d: ", first, last + 1);
            enum status st = check(&f, &err);
            if (!hosts)
                assert_int_equal(st, ST_OK);
            else
                expect(st, &err, who,
                       packed ? "model.layers.0.self_attn.q_proj.weight, packed"
                              : "model.layers.0.self_attn.q_proj.weight are not");
        }
}

/* Of four hosts the first one may be the odd one, and in the last tensor. */
static void test_first(void **state)
{
    struct fixture f;
    struct err err = ERR_INIT;
    bool hosts = spread(&f, 1);
    char *block = f.tiny.block;
    size_t at = (size_t)((char *)(uintptr_t)f.tiny.weights.layers[1].k_norm - block);
    if (comm.rank == 0 && hosts)
        block[at] ^= 4;
    enum status st = check(&f, &err);
    if (!hosts)
        assert_int_equal(st, ST_OK);
    else
        expect(st, &err, comm.world_size > 2 ? "rank 0 on node1: " : "rank 1 on node2: ",
               "model.layers.1.self_attn.k_norm.weight are not those of rank");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal), cmocka_unit_test(test_odd),
                                       cmocka_unit_test(test_first)};
    struct err err = ERR_INIT;
    if (comm_open(&comm, "mpi", &err) != ST_OK)
        return 1;
    as_opened = comm;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&comm);
    return failed;
}
