/* The trainable vector: its layout, its starting values, and its tensors under PEFT's names. */
#include "model/params.h"
#include "util/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Spread of new rows about the mean row, in units of each column's own spread over the base's rows. Rows that
 * were all equal would begin with equal logits and need many steps to part. */
#define NEW_ROW_SPREAD 0.1

static int32_t add_item(struct params *p, int64_t rows, int64_t cols)
{
    struct param *item = &p->items[p->n_items];
    item->rows = rows;
    item->cols = cols;
    item->offset = p->n_values;
    p->n_values += rows * cols;
    return p->n_items++;
}

static void add_lora(struct params *p, const struct arch *a, int32_t layer, enum proj proj)
{
    int64_t n_out, n_in;
    proj_shape(a, proj, &n_out, &n_in);
    int32_t at = add_item(p, p->lora.r, n_in);
    snprintf(p->items[at].name, sizeof p->items[at].name, "base_model.model.model.layers.%d.%s.lora_A.weight",
             layer, proj_path(proj));
    p->index_lora[layer][proj] = at;
    at = add_item(p, n_out, p->lora.r);
    snprintf(p->items[at].name, sizeof p->items[at].name, "base_model.model.model.layers.%d.%s.lora_B.weight",
             layer, proj_path(proj));
}

static enum status check(const struct lora_config *lora, int64_t new_first, int64_t n_new, struct err *err)
{
    bool any = false;
    for (int p = 0; p < N_PROJ; p++)
        any |= lora->target[p];
    if (any && (lora->r < 1 || lora->r > 4096))
        return err_set(err, ST_USAGE, "lora_r %d is not in 1..4096", lora->r);
    if (any && !(isfinite(lora->alpha)))
        return err_set(err, ST_USAGE, "lora_alpha is not a finite number");
    if (new_first < 0 || n_new < 0 || n_new > (1 << 24))
        return err_set(err, ST_INPUT, "%lld new rows from id %lld make no sense", (long long)n_new,
                       (long long)new_first);
    return ST_OK;
}

enum status params_init(struct params *p, const struct arch *a, const struct lora_config *lora,
                        int64_t new_first, int64_t n_new, bool untied_rows, struct err *err)
{
    *p = (struct params){
        .lora = *lora, .new_first = new_first, .n_new = n_new, .index_rows = -1, .index_head_rows = -1};
    TRY(check(lora, new_first, n_new, err));
    /* PEFT divides in double and multiplies float tensors by the result. */
    p->scaling = (float)(lora->alpha /
                         (lora->use_rslora ? sqrt((double)lora->r) : (double)(lora->r > 0 ? lora->r : 1)));
    p->untied_rows = untied_rows || !a->tied;
    p->tied_base = a->tied;
    p->items = calloc((size_t)a->n_layers * N_PROJ * 2 + 2, sizeof *p->items);
    p->index_lora = malloc((size_t)a->n_layers * sizeof *p->index_lora);
    if (!p->items || !p->index_lora)
        return err_memory(err, "the list of parameters", (size_t)a->n_layers * N_PROJ * 2 * sizeof *p->items);
    if (n_new > 0) {
        p->index_rows = add_item(p, n_new, a->hidden);
        strcpy(p->items[p->index_rows].name,
               "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta");
    }
    for (int32_t i = 0; i < a->n_layers; i++)
        for (int q = 0; q < N_PROJ; q++) {
            p->index_lora[i][q] = -1;
            if (lora->target[q])
                add_lora(p, a, i, (enum proj)q);
        }
    if (n_new > 0 && p->untied_rows) {
        p->index_head_rows = add_item(p, n_new, a->hidden);
        strcpy(p->items[p->index_head_rows].name,
               "base_model.model.lm_head.token_adapter.trainable_tokens_delta");
    }
    return ST_OK;
}

void params_release(struct params *p)
{
    free(p->items);
    free(p->index_lora);
    *p = (struct params){.index_rows = -1, .index_head_rows = -1};
}

