/* Damaged model directories, as far as tensors go: each fault has its own message with the tensor's name. */
#include "model/weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char config[] =
    "{\"model_type\":\"qwen3\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":6,\"vocab_size\":11,"
    "\"tie_word_embeddings\":true}";

/* A whole model of ones. Data is one shared block: only names and shapes matter here. */
struct fixture {
    struct arch arch;
    struct tensor_list list;
    float *ones;
    void *block;
};

static void add(struct fixture *f, const char *name, int n_dims, int64_t a, int64_t b)
{
    struct err err = ERR_INIT;
    int64_t dims[2] = {a, b};
    assert_int_equal(tensor_list_add(&f->list, name, DT_F32, n_dims, dims, f->ones, &err), ST_OK);
}

static void fixture_open(struct fixture *f)
{
    struct err err = ERR_INIT;
    char name[128];
    memset(f, 0, sizeof *f);
    assert_int_equal(arch_parse(&f->arch, config, strlen(config), "config.json", &err), ST_OK);
    f->ones = malloc(4096 * sizeof *f->ones);
    for (int i = 0; i < 4096; i++)
        f->ones[i] = 1;
    f->block = aligned_alloc(64, weights_block_bytes(&f->arch, DT_F32));
    add(f, "model.embed_tokens.weight", 2, 11, 8);
    add(f, "model.norm.weight", 1, 8, 0);
    for (int l = 0; l < 2; l++) {
        static const char *const norms[] = {"input_layernorm", "post_attention_layernorm", "self_attn.q_norm",
                                            "self_attn.k_norm"};
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, norms[k]);
            add(f, name, 1, k < 2 ? 8 : 6, 0);
        }
        for (int p = 0; p < N_PROJ; p++) {
            int64_t n_out, n_in;
            proj_shape(&f->arch, (enum proj)p, &n_out, &n_in);
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, proj_path((enum proj)p));
            add(f, name, 2, n_out, n_in);
        }
    }
}

static void fixture_close(struct fixture *f)
{
    tensor_list_release(&f->list);
    free(f->ones);
    free(f->block);
}

static struct tensor *find(struct fixture *f, const char *name)
{
    struct tensor *t = (struct tensor *)tensor_list_find(&f->list, name);
    assert_non_null(t);
    return t;
}

static void expect(struct fixture *f, enum status status, const char *message)
{
    struct err err = ERR_INIT;
    enum status got = weights_fill(f->block, &f->arch, DT_F32, &f->list, &err);
    if (got != status || (message && !strstr(err.what, message)))
        fail_msg("expected '%s', got '%s'", message ? message : "success", err.what);
    fixture_close(f);
}

static void test_whole(void **state)
{
    struct fixture f;
    fixture_open(&f);
    expect(&f, ST_OK, NULL);
}

static void test_missing(void **state)
{
    struct fixture f;
    fixture_open(&f);
    f.list.n_items--;
    free(f.list.items[f.list.n_items].name);
    expect(&f, ST_INPUT, "tensor 'model.layers.1.mlp.down_proj.weight' is missing");
}

static void test_extra(void **state)
{
    struct fixture f;
    fixture_open(&f);
    add(&f, "model.layers.0.self_attn.q_proj.bias", 1, 12, 0);
    expect(&f, ST_INPUT, "tensor 'model.layers.0.self_attn.q_proj.bias' does not belong");
    fixture_open(&f);
    add(&f, "model.layers.2.mlp.up_proj.weight", 2, 12, 8);
    expect(&f, ST_INPUT, "does not belong to a qwen3 model of 2 layers");
    /* A tied model's copy of the embedding and rotary tables of old files change nothing. */
    fixture_open(&f);
    add(&f, "lm_head.weight", 2, 11, 8);
    add(&f, "model.layers.0.self_attn.rotary_emb.inv_freq", 1, 3, 0);
    expect(&f, ST_OK, NULL);
}

static void test_shape(void **state)
{
    struct fixture f;
    fixture_open(&f);
    find(&f, "model.layers.0.self_attn.k_proj.weight")->dims[0] = 12;
    expect(&f, ST_INPUT,
           "tensor 'model.layers.0.self_attn.k_proj.weight' has shape [12, 8], config.json says [6, 8]");
    fixture_open(&f);
    find(&f, "model.norm.weight")->n_dims = 2;
    find(&f, "model.norm.weight")->dims[1] = 1;
    expect(&f, ST_INPUT, "tensor 'model.norm.weight' has shape [8, 1], config.json says [8]");
}

static void test_not_finite(void **state)
{
    struct fixture f;
    fixture_open(&f);
    float bad[88];
    for (int i = 0; i < 88; i++)
        bad[i] = i == 50 ? NAN : 1;
    find(&f, "model.embed_tokens.weight")->data = bad;
    expect(&f, ST_INPUT, "tensor 'model.embed_tokens.weight' holds NaN at element 50");
    fixture_open(&f);
    bad[50] = 1;
    bad[87] = -INFINITY;
    find(&f, "model.embed_tokens.weight")->data = bad;
    expect(&f, ST_INPUT, "holds infinity at element 87");
}

static void test_type(void **state)
{
    struct fixture f;
    fixture_open(&f);
    find(&f, "model.layers.1.mlp.gate_proj.weight")->dtype = DT_U8;
    expect(&f, ST_INPUT, "tensor 'model.layers.1.mlp.gate_proj.weight' has element type U8");
}

