/* The adapter file by name, shape and type: what is taken, what is left aside, what is refused. */
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"
#include "support/scratch.h"
#include "train/adapter.h"
#include "util/file.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROWS   "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
#define HEAD   "base_model.model.lm_head.token_adapter.trainable_tokens_delta"
#define LORA_A "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
#define LORA_B "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"

enum { N = 12 + 8 + 10 };
static struct param items[3] = {{.name = ROWS, .rows = 3, .cols = 4, .offset = 0},
                                {.name = LORA_A, .rows = 2, .cols = 4, .offset = 12},
                                {.name = LORA_B, .rows = 5, .cols = 2, .offset = 20}};
static const struct params params = {
    .items = items, .n_items = 3, .n_values = N, .n_new = 3, .index_rows = 0, .index_head_rows = -1};

static float numbers[64];

struct entry {
    const char *name;
    enum dtype dtype;
    int64_t rows, cols; /* rows 0: absent */
    const float *data;
};

static void write_file(const struct scratch *s, const struct entry *e, int n)
{
    struct tensor_list list = TENSOR_LIST_INIT;
    struct err err = ERR_INIT;
    for (int i = 0; i < n; i++)
        if (e[i].rows > 0)
            assert_int_equal(tensor_list_add(&list, e[i].name, e[i].dtype, 2,
                                             (int64_t[]){e[i].rows, e[i].cols}, e[i].data, &err),
                             ST_OK);
    assert_int_equal(safetensors_write(scratch_path(s, "adapter_model.safetensors"), &list, &err), ST_OK);
    tensor_list_release(&list);
}

static void test_there_and_back(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    float back[N];
    scratch_open(&s);
    const char *path = scratch_path(&s, "adapter_model.safetensors");
    assert_int_equal(adapter_write(path, &params, numbers, DT_F32, &err), ST_OK);
    assert_int_equal(adapter_read(s.dir, &params, back, &err), ST_OK);
    assert_memory_equal(back, numbers, sizeof back);
    char *first = scratch_read(path);
    assert_int_equal(adapter_write(path, &params, back, DT_F32, &err), ST_OK);
    char *again = scratch_read(path);
    int64_t n_bytes;
    assert_int_equal(file_size(path, &n_bytes, &err), ST_OK);
    assert_memory_equal(first, again, (size_t)n_bytes);
    free(first);
    free(again);
    scratch_close(&s);
}

static void test_bfloat16(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    float back[N];
    uint16_t half[12];
    scratch_open(&s);
    for (int i = 0; i < 12; i++)
        half[i] = bf16_from_f32(numbers[i]);
    const struct entry file[] = {{ROWS, DT_BF16, 3, 4, (const float *)half},
                                 {LORA_A, DT_F32, 2, 4, numbers + 12},
                                 {LORA_B, DT_F32, 5, 2, numbers + 20}};
    write_file(&s, file, 3);
    assert_int_equal(adapter_read(s.dir, &params, back, &err), ST_OK);
    for (int i = 0; i < N; i++)
        assert_true(back[i] == (i < 12 ? bf16_to_f32(half[i]) : numbers[i]));
    scratch_close(&s);
}

/* What PEFT writes when it had to grow a tied base: whole matrices, and the tied rows a second time. */
static void test_grown_base(void **state)
{
    struct scratch s;
    struct err err = ERR_INIT;
    float back[N];
    struct entry file[] = {
        {ROWS, DT_F32, 3, 4, numbers},
        {LORA_A, DT_F32, 2, 4, numbers + 12},
        {LORA_B, DT_F32, 5, 2, numbers + 20},
        {"base_model.model.model.embed_tokens.token_adapter.base_layer.weight", DT_F32, 6, 4, numbers},
        {HEAD, DT_F32, 3, 4, numbers}};
    scratch_open(&s);
    write_file(&s, file, 5);
    assert_int_equal(adapter_read(s.dir, &params, back, &err), ST_OK);
    assert_memory_equal(back, numbers, sizeof back);
    file[4].data = numbers + 1;
    write_file(&s, file, 5);
    assert_int_equal(adapter_read(s.dir, &params, back, &err), ST_INPUT);
    assert_non_null(strstr(err.what, HEAD));
    assert_non_null(strstr(err.what, "trained apart"));
    assert_non_null(strstr(err.hint, "new_rows=untied"));
    scratch_close(&s);
}

