/* A step's shards as bytes, from rank 0 to a rank of the same program: host order, checked when taken apart.
 */
#include "data/batch.h"
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAGIC 0x33534d53u /* "SMS3" */

struct message_head {
    uint32_t magic;
    int32_t n_shards;
    int64_t step, n_labels, n_rows, n_tokens, n_stem;
};
struct sequence_head {
    int32_t n_tokens, n_segments, n_labels;
};

static enum status packed_write(struct buf *out, const struct packed *p, struct err *err)
{
    struct sequence_head head = {p->n_tokens, p->n_segments, p->n_labels};
    size_t n_bytes = (size_t)p->n_tokens * sizeof(int32_t);
    TRY(buf_append(out, &head, sizeof head, err));
    TRY(buf_append(out, p->ids, n_bytes, err));
    TRY(buf_append(out, p->positions, n_bytes, err));
    TRY(buf_append(out, p->first_label, n_bytes + sizeof(int32_t), err));
    TRY(buf_append(out, p->labels, (size_t)p->n_labels * sizeof(int32_t), err));
    return buf_append(out, p->segments, (size_t)p->n_segments * sizeof *p->segments, err);
}

enum status step_write(struct buf *out, const struct step_head *head, const struct shard *shards,
                       int32_t n_shards, struct err *err)
{
    struct message_head m = {MESSAGE_MAGIC, n_shards,       head->step,  head->n_labels,
                             head->n_rows,  head->n_tokens, head->n_stem};
    TRY(buf_append(out, &m, sizeof m, err));
    for (int32_t s = 0; s < n_shards; s++) {
        TRY(buf_append(out, &shards[s].n_sequences, sizeof shards[s].n_sequences, err));
        for (int32_t i = 0; i < shards[s].n_sequences; i++)
            TRY(packed_write(out, &shards[s].sequences[i], err));
    }
    return ST_OK;
}

static enum status bad_message(struct err *err, const char *what)
{
    return err_set(err, ST_DEFECT, "a step's message is damaged: %s", what);
}

/* Each token's labels follow those of the one before, and rise. */
static enum status labels_check(const struct packed *p, struct err *err)
{
    if (p->first_label[0] != 0 || p->first_label[p->n_tokens] != p->n_labels)
        return bad_message(err, "labels are missing");
    for (int32_t t = 0; t < p->n_tokens; t++) {
        int32_t least = 0;
        if (p->first_label[t] > p->first_label[t + 1] || p->first_label[t + 1] > p->n_labels)
            return bad_message(err, "a token's labels");
        for (int32_t i = p->first_label[t]; i < p->first_label[t + 1]; i++) {
            if (p->labels[i] < least)
                return bad_message(err, "a label");
            least = p->labels[i];
        }
    }
    return ST_OK;
}

/* Segments must cover the sequence in order and hang below earlier ones; positions go on from the parent's.
 */
static enum status packed_check(const struct packed *p, struct err *err)
{
    int32_t at = 0;
    for (int32_t s = 0; s < p->n_segments; s++) {
        const struct segment *g = &p->segments[s];
        if (g->start != at || g->n_tokens < 1 || g->n_tokens > p->n_tokens - at)
            return bad_message(err, "segments do not follow each other");
        if (g->parent < -1 || g->parent >= s || g->row < -1)
            return bad_message(err, "a segment's parent or row");
        int32_t position = 0;
        if (g->parent >= 0) {
            const struct segment *above = &p->segments[g->parent];
            position = p->positions[above->start + above->n_tokens - 1] + 1;
        }
        for (int32_t t = 0; t < g->n_tokens; t++, at++) {
            if (p->positions[at] != position + t || p->ids[at] < 0)
                return bad_message(err, "a token");
        }
    }
    if (at != p->n_tokens)
        return bad_message(err, "tokens are missing");
    return labels_check(p, err);
}

/* n items copied out of the message; NULL when it has not that many left. */
static void *take_array(struct buf_reader *r, int64_t n, size_t item_bytes, struct err *err)
{
    size_t n_bytes = (size_t)n * item_bytes;
    if (n_bytes > r->n_bytes - r->at) {
        bad_message(err, "it ends early");
        return NULL;
    }
    void *array = malloc(n_bytes + 1);
    if (!array)
        err_memory(err, "a packed sequence", n_bytes);
    else
        (void)buf_take(r, array, n_bytes, err); /* the length was checked above */
    return array;
}

