/* Rows to packed sequences. Common beginnings are found with a tree of token runs that grows row by row, so
 * the length that a sequence would have with one more row is known before the row is taken. */
#include "batch_internal.h"
#include "util/order.h"
#include <stdlib.h>
#include <string.h>

/* A run of tokens: a leaf is what a row has alone, any other node is common to all rows below it. */
struct node {
    int32_t parent;
    int32_t first_child, next_sibling; /* -1: none */
    int32_t source;                    /* row whose tokens stand here */
    int32_t begin, end;                /* range in that row */
    int32_t row;                       /* leaf: the row; else -1 */
    int32_t segment;                   /* once placed, else -1 */
};

struct tree {
    const struct batch_row *rows;
    struct node *nodes; /* nodes[0] is the empty root */
    int32_t n_nodes;
    int32_t n_tokens, n_labels;
};

struct place {
    int32_t parent, child; /* the row goes below parent, having split child at `depth` when child >= 0 */
    int32_t depth;         /* tokens that the row then has in common */
};

/* Where row r and node c part. A row keeps its last token for itself. */
static int32_t common_run(const struct tree *tree, const struct node *c, const struct batch_row *r)
{
    const int32_t node_end = c->row < 0 ? c->end : c->end - 1, row_end = row_needed(r) - 1;
    return ids_differ(tree->rows[c->source].ids, r->ids, c->begin, node_end < row_end ? node_end : row_end);
}

static struct place tree_find(const struct tree *tree, const struct batch_row *r)
{
    struct place at = {.parent = 0, .child = -1, .depth = 0};
    for (;;) {
        int32_t best = -1, best_end = at.depth;
        for (int32_t c = tree->nodes[at.parent].first_child; c >= 0; c = tree->nodes[c].next_sibling) {
            int32_t end = common_run(tree, &tree->nodes[c], r);
            if (end > best_end) {
                best = c;
                best_end = end;
            }
        }
        if (best >= 0 && tree->nodes[best].row < 0 && best_end == tree->nodes[best].end) {
            at.parent = best;
            at.depth = best_end;
            continue;
        }
        if (best >= 0 && best_end - at.depth >= SHARE_MIN) {
            at.child = best;
            at.depth = best_end;
        }
        return at;
    }
}

static int32_t tree_node(struct tree *tree, struct node value)
{
    value.next_sibling = tree->nodes[value.parent].first_child;
    value.segment = -1;
    tree->nodes[tree->n_nodes] = value;
    tree->nodes[value.parent].first_child = tree->n_nodes;
    return tree->n_nodes++;
}

/* Cuts node c at `depth`: a new node takes its place and the first part, c goes below with the rest. */
static int32_t tree_split(struct tree *tree, int32_t c, int32_t depth)
{
    struct node *old = &tree->nodes[c];
    int32_t n = tree->n_nodes++, *link = &tree->nodes[old->parent].first_child;
    while (*link != c)
        link = &tree->nodes[*link].next_sibling;
    tree->nodes[n] = *old;
    tree->nodes[n].first_child = c;
    tree->nodes[n].end = depth;
    tree->nodes[n].row = -1;
    *link = n;
    old->parent = n;
    old->next_sibling = -1;
    old->begin = depth;
    return n;
}

/* A shared run's end behind `depth` is given to each node below it when it is too short for a run of its own:
 * how many tokens that takes beyond what it takes now. 0: it is kept, or c is a leaf. */
static int32_t given_tokens(const struct tree *tree, int32_t c, int32_t depth)
{
    const struct node *n = &tree->nodes[c];
    int32_t more = -1;
    if (n->row >= 0 || n->end - depth >= SHARE_MIN)
        return 0;
    for (int32_t child = n->first_child; child >= 0; child = tree->nodes[child].next_sibling)
        more++;
    return more * (n->end - depth);
}

static int32_t tree_give(struct tree *tree, int32_t c, int32_t depth)
{
    tree->nodes[c].end = depth;
    for (int32_t child = tree->nodes[c].first_child; child >= 0; child = tree->nodes[child].next_sibling)
        tree->nodes[child].begin = depth;
    return c;
}

