#include "checkpoint/state.h"
#include "checkpoint/torch_file.h"
#include "fixture.h"
#include "util/log.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int setup(void **state)
{
    fixture_make();
    log_set_level(LOG_ERROR);
    return 0;
}

static int teardown(void **state)
{
    fixture_remove();
    return 0;
}

static void put_text(const char *name, const char *text)
{
    fixture_write(name, text, strlen(text));
}

/* Four parameters: rows of the embedding, a pair of LoRA matrices, rows of the head. */
#define N_VALUES (3 * 4 + 2 * 4 + 5 * 2 + 3 * 4)
static void make_params(struct tensor_list *list)
{
    struct err err = ERR_INIT;
    *list = (struct tensor_list)TENSOR_LIST_INIT;
    tensor_list_add(list, "m.embed_tokens.token_adapter.trainable_tokens_delta", DT_F32, 2, (int64_t[]){3, 4},
                    NULL, &err);
    tensor_list_add(list, "m.layers.0.self_attn.q_proj.lora_A.weight", DT_F32, 2, (int64_t[]){2, 4}, NULL,
                    &err);
    tensor_list_add(list, "m.layers.0.self_attn.q_proj.lora_B.weight", DT_F32, 2, (int64_t[]){5, 2}, NULL,
                    &err);
    tensor_list_add(list, "m.lm_head.token_adapter.trainable_tokens_delta", DT_F32, 2, (int64_t[]){3, 4},
                    NULL, &err);
    assert_int_equal(err.status, ST_OK);
}

static void fill(float *m, float *v)
{
    for (int i = 0; i < N_VALUES; i++) {
        m[i] = (float)(i - 20) / 8;
        v[i] = (float)i * (float)i / 64;
    }
}

static void optimizer_round_trip(void **state)
{
    struct tensor_list params;
    float m[N_VALUES], v[N_VALUES], m2[N_VALUES], v2[N_VALUES];
    struct err err = ERR_INIT;
    make_params(&params);
    fill(m, v);
    struct optimizer_state s = {.lr = 5e-4,
                                .initial_lr = 1e-3,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .weight_decay = 0.01,
                                .step = 15,
                                .params = &params,
                                .exp_avg = m,
                                .exp_avg_sq = v};
    assert_int_equal(optimizer_write(fixture_path("optimizer.pt"), &s, &err), ST_OK);
    struct optimizer_state r = {.params = &params};
    assert_int_equal(optimizer_read(fixture_path("optimizer.pt"), &r, m2, v2, &err), ST_OK);
    assert_memory_equal(m, m2, sizeof m);
    assert_memory_equal(v, v2, sizeof v);
    assert_true(r.lr == s.lr && r.initial_lr == s.initial_lr && r.beta1 == s.beta1 && r.beta2 == s.beta2);
    assert_true(r.eps == s.eps && r.weight_decay == s.weight_decay && r.step == 15);

    /* Groups and keys in torch's order. */
    static const char *const keys[] = {"weight_decay",
                                       "lr",
                                       "betas",
                                       "eps",
                                       "amsgrad",
                                       "maximize",
                                       "foreach",
                                       "capturable",
                                       "differentiable",
                                       "fused",
                                       "decoupled_weight_decay",
                                       "initial_lr",
                                       "params"};
    struct torch_file f;
    assert_int_equal(torch_file_open(&f, fixture_path("optimizer.pt"), &err), ST_OK);
    const struct value *groups = value_get(f.root, "param_groups");
    assert_int_equal(groups->list.n, 2);
    for (int g = 0; g < 2; g++) {
        const struct value *group = groups->list.items[g];
        assert_int_equal(group->dict.n, 13);
        for (int i = 0; i < 13; i++)
            assert_string_equal(group->dict.keys[i]->string.text, keys[i]);
        assert_int_equal(value_get(group, "params")->list.n, g == 0 ? 4 : 0);
        assert_int_equal(value_get(group, "fused")->kind, VALUE_NONE);
        assert_int_equal(value_get(group, "betas")->kind, VALUE_TUPLE);
        assert_true(value_get(group, "weight_decay")->real == (g == 0 ? 0.01 : 0.0));
    }
    const struct value *step = value_get(value_get_int(value_get(f.root, "state"), 0), "step");
    assert_int_equal(step->tensor.n_dims, 0);
    assert_int_equal(step->tensor.dtype, DT_F32);
    torch_file_close(&f);

    s.step = 0; /* before the first step torch has no entries */
    assert_int_equal(optimizer_write(fixture_path("fresh.pt"), &s, &err), ST_OK);
    assert_int_equal(optimizer_read(fixture_path("fresh.pt"), &r, m2, v2, &err), ST_OK);
    assert_int_equal(r.step, 0);
    for (int i = 0; i < N_VALUES; i++)
        assert_true(m2[i] == 0 && v2[i] == 0);
    tensor_list_release(&params);
}

