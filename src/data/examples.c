/* The data set: one pass builds the index and the statistics, rows are read again when they are asked for. */
#include "data/examples.h"
#include "examples_internal.h"
#include "util/file.h"
#include "util/order.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct entry { /* what memory a row costs */
    int64_t offset;
    int32_t n_bytes, n_motion;
    int32_t text_id, participant;
};

struct text_entry {
    int64_t n_rows;
    int32_t min_len, median_len, max_len;
    int32_t *codes; /* sorted and distinct in [0, n_sorted), as they came behind it */
    int32_t n_codes, capacity;
};

struct examples {
    char *path;
    int fd;
    struct entry *rows;
    int64_t n_rows, capacity;
    struct strings texts, participants;
    struct text_entry *stats; /* [texts.n] */
    int32_t n_stats, stats_capacity;
    int32_t n_codes, median_len;
    char sha256[SHA256_HEX_BYTES];
};

void example_release(struct example *e)
{
    free(e->text);
    free(e->motion);
    buf_release(&e->bytes);
    *e = (struct example)EXAMPLE_INIT;
}

static void codes_sort(struct text_entry *t)
{
    int32_t n = 0;
    if (t->n_codes == 0)
        return;
    qsort(t->codes, (size_t)t->n_codes, sizeof *t->codes, order_int32);
    for (int32_t i = 0; i < t->n_codes; i++) {
        if (n == 0 || t->codes[n - 1] != t->codes[i])
            t->codes[n++] = t->codes[i];
    }
    t->n_codes = n;
}

/* Appends. Sorting and dropping doubles only when the space is used up, and leaving half of it free then,
 * keeps the cost at n log n; a text that occurs once takes no more space than it needs. */
static enum status codes_add(struct text_entry *t, const int32_t *codes, int32_t n, struct err *err)
{
    if (n > t->capacity - t->n_codes) {
        codes_sort(t);
        if (t->n_codes > INT32_MAX / 2 - n)
            return err_set(err, ST_INPUT, "more than %d motion tokens with one text", INT32_MAX / 2);
        int32_t capacity = t->capacity == 0 ? n : 2 * (t->n_codes + n);
        if (capacity > t->capacity) {
            int32_t *grown = realloc(t->codes, (size_t)capacity * sizeof *grown);
            if (!grown)
                return err_memory(err, "codes of a text", (size_t)capacity * sizeof *grown);
            t->codes = grown;
            t->capacity = capacity;
        }
    }
    memcpy(t->codes + t->n_codes, codes, (size_t)n * sizeof *codes);
    t->n_codes += n;
    return ST_OK;
}

static enum status index_grow(struct examples *x, struct err *err)
{
    if (x->n_rows == INT32_MAX)
        return err_set(err, ST_INPUT, "\"%s\": more than %d rows", x->path, INT32_MAX);
    if (x->n_rows == x->capacity) {
        int64_t capacity = x->capacity ? 2 * x->capacity : 1024;
        struct entry *rows = realloc(x->rows, (size_t)capacity * sizeof *rows);
        if (!rows)
            return err_memory(err, "the index of the data set", (size_t)capacity * sizeof *rows);
        x->rows = rows;
        x->capacity = capacity;
    }
    if (x->texts.n == x->stats_capacity) { /* room for one text more */
        int32_t capacity = x->stats_capacity ? 2 * x->stats_capacity : 64;
        struct text_entry *stats = realloc(x->stats, (size_t)capacity * sizeof *stats);
        if (!stats)
            return err_memory(err, "text statistics", (size_t)capacity * sizeof *stats);
        x->stats = stats;
        x->stats_capacity = capacity;
    }
    return ST_OK;
}

static enum status index_row(struct examples *x, const struct json_span *span, const struct row_fields *f,
                             const struct example *e, struct err *err)
{
    TRY(index_grow(x, err));
    struct entry *row = &x->rows[x->n_rows];
    *row = (struct entry){.offset = span->offset,
                          .n_bytes = (int32_t)span->n_bytes,
                          .n_motion = e->n_motion,
                          .participant = -1};
    TRY(data__strings_add(&x->texts, f->text, &row->text_id, err));
    if (f->participant)
        TRY(data__strings_add(&x->participants, f->participant, &row->participant, err));
    if (row->text_id == x->n_stats)
        x->stats[x->n_stats++] = (struct text_entry){0};
    struct text_entry *t = &x->stats[row->text_id];
    t->n_rows++;
    for (int32_t i = 0; i < e->n_motion; i++) {
        if (e->motion[i] >= x->n_codes)
            x->n_codes = e->motion[i] + 1;
    }
    x->n_rows++;
    return codes_add(t, e->motion, e->n_motion, err);
}

