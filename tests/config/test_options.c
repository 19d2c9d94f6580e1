/* The options: sources and their order, types, ranges, what is refused and with which words. */
#include "config/nearest.h"
#include "config/options.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static enum status read_config(struct options *o, const char *text, struct err *err)
{
    char path[] = "/tmp/smgpt_options_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_text(path, text);
    enum status st = options_read_file(o, path, err);
    unlink(path);
    return st;
}

static void assert_says(const struct err *err, const char *part)
{
    if (!strstr(err->what, part) && !strstr(err->hint, part))
        fail_msg("'%s' (hint '%s') does not say '%s'", err->what, err->hint, part);
}

static void test_defaults(void **state)
{
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    assert_int_equal(options_finish(&o, &err), ST_OK);
    assert_string_equal(o.work_dir, ".");
    assert_string_equal(o.data_json, "./data/motion_llm_dataset.json");
    assert_string_equal(o.model, "unsloth/Qwen3-1.7B");
    assert_string_equal(o.out_s1, "./stage1_mlm");
    assert_string_equal(o.out_s2, "./stage2_multitask");
    assert_string_equal(o.out_s3, "./stage3_t2m_sft");
    assert_int_equal(o.max_seq_len, 512);
    assert_int_equal(o.seed, 42);
    assert_int_equal(o.split_seed, 42);
    assert_true(o.epochs_s1 == 3 && o.epochs_s2 == 2 && o.epochs_s3 == 3);
    assert_true(o.batch_train == 8 && o.grad_accum == 8 && o.max_steps == 0);
    assert_true(o.lr == 1e-5 && o.warmup_ratio == 0.1 && o.weight_decay == 0 && o.max_grad_norm == 1);
    assert_true(o.adam_beta1 == 0.9 && o.adam_beta2 == 0.999 && o.adam_epsilon == 1e-8);
    assert_string_equal(o.schedule, "cosine");
    assert_true(o.lora_r == 16 && o.lora_alpha == 16 && o.lora_dropout == 0);
    assert_true(o.split_test_size == 0.01 && o.denoise_prob == 0.15);
    assert_true(o.shuffle && o.share_prefix && !o.space_tokens && !o.load_in_4bit);
    assert_true(o.virtual_shards == 8 && o.logging_steps == 1 && o.eval_steps == 100 && o.save_steps == 0);
    assert_true(o.keep_checkpoints == 2 && o.threads == 0);
    assert_true(o.gen_temperature == 0.7 && o.gen_top_p == 0.9 && o.gen_repetition_penalty == 1.2);
    assert_true(o.gen_no_repeat_ngram == 6 && o.gen_end_logit_slope == 0.25 && o.gen_max_new_tokens == 256);
    assert_string_equal(o.comm_timeout, "60s");
    assert_string_equal(o.deadline, "");
    assert_string_equal(o.memory_limit, "");
}

static void test_order_of_sources(void **state)
{
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    assert_int_equal(read_config(&o, "{\"lr\": 1, \"seed\": 1, \"batch_train\": 1, \"epochs_s1\": 2}", &err),
                     ST_OK);
    setenv("LR", "2", 1);
    setenv("SEED", "2", 1);
    setenv("EPOCHS_S2", "", 1); /* empty counts as not set */
    assert_int_equal(options_read_environment(&o, &err), ST_OK);
    unsetenv("LR");
    unsetenv("SEED");
    unsetenv("EPOCHS_S2");
    assert_int_equal(options_set(&o, "lr=3e-4", &err), ST_OK);
    assert_int_equal(options_set(&o, "lr=4e-4", &err), ST_OK); /* the later one wins */
    assert_true(o.lr == 4e-4);
    assert_int_equal(o.seed, 2);
    assert_int_equal(o.batch_train, 1);
    assert_true(o.epochs_s1 == 2 && o.epochs_s2 == 2);
}

