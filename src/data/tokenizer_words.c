/* The two splitting patterns that nearly all byte-level tokenizers use, by hand: several times faster than a
 * pattern engine, and with our own character tables. Each function returns the end of the piece that begins
 * at `at`; the alternatives are tried in the order of the pattern, and every text is covered without gaps.
 * tests/data/test_tokenizer_split.c compares both with PCRE2. */
#include "tokenizer_internal.h"

struct view {
    const struct char_classes *classes;
    const char *text;
    size_t n_bytes;
};

/* The character at `at` and its length; class 0 and length 0 at the end of the text. */
static int class_at(const struct view *v, size_t at, uint32_t *c, int *n)
{
    if (at >= v->n_bytes) {
        *c = 0;
        *n = 0;
        return 0;
    }
    *c = utf8_get(v->text + at, n);
    return class_of(v->classes, *c);
}

/* Behind a run of characters of the class, at most `most` of them. */
static size_t run_of(const struct view *v, size_t at, int wanted, size_t most)
{
    uint32_t c;
    int n;
    for (size_t i = 0; i < most && (class_at(v, at, &c, &n) & wanted); i++)
        at += (size_t)n;
    return at;
}

/* Behind a run of what is neither space nor letter nor number. */
static size_t run_of_others(const struct view *v, size_t at)
{
    uint32_t c;
    int n;
    while (at < v->n_bytes && !(class_at(v, at, &c, &n) & (CLASS_SPACE | CLASS_LETTER | CLASS_NUMBER)))
        at += (size_t)n;
    return at;
}

static int lower(int c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* Bytes of 's 't 're 've 'm 'll 'd at an apostrophe, 0 if none stands there. */
static size_t contraction(const struct view *v, size_t at, bool fold)
{
    size_t left = v->n_bytes - at;
    if (left < 2)
        return 0;
    const unsigned char *p = (const unsigned char *)v->text + at + 1;
    if (fold && left >= 3 && p[0] == 0xc5 && p[1] == 0xbf) /* U+017F, the long s, folds to s */
        return 3;
    int a = p[0], b = left >= 3 ? p[1] : 0;
    if (fold) {
        a = lower(a);
        b = lower(b);
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l'))
        return 3;
    return 0;
}

/* \s+(?!\S)|\s+ at a space: the run without its last character, unless it ends the text or is one long. */
static size_t spaces(const struct view *v, size_t at, size_t end)
{
    if (end == v->n_bytes)
        return end;
    size_t last = (size_t)(utf8_before(v->text + end) - v->text);
    return last > at ? last : end;
}

size_t tokenizer__word_gpt2(const struct char_classes *c, const char *text, size_t n_bytes, size_t at)
{
    struct view v = {c, text, n_bytes};
    if (text[at] == '\'') {
        size_t n = contraction(&v, at, false);
        if (n)
            return at + n;
    }
    uint32_t ch;
    int n;
    size_t body = at + (text[at] == ' ');
    int class = class_at(&v, body, &ch, &n);
    if (class & CLASS_LETTER)
        return run_of(&v, body, CLASS_LETTER, SIZE_MAX);
    if (class & CLASS_NUMBER)
        return run_of(&v, body, CLASS_NUMBER, SIZE_MAX);
    if (body < n_bytes && !(class & CLASS_SPACE))
        return run_of_others(&v, body);
    return spaces(&v, at, run_of(&v, at, CLASS_SPACE, SIZE_MAX));
}

/* Behind the last line break of a run of spaces, or `at` if there is none. */
static size_t behind_last_break(const struct view *v, size_t at, size_t end)
{
    while (end > at && v->text[end - 1] != '\n' && v->text[end - 1] != '\r')
        end--;
    return end;
}

size_t tokenizer__word_qwen(const struct char_classes *c, int max_digits, const char *text, size_t n_bytes,
                            size_t at)
{
    struct view v = {c, text, n_bytes};
    if (text[at] == '\'') {
        size_t n = contraction(&v, at, true);
        if (n)
            return at + n;
    }
    uint32_t first, second;
    int n, n_second;
    int class = class_at(&v, at, &first, &n);
    if (class & CLASS_LETTER)
        return run_of(&v, at, CLASS_LETTER, SIZE_MAX);
    if (class & CLASS_NUMBER)
        return run_of(&v, at, CLASS_NUMBER, (size_t)max_digits);
    size_t behind = at + (size_t)n;
    int class_second = class_at(&v, behind, &second, &n_second);
    if (first != '\r' && first != '\n' && (class_second & CLASS_LETTER))
        return run_of(&v, behind, CLASS_LETTER, SIZE_MAX);
    bool second_other = behind < n_bytes && !(class_second & (CLASS_SPACE | CLASS_LETTER | CLASS_NUMBER));
    if (!(class & CLASS_SPACE) || (first == ' ' && second_other)) {
        size_t end = run_of_others(&v, first == ' ' ? behind : at);
        while (end < n_bytes && (text[end] == '\r' || text[end] == '\n'))
            end++;
        return end;
    }
    size_t end = run_of(&v, at, CLASS_SPACE, SIZE_MAX);
    size_t line = behind_last_break(&v, at, end);
    return line > at ? line : spaces(&v, at, end);
}
