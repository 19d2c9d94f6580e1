/* How each file is to travel: the Hub decides, from its name, size and first bytes. */
#include "http_internal.h"
#include "push_internal.h"
#include "util/json.h"
#include "util/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES_A_CALL 256
#define SAMPLE_BYTES 512

static enum status sample(const struct push_file *f, struct buf *out, struct err *err)
{
    char bytes[SAMPLE_BYTES];
    if (f->content)
        return base64_append(out, f->content, f->n_bytes < SAMPLE_BYTES ? (size_t)f->n_bytes : SAMPLE_BYTES,
                             err);
    int fd = open(f->local, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (n < 0)
        err_errno(err, ST_INPUT, "'%s'", f->local);
    if (fd >= 0)
        close(fd);
    return n < 0 ? ST_INPUT : base64_append(out, bytes, (size_t)n, err);
}

static enum status describe(const struct push_file *f, json_t *list, struct err *err)
{
    struct buf text = BUF_INIT;
    enum status st = sample(f, &text, err);
    json_t *item = st == ST_OK ? json_pack("{s:s, s:s, s:I}", "path", f->path, "sample",
                                           text.data ? text.data : "", "size", (json_int_t)f->n_bytes)
                               : NULL;
    buf_release(&text);
    if (st == ST_OK && (!item || json_array_append_new(list, item) != 0))
        st = err_set(err, ST_INPUT, "the name '%.200s' is no UTF-8", f->path);
    return st;
}

/* Answers come by path; a file that none speaks of is a fault of the reply. */
static enum status take_modes(struct push *p, struct push_file *const *asked, size_t n, const json_t *reply,
                              struct err *err)
{
    const json_t *list = json_object_get(reply, "files");
    for (size_t i = 0; i < n; i++) {
        size_t j;
        json_t *item, *found = NULL;
        const char *mode;
        json_array_foreach(list, j, item)
        {
            const char *path = json_string_value(json_object_get(item, "path"));
            if (path && strcmp(path, asked[i]->path) == 0)
                found = item;
        }
        if (!found) {
            return err_set(err, ST_NET, "the Hub does not say how '%.200s' is to be sent", asked[i]->path);
        }
        TRY(http__string(found, "uploadMode", true, "regular", &mode, err));
        TRY(http__bool(found, "shouldIgnore", true, false, &asked[i]->ignored, err));
        if (asked[i]->ignored)
            log_warn("'%s' is not sent: the .gitignore of %s leaves it out", asked[i]->path,
                     p->request->repo);
        /* Whatever is said, an LFS object has bytes. */
        asked[i]->is_lfs = strcmp(mode, "lfs") == 0 && asked[i]->n_bytes > 0;
    }
    return ST_OK;
}

static enum status ask(struct push *p, struct push_file *const *asked, size_t n, struct err *err)
{
    char url[HUB_REPO_BYTES + 128];
    json_t *list = json_array(), *answer = NULL;
    enum status st = list ? ST_OK : err_memory(err, "a request", 0);
    for (size_t i = 0; i < n && st == ST_OK; i++)
        st = describe(asked[i], list, err);
    json_t *question = json_pack("{s:o}", "files", list);
    if (st == ST_OK && !question)
        st = err_memory(err, "a request", 0);
    snprintf(url, sizeof url, "/api/models/%s/preupload/%s", p->request->repo, PUSH_BRANCH);
    if (st == ST_OK)
        st = push__ask(p, url, question, "application/json", "announcing the files", &answer, err);
    if (st == ST_OK)
        st = take_modes(p, asked, n, answer, err);
    json_decref(question);
    json_decref(answer);
    return st;
}

enum status push__ask_modes(struct push *p, struct err *err)
{
    struct push_file *asked[FILES_A_CALL];
    size_t n = 0;
    for (size_t i = 0; i < p->n_files; i++) {
        if (p->files[i].needed)
            asked[n++] = &p->files[i];
        if (n == FILES_A_CALL || (n > 0 && i + 1 == p->n_files)) {
            TRY(ask(p, asked, n, err));
            n = 0;
        }
    }
    return ST_OK;
}