/* What a file may look like; changes of one thing each. */
enum change {
    GOOD,
    UNSLOTH,
    MISSING_ENTRY,
    EMPTY_ENTRY,
    STEP_INT,
    STEP_VECTOR,
    BETAS_LIST,
    BF16,
    NO_INITIAL_LR,
    FUSED,
    N_GOOD,
    BNB_FLAT = N_GOOD,
    BNB_WRAPPED,
    ADAFACTOR,
    SGD,
    LION,
    UNKNOWN,
    AMSGRAD,
    MAXIMIZE,
    FEWER,
    MORE,
    TWICE,
    NO_LR,
    BAD_LR,
    BAD_BETAS,
    SHAPE,
    SHAPE_SQ,
    SCALAR_SHAPE,
    INTEGER_MOMENT,
    NAN_MOMENT,
    NEGATIVE_SQUARE,
    NO_STEP,
    BAD_STEP,
    NO_GROUPS,
    STRAY_ENTRY,
    ENTRY_NO_DICT,
    COUPLED,
    N_CHANGES
};

static float moments[N_VALUES], squares[N_VALUES];
static int64_t zeros[N_VALUES];

static void put_tensor(struct torch_writer *w, const char *key, enum dtype t, int n_dims, const int64_t *dims,
                       const void *data)
{
    torch_put_string(w, key);
    torch_put_tensor(w, t, n_dims, dims, data);
}

static void put_step(struct torch_writer *w, enum change c)
{
    static const float seven = 7, half = 7.5f;
    if (c == NO_STEP || c == EMPTY_ENTRY)
        return;
    if (c == STEP_INT) {
        torch_put_string(w, "step");
        torch_put_int(w, 7);
    } else if (c == STEP_VECTOR) {
        put_tensor(w, "step", DT_F32, 1, (int64_t[]){1}, &seven);
    } else {
        put_tensor(w, "step", DT_F32, 0, NULL, c == BAD_STEP ? &half : &seven);
    }
}

/* The entry of one parameter; i is its file position. */
static void put_entry(struct torch_writer *w, enum change c, int i, const int64_t dims[2], const float *m,
                      const float *v)
{
    static uint16_t bf16[N_VALUES];
    static const float nan_value[16] = {0, NAN}, negative[16] = {0, -1};
    bool is_first = i == 0;
    torch_put_dict(w);
    put_step(w, is_first ? c : GOOD);
    if (c == BNB_FLAT || c == BNB_WRAPPED) {
        torch_put_string(w, c == BNB_FLAT ? "state1" : "__bnb_optimizer_quant_state__");
        torch_put_none(w);
    } else if (c == ADAFACTOR || c == SGD || c == UNKNOWN) {
        torch_put_string(w, c == ADAFACTOR ? "exp_avg_sq_row" : c == SGD ? "momentum_buffer" : "something");
        torch_put_none(w);
    } else if (c == BF16) {
        uint16_t *own = bf16 + (m - moments); /* lent until the file is written */
        dtype_from_f32(DT_BF16, m, own, (size_t)(dims[0] * dims[1]));
        put_tensor(w, "exp_avg", DT_BF16, 2, dims, own);
        put_tensor(w, "exp_avg_sq", DT_F32, 2, dims, v);
    } else if (!is_first) {
        put_tensor(w, "exp_avg", DT_F32, 2, dims, m);
        put_tensor(w, "exp_avg_sq", DT_F32, 2, dims, v);
    } else if (c == INTEGER_MOMENT) {
        put_tensor(w, "exp_avg", DT_I64, 2, dims, zeros);
        put_tensor(w, "exp_avg_sq", DT_F32, 2, dims, v);
    } else if (c != EMPTY_ENTRY) {
        int64_t other[2] = {dims[1], dims[0]};
        put_tensor(w, "exp_avg", DT_F32, c == SCALAR_SHAPE ? 0 : 2, c == SHAPE ? other : dims,
                   c == NAN_MOMENT ? nan_value : m);
        if (c != LION)
            put_tensor(w, "exp_avg_sq", DT_F32, 2, c == SHAPE_SQ ? other : dims,
                       c == NEGATIVE_SQUARE ? negative : v);
    }
    torch_put_end(w);
}

static void put_group(struct torch_writer *w, enum change c, int first, int n)
{
    torch_put_dict(w);
    if (c != NO_LR) {
        torch_put_string(w, "lr");
        torch_put_float(w, c == BAD_LR ? -1 : 5e-4);
    }
    torch_put_string(w, "betas");
    if (c == BETAS_LIST)
        torch_put_list(w);
    else
        torch_put_tuple(w);
    torch_put_float(w, 0.9);
    torch_put_float(w, c == BAD_BETAS ? 1.0 : 0.999);
    torch_put_end(w);
    torch_put_string(w, "eps");
    torch_put_float(w, 1e-8);
    torch_put_string(w, "weight_decay");
    torch_put_int(w, c == COUPLED);
    torch_put_string(w, "decoupled_weight_decay");
    torch_put_bool(w, c != COUPLED);
    torch_put_string(w, "amsgrad");
    torch_put_bool(w, c == AMSGRAD);
    torch_put_string(w, "maximize");
    torch_put_bool(w, c == MAXIMIZE);
    if (c == FUSED) {
        torch_put_string(w, "fused");
        torch_put_bool(w, true);
    }
    if (c != NO_INITIAL_LR) {
        torch_put_string(w, "initial_lr");
        torch_put_float(w, 1e-3);
    }
    torch_put_string(w, "params");
    torch_put_list(w);
    for (int i = first; i < first + n; i++)
        torch_put_int(w, c == TWICE && i == 2 ? 1 : i);
    torch_put_end(w);
    torch_put_end(w);
}

