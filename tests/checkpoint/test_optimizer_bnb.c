/* optimizer.pt of bitsandbytes' 8-bit AdamW: both layouts, both lengths of blocks, parameters in 8 and in 32
 * bits, and files that are not quite that. */
#include "checkpoint/state.h"
#include "checkpoint/torch_file.h"
#include "support/scratch.h"
#include "util/log.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 65, COLS = 64, LARGE = ROWS * COLS, SMALL = 12, N = LARGE + SMALL };

enum change {
    FLAT,
    WRAPPED,
    OLD_BLOCKS,
    N_GOOD,
    NO_TABLE = N_GOOD,
    SHORT_TABLE,
    SHORT_SCALES,
    NAN_SCALE,
    BYTE_SCALES,
    INTEGER_STATE,
    NEGATIVE_SQUARE,
    ONE_STATE,
    NO_BLOCKS,
    N_CHANGES
};

static uint8_t codes[2][LARGE];
static float tables[2][256], scales[2][17], small[2][SMALL];
static const int64_t large_dims[2] = {ROWS, COLS}, small_dims[2] = {3, 4};

/* Both tables have their zero where bitsandbytes has it: in the middle, and first. */
static void fill(void)
{
    for (int i = 0; i < 256; i++) {
        tables[0][i] = (float)(i - 127) / 128;
        tables[1][i] = (float)(i * i) / 65025;
    }
    for (int i = 0; i < 17; i++) {
        scales[0][i] = 0.5f + (float)i;
        scales[1][i] = 0.25f + (float)i * (float)i;
    }
    for (int i = 0; i < LARGE; i++) {
        codes[0][i] = (uint8_t)(i * 7 + 3);
        codes[1][i] = (uint8_t)(i * 5 + 1);
    }
    codes[0][20] = 200;
    codes[1][20] = 0;
    for (int i = 0; i < SMALL; i++) {
        small[0][i] = (float)i - 5;
        small[1][i] = (float)i + 1;
    }
}

static void put_tensor(struct torch_writer *w, const char *key, enum dtype t, int n_dims, const int64_t *dims,
                       const void *data)
{
    torch_put_string(w, key);
    torch_put_tensor(w, t, n_dims, dims, data);
}

static void put_quantized(struct torch_writer *w, enum change c, int k)
{
    static const char *const names[2][3] = {{"state1", "qmap1", "absmax1"}, {"state2", "qmap2", "absmax2"}};
    static const float bad_scales[17] = {NAN}, negative[17] = {-1};
    static const int64_t integers[LARGE];
    const bool changed = k == 1;
    const int64_t n_table = changed && c == SHORT_TABLE ? 255 : 256;
    const int64_t n_scales = c == OLD_BLOCKS ? 3 : changed && c == SHORT_SCALES ? 16 : 17;
    if (changed && c == ONE_STATE)
        return;
    if (changed && c == INTEGER_STATE)
        put_tensor(w, names[k][0], DT_I64, 2, large_dims, integers);
    else
        put_tensor(w, names[k][0], DT_U8, 2, large_dims, codes[k]);
    if (!(changed && c == NO_TABLE))
        put_tensor(w, names[k][1], DT_F32, 1, &n_table, tables[k]);
    if (changed && c == BYTE_SCALES)
        put_tensor(w, names[k][2], DT_U8, 1, &n_scales, codes[k]);
    else
        put_tensor(w, names[k][2], DT_F32, 1, &n_scales,
                   changed && c == NAN_SCALE         ? bad_scales
                   : changed && c == NEGATIVE_SQUARE ? negative
                                                     : scales[k]);
}

static void put_entry(struct torch_writer *w, enum change c, int i)
{
    torch_put_int(w, i);
    torch_put_dict(w);
    torch_put_string(w, "step");
    torch_put_int(w, 9);
    if (c == NO_BLOCKS)
        put_tensor(w, "max1", DT_F32, 0, NULL, scales[0]);
    if (c != FLAT) {
        torch_put_string(w, "__bnb_optimizer_quant_state__");
        torch_put_dict(w);
    }
    for (int k = 0; k < 2; k++)
        if (i == 0)
            put_quantized(w, c, k);
        else
            put_tensor(w, k ? "state2" : "state1", DT_F32, 2, small_dims, small[k]);
    if (c != FLAT)
        torch_put_end(w);
    torch_put_end(w);
}

