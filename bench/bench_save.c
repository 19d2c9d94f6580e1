/* What a checkpoint costs at the Qwen3-1.7B shape, LoRA of rank 16, 518 new rows: bytes of each file, seconds
 * of a save beside seconds to write and sync the same bytes in as many files in the same run, and how long a
 * step waits when the save goes on in its thread. No base model is needed: the numbers are random. Usage:
 * bench_save DIR [TOKENIZER_DIR [untied|tied [ROUNDS [bfloat16]]]]; DIR says which disk; what is made there
 * is removed.
 */
#include "stage_files.h"
#include "train_internal.h"
#include "util/clock.h"
#include "util/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NEW_ROWS = 518, NEW_FIRST = 151669, STEPS = 2000, MAX_ROUNDS = 99, MAX_FILES = 64 };

struct bench {
    struct trainer trainer;
    struct train_context c;
    struct train_options o;
    struct train_log log;
    struct params params;
    struct options options;
    struct stage_data data;
    struct stage_files_user files_user;
    char dir[PATH_BYTES];
};

static void must(enum status st, const struct err *err)
{
    if (st == ST_OK)
        return;
    fprintf(stderr, "%s\n", err->what);
    exit((int)st);
}

/* Random, but with the exponents of real weights. */
static float *numbers(int64_t n, uint64_t seed, float scale)
{
    float *x = malloc((size_t)n * sizeof *x);
    if (x == NULL)
        exit(ST_ENV);
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = ((float)(int32_t)(seed >> 32)) * 0x1p-31f * scale;
    }
    return x;
}

static void open_params(struct bench *b, bool untied)
{
    struct err err = ERR_INIT;
    static struct arch a = {.family = FAMILY_QWEN3,
                            .hidden = 2048,
                            .n_layers = 28,
                            .n_q_heads = 16,
                            .n_kv_heads = 8,
                            .head_dim = 128,
                            .mlp = 6144,
                            .n_embed_rows = 151936,
                            .tied = true};
    struct lora_config lora = {.r = 16, .alpha = 16};
    for (int i = 0; i < N_PROJ; i++)
        lora.target[i] = true;
    must(params_init(&b->params, &a, &lora, NEW_FIRST, NEW_ROWS, untied, &err), &err);
}

/* The history of a run that logged each step. */
static json_t *history(void)
{
    json_t *all = json_array();
    for (int i = 1; i <= STEPS; i++)
        json_array_append_new(all, json_pack("{s:f, s:f, s:f, s:f, s:i}", "epoch", i * 1e-3, "grad_norm",
                                             1 / sqrt(i), "learning_rate", 1e-5 / i, "loss", 2 / sqrt(i),
                                             "step", i));
    return all;
}

static void open_bench(struct bench *b, const char *dir, const char *tokenizer, bool untied)
{
    struct err err = ERR_INIT;
    struct device_options device = {.n_threads = 1};
    open_params(b, untied);
    options_default(&b->options);
    must(options_finish(&b->options, &err), &err);
    if (tokenizer[0])
        must(tokenizer_open(&b->data.tokenizer, tokenizer, &err), &err);
    b->files_user = (struct stage_files_user){.data = &b->data, .options = &b->options, .params = &b->params};
    b->c = (struct train_context){.ops = ops_by_name("cpu"),
                                  .params = &b->params,
                                  .values = numbers(b->params.n_values, 1, 0.05f),
                                  .files = {.add_files = stage_add_files, .user = &b->files_user}};
    must(b->c.ops->open(&b->c.dev, &device, &err), &err);
    b->o = (struct train_options){.stage = 1,
                                  .batch_train = 8,
                                  .lr = 1e-5,
                                  .schedule = SCHEDULE_COSINE,
                                  .keep_checkpoints = 1,
                                  .logging_steps = 1};
    must(path_join(b->dir, dir, "bench_save.tmp", &err), &err);
    must(dir_make(b->dir, &err), &err);
    must(path_join(b->o.out_dir, b->dir, "out", &err), &err);
    b->trainer = (struct trainer){.c = &b->c, .o = &b->o, .step = STEPS};
    b->trainer.optimizer.m = numbers(b->params.n_values, 2, 1e-4f);
    b->trainer.optimizer.v = numbers(b->params.n_values, 3, 1e-6f);
    must(plan_init(&b->trainer.plan, 10000, 8, 8, 42, false, 1, 2 * STEPS, &err), &err);
    b->log.history = history();
}

