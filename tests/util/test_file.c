/* Paths, reads, maps and directories. */
#include "support/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch s;

static int open_scratch(void **unused)
{
    scratch_open(&s);
    return 0;
}

static int close_scratch(void **unused)
{
    scratch_close(&s);
    return 0;
}

static void joins(void **unused)
{
    static const struct {
        const char *dir, *name, *want;
    } cases[] = {
        {"a", "b", "a/b"},      {"a/", "b", "a/b"}, {"a//", "/b", "a/b"}, {"/", "b", "/b"},
        {"", "b", "b"},         {"", "/b", "/b"},   {"a", "", "a"},       {"a/", "", "a"},
        {"///", "b/c", "/b/c"}, {".", "b", "./b"},
    };
    char out[PATH_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(path_join(out, cases[i].dir, cases[i].name, NULL), ST_OK);
        assert_string_equal(out, cases[i].want);
    }
    strcpy(out, "in");
    assert_int_equal(path_join(out, out, "place", NULL), ST_OK);
    assert_string_equal(out, "in/place");

    char dir[PATH_BYTES];
    memset(dir, 'd', PATH_BYTES - 3);
    dir[PATH_BYTES - 3] = '\0';
    assert_int_equal(path_join(out, dir, "x", NULL), ST_OK);
    assert_int_equal(strlen(out), PATH_BYTES - 1);
    struct err err = ERR_INIT;
    assert_int_equal(path_join(out, dir, "xy", &err), ST_INPUT);
    assert_non_null(strstr(err.what, "path too long"));
}

static void questions(void **unused)
{
    const char *file = scratch_file(&s, "seven", "1234567");
    int64_t n_bytes = 0;
    struct err err = ERR_INIT;
    assert_true(file_exists(file));
    assert_false(dir_exists(file));
    assert_true(dir_exists(s.dir));
    assert_false(file_exists(s.dir));
    assert_int_equal(file_size(file, &n_bytes, &err), ST_OK);
    assert_int_equal(n_bytes, 7);
    assert_int_equal(file_size(s.dir, &n_bytes, &err), ST_INPUT);
    assert_non_null(strstr(err.what, s.dir));
    assert_non_null(strstr(err.what, "is no regular file"));
    err = (struct err)ERR_INIT;
    assert_int_equal(file_size(scratch_path(&s, "absent"), &n_bytes, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "absent\": No such file or directory"));
}

static void whole_reads(void **unused)
{
    struct buf text = BUF_INIT;
    struct err err = ERR_INIT;
    assert_int_equal(file_read(scratch_file(&s, "seven", "1234567"), 7, &text, &err), ST_OK);
    assert_string_equal(text.data, "1234567");
    assert_int_equal(text.n_bytes, 7);
    assert_int_equal(file_read(scratch_file(&s, "empty", ""), 0, &text, &err), ST_OK);
    assert_int_equal(text.n_bytes, 0);
    assert_string_equal(text.data, "");
    assert_int_equal(file_read(scratch_path(&s, "seven"), 6, &text, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "seven\" has 7 bytes, at most 6 are allowed"));
    assert_int_equal(text.n_bytes, 0);
    err = (struct err)ERR_INIT;
    assert_int_equal(file_read("/dev/zero", 100000, &text, &err), ST_INPUT);
    assert_string_equal(err.what, "\"/dev/zero\" is larger than the 100000 bytes allowed here");
    err = (struct err)ERR_INIT;
    assert_int_equal(file_read(s.dir, 10, &text, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "is a directory, a file is expected"));
    assert_int_equal(file_read(scratch_path(&s, "absent"), 10, &text, NULL), ST_INPUT);
    /* A file of the kernel has size 0 and content all the same. */
    assert_int_equal(file_read("/proc/self/status", 1 << 20, &text, NULL), ST_OK);
    assert_non_null(strstr(text.data, "VmHWM"));
    buf_release(&text);
}

static void maps(void **unused)
{
    struct file_map map;
    struct err err = ERR_INIT;
    assert_int_equal(file_map(&map, scratch_file(&s, "seven", "1234567"), &err), ST_OK);
    assert_int_equal(map.n_bytes, 7);
    assert_memory_equal(map.data, "1234567", 7);
    file_unmap(&map);
    assert_null(map.data);
    file_unmap(&map);
    assert_int_equal(file_map(&map, scratch_file(&s, "empty", ""), &err), ST_OK);
    assert_null(map.data);
    assert_int_equal(map.n_bytes, 0);
    file_unmap(&map);
    assert_int_equal(file_map(&map, "/dev/null", &err), ST_INPUT);
    assert_string_equal(err.what, "\"/dev/null\" is no regular file");
    assert_int_equal(file_map(&map, scratch_path(&s, "absent"), NULL), ST_INPUT);
    assert_null(map.data);
}

