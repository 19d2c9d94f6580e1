/* Packed sequences: whatever is shared, walking up the segments gives back the rows, as far as their losses
 * need them, and each token has the labels of all rows through it. */
#include "data/batch.h"
#include "util/order.h"
#include "util/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_ROWS   40
#define MAX_TOKENS 64

struct rows {
    int32_t ids[MAX_ROWS][MAX_TOKENS], labels[MAX_ROWS][MAX_TOKENS];
    struct batch_row row[MAX_ROWS];
    int32_t n;
};

static void rows_add(struct rows *r, const int32_t *ids, int32_t n, int32_t first_label)
{
    for (int32_t t = 0; t < n; t++) {
        r->ids[r->n][t] = ids[t];
        r->labels[r->n][t] = first_label >= 0 && t >= first_label ? ids[t] : -100;
    }
    r->row[r->n] = (struct batch_row){r->ids[r->n], r->labels[r->n], n};
    r->n++;
}

static uint32_t draw(uint64_t seed, uint64_t *at, uint32_t below)
{
    return (uint32_t)(rng_u64(seed, RNG_TEST, 0, (*at)++) % below);
}

/* Rows whose beginnings come from a few stems, with labels that start anywhere. */
static void rows_draw(struct rows *r, uint64_t seed)
{
    uint64_t at = 0;
    int32_t n = 1 + (int32_t)draw(seed, &at, MAX_ROWS);
    r->n = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t ids[MAX_TOKENS], n_tokens = 1 + (int32_t)draw(seed, &at, MAX_TOKENS);
        uint32_t stem = draw(seed, &at, 3), same = draw(seed, &at, MAX_TOKENS);
        for (int32_t t = 0; t < n_tokens; t++)
            ids[t] = (uint32_t)t < same ? (int32_t)(t < 9 ? 7 : stem) * 100 + t : (int32_t)draw(seed, &at, 5);
        rows_add(r, ids, n_tokens, (int32_t)draw(seed, &at, MAX_TOKENS) - 4);
    }
}

static int32_t label_of(const struct batch_row *r, int32_t t)
{
    return t + 1 < r->n_tokens && r->labels[t + 1] != -100 ? r->labels[t + 1] : -1;
}

/* Tokens up to the last one with a label; all without. */
static int32_t needed(const struct batch_row *r)
{
    int32_t n = 0;
    for (int32_t t = 0; t < r->n_tokens; t++)
        n = label_of(r, t) >= 0 ? t + 1 : n;
    return n > 0 ? n : r->n_tokens;
}

/* Labels that a sequence's tokens should have: those of the rows, as they come. */
struct wanted {
    int32_t n[MAX_ROWS * MAX_TOKENS], labels[MAX_ROWS * MAX_TOKENS][MAX_ROWS];
};

static void check_labels(const struct packed *p, struct wanted *w)
{
    assert_int_equal(p->first_label[0], 0);
    assert_int_equal(p->first_label[p->n_tokens], p->n_labels);
    for (int32_t t = 0; t < p->n_tokens; t++) {
        size_t n = (size_t)w->n[t];
        assert_int_equal(packed_n_labels(p, t), w->n[t]);
        qsort(w->labels[t], n, sizeof(int32_t), order_int32);
        assert_memory_equal(p->labels + p->first_label[t], w->labels[t], n * sizeof(int32_t));
    }
}

/* Copies the tokens of a segment and those above it to the places that their positions name, and what row r
 * has for their labels to w. */
static int32_t unshare(const struct packed *p, int32_t segment, int32_t *ids, const struct batch_row *r,
                       struct wanted *w)
{
    int32_t n = 0;
    for (int32_t s = segment; s >= 0; s = p->segments[s].parent) {
        const struct segment *g = &p->segments[s];
        if (s != segment)
            assert_int_equal(g->row, -1);
        for (int32_t t = g->start; t < g->start + g->n_tokens; t++) {
            assert_in_range(p->positions[t], 0, MAX_TOKENS - 1);
            ids[p->positions[t]] = p->ids[t];
            int32_t label = label_of(r, p->positions[t]);
            if (label >= 0)
                w->labels[t][w->n[t]++] = label;
        }
        n += g->n_tokens;
    }
    assert_int_equal(p->positions[p->segments[segment].start + p->segments[segment].n_tokens - 1], n - 1);
    return n;
}

