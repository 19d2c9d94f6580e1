/* New rows out of whole matrices (modules_to_save): taken when all other rows are the base's, else refused.
 */
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"
#include "support/scratch.h"
#include "train/adapter.h"
#include "train_internal.h"
#include "util/file.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ROWS    "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
#define HEADROW "base_model.model.lm_head.token_adapter.trainable_tokens_delta"
#define EMBED   "base_model.model.model.embed_tokens.weight"
#define HEAD    "base_model.model.lm_head.weight"
#define COPY    "base_model.model.model.embed_tokens.original_module.weight"

/* A base of 5 rows, ids 4..6 new: the matrices have 7 rows. */
enum { H = 4, BASE = 5, FIRST = 4, N_NEW = 3, ALL = FIRST + N_NEW };
static float base_rows[BASE * H], all[ALL * H], other[ALL * H];
static const struct weight base = {.n_out = BASE, .n_in = H, .dtype = DT_F32, .data = base_rows};
static struct param items[2] = {{.name = ROWS, .rows = N_NEW, .cols = H},
                                {.name = HEADROW, .rows = N_NEW, .cols = H, .offset = N_NEW * H}};

static struct params params_of(bool untied)
{
    return (struct params){.items = items,
                           .n_items = untied ? 2 : 1,
                           .n_values = (untied ? 2 : 1) * N_NEW * H,
                           .new_first = FIRST,
                           .n_new = N_NEW,
                           .untied_rows = untied,
                           .tied_base = true,
                           .index_rows = 0,
                           .index_head_rows = untied ? 1 : -1,
                           .base_embed = &base,
                           .base_head = &base};
}

static void fill(void)
{
    for (int i = 0; i < ALL * H; i++)
        all[i] = other[i] = 0.1f * (float)i + 0.03f;
    memcpy(base_rows, all, sizeof base_rows);
    base_rows[FIRST * H] = 77; /* a spare row of the base, replaced */
    other[FIRST * H + 1] = -2;
}

struct entry {
    const char *name;
    const void *data;
    int64_t rows;
    enum dtype dtype;
};

static enum status read_entries(const struct entry *e, int n, const struct params *p, float *out,
                                struct err *err)
{
    struct scratch s;
    struct tensor_list list = TENSOR_LIST_INIT;
    scratch_open(&s);
    for (int i = 0; i < n; i++)
        if (e[i].name)
            assert_int_equal(
                tensor_list_add(&list, e[i].name, e[i].dtype, 2, (int64_t[]){e[i].rows, H}, e[i].data, err),
                ST_OK);
    assert_int_equal(safetensors_write(scratch_path(&s, "adapter_model.safetensors"), &list, err), ST_OK);
    tensor_list_release(&list);
    enum status st = adapter_read(s.dir, p, out, err);
    scratch_close(&s);
    return st;
}

static void test_apart(void **state)
{
    float out[2 * N_NEW * H];
    struct err err = ERR_INIT;
    const struct params p = params_of(true);
    const struct entry e[] = {
        {EMBED, all, ALL, DT_F32}, {HEAD, other, ALL, DT_F32}, {COPY, all, ALL, DT_F32}};
    assert_int_equal(read_entries(e, 3, &p, out, &err), ST_OK);
    assert_memory_equal(out, all + FIRST * H, N_NEW * H * sizeof(float));
    assert_memory_equal(out + N_NEW * H, other + FIRST * H, N_NEW * H * sizeof(float));
}

static void test_tied(void **state)
{
    float out[N_NEW * H];
    struct err err = ERR_INIT;
    const struct params p = params_of(false);
    struct entry e[] = {{EMBED, all, ALL, DT_F32}, {HEAD, all, ALL, DT_F32}};
    assert_int_equal(read_entries(e, 2, &p, out, &err), ST_OK);
    assert_memory_equal(out, all + FIRST * H, sizeof out);
    e[1].data = other;
    assert_int_equal(read_entries(e, 2, &p, out, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "they were trained apart"));
    assert_non_null(strstr(err.hint, "new_rows=untied"));
}