static void put_changed(const char *path, enum change c)
{
    static const int64_t dims[4][2] = {{3, 4}, {2, 4}, {5, 2}, {3, 4}};
    static const int offsets[4] = {0, 12, 20, 30}, lora_first[4] = {1, 2, 0, 3};
    struct torch_writer *w = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(torch_writer_open(&w, path, &err), ST_OK);
    torch_put_dict(w);
    torch_put_string(w, "state");
    torch_put_dict(w);
    for (int k = 0; k < 4; k++) {
        int i = c == UNSLOTH ? lora_first[k] : k;
        if ((c == MISSING_ENTRY && k == 0) || (c == FEWER && k == 3) || (c == TWICE && k == 2))
            continue;
        torch_put_int(w, k);
        if (c == ENTRY_NO_DICT)
            torch_put_none(w);
        else
            put_entry(w, c, k, dims[i], moments + offsets[i], squares + offsets[i]);
    }
    if (c == STRAY_ENTRY) {
        torch_put_int(w, 99);
        torch_put_dict(w);
        torch_put_end(w);
    }
    torch_put_end(w);
    if (c != NO_GROUPS) {
        torch_put_string(w, "param_groups");
        torch_put_list(w);
        put_group(w, c, 0, c == UNSLOTH ? 2 : c == FEWER ? 3 : c == MORE ? 5 : 4);
        put_group(w, c == TWICE || c == NO_LR ? GOOD : c, c == UNSLOTH ? 2 : 4, c == UNSLOTH ? 2 : 0);
        torch_put_end(w);
    }
    torch_put_end(w);
    assert_int_equal(torch_writer_commit(w, &err), ST_OK);
}

static void optimizer_variants(void **state)
{
    struct tensor_list params;
    make_params(&params);
    fill(moments, squares);
    for (int c = GOOD; c < N_GOOD; c++) {
        float m[N_VALUES], v[N_VALUES];
        struct err err = ERR_INIT;
        struct optimizer_state s = {.params = &params};
        put_changed(fixture_path("o.pt"), (enum change)c);
        if (optimizer_read(fixture_path("o.pt"), &s, m, v, &err) != ST_OK)
            fail_msg("case %d: %s", c, err.what);
        assert_int_equal(s.step, 7);
        assert_true(s.lr == 5e-4 && s.weight_decay == 0);
        assert_true(s.initial_lr == (c == NO_INITIAL_LR ? 5e-4 : 1e-3));
        bool is_absent = c == MISSING_ENTRY || c == EMPTY_ENTRY;
        for (int i = 0; i < N_VALUES; i++) {
            assert_true(m[i] == (is_absent && i < 12 ? 0 : moments[i]));
            assert_true(v[i] == (is_absent && i < 12 ? 0 : squares[i]));
        }
    }
    tensor_list_release(&params);
}

static void optimizer_refusals(void **state)
{
    static const struct {
        enum change change;
        const char *message;
    } cases[] = {
        {BNB_FLAT, "a bitsandbytes optimizer without states"},
        {BNB_WRAPPED, "a bitsandbytes optimizer without states"},
        {ADAFACTOR, "Adafactor"},
        {SGD, "SGD"},
        {LION, "Lion"},
        {UNKNOWN, "an unknown optimizer"},
        {AMSGRAD, "amsgrad is set"},
        {MAXIMIZE, "maximize is set"},
        {FEWER, "is for 3 parameters, the adapter has 4"},
        {MORE, "is for 5 parameters, the adapter has 4"},
        {TWICE, "parameter 1 is in the groups twice"},
        {NO_LR, "no number \"lr\""},
        {BAD_LR, "\"lr\" is -1"},
        {BAD_BETAS, "no usable \"betas\""},
        {SHAPE,
         "moments of parameter 0 have shape [4,3], \"m.embed_tokens.token_adapter.trainable_tokens_delta\""},
        {SHAPE_SQ, "moments of parameter 0 have shape [4,3]"},
        {INTEGER_MOMENT, "is I64, not a floating type"},
        {NAN_MOMENT, "has the value nan at 1"},
        {NEGATIVE_SQUARE,
         "exp_avg_sq of \"m.embed_tokens.token_adapter.trainable_tokens_delta\" has the value -1 at 1"},
        {SCALAR_SHAPE, "moments of parameter 0 have shape []"},
        {NO_STEP, "parameter 0 has no usable \"step\""},
        {BAD_STEP, "parameter 0 has no usable \"step\""},
        {NO_GROUPS, "holds no optimizer"},
        {STRAY_ENTRY, "state for 1 parameters that no group names"},
        {ENTRY_NO_DICT, "the state of parameter 0 is no dict"},
        {COUPLED, "weight decay in the gradient"},
    };
    struct tensor_list params;
    make_params(&params);
    fill(moments, squares);
    assert_int_equal(sizeof cases / sizeof *cases, N_CHANGES - N_GOOD);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float m[N_VALUES], v[N_VALUES];
        struct err err = ERR_INIT;
        struct optimizer_state s = {.params = &params};
        put_changed(fixture_path("o.pt"), cases[i].change);
        enum status status = optimizer_read(fixture_path("o.pt"), &s, m, v, &err);
        if (status != ST_INPUT || !strstr(err.what, cases[i].message))
            fail_msg("change %d: \"%s\" lacks \"%s\"", (int)cases[i].change, err.what, cases[i].message);
    }
    tensor_list_release(&params);
}