static void directories(void **unused)
{
    struct err err = ERR_INIT;
    assert_int_equal(dir_make(scratch_path(&s, "a/b//c/"), &err), ST_OK);
    assert_true(dir_exists(scratch_path(&s, "a/b/c")));
    assert_int_equal(dir_make(scratch_path(&s, "a/b"), &err), ST_OK);
    assert_int_equal(dir_make("/", &err), ST_OK);
    assert_int_equal(dir_make("", NULL), ST_INPUT);
    scratch_file(&s, "a/file", "x");
    assert_int_equal(dir_make(scratch_path(&s, "a/file/d"), &err), ST_ENV);
    assert_non_null(strstr(err.what, "a/file\": Not a directory"));
    assert_int_equal(dir_sync(scratch_path(&s, "a"), NULL), ST_OK);
    assert_int_equal(dir_sync(scratch_path(&s, "a/file"), NULL), ST_ENV);
}

static void lists_are_sorted(void **unused)
{
    struct err err = ERR_INIT;
    char **names;
    int n_names;
    dir_make(scratch_path(&s, "list/b"), NULL);
    assert_int_equal(dir_list(scratch_path(&s, "list/b"), &names, &n_names, &err), ST_OK);
    assert_int_equal(n_names, 0);
    names_free(names, n_names);
    for (int i = 39; i >= 0; i--) {
        char name[32];
        snprintf(name, sizeof name, "list/%c%d", i % 2 ? 'a' : 'Z', i);
        scratch_file(&s, name, "");
    }
    assert_int_equal(dir_list(scratch_path(&s, "list"), &names, &n_names, &err), ST_OK);
    assert_int_equal(n_names, 41);
    for (int i = 1; i < n_names; i++)
        assert_true(strcmp(names[i - 1], names[i]) < 0);
    assert_string_equal(names[40], "b");
    names_free(names, n_names);
    assert_int_equal(dir_list(scratch_path(&s, "absent"), &names, &n_names, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "absent"));
    assert_null(names);
}

static void remove_stays_inside(void **unused)
{
    struct err err = ERR_INIT;
    dir_make(scratch_path(&s, "outside/kept"), NULL);
    scratch_file(&s, "outside/kept/file", "precious");
    dir_make(scratch_path(&s, "tree/deep/er"), NULL);
    scratch_file(&s, "tree/deep/er/file", "x");
    assert_int_equal(symlink(scratch_path(&s, "outside"), scratch_path(&s, "tree/to-dir")), 0);
    assert_int_equal(symlink(scratch_path(&s, "outside/kept/file"), scratch_path(&s, "tree/deep/to-file")),
                     0);
    assert_int_equal(symlink("nowhere", scratch_path(&s, "tree/dangling")), 0);
    assert_int_equal(mkfifo(scratch_path(&s, "tree/fifo"), 0600), 0);
    assert_int_equal(symlink(scratch_path(&s, "outside"), scratch_path(&s, "link")), 0);

    assert_int_equal(dir_remove(scratch_path(&s, "tree"), &err), ST_OK);
    assert_false(dir_exists(scratch_path(&s, "tree")));
    assert_int_equal(dir_remove(scratch_path(&s, "link//"), &err), ST_OK);
    assert_int_not_equal(access(scratch_path(&s, "link"), F_OK), 0);
    char *kept = scratch_read(scratch_path(&s, "outside/kept/file"));
    assert_string_equal(kept, "precious");
    free(kept);

    assert_int_equal(dir_remove(scratch_path(&s, "absent"), &err), ST_OK);
    assert_int_equal(dir_remove("", NULL), ST_INPUT);
    assert_int_equal(dir_remove("//", NULL), ST_INPUT);
    assert_int_equal(dir_remove(scratch_path(&s, "outside/kept/file"), &err), ST_INPUT);
    assert_non_null(strstr(err.what, "no directory"));
    assert_true(file_exists(scratch_path(&s, "outside/kept/file")));
}

static void remove_gives_up_on_bottomless_trees(void **unused)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", scratch_path(&s, "pit"));
    for (int i = 0; i < 70; i++)
        strcat(path, "/d");
    assert_int_equal(dir_make(path, NULL), ST_OK);
    struct err err = ERR_INIT;
    assert_int_equal(dir_remove(scratch_path(&s, "pit"), &err), ST_ENV);
    assert_non_null(strstr(err.what, "more than 64 directories deep"));
    path[strlen(path) - 2 * 20] = '\0';
    assert_int_equal(dir_remove(path, NULL), ST_OK);
    assert_int_equal(dir_remove(scratch_path(&s, "pit"), NULL), ST_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins),
        cmocka_unit_test(questions),
        cmocka_unit_test(whole_reads),
        cmocka_unit_test(maps),
        cmocka_unit_test(directories),
        cmocka_unit_test(lists_are_sorted),
        cmocka_unit_test(remove_stays_inside),
        cmocka_unit_test(remove_gives_up_on_bottomless_trees),
    };
    return cmocka_run_group_tests(tests, open_scratch, close_scratch);
}
