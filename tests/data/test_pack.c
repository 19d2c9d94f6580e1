/* Packs: written and read back, skipped when nothing changed, other makers' files, and damaged ones. */
#include "data/pack.h"
#include "data_support.h"
#include "pack_internal.h"
#include "util/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct kit {
    struct scratch scratch;
    struct tokenizer *tokenizer;
    struct examples *x;
    struct motion_vocab vocab;
    struct pack_options o;
    char path[PATH_BYTES];
};

/* n_rows rows of 12 texts; row i has 1 + i % 9 tokens. */
static void kit_open(struct kit *k, int n_rows)
{
    struct buf text = BUF_INIT;
    struct err err = ERR_INIT;
    *k = (struct kit){.o = {.stage = 3,
                            .max_seq_len = 512,
                            .split_test_size = 0.1,
                            .split_seed = 42,
                            .seed = 42,
                            .stage2_weights = {0.5, 0.3, 0.2},
                            .denoise_prob = 0.15}};
    scratch_open(&k->scratch);
    for (int i = 0; i < n_rows; i++) {
        good(buf_printf(&text, &err,
                        "%s{\"text_query\":\"text %d\",\"participant_id\":\"p%d\",\"motion_tokens\":\"",
                        i ? "," : "[", i % 12, i % 3),
             &err);
        for (int m = 0; m < 1 + i % 9; m++)
            good(buf_printf(&text, &err, " %d", (i + 5 * m) % 16), &err);
        good(buf_puts(&text, "\"}", &err), &err);
    }
    good(buf_puts(&text, "]", &err), &err);
    k->tokenizer = style_tokenizer(&k->scratch, CHAT_PLAIN);
    k->x = examples_of(&k->scratch, text.data);
    good(motion_vocab_make(&k->vocab, k->tokenizer, k->x, NULL, false, &err), &err);
    snprintf(k->path, sizeof k->path, "%s", scratch_path(&k->scratch, "stage.h5"));
    buf_release(&text);
}

static void kit_close(struct kit *k)
{
    motion_vocab_release(&k->vocab);
    examples_close(k->x);
    tokenizer_close(k->tokenizer);
    scratch_close(&k->scratch);
}

static bool kit_write(struct kit *k)
{
    struct err err = ERR_INIT;
    bool skipped;
    good(pack_write(k->path, k->x, k->tokenizer, &k->vocab, &k->o, &skipped, &err), &err);
    return skipped;
}

static struct pack *open_pack(const char *path, struct pack_info *info)
{
    struct pack *p;
    struct err err = ERR_INIT;
    good(pack_open(&p, path, info, &err), &err);
    return p;
}

static void rows_are_in_split_order(void **unused)
{
    struct kit k;
    struct err err = ERR_INIT;
    struct pack_info info;
    kit_open(&k, 1000);
    int64_t *rows[2], n[2];
    good(split_make(1000, k.o.split_test_size, 42, &rows[0], &n[0], &rows[1], &n[1], &err), &err);
    for (k.o.stage = 1; k.o.stage <= 3; k.o.stage += 2) {
        assert_false(kit_write(&k));
        struct pack *p = open_pack(k.path, &info);
        assert_int_equal(info.stage, k.o.stage);
        assert_int_equal(info.vocab_size, k.vocab.vocab_size);
        assert_int_equal(info.base_vocab_size, k.vocab.base_vocab_size);
        assert_string_equal(info.source_sha256, examples_sha256(k.x));
        assert_string_equal(info.tokenizer_sha256, tokenizer_sha256(k.tokenizer));
        struct template *tp;
        struct example e = EXAMPLE_INIT;
        struct row row = {IDS_INIT, IDS_INIT};
        good(template_open(&tp, k.tokenizer, &k.vocab, &err), &err);
        for (int g = 0; g < 2; g++) {
            int64_t n_tokens = 0;
            assert_int_equal(info.n_rows[g], n[g]);
            for (int64_t i = 0; i < n[g]; i++) {
                const int32_t *ids, *labels;
                int32_t n_row;
                good(pack_row(p, (enum pack_group)g, i, &ids, &labels, &n_row, &err), &err);
                good(examples_read(k.x, rows[g][i], &e, &err), &err);
                good(template_row(tp, k.o.stage == 1 ? TASK_MOTION_LM : TASK_T2M, e.text, e.motion,
                                  e.n_motion, NULL, e.participant, &row, &err),
                     &err);
                assert_int_equal(n_row, row.ids.n);
                assert_memory_equal(ids, row.ids.data, (size_t)n_row * sizeof *ids);
                assert_memory_equal(labels, row.labels.data, (size_t)n_row * sizeof *labels);
                n_tokens += n_row;
            }
            assert_int_equal(info.n_tokens[g], n_tokens);
        }
        const int32_t *ids, *labels;
        int32_t n_row;
        assert_int_equal(pack_row(p, PACK_EVAL, n[1], &ids, &labels, &n_row, &err), ST_DEFECT);
        err = (struct err)ERR_INIT;
        pack_close(p);
        template_close(tp);
        example_release(&e);
        ids_release(&row.ids);
        ids_release(&row.labels);
    }
    free(rows[0]);
    free(rows[1]);
    kit_close(&k);
}