static void scheduler_files(void **state)
{
    struct err err = ERR_INIT;
    struct scheduler_state s = {.base_lr = 1e-3, .last_lr = 5e-4, .last_epoch = 15}, r;
    assert_int_equal(scheduler_write(fixture_path("scheduler.pt"), &s, &err), ST_OK);
    assert_int_equal(scheduler_read(fixture_path("scheduler.pt"), &r, &err), ST_OK);
    assert_true(r.base_lr == s.base_lr && r.last_lr == s.last_lr && r.last_epoch == 15);
    struct torch_file f;
    static const char *const keys[] = {
        "base_lrs", "last_epoch", "_step_count", "_is_initial", "_get_lr_called_within_step",
        "_last_lr", "lr_lambdas"};
    assert_int_equal(torch_file_open(&f, fixture_path("scheduler.pt"), &err), ST_OK);
    assert_int_equal(f.root->dict.n, 7);
    for (int i = 0; i < 7; i++)
        assert_string_equal(f.root->dict.keys[i]->string.text, keys[i]);
    assert_int_equal(value_get(f.root, "_step_count")->integer, 16);
    assert_int_equal(value_get(f.root, "lr_lambdas")->list.n, 2);
    torch_file_close(&f);

    struct torch_writer *w = NULL;
    torch_writer_open(&w, fixture_path("small.pt"), &err);
    torch_put_dict(w);
    torch_put_string(w, "last_epoch");
    torch_put_int(w, 3);
    torch_put_end(w);
    assert_int_equal(torch_writer_commit(w, &err), ST_OK);
    assert_int_equal(scheduler_read(fixture_path("small.pt"), &r, &err), ST_OK);
    assert_true(r.last_epoch == 3 && r.base_lr == -1 && r.last_lr == -1);

    torch_writer_open(&w, fixture_path("bad.pt"), &err);
    torch_put_dict(w);
    torch_put_string(w, "last_epoch");
    torch_put_float(w, 1.5);
    torch_put_end(w);
    torch_writer_commit(w, &err);
    expect_error(scheduler_read(fixture_path("bad.pt"), &r, &err), ST_INPUT, &err,
                 "no usable \"last_epoch\"");
}

static void trainer_state_files(void **state)
{
    struct err err = ERR_INIT;
    json_t *history =
        json_pack("[{s:i,s:f},{s:n,s:f,s:i}]", "step", 1, "loss", 2.5, "grad_norm", "loss", 2.25, "step", 2);
    struct trainer_state s = {.global_step = 15,
                              .max_steps = 30,
                              .epoch = 0.5,
                              .num_train_epochs = 1.5,
                              .logging_steps = 1,
                              .eval_steps = 0,
                              .save_steps = 15,
                              .train_batch_size = 4,
                              .log_history = history},
                         r;
    assert_int_equal(trainer_state_write(fixture_path("t.json"), &s, &err), ST_OK);
    struct buf text = BUF_INIT;
    fixture_read(fixture_path("t.json"), &text);
    static const char wanted[] = "{\n"
                                 "  \"best_global_step\": null,\n"
                                 "  \"best_metric\": null,\n"
                                 "  \"best_model_checkpoint\": null,\n"
                                 "  \"epoch\": 0.5,\n"
                                 "  \"eval_steps\": 500,\n"
                                 "  \"global_step\": 15,\n"
                                 "  \"is_hyper_param_search\": false,\n"
                                 "  \"is_local_process_zero\": true,\n"
                                 "  \"is_world_process_zero\": true,\n"
                                 "  \"log_history\": [\n"
                                 "    {\n"
                                 "      \"loss\": 2.5,\n"
                                 "      \"step\": 1\n"
                                 "    },\n"
                                 "    {\n"
                                 "      \"loss\": 2.25,\n"
                                 "      \"step\": 2\n"
                                 "    }\n"
                                 "  ],\n"
                                 "  \"logging_steps\": 1,\n"
                                 "  \"max_steps\": 30,\n"
                                 "  \"num_input_tokens_seen\": 0,\n"
                                 "  \"num_train_epochs\": 2,\n"
                                 "  \"save_steps\": 15,\n"
                                 "  \"stateful_callbacks\": {\n"
                                 "    \"TrainerControl\": {\n"
                                 "      \"args\": {\n"
                                 "        \"should_epoch_stop\": false,\n"
                                 "        \"should_evaluate\": false,\n"
                                 "        \"should_log\": false,\n"
                                 "        \"should_save\": true,\n"
                                 "        \"should_training_stop\": false\n"
                                 "      },\n"
                                 "      \"attributes\": {}\n"
                                 "    }\n"
                                 "  },\n"
                                 "  \"total_flos\": 0.0,\n"
                                 "  \"train_batch_size\": 4,\n"
                                 "  \"trial_name\": null,\n"
                                 "  \"trial_params\": null\n"
                                 "}\n";
    assert_string_equal(text.data, wanted);
    assert_int_equal(json_object_size(json_array_get(history, 1)), 3); /* the caller's is untouched */
    buf_release(&text);
    assert_int_equal(trainer_state_read(fixture_path("t.json"), &r, &err), ST_OK);
    assert_true(r.global_step == 15 && r.max_steps == 30 && r.epoch == 0.5 && r.num_train_epochs == 2);
    assert_true(r.logging_steps == 1 && r.eval_steps == 500 && r.save_steps == 15 && r.train_batch_size == 4);
    assert_int_equal(json_array_size(r.log_history), 2);
    assert_false(r.finished);
    trainer_state_release(&r);
    s.finished = true;
    s.log_history = NULL;
    assert_int_equal(trainer_state_write(fixture_path("t.json"), &s, &err), ST_OK);
    assert_int_equal(trainer_state_read(fixture_path("t.json"), &r, &err), ST_OK);
    assert_true(r.finished);
    assert_int_equal(json_array_size(r.log_history), 0);
    trainer_state_release(&r);
    s.epoch = NAN;
    expect_error(trainer_state_write(fixture_path("nan.json"), &s, &err), ST_DEFECT, &err, "epoch nan");
    assert_false(file_exists(fixture_path("nan.json")));
    json_decref(history);
}

