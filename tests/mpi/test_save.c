/* Saving while training on all ranks: beside the steps, without room, rounded to bfloat16; and what of it can
 * be gone on from. */
#include "checkpoint/ckpt.h"
#include "checkpoint/safetensors.h"
#include "training/train_fixture.h"
#include "util/dtype.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A save that fails ends the run; the checkpoint before it is whole and is gone on from. */
static void test_failed_save(void **state)
{
    struct run r;
    int64_t step = -1;
    char path[PATH_BYTES];
    run_open(&r, &comm, &usual, "full");
    r.o.save_steps = 3;
    r.fail_at = 6;
    run_bad(&r, ST_ENV, "no space for the tokenizer");
    assert_non_null(strstr(r.err.what, "saving step 6"));
    if (comm.rank == 0) {
        assert_int_equal(ckpt_newest(r.o.out_dir, path, &step, &r.err), ST_OK);
        assert_int_equal(step, 4);
    }
    run_close(&r);
}

/* Saves beside the steps: those go on meanwhile, the bytes are the same, and whatever was saved is on disk at
 * the end. */
static void test_save_beside(void **state)
{
    struct run r;
    run_open(&r, &comm, &usual, "beside");
    r.o.save_beside = true;
    r.wait_at = 4;
    run_good(&r);
    assert_int_equal(r.result.step, STEPS);
    run_close(&r);
    assert_same_run("alone", "beside");

    /* At each step: a save waits for the one before. */
    run_open(&r, &comm, &usual, "each");
    r.o.save_beside = true;
    r.o.save_steps = 1;
    r.o.keep_checkpoints = STEPS;
    run_good(&r);
    run_close(&r);
    for (int step = 1; step <= STEPS && comm.rank == 0; step++) {
        char name[64];
        snprintf(name, sizeof name, "each/checkpoint-%d/optimizer.pt", step);
        assert_true(file_exists(scratch_path(&scratch, name)));
    }
    if (comm.rank == 0) {
        assert_same_file("alone/checkpoint-4/optimizer.pt", "each/checkpoint-4/optimizer.pt");
        assert_same_file("alone/checkpoint-9/optimizer.pt", "each/checkpoint-9/optimizer.pt");
    }
}

/* A save that fails beside the steps ends the run on all ranks: before the step after it, or at the end when
 * there is none. */