/* Rows of input and head apart: N values, then the head's three rows. */
static struct param apart_items[4];
static struct params apart = {.items = apart_items,
                              .n_items = 4,
                              .n_values = N + 12,
                              .new_first = 40,
                              .n_new = 3,
                              .untied_rows = true,
                              .index_rows = 0,
                              .index_head_rows = 3};

static void write_config(const struct scratch *s, const char *token_indices)
{
    struct err err = ERR_INIT;
    char text[512];
    snprintf(text, sizeof text,
             "{\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\", \"r\": 2, "
             "\"target_modules\": [\"q_proj\"], \"trainable_token_indices\": %s}",
             token_indices);
    assert_int_equal(file_write(scratch_path(s, "adapter_config.json"), text, strlen(text), &err), ST_OK);
}

/* Row k of a list in the file is the row of the id that the list has at k. */
static void test_order_of_rows(void **state)
{
    static const struct {
        const char *indices;
        int embed[3], head[3]; /* where the file's rows belong */
    } cases[] = {
        {"{\"embed_tokens\": [40, 41, 42], \"lm_head\": [40, 41, 42]}", {0, 1, 2}, {0, 1, 2}},
        {"{\"embed_tokens\": [40, 41, 42], \"lm_head\": [42, 41, 40]}", {0, 1, 2}, {2, 1, 0}},
        {"{\"lm_head\": [41, 42, 40], \"embed_tokens\": [42, 40, 41]}", {2, 0, 1}, {1, 2, 0}},
    };
    struct scratch s;
    float back[N + 12];
    scratch_open(&s);
    const struct entry file[] = {{ROWS, DT_F32, 3, 4, numbers},
                                 {LORA_A, DT_F32, 2, 4, numbers + 12},
                                 {LORA_B, DT_F32, 5, 2, numbers + 20},
                                 {HEAD, DT_F32, 3, 4, numbers + N}};
    write_file(&s, file, 4);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err err = ERR_INIT;
        write_config(&s, cases[i].indices);
        assert_int_equal(adapter_read(s.dir, &apart, back, &err), ST_OK);
        assert_memory_equal(back + 12, numbers + 12, 18 * sizeof *back);
        for (int k = 0; k < 3; k++) {
            assert_memory_equal(back + cases[i].embed[k] * 4, numbers + k * 4, 4 * sizeof *back);
            assert_memory_equal(back + N + cases[i].head[k] * 4, numbers + N + k * 4, 4 * sizeof *back);
        }
    }
    scratch_close(&s);
}

static void test_order_refused(void **state)
{
    static const struct {
        const char *indices, *what;
    } cases[] = {
        {"{\"embed_tokens\": [40, 41, 43], \"lm_head\": [40, 41, 42]}", "row 43 of embed_tokens"},
        {"{\"embed_tokens\": [40, 41, 42], \"lm_head\": [40, 39, 42]}", "row 39 of lm_head"},
        {"{\"embed_tokens\": [40, 41], \"lm_head\": [40, 41, 42]}", "2 rows of embed_tokens"},
        {"{\"embed_tokens\": [40, 41, 42], \"lm_head\": [42, 41, 40, 43]}", "4 rows of lm_head"},
    };
    struct scratch s;
    float back[N + 12];
    scratch_open(&s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err err = ERR_INIT;
        write_config(&s, cases[i].indices);
        assert_int_equal(adapter_read(s.dir, &apart, back, &err), ST_INPUT);
        if (strstr(err.what, cases[i].what) == NULL)
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.what, cases[i].what);
        assert_non_null(strstr(err.hint, "trainable_token_indices"));
    }
    scratch_close(&s);
}

/* On a base that ties its head the head's rows are stored last first, and the ids are listed so. */
static void test_apart_on_tied_base(void **state)
{
    for (int tied = 0; tied < 2; tied++) {
        struct scratch s;
        struct err err = ERR_INIT;
        struct safetensors file;
        int64_t embed[3], head[3];
        char text[128];
        float back[N + 12];
        apart.tied_base = tied;
        adapter_row_ids(&apart, embed, head);
        for (int k = 0; k < 3; k++) {
            assert_int_equal(embed[k], 40 + k);
            assert_int_equal(head[k], tied ? 42 - k : 40 + k);
        }
        scratch_open(&s);
        const char *path = scratch_path(&s, "adapter_model.safetensors");
        assert_int_equal(adapter_write(path, &apart, numbers, DT_F32, &err), ST_OK);
        assert_int_equal(safetensors_open(&file, path, &err), ST_OK);
        const struct tensor *t = tensor_list_find(&file.tensors, HEAD);
        assert_non_null(t);
        for (int k = 0; k < 3; k++)
            assert_memory_equal((const char *)t->data + (size_t)k * 16, numbers + N + (head[k] - 40) * 4, 16);
        safetensors_close(&file);
        snprintf(text, sizeof text, "{\"embed_tokens\": [40, 41, 42], \"lm_head\": [%d, 41, %d]}",
                 (int)head[0], (int)head[2]);
        write_config(&s, text);
        assert_int_equal(adapter_read(s.dir, &apart, back, &err), ST_OK);
        assert_memory_equal(back, numbers, sizeof back);
        scratch_close(&s);
    }
}