/* All that must hold for one shard; returns its tokens. */
static int32_t check_shard(const struct shard *s, const struct rows *r, int32_t row_base, int32_t max_tokens,
                           bool share)
{
    int32_t next_row = 0, n_all = 0, n_labels = 0, want_labels = 0;
    for (int32_t i = 0; i < r->n; i++) {
        for (int32_t t = 0; t < r->row[i].n_tokens; t++)
            want_labels += label_of(&r->row[i], t) >= 0;
    }
    for (int32_t q = 0; q < s->n_sequences; q++) {
        const struct packed *p = &s->sequences[q];
        int32_t at = 0, n_rows = 0, children[2 * MAX_ROWS] = {0};
        static struct wanted w;
        memset(w.n, 0, sizeof w.n);
        for (int32_t g = 0; g < p->n_segments; g++) {
            const struct segment *seg = &p->segments[g];
            assert_int_equal(seg->start, at);
            assert_true(seg->n_tokens > 0 && seg->parent >= -1 && seg->parent < g);
            at += seg->n_tokens;
            if (seg->parent >= 0)
                children[seg->parent]++;
            if (!share)
                assert_true(seg->parent == -1 && seg->row >= 0);
            if (seg->row < 0)
                continue;
            int32_t ids[MAX_TOKENS];
            const struct batch_row *row = &r->row[next_row];
            assert_int_equal(seg->row, row_base + next_row); /* rows keep their order */
            next_row++;
            n_rows++;
            assert_int_equal(unshare(p, g, ids, row, &w), needed(row));
            assert_memory_equal(ids, row->ids, (size_t)needed(row) * sizeof *ids);
        }
        check_labels(p, &w);
        for (int32_t g = 0; g < p->n_segments; g++)
            assert_true(p->segments[g].row >= 0 ? children[g] == 0 : children[g] >= 2);
        assert_int_equal(at, p->n_tokens);
        assert_true(at <= max_tokens || n_rows == 1);
        n_all += at;
        n_labels += p->n_labels;
    }
    assert_int_equal(next_row, r->n);
    assert_int_equal(n_labels, want_labels);
    return n_all;
}

static struct shard make(const struct rows *r, int32_t row_base, int32_t max_tokens, bool share)
{
    struct shard s;
    struct err err = ERR_INIT;
    if (shard_make(&s, r->row, r->n, row_base, max_tokens, share, &err) != ST_OK)
        fail_msg("%s", err.what);
    return s;
}

static void random_rows_come_back(void **unused)
{
    static struct rows r;
    int n_smaller = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        rows_draw(&r, seed);
        int32_t max_tokens = 1 + (int32_t)(seed * 37 % 900), n[2];
        for (int share = 0; share < 2; share++) {
            struct shard s = make(&r, 5, max_tokens, share);
            n[share] = check_shard(&s, &r, 5, max_tokens, share);
            shard_release(&s);
        }
        assert_true(n[1] <= n[0]);
        n_smaller += n[1] < n[0];
    }
    assert_true(n_smaller > 200);
}

/* A common beginning of 6, two texts of 5 below it; the rows of one text are not neighbours. */
static void nested_prefixes_stand_once(void **unused)
{
    static struct rows r;
    static const int32_t ids[4][14] = {{1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 50, 51, 52},
                                       {1, 2, 3, 4, 5, 6, 21, 22, 23, 24, 25, 50, 61, 62},
                                       {1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 50, 71, 72},
                                       {1, 2, 3, 4, 5, 6, 21, 22, 23, 24, 25, 50, 81, 82}};
    r.n = 0;
    for (int i = 0; i < 4; i++)
        rows_add(&r, ids[i], 14, 11);
    struct shard s = make(&r, 0, 1000, true);
    assert_int_equal(s.n_sequences, 1);
    const struct packed *p = &s.sequences[0];
    /* The answers of a text begin alike, and nobody needs their last tokens. */
    static const struct segment want[] = {{0, 6, -1, -1}, {6, 6, 0, -1}, {12, 1, 1, 0}, {13, 6, 0, -1},
                                          {19, 1, 3, 1},  {20, 1, 1, 2}, {21, 1, 3, 3}};
    static const int32_t labels[] = {50, 50, 51, 71, 52, 50, 50, 61, 81, 62, 72, 82};
    assert_int_equal(p->n_segments, 7);
    assert_memory_equal(p->segments, want, sizeof want);
    assert_int_equal(p->n_tokens, 22);
    assert_int_equal(p->n_labels, 4 * 3);
    assert_memory_equal(p->labels, labels, sizeof labels);
    check_shard(&s, &r, 0, 1000, true);
    shard_release(&s);
}