static enum status index_file(struct examples *x, struct json_stream *s, struct example *e, struct err *err)
{
    struct json_span span;
    bool end;
    TRY(data__stream_open(s, x->path, err));
    for (;;) {
        TRY(data__stream_next(s, &span, &end, err));
        if (end)
            break;
        struct row_fields f;
        enum status status = data__row_decode(&f, e, x->path, x->n_rows, &span, err);
        if (status == ST_OK)
            status = index_row(x, &span, &f, e, err);
        data__row_release(&f);
        TRY(status);
    }
    if (x->n_rows == 0)
        return err_set(err, ST_INPUT, "\"%s\": the array is empty", x->path);
    sha256_hex(&s->sha, x->sha256);
    return ST_OK;
}

/* Medians: the lengths, grouped by text with a counting sort. */
static enum status index_lengths(struct examples *x, struct err *err)
{
    size_t n_bytes = (size_t)x->n_rows * sizeof(int32_t), n_ends = (size_t)x->n_stats + 1;
    int32_t *lens = malloc(n_bytes);
    int64_t *next = calloc(n_ends, sizeof *next);
    if (!lens || !next) {
        free(lens);
        free(next);
        return err_memory(err, "row lengths", n_bytes);
    }
    for (int32_t t = 0; t < x->n_stats; t++)
        next[t + 1] = next[t] + x->stats[t].n_rows;
    for (int64_t r = 0; r < x->n_rows; r++)
        lens[next[x->rows[r].text_id]++] = x->rows[r].n_motion;
    for (int32_t i = 0; i < x->n_stats; i++) { /* next[i] is now the end of text i */
        struct text_entry *t = &x->stats[i];
        int32_t *own = lens + next[i] - t->n_rows;
        qsort(own, (size_t)t->n_rows, sizeof *own, order_int32);
        int64_t middle = t->n_rows / 2;
        t->min_len = own[0];
        t->max_len = own[t->n_rows - 1];
        t->median_len = t->n_rows % 2 ? own[middle] : (int32_t)(((int64_t)own[middle - 1] + own[middle]) / 2);
        codes_sort(t);
        int32_t *exact = realloc(t->codes, (size_t)t->n_codes * sizeof *exact);
        if (exact) { /* giving space back cannot matter to the rest */
            t->codes = exact;
            t->capacity = t->n_codes;
        }
    }
    qsort(lens, (size_t)x->n_rows, sizeof *lens, order_int32);
    x->median_len = lens[x->n_rows / 2];
    free(lens);
    free(next);
    return ST_OK;
}

struct named {
    char *name;
    int32_t id;
};

