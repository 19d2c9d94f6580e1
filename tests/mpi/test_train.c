/* Training of a tiny model on all ranks: the bytes of one rank, resumes along the same curve, and the same
 * failure on every rank. What one rank would do is done by rank 0 alone on the table of one rank. */
#include "checkpoint/ckpt.h"
#include "comm/comm.h"
#include "model/tiny.h"
#include "small_pack.h"
#include "support/flip.h"
#include "support/scratch.h"
#include "train/train.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/log.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define VOCAB     37
#define NEW_FIRST 33
#define STEPS     9

static const char config[] =
    "{\"model_type\":\"qwen3\",\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":12,\"vocab_size\":37,"
    "\"tie_word_embeddings\":true}";

static const char adapter_config[] =
    "{\"peft_type\":\"LORA\",\"base_model_name_or_path\":\"tiny\",\"r\":4,\"lora_alpha\":8,"
    "\"target_modules\":[\"q_proj\"]}";

static struct comm comm;
static struct scratch scratch;

/* One run: a model of its own, the pack, the options and what add_files shall do. */
struct run {
    struct tiny tiny;
    struct train_context c;
    struct train_options o;
    struct train_result result;
    struct err err;
    int64_t stop_at, fail_at; /* steps whose save asks to stop, or fails; -1: none */
    int64_t wait_at;          /* the save of that step goes on when the log has a later one; -1: none */
};

static const struct small_pack usual = {.n_rows = {41, 19},
                                        .vocab = VOCAB,
                                        .new_first = NEW_FIRST,
                                        .strange_id = -1,
                                        .labelled = true,
                                        .seed = 9};

/* Whether the log of the run gets a line of that step within 20 s. */
static bool log_gets_to(const char *out_dir, int64_t step)
{
    char path[PATH_BYTES], wanted[32];
    bool found = false;
    snprintf(wanted, sizeof wanted, "\"step\":%lld,", (long long)step);
    if (path_join(path, out_dir, "train_log.jsonl", NULL) != ST_OK)
        return false;
    for (double end_s = clock_s() + 20; !found && clock_s() < end_s; usleep(1000)) {
        struct buf text = BUF_INIT;
        found = file_read(path, 1 << 24, &text, NULL) == ST_OK && text.data != NULL &&
                strstr(text.data, wanted) != NULL;
        buf_release(&text);
    }
    return found;
}

static enum status add_files(void *user, const char *dir, int32_t stage, int64_t step, struct err *err)
{
    struct run *r = user;
    char path[PATH_BYTES];
    if (step == r->wait_at && !log_gets_to(r->o.out_dir, step + 1))
        return err_set(err, ST_ENV, "the steps wait for the save");
    if (step == r->fail_at)
        return err_set(err, ST_ENV, "no space for the tokenizer");
    if (step == r->stop_at)
        r->o.deadline_s = clock_s();
    TRY(path_join(path, dir, "adapter_config.json", err));
    return file_write(path, adapter_config, strlen(adapter_config), err);
}

/* pack: a file of the scratch directory; out: where the run writes. */
static void run_open(struct run *r, struct comm *c, const struct small_pack *pack, const char *out)
{
    memset(r, 0, sizeof *r);
    r->stop_at = r->fail_at = r->wait_at = -1;
    tiny_open(&r->tiny, "cpu", config, NEW_FIRST, VOCAB - NEW_FIRST, false, 4, 77);
    r->o = (struct train_options){.stage = 1,
                                  .batch_train = 5,
                                  .grad_accum = 2,
                                  .seed = 42,
                                  .shuffle = true,
                                  .share_prefix = true,
                                  .max_steps = STEPS,
                                  .lr = 1e-2,
                                  .warmup_ratio = 0.1,
                                  .weight_decay = 0.01,
                                  .max_grad_norm = 1,
                                  .adam_beta1 = 0.9,
                                  .adam_beta2 = 0.999,
                                  .adam_epsilon = 1e-8,
                                  .schedule = SCHEDULE_COSINE,
                                  .virtual_shards = 8,
                                  .logging_steps = 1,
                                  .eval_steps = 4,
                                  .keep_checkpoints = 2,
                                  .max_pack_tokens = 64};
    snprintf(r->o.out_dir, sizeof r->o.out_dir, "%s", scratch_path(&scratch, out));
    r->o.options_json = json_pack("{s:f, s:i, s:b}", "lr", r->o.lr, "batch_train", 5, "shuffle", 1);
    r->c = (struct train_context){.comm = c,
                                  .ops = r->tiny.ops,
                                  .dev = r->tiny.dev,
                                  .model = r->tiny.model,
                                  .params = &r->tiny.params,
                                  .values = r->tiny.values,
                                  .files = {.add_files = add_files, .user = r}};
    if (c->rank == 0) {
        struct err err = ERR_INIT;
        char name[64];
        snprintf(name, sizeof name, "%.40s.h5", out);
        small_pack_write(scratch_path(&scratch, name), pack);
        if (pack_open(&r->c.pack, scratch_path(&scratch, name), &r->c.pack_info, &err) != ST_OK)
            fail_msg("%s", err.what);
    }
    assert_int_equal(c->ops->bcast(c, 0, &r->c.pack_info, sizeof r->c.pack_info, &r->err), ST_OK);
}

static void run_close(struct run *r)
{
    pack_close(r->c.pack);
    json_decref(r->o.options_json);
    tiny_close(&r->tiny);
}

