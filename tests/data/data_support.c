#include "data_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void good(enum status status, const struct err *err)
{
    if (status != ST_OK)
        fail_msg("status %d: %s", (int)status, err->what);
}

const char *shared_path(const char *name)
{
    static char path[PATH_BYTES];
    const char *shared = getenv("SMGPT_SHARED");
    snprintf(path, sizeof path, "%s/%s", shared ? shared : SMGPT_SOURCE_DIR "/../shared", name);
    if (file_exists(path) || dir_exists(path))
        return path;
    print_message("skipped: there is no %s\n", path);
    return NULL;
}

/* Replaces a word everywhere in a file. */
static void file_replace(const char *path, const char *from, const char *to)
{
    struct err err = ERR_INIT;
    struct buf out = BUF_INIT;
    char *text = scratch_read(path);
    assert_non_null(text);
    const char *at = text;
    for (const char *next; (next = strstr(at, from)); at = next + strlen(from)) {
        good(buf_append(&out, at, (size_t)(next - at), &err), &err);
        good(buf_puts(&out, to, &err), &err);
    }
    good(buf_puts(&out, at, &err), &err);
    good(file_write(path, out.data, out.n_bytes, &err), &err);
    buf_release(&out);
    free(text);
}

struct tokenizer *style_tokenizer(struct scratch *s, enum chat_style style)
{
    static const char *const names[][2] = {[CHAT_CHATML] = {"<|im_start|>", "<|im_end|>"},
                                           [CHAT_GEMMA] = {"<start_of_turn>", "<end_of_turn>"},
                                           [CHAT_PLAIN] = {"<|other_1|>", "<|other_2|>"}};
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    struct err err = ERR_INIT;
    struct tokenizer *t;
    char dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", scratch_path(s, "tokenizer"));
    good(dir_make(dir, &err), &err);
    good(tokenizer_write_bytes(dir, &err), &err);
    for (int i = 0; i < 2; i++) {
        char path[PATH_BYTES];
        good(path_join(path, dir, files[i], &err), &err);
        if (!file_exists(path))
            continue;
        file_replace(path, "<|im_start|>", names[style][0]);
        file_replace(path, "<|im_end|>", names[style][1]);
    }
    good(tokenizer_open(&t, dir, &err), &err);
    return t;
}

struct examples *examples_of(struct scratch *s, const char *text)
{
    struct examples *x;
    struct err err = ERR_INIT;
    good(examples_open(&x, scratch_file(s, "data.json", text), &err), &err);
    return x;
}
