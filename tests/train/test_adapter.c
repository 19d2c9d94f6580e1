/* The adapter file by name, shape and type: what is taken, what is left aside, what is refused. */
#include "checkpoint/safetensors.h"
#include "support/scratch.h"
#include "train/adapter.h"
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
    assert_int_equal(adapter_write(path, &params, numbers, &err), ST_OK);
    assert_int_equal(adapter_read(s.dir, &params, back, &err), ST_OK);
    assert_memory_equal(back, numbers, sizeof back);
    char *first = scratch_read(path);
    assert_int_equal(adapter_write(path, &params, back, &err), ST_OK);
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

int main(void)
{
    for (int i = 0; i < 64; i++)
        numbers[i] = 0.37f * (float)(i - 20) + 1e-4f;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_grown_base),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
