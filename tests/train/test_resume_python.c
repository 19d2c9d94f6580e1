/* Going on from a checkpoint that Hugging Face's Trainer wrote in the middle of a run: the rest of its curve.
 */
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"
#include "support/scratch.h"
#include "train/adapter.h"
#include "train/train.h"
#include "util/json.h"
#include "util/log.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIRST 15
#define LAST  30

static char goldens[PATH_BYTES];

struct bench {
    char dir[PATH_BYTES];
    struct safetensors files;
    struct arch arch;
    const struct ops *ops;
    struct device *dev;
    struct weights weights;
    struct params params;
    struct model *model;
    struct pack *pack;
    struct pack_info pack_info;
    void *block, *packed;
    float *values;
};

static void good(enum status st, const struct err *err)
{
    if (st != ST_OK)
        fail_msg("%s", err->what);
}

static const char *in(const struct bench *b, const char *name)
{
    static char paths[2][PATH_BYTES];
    static int at;
    struct err err = ERR_INIT;
    at = !at;
    good(path_join(paths[at], b->dir, name, &err), &err);
    return paths[at];
}

static void open_model(struct bench *b)
{
    struct err err = ERR_INIT;
    struct buf text = BUF_INIT;
    const struct device_options d = {.n_threads = 1, .cpu_path = "auto", .compute = COMPUTE_F32};
    good(file_read(in(b, "model/config.json"), 1 << 20, &text, &err), &err);
    good(arch_parse(&b->arch, text.data, text.n_bytes, "config.json", &err), &err);
    buf_release(&text);
    good(safetensors_open_model(&b->files, in(b, "model"), &err), &err);
    b->ops = ops_by_name("cpu");
    good(b->ops->open(&b->dev, &d, &err), &err);
    b->block = aligned_alloc(64, (weights_block_bytes(&b->arch, DT_F32) + 63) / 64 * 64);
    assert_non_null(b->block);
    good(weights_fill(b->block, &b->arch, DT_F32, &b->files.tensors, &err), &err);
    size_t packed_bytes;
    good(weights_packed_bytes(&packed_bytes, &b->arch, DT_F32, b->ops, b->dev, &err), &err);
    b->packed = aligned_alloc(64, packed_bytes);
    assert_non_null(b->packed);
    struct weights_memory memory = {.block = b->block, .packed = b->packed, .n_parts = 1};
    good(weights_bind(&b->weights, &b->arch, DT_F32, &memory, b->ops, b->dev, &err), &err);
}

static void open_params(struct bench *b)
{
    struct err err = ERR_INIT;
    struct adapter_config config;
    good(pack_open(&b->pack, in(b, "pack.h5"), &b->pack_info, &err), &err);
    good(adapter_config_read(&config, in(b, "init_adapter"), &err), &err);
    struct lora_config lora = {.r = config.r, .alpha = config.alpha};
    for (int p = 0; p < N_PROJ; p++)
        for (int i = 0; i < config.n_targets; i++)
            lora.target[p] |= strcmp(config.targets[i], proj_name((enum proj)p)) == 0;
    adapter_config_release(&config);
    good(params_init(&b->params, &b->arch, &lora, b->pack_info.base_vocab_size,
                     b->pack_info.vocab_size - b->pack_info.base_vocab_size, !b->arch.tied, &err),
         &err);
    b->values = b->ops->alloc(b->dev, (size_t)b->params.n_values * sizeof *b->values);
    assert_non_null(b->values);
    struct model_config c = {
        .ops = b->ops, .dev = b->dev, .arch = &b->arch, .weights = &b->weights, .params = &b->params};
    good(model_open(&b->model, &c, &err), &err);
}

static void bench_close(struct bench *b)
{
    model_close(b->model);
    b->ops->release(b->dev, b->values);
    params_release(&b->params);
    weights_release(&b->weights, b->ops, b->dev);
    b->ops->close(b->dev);
    safetensors_close(&b->files);
    pack_close(b->pack);
    free(b->block);
    free(b->packed);
}

static enum status no_files(void *user, const char *dir, int32_t stage, int64_t step, struct err *err)
{
    return ST_OK;
}

/* The record of a step in a file of JSON lines. */
static json_t *line_of(const char *path, int64_t step)
{
    char *text = scratch_read(path), *rest;
    json_t *found = NULL;
    assert_non_null(text);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        json_t *record = json_loads(line, 0, NULL);
        if (found == NULL && json_object_get(record, "loss") != NULL &&
            json_integer_value(json_object_get(record, "step")) == step)
            found = json_incref(record);
        json_decref(record);
    }
    free(text);
    if (found == NULL)
        fail_msg("%s has no step %d", path, (int)step);
    return found;
}

