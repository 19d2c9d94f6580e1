/* Runs the steps of the pre-tokenizer: each step gets one piece and hands its parts to the next step; what
 * comes out of the last one is a word for BPE. Depth is the number of steps. */
#include "tokenizer_internal.h"
#include <string.h>

struct run {
    const struct tokenizer *t;
    struct workspace *s;
    struct ids *out;
    struct err *err;
};

static enum status run_step(const struct run *r, int k, const char *text, size_t n_bytes, bool at_start);

/* Turns matches and what is between them into parts, as `behavior` says. */
struct parts {
    const struct run *r;
    int next; /* step that gets the parts */
    const char *text;
    bool at_start;
    enum split_behavior behavior;
    bool pending, previous; /* a part is held back; the last range was a match */
    size_t start, end;      /* of the part held back */
};

static enum status part_out(const struct parts *p, size_t start, size_t end)
{
    if (start == end)
        return ST_OK;
    return run_step(p->r, p->next, p->text + start, end - start, p->at_start && start == 0);
}

static enum status parts_flush(struct parts *p)
{
    if (!p->pending)
        return ST_OK;
    p->pending = false;
    return part_out(p, p->start, p->end);
}

static enum status part_hold(struct parts *p, size_t start, size_t end)
{
    TRY(parts_flush(p));
    p->pending = true;
    p->start = start;
    p->end = end;
    return ST_OK;
}

static enum status parts_put(struct parts *p, size_t start, size_t end, bool match)
{
    bool previous = p->previous, join = false;
    p->previous = match;
    switch (p->behavior) {
    case SPLIT_ISOLATED:
        return part_out(p, start, end);
    case SPLIT_REMOVED:
        return match ? ST_OK : part_out(p, start, end);
    case SPLIT_MERGED_PREVIOUS:
        join = match && !previous;
        break;
    case SPLIT_MERGED_NEXT: /* a match waits for what follows; of several in a row only the last joins it */
        join = previous && !match;
        break;
    case SPLIT_CONTIGUOUS:
        join = match == previous;
        break;
    }
    if (!join || !p->pending)
        return part_hold(p, start, end);
    p->end = end;
    return ST_OK;
}

static enum status run_pattern(struct parts *p, const struct split_step *step, size_t n_bytes)
{
    size_t at = 0;
    while (at < n_bytes) {
        bool found;
        size_t start, end;
        TRY(tokenizer__pattern_find(&step->pattern, p->r->s->match, p->text, n_bytes, at, &found, &start,
                                    &end, p->r->err));
        if (!found)
            break;
        if (start > at)
            TRY(parts_put(p, at, start, step->invert));
        TRY(parts_put(p, start, end, !step->invert));
        at = end;
    }
    if (at < n_bytes)
        TRY(parts_put(p, at, n_bytes, step->invert));
    return parts_flush(p);
}

static enum status run_digits(struct parts *p, bool individual, size_t n_bytes)
{
    const struct char_classes *classes = &p->r->t->classes;
    p->behavior = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
    size_t at = 0, start = 0; /* of a run without numbers */
    while (at < n_bytes) {
        int n;
        bool digit = class_of(classes, utf8_get(p->text + at, &n)) & CLASS_NUMERIC;
        if (digit) {
            if (start < at)
                TRY(parts_put(p, start, at, false));
            start = at + (size_t)n;
            TRY(parts_put(p, at, start, true));
        }
        at += (size_t)n;
    }
    if (start < n_bytes)
        TRY(parts_put(p, start, n_bytes, false));
    return parts_flush(p);
}

static enum status run_words(const struct parts *p, const struct split_step *step, size_t n_bytes)
{
    const struct char_classes *classes = &p->r->t->classes;
    for (size_t at = 0; at < n_bytes;) {
        size_t end = step->kind == STEP_BYTE_LEVEL
                         ? tokenizer__word_gpt2(classes, p->text, n_bytes, at)
                         : tokenizer__word_qwen(classes, step->max_digits, p->text, n_bytes, at);
        TRY(part_out(p, at, end));
        at = end;
    }
    return ST_OK;
}

static enum status run_metaspace(struct parts *p, const struct split_step *step, size_t n_bytes,
                                 struct buf *text)
{
    static const struct pattern space = {.text = (char *)" ", .n_bytes = 1};
    struct err *err = p->r->err;
    size_t n = strlen(step->replacement);
    buf_clear(text);
    bool wanted = step->prepend == PREPEND_ALWAYS || (step->prepend == PREPEND_FIRST && p->at_start);
    bool there = p->text[0] == ' ' || (n_bytes >= n && memcmp(p->text, step->replacement, n) == 0);
    if (wanted && !there)
        TRY(buf_append(text, step->replacement, n, err));
    TRY(tokenizer__pattern_replace(&space, NULL, p->text, n_bytes, step->replacement, text, err));
    p->text = text->data;
    p->behavior = step->behavior;
    return step->split ? run_pattern(p, step, text->n_bytes) : part_out(p, 0, text->n_bytes);
}

static enum status run_byte_level(struct parts *p, const struct split_step *step, size_t n_bytes,
                                  struct buf *text)
{
    if (step->prefix_space && p->text[0] != ' ') {
        buf_clear(text);
        TRY(buf_append(text, " ", 1, p->r->err));
        TRY(buf_append(text, p->text, n_bytes, p->r->err));
        p->text = text->data;
        n_bytes = text->n_bytes;
    }
    return step->gpt2 ? run_words(p, step, n_bytes) : part_out(p, 0, n_bytes);
}

static enum status run_step(const struct run *r, int k, const char *text, size_t n_bytes, bool at_start)
{
    const struct splitter *splitter = &r->t->splitter;
    if (k == splitter->n_steps)
        return tokenizer__bpe(r->t, r->s, text, n_bytes, r->out, r->err);
    const struct split_step *step = &splitter->steps[k];
    struct parts p = {.r = r, .next = k + 1, .text = text, .at_start = at_start, .behavior = step->behavior};
    switch (step->kind) {
    case STEP_PATTERN:
        return run_pattern(&p, step, n_bytes);
    case STEP_WORDS:
        return run_words(&p, step, n_bytes);
    case STEP_DIGITS:
        return run_digits(&p, step->individual, n_bytes);
    case STEP_METASPACE:
        return run_metaspace(&p, step, n_bytes, &r->s->step[k]);
    case STEP_BYTE_LEVEL:
        return run_byte_level(&p, step, n_bytes, &r->s->step[k]);
    }
    return err_set(r->err, ST_DEFECT, "unknown step %d of a pre-tokenizer", (int)step->kind);
}

enum status tokenizer__split(const struct tokenizer *t, struct workspace *s, const char *text, size_t n_bytes,
                             bool at_start, struct ids *out, struct err *err)
{
    if (n_bytes == 0)
        return ST_OK;
    struct run r = {t, s, out, err};
    return run_step(&r, 0, text, n_bytes, at_start);
}
