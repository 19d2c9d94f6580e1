#include "checkpoint/safetensors.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static int setup(void **state)
{
    fixture_make();
    return 0;
}

static int teardown(void **state)
{
    fixture_remove();
    return 0;
}

/* Header text and data of n bytes (all 7) as a file. */
static const char *put_file(const char *name, const char *header, size_t n_data)
{
    struct buf b = BUF_INIT;
    struct err err = ERR_INIT;
    uint64_t n = strlen(header);
    buf_append(&b, &n, 8, &err);
    buf_puts(&b, header, &err);
    for (size_t i = 0; i < n_data; i++)
        buf_append(&b, "\7", 1, &err);
    assert_int_equal(err.status, ST_OK);
    fixture_write(name, b.data, b.n_bytes);
    buf_release(&b);
    return fixture_path(name);
}

static void round_trip(void **state)
{
    float a[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
    uint16_t h[3] = {0x3f80, 0x4000, 0xc000};
    int64_t i[1] = {-5};
    struct err err = ERR_INIT;
    struct tensor_list list = TENSOR_LIST_INIT;
    assert_int_equal(tensor_list_add(&list, "z", DT_F32, 2, (int64_t[]){2, 3}, a, &err), ST_OK);
    assert_int_equal(tensor_list_add(&list, "a", DT_BF16, 1, (int64_t[]){3}, h, &err), ST_OK);
    assert_int_equal(tensor_list_add(&list, "m\"\\\n\xc3\xa4", DT_I64, 0, NULL, i, &err), ST_OK);
    assert_int_equal(tensor_list_add(&list, "empty", DT_F32, 2, (int64_t[]){0, 9}, a, &err), ST_OK);
    const char *path = fixture_path("x.safetensors");
    umask(022);
    assert_int_equal(safetensors_write(path, &list, &err), ST_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);

    struct buf bytes = BUF_INIT;
    fixture_read(path, &bytes);
    static const char wanted[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"m\\\"\\\\\\n\xc3\xa4\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[8,8]},"
        "\"z\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[32,38]}}";
    assert_memory_equal(bytes.data + 8, wanted, sizeof wanted - 1);
    uint64_t n_header;
    memcpy(&n_header, bytes.data, 8);
    assert_int_equal(n_header % 8, 0);
    assert_int_equal(bytes.n_bytes, 8 + n_header + 38);

    struct safetensors s;
    assert_int_equal(safetensors_open(&s, path, &err), ST_OK);
    assert_int_equal(s.tensors.n_items, 4);
    const struct tensor *t = tensor_list_find(&s.tensors, "z");
    assert_non_null(t);
    assert_int_equal(t->dims[1], 3);
    assert_memory_equal(t->data, a, sizeof a);
    t = tensor_list_find(&s.tensors, "m\"\\\n\xc3\xa4");
    assert_non_null(t);
    assert_int_equal(t->n_dims, 0);
    assert_memory_equal(t->data, i, sizeof i);
    assert_int_equal(tensor_list_find(&s.tensors, "empty")->n_bytes, 0);
    safetensors_close(&s);
    buf_release(&bytes);
    tensor_list_release(&list);
}

static void write_refuses(void **state)
{
    float a = 0;
    struct err err = ERR_INIT;
    struct tensor_list list = TENSOR_LIST_INIT;
    tensor_list_add(&list, "x", DT_F32, 0, NULL, &a, &err);
    tensor_list_add(&list, "x", DT_F16, 0, NULL, &a, &err);
    enum status status = safetensors_write(fixture_path("twice"), &list, &err);
    expect_error(status, ST_DEFECT, &err, "two tensors named \"x\"");
    assert_false(file_exists(fixture_path("twice")));
    tensor_list_release(&list);
    err = (struct err)ERR_INIT;
    tensor_list_add(&list, "x\xff", DT_F32, 0, NULL, &a, &err);
    status = safetensors_write(fixture_path("latin"), &list, &err);
    expect_error(status, ST_DEFECT, &err, "no UTF-8");
    tensor_list_release(&list);
}

/* What the reference reader accepts. */
static void good_files(void **state)
{
    static const struct {
        const char *header;
        size_t n_data;
        int n_tensors;
    } cases[] = {
        {"{}", 0, 0},
        {" {\"a\":{\"shape\":[3],\"extra\":[1,{}],\"data_offsets\":[0,3],\"dtype\":\"U8\"}}   ", 3, 1},
        {"{\"\\u00e4\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[1,5]},"
         "\"b\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         5, 2},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4,0],\"data_offsets\":[0,0]},"
         "\"b\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[0,2]}}",
         2, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors s;
        struct err err = ERR_INIT;
        enum status status = safetensors_open(&s, put_file("good", cases[i].header, cases[i].n_data), &err);
        if (status != ST_OK)
            fail_msg("case %zu: %s", i, err.what);
        assert_int_equal(s.tensors.n_items, cases[i].n_tensors);
        safetensors_close(&s);
    }
}

static void bad_headers(void **state)
{
#define ENTRY(dtype, shape, offsets)                                                                         \
    "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    static const struct {
        const char *header;
        size_t n_data;
        const char *message;
    } cases[] = {
        {"[]", 0, "no JSON object"},
        {"{", 0, "(header)"},
        {"{}x", 0, "(header)"},
        {"{\"\xff\":1}", 0, "(header)"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, "duplicate"},
        {"{\"x\":7}", 0, "tensor \"x\": no object"},
        {"{\"__metadata__\":{\"format\":1}}", 0, "__metadata__ \"format\" is no string"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is no object"},
        {"{\"x\\ny\":{\"dtype\":\"F33\"}}", 0, "tensor \"x\\x0ay\": dtype \"F33\" is unknown"},
        {ENTRY("\"F8_E4M3\"", "[1]", "[0,1]"), 1, "dtype \"F8_E4M3\" is not supported"},
        {ENTRY("1", "[1]", "[0,1]"), 1, "no dtype"},
        {ENTRY("\"U8\"", "1", "[0,1]"), 1, "no shape"},
        {ENTRY("\"U8\"", "[-1]", "[0,1]"), 1, "dimension 0 is no whole number"},
        {ENTRY("\"U8\"", "[1,1.0]", "[0,1]"), 1, "dimension 1 is no whole number"},
        {ENTRY("\"U8\"", "[1,1,1,1,1]", "[0,1]"), 1, "5 dimensions"},
        {ENTRY("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, "overflows"},
        {ENTRY("\"F32\"", "[4611686018427387904]", "[0,0]"), 0, "overflows"},
        {ENTRY("\"U8\"", "[1]", "[0]"), 1, "data_offsets are not two whole numbers"},
        {ENTRY("\"U8\"", "[1]", "[0,1,1]"), 1, "data_offsets are not two whole numbers"},
        {ENTRY("\"U8\"", "[1]", "[0,1.0]"), 1, "data_offsets are not two whole numbers"},
        {ENTRY("\"U8\"", "[1]", "{\"0\":0}"), 1, "data_offsets are not two whole numbers"},
        {ENTRY("\"U8\"", "[1]", "[-1,0]"), 1, "data_offsets -1 to 0"},
        {ENTRY("\"U8\"", "[1]", "[1,0]"), 1, "data_offsets 1 to 0"},
        {ENTRY("\"U8\"", "[2]", "[0,2]"), 1, "data ends at 2, the file has 1 bytes of data"},
        {ENTRY("\"U8\"", "[1]", "[0,9223372036854775807]"), 1, "data ends at"},
        {ENTRY("\"F32\"", "[1]", "[0,3]"), 3, "3 bytes of data, its shape needs 4"},
        {ENTRY("\"U8\"", "[1]", "[1,2]"), 2, "leaving a hole"},
        {ENTRY("\"U8\"", "[1]", "[0,1]"), 2, "1 bytes behind the last tensor"},
        {"{}", 1, "1 bytes behind the last tensor"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, "tensor \"y\": data begins at 1, inside the tensor that ends at 2"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
         2, "inside the tensor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors s;
        struct err err = ERR_INIT;
        enum status status = safetensors_open(&s, put_file("bad", cases[i].header, cases[i].n_data), &err);
        expect_error(status, ST_INPUT, &err, cases[i].message);
        assert_int_equal(s.tensors.n_items, 0);
        assert_null(s.maps);
    }
}

static void bad_files(void **state)
{
#define BYTES(text) text, sizeof text - 1
    static const struct {
        const char *data;
        size_t n_bytes;
        const char *message;
    } cases[] = {
        {BYTES(""), "is empty"},
        {BYTES("{}"), "2 bytes, too few"},
        {BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "Git LFS pointer"},
        {BYTES("\n <!DOCTYPE html><html></html>"), "web page"},
        {BYTES("<HTML><body>404</body>"), "web page"},
        {BYTES("PK\3\4aaaaaaaaaaaaaaaa"), "zip archive"},
        {BYTES("GGUF\3\0\0\0aaaaaaaaaaaaa"), "GGUF"},
        {BYTES("\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."), "before version 1.6"},
        {BYTES("\0\0\0\0\0\0\0\2{}"), "its header would have"},
        {BYTES("\3\0\0\0\0\0\0\0{}"), "the header has 3 bytes, the file only 10"},
        {BYTES("\xff\xff\xff\xff\xff\xff\xff\xff{}"), "its header would have"},
        {BYTES("\4\0\0\0\0\0\0\0{}\0\0"), "(header)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors s;
        struct err err = ERR_INIT;
        fixture_write("bad", cases[i].data, cases[i].n_bytes);
        enum status status = safetensors_open(&s, fixture_path("bad"), &err);
        expect_error(status, ST_INPUT, &err, cases[i].message);
    }
    struct safetensors s;
    struct err err = ERR_INIT;
    expect_error(safetensors_open(&s, fixture_path("missing"), &err), ST_INPUT, &err, "missing");
}

static void model_shards(void **state)
{
    put_file("m-1.safetensors",
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
             "\"stray\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
             3);
    put_file("m-2.safetensors", "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    static const struct {
        const char *index, *message;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}", NULL},
        {"{\"metadata\":{\"total_size\":1},\"weight_map\":{\"b\":\"m-2.safetensors\",\"c\":\"m-2."
         "safetensors\"}}",
         "tensor \"c\" is not in \"m-2.safetensors\""},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\"}}", "tensor \"a\" is not in \"m-2.safetensors\""},
        {"{\"weight_map\":{\"a\":\"m-3.safetensors\"}}", "m-3.safetensors"},
        {"{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", "no plain safetensors file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "no plain safetensors file name"},
        {"{\"weight_map\":{\"a\":\"/m-1.safetensors\"}}", "no plain safetensors file name"},
        {"{\"weight_map\":{\"a\":\"m-1.bin\"}}", "no plain safetensors file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "no plain safetensors file name"},
        {"{\"weight_map\":{\"a\":7}}", "the shard of \"a\" is no string"},
        {"{\"weight_map\":{}}", "has no weight_map"},
        {"{\"weight_map\":[]}", "has no weight_map"},
        {"[]", "has no weight_map"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"a\":\"m-2.safetensors\"}}", "duplicate"},
        {"version https://git-lfs", "index.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture_write("model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        struct safetensors s;
        struct err err = ERR_INIT;
        enum status status = safetensors_open_model(&s, fixture_path(""), &err);
        if (cases[i].message) {
            expect_error(status, ST_INPUT, &err, cases[i].message);
            continue;
        }
        assert_int_equal(status, ST_OK);
        assert_int_equal(s.n_maps, 2);
        assert_int_equal(s.tensors.n_items, 2);
        assert_int_equal(tensor_list_find(&s.tensors, "a")->n_bytes, 2);
        assert_memory_equal(tensor_list_find(&s.tensors, "b")->data, "\7", 1);
        safetensors_close(&s);
    }
    put_file("model.safetensors", "{}", 0); /* comes before the index */
    struct safetensors s;
    struct err err = ERR_INIT;
    assert_int_equal(safetensors_open_model(&s, fixture_path(""), &err), ST_OK);
    assert_int_equal(s.tensors.n_items, 0);
    safetensors_close(&s);
}

static void model_without_weights(void **state)
{
    struct safetensors s;
    struct err err = ERR_INIT;
    enum status status = safetensors_open_model(&s, fixture_path(""), &err);
    expect_error(status, ST_INPUT, &err, "no model.safetensors and no model.safetensors.index.json");
    fixture_write("pytorch_model.bin", "PK", 2);
    err = (struct err)ERR_INIT;
    status = safetensors_open_model(&s, fixture_path(""), &err);
    expect_error(status, ST_INPUT, &err, "no model.safetensors");
    assert_non_null(strstr(err.hint, "pytorch_model.bin"));
}

/* Reading and writing a file of the reference library gives the same bytes. */
static void golden_adapter(void **state)
{
    if (!shared_dir()) {
        print_message("skipped: no ../shared\n");
        skip();
    }
    static const char *const names[] = {"qwen3_tied", "gemma3_tied", "llama_rope3_untied"};
    for (int i = 0; i < 3; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/golden/%s/train/checkpoint-15/adapter_model.safetensors",
                 shared_dir(), names[i]);
        struct safetensors s;
        struct err err = ERR_INIT;
        assert_int_equal(safetensors_open(&s, path, &err), ST_OK);
        assert_int_equal(safetensors_write(fixture_path("copy"), &s.tensors, &err), ST_OK);
        struct buf theirs = BUF_INIT, ours = BUF_INIT;
        fixture_read(path, &theirs);
        fixture_read(fixture_path("copy"), &ours);
        assert_int_equal(theirs.n_bytes, ours.n_bytes);
        assert_memory_equal(theirs.data, ours.data, ours.n_bytes);
        buf_release(&theirs);
        buf_release(&ours);
        safetensors_close(&s);
    }
    char dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s/golden/qwen3_bf16_sharded/model", shared_dir());
    struct safetensors s;
    struct err err = ERR_INIT;
    assert_int_equal(safetensors_open_model(&s, dir, &err), ST_OK);
    assert_int_equal(s.n_maps, 2);
    assert_non_null(tensor_list_find(&s.tensors, "model.embed_tokens.weight"));
    assert_int_equal(tensor_list_find(&s.tensors, "model.norm.weight")->dtype, DT_BF16);
    safetensors_close(&s);
}

static void damaged_files(void **state)
{
    float a[64] = {0};
    struct err err = ERR_INIT;
    struct tensor_list list = TENSOR_LIST_INIT;
    for (int i = 0; i < 12; i++) {
        char name[32];
        snprintf(name, sizeof name, "layer.%d.weight", i);
        tensor_list_add(&list, name, i % 2 ? DT_F32 : DT_BF16, 2, (int64_t[]){i, 5}, a, &err);
    }
    assert_int_equal(safetensors_write(fixture_path("base"), &list, &err), ST_OK);
    tensor_list_release(&list);
    struct buf base = BUF_INIT, copy = BUF_INIT;
    fixture_read(fixture_path("base"), &base);
    int n_refused = 0;
    volatile unsigned sum = 0;
    for (unsigned round = 0; round < 4000; round++) {
        damage(&copy, &base, round);
        fixture_write("damaged", copy.data, copy.n_bytes);
        struct safetensors s;
        err = (struct err)ERR_INIT;
        if (safetensors_open(&s, fixture_path("damaged"), &err) != ST_OK) {
            assert_int_equal(err.status, ST_INPUT);
            n_refused++;
            continue;
        }
        /* What was accepted must be readable to the last byte. */
        for (int i = 0; i < s.tensors.n_items; i++) {
            for (size_t j = 0; j < s.tensors.items[i].n_bytes; j++)
                sum += ((const unsigned char *)s.tensors.items[i].data)[j];
        }
        safetensors_close(&s);
    }
    assert_true(n_refused > 1000);
    buf_release(&base);
    buf_release(&copy);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(round_trip),
        CASE(write_refuses),
        CASE(good_files),
        CASE(bad_headers),
        CASE(bad_files),
        CASE(model_shards),
        CASE(model_without_weights),
        CASE(golden_adapter),
        CASE(damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
