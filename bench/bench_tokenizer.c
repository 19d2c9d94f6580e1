/* Speed of the tokenizer on one thread. Usage: bench_tokenizer TOKENIZER_DIR TEXTS.json [SECONDS]
 * TEXTS.json is a list of texts, or of rows with "text_query" and "motion_tokens" (both are encoded). Prints
 * the time to open, then texts, bytes and tokens a second of encoding and of decoding; each pass walks all
 * texts, and the median pass counts. Beside the tokenizers library: bench_tokenizer.py with the same
 * arguments. */
#include "data/tokenizer.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PASSES 10000

struct texts {
    const char **items; /* borrowed from the JSON */
    size_t n, n_bytes;
};

static void texts_add(struct texts *x, const json_t *value)
{
    if (!json_is_string(value))
        return;
    x->items[x->n++] = json_string_value(value);
    x->n_bytes += json_string_length(value);
}

static int collect(struct texts *x, const json_t *root)
{
    size_t n = json_array_size(root);
    x->items = malloc((2 * n + 1) * sizeof *x->items);
    if (!x->items)
        return 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(root, i);
        texts_add(x, item);
        texts_add(x, json_object_get(item, "text_query"));
        texts_add(x, json_object_get(item, "motion_tokens"));
    }
    return x->n == 0;
}

static enum status encode_all(const struct tokenizer *t, const struct texts *x, struct ids *ids,
                              struct ids *ends, struct err *err)
{
    ids_clear(ids);
    ids_clear(ends);
    for (size_t i = 0; i < x->n; i++) {
        TRY(tokenizer_encode(t, x->items[i], strlen(x->items[i]), ENCODE_ADDED, ids, err));
        TRY(ids_push(ends, ids->n, err));
    }
    return ST_OK;
}

static enum status decode_all(const struct tokenizer *t, const struct ids *ids, const struct ids *ends,
                              struct buf *text, struct err *err)
{
    for (int i = 0, start = 0; i < ends->n; start = ends->data[i++]) {
        buf_clear(text);
        TRY(tokenizer_decode(t, ids->data + start, ends->data[i] - start, false, text, err));
    }
    return ST_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum status measure(const struct tokenizer *t, const struct texts *x, double seconds, struct err *err)
{
    static double pass_s[2][MAX_PASSES];
    struct ids ids = IDS_INIT, ends = IDS_INIT;
    struct buf text = BUF_INIT;
    enum status status = ST_OK;
    int n = 0;
    double begin = clock_s();
    while (status == ST_OK && n < MAX_PASSES && (n < 3 || clock_s() - begin < seconds)) {
        double start = clock_s();
        status = encode_all(t, x, &ids, &ends, err);
        double middle = clock_s();
        if (status == ST_OK)
            status = decode_all(t, &ids, &ends, &text, err);
        pass_s[0][n] = middle - start;
        pass_s[1][n++] = clock_s() - middle;
    }
    for (int k = 0; k < 2 && status == ST_OK; k++) {
        qsort(pass_s[k], (size_t)n, sizeof(double), by_value);
        double s = pass_s[k][n / 2];
        printf("%s: %zu texts, %d tokens: %.1f us a pass, %.0f texts/s, %.2f MB/s, %.2f million tokens/s\n",
               k ? "decode" : "encode", x->n, ids.n, 1e6 * s, (double)x->n / s, 1e-6 * (double)x->n_bytes / s,
               1e-6 * ids.n / s);
    }
    ids_release(&ids);
    ids_release(&ends);
    buf_release(&text);
    return status;
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct tokenizer *t = NULL;
    struct texts texts = {0};
    json_t *root = NULL;
    if (argc < 3) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER_DIR TEXTS.json [SECONDS]\n");
        return 2;
    }
    double start = clock_s();
    enum status status = tokenizer_open(&t, argv[1], &err);
    if (status == ST_OK)
        printf("open: %.3f s\n", clock_s() - start);
    if (status == ST_OK)
        status = json_read_file(&root, argv[2], (size_t)1 << 30, &err);
    if (status == ST_OK && collect(&texts, root) != 0)
        status = err_set(&err, ST_INPUT, "\"%s\": no texts", argv[2]);
    if (status == ST_OK)
        status = measure(t, &texts, argc > 3 ? atof(argv[3]) : 3, &err);
    if (status != ST_OK)
        log_err(&err);
    printf("peak memory: %.1f MB\n", 1e-6 * (double)peak_rss_bytes());
    free(texts.items);
    json_decref(root);
    tokenizer_close(t);
    return status == ST_OK ? 0 : 3;
}