static int32_t shared_tokens(const struct rows *r)
{
    struct shard s = make(r, 0, 100, true);
    int32_t n = check_shard(&s, r, 0, 100, true);
    assert_int_equal(s.n_sequences, 1);
    shard_release(&s);
    return n;
}

/* Rows that differ from `differ` on share what comes before if it is 4 tokens or more, with or without
 * labels; equal ones keep the last token that they need. */
static void short_runs_are_not_shared(void **unused)
{
    static struct rows r;
    int32_t ids[2][8] = {{1, 2, 3, 4, 5, 6, 7, 8}};
    for (int first = 0; first < 8; first++)
        for (int differ = 0; differ <= 8; differ++) {
            for (int t = 0; t < 8; t++)
                ids[1][t] = ids[0][t] + (t >= differ ? 100 : 0);
            r.n = 0;
            rows_add(&r, ids[0], 8, first);
            rows_add(&r, ids[1], 8, first);
            int32_t common = differ < 6 ? differ : 6;
            assert_int_equal(shared_tokens(&r), common >= 4 ? 14 - common : 14);
        }
    r.n = 0; /* equal rows without any label: each keeps its last token */
    rows_add(&r, ids[0], 8, -1);
    rows_add(&r, ids[0], 8, -1);
    assert_int_equal(shared_tokens(&r), 9);
}

/* A run shared by two rows that a third one leaves near its end gives that end to the two; farther in front
 * it is cut in two. */
static void short_ends_are_given_back(void **unused)
{
    static struct rows r;
    static const struct segment given[] = {{0, 10, -1, -1}, {10, 9, 0, 0}, {19, 9, 0, 1}, {28, 9, 0, 2}},
                                cut[] = {{0, 9, -1, -1},
                                         {9, 4, 0, -1},
                                         {13, 6, 1, 0},
                                         {19, 6, 1, 1},
                                         {25, 10, 0, 2}};
    for (int leaves = 9; leaves <= 10; leaves++) {
        r.n = 0;
        for (int i = 0; i < 3; i++) {
            int32_t ids[20];
            for (int t = 0; t < 20; t++)
                ids[t] = t < (i < 2 ? 13 : leaves) ? t : 100 * i + t;
            rows_add(&r, ids, 20, 12);
        }
        struct shard s = make(&r, 0, 1000, true);
        const struct packed *p = &s.sequences[0];
        assert_int_equal(p->n_segments, leaves == 10 ? 4 : 5);
        assert_memory_equal(p->segments, leaves == 10 ? given : cut,
                            leaves == 10 ? sizeof given : sizeof cut);
        int32_t n = check_shard(&s, &r, 0, 1000, true);
        shard_release(&s);
        s = make(&r, 0, n, true); /* the tokens given back count */
        assert_int_equal(s.n_sequences, 1);
        shard_release(&s);
        s = make(&r, 0, n - 1, true);
        assert_int_equal(s.n_sequences, 2);
        check_shard(&s, &r, 0, n - 1, true);
        shard_release(&s);
    }
}

/* The bound holds for the shared length, so that sharing brings more rows into a sequence. */
static void the_bound_is_on_shared_tokens(void **unused)
{
    static struct rows r;
    int32_t ids[20];
    r.n = 0;
    for (int32_t i = 0; i < 6; i++) {
        for (int32_t t = 0; t < 20; t++)
            ids[t] = t < 16 ? t : 100 * i + t;
        rows_add(&r, ids, 20, 17);
    }
    struct shard shared = make(&r, 0, 34, true), plain = make(&r, 0, 40, false);
    assert_int_equal(shared.n_sequences, 1); /* 16 + 6 * 3 */
    assert_int_equal(shared.sequences[0].n_tokens, 34);
    assert_int_equal(plain.n_sequences, 3);
    shard_release(&shared);
    shard_release(&plain);
    shared = make(&r, 0, 33, true);
    assert_int_equal(shared.n_sequences, 2);
    assert_int_equal(shared.sequences[1].n_tokens, 19);
    shard_release(&shared);
    shared = make(&r, 0, 7, true); /* a longer row gets its own */
    assert_int_equal(shared.n_sequences, 6);
    check_shard(&shared, &r, 0, 7, true);
    shard_release(&shared);
}