/* A pack too large for memory is read through the file: the same rows and the same hash. */
static void large_packs_read_the_same(void **unused)
{
    struct kit k;
    struct err err = ERR_INIT;
    struct pack_info info, other_info;
    struct pack *other;
    kit_open(&k, 3000); /* several chunks */
    kit_write(&k);
    struct pack *p = open_pack(k.path, &info);
    good(data__pack_read(&other, k.path, &other_info, 0, &err), &err);
    assert_memory_equal(&info, &other_info, sizeof info);
    assert_true(info.n_tokens[0] > 2 * 16384);
    for (int g = 0; g < 2; g++) {
        for (int64_t i = info.n_rows[g] - 1; i >= 0; i--) {
            const int32_t *ids, *labels, *other_ids, *other_labels;
            int32_t n, other_n;
            good(pack_row(p, (enum pack_group)g, i, &ids, &labels, &n, &err), &err);
            good(pack_row(other, (enum pack_group)g, i, &other_ids, &other_labels, &other_n, &err), &err);
            assert_int_equal(n, other_n);
            assert_memory_equal(ids, other_ids, (size_t)n * sizeof *ids);
            assert_memory_equal(labels, other_labels, (size_t)n * sizeof *labels);
        }
    }
    pack_close(p);
    pack_close(other);
    kit_close(&k);
}

static int64_t inode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (int64_t)st.st_ino;
}

static void equal_packs_are_not_made_again(void **unused)
{
    struct kit k;
    struct pack_info info, first;
    kit_open(&k, 50);
    assert_false(kit_write(&k));
    pack_close(open_pack(k.path, &first));
    int64_t inode = inode_of(k.path);
    assert_true(kit_write(&k));
    assert_int_equal(inode_of(k.path), inode);
    k.o.seed = 7; /* of stage 2 only */
    k.o.stage2_weights[0] = 9;
    k.o.progress = true;
    assert_true(kit_write(&k));
    k.o.stage = 2;
    assert_false(kit_write(&k));
    assert_true(kit_write(&k));
    k.o.seed = 8;
    assert_false(kit_write(&k));
    k.o.denoise_prob = 0.2;
    assert_false(kit_write(&k));
    k.o.stage = 3;
    k.o.split_seed = 1;
    assert_false(kit_write(&k));
    k.o.split_seed = 42;
    k.o.max_seq_len = 511;
    assert_false(kit_write(&k));
    k.o.max_seq_len = 512;
    assert_false(kit_write(&k));
    pack_close(open_pack(k.path, &info));
    assert_string_equal(info.sha256, first.sha256);
    assert_string_equal(info.options_sha256, first.options_sha256);
    /* another data set, another vocabulary */
    examples_close(k.x);
    k.x = examples_of(
        &k.scratch,
        "[{\"text_query\":\"a\",\"motion_tokens\":\"1\"},{\"text_query\":\"b\",\"motion_tokens\":\"2\"}]");
    assert_false(kit_write(&k));
    free(k.vocab.system_prompt);
    k.vocab.system_prompt = strdup("new");
    assert_false(kit_write(&k));
    assert_true(kit_write(&k));
    /* what is no pack is replaced */
    struct err err = ERR_INIT;
    good(file_write(k.path, "junk", 4, &err), &err);
    assert_false(kit_write(&k));
    pack_close(open_pack(k.path, &info));
    assert_int_equal(info.n_rows[PACK_TRAIN] + info.n_rows[PACK_EVAL], 2);
    /* nothing is left beside it */
    char **names;
    int n_names;
    good(dir_list(k.scratch.dir, &names, &n_names, &err), &err);
    for (int i = 0; i < n_names; i++)
        assert_null(strstr(names[i], ".tmp"));
    names_free(names, n_names);
    kit_close(&k);
}