static void test_environment_names(void **state)
{
    static const char *const pairs[][2] = {
        {"WORK_DIR", "w"},         {"DATA_DIR", "d"},       {"DATA_JSON_PATH", "j"},
        {"MODEL_NAME", "m"},       {"OUT_S1", "1"},         {"OUT_S2", "2"},
        {"OUT_S3", "3"},           {"MAX_SEQ_LEN", "9"},    {"GRAD_ACCUM", "3"},
        {"SCHEDULE", "linear"},    {"ADAM_BETA1", "0.5"},   {"LORA_TARGETS", "q_proj"},
        {"LORA_R", "4"},           {"LORA_ALPHA", "8"},     {"SMGPT_DEADLINE", "1h"},
        {"GEN_TOP_P", "0.5"},      {"WARMUP_RATIO", "0.2"}, {"GEN_MAX_NEW_TOKENS", "7"},
        {"OMP_NUM_THREADS", "3,2"}};
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        setenv(pairs[i][0], pairs[i][1], 1);
    assert_int_equal(options_read_environment(&o, &err), ST_OK);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        unsetenv(pairs[i][0]);
    assert_string_equal(o.work_dir, "w");
    assert_string_equal(o.data_dir, "d");
    assert_string_equal(o.data_json, "j");
    assert_string_equal(o.model, "m");
    assert_string_equal(o.out_s1, "1");
    assert_string_equal(o.out_s3, "3");
    assert_true(o.max_seq_len == 9 && o.grad_accum == 3 && o.adam_beta1 == 0.5 && o.lora_r == 4);
    assert_true(o.lora_alpha == 8 && o.gen_top_p == 0.5 && o.warmup_ratio == 0.2 &&
                o.gen_max_new_tokens == 7);
    assert_string_equal(o.schedule, "linear");
    assert_string_equal(o.lora_targets, "q_proj");
    assert_string_equal(o.deadline, "1h");
    assert_int_equal(o.threads, 3);
}

static void test_bad_environment(void **state)
{
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    setenv("MAX_SEQ_LEN", "12x", 1);
    assert_int_equal(options_read_environment(&o, &err), ST_USAGE);
    unsetenv("MAX_SEQ_LEN");
    assert_says(&err, "environment variable MAX_SEQ_LEN");
    assert_says(&err, "'12x' is not a whole number");
}