static void trainer_state_tolerance(void **state)
{
    static const struct {
        const char *text, *message;
        int64_t step;
    } cases[] = {
        {"{\"global_step\":3,\"epoch\":NaN,\"log_history\":[{\"loss\":NaN,\"grad_norm\":-Infinity}],\"new_"
         "key\":[1]}",
         NULL, 3},
        {"{\"global_step\":7,\"logging_steps\":0.5,\"max_steps\":-1,\"train_batch_size\":null}", NULL, 7},
        {"{\"global_step\":null}", "global_step", 0},
        {"{}", "global_step", 0},
        {"[]", "object", 0},
        {"{\"global_step\":-1}", "global_step", 0},
        {"{\"global_step\":1.5}", "global_step", 0},
        {"{\"global_step\":1,\"log_history\":{}}", "\"log_history\" must be a list", 0},
        {"{\"global_step\":1,\"log_history\":[1]}", "entry 0 of \"log_history\"", 0},
        {"{\"global_step\":1,\"global_step\":2}", "duplicate", 0},
        {"", "t.json", 0},
        {"{\"global_step\":1", "t.json", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct trainer_state s;
        struct err err = ERR_INIT;
        put_text("t.json", cases[i].text);
        enum status status = trainer_state_read(fixture_path("t.json"), &s, &err);
        if (cases[i].message) {
            expect_error(status, ST_INPUT, &err, cases[i].message);
            continue;
        }
        if (status != ST_OK)
            fail_msg("case %zu: %s", i, err.what);
        assert_int_equal(s.global_step, cases[i].step);
        assert_true(s.logging_steps >= 1);
        trainer_state_release(&s);
    }
}

static void run_state_files(void **state)
{
    struct err err = ERR_INIT;
    bool present = true;
    struct run_state s = {.stage = 2, .step = 40, .cpu_path = "avx2"}, r;
    memset(s.pack_sha256, 'a', 64);
    memset(s.values_sha256, '0', 64);
    s.options = json_pack("{s:f,s:i}", "lr", 1e-3, "seed", 42);
    assert_int_equal(run_state_write(fixture_path("s.json"), &s, &err), ST_OK);
    assert_int_equal(run_state_read(fixture_path("s.json"), &r, &present, &err), ST_OK);
    assert_true(present && r.stage == 2 && r.step == 40);
    assert_string_equal(r.pack_sha256, s.pack_sha256);
    assert_string_equal(r.model_sha256, "");
    assert_string_equal(r.cpu_path, "avx2");
    assert_true(json_equal(r.options, s.options));
    run_state_release(&r);
    json_decref(s.options);
    assert_int_equal(run_state_read(fixture_path("none.json"), &r, &present, &err), ST_OK);
    assert_false(present);
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"format\":2,\"stage\":1,\"step\":1}", "has format 2"},
        {"{\"stage\":1,\"step\":1}", "\"format\" is missing"},
        {"{\"format\":1,\"stage\":9,\"step\":1}", "\"stage\" is 9"},
        {"{\"format\":1,\"stage\":1,\"step\":1,\"pack_sha256\":\"xyz\"}", "\"pack_sha256\" is no SHA-256"},
        {"{\"format\":1,\"stage\":1,\"step\":1,\"options\":[]}", "\"options\" must be an object"},
        {"{\"format\":1,\"stage\":1,\"step\":1,\"cpu_path\":"
         "\"0123456789012345678901234567890123456789012345678901234"
         "567890123456789\"}",
         "\"cpu_path\" is too long"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err = (struct err)ERR_INIT;
        put_text("s.json", cases[i].text);
        expect_error(run_state_read(fixture_path("s.json"), &r, &present, &err), ST_INPUT, &err,
                     cases[i].message);
        assert_false(present);
    }
}