static void put_file(const char *path, enum change c)
{
    struct torch_writer *w;
    struct err err = ERR_INIT;
    assert_int_equal(torch_writer_open(&w, path, &err), ST_OK);
    torch_put_dict(w);
    torch_put_string(w, "state");
    torch_put_dict(w);
    put_entry(w, c, 0);
    put_entry(w, c, 1);
    torch_put_end(w);
    torch_put_string(w, "param_groups");
    torch_put_list(w);
    torch_put_dict(w);
    static const char *const numbers[] = {"weight_decay", "lr", "eps", "alpha"};
    for (int i = 0; i < 4; i++) {
        torch_put_string(w, numbers[i]);
        torch_put_float(w, 1e-5 * i);
    }
    torch_put_string(w, "betas");
    torch_put_tuple(w);
    torch_put_float(w, 0.9);
    torch_put_float(w, 0.999);
    torch_put_end(w);
    torch_put_string(w, "params");
    torch_put_list(w);
    torch_put_int(w, 0);
    torch_put_int(w, 1);
    torch_put_end(w);
    torch_put_end(w);
    torch_put_end(w);
    torch_put_end(w);
    assert_int_equal(torch_writer_commit(w, &err), ST_OK);
}

static enum status read_file(enum change c, struct optimizer_state *s, float *m, float *v, struct err *err)
{
    struct scratch dir;
    struct tensor_list params = TENSOR_LIST_INIT;
    scratch_open(&dir);
    put_file(scratch_path(&dir, "optimizer.pt"), c);
    assert_int_equal(tensor_list_add(&params, "large", DT_F32, 2, large_dims, NULL, err), ST_OK);
    assert_int_equal(tensor_list_add(&params, "small", DT_F32, 2, small_dims, NULL, err), ST_OK);
    *s = (struct optimizer_state){.params = &params};
    enum status st = optimizer_read(scratch_path(&dir, "optimizer.pt"), s, m, v, err);
    tensor_list_release(&params);
    scratch_close(&dir);
    return st;
}

static void test_good(void **state)
{
    for (enum change c = FLAT; c < N_GOOD; c++) {
        static float m[N], v[N];
        struct optimizer_state s;
        struct err err = ERR_INIT;
        const int block = c == OLD_BLOCKS ? 2048 : 256;
        if (read_file(c, &s, m, v, &err) != ST_OK)
            fail_msg("case %d: %s", (int)c, err.what);
        assert_int_equal(s.step, 9);
        for (int i = 0; i < LARGE; i++) {
            const float square = tables[1][codes[1][i]] * scales[1][i / block];
            /* A first moment without a second one is cleared. */
            const float mean = square == 0 ? 0 : tables[0][codes[0][i]] * scales[0][i / block];
            assert_true(m[i] == mean && v[i] == square);
        }
        assert_true(m[20] == 0 && m[21] != 0);
        assert_memory_equal(m + LARGE, small[0], sizeof small[0]);
        assert_memory_equal(v + LARGE, small[1], sizeof small[1]);
    }
}

static void test_bad(void **state)
{
    static const struct {
        enum change change;
        const char *message;
    } cases[] = {
        {NO_TABLE, "8-bit state2 of \"large\": no table or no scales of blocks"},
        {SHORT_TABLE, "8-bit state2 of \"large\": its table has not 256 entries"},
        {SHORT_SCALES, "the scales fit no length of blocks (256 or 2048)"},
        {NAN_SCALE, "table or scales have a value that is not finite"},
        {BYTE_SCALES, "table or scales are of no floating type"},
        {INTEGER_STATE, "is neither of bytes nor of a floating type"},
        {NEGATIVE_SQUARE, "exp_avg_sq of \"large\" has the value -"},
        {ONE_STATE, "Lion or another optimizer without exp_avg_sq"},
        {NO_BLOCKS, "a bitsandbytes 8-bit optimizer without blocks"},
    };
    assert_int_equal(sizeof cases / sizeof *cases, N_CHANGES - N_GOOD);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static float m[N], v[N];
        struct optimizer_state s;
        struct err err = ERR_INIT;
        enum status st = read_file(cases[i].change, &s, m, v, &err);
        if (st != ST_INPUT || !strstr(err.what, cases[i].message))
            fail_msg("change %d: \"%s\" lacks \"%s\"", (int)cases[i].change, err.what, cases[i].message);
    }
}