/* Puts row i into the tree unless it would then be longer than max_tokens (the first row always fits). */
static bool tree_add(struct tree *tree, int32_t i, int32_t max_tokens, bool share_prefix)
{
    const struct batch_row *r = &tree->rows[i];
    struct place at = {.parent = 0, .child = -1, .depth = 0};
    if (share_prefix)
        at = tree_find(tree, r);
    int32_t needed = row_needed(r), added = needed - at.depth;
    int32_t given = at.child >= 0 ? given_tokens(tree, at.child, at.depth) : 0;
    if (tree->n_nodes > 1 && (added > max_tokens - given || tree->n_tokens > max_tokens - given - added))
        return false;
    if (at.child >= 0)
        at.parent = given > 0 ? tree_give(tree, at.child, at.depth) : tree_split(tree, at.child, at.depth);
    tree_node(
        tree,
        (struct node){
            .parent = at.parent, .first_child = -1, .source = i, .begin = at.depth, .end = needed, .row = i});
    tree->n_tokens += added + given;
    for (int32_t t = 0; t < needed; t++)
        tree->n_labels += row_label(r, t) >= 0;
    return true;
}

static void tree_clear(struct tree *tree)
{
    tree->nodes[0] =
        (struct node){.parent = -1, .first_child = -1, .next_sibling = -1, .row = -1, .segment = -1};
    tree->n_nodes = 1;
    tree->n_tokens = tree->n_labels = 0;
}

static void packed_release(struct packed *p)
{
    free(p->ids);
    free(p->positions);
    free(p->first_label);
    free(p->labels);
    free(p->segments);
    *p = (struct packed){0};
}

void shard_release(struct shard *s)
{
    for (int32_t i = 0; i < s->n_sequences; i++)
        packed_release(&s->sequences[i]);
    free(s->sequences);
    *s = (struct shard){0};
}

static enum status packed_reserve(struct packed *p, int32_t n_tokens, int32_t n_segments, int32_t n_labels,
                                  struct err *err)
{
    *p = (struct packed){.n_tokens = n_tokens, .n_segments = n_segments, .n_labels = n_labels};
    p->ids = malloc((size_t)n_tokens * sizeof *p->ids);
    p->positions = malloc((size_t)n_tokens * sizeof *p->positions);
    p->first_label = calloc((size_t)n_tokens + 1, sizeof *p->first_label);
    p->labels = malloc((size_t)n_labels * sizeof *p->labels + 1);
    p->segments = malloc((size_t)n_segments * sizeof *p->segments);
    if (p->ids && p->positions && p->first_label && p->labels && p->segments)
        return ST_OK;
    packed_release(p);
    return err_memory(err, "a packed sequence", (3 * (size_t)n_tokens + (size_t)n_labels) * sizeof *p->ids);
}

/* Writes the tokens of a node behind what is there already. */
static void place_node(struct packed *p, struct tree *tree, struct node *n, int32_t row_base)
{
    const struct batch_row *r = &tree->rows[n->source];
    int32_t at = p->n_tokens;
    n->segment = p->n_segments;
    p->segments[p->n_segments++] = (struct segment){.start = at,
                                                    .n_tokens = n->end - n->begin,
                                                    .parent = tree->nodes[n->parent].segment,
                                                    .row = n->row < 0 ? -1 : row_base + n->row};
    for (int32_t t = n->begin; t < n->end; t++, at++) {
        p->ids[at] = r->ids[t];
        p->positions[at] = t;
    }
    p->n_tokens = at;
}

/* Each label of the row that ends in that leaf, at the place of the token that is to predict it: counted in
 * first_label, or put in front of the place's end, which stands there then. */
static void leaf_labels(struct packed *p, const struct tree *tree, const struct node *leaf, bool put)
{
    const struct batch_row *r = &tree->rows[leaf->row];
    for (const struct node *n = leaf; n->parent >= 0; n = &tree->nodes[n->parent]) {
        int32_t *first = p->first_label + p->segments[n->segment].start - n->begin;
        for (int32_t t = n->begin; t < n->end; t++) {
            int32_t label = row_label(r, t);
            if (label >= 0 && put)
                p->labels[--first[t]] = label;
            else if (label >= 0)
                first[t]++;
        }
    }
}