static double value_of(const json_t *record, const char *key)
{
    const json_t *x = json_object_get(record, key);
    assert_true(json_is_number(x));
    return json_number_value(x);
}

static void compare_curve(const struct bench *b, const char *ours)
{
    for (int64_t step = FIRST + 1; step <= LAST; step++) {
        json_t *x = line_of(ours, step), *y = line_of(in(b, "train_resumed.jsonl"), step);
        double loss = value_of(y, "loss"), norm = value_of(y, "grad_norm");
        assert_true(value_of(x, "learning_rate") == value_of(y, "learning_rate"));
        if (fabs(value_of(x, "loss") - loss) > 1e-6 * loss ||
            fabs(value_of(x, "grad_norm") - norm) > 3e-6 * norm)
            fail_msg("step %d: loss %.9g norm %.9g, expected %.9g %.9g", (int)step, value_of(x, "loss"),
                     value_of(x, "grad_norm"), loss, norm);
        json_decref(x);
        json_decref(y);
    }
}

static void compare_adapter(const struct bench *b)
{
    struct err err = ERR_INIT;
    float *end = malloc((size_t)b->params.n_values * sizeof *end);
    assert_non_null(end);
    good(adapter_read(in(b, "train/checkpoint-30"), &b->params, end, &err), &err);
    for (int64_t i = 0; i < b->params.n_values; i++)
        if (fabs((double)end[i] - (double)b->values[i]) > 2e-6)
            fail_msg("value %d is %.9g, expected %.9g", (int)i, (double)b->values[i], (double)end[i]);
    free(end);
}

static void go_on(const char *name)
{
    struct bench b = {0};
    struct comm comm;
    struct scratch s;
    struct err err = ERR_INIT;
    struct train_result result;
    scratch_open(&s);
    good(path_join(b.dir, goldens, name, &err), &err);
    open_model(&b);
    open_params(&b);
    good(comm_open_self(&comm, &err), &err);
    json_t *totals = NULL;
    good(json_read_file(&totals, in(&b, "train_totals.json"), 1 << 20, &err), &err);
    const json_t *options = json_object_get(totals, "options");
    struct train_options o = {.stage = 3,
                              .batch_train = (int32_t)value_of(options, "batch"),
                              .grad_accum = (int32_t)value_of(options, "ga"),
                              .share_prefix = true,
                              .max_steps = LAST,
                              .lr = value_of(options, "lr"),
                              .warmup_ratio = 0.1,
                              .weight_decay = value_of(options, "weight_decay"),
                              .max_grad_norm = value_of(options, "max_grad_norm"),
                              .adam_beta1 = 0.9,
                              .adam_beta2 = 0.999,
                              .adam_epsilon = 1e-8,
                              .virtual_shards = 8,
                              .logging_steps = 1,
                              .keep_checkpoints = 2,
                              .max_pack_tokens = 256,
                              .resume = true};
    snprintf(o.out_dir, sizeof o.out_dir, "%s", s.dir);
    snprintf(o.resume_dir, sizeof o.resume_dir, "%s", in(&b, "train/checkpoint-15"));
    const struct train_context c = {.comm = &comm,
                                    .ops = b.ops,
                                    .dev = b.dev,
                                    .model = b.model,
                                    .params = &b.params,
                                    .values = b.values,
                                    .pack = b.pack,
                                    .pack_info = b.pack_info,
                                    .files = {.add_files = no_files}};
    good(train_stage(&c, &o, &result, &err), &err);
    assert_int_equal(result.step, LAST);
    compare_curve(&b, scratch_path(&s, "train_log.jsonl"));
    compare_adapter(&b);
    json_decref(totals);
    bench_close(&b);
    scratch_close(&s);
}

static void test_tied(void **state)
{
    go_on("qwen3_tied");
}

static void test_untied(void **state)
{
    go_on("qwen3_untied");
}

/* The base was grown: the file holds the tied rows twice and whole matrices. */
static void test_grown(void **state)
{
    go_on("llama_tied");
}

int main(void)
{
    const char *shared = getenv("SMGPT_SHARED");
    snprintf(goldens, sizeof goldens, "%s/golden", shared != NULL ? shared : SMGPT_SOURCE_DIR "/../shared");
    if (!dir_exists(goldens)) {
        printf("%s is not there: skipped\n", goldens);
        return 77;
    }
    log_set_level(LOG_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_untied),
        cmocka_unit_test(test_grown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