/* Tokens of the shards' sequences, the common beginning of all rows counted once a shard. */
static int32_t dealt_tokens(const struct rows *r, const int32_t *first, int32_t s, bool share)
{
    struct rows part = {.n = first[s + 1] - first[s]};
    int32_t n = 0;
    memcpy(part.row, r->row + first[s], (size_t)part.n * sizeof *part.row);
    struct shard shard = make(&part, 0, 1 << 20, share);
    for (int32_t q = 0; q < shard.n_sequences; q++)
        n += shard.sequences[q].n_tokens;
    shard_release(&shard);
    return n;
}

static void all_rows_are_dealt(void **unused)
{
    static struct rows r;
    int32_t first[17];
    for (uint64_t seed = 0; seed < 40; seed++) {
        rows_draw(&r, seed);
        for (int32_t shards = 1; shards <= 16; shards++)
            for (int share = 0; share < 2; share++) {
                if (share)
                    step_sort(r.row, r.n);
                step_deal(r.row, r.n, shards, share, first);
                assert_int_equal(first[0], 0);
                assert_int_equal(first[shards], r.n);
                for (int32_t s = 0; s < shards; s++)
                    assert_true(first[s + 1] > first[s] || (first[s + 1] == first[s] && r.n < shards));
            }
    }
    step_deal(r.row, 0, 4, true, first);
    for (int s = 0; s <= 4; s++)
        assert_int_equal(first[s], 0);
}

/* Long rows and short ones: shards differ by no more than a row and what it shares, not by their rows'
 * number. */
static void shards_are_alike(void **unused)
{
    enum { N = 36, SHARDS = 4 };
    static struct rows r;
    int32_t first[SHARDS + 1], ids[MAX_TOKENS];
    for (int share = 0; share < 2; share++) {
        r.n = 0;
        for (int32_t i = 0; i < N; i++) {
            int32_t n = i < N / 2 ? 60 : 30; /* the long ones have their first 50 in common, all of them 10 */
            for (int32_t t = 0; t < n; t++)
                ids[t] = t < 10 ? t : i < N / 2 && t < 50 ? 100 + t : 1000 * (i + 1) + t;
            rows_add(&r, ids, n, 25);
        }
        step_deal(r.row, N, SHARDS, share, first);
        int32_t least = INT32_MAX, most = 0;
        for (int32_t s = 0; s < SHARDS; s++) {
            int32_t n = dealt_tokens(&r, first, s, share);
            least = n < least ? n : least;
            most = n > most ? n : most;
        }
        assert_true(most - least <= (share ? 50 : 60));
        /* By rows the first half's tokens are twice the second's apart, and half of them shared. */
        assert_true(share ? first[1] > N / SHARDS : first[1] < N / SHARDS);
    }
}

static void empty_rows_and_bounds_are_refused(void **unused)
{
    static struct rows r;
    struct shard s;
    struct err err = ERR_INIT;
    static const int32_t ids[] = {1};
    r.n = 0;
    s = make(&r, 0, 10, true);
    assert_int_equal(s.n_sequences, 0);
    shard_release(&s);
    rows_add(&r, ids, 1, -1);
    assert_int_equal(shard_make(&s, r.row, 1, 0, 0, true, &err), ST_USAGE);
    err = (struct err)ERR_INIT;
    r.row[0].n_tokens = 0;
    assert_int_equal(shard_make(&s, r.row, 1, 0, 10, true, &err), ST_INPUT);
}

