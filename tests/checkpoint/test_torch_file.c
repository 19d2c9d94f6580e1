#include "checkpoint/torch_file.h"
#include "fixture.h"
#include "zip_internal.h"

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

/* A zip with data.pkl = pickle, version 3 and data/0 = n zero bytes. */
static const char *put_pickle(const char *name, const char *pickle, size_t n, size_t n_storage)
{
    struct zip_writer w;
    struct err err = ERR_INIT;
    const char *path = fixture_path(name);
    char *zeros = calloc(n_storage + 1, 1);
    for (size_t i = 0; i < n_storage; i++)
        zeros[i] = (char)i;
    assert_int_equal(zip__begin(&w, path, &err), ST_OK);
    assert_int_equal(zip__put(&w, "data.pkl", pickle, n, &err), ST_OK);
    assert_int_equal(zip__put(&w, "data/0", zeros, n_storage, &err), ST_OK);
    assert_int_equal(zip__put(&w, "version", "3\n", 2, &err), ST_OK);
    assert_int_equal(zip__commit(&w, &err), ST_OK);
    free(zeros);
    return path;
}

static void write_sample(const char *path)
{
    static const float a[6] = {1, 2, 3, 4, 5, 6};
    static const int64_t b[2] = {-1, (int64_t)1 << 40};
    static const uint16_t h[3] = {0x3f80, 0, 0xbf80};
    struct torch_writer *w = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(torch_writer_open(&w, path, &err), ST_OK);
    torch_put_dict(w);
    torch_put_string(w, "ints");
    torch_put_list(w);
    static const int64_t ints[] = {
        0, 255, 256, 65535, 65536, -1, INT32_MAX, INT32_MIN, (int64_t)1 << 40, INT64_MIN};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        torch_put_int(w, ints[i]);
    torch_put_end(w);
    torch_put_int(w, 7);
    torch_put_tuple(w);
    torch_put_none(w);
    torch_put_bool(w, true);
    torch_put_bool(w, false);
    torch_put_float(w, -0.1);
    torch_put_end(w);
    torch_put_string(w, "empty");
    torch_put_list(w);
    torch_put_dict(w);
    torch_put_end(w);
    torch_put_tuple(w);
    torch_put_end(w);
    torch_put_list(w);
    torch_put_end(w);
    torch_put_end(w);
    torch_put_string(w, "a");
    torch_put_tensor(w, DT_F32, 2, (int64_t[]){2, 3}, a);
    torch_put_string(w, "b");
    torch_put_tensor(w, DT_I64, 1, (int64_t[]){2}, b);
    torch_put_string(w, "h");
    torch_put_tensor(w, DT_BF16, 3, (int64_t[]){1, 3, 1}, h);
    torch_put_string(w, "scalar");
    torch_put_tensor(w, DT_F32, 0, NULL, a + 4);
    torch_put_string(w, "nothing");
    torch_put_tensor(w, DT_F32, 2, (int64_t[]){0, 3}, a);
    torch_put_end(w);
    assert_int_equal(torch_writer_commit(w, &err), ST_OK);
}

static void check_sample(const struct value *root)
{
    const struct value *ints = value_get(root, "ints"), *t = value_get_int(root, 7);
    assert_int_equal(ints->kind, VALUE_LIST);
    assert_int_equal(ints->list.n, 10);
    assert_true(ints->list.items[5]->integer == -1);
    assert_true(ints->list.items[7]->integer == INT32_MIN);
    assert_true(ints->list.items[8]->integer == (int64_t)1 << 40);
    assert_true(ints->list.items[9]->integer == INT64_MIN);
    assert_int_equal(t->kind, VALUE_TUPLE);
    assert_int_equal(t->list.items[0]->kind, VALUE_NONE);
    assert_true(t->list.items[1]->boolean);
    assert_false(t->list.items[2]->boolean);
    assert_true(t->list.items[3]->real == -0.1);
    const struct value *empty = value_get(root, "empty");
    assert_int_equal(empty->list.items[0]->kind, VALUE_DICT);
    assert_int_equal(empty->list.items[1]->kind, VALUE_TUPLE);
    assert_int_equal(empty->list.items[2]->list.n, 0);
    const struct tensor *a = &value_get(root, "a")->tensor;
    assert_int_equal(a->dims[0], 2);
    assert_int_equal(a->dims[1], 3);
    assert_memory_equal(a->data, ((float[]){1, 2, 3, 4, 5, 6}), 24);
    assert_int_equal((uintptr_t)a->data % 64, 0);
    assert_int_equal(value_get(root, "h")->tensor.dtype, DT_BF16);
    assert_int_equal(value_get(root, "h")->tensor.n_dims, 3);
    double x = 0;
    assert_true(value_number(value_get(root, "scalar"), &x) && x == 5);
    assert_false(value_number(value_get(root, "a"), &x));
    assert_int_equal(value_get(root, "nothing")->tensor.n_bytes, 0);
    assert_null(value_get(root, "missing"));
    assert_null(value_get_int(root, 8));
    assert_null(value_get(ints, "x"));
}