/* Which tasks the rows of stage 2 have, and how many of the motion tokens to be restored are masked. */
struct mixture {
    int64_t n_rows, t2m, m2t, denoise, masked, noisy;
};

static struct mixture mixture_of(struct kit *k)
{
    struct mixture m = {0};
    struct pack_info info;
    struct err err = ERR_INIT;
    kit_write(k);
    struct pack *p = open_pack(k->path, &info);
    for (int64_t i = 0; i < info.n_rows[PACK_TRAIN]; i++) {
        const int32_t *ids, *labels;
        int32_t n;
        good(pack_row(p, PACK_TRAIN, i, &ids, &labels, &n, &err), &err);
        m.n_rows++;
        m.t2m += ids[0] == k->vocab.t2m;
        m.m2t += ids[0] == k->vocab.m2t;
        m.denoise += ids[0] == k->vocab.denoise;
        assert_in_range(ids[1], k->vocab.pid_first, k->vocab.pid_first + 2);
        for (int32_t t = 0; t < n && ids[0] == k->vocab.denoise; t++) {
            m.masked += ids[t] == k->vocab.mask;
            m.noisy += labels[t] == -100;
        }
        m.noisy -= ids[0] == k->vocab.denoise ? 4 : 0; /* marker, participant, BEGIN, END */
    }
    pack_close(p);
    return m;
}

static void stage_two_mixes_by_weight(void **unused)
{
    struct kit k;
    kit_open(&k, 4000);
    k.o.stage = 2;
    struct mixture m = mixture_of(&k);
    assert_int_equal(m.t2m + m.m2t + m.denoise, 3600);
    assert_in_range(m.t2m, 1800 - 120, 1800 + 120); /* 4 standard deviations */
    assert_in_range(m.m2t, 1080 - 110, 1080 + 110);
    assert_in_range(m.denoise, 720 - 96, 720 + 96);
    assert_in_range(m.masked * 1000 / m.noisy, 125, 175);
    struct mixture before = m;
    k.o.split_seed = 5; /* the draws belong to the rows, not to their places */
    k.o.split_test_size = 0;
    struct mixture all = mixture_of(&k);
    k.o.split_seed = 6;
    m = mixture_of(&k);
    assert_memory_equal(&m, &all, sizeof m);
    assert_true(all.t2m >= before.t2m && all.m2t >= before.m2t);
    k.o.stage2_weights[0] = 0;
    k.o.stage2_weights[2] = 0;
    m = mixture_of(&k);
    assert_int_equal(m.m2t, 4000);
    k.o.stage2_weights[1] = 0;
    k.o.stage2_weights[2] = 3;
    k.o.denoise_prob = 1;
    m = mixture_of(&k);
    assert_int_equal(m.denoise, 4000);
    assert_int_equal(m.masked, m.noisy);
    kit_close(&k);
}

static void long_rows_are_left_out(void **unused)
{
    struct kit k;
    struct err err = ERR_INIT;
    struct pack_info info;
    bool skipped;
    kit_open(&k, 90);
    k.o.stage = 1;
    k.o.max_seq_len = 2 + 2 + 4; /* marker, participant, BEGIN, END: at most 4 motion tokens */
    kit_write(&k);
    pack_close(open_pack(k.path, &info));
    assert_int_equal(info.n_rows[0] + info.n_rows[1], 40);
    assert_int_equal(info.max_row_tokens, 8);
    /* with none left nothing is written, and what was there stays */
    int64_t inode = inode_of(k.path);
    k.o.max_seq_len = 3;
    assert_int_equal(pack_write(k.path, k.x, k.tokenizer, &k.vocab, &k.o, &skipped, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "no row is left to train on"));
    assert_non_null(strstr(err.what, "max_seq_len 3"));
    assert_int_equal(inode_of(k.path), inode);
    kit_close(&k);

    kit_open(&k, 1); /* a single row is trained on */
    kit_write(&k);
    pack_close(open_pack(k.path, &info));
    assert_int_equal(info.n_rows[PACK_TRAIN], 1);
    assert_int_equal(info.n_rows[PACK_EVAL], 0);
    kit_close(&k);
}

