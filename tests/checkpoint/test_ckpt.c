#include "checkpoint/ckpt.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"
#include "ckpt_internal.h"
#include "fixture.h"
#include "util/log.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* A complete, tiny checkpoint; `value` tells two of the same step apart. */
static enum status fill(const char *dir, int64_t step, float value, struct err *err)
{
    char path[PATH_BYTES];
    float data[4] = {value, 1, 2, 3};
    struct tensor_list list = TENSOR_LIST_INIT;
    TRY(tensor_list_add(&list, "a.lora_A.weight", DT_F32, 2, (int64_t[]){2, 2}, data, err));
    TRY(path_join(path, dir, "adapter_model.safetensors", err));
    TRY(safetensors_write(path, &list, err));
    struct adapter_config c = {.r = 2, .alpha = 2, .targets = {"q_proj"}, .n_targets = 1};
    TRY(adapter_config_write(&c, dir, err));
    struct optimizer_state o = {.lr = 1,
                                .beta1 = 0.9,
                                .beta2 = 0.9,
                                .step = step,
                                .params = &list,
                                .exp_avg = data,
                                .exp_avg_sq = data};
    TRY(path_join(path, dir, "optimizer.pt", err));
    TRY(optimizer_write(path, &o, err));
    struct scheduler_state s = {.last_epoch = step};
    TRY(path_join(path, dir, "scheduler.pt", err));
    TRY(scheduler_write(path, &s, err));
    struct trainer_state t = {.global_step = step, .train_batch_size = 1};
    TRY(path_join(path, dir, "trainer_state.json", err));
    TRY(trainer_state_write(path, &t, err));
    tensor_list_release(&list);
    return ST_OK;
}

static void save(int64_t step, float value)
{
    struct ckpt_writer w;
    struct err err = ERR_INIT;
    assert_int_equal(ckpt_begin(&w, fixture_path("out"), step, &err), ST_OK);
    assert_int_equal(fill(w.tmp_dir, step, value, &err), ST_OK);
    if (ckpt_commit(&w, &err) != ST_OK)
        fail_msg("%s", err.what);
}

static int64_t newest(char path[PATH_BYTES])
{
    struct err err = ERR_INIT;
    int64_t step = -2;
    assert_int_equal(ckpt_newest(fixture_path("out"), path, &step, &err), ST_OK);
    return step;
}

static float value_of(const char *dir)
{
    char path[PATH_BYTES];
    struct safetensors s;
    struct err err = ERR_INIT;
    assert_int_equal(path_join(path, dir, "adapter_model.safetensors", &err), ST_OK);
    assert_int_equal(safetensors_open(&s, path, &err), ST_OK);
    float value;
    memcpy(&value, s.tensors.items[0].data, sizeof value);
    safetensors_close(&s);
    return value;
}

static int n_names(void)
{
    char **names = NULL;
    int n = 0;
    struct err err = ERR_INIT;
    assert_int_equal(dir_list(fixture_path("out"), &names, &n, &err), ST_OK);
    names_free(names, n);
    return n;
}

