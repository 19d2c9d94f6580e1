/* Whole or absent: what a writer leaves behind when it succeeds, is given up, or meets a fault. */
#include "support/scratch.h"
#include "util/json.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

static void assert_content(const char *path, const char *want)
{
    char *text = scratch_read(path);
    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
}

/* No temporary is left beside the files that the case made. */
static void assert_n_files(const char *dir, int want)
{
    char **names;
    int n_names;
    assert_int_equal(dir_list(dir, &names, &n_names, NULL), ST_OK);
    assert_int_equal(n_names, want);
    names_free(names, n_names);
}

static void appears_at_commit(void **unused)
{
    struct file_writer w;
    struct err err = ERR_INIT;
    const char *path = scratch_path(&s, "whole");
    assert_int_equal(file_writer_open(&w, path, &err), ST_OK);
    assert_int_equal(file_writer_put(&w, "one ", 4, &err), ST_OK);
    assert_true(fprintf(w.f, "two %d", 3) > 0);
    assert_false(file_exists(path));
    assert_int_equal(file_writer_commit(&w, &err), ST_OK);
    assert_content(path, "one two 3");
    assert_n_files(s.dir, 1);
    assert_int_equal(file_writer_commit(&w, NULL), ST_DEFECT);
    assert_int_equal(file_writer_put(&w, "x", 1, NULL), ST_DEFECT);
    file_writer_abort(&w);
    assert_content(path, "one two 3");

    assert_int_equal(file_write(path, "new", 3, &err), ST_OK);
    assert_content(path, "new");
    assert_int_equal(file_writer_open(&w, path, &err), ST_OK);
    assert_int_equal(file_writer_put(&w, "half", 4, &err), ST_OK);
    file_writer_abort(&w);
    file_writer_abort(&w);
    assert_content(path, "new");
    assert_n_files(s.dir, 1);
    unlink(path);
}

static void can_go_back(void **unused)
{
    struct file_writer w;
    assert_int_equal(file_writer_open(&w, scratch_path(&s, "seek"), NULL), ST_OK);
    assert_int_equal(file_writer_put(&w, "????body", 8, NULL), ST_OK);
    assert_int_equal(ftell(w.f), 8);
    assert_int_equal(fseek(w.f, 0, SEEK_SET), 0);
    assert_int_equal(file_writer_put(&w, "head", 4, NULL), ST_OK);
    assert_int_equal(file_writer_commit(&w, NULL), ST_OK);
    assert_content(scratch_path(&s, "seek"), "headbody");
    unlink(scratch_path(&s, "seek"));
}

static void links_are_not_written_through(void **unused)
{
    char tmp[PATH_BYTES];
    const char *victim = scratch_file(&s, "victim", "precious");
    snprintf(tmp, sizeof tmp, "%s.tmp.%ld", scratch_path(&s, "target"), (long)getpid());
    assert_int_equal(symlink(victim, tmp), 0);
    assert_int_equal(file_write(scratch_path(&s, "target"), "new", 3, NULL), ST_OK);
    assert_content(victim, "precious");
    assert_content(scratch_path(&s, "target"), "new");
    unlink(victim);
    unlink(scratch_path(&s, "target"));
}

static void copies(void **unused)
{
    struct err err = ERR_INIT;
    struct buf big = BUF_INIT;
    for (int i = 0; i < 40000; i++)
        assert_int_equal(buf_printf(&big, NULL, "%d ", i), ST_OK);
    const char *from = scratch_file(&s, "from", big.data), *to = scratch_path(&s, "to");
    assert_int_equal(file_copy(from, to, &err), ST_OK);
    assert_content(to, big.data);
    buf_release(&big);
    assert_int_equal(file_copy(scratch_path(&s, "absent"), to, &err), ST_INPUT);
    assert_non_null(strstr(err.what, "absent"));
    assert_int_equal(file_copy("/dev/zero", to, NULL), ST_INPUT);
    unlink(from);
    unlink(to);
}

static void bad_paths(void **unused)
{
    static const struct {
        const char *name;
        enum status status;
        const char *what;
    } bad[] = {
        {"absent/file", ST_ENV, "absent/file\": No such file or directory"},
        {"directory", ST_ENV, "directory\": Is a directory"},
        {"plain/file", ST_ENV, "plain/file\": Not a directory"},
    };
    dir_make(scratch_path(&s, "directory"), NULL);
    scratch_file(&s, "plain", "x");
    struct file_writer w;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        assert_int_equal(file_writer_open(&w, scratch_path(&s, bad[i].name), &err), bad[i].status);
        assert_non_null(strstr(err.what, bad[i].what));
        file_writer_abort(&w);
    }
    assert_int_equal(file_writer_open(&w, "", NULL), ST_INPUT);
    char path[PATH_BYTES];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(file_writer_open(&w, path, NULL), ST_INPUT);
    dir_remove(scratch_path(&s, "directory"), NULL);
    unlink(scratch_path(&s, "plain"));
}