static void round_trip(void **state)
{
    struct err err = ERR_INIT;
    struct torch_file f;
    umask(022);
    write_sample(fixture_path("sample.pt"));
    struct stat st;
    assert_int_equal(stat(fixture_path("sample.pt"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    assert_int_equal(torch_file_open(&f, fixture_path("sample.pt"), &err), ST_OK);
    check_sample(f.root);
    torch_file_close(&f);
    torch_file_close(&f); /* closed twice does no harm */

    struct buf one = BUF_INIT, two = BUF_INIT;
    fixture_read(fixture_path("sample.pt"), &one);
    write_sample(fixture_path("sample.pt"));
    fixture_read(fixture_path("sample.pt"), &two);
    assert_int_equal(one.n_bytes, two.n_bytes);
    assert_memory_equal(one.data, two.data, one.n_bytes);
    buf_release(&one);
    buf_release(&two);
}

static void writer_defects(void **state)
{
    static const int kinds[] = {0, 1, 2, 3, 4, 5};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct torch_writer *w = NULL;
        struct err err = ERR_INIT;
        assert_int_equal(torch_writer_open(&w, fixture_path("bad.pt"), &err), ST_OK);
        float x = 0;
        if (kinds[i] == 1) {
            torch_put_dict(w);
        } else if (kinds[i] == 2) {
            torch_put_dict(w);
            torch_put_int(w, 1);
            torch_put_end(w);
        } else if (kinds[i] == 3) {
            torch_put_end(w);
        } else if (kinds[i] == 4) {
            torch_put_int(w, 1);
            torch_put_int(w, 2);
        } else if (kinds[i] == 5) {
            torch_put_tensor(w, DT_F32, 2, (int64_t[]){INT64_MAX, INT64_MAX}, &x);
        }
        expect_error(torch_writer_commit(w, &err), ST_DEFECT, &err, "torch_writer: ");
        assert_false(file_exists(fixture_path("bad.pt")));
    }
}

/* The pickle of a float tensor over storage '0' with the arguments of size and stride given as opcodes. */
#define STORAGE(numel)                                                                                       \
    "((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                                      \
    "0X\3\0\0\0cpu" numel "tQ"
#define HEAD "\x80\2ctorch._utils\n_rebuild_tensor_v2\n"
#define TAIL                                                                                                 \
    "\x89"                                                                                                   \
    "ccollections\nOrderedDict\n)RtR."
#define P(text) text, sizeof text - 1

/* Views that are not contiguous are copied element by element. */
static void strided(void **state)
{
    static const struct {
        const char *pickle;
        size_t n, n_dims;
        int64_t dims[2];
        size_t n_values;
        unsigned char first[6]; /* first byte of each element */
    } cases[] = {
        /* a transposed 2 x 3 */
        {P(HEAD STORAGE("K\6") "K\0K\3K\2\x86K\1K\3\x86" TAIL), 2, {3, 2}, 6, {0, 12, 4, 16, 8, 20}},
        /* every second element from 1 */
        {P(HEAD STORAGE("K\6") "K\1K\3\x85K\2\x85" TAIL), 1, {3}, 3, {4, 12, 20}},
        /* a slice in one piece */
        {P(HEAD STORAGE("K\6") "K\2K\2K\2\x86K\2K\1\x86" TAIL), 2, {2, 2}, 4, {8, 12, 16, 20}},
        /* the stride of a dimension of size 1 does not matter */
        {P(HEAD STORAGE("K\6") "K\3K\1K\3\x86M\xff\xffK\1\x86" TAIL), 2, {1, 3}, 3, {12, 16, 20}},
        /* 0-dim */
        {P(HEAD STORAGE("K\6") "K\5))" TAIL), 0, {0}, 1, {20}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct torch_file f;
        struct err err = ERR_INIT;
        put_pickle("view.pt", cases[i].pickle, cases[i].n, 24);
        if (torch_file_open(&f, fixture_path("view.pt"), &err) != ST_OK)
            fail_msg("case %zu: %s", i, err.what);
        assert_int_equal(f.root->kind, VALUE_TENSOR);
        const struct tensor *t = &f.root->tensor;
        assert_int_equal(t->n_dims, cases[i].n_dims);
        assert_memory_equal(t->dims, cases[i].dims, cases[i].n_dims * sizeof(int64_t));
        assert_int_equal(t->n_bytes, 4 * cases[i].n_values);
        for (size_t k = 0; k < cases[i].n_values; k++)
            assert_int_equal(((const unsigned char *)t->data)[4 * k], cases[i].first[k]);
        torch_file_close(&f);
    }
}

static void bad_pickles(void **state)
{
    static const struct {
        const char *pickle;
        size_t n;
        const char *message;
    } cases[] = {
        {P(""), "byte 0: the pickle is cut short"},
        {P("\x80\2"), "byte 2: the pickle is cut short"},
        {P("\x80\4N."), "byte 0: pickle protocol 4"},
        {P("\x80\2cos\nsystem\nX\2\0\0\0id\x85R."), "byte 2: opcode 0x63 (GLOBAL) asks for \"os.system\""},
        {P("\x80\2c__builtin__\neval\n."), "\"__builtin__.eval\""},
        {P("\x80\2ctorch\nload\n."), "\"torch.load\""},
        {P("\x80\2ctorch\nUntypedStorage\n."), "\"torch.UntypedStorage\""},
        {P("\x80\2ctorch.storage\nFloatStorage\n."), "\"torch.storage.FloatStorage\""},
        {P("\x80\2c\n\n."), "\".\""},
        {P("\x80\2cabc"), "a global without a name"},
        {P("\x80\2}}b."), "byte 4: opcode 0x62 (BUILD) is not allowed"},
        {P("\x80\2X\1\0\0\0aX\1\0\0\0b\x93."), "opcode 0x93 (STACK_GLOBAL) is not allowed"},
        {P("\x80\2)\x81."), "opcode 0x81 (NEWOBJ) is not allowed"},
        {P("\x80\2\x95\0\0\0\0\0\0\0\0N."), "opcode 0x95 (FRAME) is not allowed"},
        {P("\x80\2(ios\nsystem\n."), "opcode 0x69 (INST) is not allowed"},
        {P("\x80\2\xff."), "opcode 0xff (no pickle opcode) is not allowed"},
        {P("\x80\2N0."), "(POP)"},
        {P("\x80\2."), "ends with 0 values"},
        {P("\x80\2NN."), "ends with 2 values"},
        {P("\x80\2(N."), "ends with 1 values"},
        {P("\x80\2N.N"), "1 bytes behind the end"},
        {P("\x80\2K"), "byte 2: the pickle is cut short"},
        {P("\x80\2X\xff\xff\xff\xff"), "cut short"},
        {P("\x80\2X\1\0\0\0\xff."), "no UTF-8"},
        {P("\x80\2\x8a\x09"
           "abcdefghi."),
         "an integer of 9 bytes"},
        {P("\x80\2h\0."), "memo 0 is empty"},
        {P("\x80\2j\xff\xff\xff\xff."), "memo 4294967295 is empty"},
        {P("\x80\2Nr\xff\xff\xff\xff."), "memo deeper"},
        {P("\x80\2q\0."), "nothing on the stack"},
        {P("\x80\2t."), "no mark"},
        {P("\x80\2u."), "no mark"},
        {P("\x80\2(u."), "no dict to add to"},
        {P("\x80\2](NNu."), "no dict to add to"},
        {P("\x80\2}(Ne."), "no list to add to"},
        {P("\x80\2}(K\1u."), "a key without a value"},
        {P("\x80\2}K\1s."), "no dict to add to"},
        {P("\x80\2}NNs."), "neither string nor integer"},
        {P("\x80\2a."), "nothing on the stack"},
        {P("\x80\2]a."), "no list to add to"},
        {P("\x80\2](a."), "nothing on the stack"},
        {P("\x80\2N\x86."), "nothing on the stack"},
        {P("\x80\2}(K\1NK\1Nu."), "a dict has the key 1 twice"},
        {P("\x80\2}(X\1\0\0\0aNX\1\0\0\0aNu."), "a dict has the key \"a\" twice"},
        {P("\x80\2NN\x86R."), "nothing on the stack"},
        {P("\x80\2N)R."), "REDUCE"},
        {P("\x80\2ctorch\nFloatStorage\n)R."), "REDUCE"},
        {P("\x80\2ccollections\nOrderedDict\nK\1\x85R."), "OrderedDict with unusable arguments"},
        {P("\x80\2ccollections\nOrderedDict\n]K\1a\x85R."), "OrderedDict with unusable arguments"},
        {P("\x80\2ctorch._utils\n_rebuild_parameter\nNNN\x87R."),
         "_rebuild_parameter with unusable arguments"},
        {P("\x80\2ctorch._utils\n_rebuild_tensor_v2\n)R."), "_rebuild_tensor_v2 with unusable arguments"},
        {P("\x80\2NQ."), "a persistent id that is no storage"},
        {P(HEAD STORAGE("K\5") "K\0K\5\x85K\1\x85" TAIL), "has 24 bytes, 5 elements need 20"},
        {P(HEAD STORAGE("J\xff\xff\xff\xff") "K\0K\5\x85K\1\x85" TAIL), "of -1 elements"},
        {P(HEAD STORAGE("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f") "K\0))" TAIL), "elements"},
        {P(HEAD "((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
                "7X\3\0\0\0cpuK\6tQK\0))" TAIL),
         "storage \"7\" is not in the file"},
        {P(HEAD "((X\7\0\0\0storagectorch\nFloatStorage\nX\12\0\0\0"
                "../version"
                "X\3\0\0\0cpuK\6tQK\0))" TAIL),
         "storage \"../version\" is not in the file"},
        {P(HEAD STORAGE("K\6") "K\6))" TAIL), "reaches element 6 of a storage of 6"},
        {P(HEAD STORAGE("K\6") "J\xff\xff\xff\xff))" TAIL), "unusable offset"},
        {P(HEAD STORAGE("K\6") "K\0K\7\x85K\1\x85" TAIL), "reaches element 6"},
        {P(HEAD STORAGE("K\6") "K\7K\0\x85K\1\x85" TAIL), "begins outside its storage"},
        {P(HEAD STORAGE("K\6") "K\0K\2\x85J\xff\xff\xff\xff\x85" TAIL), "unusable offset, size or stride"},
        {P(HEAD STORAGE("K\6") "K\0K\2\x85)" TAIL), "unusable offset, size or stride"},
        {P(HEAD STORAGE("K\6") "K\0K\7\x85K\0\x85" TAIL), "expanded"},
        {P(HEAD STORAGE("K\6") "K\0(K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1t" TAIL), "5 dimensions"},
        {P(HEAD STORAGE("K\6") "K\0\x8a\x08\0\0\0\0\0\0\0\x40K\4\x86K\1K\1\x86" TAIL), "size overflows"},
        {P(HEAD STORAGE("K\6") "K\0K\3\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85" TAIL),
         "reaches outside its storage"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct torch_file f;
        struct err err = ERR_INIT;
        put_pickle("bad.pt", cases[i].pickle, cases[i].n, 24);
        enum status status = torch_file_open(&f, fixture_path("bad.pt"), &err);
        if (status != ST_INPUT || !strstr(err.what, cases[i].message))
            fail_msg("case %zu: status %d, \"%s\" lacks \"%s\"", i, (int)status, err.what, cases[i].message);
        assert_null(f.root);
        assert_null(f.impl);
    }
}

/* Many marks, and lists in lists: refused or accepted, but never by recursion. */
static void deep_pickles(void **state)
{
    size_t n = 200000;
    char *bytes = malloc(n + 16);
    struct torch_file f;
    struct err err = ERR_INIT;
    memset(bytes, '(', n);
    memcpy(bytes + n, ".", 1);
    put_pickle("deep.pt", bytes, n + 1, 0);
    expect_error(torch_file_open(&f, fixture_path("deep.pt"), &err), ST_INPUT, &err, "marks deeper than");

    memset(bytes, ']', n / 2); /* [[[[...]]]] */
    memset(bytes + n / 2, 'a', n / 2 - 1);
    memcpy(bytes + n - 1, ".", 1);
    put_pickle("deep.pt", bytes, n, 0);
    err = (struct err)ERR_INIT;
    assert_int_equal(torch_file_open(&f, fixture_path("deep.pt"), &err), ST_OK);
    assert_int_equal(f.root->list.n, 1);
    torch_file_close(&f);

    /* a list that holds itself */
    err = (struct err)ERR_INIT;
    put_pickle("deep.pt", "\x80\2]q\0h\0a.", 9, 0);
    assert_int_equal(torch_file_open(&f, fixture_path("deep.pt"), &err), ST_OK);
    assert_ptr_equal(f.root->list.items[0], f.root);
    torch_file_close(&f);
    free(bytes);
}

/* One storage of 4096 bytes, copied through strides again and again. */
static void copies_are_bounded(void **state)
{
    struct buf b = BUF_INIT;
    struct err err = ERR_INIT;
    buf_append(&b, P("\x80\2](ctorch._utils\n_rebuild_tensor_v2\n"), &err);
    buf_append(&b, P(STORAGE("M\0\4") "K\0K\x20K\x20\x86K\1K\x20\x86\x89)tq\0R"), &err);
    for (int i = 0; i < 200; i++)
        buf_append(&b, P("ctorch._utils\n_rebuild_tensor_v2\nh\0R"), &err);
    buf_append(&b, P("e."), &err);
    put_pickle("copies.pt", b.data, b.n_bytes, 4096);
    struct torch_file f;
    expect_error(torch_file_open(&f, fixture_path("copies.pt"), &err), ST_INPUT, &err,
                 "non-contiguous tensors of more than 4 times");
    buf_release(&b);
}

static void patch(struct buf *b, const char *find, size_t n_find, int which, size_t offset, const void *bytes,
                  size_t n_bytes)
{
    for (size_t i = 0; i + n_find <= b->n_bytes; i++) {
        if (memcmp(b->data + i, find, n_find) == 0 && which-- == 0) {
            memcpy(b->data + i + offset, bytes, n_bytes);
            return;
        }
    }
    fail_msg("nothing to patch");
}

static void bad_zips(void **state)
{
    write_sample(fixture_path("good.pt"));
    struct buf good = BUF_INIT, b = BUF_INIT;
    fixture_read(fixture_path("good.pt"), &good);
    static const struct {
        const char *find;
        size_t n_find;
        int which;
        size_t offset;
        const char *bytes;
        size_t n_bytes;
        const char *message;
    } cases[] = {
        {P("PK\3\4"), 0, 0, P("PK\3\5"), "does not begin as a zip archive"},
        {P("PK\5\6"), 0, 0, P("PK\5\5"), "no end record"},
        {P("PK\5\6"), 0, 4, P("\1"), "several parts"},
        {P("PK\5\6"), 0, 10, P("\1"), "end records disagree"},
        {P("PK\5\6"), 0, 16, P("\1\1"), "end records disagree"},
        {P("PK\5\6"), 0, 20, P("\1"), "no end record"},
        {P("PK\6\7"), 0, 8, P("\0\0\0\0\0\0\0\x7f"), "zip64 end record"},
        {P("PK\6\7"), 0, 8, P("\xff\xff\xff\xff\xff\xff\xff\xff"), "zip64 end record"},
        {P("PK\6\7"), 0, 4, P("\1"), "several parts"},
        {P("PK\6\6"), 0, 24, P("\1"), "several parts"},
        {P("PK\6\6"), 0, 48, P("\1\1"), "disagree"},
        {P("PK\1\2"), 0, 0, P("PK\1\3"), "no entry of the central directory"},
        {P("PK\1\2"), 0, 8, P("\1"), "\"good/data.pkl\" is encrypted"},
        {P("PK\1\2"), 0, 10, P("\x8"), "\"good/data.pkl\" is compressed (method 8, deflated)"},
        {P("PK\1\2"), 0, 20, P("\1\0"), "two different sizes"},
        {P("PK\1\2"), 0, 28, P("\xff\xff"), "cut short"},
        {P("PK\1\2"), 0, 42, P("\1"), "no local header"},
        {P("PK\1\2"), 0, 42, P("\xff\xff\xff\x7f"), "outside the file"},
        {P("PK\1\2"), 2, 42, P("\0\0\0\0"), "disagree"},
        {P("PK\1\2"), 0, 16, P("abcd"), "disagree"},
        {P("PK\3\4"), 0, 6, P("\1"), "disagree"},
        {P("PK\3\4"), 0, 8, P("\x8"), "disagree"},
        {P("PK\3\4"), 0, 26, P("\1"), "disagree"},
        {P("PK\3\4"), 0, 28, P("\xff\xff"), "beyond"},
        {P("good/data/0"), 1, 0, P("good/data/1"), "disagree"},
        {P("little"), 0, 0, P("big!!!"), "does not have its checksum"},
        {P("3\n"), 0, 0, P("99"), "does not have its checksum"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct torch_file f;
        struct err err = ERR_INIT;
        buf_clear(&b);
        buf_append(&b, good.data, good.n_bytes, &err);
        patch(&b, cases[i].find, cases[i].n_find, cases[i].which, cases[i].offset, cases[i].bytes,
              cases[i].n_bytes);
        fixture_write("bad.pt", b.data, b.n_bytes);
        enum status status = torch_file_open(&f, fixture_path("bad.pt"), &err);
        if (status != ST_INPUT || !strstr(err.what, cases[i].message))
            fail_msg("case %zu: status %d, \"%s\" lacks \"%s\"", i, (int)status, err.what, cases[i].message);
    }
    /* cut anywhere, or with something behind it */
    for (size_t n = 0; n < good.n_bytes + 2; n += n < good.n_bytes - 200 ? 97 : 1) {
        struct torch_file f;
        struct err err = ERR_INIT;
        if (n == good.n_bytes)
            continue;
        fixture_write("bad.pt", good.data, n < good.n_bytes ? n : good.n_bytes + 1);
        assert_int_equal(torch_file_open(&f, fixture_path("bad.pt"), &err), ST_INPUT);
    }
    buf_release(&good);
    buf_release(&b);
}

/* The same archive with names of two directories, without version, big-endian, or with other contents. */
static void bad_layouts(void **state)
{
    static const struct {
        const char *names[3], *contents[3];
        const char *message;
    } cases[] = {
        {{"version", "data.pkl", "byteorder"}, {"3", "N.", "little"}, NULL},
        {{"version", "data.pkl", NULL}, {"10\n", "N.", NULL}, NULL},
        {{"data.pkl", NULL, NULL}, {"N.", NULL, NULL}, "no entry \"bad/version\""},
        {{"version", NULL, NULL}, {"3\n", NULL, NULL}, "no entry \"bad/data.pkl\""},
        {{"version", "data.pkl", NULL}, {"0\n", "N.", NULL}, "unknown version"},
        {{"version", "data.pkl", NULL}, {"11\n", "N.", NULL}, "unknown version"},
        {{"version", "data.pkl", NULL}, {"3x", "N.", NULL}, "unknown version"},
        {{"version", "data.pkl", NULL}, {"", "N.", NULL}, "unknown version"},
        {{"version", "data.pkl", "byteorder"}, {"3", "N.", "big"}, "not little-endian"},
        {{"version", "data.pkl", "data.pkl"}, {"3", "N.", "N."}, "two entries \"bad/data.pkl\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct zip_writer w;
        struct torch_file f;
        struct err err = ERR_INIT;
        assert_int_equal(zip__begin(&w, fixture_path("bad.pt"), &err), ST_OK);
        for (int k = 0; k < 3 && cases[i].names[k]; k++)
            assert_int_equal(
                zip__put(&w, cases[i].names[k], cases[i].contents[k], strlen(cases[i].contents[k]), &err),
                ST_OK);
        assert_int_equal(zip__commit(&w, &err), ST_OK);
        enum status status = torch_file_open(&f, fixture_path("bad.pt"), &err);
        if (cases[i].message)
            expect_error(status, ST_INPUT, &err, cases[i].message);
        else
            assert_int_equal(status, ST_OK);
        torch_file_close(&f);
    }
}

static void other_formats(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *message;
    } cases[] = {
        {P(""), "is empty"},
        {P("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"},
        {P("<!doctype html>"), "web page"},
        {P("\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\2M\xe9\3."), "before version 1.6"},
        {P("\x80\2N."), "does not begin as a zip archive"},
        {P("PK\3\4"), "no end record"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct torch_file f;
        struct err err = ERR_INIT;
        fixture_write("x.pt", cases[i].bytes, cases[i].n);
        expect_error(torch_file_open(&f, fixture_path("x.pt"), &err), ST_INPUT, &err, cases[i].message);
    }
}

/* Sizes and offsets in zip64 fields although they would fit: what a file of 5 GB looks like. */
static void zip64(void **state)
{
    struct zip_writer w;
    struct torch_file f;
    struct err err = ERR_INIT;
    assert_int_equal(zip__begin(&w, fixture_path("big.pt"), &err), ST_OK);
    w.zip64_from = 20;
    static const char pickle[] = HEAD STORAGE("K\6") "K\0K\6\x85K\1\x85" TAIL;
    assert_int_equal(zip__put(&w, "version", "3\n", 2, &err), ST_OK);
    assert_int_equal(zip__put(&w, "data.pkl", pickle, sizeof pickle - 1, &err), ST_OK);
    assert_int_equal(zip__put(&w, "data/0", "abcdefghijklmnopqrstuvwx", 24, &err), ST_OK);
    assert_int_equal(zip__commit(&w, &err), ST_OK);
    if (torch_file_open(&f, fixture_path("big.pt"), &err) != ST_OK)
        fail_msg("%s", err.what);
    assert_memory_equal(f.root->tensor.data, "abcdefghijklmnopqrstuvwx", 24);
    assert_int_equal((uintptr_t)f.root->tensor.data % 64, 0);
    torch_file_close(&f);
}

static void tensors_of_a_file(void **state)
{
    static const float a[2] = {1, 2};
    struct torch_writer *w = NULL;
    struct torch_file f;
    struct err err = ERR_INIT;
    struct tensor_list list = TENSOR_LIST_INIT;
    torch_writer_open(&w, fixture_path("adapter_model.bin"), &err);
    torch_put_dict(w);
    torch_put_string(w, "x.weight");
    torch_put_tensor(w, DT_F32, 1, (int64_t[]){2}, a);
    torch_put_end(w);
    assert_int_equal(torch_writer_commit(w, &err), ST_OK);
    assert_int_equal(torch_file_open(&f, fixture_path("adapter_model.bin"), &err), ST_OK);
    assert_int_equal(torch_file_tensors(&f, "adapter_model.bin", &list, &err), ST_OK);
    assert_int_equal(list.n_items, 1);
    assert_memory_equal(tensor_list_find(&list, "x.weight")->data, a, 8);
    tensor_list_release(&list);
    torch_file_close(&f);
    write_sample(fixture_path("sample.pt"));
    assert_int_equal(torch_file_open(&f, fixture_path("sample.pt"), &err), ST_OK);
    expect_error(torch_file_tensors(&f, "sample.pt", &list, &err), ST_INPUT, &err, "\"ints\" is no tensor");
    tensor_list_release(&list);
    torch_file_close(&f);
}

static void golden_files(void **state)
{
    if (!shared_dir()) {
        print_message("skipped: no ../shared\n");
        skip();
    }
    char path[PATH_BYTES];
    struct torch_file f;
    struct err err = ERR_INIT;
    snprintf(path, sizeof path, "%s/golden/qwen3_tied/train/checkpoint-15/optimizer.pt", shared_dir());
    assert_int_equal(torch_file_open(&f, path, &err), ST_OK);
    assert_int_equal(value_get(f.root, "param_groups")->list.n, 2);
    torch_file_close(&f);
    snprintf(path, sizeof path, "%s/golden/qwen3_tied/train/checkpoint-15/training_args.bin", shared_dir());
    expect_error(torch_file_open(&f, path, &err), ST_INPUT, &err,
                 "GLOBAL) asks for \"transformers.training_args.TrainingArguments\"");
    err = (struct err)ERR_INIT;
    snprintf(path, sizeof path, "%s/golden/qwen3_tied/train/checkpoint-15/rng_state.pth", shared_dir());
    expect_error(torch_file_open(&f, path, &err), ST_INPUT, &err, "numpy");
}

/* Bytes of all that can be reached, to show that it can be read. */
static unsigned walk(const struct value *v, int depth)
{
    unsigned sum = 0;
    if (depth > 6)
        return 0;
    if (v->kind == VALUE_TENSOR) {
        for (size_t i = 0; i < v->tensor.n_bytes; i++)
            sum += ((const unsigned char *)v->tensor.data)[i];
    } else if (v->kind == VALUE_STRING) {
        sum += (unsigned)strlen(v->string.text);
    } else if (v->kind == VALUE_LIST || v->kind == VALUE_TUPLE) {
        for (size_t i = 0; i < v->list.n; i++)
            sum += walk(v->list.items[i], depth + 1);
    } else if (v->kind == VALUE_DICT) {
        for (size_t i = 0; i < v->dict.n; i++)
            sum += walk(v->dict.keys[i], depth + 1) + walk(v->dict.values[i], depth + 1);
    }
    return sum;
}

static void damaged_files(void **state)
{
    write_sample(fixture_path("good.pt"));
    struct buf good = BUF_INIT, b = BUF_INIT;
    fixture_read(fixture_path("good.pt"), &good);
    volatile unsigned sum = 0;
    int n_refused = 0;
    for (unsigned round = 0; round < 4000; round++) {
        struct torch_file f;
        struct err err = ERR_INIT;
        damage(&b, &good, round);
        fixture_write("damaged.pt", b.data, b.n_bytes);
        if (torch_file_open(&f, fixture_path("damaged.pt"), &err) == ST_OK)
            sum += walk(f.root, 0);
        else
            n_refused += err.status == ST_INPUT;
        torch_file_close(&f);
    }
    assert_true(n_refused > 2000);
    buf_release(&good);
    buf_release(&b);
}

/* The pickle alone is damaged: that is where the checks of the machine are met. */
static void damaged_pickles(void **state)
{
    write_sample(fixture_path("good.pt"));
    struct buf good = BUF_INIT, b = BUF_INIT;
    fixture_read(fixture_path("good.pt"), &good);
    volatile unsigned sum = 0;
    int n_refused = 0, n_accepted = 0;
    for (unsigned round = 0; round < 6000; round++) {
        struct torch_file f;
        struct err err = ERR_INIT;
        damage_pickle(&b, &good, 100000 + round);
        fixture_write("damaged.pt", b.data, b.n_bytes);
        if (torch_file_open(&f, fixture_path("damaged.pt"), &err) == ST_OK) {
            sum += walk(f.root, 0);
            n_accepted++;
        } else {
            assert_int_equal(err.status, ST_INPUT);
            n_refused += strstr(err.what, "data.pkl, byte") != NULL;
        }
        torch_file_close(&f);
    }
    assert_true(n_refused > 2000);
    assert_true(n_accepted > 100);
    buf_release(&good);
    buf_release(&b);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(round_trip),    CASE(writer_defects),    CASE(strided),
        CASE(bad_pickles),   CASE(deep_pickles),      CASE(copies_are_bounded),
        CASE(bad_zips),      CASE(bad_layouts),       CASE(other_formats),
        CASE(zip64),         CASE(tensors_of_a_file), CASE(golden_files),
        CASE(damaged_files), CASE(damaged_pickles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