/* Mean and standard deviation of each column of the base's first n rows, summed in row order. */
static bool column_stats(const struct weight *w, int64_t n, double *mean, double *spread)
{
    int64_t h = w->n_in;
    float *row = malloc((size_t)h * sizeof *row);
    if (!row)
        return false;
    memset(mean, 0, (size_t)h * sizeof *mean);
    memset(spread, 0, (size_t)h * sizeof *spread);
    for (int64_t i = 0; i < n; i++) {
        weight_row(w, i, row);
        for (int64_t j = 0; j < h; j++) {
            mean[j] += row[j];
            spread[j] += (double)row[j] * row[j];
        }
    }
    for (int64_t j = 0; j < h; j++) {
        mean[j] /= (double)n;
        double var = spread[j] / (double)n - mean[j] * mean[j];
        spread[j] = var > 0 ? sqrt(var) : 0;
    }
    free(row);
    return true;
}

static void start_rows(const struct params *p, int32_t item, const struct weight *w, uint64_t seed,
                       float *values)
{
    const struct param *it = &p->items[item];
    int64_t n_base = p->new_first < w->n_out ? p->new_first : w->n_out;
    double *mean = malloc((size_t)it->cols * 2 * sizeof *mean);
    if (!mean || n_base < 1 || !column_stats(w, n_base, mean, mean + it->cols)) {
        free(mean); /* rows at zero are a legal start, only a slower one */
        return;
    }
    /* Input and head rows that train apart begin equal on a tied base: same stream, same item number. */
    for (int64_t i = 0; i < it->rows * it->cols; i++) {
        int64_t j = i % it->cols;
        double z = rng_normal(seed, RNG_NEW_ROWS, 0, (uint64_t)i);
        values[it->offset + i] = (float)(mean[j] + NEW_ROW_SPREAD * mean[it->cols + j] * z);
    }
    free(mean);
}

void params_row(const struct params *p, const float *values, int32_t item, const struct weight *base,
                int64_t row, float *out)
{
    const size_t h = (size_t)base->n_in;
    const int64_t new_row = row - p->new_first;
    if (item >= 0 && new_row >= 0 && new_row < p->n_new)
        memcpy(out, values + p->items[item].offset + (size_t)new_row * h, h * sizeof *out);
    else if (row < base->n_out)
        weight_row(base, row, out);
    else
        memset(out, 0, h * sizeof *out);
}

void params_start(const struct params *p, const struct arch *a, const struct weight *embed,
                  const struct weight *head, uint64_t seed, float *values)
{
    memset(values, 0, (size_t)p->n_values * sizeof *values);
    if (p->index_rows >= 0)
        start_rows(p, p->index_rows, embed, seed, values);
    if (p->index_head_rows >= 0)
        start_rows(p, p->index_head_rows, head, seed, values);
    for (int32_t l = 0; l < a->n_layers; l++)
        for (int q = 0; q < N_PROJ; q++) {
            if (p->index_lora[l][q] < 0)
                continue;
            /* kaiming_uniform with a = sqrt(5), as PEFT: U(-1/sqrt(n_in), 1/sqrt(n_in)); B stays zero. */
            const struct param *it = &p->items[p->index_lora[l][q]];
            double bound = 1 / sqrt((double)it->cols);
            for (int64_t i = 0; i < it->rows * it->cols; i++) {
                double u = rng_uniform(seed, RNG_LORA_A, (uint32_t)(l * N_PROJ + q), (uint64_t)i);
                values[it->offset + i] = (float)((2 * u - 1) * bound);
            }
        }
}

enum status params_tensors(const struct params *p, const float *values, struct tensor_list *out,
                           struct err *err)
{
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct param *it = &p->items[i];
        TRY(tensor_list_add(out, it->name, DT_F32, 2, (int64_t[]){it->rows, it->cols}, values + it->offset,
                            err));
    }
    return ST_OK;
}