/* A file in the type of a bfloat16 base: its other rows are the base's rounded, and that is equal. */
static void test_rounded(void **state)
{
    float out[N_NEW * H];
    uint16_t half[ALL * H];
    struct err err = ERR_INIT;
    const struct params p = params_of(false);
    assert_true(dtype_from_f32(DT_BF16, all, half, ALL * H));
    const struct entry e[] = {{EMBED, half, ALL, DT_BF16}, {HEAD, half, ALL, DT_BF16}};
    assert_int_equal(read_entries(e, 2, &p, out, &err), ST_OK);
    for (int i = 0; i < N_NEW * H; i++)
        assert_true(out[i] == bf16_to_f32(half[FIRST * H + i]));
}

static void test_refusals(void **state)
{
    static float changed[ALL * H], longer[(ALL + 1) * H];
    static int32_t integers[ALL * H];
    memcpy(changed, all, sizeof changed);
    changed[2 * H + 3] += 0.5f;
    struct params no_base = params_of(false);
    no_base.base_embed = no_base.base_head = NULL;
    const struct params tied = params_of(false), apart = params_of(true);
    const struct {
        const struct params *p;
        struct entry e[2];
        const char *what;
    } cases[] = {
        {&tied,
         {{EMBED, changed, ALL, DT_F32}, {HEAD, changed, ALL, DT_F32}},
         "at row 2, column 3, the base has"},
        {&apart, {{EMBED, all, ALL, DT_F32}, {HEAD, changed, ALL, DT_F32}}, HEAD "\" has 1.6"},
        {&tied,
         {{EMBED, longer, ALL + 1, DT_F32}, {HEAD, longer, ALL + 1, DT_F32}},
         "has 8 rows, here it is 7"},
        {&tied, {{EMBED, integers, ALL, DT_I32}, {HEAD, integers, ALL, DT_I32}}, "of type I32"},
        {&tied, {{EMBED, all, ALL, DT_F32}, {NULL, NULL, 0, DT_F32}}, "embed_tokens alone"},
        {&apart, {{EMBED, all, ALL, DT_F32}, {NULL, NULL, 0, DT_F32}}, HEADROW "\" is missing"},
        {&tied, {{ROWS, all, N_NEW, DT_F32}, {HEAD, all, ALL, DT_F32}}, HEAD "\" is not among"},
        {&no_base, {{EMBED, all, ALL, DT_F32}, {HEAD, all, ALL, DT_F32}}, "not at hand"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float out[2 * N_NEW * H];
        struct err err = ERR_INIT;
        assert_int_equal(read_entries(cases[i].e, 2, cases[i].p, out, &err), ST_INPUT);
        if (!strstr(err.what, cases[i].what))
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.what, cases[i].what);
    }
}

/* Which rows are new, seen from the matrices alone. */
static void test_find(void **state)
{
    struct scratch s;
    struct tensor_list list = TENSOR_LIST_INIT;
    const int64_t dims[2] = {ALL, H}, few[2] = {BASE - 1, H};
    int64_t first, n;
    struct err err = ERR_INIT;
    fill();
    scratch_open(&s);
    const char *path = scratch_path(&s, "adapter_model.safetensors");
    assert_int_equal(tensor_list_add(&list, EMBED, DT_F32, 2, dims, all, &err), ST_OK);
    assert_int_equal(tensor_list_add(&list, HEAD, DT_F32, 2, dims, all, &err), ST_OK);
    assert_int_equal(safetensors_write(path, &list, &err), ST_OK);
    assert_int_equal(adapter_whole_rows(s.dir, &base, &base, &first, &n, &err), ST_OK);
    assert_int_equal(first, FIRST);
    assert_int_equal(n, N_NEW);
    /* A row that the head alone changed widens the run. */
    all[1 * H] += 1;
    list.items[0].data = other;
    assert_int_equal(safetensors_write(path, &list, &err), ST_OK);
    assert_int_equal(adapter_whole_rows(s.dir, &base, &base, &first, &n, &err), ST_OK);
    assert_int_equal(first, 1);
    assert_int_equal(n, ALL - 1);
    tensor_list_release(&list);
    assert_int_equal(tensor_list_add(&list, EMBED, DT_F32, 2, few, all, &err), ST_OK);
    assert_int_equal(safetensors_write(path, &list, &err), ST_OK);
    assert_int_equal(adapter_whole_rows(s.dir, &base, &base, &first, &n, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "at least 5 rows"));
    tensor_list_release(&list);
    scratch_close(&s);
}