static void test_refused(void **state)
{
    static const struct {
        struct entry change; /* of the second tensor; or a fourth one */
        bool add;
        const char *what[3];
    } cases[] = {
        {{.rows = 0}, false, {LORA_A, "is missing"}},
        {{LORA_A, DT_F32, 4, 2, numbers}, false, {LORA_A, "shape [4, 2]", "expected [2, 4]"}},
        {{LORA_A, DT_F32, 3, 4, numbers}, false, {LORA_A, "shape [3, 4]"}},
        {{LORA_A, DT_I32, 2, 4, numbers}, false, {LORA_A, "of type I32"}},
        {{"base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", DT_F32, 2, 4, numbers},
         true,
         {"layers.1.self_attn.q_proj.lora_A.weight", "not among"}},
        {{"base_model.model.lm_head.weight", DT_F32, 2, 4, numbers}, true, {"lm_head.weight", "not among"}},
    };
    struct scratch s;
    float back[N];
    scratch_open(&s);
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct err err = ERR_INIT;
        struct entry file[] = {{ROWS, DT_F32, 3, 4, numbers},
                               {LORA_A, DT_F32, 2, 4, numbers + 12},
                               {LORA_B, DT_F32, 5, 2, numbers + 20},
                               {NULL, DT_F32, 0, 0, NULL}};
        file[cases[k].add ? 3 : 1] = cases[k].change;
        write_file(&s, file, 4);
        assert_int_equal(adapter_read(s.dir, &params, back, &err), ST_INPUT);
        assert_non_null(strstr(err.what, "adapter_model.safetensors"));
        for (int i = 0; i < 3 && cases[k].what[i] != NULL; i++)
            if (strstr(err.what, cases[k].what[i]) == NULL)
                fail_msg("case %zu: \"%s\" lacks \"%s\"", k, err.what, cases[k].what[i]);
    }
    struct err err = ERR_INIT;
    assert_int_equal(adapter_read("/nonexistent", &params, back, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "/nonexistent/adapter_model.safetensors"));
    scratch_close(&s);
}

/* The scaling is in the config alone: names and shapes of the tensors do not show it. */
static void test_scaling(void **state)
{
    struct scratch s;
    struct params p = params;
    float back[N];
    p.lora = (struct lora_config){.r = 2, .alpha = 8};
    scratch_open(&s);
    for (int k = 0; k < 3; k++) {
        struct err err = ERR_INIT;
        const struct adapter_config c = {.base_model = "base",
                                         .r = 2,
                                         .alpha = k == 1 ? 16 : 8,
                                         .use_rslora = k == 2,
                                         .targets = {"q_proj"},
                                         .n_targets = 1};
        assert_int_equal(adapter_config_write(&c, s.dir, &err), ST_OK);
        assert_int_equal(
            adapter_write(scratch_path(&s, "adapter_model.safetensors"), &p, numbers, DT_F32, &err), ST_OK);
        assert_int_equal(adapter_read(s.dir, &p, back, &err), k == 0 ? ST_OK : ST_INPUT);
        if (k > 0)
            assert_non_null(strstr(err.what, k == 1 ? "lora_alpha is 16, here it is 8"
                                                    : "use_rslora is true, here it is false"));
    }
    scratch_close(&s);
}

int main(void)
{
    for (int i = 0; i < 64; i++)
        numbers[i] = 0.37f * (float)(i - 20) + 1e-4f;
    memcpy(apart_items, items, sizeof items);
    apart_items[3] = (struct param){.name = HEAD, .rows = 3, .cols = 4, .offset = N};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_rows),      cmocka_unit_test(test_order_refused),
        cmocka_unit_test(test_apart_on_tied_base), cmocka_unit_test(test_scaling),
        cmocka_unit_test(test_there_and_back),     cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_grown_base),         cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
