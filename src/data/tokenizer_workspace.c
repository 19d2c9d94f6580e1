/* What one run of the encoder writes to. Kept for the next run, one for each caller at work at the same time.
 */
#include "tokenizer_internal.h"
#include <stdlib.h>

/* A long text's buffers are not kept: a tokenizer that once met a book would hold it for ever. */
#define KEEP_BYTES ((size_t)1 << 20)

static void workspace_free(struct workspace *s)
{
    for (int i = 0; i < 2; i++)
        buf_release(&s->normal[i]);
    for (int i = 0; i < MAX_STEPS; i++)
        buf_release(&s->step[i]);
    buf_release(&s->mapped);
    ids_release(&s->symbols);
    ids_release(&s->points);
    ids_release(&s->spelled);
    free(s->work);
    free(s->cache);
    pcre2_match_data_free(s->match);
    free(s);
}

static enum status workspace_new(struct workspace **out, struct err *err)
{
    struct workspace *s = calloc(1, sizeof *s);
    if (!s)
        return err_memory(err, "the tokenizer", sizeof *s);
    s->match = pcre2_match_data_create(1, NULL);
    s->cache = calloc(CACHE_ENTRIES, sizeof *s->cache);
    if (!s->match || !s->cache) {
        workspace_free(s);
        return err_memory(err, "the tokenizer", CACHE_ENTRIES * sizeof *s->cache);
    }
    *out = s;
    return ST_OK;
}

enum status tokenizer__workspace_take(struct workspace_pool *pool, struct workspace **out, struct err *err)
{
    pthread_mutex_lock(&pool->lock);
    *out = pool->free;
    if (*out)
        pool->free = (*out)->next;
    pthread_mutex_unlock(&pool->lock);
    return *out ? ST_OK : workspace_new(out, err);
}

static void buf_trim(struct buf *b)
{
    if (b->capacity > KEEP_BYTES)
        buf_release(b);
}

static void ids_trim(struct ids *ids)
{
    if ((size_t)ids->capacity * sizeof *ids->data > KEEP_BYTES)
        ids_release(ids);
}

void tokenizer__workspace_give(struct workspace_pool *pool, struct workspace *s)
{
    for (int i = 0; i < 2; i++)
        buf_trim(&s->normal[i]);
    for (int i = 0; i < MAX_STEPS; i++)
        buf_trim(&s->step[i]);
    buf_trim(&s->mapped);
    ids_trim(&s->symbols);
    ids_trim(&s->points);
    ids_trim(&s->spelled);
    if (s->work_bytes > KEEP_BYTES) {
        free(s->work);
        s->work = NULL;
        s->work_bytes = 0;
    }
    pthread_mutex_lock(&pool->lock);
    s->next = pool->free;
    pool->free = s;
    pthread_mutex_unlock(&pool->lock);
}

void tokenizer__workspace_pool_release(struct workspace_pool *pool)
{
    while (pool->free) {
        struct workspace *s = pool->free;
        pool->free = s->next;
        workspace_free(s);
    }
    pthread_mutex_destroy(&pool->lock);
}