/* Written as whole matrices, in float32 and rounded, and read back. */
static void test_write(void **state)
{
    struct scratch s;
    struct safetensors f;
    float values[2 * N_NEW * H], out[2 * N_NEW * H];
    struct err err = ERR_INIT;
    fill();
    scratch_open(&s);
    const char *path = scratch_path(&s, "adapter_model.safetensors");
    for (int i = 0; i < 2 * N_NEW * H; i++)
        values[i] = 3.14159f * (float)(i + 1);
    for (int untied = 0; untied < 2; untied++) {
        const struct params p = params_of(untied);
        assert_int_equal(adapter_write_whole(path, &p, values, DT_F32, &err), ST_OK);
        assert_int_equal(adapter_read(s.dir, &p, out, &err), ST_OK);
        assert_memory_equal(out, values, (size_t)p.n_values * sizeof *out);
        assert_int_equal(safetensors_open(&f, path, &err), ST_OK);
        assert_int_equal(f.tensors.n_items, 2);
        const struct tensor *embed = tensor_list_find(&f.tensors, EMBED),
                            *head = tensor_list_find(&f.tensors, HEAD);
        assert_int_equal(embed->dims[0], ALL);
        assert_memory_equal(embed->data, base_rows, FIRST * H * sizeof(float));
        assert_memory_equal((const float *)head->data + FIRST * H, values + (untied ? N_NEW * H : 0),
                            N_NEW * H * sizeof(float));
        safetensors_close(&f);
        assert_int_equal(adapter_write_whole(path, &p, values, DT_BF16, &err), ST_OK);
        assert_int_equal(adapter_read(s.dir, &p, out, &err), ST_OK);
        assert_true(out[0] != values[0] && out[0] > 3.1f && out[0] < 3.2f);
    }
    struct params blind = params_of(true);
    blind.base_head = NULL;
    assert_int_equal(adapter_write_whole(path, &blind, values, DT_F32, &err), ST_DEFECT);
    scratch_close(&s);
}

/* Moments of whole matrices: zero but for the new rows, which come back. */
static void test_moments(void **state)
{
    struct scratch s;
    struct tensor_list rows = TENSOR_LIST_INIT;
    const int64_t dims[2] = {N_NEW, H};
    float m[2 * N_NEW * H], v[2 * N_NEW * H], m2[2 * N_NEW * H], v2[2 * N_NEW * H];
    struct err err = ERR_INIT;
    const struct params p = params_of(true);
    scratch_open(&s);
    for (int i = 0; i < 2 * N_NEW * H; i++) {
        m[i] = 0.01f * (float)(i + 1);
        v[i] = 0.5f * m[i];
    }
    struct optimizer_state o = {
        .lr = 1e-3, .initial_lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = 3};
    const char *path = scratch_path(&s, "optimizer.pt");
    assert_int_equal(whole__optimizer_write(path, &p, &o, m, v, &err), ST_OK);
    assert_int_equal(tensor_list_add(&rows, ROWS, DT_F32, 2, dims, m, &err), ST_OK);
    assert_int_equal(tensor_list_add(&rows, HEADROW, DT_F32, 2, dims, m, &err), ST_OK);
    struct optimizer_state back = {.params = &rows, .whole_rows = ALL, .first_row = FIRST};
    assert_int_equal(optimizer_read(path, &back, m2, v2, &err), ST_OK);
    assert_int_equal(back.step, 3);
    assert_memory_equal(m2, m, sizeof m);
    assert_memory_equal(v2, v, sizeof v);
    tensor_list_release(&rows);
    scratch_close(&s);
}

int main(void)
{
    fill();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_apart),   cmocka_unit_test(test_tied),
                                       cmocka_unit_test(test_rounded), cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_find),    cmocka_unit_test(test_write),
                                       cmocka_unit_test(test_moments)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