static void rows_are_sorted(void **unused)
{
    static const int32_t ids[][4] = {{5, 1, 2, 3}, {4, 9, 9, 9}, {5, 1, 1, 9},
                                     {5, 1, 2, 9}, {5, 1, 2, 3}, {-7, 0, 0, 0}};
    static const int32_t labels[][4] = {{0, 0, 2, 0}, {0, 0, 0, 0}, {0, 0, 0, 0},
                                        {0, 0, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 0}};
    static const int want[] = {5, 1, 2, 3, 4, 0}; /* the fourth row is cut to three tokens */
    struct batch_row rows[6];
    for (int first = 0; first < 6; first++) { /* wherever they stood before */
        for (int i = 0; i < 6; i++) {
            int from = (i * 5 + first) % 6;
            rows[i] = (struct batch_row){ids[from], labels[from], from == 3 ? 3 : 4};
        }
        step_sort(rows, 6);
        for (int i = 0; i < 6; i++)
            assert_ptr_equal(rows[i].ids, ids[want[i]]);
    }
    step_sort(rows, 0);
}

static void stems_are_found(void **unused)
{
    enum { N = 6, LENGTH = 60 };
    static int32_t ids[N][LENGTH], labels[N][LENGTH];
    struct batch_row rows[N];
    for (int i = 0; i < N; i++) {
        rows[i] = (struct batch_row){ids[i], labels[i], LENGTH - i};
        for (int t = 0; t < LENGTH; t++) {
            ids[i][t] = t < 50 ? t : 100 * i + t;
            labels[i][t] = t < 50 ? -100 : ids[i][t];
        }
    }
    /* Token 49 has token 50 as its target. */
    assert_int_equal(step_stem(rows, N, 6), 49);
    assert_int_equal(step_stem(rows, N, 7), 0); /* a shard would be empty */
    assert_int_equal(step_stem(rows, 1, 1), 0);
    assert_int_equal(step_stem(rows, 0, 0), 0);
    ids[3][40] = 7;
    assert_int_equal(step_stem(rows, N, 2), 40);
    assert_int_equal(step_stem(rows, 3, 2), 49);
    labels[5][36] = 3;
    assert_int_equal(step_stem(rows, N, 2), 35);
    rows[4].n_tokens = 34; /* its last token stays its own */
    assert_int_equal(step_stem(rows, N, 2), 33);
    ids[1][31] = 99; /* too short to be worth it */
    assert_int_equal(step_stem(rows, N, 2), 0);
}

static void stems_are_checked(void **unused)
{
    int32_t ids[6] = {1, 2, 3, 1, 2, 4}, positions[3] = {0, 1, 2}, first_label[4] = {0}, labels[1] = {5};
    struct segment whole = {0, 3, -1, 0};
    struct packed p[2] = {{3, 1, 0, ids, positions, first_label, labels, &whole},
                          {3, 1, 0, ids + 3, positions, first_label, labels, &whole}};
    struct shard shards[2] = {{&p[0], 1}, {&p[1], 1}}, *back;
    static const struct {
        int32_t n_stem;
        enum status status;
    } rows[] = {{0, ST_OK}, {1, ST_OK}, {2, ST_OK}, {3, ST_DEFECT}, {4, ST_DEFECT}, {-1, ST_DEFECT}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int change = 0; change < 3; change++) {
            struct buf text = BUF_INIT;
            struct err err = ERR_INIT;
            struct step_head head = {.n_rows = 2, .n_tokens = 6, .n_stem = rows[i].n_stem}, got;
            int32_t n;
            ids[4] = change == 1 ? 7 : 2; /* the second sequence begins otherwise */
            for (int t = 1; t < 4; t++)   /* the first token has a label */
                first_label[t] = change == 2;
            p[0].n_labels = p[1].n_labels = change == 2;
            assert_int_equal(step_write(&text, &head, shards, 2, &err), ST_OK);
            enum status want = rows[i].status;
            if ((change == 1 && rows[i].n_stem > 1) || (change == 2 && rows[i].n_stem > 0))
                want = ST_DEFECT;
            assert_int_equal(step_read(&text, &got, &back, &n, &err), want);
            if (want == ST_OK) {
                assert_int_equal(got.n_stem, rows[i].n_stem);
                shard_release(&back[0]);
                shard_release(&back[1]);
                free(back);
            }
            buf_release(&text);
        }
}

static void message_of(struct buf *out, struct shard shards[2], struct step_head *head)
{
    static struct rows r;
    struct err err = ERR_INIT;
    rows_draw(&r, 11);
    shards[0] = make(&r, 0, 60, true);
    shards[1] = (struct shard){0};
    *head = (struct step_head){.step = 7, .n_labels = 99, .n_rows = r.n, .n_tokens = 12345678901};
    assert_int_equal(step_write(out, head, shards, 2, &err), ST_OK);
}