/* What was taken before a failure is in p, for the caller to release. */
static enum status packed_read(struct buf_reader *r, struct packed *p, struct err *err)
{
    struct sequence_head head;
    TRY(buf_take(r, &head, sizeof head, err));
    if (head.n_tokens < 1 || head.n_segments < 1 || head.n_labels < 0)
        return bad_message(err, "sizes of a sequence");
    *p = (struct packed){.n_tokens = head.n_tokens, .n_segments = head.n_segments, .n_labels = head.n_labels};
    p->ids = take_array(r, head.n_tokens, sizeof *p->ids, err);
    p->positions = take_array(r, head.n_tokens, sizeof *p->positions, err);
    p->first_label = take_array(r, (int64_t)head.n_tokens + 1, sizeof *p->first_label, err);
    p->labels = take_array(r, head.n_labels, sizeof *p->labels, err);
    p->segments = take_array(r, head.n_segments, sizeof *p->segments, err);
    if (!p->ids || !p->positions || !p->first_label || !p->labels || !p->segments)
        return bad_message(err, "it ends early"); /* or the first cause, which err keeps */
    return packed_check(p, err);
}

static enum status shard_read(struct buf_reader *r, struct shard *s, struct err *err)
{
    int32_t n_sequences;
    TRY(buf_take(r, &n_sequences, sizeof n_sequences, err));
    if (n_sequences < 0 || (size_t)n_sequences > (r->n_bytes - r->at) / sizeof(struct sequence_head))
        return bad_message(err, "number of sequences");
    s->sequences = calloc((size_t)n_sequences + 1, sizeof *s->sequences);
    if (!s->sequences)
        return err_memory(err, "a shard", (size_t)n_sequences * sizeof *s->sequences);
    for (; s->n_sequences < n_sequences; s->n_sequences++) {
        enum status status = packed_read(r, &s->sequences[s->n_sequences], err);
        if (status != ST_OK) {
            s->n_sequences++; /* released with the others */
            return status;
        }
    }
    return ST_OK;
}

/* The first n_stem tokens of all sequences: those of the first one, in a row of their own, without labels. */
static enum status stem_check(const struct shard *shards, int32_t n_shards, int64_t n_stem, struct err *err)
{
    const int32_t *ids = NULL;
    if (n_stem < 0 || n_stem > INT32_MAX)
        return bad_message(err, "the length of the stem");
    for (int32_t s = 0; s < n_shards; s++)
        for (int32_t i = 0; i < shards[s].n_sequences; i++) {
            const struct packed *p = &shards[s].sequences[i];
            if (n_stem > 0 && n_stem > p->segments[0].n_tokens - (p->n_segments == 1))
                return bad_message(err, "a sequence is shorter than the stem");
            ids = ids ? ids : p->ids;
            if (p->first_label[n_stem] > 0 || memcmp(p->ids, ids, (size_t)n_stem * sizeof *ids) != 0)
                return bad_message(err, "a sequence begins without the stem");
        }
    return ST_OK;
}

enum status step_read(const struct buf *in, struct step_head *head, struct shard **shards, int32_t *n_shards,
                      struct err *err)
{
    struct buf_reader r = {.data = in->data, .n_bytes = in->n_bytes};
    struct message_head m;
    *shards = NULL;
    *n_shards = 0;
    TRY(buf_take(&r, &m, sizeof m, err));
    if (m.magic != MESSAGE_MAGIC)
        return bad_message(err, "its first bytes");
    if (m.n_shards < 0 || (size_t)m.n_shards > (r.n_bytes - r.at) / sizeof(int32_t))
        return bad_message(err, "number of shards");
    struct shard *list = calloc((size_t)m.n_shards + 1, sizeof *list);
    if (!list)
        return err_memory(err, "shards", (size_t)m.n_shards * sizeof *list);
    enum status status = ST_OK;
    for (int32_t s = 0; s < m.n_shards && status == ST_OK; s++)
        status = shard_read(&r, &list[s], err);
    if (status == ST_OK && r.at != r.n_bytes)
        status = bad_message(err, "something follows its end");
    if (status == ST_OK)
        status = stem_check(list, m.n_shards, m.n_stem, err);
    if (status != ST_OK) {
        for (int32_t s = 0; s < m.n_shards; s++)
            shard_release(&list[s]);
        free(list);
        return status;
    }
    *head = (struct step_head){m.step, m.n_labels, m.n_rows, m.n_tokens, (int32_t)m.n_stem};
    *shards = list;
    *n_shards = m.n_shards;
    return ST_OK;
}