/* The file's matrix stands for its rows 10 to 14, which are what is trained here. */
static void test_whole(void **state)
{
    static float m[N], v[N];
    struct scratch dir;
    struct tensor_list params = TENSOR_LIST_INIT;
    struct err err = ERR_INIT;
    uint8_t kept[2][LARGE];
    memcpy(kept, codes, sizeof kept);
    for (int i = 0; i < LARGE; i++)
        if (i < 10 * COLS || i >= 15 * COLS) {
            codes[0][i] = 127;
            codes[1][i] = 0;
        }
    scratch_open(&dir);
    assert_int_equal(
        tensor_list_add(&params, "m.embed_tokens.rows", DT_F32, 2, (int64_t[]){5, COLS}, NULL, &err), ST_OK);
    assert_int_equal(tensor_list_add(&params, "small", DT_F32, 2, small_dims, NULL, &err), ST_OK);
    struct optimizer_state s = {.params = &params, .whole_rows = ROWS, .first_row = 10};
    const char *path = scratch_path(&dir, "optimizer.pt");
    put_file(path, WRAPPED);
    assert_int_equal(optimizer_read(path, &s, m, v, &err), ST_OK);
    for (int i = 0; i < 5 * COLS; i++)
        assert_true(v[i] == tables[1][codes[1][10 * COLS + i]] * scales[1][(10 * COLS + i) / 256]);
    assert_memory_equal(v + 5 * COLS, small[1], sizeof small[1]);
    codes[0][15 * COLS] = 128; /* the row behind them was being trained too */
    put_file(path, WRAPPED);
    assert_int_equal(optimizer_read(path, &s, m, v, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "has a moment in row 15, which is not a new one"));
    struct err again = ERR_INIT;
    s.whole_rows = 0;
    assert_int_equal(optimizer_read(path, &s, m, v, &again), ST_INPUT);
    assert_non_null(strstr(again.what, "have shape [65,64]"));
    memcpy(codes, kept, sizeof kept);
    tensor_list_release(&params);
    scratch_close(&dir);
}

/* What is written for it: its names, 32-bit states, a step that Python counts; read back the same. */
static void test_written(void **state)
{
    struct scratch s;
    struct torch_file f;
    struct tensor_list list = TENSOR_LIST_INIT;
    const int64_t dims[2] = {2, 3};
    float m[6], v[6], m2[6], v2[6];
    struct err err = ERR_INIT;
    scratch_open(&s);
    for (int i = 0; i < 6; i++) {
        m[i] = 0.1f * (float)(i - 2);
        v[i] = 0.01f * (float)(i + 1);
    }
    assert_int_equal(tensor_list_add(&list, "a", DT_F32, 2, dims, m, &err), ST_OK);
    struct optimizer_state o = {.beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .step = 7,
                                .params = &list,
                                .exp_avg = m,
                                .exp_avg_sq = v,
                                .for_bitsandbytes = true};
    const char *path = scratch_path(&s, "optimizer.pt");
    assert_int_equal(optimizer_write(path, &o, &err), ST_OK);
    assert_int_equal(torch_file_open(&f, path, &err), ST_OK);
    const struct value *entry = value_get_int(value_get(f.root, "state"), 0);
    assert_int_equal(value_get(entry, "step")->kind, VALUE_INT);
    assert_int_equal(value_get(entry, "state1")->tensor.dtype, DT_F32);
    assert_null(value_get(entry, "exp_avg"));
    torch_file_close(&f);
    struct optimizer_state back = {.params = &list};
    assert_int_equal(optimizer_read(path, &back, m2, v2, &err), ST_OK);
    assert_int_equal(back.step, 7);
    assert_memory_equal(m2, m, sizeof m);
    assert_memory_equal(v2, v, sizeof v);
    tensor_list_release(&list);
    scratch_close(&s);
}

int main(void)
{
    log_set_level(LOG_WARN);
    fill();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad),
                                       cmocka_unit_test(test_written), cmocka_unit_test(test_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
