#include "support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void scratch_open(struct scratch *s)
{
    const char *base = getenv("TMPDIR");
    if (!base || !*base)
        base = P_tmpdir;
    assert_true(snprintf(s->dir, sizeof s->dir, "%s/smgpt-test-XXXXXX", base) < (int)sizeof s->dir);
    assert_non_null(mkdtemp(s->dir));
}

void scratch_close(struct scratch *s)
{
    struct err err = ERR_INIT;
    if (dir_remove(s->dir, &err) != ST_OK)
        fail_msg("%s", err.what);
}

const char *scratch_path(const struct scratch *s, const char *name)
{
    static char paths[4][PATH_BYTES];
    static int at;
    struct err err = ERR_INIT;
    at = (at + 1) % 4;
    if (path_join(paths[at], s->dir, name, &err) != ST_OK)
        fail_msg("%s", err.what);
    return paths[at];
}

const char *scratch_file(const struct scratch *s, const char *name, const char *text)
{
    const char *path = scratch_path(s, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return path;
}

char *scratch_read(const char *path)
{
    struct buf text = BUF_INIT;
    if (file_read(path, (size_t)1 << 30, &text, NULL) != ST_OK) {
        buf_release(&text);
        return NULL;
    }
    return text.data;
}
