#include "prompts.h"
#include "util/file.h"
#include "util/json.h"

#include <stdbool.h>

#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)256 << 20)

static enum status reserve(struct prompts *p, size_t n, struct err *err)
{
    p->items = calloc(n + 1, sizeof *p->items);
    return p->items ? ST_OK : err_memory(err, "prompts", n * sizeof *p->items);
}

enum status prompts_one(struct prompts *p, const char *text, struct err *err)
{
    *p = (struct prompts){0};
    TRY(reserve(p, 1, err));
    p->items[p->n++] = text;
    return ST_OK;
}

void prompts_release(struct prompts *p)
{
    free(p->items);
    buf_release(&p->file);
    json_decref(p->list);
    *p = (struct prompts){0};
}

static enum status take_list(struct prompts *p, const char *path, struct err *err)
{
    if (!json_is_array(p->list))
        return err_set(err, ST_INPUT, "\"%s\": not a JSON list of texts", path);
    TRY(reserve(p, json_array_size(p->list), err));
    for (size_t i = 0; i < json_array_size(p->list); i++) {
        const json_t *item = json_array_get(p->list, i);
        if (!json_is_string(item))
            return err_set(err, ST_INPUT, "\"%s\": item %zu is not a text", path, i);
        p->items[p->n++] = json_string_value(item);
    }
    return ST_OK;
}

static enum status take_lines(struct prompts *p, const char *path, struct err *err)
{
    char *at = p->file.data;
    size_t n_lines = 1;
    const char *nul = memchr(at, '\0', p->file.n_bytes);
    if (nul)
        return err_set(err, ST_INPUT, "\"%s\": byte %zu is a NUL, this is no text", path, (size_t)(nul - at));
    for (const char *c = at; (c = strchr(c, '\n')); c++)
        n_lines++;
    TRY(reserve(p, n_lines, err));
    if (strncmp(at, "\xef\xbb\xbf", 3) == 0) /* byte order mark */
        at += 3;
    while (at) {
        char *line = at, *end = strchr(at, '\n');
        size_t n = end ? (size_t)(end - line) : strlen(line);
        at = end ? end + 1 : NULL;
        n -= n > 0 && line[n - 1] == '\r';
        line[n] = '\0';
        if (n > 0)
            p->items[p->n++] = line;
    }
    return ST_OK;
}

/* A text file may begin with a bracket too, so that a list is only what reads as one from end to end. */
static bool looks_like_list(const struct buf *file)
{
    size_t at = strspn(file->data, " \t\r\n");
    return at < file->n_bytes && file->data[at] == '[';
}

static enum status read_items(struct prompts *p, const char *path, struct err *err)
{
    size_t n = strlen(path);
    TRY(file_read(path, MAX_FILE_BYTES, &p->file, err));
    if (p->file.n_bytes == 0)
        return ST_OK;
    if (n > 5 && strcmp(path + n - 5, ".json") == 0) {
        TRY(json_read_text(&p->list, p->file.data, p->file.n_bytes, path, err));
        return take_list(p, path, err);
    }
    if (looks_like_list(&p->file) &&
        json_read_text(&p->list, p->file.data, p->file.n_bytes, path, NULL) == ST_OK)
        return take_list(p, path, err);
    return take_lines(p, path, err);
}

enum status prompts_read(struct prompts *p, const char *path, struct err *err)
{
    *p = (struct prompts){0};
    enum status st = read_items(p, path, err);
    if (st == ST_OK && p->n == 0)
        st = err_set(err, ST_INPUT, "\"%s\": there is no prompt in it", path);
    if (st != ST_OK)
        prompts_release(p);
    return st;
}

static int compare(const void *a, const void *b, void *items)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    int text = strcmp(((const char **)items)[i], ((const char **)items)[j]);
    return text ? text : i < j ? -1 : i > j;
}

/* FNV-1a, 32 bits. */
static uint32_t text_number(const char *text)
{
    uint32_t h = 2166136261u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

enum status prompts_streams(const struct prompts *p, uint32_t n, uint32_t *streams, struct err *err)
{
    int32_t *order = calloc((size_t)p->n, sizeof *order);
    if (!order)
        return err_memory(err, "prompts", (size_t)p->n * sizeof *order);
    for (int32_t i = 0; i < p->n; i++)
        order[i] = i;
    qsort_r(order, (size_t)p->n, sizeof *order, compare, p->items);
    for (int32_t k = 0; k < p->n; k++) {
        const char *text = p->items[order[k]];
        bool same = k > 0 && strcmp(text, p->items[order[k - 1]]) == 0;
        streams[order[k]] = same ? streams[order[k - 1]] + n : text_number(text);
    }
    free(order);
    return ST_OK;
}