static void test_failed_save_beside(void **state)
{
    static const struct {
        int64_t fail_at, newest;
    } cases[] = {{6, 4}, {9, 6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run r;
        int64_t step = -1;
        char path[PATH_BYTES], name[32], what[32];
        snprintf(name, sizeof name, "beside-full-%zu", i);
        snprintf(what, sizeof what, "saving step %d: no space", (int)cases[i].fail_at);
        run_open(&r, &comm, &usual, name);
        r.o.save_beside = true;
        r.o.save_steps = 3;
        r.fail_at = cases[i].fail_at;
        run_bad(&r, ST_ENV, what);
        assert_null(strstr(r.err.what, "step 7"));
        if (comm.rank == 0) {
            assert_int_equal(ckpt_newest(r.o.out_dir, path, &step, &r.err), ST_OK);
            assert_int_equal(step, cases[i].newest);
        }
        run_close(&r);
    }
}

/* Rank 0: the adapter of a checkpoint, which must be of that type. */
static void adapter_open(struct safetensors *a, const char *name, enum dtype dtype)
{
    struct err err = ERR_INIT;
    if (safetensors_open(a, scratch_path(&scratch, name), &err) != ST_OK)
        fail_msg("%s", err.what);
    assert_true(a->tensors.n_items > 0);
    for (int i = 0; i < a->tensors.n_items; i++)
        assert_int_equal(a->tensors.items[i].dtype, dtype);
}

/* save_dtype=bfloat16: the exact values rounded, half as large; what is not in the adapter stays exact. */
static void test_rounded_adapter(void **state)
{
    struct run r;
    struct safetensors exact, rounded;
    run_open(&r, &comm, &usual, "rounded");
    r.o.save_dtype = DT_BF16;
    run_good(&r);
    for (int64_t i = 0; i < r.tiny.params.n_values; i++)
        assert_true(bf16_to_f32(bf16_from_f32(r.tiny.values[i])) == r.tiny.values[i]);
    run_close(&r);
    assert_same_file("alone/checkpoint-4/optimizer.pt", "rounded/checkpoint-4/optimizer.pt");
    assert_same_file("alone/checkpoint-9/optimizer.pt", "rounded/checkpoint-9/optimizer.pt");
    if (comm.rank != 0)
        return;
    adapter_open(&exact, "alone/checkpoint-4/adapter_model.safetensors", DT_F32);
    adapter_open(&rounded, "rounded/checkpoint-4/adapter_model.safetensors", DT_BF16);
    assert_int_equal(exact.tensors.n_items, rounded.tensors.n_items);
    for (int i = 0; i < exact.tensors.n_items; i++) {
        const struct tensor *a = &exact.tensors.items[i], *b = &rounded.tensors.items[i];
        assert_string_equal(a->name, b->name);
        assert_int_equal(tensor_count(a), tensor_count(b));
        for (int64_t k = 0; k < tensor_count(a); k++) {
            float x;
            uint16_t y;
            memcpy(&x, (const char *)a->data + 4 * k, sizeof x);
            memcpy(&y, (const char *)b->data + 2 * k, sizeof y);
            assert_int_equal(bf16_from_f32(x), y);
        }
    }
    safetensors_close(&exact);
    safetensors_close(&rounded);
}

/* It is no base for an exact resume; what a stop saves is one, whatever the type. */
static void test_resume_rounded(void **state)
{
    struct run r;
    struct safetensors a;
    run_open(&r, &comm, &usual, "rounded");
    r.o.resume = true;
    r.o.save_dtype = DT_BF16;
    snprintf(r.o.resume_dir, sizeof r.o.resume_dir, "%s", scratch_path(&scratch, "rounded/checkpoint-4"));
    run_bad(&r, ST_USAGE, "rounded to bfloat16");
    assert_non_null(strstr(r.err.hint, "accept_changes=true"));
    r.o.accept_changes = true;
    run_good(&r);
    assert_int_equal(r.result.step, STEPS);
    run_close(&r);

    run_open(&r, &comm, &usual, "rounded-stop");
    r.o.save_dtype = DT_BF16;
    r.stop_at = 4;
    run_good(&r);
    assert_true(r.result.stopped);
    assert_int_equal(r.result.step, 4);
    run_close(&r);
    if (comm.rank == 0) {
        adapter_open(&a, "rounded-stop/checkpoint-4/adapter_model.safetensors", DT_F32);
        safetensors_close(&a);
    }
    run_open(&r, &comm, &usual, "rounded-stop");
    r.o.save_dtype = DT_BF16;
    r.o.resume = true;
    run_good(&r);
    run_close(&r);
    assert_same_file("alone/checkpoint-9/optimizer.pt", "rounded-stop/checkpoint-9/optimizer.pt");

    /* A finished stage has nothing to go on with: it says so again. */
    run_open(&r, &comm, &usual, "rounded-stop");
    r.o.save_dtype = DT_BF16;
    r.o.resume = true;
    run_good(&r);
    assert_int_equal(r.result.step, STEPS);
    run_close(&r);
}

/* An adapter that is not the one that was saved, although it can be read. */
static void test_other_values(void **state)
{
    struct run r;
    run_open(&r, &comm, &usual, "swapped");
    r.o.stop_step = 4;
    run_good(&r);
    run_close(&r);
    if (comm.rank == 0) {
        const char *path = scratch_path(&scratch, "swapped/checkpoint-4/adapter_model.safetensors");
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        assert_int_equal(fseek(f, -3, SEEK_END), 0);
        int byte = fgetc(f);
        assert_int_equal(fseek(f, -3, SEEK_END), 0);
        fputc(byte ^ 1, f);
        assert_int_equal(fclose(f), 0);
    }
    run_open(&r, &comm, &usual, "swapped");
    r.o.resume = true;
    run_bad(&r, ST_INPUT, "does not hold the values that were saved");
    r.o.accept_changes = true;
    run_good(&r);
    run_close(&r);
}

static int train_yardstick(void **state)
{
    int failed = share_scratch(state);
    if (failed == 0)
        train_alone();
    return failed;
}

static int run_all(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_save),        cmocka_unit_test(test_save_beside),
        cmocka_unit_test(test_failed_save_beside), cmocka_unit_test(test_rounded_adapter),
        cmocka_unit_test(test_resume_rounded),     cmocka_unit_test(test_other_values),
    };
    return cmocka_run_group_tests(tests, train_yardstick, remove_scratch);
}

int main(void)
{
    if (!runs_begin())
        return 1;
    int failed = run_all();
    comm_close(&comm);
    return failed;
}
