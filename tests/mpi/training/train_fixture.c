#include "train_fixture.h"
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

static const char config[] =
    "{\"model_type\":\"qwen3\",\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":12,\"vocab_size\":37,"
    "\"tie_word_embeddings\":true}";

static const char adapter_config[] =
    "{\"peft_type\":\"LORA\",\"base_model_name_or_path\":\"tiny\",\"r\":4,\"lora_alpha\":8,"
    "\"target_modules\":[\"q_proj\"]}";

struct comm comm;
struct scratch scratch;

const struct small_pack usual = {.n_rows = {41, 19},
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

void run_open(struct run *r, struct comm *c, const struct small_pack *pack, const char *out)
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

void run_close(struct run *r)
{
    pack_close(r->c.pack);
    json_decref(r->o.options_json);
    tiny_close(&r->tiny);
}

void run_good(struct run *r)
{
    r->err = (struct err)ERR_INIT;
    if (train_stage(&r->c, &r->o, &r->result, &r->err) != ST_OK)
        fail_msg("%s", r->err.what);
}

void run_bad(struct run *r, enum status expected, const char *what)
{
    r->err = (struct err)ERR_INIT;
    assert_int_equal(train_stage(&r->c, &r->o, &r->result, &r->err), expected);
    if (strstr(r->err.what, what) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", r->err.what, what);
}

void assert_same_file(const char *a, const char *b)
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

json_t *log_lines(const char *out)
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

void assert_same_run(const char *a, const char *b)
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

void train_alone(void)
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

int share_scratch(void **state)
{
    struct err err = ERR_INIT;
    if (comm.rank == 0)
        scratch_open(&scratch);
    return (int)comm.ops->bcast(&comm, 0, &scratch, sizeof scratch, &err);
}

int remove_scratch(void **state)
{
    struct err err = ERR_INIT;
    comm.ops->barrier(&comm, &err);
    if (comm.rank == 0)
        scratch_close(&scratch);
    return 0;
}

bool runs_begin(void)
{
    struct err err = ERR_INIT;
    if (comm_open(&comm, "auto", &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.what);
        return false;
    }
    log_init(comm.rank, comm.world_size, comm.host);
    log_set_level(LOG_WARN);
    return true;
}