static void test_bad_assignments(void **state)
{
    static const struct {
        const char *assignment, *says;
    } cases[] = {
        {"lr", "key=value"},
        {"", "key=value"},
        {"=3", "unknown option"},
        {"lrr=1", "the nearest is 'lr'"},
        {"batchtrain=1", "the nearest is 'batch_train'"},
        {"BATCH-TRAIN=1", "the nearest is 'batch_train'"},
        {"gradaccum=1", "the nearest is 'grad_accum'"},
        {"space_token=true", "the nearest is 'space_tokens'"},
        {"seed=1.5", "not a whole number"},
        {"seed=", "not a whole number"},
        {"seed= 1", "not a whole number"},
        {"seed=0x10", "not a whole number"},
        {"seed=99999999999999999999", "not a whole number"},
        {"seed=-1", "seed -1 is out of range"},
        {"seed=4294967296", "out of range"},
        {"batch_train=0", "must be 1 to"},
        {"lr=nan", "not a finite number"},
        {"lr=inf", "not a finite number"},
        {"lr=1e999", "not a finite number"},
        {"lr=0x1p3", "not a finite number"},
        {"lr= 1", "not a finite number"},
        {"lr=1,5", "not a finite number"},
        {"lr=-1e-5", "out of range"},
        {"warmup_ratio=1.5", "it must be 0 to 1"},
        {"adam_beta1=1", "out of range"},
        {"shuffle=maybe", "neither true nor false"},
        {"schedule=cosin", "is not one of: cosine, linear, constant"},
        {"schedule=", "is not one of"},
        {"compute=float16", "compute float16 is not built yet"},
        {"compute=float", "is not one of: auto, float32"},
        {"optim=adamw_8bit", "optim adamw_8bit is not built yet"},
        {"optim=sgd", "is not one of: adamw"},
        {"load_in_4bit=true", "load_in_4bit is not built yet"},
        {"lora_dropout=0.1", "lora_dropout 0.1 is not built yet"},
        {"save_dtype=float16", "save_dtype"},

        {"memory_limit=much", "not a number of bytes"},
        {"memory_limit=0", "more than 0"},
        {"deadline=soon", "not a length of time"},
        {"comm_timeout=0", "longer than 0"},
        {"comm_timeout=10x", "not a length of time"},
        {"work_dir=", "work_dir is empty"},
        {"work_dir=\xff\xfe", "not valid UTF-8"},
        {"token=x", "access token is never an option"},
        {"hf_token=x", "access token is never an option"},
        {"HF_TOKEN=x", "access token is never an option"},
        {"HUGGINGFACE_HUB_TOKEN=x", "access token is never an option"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct options o, untouched;
        struct err err = ERR_INIT;
        options_default(&o);
        untouched = o;
        assert_int_equal(options_set(&o, cases[i].assignment, &err), ST_USAGE);
        assert_says(&err, cases[i].says);
        assert_says(&err, "--set");
        if (!strstr(cases[i].assignment, "lora_dropout") && !strstr(cases[i].assignment, "4bit"))
            assert_memory_equal(&o, &untouched, sizeof o);
    }
}

static void test_tokens_are_never_repeated(void **state)
{
    static const char secret[] = "hf_AbCdEfGhIjKlMnOpQrStUvWx";
    static const char *const forms[] = {"work_dir=%s", "%s",    "%s=1", "model=https://me:%s@host/x",
                                        "hf_user=%s",  "lr=%s", "x%s",  "toke=%s"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct options o;
        struct err err = ERR_INIT;
        char text[128];
        snprintf(text, sizeof text, forms[i], secret);
        options_default(&o);
        assert_int_equal(options_set(&o, text, &err), ST_USAGE);
        if (i != 6) {
            assert_null(strstr(err.what, "AbCdEf"));
            assert_says(&err, "looks like an access token");
        }
    }
    struct options o;
    struct err err = ERR_INIT, err2 = ERR_INIT, err3 = ERR_INIT;
    char text[128];
    options_default(&o);
    snprintf(text, sizeof text, "{\"model\": \"%s\"}", secret);
    assert_int_equal(read_config(&o, text, &err), ST_USAGE);
    assert_null(strstr(err.what, "AbCdEf"));
    snprintf(text, sizeof text, "{\"%s\": 1}", secret);
    assert_int_equal(read_config(&o, text, &err2), ST_USAGE);
    assert_null(strstr(err2.what, "AbCdEf"));
    setenv("MODEL_NAME", secret, 1);
    assert_int_equal(options_read_environment(&o, &err3), ST_USAGE);
    unsetenv("MODEL_NAME");
    assert_null(strstr(err3.what, "AbCdEf"));
    assert_says(&err3, "MODEL_NAME");
    /* An owner's name may begin like a token. */
    assert_int_equal(options_set(&o, "model=hf_internal/tiny-model", &(struct err)ERR_INIT), ST_OK);
}

static void test_bad_files(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[1]", "not a JSON object"},
        {"{\"lr\": 1", "smgpt_options_"},
        {"{\"lr\": 1, \"lr\": 2}", "smgpt_options_"},
        {"{\"learning_rat\": 1}", "unknown option 'learning_rat'"},
        {"{\"lr\": \"1e-4\"}", "lr must be a number, not a text"},
        {"{\"lr\": \"1e-4\"}", "take the quotation marks away"},
        {"{\"seed\": \"7\"}", "seed must be a whole number, not a text"},
        {"{\"seed\": 7.0}", "seed must be a whole number, not a number with a fraction"},
        {"{\"seed\": null}", "not null"},
        {"{\"shuffle\": 1}", "shuffle must be true or false"},
        {"{\"shuffle\": \"true\"}", "shuffle must be true or false"},
        {"{\"model\": 3}", "model must be a text"},
        {"{\"schedule\": true}", "schedule must be a text"},
        {"{\"batch_train\": 0}", "out of range"},
        {"{\"lora_dropout\": 0.5}", "not built yet"},
        {"{\"load_in_4bit\": true}", "not built yet"},
        {"{\"memory_limit\": \"10m\"}", "memory_limit '10m' is not a number of bytes"},
        {"{\"memory_limit\": -1}", "not a number of bytes"},
        {"{\"memory_limit\": 0.5}", "must be a text"},
        {"{\"hf_token\": \"x\"}", "never an option"},
        {"{\"comm_timeout\": -4}", "not a length of time"},
        {"{\"comm_timeout\": 4.5}", "must be a text"},
        {"{\"lora_targets\": [\"q_proj\", null]}", "item 1"},
        {"{\"lora_targets\": [\"q_proj,k_proj\"]}", "item 0"},
        {"{\"lora_targets\": []}", "lora_targets is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct options o;
        struct err err = ERR_INIT;
        options_default(&o);
        assert_int_equal(read_config(&o, cases[i].text, &err), ST_USAGE);
        assert_says(&err, cases[i].says);
        assert_says(&err, "smgpt_options_"); /* the file is named */
    }
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    assert_int_equal(options_read_file(&o, "/nonexistent/smgpt.json", &err), ST_USAGE);
    assert_says(&err, "/nonexistent/smgpt.json");
}

static void test_long_values(void **state)
{
    struct options o;
    struct err err = ERR_INIT, err2 = ERR_INIT;
    char text[1200] = "work_dir=";
    options_default(&o);
    memset(text + 9, 'a', OPTION_TEXT_BYTES - 1);
    text[9 + OPTION_TEXT_BYTES - 1] = '\0';
    assert_int_equal(options_set(&o, text, &err), ST_OK);
    assert_int_equal(options_finish(&o, &err), ST_USAGE); /* {work_dir}/data is too long now */
    assert_says(&err, "data_dir has more than 1023 bytes");
    strcat(text, "a");
    assert_int_equal(options_set(&o, text, &err2), ST_USAGE);
    assert_says(&err2, "at most 1023 fit");
}

static void test_places(void **state)
{
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    assert_int_equal(options_set(&o, "work_dir=/w", &err), ST_OK);
    assert_int_equal(options_set(&o, "init_adapter={work_dir}/{data_dir}/a{b}{", &err), ST_OK);
    assert_int_equal(options_finish(&o, &err), ST_USAGE);
    assert_says(&err, "init_adapter: {b} cannot stand here");
    err = (struct err)ERR_INIT;
    options_default(&o);
    assert_int_equal(options_set(&o, "work_dir=/w", &err), ST_OK);
    assert_int_equal(options_set(&o, "data_dir={work_dir}/d{1}", &err), ST_OK);
    assert_int_equal(options_set(&o, "model={data_dir}/m/{data_dir}", &err), ST_OK);
    assert_int_equal(options_set(&o, "system_prompt=say {work_dir}", &err), ST_OK);
    assert_int_equal(options_finish(&o, &err), ST_OK);
    assert_string_equal(o.data_json, "/w/d{1}/motion_llm_dataset.json");
    assert_string_equal(o.model, "/w/d{1}/m//w/d{1}");
    assert_string_equal(o.out_s2, "/w/stage2_multitask");
    assert_string_equal(o.system_prompt, "say {work_dir}");
    static const char *const bad[] = {"work_dir={work_dir}", "work_dir={data_dir}", "data_dir={data_dir}/x",
                                      "model={hf_user}/m"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (struct err)ERR_INIT;
        options_default(&o);
        assert_int_equal(options_set(&o, bad[i], &err), ST_OK);
        assert_int_equal(options_finish(&o, &err), ST_USAGE);
        assert_says(&err, "cannot stand here");
    }
}

static void test_lists(void **state)
{
    struct options o;
    struct err err = ERR_INIT;
    bool on[OPTION_N_TARGETS];
    double w[3];
    options_default(&o);
    assert_int_equal(options_lora_targets(&o, on, &err), ST_OK);
    for (int i = 0; i < OPTION_N_TARGETS; i++)
        assert_true(on[i]);
    assert_int_equal(
        read_config(&o, "{\"lora_targets\": [\"down_proj\", \"q_proj\"], \"stage2_weights\": [1, 0, 0.25]}",
                    &err),
        ST_OK);
    assert_int_equal(options_finish(&o, &err), ST_OK);
    assert_int_equal(options_lora_targets(&o, on, &err), ST_OK);
    assert_true(on[0] && !on[1] && !on[2] && !on[3] && !on[4] && !on[5] && on[6]);
    assert_int_equal(options_stage2_weights(&o, w, &err), ST_OK);
    assert_true(w[0] == 1 && w[1] == 0 && w[2] == 0.25);
    assert_int_equal(options_set(&o, "lora_targets=v_proj, up_proj", &err), ST_OK);
    assert_int_equal(options_set(&o, "stage2_weights=0, 0.5, 1", &err), ST_OK);
    assert_int_equal(options_finish(&o, &err), ST_OK);
    assert_int_equal(options_lora_targets(&o, on, &err), ST_OK);
    assert_true(!on[0] && on[2] && on[5]);
    assert_int_equal(options_stage2_weights(&o, w, &err), ST_OK);
    assert_true(w[0] == 0 && w[1] == 0.5 && w[2] == 1);
    static const char *const bad[] = {"lora_targets=q",
                                      "lora_targets=q_proj,",
                                      "lora_targets=q_proj,,k_proj",
                                      "lora_targets=q_proj,q_proj",
                                      "lora_targets=q_proj k_proj",
                                      "stage2_weights=1,2",
                                      "stage2_weights=1,2,3,4",
                                      "stage2_weights=1,2,",
                                      "stage2_weights=,1,2",
                                      "stage2_weights=0,0,0",
                                      "stage2_weights=1,-1,1",
                                      "stage2_weights=1,nan,1",
                                      "stage2_weights=1,1e999,1",
                                      "stage2_weights=1 ,2,3",
                                      "stage2_weights=a,b,c",
                                      "stage2_weights=0x1,1,1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (struct err)ERR_INIT;
        options_default(&o);
        assert_int_equal(options_set(&o, bad[i], &err), ST_OK);
        if (options_finish(&o, &err) != ST_USAGE)
            fail_msg("%s was accepted", bad[i]);
    }
}

static void test_seconds(void **state)
{
    static const struct {
        const char *text;
        double s;
    } good[] = {{"", 0},          {"90", 90},     {"90s", 90}, {"10m", 600},      {"11h40m", 42000},
                {"1h1m1s", 3661}, {"2h5s", 7205}, {"0", 0},    {"100000h", 3.6e8}};
    static const char *const bad[] = {"h",
                                      "10x",
                                      "-5",
                                      "1.5h",
                                      " 5",
                                      "5 ",
                                      "10m5",
                                      "40m11h",
                                      "5s5s",
                                      "1h2h",
                                      "99999999999999999999999",
                                      "9999999h",
                                      "1d"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        double s = -1;
        assert_int_equal(options_seconds(good[i].text, "k", &s, &(struct err)ERR_INIT), ST_OK);
        assert_true(s == good[i].s);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        double s = -1;
        if (options_seconds(bad[i], "deadline", &s, &err) != ST_USAGE)
            fail_msg("'%s' was read as %g", bad[i], s);
        assert_says(&err, "deadline");
        assert_true(s == -1);
    }
}

static void test_bytes(void **state)
{
    static const struct {
        const char *text;
        int64_t n_bytes;
    } good[] = {{"", 0},
                {"0", 0},
                {"4096", 4096},
                {"1K", 1024},
                {"900M", (int64_t)900 << 20},
                {"24G", (int64_t)24 << 30},
                {"24GiB", (int64_t)24 << 30},
                {"2T", (int64_t)2 << 40}};
    static const char *const bad[] = {
        "G",   "1.5G", "-1G",  " 1G",      "1G ", "1g",  "1GB",   "1G512",
        "1iB", "5 M",  "0x10", "9000000T", "1KM", "1Gi", "1GiBx", "99999999999999999999"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t n = -1;
        assert_int_equal(options_bytes(good[i].text, "k", &n, &(struct err)ERR_INIT), ST_OK);
        assert_int_equal(n, good[i].n_bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        int64_t n = -1;
        if (options_bytes(bad[i], "memory_limit", &n, &err) != ST_USAGE)
            fail_msg("'%s' was read as %lld", bad[i], (long long)n);
        assert_says(&err, "memory_limit");
        assert_int_equal(n, -1);
    }
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    assert_int_equal(read_config(&o, "{\"memory_limit\": 1073741824}", &err), ST_OK);
    assert_string_equal(o.memory_limit, "1073741824");
}

/* What is saved reads back to the same options, to the last bit. */
static void test_saved_file(void **state)
{
    static const char *const sets[] = {
        "lr=0.00012345678901234567", "work_dir=/w",   "lora_targets=q_proj,v_proj",     "deadline=11h40m",
        "system_prompt=a \"b\"\nc",  "shuffle=false", "split_seed=9223372036854775807", "max_steps=30",
        "schedule=constant"};
    struct options o, back;
    struct err err = ERR_INIT;
    options_default(&o);
    options_default(&back);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        assert_int_equal(options_set(&o, sets[i], &err), ST_OK);
    assert_int_equal(options_finish(&o, &err), ST_OK);
    json_t *saved = options_json(&o);
    char *text = json_dumps(saved, 0);
    assert_string_equal(json_object_iter_key(json_object_iter(saved)), "work_dir");
    assert_int_equal(read_config(&back, text, &err), ST_OK);
    assert_int_equal(options_finish(&back, &err), ST_OK);
    json_t *again = options_json(&back);
    assert_true(json_equal(saved, again));
    assert_true(back.lr == o.lr && back.split_seed == INT64_MAX);
    json_decref(saved);
    json_decref(again);
    free(text);
}

static void test_curve(void **state)
{
    static const char *const inside[] = {"lr=0.5",
                                         "seed=1",
                                         "batch_train=4",
                                         "grad_accum=2",
                                         "max_steps=9",
                                         "epochs_s2=7",
                                         "schedule=linear",
                                         "lora_r=8",
                                         "lora_alpha=3",
                                         "lora_targets=q_proj",
                                         "virtual_shards=4",
                                         "shuffle=false",
                                         "max_seq_len=99",
                                         "stage2_weights=1,1,1",
                                         "denoise_prob=0.5",
                                         "weight_decay=1",
                                         "adam_epsilon=1e-6",
                                         "new_rows=untied",
                                         "split_seed=3",
                                         "split_test_size=0.2",
                                         "space_tokens=true",
                                         "system_prompt=x",
                                         "warmup_ratio=0",
                                         "max_grad_norm=0"};
    static const char *const outside[] = {"work_dir=/elsewhere",
                                          "data_dir=d",
                                          "data_json=j",
                                          "model=m",
                                          "out_s1=o",
                                          "pack=p",
                                          "init_adapter=i",
                                          "threads=3",
                                          "cpu_path=reference",
                                          "comm_timeout=5s",
                                          "memory_limit=3G",
                                          "logging_steps=7",
                                          "eval_steps=7",
                                          "save_steps=7",
                                          "keep_checkpoints=5",
                                          "deadline=1h",
                                          "gen_top_p=0.5",
                                          "gen_max_new_tokens=3",
                                          "system_prompt_file=f"};
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    json_t *base = options_curve_json(&o);
    for (size_t i = 0; i < sizeof inside / sizeof *inside + sizeof outside / sizeof *outside; i++) {
        bool in = i < sizeof inside / sizeof *inside;
        const char *set = in ? inside[i] : outside[i - sizeof inside / sizeof *inside];
        options_default(&o);
        assert_int_equal(options_set(&o, set, &err), ST_OK);
        json_t *changed = options_curve_json(&o);
        if (json_equal(base, changed) == in)
            fail_msg("%s %s the curve's options", set, in ? "does not change" : "changes");
        json_decref(changed);
    }
    json_decref(base);
}

static void test_help(void **state)
{
    struct buf b = BUF_INIT;
    struct err err = ERR_INIT;
    struct options o;
    options_default(&o);
    assert_int_equal(options_help(&b, &err), ST_OK);
    json_t *all = options_json(&o);
    const char *key;
    json_t *value;
    json_object_foreach(all, key, value)
    {
        char line[80];
        snprintf(line, sizeof line, "  %s ", key);
        assert_non_null(strstr(b.data, line));
    }
    assert_non_null(strstr(b.data, "DATA_JSON_PATH"));
    assert_non_null(strstr(b.data, "auto, float32, bfloat16; not built yet: float16"));
    assert_non_null(strstr(b.data, "memory_limit = -"));
    json_decref(all);
    buf_release(&b);
}

static void test_both_prompts(void **state)
{
    struct options o;
    struct err err = ERR_INIT;
    options_default(&o);
    assert_int_equal(options_set(&o, "system_prompt=a", &err), ST_OK);
    assert_int_equal(options_set(&o, "system_prompt_file=b", &err), ST_OK);
    assert_int_equal(options_finish(&o, &err), ST_USAGE);
    assert_says(&err, "both set");
}

static void test_nearest(void **state)
{
    static const char *const words[] = {"train", "pack", "generate"};
    assert_int_equal(word_distance("", ""), 0);
    assert_int_equal(word_distance("abc", ""), 3);
    assert_int_equal(word_distance("kitten", "sitting"), 3);
    assert_int_equal(word_distance("Init-Model", "init_model"), 0);
    assert_int_equal(word_nearest("trian", words, 3), 0);
    assert_int_equal(word_nearest("generat", words, 3), 2);
    char longer[300];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(word_distance(longer, "x"), 62);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_order_of_sources),
        cmocka_unit_test(test_environment_names),
        cmocka_unit_test(test_bad_environment),
        cmocka_unit_test(test_bad_assignments),
        cmocka_unit_test(test_tokens_are_never_repeated),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_saved_file),
        cmocka_unit_test(test_curve),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_both_prompts),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