static void bad_options_are_named(void **unused)
{
    struct kit k;
    kit_open(&k, 5);
    struct pack_options changed[8];
    static const char *const what[8] = {"stage is 4",      "max_seq_len is 0", "stage2_weights[1] is -1",
                                        "all zero",        "denoise_prob is",  "denoise_prob is",
                                        "split_test_size", "stage is 0"};
    for (int i = 0; i < 8; i++)
        changed[i] = k.o;
    changed[0].stage = 4;
    changed[1].max_seq_len = 0;
    changed[2].stage2_weights[1] = -1;
    changed[3].stage = 2;
    memset(changed[3].stage2_weights, 0, sizeof changed[3].stage2_weights);
    changed[4].denoise_prob = 1.5;
    changed[5].denoise_prob = __builtin_nan("");
    changed[6].split_test_size = 1;
    changed[7].stage = 0;
    for (int i = 0; i < 8; i++) {
        struct err err = ERR_INIT;
        bool skipped;
        assert_int_equal(pack_write(k.path, k.x, k.tokenizer, &k.vocab, &changed[i], &skipped, &err),
                         ST_USAGE);
        if (!strstr(err.what, what[i]))
            fail_msg("\"%s\" lacks \"%s\"", err.what, what[i]);
        assert_false(file_exists(k.path));
    }
    struct err err = ERR_INIT;
    bool skipped;
    assert_int_equal(pack_write(scratch_path(&k.scratch, "no/such/x.h5"), k.x, k.tokenizer, &k.vocab, &k.o,
                                &skipped, &err),
                     ST_ENV);
    assert_non_null(strstr(err.what, "cannot make the file"));
    kit_close(&k);
}

/* Packs made by h5py; the first rows of one are known from another file. */
static void other_makers_packs_are_read(void **unused)
{
    static const char *const names[] = {"qwen3_tied", "qwen3_untied",       "gemma3_tied",
                                        "llama_tied", "llama_rope3_untied", "qwen3_bf16_sharded"};
    static const int32_t base[] = {300, 311, 352, 401, 350, 300}, n_new[] = {16, 13, 21, 9, 12, 8};
    if (!shared_path("golden"))
        skip();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[64];
        struct pack_info info;
        struct err err = ERR_INIT;
        snprintf(name, sizeof name, "golden/%s/pack.h5", names[i]);
        const char *path = shared_path(name);
        assert_non_null(path);
        struct pack *p = open_pack(path, &info);
        assert_int_equal(info.n_rows[PACK_TRAIN], 201);
        assert_int_equal(info.n_rows[PACK_EVAL], 29);
        assert_in_range(info.max_row_tokens, 110, 116);
        assert_int_equal(info.base_vocab_size, base[i]);
        assert_int_equal(info.vocab_size, base[i] + n_new[i]);
        assert_int_equal(info.stage, 0);
        assert_string_equal(info.source_sha256, "");
        assert_int_equal(strlen(info.sha256), 64);
        const int32_t *ids, *labels;
        int32_t n, n_labels = 0;
        good(pack_row(p, PACK_TRAIN, 67, &ids, &labels, &n, &err), &err); /* has no label at all */
        for (int32_t t = 0; t < n; t++)
            n_labels += labels[t] != -100;
        assert_int_equal(n_labels, 0);
        pack_close(p);
    }
}