static void close_bench(struct bench *b)
{
    struct err err = ERR_INIT;
    must(dir_remove(b->dir, &err), &err);
    json_decref(b->log.history);
    free(b->c.values);
    free(b->trainer.optimizer.m);
    free(b->trainer.optimizer.v);
    plan_release(&b->trainer.plan);
    b->c.ops->close(b->c.dev);
    params_release(&b->params);
    stage_data_close(&b->data);
}

/* What a checkpoint holds, in memory, to write it again plainly. */
struct contents {
    char *names[MAX_FILES];
    struct buf data[MAX_FILES];
    int n;
};

static void read_contents(struct contents *all, const char *dir)
{
    struct err err = ERR_INIT;
    char **names = NULL, path[PATH_BYTES];
    int n = 0;
    int64_t total = 0;
    must(dir_list(dir, &names, &n, &err), &err);
    for (int i = 0; i < n && i < MAX_FILES; i++) {
        must(path_join(path, dir, names[i], &err), &err);
        must(file_read(path, (size_t)1 << 30, &all->data[i], &err), &err);
        all->names[i] = strdup(names[i]);
        all->n++;
        total += (int64_t)all->data[i].n_bytes;
        printf("  %-28s %12zu bytes\n", names[i], all->data[i].n_bytes);
    }
    names_free(names, n);
    printf("  %-28s %12lld bytes\n", "all", (long long)total);
}

/* write and fsync of each file, nothing more: the floor. */
static double write_plainly(const struct bench *b, const struct contents *all)
{
    struct err err = ERR_INIT;
    char dir[PATH_BYTES], path[PATH_BYTES];
    must(path_join(dir, b->dir, "plain", &err), &err);
    must(dir_remove(dir, &err), &err);
    must(dir_make(dir, &err), &err);
    double start_s = clock_s();
    for (int i = 0; i < all->n; i++) {
        must(path_join(path, dir, all->names[i], &err), &err);
        FILE *f = fopen(path, "w");
        if (f == NULL || setvbuf(f, NULL, _IONBF, 0) != 0 ||
            fwrite(all->data[i].data, 1, all->data[i].n_bytes, f) != all->data[i].n_bytes ||
            fsync(fileno(f)) != 0 || fclose(f) != 0) {
            perror(path);
            exit(ST_ENV);
        }
    }
    double s = clock_s() - start_s;
    must(dir_remove(dir, &err), &err);
    return s;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

int main(int argc, char **argv)
{
    static struct bench b;
    static struct contents all;
    static struct saver saver;
    struct err err = ERR_INIT;
    double save_s[MAX_ROUNDS], plain_s[MAX_ROUNDS], wait_s[MAX_ROUNDS], beside_s[MAX_ROUNDS],
        ratio[MAX_ROUNDS];
    int n = argc > 4 ? atoi(argv[4]) : 7;
    const enum dtype dtype = argc > 5 && strcmp(argv[5], "bfloat16") == 0 ? DT_BF16 : DT_F32;
    char dir[PATH_BYTES];
    if (argc < 2 || n < 1 || n > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_save DIR [TOKENIZER_DIR [untied|tied [ROUNDS [bfloat16]]]]\n");
        return ST_USAGE;
    }
    open_bench(&b, argv[1], argc > 2 ? argv[2] : "", argc > 3 && strcmp(argv[3], "untied") == 0);
    log_set_level(LOG_WARN);
    printf("%lld values\n", (long long)b.params.n_values);
    for (int i = 0; i <= n; i++) { /* the first round warms up */
        const int k = i > 0 ? i - 1 : 0;
        double start_s = clock_s();
        b.o.save_beside = false;
        must(saver__save(&saver, &b.trainer, &b.log, dtype, &err), &err);
        save_s[k] = clock_s() - start_s;
        if (i == 0) {
            must(path_join(dir, b.o.out_dir, "checkpoint-2000", &err), &err);
            read_contents(&all, dir);
        }
        plain_s[k] = write_plainly(&b, &all);
        ratio[k] = save_s[k] / plain_s[k];
        b.o.save_beside = true;
        start_s = clock_s();
        must(saver__save(&saver, &b.trainer, &b.log, dtype, &err), &err);
        wait_s[k] = clock_s() - start_s;
        must(saver__wait(&saver, &err), &err);
        beside_s[k] = clock_s() - start_s;
    }
    printf(
        "medians of %d: save %.3f s, plain write and sync %.3f s, ratio %.2f; in the thread %.3f s, of which "
        "a step waits %.4f s\n",
        n, median(save_s, n), median(plain_s, n), median(ratio, n), median(beside_s, n), median(wait_s, n));
    close_bench(&b);
    return 0;
}