/* F16 and BF16 sources give the same floats as F32 ones of the same values. */
static void test_half_types(void **state)
{
    struct fixture f;
    struct err err = ERR_INIT;
    uint16_t half[96];
    fixture_open(&f);
    struct tensor *t = find(&f, "model.layers.0.mlp.up_proj.weight");
    for (int k = 0; k < 2; k++) {
        t->dtype = k ? DT_BF16 : DT_F16;
        t->data = half;
        for (int i = 0; i < 96; i++)
            half[i] = k ? bf16_from_f32(0.25f * (float)(i - 40)) : f16_from_f32(0.25f * (float)(i - 40));
        assert_int_equal(weights_fill(f.block, &f.arch, DT_F32, &f.list, &err), ST_OK);
        const float *all = f.block;
        size_t n = weights_block_bytes(&f.arch, DT_F32) / sizeof(float), at = 0;
        while (at < n && all[at] != -10)
            at++;
        assert_true(at + 96 <= n);
        for (int i = 0; i < 96; i++)
            assert_true(all[at + (size_t)i] == 0.25f * (float)(i - 40));
    }
    fixture_close(&f);
}

/* One model bound by `n_parts` processes; every one packs its share into the same memory, the last first. */
static unsigned char *packed_by(struct fixture *f, int n_parts, size_t *n_bytes)
{
    const struct ops *ops = ops_by_name("cpu");
    const struct device_options options = {.n_threads = 1, .cpu_path = "baseline", .compute = COMPUTE_F32};
    struct device *dev;
    struct err err = ERR_INIT;
    assert_int_equal(ops->open(&dev, &options, &err), ST_OK);
    assert_int_equal(weights_packed_bytes(n_bytes, &f->arch, DT_F32, ops, dev, &err), ST_OK);
    unsigned char *packed = aligned_alloc(64, *n_bytes);
    memset(packed, 0xA5, *n_bytes);
    for (int part = n_parts - 1; part >= 0; part--) {
        struct weights_memory m = {f->block, packed, part, n_parts};
        struct weights w;
        assert_int_equal(weights_bind(&w, &f->arch, DT_F32, &m, ops, dev, &err), ST_OK);
        assert_true((w.embed.prepared != NULL) == f->arch.tied);
        assert_non_null(w.head.prepared);
        weights_release(&w, ops, dev);
    }
    ops->close(dev);
    return packed;
}

static void test_shared_packing(void **state)
{
    for (int untied = 0; untied < 2; untied++) {
        struct fixture f;
        struct err err = ERR_INIT;
        size_t n_bytes, n_again;
        fixture_open(&f);
        if (untied) {
            f.arch.tied = false;
            add(&f, "lm_head.weight", 2, 11, 8);
            free(f.block);
            f.block = aligned_alloc(64, weights_block_bytes(&f.arch, DT_F32));
        }
        for (int i = 0; i < 4096; i++)
            f.ones[i] = (float)i;
        assert_int_equal(weights_fill(f.block, &f.arch, DT_F32, &f.list, &err), ST_OK);
        unsigned char *one = packed_by(&f, 1, &n_bytes);
        for (int n_parts = 2; n_parts < 40; n_parts += 5) {
            unsigned char *many = packed_by(&f, n_parts, &n_again);
            assert_int_equal(n_again, n_bytes);
            assert_memory_equal(one, many, n_bytes);
            free(many);
        }
        free(one);
        fixture_close(&f);
    }
}

/* With a device that rounds, projections are read from their packed form alone: the rows may be wiped. */
static void test_unused_rows(void **state)
{
    static const char *const tables[] = {"reference", "cpu"};
    for (int i = 0; i < 2; i++) {
        const struct ops *ops = ops_by_name(tables[i]);
        const struct device_options options = {.n_threads = 1, .cpu_path = "auto", .compute = COMPUTE_BF16};
        struct fixture f;
        struct device *dev;
        struct weights w;
        struct err err = ERR_INIT;
        size_t n_bytes;
        fixture_open(&f);
        assert_int_equal(weights_fill(f.block, &f.arch, DT_F32, &f.list, &err), ST_OK);
        assert_int_equal(ops->open(&dev, &options, &err), ST_OK);
        assert_int_equal(weights_packed_bytes(&n_bytes, &f.arch, DT_F32, ops, dev, &err), ST_OK);
        void *packed = aligned_alloc(64, n_bytes);
        struct weights_memory m = {f.block, packed, 0, 1};
        assert_int_equal(weights_bind(&w, &f.arch, DT_F32, &m, ops, dev, &err), ST_OK);
        assert_true(w.unused_bytes > 0);
        assert_null(w.layers[1].proj[PROJ_DOWN].data);
        assert_ptr_equal(w.embed.data, (char *)f.block + w.unused_bytes);
        memset(f.block, 0xFF, w.unused_bytes);
        float x[12], y[8];
        for (int k = 0; k < 12; k++)
            x[k] = 1;
        ops->linear(dev, y, 8, x, 12, &w.layers[1].proj[PROJ_DOWN], 1, false);
        for (int k = 0; k < 8; k++)
            assert_true(y[k] == 12);
        ops->linear_back(dev, x, 12, y, 8, &w.layers[1].proj[PROJ_DOWN], 1, false);
        for (int k = 0; k < 12; k++)
            assert_true(x[k] == 96);
        for (int k = 0; k < 8; k++)
            assert_true(w.final_norm[k] == 1 && ((const float *)w.embed.data)[k] == 1);
        weights_release(&w, ops, dev);
        ops->close(dev);
        free(packed);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),      cmocka_unit_test(test_missing),
        cmocka_unit_test(test_extra),      cmocka_unit_test(test_shape),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_type),
        cmocka_unit_test(test_half_types), cmocka_unit_test(test_shared_packing),
        cmocka_unit_test(test_unused_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