/* Changes to a good pack, each of which must be seen. */
static hid_t with_file(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void set_number(hid_t file, const char *name, int64_t value)
{
    hid_t a = H5Aopen(file, name, H5P_DEFAULT);
    assert_true(a >= 0 && H5Awrite(a, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(a);
}

static void set_text(hid_t file, const char *name, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(value) ? strlen(value) : 1);
    H5Adelete(file, name);
    hid_t a = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(a >= 0 && H5Awrite(a, type, value) >= 0);
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(type);
}

/* Writes one item of a series. */
static void set_item(hid_t file, const char *name, hsize_t at, int64_t value)
{
    hsize_t one = 1;
    hid_t d = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(d),
          memory = H5Screate_simple(1, &one, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &at, NULL, &one, NULL);
    assert_true(H5Dwrite(d, H5T_NATIVE_INT64, memory, space, H5P_DEFAULT, &value) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(d);
}

static void set_size(hid_t file, const char *name, hsize_t size)
{
    hid_t d = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(H5Dset_extent(d, &size) >= 0);
    H5Dclose(d);
}

/* A series made anew with another type, shape or storage. */
static void replace(hid_t file, const char *name, hid_t type, int n_dims, const hsize_t *dims, hid_t create)
{
    H5Ldelete(file, name, H5P_DEFAULT);
    const hsize_t unlimited[2] = {H5S_UNLIMITED, H5S_UNLIMITED};
    bool chunked = create != H5P_DEFAULT && H5Pget_layout(create) == H5D_CHUNKED;
    hid_t space = H5Screate_simple(n_dims, dims, chunked ? unlimited : NULL);
    hid_t d = H5Dcreate2(file, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    assert_true(d >= 0);
    H5Dclose(d);
    H5Sclose(space);
}

static void damage(hid_t file, int which)
{
    const hsize_t small[2] = {3, 4}, huge = (hsize_t)1 << 40, chunk = (hsize_t)1 << 25;
    hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    switch (which) {
    case 0:
        set_number(file, "format_version", 2);
        break;
    case 1:
        H5Adelete(file, "vocab_size");
        break;
    case 2:
        set_number(file, "vocab_size", 0);
        break;
    case 3:
        set_number(file, "base_vocab_size", 100000);
        break;
    case 4:
        set_number(file, "stage", 9);
        break;
    case 5:
        set_text(file, "vocab_size", "many");
        break;
    case 6:
        set_text(file, "source_sha256", "xyz");
        break;
    case 7:
        set_item(file, "/train/input_ids", 9, 100000);
        break;
    case 8:
        set_item(file, "/train/input_ids", 0, -1);
        break;
    case 9:
        set_item(file, "/train/labels", 3, -99);
        break;
    case 10:
        set_item(file, "/eval/labels", 0, 1 << 30);
        break;
    case 11:
        set_item(file, "/train/row_offsets", 0, 1);
        break;
    case 12:
        set_item(file, "/train/row_offsets", 2, 0);
        break;
    case 13:
        set_item(file, "/train/row_offsets", 1, INT64_MAX);
        break;
    case 14:
        set_size(file, "/train/row_offsets", 0);
        break;
    case 15:
        set_size(file, "/train/row_offsets", 5);
        break;
    case 16:
        set_size(file, "/train/labels", 7);
        break;
    case 17:
        set_size(file, "/train/input_ids", huge);
        break;
    case 18:
        H5Ldelete(file, "/eval", H5P_DEFAULT);
        break;
    case 19:
        H5Ldelete(file, "/train/labels", H5P_DEFAULT);
        break;
    case 20:
        replace(file, "/train/labels", H5T_IEEE_F32LE, 1, small, H5P_DEFAULT);
        break;
    case 21:
        replace(file, "/train/labels", H5T_STD_I32LE, 2, small, H5P_DEFAULT);
        break;
    case 22:
        H5Ldelete(file, "/train/labels", H5P_DEFAULT);
        H5Lcreate_external("/etc/passwd", "/", file, "/train/labels", H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 23:
        H5Pset_external(create, "/etc/passwd", 0, 12);
        replace(file, "/train/labels", H5T_STD_I32LE, 1, small, create);
        break;
    case 24:
        H5Pset_chunk(create, 1, &chunk);
        replace(file, "/train/labels", H5T_STD_I32LE, 1, small, create);
        set_item(file, "/train/labels", 0, 1);
        break;
    case 25:
        H5Ldelete(file, "/train/labels", H5P_DEFAULT);
        H5Gclose(H5Gcreate2(file, "/train/labels", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        break;
    case 26:
        H5Ldelete(file, "/eval", H5P_DEFAULT);
        H5Lcreate_soft("/train", file, "/eval", H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 27:
        H5Ldelete(file, "/eval", H5P_DEFAULT);
        replace(file, "/eval", H5T_STD_I32LE, 1, small, H5P_DEFAULT);
        break;
    case 28:
        H5Pset_chunk(create, 1, small);
        H5Pset_scaleoffset(create, H5Z_SO_INT, 0);
        replace(file, "/train/labels", H5T_STD_I32LE, 1, small, create);
        set_item(file, "/train/labels", 0, 1);
        break;
    }
    H5Pclose(create);
}

static void damaged_packs_are_refused(void **unused)
{
    static const char *const what[] = {
        "format_version 2, this program reads 1",
        "attribute vocab_size is missing",
        "attribute vocab_size is 0",
        "attribute base_vocab_size is 100000",
        "attribute stage is 9",
        "attribute vocab_size is no single integer",
        "attribute source_sha256 is no SHA-256",
        "/train/input_ids row 0, token 9 is 100000, must be in 0..",
        "/train/input_ids row 0, token 0 is -1",
        "/train/labels row 0, token 3 is -99",
        "or -100",
        "/train/row_offsets goes from 1",
        "/train row 1 goes from token",
        "/train row 0 goes from token 0 to 9223372036854775807",
        "/train/row_offsets has 0 items",
        "/train/row_offsets goes from 0 to",
        "labels",
        "claims 1099511627776 items",
        "group /eval is missing",
        "/train/labels is missing",
        "/train/labels is no list of integers",
        "/train/labels is no list of integers",
        "/train/labels is missing",
        "/train/labels is stored in other files",
        "/train/labels has chunks above 64 MiB",
        "/train/labels is no data set",
        "group /eval is missing",
        "/eval is no group",
        "/train/labels uses the filter 6",
    };
    struct kit k;
    kit_open(&k, 40);
    kit_write(&k);
    const char *bad = scratch_path(&k.scratch, "bad.h5");
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", bad);
    for (int i = 0; i < (int)(sizeof what / sizeof *what); i++) {
        struct err err = ERR_INIT;
        struct pack *p;
        struct pack_info info;
        good(file_copy(k.path, path, &err), &err);
        hid_t file = with_file(path);
        damage(file, i);
        H5Fclose(file);
        assert_int_equal(pack_open(&p, path, &info, &err), ST_INPUT);
        assert_null(p);
        if (!strstr(err.what, what[i]) || !strstr(err.what, "bad.h5"))
            fail_msg("case %d: \"%s\" lacks \"%s\"", i, err.what, what[i]);
    }
    kit_close(&k);
}

/* One byte changed anywhere: the rows are the same or the file is refused (the sums of HDF5 see it). */
static void changed_bytes_are_seen(void **unused)
{
    struct kit k;
    struct err err = ERR_INIT;
    struct pack_info info, other;
    kit_open(&k, 30);
    kit_write(&k);
    pack_close(open_pack(k.path, &info));
    struct buf text = BUF_INIT;
    good(file_read(k.path, 1 << 24, &text, &err), &err);
    const char *path = scratch_path(&k.scratch, "bad.h5");
    char name[PATH_BYTES];
    snprintf(name, sizeof name, "%s", path);
    int n_refused = 0, n_tried = 0;
    for (size_t at = 0; at < text.n_bytes; at += 11) {
        struct pack *p;
        FILE *f = fopen(name, "wb");
        text.data[at] ^= (char)(1 << at % 8);
        assert_non_null(f);
        assert_int_equal(fwrite(text.data, 1, text.n_bytes, f), text.n_bytes);
        fclose(f);
        text.data[at] ^= (char)(1 << at % 8);
        err = (struct err)ERR_INIT;
        n_tried++;
        enum status status = pack_open(&p, name, &other, &err);
        if (status == ST_OK && strcmp(other.sha256, info.sha256))
            fail_msg("byte %zu changed the rows unseen", at);
        n_refused += status != ST_OK;
        pack_close(p);
    }
    assert_true(n_refused > 20 && n_refused < n_tried);
    /* cut short */
    for (size_t n = 0; n < text.n_bytes; n += 997) {
        struct pack *p;
        FILE *f = fopen(name, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(text.data, 1, n, f), n);
        fclose(f);
        err = (struct err)ERR_INIT;
        assert_int_equal(pack_open(&p, name, &other, &err), ST_INPUT);
    }
    struct pack *p;
    err = (struct err)ERR_INIT;
    assert_int_equal(pack_open(&p, scratch_path(&k.scratch, "absent.h5"), &other, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "absent.h5"));
    err = (struct err)ERR_INIT;
    assert_int_equal(pack_open(&p, scratch_file(&k.scratch, "page.h5", "<html>"), &other, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "not an HDF5 file"));
    buf_release(&text);
    kit_close(&k);
}

/* HDF5 1.10 itself dies of these two bytes in a file of its older format. */
static void bytes_that_break_the_library_are_refused(void **unused)
{
    static const struct {
        size_t at;
        char value;
    } cases[] = {{28269, (char)0xff}, {23328, 1}, {28392, 1}};
    const char *good_path = shared_path("golden/llama_tied/pack.h5");
    if (!good_path)
        skip();
    struct scratch s;
    struct buf text = BUF_INIT;
    struct err err = ERR_INIT;
    scratch_open(&s);
    good(file_read(good_path, 1 << 20, &text, &err), &err);
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", scratch_path(&s, "bad.h5"));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct pack *p;
        struct pack_info info;
        char kept = text.data[cases[c].at];
        text.data[cases[c].at] = cases[c].value == 1 ? (char)(kept ^ 1) : cases[c].value;
        good(file_write(path, text.data, text.n_bytes, &err), &err);
        text.data[cases[c].at] = kept;
        assert_int_equal(pack_open(&p, path, &info, &err), ST_INPUT);
        assert_non_null(strstr(err.what, "bad.h5"));
        err = (struct err)ERR_INIT;
    }
    buf_release(&text);
    scratch_close(&s);
}

static void no_file_is_left(const struct kit *k)
{
    struct err err = ERR_INIT;
    char **names;
    int n_names;
    good(dir_list(k->scratch.dir, &names, &n_names, &err), &err);
    for (int i = 0; i < n_names; i++)
        assert_null(strstr(names[i], ".h5"));
    names_free(names, n_names);
}

/* A signal ends the packing without a trace. In a child, as nothing takes the request back. */
static void a_signal_stops_the_packing(void **unused)
{
    struct kit k;
    kit_open(&k, 20);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct err err = ERR_INIT;
        bool skipped;
        stop_request(SIGTERM);
        _exit(pack_write(k.path, k.x, k.tokenizer, &k.vocab, &k.o, &skipped, &err) == ST_STOPPED ? 0 : 1);
    }
    int state;
    assert_int_equal(waitpid(child, &state, 0), child);
    assert_int_equal(state, 0);
    no_file_is_left(&k);
    kit_close(&k);
}

/* In a child: files may not grow beyond some bytes, as on a full disk. */
static void a_full_disk_is_named(void **unused)
{
    struct kit k;
    kit_open(&k, 3000);
    static const rlim_t sizes[] = {100, 3000, 20000};
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct err err = ERR_INIT;
            const struct rlimit limit = {sizes[i], sizes[i]};
            bool skipped;
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &limit);
            alarm(60);
            enum status status = pack_write(k.path, k.x, k.tokenizer, &k.vocab, &k.o, &skipped, &err);
            _exit(status == ST_ENV && strstr(err.what, ": File too large") && strstr(err.hint, "disk") ? 0
                                                                                                       : 1);
        }
        int state;
        assert_int_equal(waitpid(child, &state, 0), child);
        assert_true(WIFEXITED(state));
        assert_int_equal(WEXITSTATUS(state), 0);
        no_file_is_left(&k);
    }
    kit_close(&k);
}

/* HDF5 believes some changed sizes as far as asking for the memory; malloc says no, and so shall the checker.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* HDF5 1.10 forgets a chunk's memory when its sum is wrong. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

int main(void)
{
    data__h5_quiet();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_in_split_order),
        cmocka_unit_test(large_packs_read_the_same),
        cmocka_unit_test(equal_packs_are_not_made_again),
        cmocka_unit_test(stage_two_mixes_by_weight),
        cmocka_unit_test(long_rows_are_left_out),
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(other_makers_packs_are_read),
        cmocka_unit_test(damaged_packs_are_refused),
        cmocka_unit_test(changed_bytes_are_seen),
        cmocka_unit_test(bytes_that_break_the_library_are_refused),
        cmocka_unit_test(a_signal_stops_the_packing),
        cmocka_unit_test(a_full_disk_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