static void leaves_labels(struct packed *p, const struct tree *tree, bool put)
{
    for (int32_t leaf = 1; leaf < tree->n_nodes; leaf++)
        if (tree->nodes[leaf].row >= 0)
            leaf_labels(p, tree, &tree->nodes[leaf], put);
}

static void place_labels(struct packed *p, const struct tree *tree)
{
    leaves_labels(p, tree, false);
    for (int32_t t = 1; t <= p->n_tokens; t++)
        p->first_label[t] += p->first_label[t - 1]; /* where each one's end */
    leaves_labels(p, tree, true);
    for (int32_t t = 0; t < p->n_tokens; t++)
        if (packed_n_labels(p, t) > 1)
            qsort(p->labels + p->first_label[t], (size_t)packed_n_labels(p, t), sizeof *p->labels,
                  order_int32);
}

/* Leaves in the order of the rows, each common run just before the first row that needs it. */
static enum status tree_place(struct tree *tree, struct packed *p, int32_t row_base, int32_t *chain,
                              struct err *err)
{
    TRY(packed_reserve(p, tree->n_tokens, tree->n_nodes - 1, tree->n_labels, err));
    p->n_tokens = p->n_segments = 0;
    for (int32_t leaf = 1; leaf < tree->n_nodes; leaf++) { /* nodes are made in the order of the rows */
        if (tree->nodes[leaf].row < 0)
            continue;
        int32_t depth = 0;
        for (int32_t n = leaf; n > 0 && tree->nodes[n].segment < 0; n = tree->nodes[n].parent)
            chain[depth++] = n;
        while (depth-- > 0)
            place_node(p, tree, &tree->nodes[chain[depth]], row_base);
    }
    place_labels(p, tree);
    return ST_OK;
}

static enum status rows_check(const struct batch_row *rows, int32_t n_rows, int32_t max_tokens,
                              struct err *err)
{
    if (max_tokens < 1)
        return err_set(err, ST_USAGE, "packed sequences of %d tokens, must be at least 1", max_tokens);
    for (int32_t i = 0; i < n_rows; i++) {
        if (rows[i].n_tokens < 1)
            return err_set(err, ST_INPUT, "row %d of the batch has no tokens", i);
    }
    return ST_OK;
}

static enum status shard_fill(struct shard *out, struct tree *tree, int32_t *chain, int32_t n_rows,
                              int32_t row_base, int32_t max_tokens, bool share_prefix, struct err *err)
{
    tree_clear(tree);
    for (int32_t i = 0; i < n_rows; i++) {
        if (tree_add(tree, i, max_tokens, share_prefix))
            continue;
        TRY(tree_place(tree, &out->sequences[out->n_sequences], row_base, chain, err));
        out->n_sequences++;
        tree_clear(tree);
        i--; /* an empty tree takes it */
    }
    if (tree->n_nodes == 1)
        return ST_OK;
    TRY(tree_place(tree, &out->sequences[out->n_sequences], row_base, chain, err));
    out->n_sequences++;
    return ST_OK;
}

enum status shard_make(struct shard *out, const struct batch_row *rows, int32_t n_rows, int32_t row_base,
                       int32_t max_tokens, bool share_prefix, struct err *err)
{
    *out = (struct shard){0};
    TRY(rows_check(rows, n_rows, max_tokens, err));
    size_t n_nodes = 2 * (size_t)n_rows + 1; /* a row makes a leaf and at most one split */
    struct tree tree = {.rows = rows, .nodes = malloc(n_nodes * sizeof *tree.nodes)};
    int32_t *chain = malloc(n_nodes * sizeof *chain);
    out->sequences = calloc((size_t)n_rows + 1, sizeof *out->sequences);
    enum status status = tree.nodes && chain && out->sequences
                             ? shard_fill(out, &tree, chain, n_rows, row_base, max_tokens, share_prefix, err)
                             : err_memory(err, "a shard", n_nodes * sizeof *tree.nodes);
    free(tree.nodes);
    free(chain);
    if (status != ST_OK)
        shard_release(out);
    return status;
}
