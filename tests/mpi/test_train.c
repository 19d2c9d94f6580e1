/* Training of a tiny model on all ranks: the bytes of one rank, resumes along the same curve, and the same
 * failure on every rank. */
#include "checkpoint/ckpt.h"
#include "support/flip.h"
#include "training/train_fixture.h"
#include "util/clock.h"
#include "util/json.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_same_bytes(void **state)
{
    struct run r;
    train_alone();
    run_open(&r, &comm, &usual, "all");
    float *start = malloc((size_t)r.tiny.params.n_values * sizeof *start);
    assert_non_null(start);
    memcpy(start, r.tiny.values, (size_t)r.tiny.params.n_values * sizeof *start);
    run_good(&r);
    int64_t n_moved = 0;
    for (int64_t i = 0; i < r.tiny.params.n_values; i++)
        n_moved += start[i] != r.tiny.values[i];
    assert_true(n_moved > r.tiny.params.n_values / 2);
    free(start);
    run_close(&r);
    assert_same_run("alone", "all");
}

/* The log says what it shall: evaluations at 0, 4, 8 and the end, a falling loss, and every field. */
static void test_log(void **state)
{
    static const char *const fields[] = {"stage",
                                         "step",
                                         "max_steps",
                                         "epoch",
                                         "loss",
                                         "grad_norm",
                                         "learning_rate",
                                         "examples",
                                         "tokens",
                                         "label_tokens",
                                         "seconds",
                                         "examples_per_second",
                                         "tokens_per_second",
                                         "rss_bytes",
                                         "world_size"};
    if (comm.rank != 0)
        return;
    json_t *lines = log_lines("all"), *line;
    size_t i, n_eval = 0;
    int64_t eval_steps[] = {0, 4, 8, 9};
    json_array_foreach(lines, i, line)
    {
        if (json_object_get(line, "eval_loss") != NULL) {
            assert_true(n_eval < 4);
            assert_int_equal(json_integer_value(json_object_get(line, "step")), eval_steps[n_eval++]);
            continue;
        }
        assert_int_equal(json_object_size(line), sizeof fields / sizeof fields[0]);
        for (size_t k = 0; k < sizeof fields / sizeof fields[0]; k++)
            assert_true(json_is_number(json_object_get(line, fields[k])));
        int64_t step = json_integer_value(json_object_get(line, "step"));
        /* 41 rows, 10 a step: the fifth step of an epoch has one row. */
        assert_int_equal(json_integer_value(json_object_get(line, "examples")), step % 5 == 0 ? 1 : 10);
        assert_int_equal(json_integer_value(json_object_get(line, "world_size")), comm.world_size);
        if (step == 1)
            assert_true(json_real_value(json_object_get(line, "learning_rate")) == 0);
    }
    assert_int_equal(n_eval, 4);
    double first = json_real_value(json_object_get(json_array_get(lines, 0), "eval_loss"));
    double last =
        json_real_value(json_object_get(json_array_get(lines, json_array_size(lines) - 1), "eval_loss"));
    assert_true(last < first);
    json_decref(lines);
}

/* Stopped after step 4, gone on with a fresh model: the same run, whatever the first attempt left behind. */
static void test_stop_and_resume(void **state)
{
    struct run r;
    run_open(&r, &comm, &usual, "resumed");
    r.stop_at = 4;
    run_good(&r);
    assert_true(r.result.stopped);
    assert_int_equal(r.result.step, 4);
    run_close(&r);
    if (comm.rank == 0) {
        /* As a later attempt would leave them: a line that is ahead, and one that was cut off. */
        char *text = scratch_read(scratch_path(&scratch, "resumed/train_log.jsonl"));
        struct buf more = BUF_INIT;
        assert_int_equal(
            buf_printf(&more, &r.err, "%s{\"step\": 5, \"loss\": 1.0}\n{\"step\": 6, \"lo", text), ST_OK);
        scratch_file(&scratch, "resumed/train_log.jsonl", more.data);
        buf_release(&more);
        free(text);
    }
    run_open(&r, &comm, &usual, "resumed");
    memset(r.tiny.values, 0, (size_t)r.tiny.params.n_values * sizeof(float));
    r.o.resume = true;
    run_good(&r);
    assert_false(r.result.stopped);
    assert_int_equal(r.result.step, STEPS);

    /* Once more: it is finished, and hands over the same values. */
    float *end = malloc((size_t)r.tiny.params.n_values * sizeof *end);
    assert_non_null(end);
    memcpy(end, r.tiny.values, (size_t)r.tiny.params.n_values * sizeof *end);
    double eval_loss = r.result.eval_loss;
    run_close(&r);
    run_open(&r, &comm, &usual, "resumed");
    r.o.resume = true;
    run_good(&r);
    assert_memory_equal(end, r.tiny.values, (size_t)r.tiny.params.n_values * sizeof *end);
    assert_int_equal(r.result.step, STEPS);
    assert_true(r.result.eval_loss == eval_loss);
    free(end);
    run_close(&r);
    assert_same_run("alone", "resumed");
}