/* Runs the body without root's rights in a child, since root may write everywhere. */
static void read_only_directory(void **unused)
{
    dir_make(scratch_path(&s, "locked"), NULL);
    scratch_file(&s, "locked/file", "old");
    assert_int_equal(chmod(s.dir, 0755), 0);
    assert_int_equal(chmod(scratch_path(&s, "locked"), 0555), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(77);
        struct err err = ERR_INIT;
        if (file_write(scratch_path(&s, "locked/file"), "new", 3, &err) != ST_ENV)
            _exit(1);
        if (!strstr(err.what, "locked/file\": Permission denied") || !strstr(err.hint, "writable"))
            _exit(2);
        err = (struct err)ERR_INIT;
        if (dir_make(scratch_path(&s, "locked/sub"), &err) != ST_ENV || !strstr(err.what, "locked/sub"))
            _exit(3);
        err = (struct err)ERR_INIT;
        _exit(dir_remove(scratch_path(&s, "locked"), &err) == ST_ENV && strstr(err.what, "file") ? 0 : 4);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(chmod(scratch_path(&s, "locked"), 0755), 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_content(scratch_path(&s, "locked/file"), "old");
    assert_int_equal(dir_remove(scratch_path(&s, "locked"), NULL), ST_OK);
}

/* A limit on the size of files: the first write that crosses it is cut short, the next one fails. */
static void short_writes(void **unused)
{
    const char *path = scratch_file(&s, "file", "old");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {100001, 100001};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(10);
        static char data[250000];
        struct err err = ERR_INIT;
        if (file_write(path, data, 100001, &err) != ST_OK)
            _exit(1);
        if (file_write(path, data, sizeof data, &err) != ST_ENV)
            _exit(2);
        if (!strstr(err.what, "file\": File too large"))
            _exit(3);
        /* With small pieces the fault is seen by stdio first, and only named at commit. */
        struct file_writer w;
        err = (struct err)ERR_INIT;
        if (file_writer_open(&w, path, &err) != ST_OK)
            _exit(4);
        for (int i = 0; i < 250000; i++)
            fputc('x', w.f);
        if (file_writer_commit(&w, &err) != ST_ENV || !strstr(err.what, "file\": File too large"))
            _exit(5);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    int64_t n_bytes = 0;
    assert_int_equal(file_size(path, &n_bytes, NULL), ST_OK);
    assert_int_equal(n_bytes, 100001);
    assert_n_files(s.dir, 1);
    unlink(path);
}

static void full_disk(void **unused)
{
    char disk[PATH_BYTES];
    snprintf(disk, sizeof disk, "%s", scratch_path(&s, "disk"));
    dir_make(disk, NULL);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=256k") != 0) {
        dir_remove(disk, NULL);
        print_message("skipped: a small disk cannot be mounted here\n");
        skip();
    }
    static char data[1 << 20];
    struct err err = ERR_INIT, later = ERR_INIT;
    char path[PATH_BYTES];
    path_join(path, disk, "file", NULL);
    enum status first = file_write(path, "old", 3, &err);
    enum status full = file_write(path, data, sizeof data, &err);
    /* Fits into the buffer of the stream, so that only the commit can fail. */
    enum status json = ST_OK;
    json_t *list = json_array();
    for (int i = 0; i < 100000; i++)
        json_array_append_new(list, json_integer(i));
    json = json_write_file(path, list, false, &later);
    json_decref(list);
    char *text = scratch_read(path);
    char **names;
    int n_names = 0;
    dir_list(disk, &names, &n_names, NULL);
    umount(disk);
    names_free(names, n_names);
    assert_int_equal(first, ST_OK);
    assert_int_equal(full, ST_ENV);
    assert_non_null(strstr(err.what, "disk/file\": No space left on device"));
    assert_non_null(strstr(err.hint, "free space"));
    assert_int_equal(json, ST_ENV);
    assert_non_null(strstr(later.what, "disk/file\": No space left on device"));
    assert_string_equal(text, "old");
    assert_int_equal(n_names, 1);
    free(text);
    dir_remove(disk, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appears_at_commit),
        cmocka_unit_test(can_go_back),
        cmocka_unit_test(links_are_not_written_through),
        cmocka_unit_test(copies),
        cmocka_unit_test(bad_paths),
        cmocka_unit_test(read_only_directory),
        cmocka_unit_test(short_writes),
        cmocka_unit_test(full_disk),
    };
    return cmocka_run_group_tests(tests, open_scratch, close_scratch);
}