static void step_names(void **state)
{
    static const struct {
        const char *name;
        int64_t step;
    } cases[] = {
        {"checkpoint-0", 0},
        {"checkpoint-15", 15},
        {"checkpoint-007", 7},
        {"checkpoint-", -1},
        {"checkpoint--1", -1},
        {"checkpoint-+1", -1},
        {"checkpoint-1 ", -1},
        {"checkpoint-1x", -1},
        {"xcheckpoint-1", -1},
        {".tmp-checkpoint-1", -1},
        {"checkpoint-999999999999999999", 999999999999999999},
        {"checkpoint-9999999999999999999", -1},
        {"", -1},
        {"checkpoint", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(ckpt_step_of(cases[i].name) == cases[i].step);
}

static void save_and_find(void **state)
{
    char path[PATH_BYTES];
    assert_int_equal(newest(path), -1); /* no directory yet */
    assert_string_equal(path, "");
    save(9, 1);
    save(10, 2);
    assert_int_equal(newest(path), 10);
    assert_string_equal(path, fixture_path("out/checkpoint-10"));
    save(10, 3); /* the same step again */
    assert_int_equal(newest(path), 10);
    assert_true(value_of(path) == 3);
    assert_int_equal(n_names(), 2);

    struct ckpt_writer w;
    struct err err = ERR_INIT;
    assert_int_equal(ckpt_begin(&w, fixture_path("out"), 11, &err), ST_OK);
    assert_int_equal(fill(w.tmp_dir, 11, 4, &err), ST_OK);
    assert_int_equal(newest(path), 10); /* not there before the commit */
    ckpt_abort(&w);
    ckpt_abort(&w);
    assert_int_equal(n_names(), 2);
    expect_error(ckpt_begin(&w, fixture_path("out"), -1, &err), ST_DEFECT, &err, "step -1");
}

static void commit_fails(void **state)
{
    struct ckpt_writer w;
    struct err err = ERR_INIT;
    char path[PATH_BYTES];
    save(1, 1);
    assert_int_equal(ckpt_begin(&w, fixture_path("out"), 2, &err), ST_OK);
    char link[PATH_BYTES];
    path_join(link, w.tmp_dir, "pipe", &err);
    assert_int_equal(mkfifo(link, 0600), 0);
    expect_error(ckpt_commit(&w, &err), ST_DEFECT, &err, "neither a file nor a directory");
    assert_int_equal(newest(path), 1);
    assert_int_equal(n_names(), 1);
    fixture_write("file", "x", 1);
    err = (struct err)ERR_INIT;
    assert_int_equal(ckpt_begin(&w, fixture_path("file"), 2, &err), ST_ENV);
}

/* Both ways to put a new directory in the place of an old one, and what a kill leaves of them. */
static void replace_by_steps(void **state)
{
    struct ckpt_writer w;
    struct err err = ERR_INIT;
    char path[PATH_BYTES];
    save(5, 1);
    assert_int_equal(ckpt_begin(&w, fixture_path("out"), 5, &err), ST_OK);
    assert_int_equal(fill(w.tmp_dir, 5, 2, &err), ST_OK);
    assert_int_equal(ckpt__replace(&w, false, &err), ST_OK);
    assert_int_equal(newest(path), 5);
    assert_true(value_of(path) == 2);
    assert_int_equal(n_names(), 1);

    /* killed between the two renames: the former one comes back */
    assert_int_equal(rename(fixture_path("out/checkpoint-5"), fixture_path("out/.old-checkpoint-5")), 0);
    assert_int_equal(newest(path), 5);
    assert_true(value_of(path) == 2);
    assert_int_equal(n_names(), 1);

    /* killed before the former one was removed */
    assert_int_equal(mkdir(fixture_path("out/.old-checkpoint-5"), 0777), 0);
    assert_int_equal(ckpt_begin(&w, fixture_path("out"), 6, &err), ST_OK);
    ckpt_abort(&w);
    assert_int_equal(n_names(), 1);
}

static void leftovers_go(void **state)
{
    struct ckpt_writer w;
    struct err err = ERR_INIT;
    char path[PATH_BYTES];
    save(3, 1);
    assert_int_equal(ckpt_begin(&w, fixture_path("out"), 4, &err), ST_OK);
    assert_int_equal(fill(w.tmp_dir, 4, 1, &err), ST_OK);
    /* as if killed here */
    assert_int_equal(newest(path), 3);
    assert_int_equal(ckpt_begin(&w, fixture_path("out"), 5, &err), ST_OK);
    assert_false(dir_exists(fixture_path("out/.tmp-checkpoint-4")));
    ckpt_abort(&w);
    assert_int_equal(n_names(), 1);
}

static void put(const char *name, const char *text)
{
    fixture_write(name, text, strlen(text));
}

static void cut(const char *name, off_t n_bytes)
{
    struct stat st;
    assert_int_equal(stat(fixture_path(name), &st), 0);
    assert_int_equal(truncate(fixture_path(name), n_bytes < 0 ? st.st_size + n_bytes : n_bytes), 0);
}

/* Each kind of damage makes the reader fall back to the one before, with a reason. */
static void damaged_are_skipped(void **state)
{
    static const struct {
        const char *file, *contents; /* NULL: removed */
        off_t cut;
        const char *reason;
    } cases[] = {
        {"adapter_model.safetensors", NULL, 0, "adapter_model.safetensors is missing"},
        {"adapter_model.safetensors", "", -1, "data ends at"},
        {"adapter_model.safetensors", "", 4, "too few"},
        {"adapter_config.json", NULL, 0, "adapter_config.json is missing"},
        {"adapter_config.json", "{", 0, "adapter_config.json"},
        {"trainer_state.json", NULL, 0, "trainer_state.json is missing"},
        {"trainer_state.json", "{\"global_step\":7}", 0, "trainer_state.json is of step 7, not 20"},
        {"trainer_state.json", "version https://git-lfs.github.com/spec/v1\n", 0, "trainer_state.json"},
        {"smgpt_state.json", "{\"stage\":", 0, "smgpt_state.json"},
        {"optimizer.pt", NULL, 0, "optimizer.pt is missing"},
        {"optimizer.pt", "", -1, "no end record"},
        {"optimizer.pt", "<html>", 0, "web page"},
        {"scheduler.pt", NULL, 0, "scheduler.pt is missing"},
        {"scheduler.pt", "", 1, "does not begin as a zip archive"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[PATH_BYTES], name[256];
        save(10, 1);
        save(20, 2);
        assert_int_equal(newest(path), 20);
        snprintf(name, sizeof name, "out/checkpoint-20/%s", cases[i].file);
        if (!cases[i].contents)
            assert_int_equal(remove(fixture_path(name)), 0);
        else if (*cases[i].contents)
            put(name, cases[i].contents);
        else
            cut(name, cases[i].cut);
        struct err reason = ERR_INIT;
        expect_error(ckpt_check(fixture_path("out/checkpoint-20"), 20, &reason), ST_INPUT, &reason,
                     cases[i].reason);
        assert_int_equal(newest(path), 10);
    }
    /* one bit in the moments */
    char path[PATH_BYTES];
    struct buf b = BUF_INIT;
    save(20, 2);
    fixture_read(fixture_path("out/checkpoint-20/optimizer.pt"), &b);
    b.data[b.n_bytes / 2] ^= 1;
    fixture_write("out/checkpoint-20/optimizer.pt", b.data, b.n_bytes);
    assert_int_equal(newest(path), 10);
    buf_release(&b);
}

/* Trainer's older form of the adapter, whole and broken. */
static void adapter_as_pickle(void **state)
{
    char path[PATH_BYTES];
    struct buf b = BUF_INIT;
    save(10, 1);
    save(20, 2);
    fixture_read(fixture_path("out/checkpoint-20/optimizer.pt"), &b);
    assert_int_equal(remove(fixture_path("out/checkpoint-20/adapter_model.safetensors")), 0);
    assert_int_equal(newest(path), 10);
    fixture_write("out/checkpoint-20/adapter_model.bin", b.data, b.n_bytes);
    assert_int_equal(newest(path), 20);
    fixture_write("out/checkpoint-20/adapter_model.bin", b.data, b.n_bytes / 2);
    assert_int_equal(newest(path), 10);
    buf_release(&b);
}

static void newest_below(void **state)
{
    char path[PATH_BYTES];
    int64_t step;
    struct err err = ERR_INIT;
    save(10, 1);
    save(20, 2);
    assert_int_equal(ckpt_newest_below(fixture_path("out"), 20, path, &step, &err), ST_OK);
    assert_int_equal(step, 10);
    assert_string_equal(path, fixture_path("out/checkpoint-10"));
    assert_int_equal(ckpt_newest_below(fixture_path("out"), 10, path, &step, &err), ST_OK);
    assert_int_equal(step, -1);
    assert_string_equal(path, "");
}

static void odd_names_are_ignored(void **state)
{
    char path[PATH_BYTES];
    save(10, 1);
    put("out/checkpoint-30", "a file");
    assert_int_equal(mkdir(fixture_path("out/checkpoint-final"), 0777), 0);
    assert_int_equal(newest(path), 10);
    assert_int_equal(rename(fixture_path("out/checkpoint-10"), fixture_path("out/checkpoint-0010")), 0);
    assert_int_equal(newest(path), 10);
    assert_string_equal(path, fixture_path("out/checkpoint-0010"));
}

static bool has(int step)
{
    char name[64];
    snprintf(name, sizeof name, "out/checkpoint-%d", step);
    return dir_exists(fixture_path(name));
}

static void rotation(void **state)
{
    struct err err = ERR_INIT;
    assert_int_equal(ckpt_rotate(fixture_path("out"), 2, &err), ST_OK); /* nothing there */
    for (int step = 8; step <= 11; step++)
        save(step, 1);
    put("out/notes.txt", "kept");
    assert_int_equal(ckpt_rotate(fixture_path("out"), 0, &err), ST_OK);
    assert_int_equal(n_names(), 5);
    assert_int_equal(ckpt_rotate(fixture_path("out"), 2, &err), ST_OK);
    assert_true(!has(8) && !has(9) && has(10) && has(11));
    assert_int_equal(n_names(), 3);
    /* the newest complete one stays, whatever lies above it */
    save(12, 1);
    save(13, 1);
    for (int step = 11; step <= 13; step++) {
        char name[64];
        snprintf(name, sizeof name, "out/checkpoint-%d/optimizer.pt", step);
        assert_int_equal(remove(fixture_path(name)), 0);
    }
    assert_int_equal(ckpt_rotate(fixture_path("out"), 1, &err), ST_OK);
    assert_true(has(10) && !has(11) && !has(12) && has(13));
    char path[PATH_BYTES];
    assert_int_equal(newest(path), 10);
}

/* A child saves one checkpoint after another until it is killed; whenever that is, the newest complete one is
 * whole and no older than the last that it reported. */
static void killed_at_any_moment(void **state)
{
    for (int round = 0; round < 12; round++) {
        int pipe_ends[2];
        assert_int_equal(pipe(pipe_ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (int step = 1;; step++) {
                struct ckpt_writer w;
                struct err err = ERR_INIT;
                if (ckpt_begin(&w, fixture_path("out"), 1 + step / 2, &err) != ST_OK ||
                    fill(w.tmp_dir, 1 + step / 2, (float)step, &err) != ST_OK ||
                    ckpt_commit(&w, &err) != ST_OK || ckpt_rotate(fixture_path("out"), 2, &err) != ST_OK ||
                    write(pipe_ends[1], &step, sizeof step) != sizeof step)
                    _exit(1);
            }
        }
        int last = 0, step;
        for (int i = 0; i < 3; i++) /* let it get going */
            assert_int_equal(read(pipe_ends[0], &last, sizeof last), sizeof last);
        usleep((useconds_t)(round * 3001));
        kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        close(pipe_ends[1]);
        while (read(pipe_ends[0], &step, sizeof step) == sizeof step)
            last = step;
        close(pipe_ends[0]);
        char path[PATH_BYTES];
        int64_t found = newest(path);
        assert_true(found >= 1 + last / 2 && found <= 1 + (last + 1) / 2);
        assert_true(value_of(path) >= (float)last);
        struct err err = ERR_INIT;
        assert_int_equal(dir_remove(fixture_path("out"), &err), ST_OK);
    }
}

static void equal_runs_write_equal_bytes(void **state)
{
    static const char *const files[] = {"adapter_model.safetensors", "adapter_config.json", "optimizer.pt",
                                        "scheduler.pt", "trainer_state.json"};
    struct buf first[5] = {BUF_INIT}, second = BUF_INIT;
    for (int run = 0; run < 2; run++) {
        save(4, 1);
        for (int i = 0; i < 5; i++) {
            char name[64];
            snprintf(name, sizeof name, "out/checkpoint-4/%s", files[i]);
            fixture_read(fixture_path(name), run == 0 ? &first[i] : &second);
            if (run == 0)
                continue;
            assert_int_equal(first[i].n_bytes, second.n_bytes);
            assert_memory_equal(first[i].data, second.data, second.n_bytes);
            assert_null(memmem(second.data, second.n_bytes, "smgpt-test", 10)); /* no path of this machine */
            buf_release(&first[i]);
        }
    }
    buf_release(&second);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(step_names),        CASE(save_and_find),        CASE(commit_fails),
        CASE(replace_by_steps),  CASE(leftovers_go),         CASE(damaged_are_skipped),
        CASE(adapter_as_pickle), CASE(newest_below),         CASE(odd_names_are_ignored),
        CASE(rotation),          CASE(killed_at_any_moment), CASE(equal_runs_write_equal_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