/* A resume from a named, older checkpoint moves the newer ones out of the way. */
static void test_resume_dir(void **state)
{
    struct run r;
    run_open(&r, &comm, &usual, "resumed");
    r.o.resume = true;
    snprintf(r.o.resume_dir, sizeof r.o.resume_dir, "%s", scratch_path(&scratch, "resumed/checkpoint-4"));
    r.fail_at = 9;
    run_bad(&r, ST_ENV, "no space for the tokenizer");
    assert_true(dir_exists(scratch_path(&scratch, "resumed/superseded/checkpoint-9")));
    assert_false(dir_exists(scratch_path(&scratch, "resumed/checkpoint-9")));
    assert_true(dir_exists(scratch_path(&scratch, "resumed/checkpoint-4")));
    run_close(&r);
    run_open(&r, &comm, &usual, "resumed");
    r.o.resume = true;
    run_good(&r);
    run_close(&r);
    assert_same_run("alone", "resumed");
}

static void test_other_options(void **state)
{
    struct run r;
    struct small_pack other = usual;
    run_open(&r, &comm, &usual, "all");
    r.o.resume = true;
    json_object_set_new(r.o.options_json, "lr", json_real(2e-2));
    run_bad(&r, ST_USAGE, "option lr is 0.02");
    assert_non_null(strstr(r.err.what, "trained with 0.01"));
    assert_non_null(strstr(r.err.hint, "lr=0.01"));
    run_close(&r);

    other.seed = 10;
    run_open(&r, &comm, &other, "all");
    r.o.resume = true;
    run_bad(&r, ST_USAGE, "other rows");
    run_close(&r);

    run_open(&r, &comm, &usual, "all");
    r.o.resume = true;
    r.o.stage = 2;
    run_bad(&r, ST_USAGE, "of stage 1, not of stage 2");
    run_close(&r);

    run_open(&r, &comm, &usual, "all");
    r.o.resume = true;
    r.o.max_steps = 8;
    run_bad(&r, ST_USAGE, "ends at step 8");
    run_close(&r);

    run_open(&r, &comm, &usual, "all");
    r.o.virtual_shards = comm.world_size - 1;
    run_bad(&r, ST_USAGE, "virtual_shards");
    run_close(&r);
}

/* One bit of the last rank's memory, in step 5: found at the next line of the log or the next save, whichever
 * comes first, with rank, host, step and tensor; and nothing of it is saved. */