static void adapter_config_round_trip(void **state)
{
    struct err err = ERR_INIT;
    int64_t rows[3] = {300, 301, 302}, head[2] = {300, 302};
    struct adapter_config c = {.base_model = "Qwen/Qwen3-0.6B",
                               .r = 8,
                               .alpha = 16,
                               .targets = {"q_proj", "v_proj", "down_proj"},
                               .n_targets = 3,
                               .embed_rows = rows,
                               .n_embed_rows = 3,
                               .head_rows = head,
                               .n_head_rows = 2},
                          r;
    assert_int_equal(adapter_config_write(&c, fixture_path(""), &err), ST_OK);
    assert_int_equal(adapter_config_read(&r, fixture_path(""), &err), ST_OK);
    assert_string_equal(r.base_model, c.base_model);
    assert_true(r.r == 8 && r.alpha == 16 && r.dropout == 0 && !r.use_rslora && r.n_targets == 3);
    assert_string_equal(r.targets[2], "down_proj");
    assert_int_equal(r.n_embed_rows, 3);
    assert_memory_equal(r.embed_rows, rows, sizeof rows);
    assert_int_equal(r.n_head_rows, 2);
    assert_memory_equal(r.head_rows, head, sizeof head);
    assert_false(r.modules_to_save_embed || r.modules_to_save_head);
    adapter_config_release(&r);

    c.n_embed_rows = c.n_head_rows = 0;
    c.modules_to_save_embed = c.modules_to_save_head = c.use_rslora = true;
    c.alpha = 0.5;
    c.dropout = 0.25;
    assert_int_equal(adapter_config_write(&c, fixture_path(""), &err), ST_OK);
    struct buf text = BUF_INIT;
    fixture_read(fixture_path("adapter_config.json"), &text);
    static const char begin[] = "{\n  \"alora_invocation_tokens\": null,\n  \"alpha_pattern\": {},\n";
    assert_memory_equal(text.data, begin, sizeof begin - 1);
    assert_non_null(strstr(text.data, "\"inference_mode\": true"));
    assert_non_null(strstr(text.data, "\"trainable_token_indices\": null"));
    buf_release(&text);
    assert_int_equal(adapter_config_read(&r, fixture_path(""), &err), ST_OK);
    assert_true(r.modules_to_save_embed && r.modules_to_save_head && r.use_rslora && r.alpha == 0.5);
    assert_true(r.dropout == 0.25 && r.n_embed_rows == 0 && !r.embed_rows);
    adapter_config_release(&r);
    c.r = 0;
    expect_error(adapter_config_write(&c, fixture_path(""), &err), ST_DEFECT, &err, "rank 0");
}