static void steps_survive_their_message(void **unused)
{
    struct buf text = BUF_INIT;
    struct shard shards[2], *back;
    struct step_head head, head_back;
    struct err err = ERR_INIT;
    int32_t n;
    message_of(&text, shards, &head);
    assert_int_equal(step_read(&text, &head_back, &back, &n, &err), ST_OK);
    assert_memory_equal(&head, &head_back, sizeof head);
    assert_int_equal(n, 2);
    assert_int_equal(back[1].n_sequences, 0);
    assert_int_equal(back[0].n_sequences, shards[0].n_sequences);
    assert_true(back[0].n_sequences > 1);
    for (int32_t i = 0; i < back[0].n_sequences; i++) {
        const struct packed *a = &shards[0].sequences[i], *b = &back[0].sequences[i];
        size_t n_bytes = (size_t)a->n_tokens * sizeof *a->ids;
        assert_true(a->n_tokens == b->n_tokens && a->n_segments == b->n_segments &&
                    a->n_labels == b->n_labels);
        assert_memory_equal(a->ids, b->ids, n_bytes);
        assert_memory_equal(a->positions, b->positions, n_bytes);
        assert_memory_equal(a->first_label, b->first_label, n_bytes + sizeof *a->first_label);
        assert_memory_equal(a->labels, b->labels, (size_t)a->n_labels * sizeof *a->labels);
        assert_memory_equal(a->segments, b->segments, (size_t)a->n_segments * sizeof *a->segments);
    }
    for (int i = 0; i < 2; i++) {
        shard_release(&shards[i]);
        shard_release(&back[i]);
    }
    free(back);
    buf_release(&text);
}

/* Cut anywhere, longer, or with any word changed to a wild number: an error or a consistent step, never a
 * crash. */
static void damaged_messages_are_refused(void **unused)
{
    struct buf text = BUF_INIT;
    struct shard shards[2], *back;
    struct step_head head;
    int32_t n;
    message_of(&text, shards, &head);
    size_t n_bytes = text.n_bytes;
    for (size_t cut = 0; cut < n_bytes; cut++) {
        struct err err = ERR_INIT;
        text.n_bytes = cut;
        assert_int_equal(step_read(&text, &head, &back, &n, &err), ST_DEFECT);
        assert_null(back);
    }
    text.n_bytes = n_bytes;
    int n_refused = 0, n_tried = 0;
    for (size_t word = 0; word + 4 <= n_bytes; word += 4) {
        static const int32_t wild[] = {-1, INT32_MAX, INT32_MIN, 1 << 20};
        int32_t kept;
        memcpy(&kept, text.data + word, 4);
        for (int w = 0; w < 4; w++, n_tried++) {
            struct err err = ERR_INIT;
            memcpy(text.data + word, &wild[w], 4);
            if (step_read(&text, &head, &back, &n, &err) != ST_OK) {
                n_refused++;
                continue;
            }
            for (int32_t i = 0; i < n; i++)
                shard_release(&back[i]);
            free(back);
        }
        memcpy(text.data + word, &kept, 4);
    }
    assert_true(n_refused > n_tried / 3);
    struct err err = ERR_INIT;
    assert_int_equal(buf_append(&text, "x", 1, &err), ST_OK);
    assert_int_equal(step_read(&text, &head, &back, &n, &err), ST_DEFECT);
    assert_non_null(strstr(err.what, "follows"));
    shard_release(&shards[0]);
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_rows_come_back),
        cmocka_unit_test(nested_prefixes_stand_once),
        cmocka_unit_test(short_runs_are_not_shared),
        cmocka_unit_test(short_ends_are_given_back),
        cmocka_unit_test(the_bound_is_on_shared_tokens),
        cmocka_unit_test(all_rows_are_dealt),
        cmocka_unit_test(shards_are_alike),
        cmocka_unit_test(empty_rows_and_bounds_are_refused),
        cmocka_unit_test(steps_survive_their_message),
        cmocka_unit_test(rows_are_sorted),
        cmocka_unit_test(stems_are_found),
        cmocka_unit_test(stems_are_checked),
        cmocka_unit_test(damaged_messages_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
