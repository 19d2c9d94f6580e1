/* In which order a PEFT directory stores the new rows. In memory they lie by their ids; a file has them as
 * adapter_config.json lists them, the moments of optimizer.pt likewise. */
#include "checkpoint/state.h"
#include "train/adapter.h"
#include "train_internal.h"
#include "util/file.h"
#include <stdlib.h>
#include <string.h>

bool order__is_flipped(const struct params *p)
{
    return p->tied_base && p->index_head_rows >= 0;
}

void adapter_row_ids(const struct params *p, int64_t *embed, int64_t *head)
{
    const bool reversed = order__is_flipped(p);
    for (int64_t i = 0; i < p->n_new; i++) {
        embed[i] = p->new_first + i;
        head[i] = p->new_first + (reversed ? p->n_new - 1 - i : i);
    }
}

void order__flip(const struct params *p, float *values)
{
    if (!order__is_flipped(p))
        return;
    const struct param *it = &p->items[p->index_head_rows];
    for (int64_t i = 0, k = it->rows - 1; i < k; i++, k--)
        for (int64_t j = 0; j < it->cols; j++) {
            float *a = values + it->offset + i * it->cols + j, *b = values + it->offset + k * it->cols + j;
            const float kept = *a;
            *a = *b;
            *b = kept;
        }
}

void order__release(struct row_order *o)
{
    free(o->embed);
    free(o->head);
    *o = (struct row_order){0};
}

static enum status order_alloc(struct row_order *o, const struct params *p, struct err *err)
{
    const size_t n_bytes = (size_t)p->n_new * sizeof *o->embed;
    *o = (struct row_order){.embed = malloc(n_bytes + 1), .head = malloc(n_bytes + 1)};
    if (o->embed != NULL && o->head != NULL)
        return ST_OK;
    order__release(o);
    return err_memory(err, "the order of new rows", 2 * n_bytes);
}

/* A list of ids, each once (its reader saw to that), as rows of ours. */
static enum status take_list(int64_t *rows, const int64_t *ids, int64_t n, const struct params *p,
                             const char *dir, const char *module, struct err *err)
{
    enum status st = ST_OK;
    if (n != p->n_new)
        st = err_set(err, ST_INPUT, "%s: %lld rows of %s were trained, here it is %lld", dir, (long long)n,
                     module, (long long)p->n_new);
    for (int64_t i = 0; i < n && st == ST_OK; i++) {
        rows[i] = ids[i] - p->new_first;
        if (rows[i] < 0 || rows[i] >= p->n_new)
            st = err_set(err, ST_INPUT, "%s: row %lld of %s was trained, here it is rows %lld to %lld", dir,
                         (long long)ids[i], module, (long long)p->new_first,
                         (long long)(p->new_first + p->n_new - 1));
    }
    if (st != ST_OK)
        err_hint(err, "the adapter was made for another vocabulary: see trainable_token_indices in its "
                      "adapter_config.json");
    return st;
}

/* What the tensors' names and shapes do not show, and what would change what they mean. */
static enum status check_scaling(const struct adapter_config *c, const struct params *p, const char *dir,
                                 struct err *err)
{
    enum status st = ST_OK;
    if (p->lora.r < 1)
        return ST_OK;
    if (c->alpha != p->lora.alpha) {
        st = err_set(err, ST_INPUT, "%s: lora_alpha is %g, here it is %g", dir, c->alpha, p->lora.alpha);
        err_hint(err, "set lora_alpha as the adapter was made");
    } else if (c->use_rslora != p->lora.use_rslora) {
        st = err_set(err, ST_INPUT, "%s: use_rslora is %s, here it is %s", dir,
                     c->use_rslora ? "true" : "false", p->lora.use_rslora ? "true" : "false");
        err_hint(err, "set init_adapter to that directory: its scaling is taken over");
    }
    return st;
}

enum status order__read(struct row_order *o, const char *dir, const struct params *p, struct err *err)
{
    char path[PATH_BYTES];
    struct adapter_config c = {0};
    TRY(path_join(path, dir, "adapter_config.json", err));
    TRY(order_alloc(o, p, err));
    for (int64_t i = 0; i < p->n_new; i++)
        o->embed[i] = o->head[i] = i;
    enum status st = file_exists(path) ? adapter_config_read(&c, dir, err) : ST_OK;
    o->dropout = c.dropout;
    if (st == ST_OK && c.r > 0)
        st = check_scaling(&c, p, dir, err);
    if (st == ST_OK && c.n_embed_rows > 0 && p->index_rows >= 0)
        st = take_list(o->embed, c.embed_rows, c.n_embed_rows, p, dir, "embed_tokens", err);
    if (st == ST_OK && c.n_head_rows > 0 && p->index_head_rows >= 0)
        st = take_list(o->head, c.head_rows, c.n_head_rows, p, dir, "lm_head", err);
    adapter_config_release(&c);
    if (st != ST_OK)
        order__release(o);
    return st;
}

static bool is_ascending(const int64_t *rows, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (rows[i] != i)
            return false;
    return true;
}

static enum status turn_item(const struct params *p, int32_t index, const int64_t *rows, float *values,
                             struct err *err)
{
    if (index < 0 || is_ascending(rows, p->n_new))
        return ST_OK;
    const struct param *it = &p->items[index];
    const size_t width = (size_t)it->cols, n_bytes = (size_t)it->rows * width * sizeof(float);
    float *at = values + it->offset, *copy = malloc(n_bytes + 1);
    if (copy == NULL)
        return err_memory(err, "rows in another order", n_bytes);
    memcpy(copy, at, n_bytes);
    for (int64_t k = 0; k < it->rows; k++)
        memcpy(at + (size_t)rows[k] * width, copy + (size_t)k * width, width * sizeof *at);
    free(copy);
    return ST_OK;
}

enum status order__apply(const struct row_order *o, const struct params *p, float *values, struct err *err)
{
    TRY(turn_item(p, p->index_rows, o->embed, values, err));
    return turn_item(p, p->index_head_rows, o->head, values, err);
}