static void run_good(struct run *r)
{
    r->err = (struct err)ERR_INIT;
    if (train_stage(&r->c, &r->o, &r->result, &r->err) != ST_OK)
        fail_msg("%s", r->err.what);
}

static void run_bad(struct run *r, enum status expected, const char *what)
{
    r->err = (struct err)ERR_INIT;
    assert_int_equal(train_stage(&r->c, &r->o, &r->result, &r->err), expected);
    if (strstr(r->err.what, what) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", r->err.what, what);
}

/* Rank 0: two files of the scratch directory hold the same bytes. */
static void assert_same_file(const char *a, const char *b)
{
    struct buf x = BUF_INIT, y = BUF_INIT;
    struct err err = ERR_INIT;
    if (comm.rank != 0)
        return;
    if (file_read(scratch_path(&scratch, a), 1 << 24, &x, &err) != ST_OK ||
        file_read(scratch_path(&scratch, b), 1 << 24, &y, &err) != ST_OK)
        fail_msg("%s", err.what);
    assert_true(x.n_bytes > 100);
    if (x.n_bytes != y.n_bytes || memcmp(x.data, y.data, x.n_bytes) != 0)
        fail_msg("%s and %s differ", a, b);
    buf_release(&x);
    buf_release(&y);
}

/* Rank 0: the lines of a run's log, as an array. */
static json_t *log_lines(const char *out)
{
    char name[64], *text, *line, *rest;
    snprintf(name, sizeof name, "%.40s/train_log.jsonl", out);
    json_t *lines = json_array();
    text = scratch_read(scratch_path(&scratch, name));
    assert_non_null(text);
    for (line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        json_t *record = json_loads(line, 0, NULL);
        assert_non_null(record);
        json_array_append_new(lines, record);
    }
    free(text);
    return lines;
}

/* Rank 0: the curves are equal to the last bit: steps, losses, norms, rates, evaluations. */
static void assert_same_log(const char *a, const char *b)
{
    static const char *const keys[] = {"step",     "epoch",  "loss",         "grad_norm", "learning_rate",
                                       "examples", "tokens", "label_tokens", "eval_loss"};
    if (comm.rank != 0)
        return;
    json_t *x = log_lines(a), *y = log_lines(b);
    assert_int_equal(json_array_size(x), json_array_size(y));
    assert_true(json_array_size(x) > STEPS);
    for (size_t i = 0; i < json_array_size(x); i++)
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            json_t *u = json_object_get(json_array_get(x, i), keys[k]),
                   *v = json_object_get(json_array_get(y, i), keys[k]);
            assert_int_equal(u == NULL, v == NULL);
            if (u != NULL && json_number_value(u) != json_number_value(v))
                fail_msg("line %zu: %s is %.17g and %.17g", i, keys[k], json_number_value(u),
                         json_number_value(v));
        }
    json_decref(x);
    json_decref(y);
}

static void assert_same_run(const char *a, const char *b)
{
    static const char *const files[] = {"checkpoint-4/adapter_model.safetensors",
                                        "checkpoint-4/optimizer.pt",
                                        "checkpoint-9/adapter_model.safetensors",
                                        "checkpoint-9/optimizer.pt",
                                        "checkpoint-9/scheduler.pt",
                                        "checkpoint-9/trainer_state.json"};
    char x[128], y[128];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(x, sizeof x, "%s/%s", a, files[i]);
        snprintf(y, sizeof y, "%s/%s", b, files[i]);
        assert_same_file(x, y);
    }
    assert_same_log(a, b);
}

/* The yardstick: the whole run by rank 0 alone, into "alone". */
static void train_alone(void)
{
    struct comm self;
    struct run r;
    if (comm.rank != 0)
        return;
    assert_int_equal(comm_open_self(&self, &r.err), ST_OK);
    run_open(&r, &self, &usual, "alone");
    run_good(&r);
    assert_int_equal(r.result.step, STEPS);
    assert_int_equal(r.result.max_steps, STEPS);
    assert_false(r.result.stopped);
    assert_true(isfinite(r.result.last_loss) && isfinite(r.result.eval_loss));
    run_close(&r);
    comm_close(&self);
}

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

static int share_scratch(void **state)
{
    struct err err = ERR_INIT;
    if (comm.rank == 0)
        scratch_open(&scratch);
    return (int)comm.ops->bcast(&comm, 0, &scratch, sizeof scratch, &err);
}

static int remove_scratch(void **state)
{
    struct err err = ERR_INIT;
    comm.ops->barrier(&comm, &err);
    if (comm.rank == 0)
        scratch_close(&scratch);
    return 0;
}

static int run_all(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),      cmocka_unit_test(test_log),
        cmocka_unit_test(test_stop_and_resume), cmocka_unit_test(test_resume_dir),
        cmocka_unit_test(test_other_options),   cmocka_unit_test(test_failed_save),
        cmocka_unit_test(test_save_beside),     cmocka_unit_test(test_failed_save_beside),
        cmocka_unit_test(test_bad_memory),      cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_strange_ids),     cmocka_unit_test(test_no_labels),
        cmocka_unit_test(test_evaluate),        cmocka_unit_test(test_late),
    };
    return cmocka_run_group_tests(tests, share_scratch, remove_scratch);
}

int main(void)
{
    struct err err = ERR_INIT;
    if (comm_open(&comm, "auto", &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.what);
        return 1;
    }
    log_init(comm.rank, comm.world_size, comm.host);
    log_set_level(LOG_WARN);
    int failed = run_all();
    comm_close(&comm);
    return failed;
}