static void adapter_config_variants(void **state)
{
#define BASE "\"peft_type\":\"LORA\",\"r\":4,"
    static const struct {
        const char *text;
        const char *message; /* NULL: good */
        int n_targets, n_embed, n_head;
    } cases[] = {
        {BASE "\"target_modules\":\"all-linear\"", NULL, 7, 0, 0},
        {BASE "\"target_modules\":[\"q_proj\",\"q_proj\",\"self_attn.k_proj\",\"mlp.up_proj\"]", NULL, 3, 0,
         0},
        {BASE "\"target_modules\":\".*\\\\.(q_proj|v_proj)$\"", NULL, 2, 0, 0},
        {BASE "\"target_modules\":\"^.*(?:q_proj|v_proj|o_proj)\"", NULL, 3, 0, 0},
        {BASE "\"target_modules\":\".*q_proj\"", NULL, 1, 0, 0},
        {BASE "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":[5,4]", NULL, 1, 2, 0},
        {BASE "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":{\"model.embed_tokens\":[5],\"lm_"
              "head\":[5,"
              "6]}",
         NULL, 1, 1, 2},
        {BASE
         "\"target_modules\":[\"q_proj\"],\"modules_to_save\":[\"model.embed_tokens\"],\"init_lora_weights\":"
         "\"gaussian\",\"loftq_config\":{},\"eva_config\":null,\"new_switch\":true",
         NULL, 1, 0, 0},
        {BASE "\"target_modules\":[\"q_proj\"],\"init_lora_weights\":false,\"rank_pattern\":null,\"bias\":"
              "\"none\"",
         NULL, 1, 0, 0},
        {"\"r\":4", "target_modules is empty", 0, 0, 0},
        {BASE "\"target_modules\":[]", "target_modules is empty", 0, 0, 0},
        {BASE "\"target_modules\":7", "target_modules must be", 0, 0, 0},
        {BASE "\"target_modules\":[7]", "item 0 of target_modules", 0, 0, 0},
        {BASE "\"target_modules\":[\"embed_tokens\"]", "target_modules \"embed_tokens\" is not supported", 0,
         0, 0},
        {BASE "\"target_modules\":[\"model.layers.0.self_attn.q_proj\"]", "is not supported", 0, 0, 0},
        {BASE "\"target_modules\":[\"mlp.q_proj\"]", "target_modules \"mlp.q_proj\" is not supported", 0, 0,
         0},
        {BASE "\"target_modules\":\"q_proj\"", "is not understood", 0, 0, 0},
        {BASE "\"target_modules\":\".*\"", "is not understood", 0, 0, 0},
        {BASE "\"target_modules\":\".*layers\\\\.[0-3]\\\\..*q_proj\"", "is not understood", 0, 0, 0},
        {BASE "\"target_modules\":\".*(q_proj|)\"", "target_modules", 0, 0, 0},
        {BASE "\"target_modules\":\"\"", "is not understood", 0, 0, 0},
        {"\"peft_type\":\"LOHA\",\"r\":4", "peft_type \"LOHA\" is not supported", 0, 0, 0},
        {BASE "\"task_type\":\"SEQ_CLS\"", "task_type \"SEQ_CLS\"", 0, 0, 0},
        {BASE "\"bias\":\"all\"", "bias \"all\"", 0, 0, 0},
        {BASE "\"use_dora\":true", "use_dora", 0, 0, 0},
        {BASE "\"lora_bias\":true", "lora_bias", 0, 0, 0},
        {BASE "\"rank_pattern\":{\"q_proj\":2}", "rank_pattern", 0, 0, 0},
        {BASE "\"alpha_pattern\":{\"q_proj\":2}", "alpha_pattern", 0, 0, 0},
        {BASE "\"layers_to_transform\":[0]", "layers_to_transform", 0, 0, 0},
        {BASE "\"layers_to_transform\":0", "layers_to_transform", 0, 0, 0},
        {BASE "\"layer_replication\":[[0,1]]", "layer_replication", 0, 0, 0},
        {BASE "\"fan_in_fan_out\":true", "fan_in_fan_out", 0, 0, 0},
        {BASE "\"megatron_config\":{\"a\":1}", "megatron_config", 0, 0, 0},
        {BASE "\"exclude_modules\":[\"x\"]", "exclude_modules", 0, 0, 0},
        {BASE "\"target_parameters\":[\"x\"]", "target_parameters", 0, 0, 0},
        {BASE "\"init_lora_weights\":\"pissa\"", "init_lora_weights \"pissa\"", 0, 0, 0},
        {BASE "\"init_lora_weights\":3", "init_lora_weights", 0, 0, 0},
        {BASE "\"modules_to_save\":[\"classifier\"]", "modules_to_save \"classifier\"", 0, 0, 0},
        {BASE "\"modules_to_save\":\"lm_head\"", "modules_to_save must be a list", 0, 0, 0},
        {"\"r\":0", "\"r\" is 0", 0, 0, 0},
        {"\"r\":\"8\"", "\"r\" must be", 0, 0, 0},
        {"\"lora_alpha\":8", "\"r\" is missing", 0, 0, 0},
        {BASE "\"lora_alpha\":1e300", "lora_alpha is", 0, 0, 0},
        {BASE "\"lora_dropout\":1.0", "lora_dropout is 1", 0, 0, 0},
        {BASE "\"use_rslora\":1", "use_rslora", 0, 0, 0},
        {BASE "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":[5,5]", "has 5 twice", 0, 0, 0},
        {BASE "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":[-1]", "is no row number", 0, 0,
         0},
        {BASE "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":[1.5]", "is no row number", 0, 0,
         0},
        {BASE "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":{\"mlp\":[1]}", "of \"mlp\"", 0, 0,
         0},
        {BASE "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":{\"lm_head\":1}", "must be a list",
         0, 0, 0},
        {BASE
         "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":{\"lm_head\":[1],\"x.lm_head\":[1]}",
         "must be a list", 0, 0, 0},
        {BASE
         "\"target_modules\":[\"q_proj\"],\"trainable_token_indices\":{\"lm_head\":[1]},\"modules_to_save\":["
         "\"lm_head\"]",
         "both modules_to_save and trainable_token_indices", 0, 0, 0},
        {"\"r\":4,\"r\":5", "duplicate", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct adapter_config c;
        struct err err = ERR_INIT;
        char text[1024];
        snprintf(text, sizeof text, "{%s}", cases[i].text);
        put_text("adapter_config.json", text);
        enum status status = adapter_config_read(&c, fixture_path(""), &err);
        if (cases[i].message) {
            if (status != ST_INPUT || !strstr(err.what, cases[i].message))
                fail_msg("case %zu: status %d, \"%s\" lacks \"%s\"", i, (int)status, err.what,
                         cases[i].message);
            assert_null(c.embed_rows);
            continue;
        }
        if (status != ST_OK)
            fail_msg("case %zu: %s", i, err.what);
        assert_int_equal(c.n_targets, cases[i].n_targets);
        assert_int_equal(c.n_embed_rows, cases[i].n_embed);
        assert_int_equal(c.n_head_rows, cases[i].n_head);
        adapter_config_release(&c);
    }
    struct adapter_config c;
    struct err err = ERR_INIT;
    put_text("adapter_config.json", "[]");
    expect_error(adapter_config_read(&c, fixture_path(""), &err), ST_INPUT, &err, "is no JSON object");
}

static json_t *load(const char *path)
{
    json_error_t at;
    json_t *o = json_load_file(path, 0, &at);
    assert_non_null(o);
    return o;
}

/* The reference's files: values that are known, and ours have the same keys. */
static void golden_checkpoint(void **state)
{
    if (!shared_dir()) {
        print_message("skipped: no ../shared\n");
        skip();
    }
    char dir[PATH_BYTES - 64], path[PATH_BYTES];
    struct err err = ERR_INIT;
    snprintf(dir, sizeof dir, "%.3000s/golden/llama_rope3_untied/train/checkpoint-15", shared_dir());
    struct trainer_state t;
    snprintf(path, sizeof path, "%s/trainer_state.json", dir);
    assert_int_equal(trainer_state_read(path, &t, &err), ST_OK);
    assert_true(t.global_step == 15 && t.max_steps == 30 && t.train_batch_size == 4);
    assert_int_equal(json_array_size(t.log_history), 15);
    assert_int_equal(trainer_state_write(fixture_path("trainer_state.json"), &t, &err), ST_OK);
    json_t *theirs = load(path), *ours = load(fixture_path("trainer_state.json"));
    json_object_set_new(theirs, "total_flos", json_real(0.0)); /* not counted here */
    assert_true(json_equal(theirs, ours));
    json_decref(theirs);
    json_decref(ours);
    trainer_state_release(&t);

    struct scheduler_state s;
    snprintf(path, sizeof path, "%s/scheduler.pt", dir);
    assert_int_equal(scheduler_read(path, &s, &err), ST_OK);
    assert_true(s.last_epoch == 15 && s.base_lr == 1e-3 && s.last_lr > 0 && s.last_lr < 1e-3);

    struct adapter_config c;
    assert_int_equal(adapter_config_read(&c, dir, &err), ST_OK);
    assert_true(c.r == 4 && c.alpha == 4 && c.n_targets == 7 && c.n_embed_rows == 12 && c.n_head_rows == 12);
    assert_true(c.embed_rows[0] == 350 && c.head_rows[11] == 361);
    assert_int_equal(adapter_config_write(&c, fixture_path(""), &err), ST_OK);
    adapter_config_release(&c);
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    theirs = load(path);
    ours = load(fixture_path("adapter_config.json"));
    static const char *const newer[] = {"kasa_config", "lora_ga_config", "monteclora_config", "use_bdlora",
                                        "velora_config"};
    for (int i = 0; i < 5; i++)
        assert_int_equal(json_object_del(theirs, newer[i]), 0);
    json_object_set(ours, "peft_version", json_object_get(theirs, "peft_version"));
    assert_true(json_equal(theirs, ours));
    json_decref(theirs);
    json_decref(ours);
}

static void damaged_optimizers(void **state)
{
    struct tensor_list params;
    make_params(&params);
    fill(moments, squares);
    put_changed(fixture_path("good.pt"), GOOD);
    struct buf good = BUF_INIT, b = BUF_INIT;
    fixture_read(fixture_path("good.pt"), &good);
    int n_refused = 0;
    for (unsigned round = 0; round < 4000; round++) {
        float m[N_VALUES], v[N_VALUES];
        struct err err = ERR_INIT;
        struct optimizer_state s = {.params = &params};
        damage_pickle(&b, &good, 200000 + round);
        fixture_write("damaged.pt", b.data, b.n_bytes);
        if (optimizer_read(fixture_path("damaged.pt"), &s, m, v, &err) == ST_OK) {
            assert_true(s.lr >= 0 && s.beta1 < 1 && s.beta2 < 1 && s.step >= 0);
            continue;
        }
        assert_int_equal(err.status, ST_INPUT);
        n_refused++;
    }
    assert_true(n_refused > 2000);
    buf_release(&good);
    buf_release(&b);
    tensor_list_release(&params);
}

static void damaged_json(void **state)
{
    static const char *const texts[] = {
        "{\"global_step\": 15, \"epoch\": NaN, \"stateful_callbacks\": {\"TrainerControl\": {\"args\": {}}}, "
        "\"log_history\": [{\"loss\": 1.5, \"step\": 1}, {\"loss\": -Infinity}], \"max_steps\": 30}",
        "{\"peft_type\": \"LORA\", \"r\": 8, \"target_modules\": [\"q_proj\", \"up_proj\"], \"lora_alpha\": "
        "16, "
        "\"trainable_token_indices\": {\"embed_tokens\": [1, 2, 3], \"lm_head\": [4]}, \"bias\": \"none\"}",
        "{\"format\": 1, \"stage\": 2, \"step\": 3, \"cpu_path\": \"avx512\", \"options\": {\"lr\": 0.5}}",
    };
    int n_refused = 0;
    for (unsigned round = 0; round < 6000; round++) {
        struct err err = ERR_INIT;
        struct buf good = BUF_INIT, b = BUF_INIT;
        struct trainer_state t;
        struct adapter_config c;
        struct run_state r;
        bool present = false;
        buf_puts(&good, texts[round % 3], &err);
        damage(&b, &good, 300000 + round);
        fixture_write("adapter_config.json", b.data, b.n_bytes);
        const char *path = fixture_path("adapter_config.json");
        if (round % 3 == 0) {
            trainer_state_read(path, &t, &err);
            trainer_state_release(&t);
        } else if (round % 3 == 1) {
            adapter_config_read(&c, fixture_path(""), &err);
            adapter_config_release(&c);
        } else {
            run_state_read(path, &r, &present, &err);
            run_state_release(&r);
        }
        assert_true(err.status == ST_OK || err.status == ST_INPUT);
        n_refused += err.status == ST_INPUT;
        buf_release(&good);
        buf_release(&b);
    }
    assert_true(n_refused > 1000 && n_refused < 6000);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(optimizer_round_trip), CASE(optimizer_variants),        CASE(optimizer_refusals),
        CASE(scheduler_files),      CASE(trainer_state_files),       CASE(trainer_state_tolerance),
        CASE(run_state_files),      CASE(adapter_config_round_trip), CASE(adapter_config_variants),
        CASE(golden_checkpoint),    CASE(damaged_optimizers),        CASE(damaged_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