static void test_bad_memory(void **state)
{
    static const struct {
        int logging_steps, save_steps, found;
    } cases[] = {{1, 4, 5}, {3, 4, 6}, {8, 4, 8}, {100, 7, 7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases && comm.world_size > 1; i++) {
        struct run r;
        char name[16], what[160], path[PATH_BYTES];
        int64_t step = -1;
        snprintf(name, sizeof name, "flip-%zu", i);
        run_open(&r, &comm, &usual, name);
        r.o.eval_steps = 0;
        r.o.logging_steps = cases[i].logging_steps;
        r.o.save_steps = cases[i].save_steps;
        const struct param *p = &r.tiny.params.items[(size_t)r.tiny.params.n_items / (i + 1) - 1];
        if (comm.rank == comm.world_size - 1)
            flip_install(&comm, 5, r.tiny.values + p->offset + 1);
        snprintf(what, sizeof what, "after step %d the values of %.80s differ from those of rank 0",
                 cases[i].found, p->name);
        run_bad(&r, ST_ENV, what);
        snprintf(what, sizeof what, "rank %d on ", comm.world_size - 1);
        assert_non_null(strstr(r.err.what, what));
        if (comm.rank == comm.world_size - 1)
            flip_remove(&comm);
        if (comm.rank == 0) {
            assert_int_equal(ckpt_newest(r.o.out_dir, path, &step, &r.err), ST_OK);
            assert_int_equal(step, 4);
        }
        run_close(&r);
    }
}

/* Not a number: all ranks end with the step's number, and the last checkpoint is good. */
static void test_not_finite(void **state)
{
    struct run r;
    run_open(&r, &comm, &usual, "nan");
    r.tiny.values[r.tiny.params.n_values / 2] = NAN;
    r.o.eval_steps = 0;
    run_bad(&r, ST_INPUT, "step 1 of stage 1: the loss is not a number");
    assert_false(dir_exists(scratch_path(&scratch, "nan/checkpoint-4")));
    run_close(&r);
}

/* Ids that the model has no row for: whoever meets one, all end with his message. */
static void test_strange_ids(void **state)
{
    struct run r;
    struct small_pack p = usual;
    p.strange_id = VOCAB + 3;
    p.pack_vocab = VOCAB + 10;
    run_open(&r, &comm, &p, "strange");
    r.o.eval_steps = 0;
    run_bad(&r, ST_INPUT, "step 1: ");
    if (comm.world_size > 1)
        assert_non_null(strstr(r.err.what, "rank 0 on "));
    r.o.eval_steps = 1;
    run_bad(&r, ST_INPUT, "evaluation after step 0");
    run_close(&r);
}

/* No label anywhere: loss and gradient are zero, nothing becomes NaN. */
static void test_no_labels(void **state)
{
    struct run r;
    struct small_pack p = usual;
    p.labelled = false;
    run_open(&r, &comm, &p, "unlabelled");
    r.o.weight_decay = 0;
    float *start = malloc((size_t)r.tiny.params.n_values * sizeof *start);
    assert_non_null(start);
    memcpy(start, r.tiny.values, (size_t)r.tiny.params.n_values * sizeof *start);
    run_good(&r);
    assert_true(r.result.last_loss == 0);
    assert_true(isnan(r.result.eval_loss));
    assert_memory_equal(start, r.tiny.values, (size_t)r.tiny.params.n_values * sizeof *start);
    free(start);
    run_close(&r);
}

/* The evaluation's bits do not depend on the number of ranks, nor its value on the packing. */
static void test_evaluate(void **state)
{
    struct comm self;
    struct run r;
    double all = 0, alone = 0, apart = 0;
    int64_t n_all = 0, n_alone = 0;
    run_open(&r, &comm, &usual, "eval");
    assert_int_equal(train_evaluate(&r.c, PACK_TRAIN, 64, true, &all, &n_all, &r.err), ST_OK);
    assert_int_equal(train_evaluate(&r.c, PACK_TRAIN, 1, false, &apart, &n_alone, &r.err), ST_OK);
    assert_int_equal(n_all, n_alone);
    assert_true(fabs(all - apart) < 1e-5 * fabs(all));
    run_close(&r);
    if (comm.rank != 0)
        return;
    assert_int_equal(comm_open_self(&self, &r.err), ST_OK);
    run_open(&r, &self, &usual, "eval");
    assert_int_equal(train_evaluate(&r.c, PACK_TRAIN, 64, true, &alone, &n_alone, &r.err), ST_OK);
    assert_true(all == alone);
    run_close(&r);
    comm_close(&self);
}

/* A deadline that is over: nothing is trained, nothing needs saving. */
static void test_late(void **state)
{
    struct run r;
    run_open(&r, &comm, &usual, "late");
    r.o.deadline_s = comm.rank == comm.world_size - 1 ? clock_s() : 0; /* one rank's clock is enough */
    run_good(&r);
    assert_true(r.result.stopped);
    assert_int_equal(r.result.step, 0);
    run_close(&r);
}

static int run_all(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_stop_and_resume),
        cmocka_unit_test(test_resume_dir),
        cmocka_unit_test(test_other_options),
        cmocka_unit_test(test_bad_memory),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_strange_ids),
        cmocka_unit_test(test_no_labels),
        cmocka_unit_test(test_evaluate),
        cmocka_unit_test(test_late),
    };
    return cmocka_run_group_tests(tests, share_scratch, remove_scratch);
}

int main(void)
{
    if (!runs_begin())
        return 1;
    int failed = run_all();
    comm_close(&comm);
    return failed;
}