static int compare_named(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

/* Numbers the participants in the order of their names: UTF-8 sorts by bytes as Python sorts by code points.
 */
static enum status index_participants(struct examples *x, struct err *err)
{
    size_t n = (size_t)x->participants.n;
    if (n == 0)
        return ST_OK;
    struct named *sorted = malloc(n * sizeof *sorted);
    int32_t *rank = malloc(n * sizeof *rank);
    if (!sorted || !rank) {
        free(sorted);
        free(rank);
        return err_memory(err, "participants", n * sizeof *sorted);
    }
    for (size_t i = 0; i < n; i++)
        sorted[i] = (struct named){x->participants.items[i], (int32_t)i};
    qsort(sorted, n, sizeof *sorted, compare_named);
    for (size_t i = 0; i < n; i++) {
        rank[sorted[i].id] = (int32_t)i;
        x->participants.items[i] = sorted[i].name;
    }
    for (int64_t r = 0; r < x->n_rows; r++) {
        if (x->rows[r].participant >= 0)
            x->rows[r].participant = rank[x->rows[r].participant];
    }
    free(sorted);
    free(rank);
    return ST_OK;
}

enum status examples_open(struct examples **out, const char *path, struct err *err)
{
    int64_t n_bytes;
    *out = NULL;
    TRY(file_size(path, &n_bytes, err));
    struct examples *x = calloc(1, sizeof *x);
    if (!x)
        return err_memory(err, "the data set", sizeof *x);
    x->fd = -1;
    x->path = strdup(path);
    struct json_stream stream = {.fd = -1};
    struct example scratch = EXAMPLE_INIT;
    enum status status = x->path ? ST_OK : err_memory(err, "a path", strlen(path));
    if (status == ST_OK)
        status = index_file(x, &stream, &scratch, err);
    if (status == ST_OK)
        status = index_lengths(x, err);
    if (status == ST_OK)
        status = index_participants(x, err);
    if (status == ST_OK) { /* rows are read from the file that was indexed, whatever its name means later */
        x->fd = stream.fd;
        stream.fd = -1;
    }
    data__stream_close(&stream);
    example_release(&scratch);
    if (status != ST_OK) {
        examples_close(x);
        return status;
    }
    *out = x;
    return ST_OK;
}

void examples_close(struct examples *x)
{
    if (!x)
        return;
    if (x->fd >= 0)
        close(x->fd);
    for (int32_t i = 0; i < x->n_stats; i++)
        free(x->stats[i].codes);
    free(x->stats);
    data__strings_release(&x->texts);
    data__strings_release(&x->participants);
    free(x->rows);
    free(x->path);
    free(x);
}

int64_t examples_count(const struct examples *x)
{
    return x->n_rows;
}

int32_t examples_n_codes(const struct examples *x)
{
    return x->n_codes;
}

int32_t examples_n_participants(const struct examples *x)
{
    return x->participants.n;
}

const char *examples_participant(const struct examples *x, int32_t i)
{
    return i >= 0 && i < x->participants.n ? x->participants.items[i] : NULL;
}

int32_t examples_n_texts(const struct examples *x)
{
    return x->n_stats;
}

void examples_text_stats(const struct examples *x, int32_t text_id, struct text_stats *out)
{
    const struct text_entry *t = &x->stats[text_id];
    *out = (struct text_stats){.text = x->texts.items[text_id],
                               .n_rows = t->n_rows,
                               .min_len = t->min_len,
                               .median_len = t->median_len,
                               .max_len = t->max_len,
                               .codes = t->codes,
                               .n_codes = t->n_codes};
}

int32_t examples_median_len(const struct examples *x)
{
    return x->median_len;
}

const char *examples_sha256(const struct examples *x)
{
    return x->sha256;
}

const char *examples_path(const struct examples *x)
{
    return x->path;
}

static enum status read_at(const struct examples *x, const struct entry *row, struct buf *out,
                           struct err *err)
{
    size_t n = (size_t)row->n_bytes;
    buf_clear(out);
    TRY(buf_reserve(out, n, err));
    while (out->n_bytes < n) {
        ssize_t got =
            pread(x->fd, out->data + out->n_bytes, n - out->n_bytes, row->offset + (int64_t)out->n_bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, ST_ENV, "\"%s\": cannot read at byte %lld", x->path,
                             (long long)row->offset);
        if (got == 0)
            return err_set(err, ST_INPUT, "\"%s\": became shorter while it was in use", x->path);
        out->n_bytes += (size_t)got;
    }
    return ST_OK;
}

static enum status text_copy(struct example *out, const char *text, struct err *err)
{
    size_t n = strlen(text) + 1;
    if (n > out->text_capacity) {
        char *grown = realloc(out->text, 2 * n);
        if (!grown)
            return err_memory(err, "a text", 2 * n);
        out->text = grown;
        out->text_capacity = 2 * n;
    }
    memcpy(out->text, text, n);
    return ST_OK;
}

enum status examples_read(const struct examples *x, int64_t row, struct example *out, struct err *err)
{
    if (row < 0 || row >= x->n_rows)
        return err_set(err, ST_DEFECT, "row %lld of %lld asked for", (long long)row, (long long)x->n_rows);
    const struct entry *entry = &x->rows[row];
    TRY(read_at(x, entry, &out->bytes, err));
    struct json_span span = {out->bytes.data, out->bytes.n_bytes, entry->offset};
    struct row_fields f;
    enum status status = data__row_decode(&f, out, x->path, row, &span, err);
    /* What the index says must still hold: the file may have been written to since. */
    if (status == ST_OK &&
        (strcmp(f.text, x->texts.items[entry->text_id]) || out->n_motion != entry->n_motion))
        status = err_set(err, ST_INPUT, "\"%s\": row %lld changed while the file was in use", x->path,
                         (long long)row);
    for (int32_t i = 0; status == ST_OK && i < out->n_motion; i++) {
        if (out->motion[i] >= x->n_codes)
            status = err_set(err, ST_INPUT, "\"%s\": row %lld changed while the file was in use", x->path,
                             (long long)row);
    }
    if (status == ST_OK)
        status = text_copy(out, f.text, err);
    data__row_release(&f);
    out->text_id = entry->text_id;
    out->participant = entry->participant;
    return status;
}
