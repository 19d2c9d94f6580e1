/* What the files of the tokenizer share. The way of a text:
 *
 *   added tokens that match raw text -> normalizer -> added tokens that match normalized text
 *   -> pre-tokenizer steps -> BPE of each piece -> ids
 *
 * Everything behind struct tokenizer is fixed once it is open (and only tokenizer_add changes it); what a
 * run of the encoder writes to is a struct workspace, of which each caller gets one of its own. */
#ifndef SMGPT_DATA_TOKENIZER_INTERNAL_H
#define SMGPT_DATA_TOKENIZER_INTERNAL_H

#include "data/tokenizer.h"
#include "util/file.h"
#include "util/json.h"
#include <pthread.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define TOKENIZER_MAX_ID         (1 << 22) /* ids are below it: bounds the tables that a file can ask for */
#define TOKENIZER_MAX_FILE_BYTES ((size_t)512 << 20)
#define ADDED_MAX_BYTES          1024 /* of one added token: bounds the work of a scan at each place */
#define TEXT_MAX_BYTES           ((size_t)1 << 30)
#define MAX_STEPS                16 /* of a normalizer, a pre-tokenizer, a decoder */

/* --- text: UTF-8 and the byte-level alphabet (tokenizer_text.c) --- */

/* The first byte that begins no well-formed character, or n_bytes. */
size_t tokenizer__utf8_valid(const char *text, size_t n_bytes);
/* Decodes the character at p of valid text; *n_bytes is its length. */
static inline uint32_t utf8_get(const char *p, int *n_bytes)
{
    const unsigned char *u = (const unsigned char *)p;
    if (u[0] < 0x80) {
        *n_bytes = 1;
        return u[0];
    }
    if (u[0] < 0xe0) {
        *n_bytes = 2;
        return (uint32_t)(u[0] & 0x1f) << 6 | (u[1] & 0x3f);
    }
    if (u[0] < 0xf0) {
        *n_bytes = 3;
        return (uint32_t)(u[0] & 0x0f) << 12 | (uint32_t)(u[1] & 0x3f) << 6 | (u[2] & 0x3f);
    }
    *n_bytes = 4;
    return (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3f) << 12 | (uint32_t)(u[2] & 0x3f) << 6 |
           (u[3] & 0x3f);
}
/* Start of the character before p; p is behind one. */
static inline const char *utf8_before(const char *p)
{
    do
        p--;
    while (((unsigned char)*p & 0xc0) == 0x80);
    return p;
}
int tokenizer__utf8_put(char out[4], uint32_t c); /* returns 1..4 */
/* Appends with each undecodable part as U+FFFD: one for each maximal prefix of a character (Unicode 3.9). */
enum status tokenizer__utf8_lossy(struct buf *out, const char *text, size_t n_bytes, struct err *err);
/* GPT-2's alphabet: every byte as a printable character. */
uint32_t tokenizer__byte_to_char(unsigned char byte);
int tokenizer__char_to_byte(uint32_t c); /* -1 if the character stands for no byte */

/* --- character classes (tokenizer_classes.c) --- */

enum char_class {
    CLASS_LETTER = 1,  /* general category L* */
    CLASS_NUMBER = 2,  /* Nd, Nl, No, as the splitting patterns have it */
    CLASS_SPACE = 4,   /* White_Space */
    CLASS_NUMERIC = 8, /* Nd, Nl, No, as the Digits pre-tokenizer has it (a newer Unicode) */
    CLASS_WORD = 16    /* \w, of added tokens with single_word */
};
struct char_classes {
    uint16_t block[0x1100]; /* of 256 characters each */
    uint8_t (*blocks)[256]; /* owned */
};
enum status tokenizer__classes_init(struct char_classes *c, struct err *err);
void tokenizer__classes_release(struct char_classes *c);
static inline int class_of(const struct char_classes *c, uint32_t ch)
{
    return c->blocks[c->block[ch >> 8]][ch & 0xff];
}

/* --- vocabulary and merges (tokenizer_vocab.c) --- */

struct token_entry {
    const char *text; /* NUL behind it; NULL for a free id */
    uint32_t n_bytes : 29;
    uint32_t in_model : 1; /* part of model.vocab, not only added */
    uint32_t merged : 1;   /* a merge makes it */
    uint32_t banned : 1;   /* special and within BPE's reach: never made of plain text */
    int32_t added;         /* index of its added token, or -1 */
};
struct vocab {
    struct token_entry *entries; /* by id */
    int32_t n_ids, capacity;     /* n_ids is the largest id + 1 */
    int32_t n_model;             /* entries of model.vocab */
    struct vocab_slot {
        uint32_t hash;
        int32_t id; /* -1: empty */
    } * slots;
    uint32_t n_slots, n_used;
    struct text_chunk *chunks; /* strings do not move when the vocabulary grows */
};
int32_t tokenizer__vocab_find(const struct vocab *v, const char *text, size_t n_bytes); /* -1 if unknown */
/* The id, only if it is part of the model's own vocabulary. */
int32_t tokenizer__vocab_model(const struct vocab *v, const char *text, size_t n_bytes);
/* The text must be new; ST_INPUT when the id is taken or out of range, ST_ENV for memory. */
enum status tokenizer__vocab_put(struct vocab *v, const char *text, size_t n_bytes, int32_t id,
                                 struct err *err);
void tokenizer__vocab_release(struct vocab *v);

struct merges {
    struct merge_slot {
        uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty */
        uint32_t rank;
        int32_t id; /* what the pair becomes */
    } * slots;
    uint32_t n_slots, n_used;
    struct merge_pair {
        int32_t left, right;
    } * list; /* in order of rank, as in the file */
    uint32_t n_list, capacity;
    bool as_strings; /* the file writes "a b", not ["a", "b"] */
};
enum status tokenizer__merges_add(struct merges *m, int32_t left, int32_t right, int32_t id, struct err *err);
void tokenizer__merges_release(struct merges *m);
static inline uint64_t merge_hash(uint64_t pair)
{
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}
/* NULL if the two do not merge. */
static inline const struct merge_slot *merge_find(const struct merges *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint32_t at = (uint32_t)merge_hash(pair) & (m->n_slots - 1);; at = (at + 1) & (m->n_slots - 1)) {
        if (m->slots[at].pair == pair)
            return &m->slots[at];
        if (m->slots[at].pair == UINT64_MAX)
            return NULL;
    }
}

/* --- added tokens (tokenizer_added.c, tokenizer_trie.c) --- */

struct added_token {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
struct added_trie {
    struct trie_slot {
        uint32_t key;   /* node << 8 | byte */
        uint32_t child; /* 0: empty, the root is no child */
    } * slots;
    uint32_t n_slots, n_nodes, node_capacity;
    int32_t *token;     /* by node: index of the added token that ends there, or -1 */
    uint32_t root[256]; /* children of the root; 0: no token begins with the byte */
};
struct added_tokens {
    struct added_token *items; /* in the order of the file, then as added */
    int32_t n, capacity;
    int32_t max_id;               /* -1 if there is none */
    struct added_trie raw;        /* of those with normalized=false: match the text as it came */
    struct added_trie normalized; /* the others: match normalized text */
};
struct added_scan { /* a walk over a text; start with at = done = 0 */
    const char *text;
    size_t n_bytes;
    size_t at;   /* the search goes on here */
    size_t done; /* what is before it was given out */
};
/* The next match: *start and *end after the flags were applied, *token its index. False at the end. The text
 * between s->done (before the call) and *start is ordinary. */
bool tokenizer__added_next(const struct tokenizer *t, const struct added_trie *trie, struct added_scan *s,
                           size_t *start, size_t *end, int32_t *token);
enum status tokenizer__trie_add(struct added_trie *t, const char *text, size_t n_bytes, int32_t token,
                                struct err *err);
void tokenizer__trie_release(struct added_trie *t);
enum status tokenizer__added_load(struct tokenizer *t, const json_t *root, struct err *err);
void tokenizer__added_release(struct added_tokens *a);

/* --- patterns (tokenizer_pattern.c) --- */

struct pattern { /* {"String": ...} or {"Regex": ...} */
    char *text;  /* owned */
    size_t n_bytes;
    pcre2_code *code; /* NULL for a string */
    bool jit;
};
enum status tokenizer__pattern_load(struct pattern *p, const json_t *value, const char *where,
                                    struct err *err);
void tokenizer__pattern_release(struct pattern *p);
/* The first match at or behind `from` that is not empty. */
enum status tokenizer__pattern_find(const struct pattern *p, pcre2_match_data *data, const char *text,
                                    size_t n_bytes, size_t from, bool *found, size_t *start, size_t *end,
                                    struct err *err);
/* Appends text with every match replaced by `with`. */
enum status tokenizer__pattern_replace(const struct pattern *p, pcre2_match_data *data, const char *text,
                                       size_t n_bytes, const char *with, struct buf *out, struct err *err);

/* --- normalizer (tokenizer_normalize.c) --- */

struct normal_step {
    enum { NORMAL_UNICODE, NORMAL_PREPEND, NORMAL_REPLACE } kind;
    bool compose, compat; /* of NORMAL_UNICODE */
    struct pattern pattern;
    char *content; /* owned; of NORMAL_PREPEND and NORMAL_REPLACE */
};
struct normalizer {
    struct normal_step steps[MAX_STEPS];
    int n_steps;
};
enum status tokenizer__normalizer_load(struct normalizer *n, const json_t *root, const char *path,
                                       struct err *err);
void tokenizer__normalizer_release(struct normalizer *n);
struct workspace;
/* *out is either text itself or a buffer of the workspace, valid until the next call. */
enum status tokenizer__normalize(const struct normalizer *n, struct workspace *s, const char *text,
                                 size_t n_bytes, const char **out, size_t *n_out, struct err *err);

/* --- pre-tokenizer (tokenizer_split_load.c, tokenizer_split.c, tokenizer_words.c) --- */

enum split_behavior {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_PREVIOUS,
    SPLIT_MERGED_NEXT,
    SPLIT_CONTIGUOUS
};
struct split_step {
    enum {
        STEP_PATTERN,
        STEP_WORDS, /* the pattern of Qwen or Llama 3, by hand */
        STEP_DIGITS,
        STEP_METASPACE,
        STEP_BYTE_LEVEL
    } kind;
    struct pattern pattern;
    enum split_behavior behavior;
    bool invert;
    int max_digits;      /* of STEP_WORDS: numbers a piece */
    bool individual;     /* of STEP_DIGITS */
    bool prefix_space;   /* of STEP_BYTE_LEVEL */
    bool gpt2;           /* of STEP_BYTE_LEVEL: split by GPT-2's pattern */
    char replacement[5]; /* of STEP_METASPACE */
    enum { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } prepend;
    bool split;
};
struct splitter {
    struct split_step steps[MAX_STEPS];
    int n_steps;
    bool byte_level; /* the last step maps bytes to characters */
};
enum status tokenizer__splitter_load(struct splitter *p, const json_t *root, const char *path,
                                     struct err *err);
void tokenizer__splitter_release(struct splitter *p);
/* Ends of the piece that begins at `at`, by GPT-2's pattern and by that of Qwen and Llama 3. */
size_t tokenizer__word_gpt2(const struct char_classes *c, const char *text, size_t n_bytes, size_t at);
size_t tokenizer__word_qwen(const struct char_classes *c, int max_digits, const char *text, size_t n_bytes,
                            size_t at);
/* Splits a normalized piece and appends the ids of its parts. at_start: nothing stands before it. */
enum status tokenizer__split(const struct tokenizer *t, struct workspace *s, const char *text, size_t n_bytes,
                             bool at_start, struct ids *out, struct err *err);

/* --- BPE (tokenizer_bpe.c, tokenizer_merge.c) --- */

struct model_options {
    int32_t unk_id; /* -1: characters without a token vanish; -2: the token named is not in the vocabulary */
    bool fuse_unk, byte_fallback, ignore_merges;
    int32_t byte_id[256];     /* model ids of GPT-2's characters, or -1 */
    int32_t fallback_id[256]; /* model ids of <0x00>..<0xFF>, or -1 */
    int32_t ascii_id[128];    /* model ids of single characters, or -1 */
};
/* Fills the tables above from the vocabulary. */
void tokenizer__model_index(struct tokenizer *t);
enum status tokenizer__bpe(const struct tokenizer *t, struct workspace *s, const char *piece, size_t n_bytes,
                           struct ids *out, struct err *err);
/* Merges symbols in place; *n of them afterwards. unbanned: makes no banned token. */
enum status tokenizer__merge(const struct tokenizer *t, struct workspace *s, bool unbanned, int32_t *symbols,
                             size_t *n, struct err *err);

/* --- workspace (tokenizer_workspace.c) --- */

#define CACHE_KEY_BYTES 23
#define CACHE_IDS       9
#define CACHE_ENTRIES   8192
struct cache_entry { /* 64 bytes: one cache line */
    uint8_t n_key;   /* 0: empty */
    uint8_t n_ids;
    char key[CACHE_KEY_BYTES];
    int32_t ids[CACHE_IDS];
};
struct workspace {
    struct workspace *next;
    bool plain;                 /* the text may become no special token */
    struct buf normal[2];       /* the normalizer's steps write to them in turns */
    struct buf step[MAX_STEPS]; /* texts that a pre-tokenizer step made */
    struct buf mapped;
    struct ids symbols, points;
    struct ids spelled; /* a banned token's characters */
    void *work;         /* of the merger for long pieces */
    size_t work_bytes;
    pcre2_match_data *match;
    struct cache_entry *cache; /* [CACHE_ENTRIES] pieces met lately */
};
struct workspace_pool {
    pthread_mutex_t lock;
    struct workspace *free;
};
enum status tokenizer__workspace_take(struct workspace_pool *pool, struct workspace **out, struct err *err);
void tokenizer__workspace_give(struct workspace_pool *pool, struct workspace *s);
void tokenizer__workspace_pool_release(struct workspace_pool *pool);
/* Room for n more ids at the end of the list, which does not grow yet. */
enum status tokenizer__ids_reserve(struct ids *ids, size_t n, struct err *err);

/* --- decoder (tokenizer_decode.c) --- */

struct decode_step {
    enum {
        DECODE_BYTE_LEVEL,
        DECODE_REPLACE,
        DECODE_BYTE_FALLBACK,
        DECODE_FUSE,
        DECODE_STRIP,
        DECODE_METASPACE
    } kind;
    struct pattern pattern;
    char *content;   /* owned; of DECODE_REPLACE */
    uint32_t letter; /* of DECODE_STRIP and DECODE_METASPACE */
    int64_t n_start, n_stop;
    bool prepended;
};
struct decoder {
    struct decode_step steps[MAX_STEPS];
    int n_steps;
    bool none; /* no decoder: tokens with a space between */
};
enum status tokenizer__decoder_load(struct decoder *d, const json_t *root, const char *path, struct err *err);
void tokenizer__decoder_release(struct decoder *d);

/* --- all of it --- */

struct tokenizer {
    char path[PATH_BYTES]; /* of tokenizer.json, for messages */
    char sha256[SHA256_HEX_BYTES];
    json_t *root;   /* tokenizer.json without vocab and merges */
    json_t *config; /* tokenizer_config.json or NULL */
    struct char_classes classes;
    struct vocab vocab;
    struct merges merges;
    struct model_options model;
    struct added_tokens added;
    int32_t n_added_file; /* added tokens that tokenizer.json had */
    bool any_banned;      /* an entry of the vocabulary is banned */
    struct normalizer normalizer;
    struct splitter splitter;
    struct decoder decoder;
    struct ids prefix, suffix; /* of the post-processor */
    int32_t eos;
    struct workspace_pool *pool;
};

/* tokenizer_scan.c: the two big fields are read straight from the text, the rest through jansson. */
struct bulk {
    const char *path;
    const char *text;
    size_t n_bytes;
    size_t vocab, vocab_end;   /* model.vocab's braces; both 0 if it is missing or no object */
    size_t merges, merges_end; /* model.merges' brackets */
};
enum status tokenizer__bulk_find(struct bulk *b, json_t **rest, struct err *err);
enum status tokenizer__bulk_vocab(const struct bulk *b, struct vocab *v, struct err *err);
enum status tokenizer__bulk_merges(const struct bulk *b, struct tokenizer *t, struct err *err);

/* tokenizer_load.c: type of {"type": ...}; ST_INPUT naming `where` otherwise. */
enum status tokenizer__type(const json_t *value, const char *where, const char **type, struct err *err);
/* A message for what would change ids and is not supported. */
enum status tokenizer__unsupported(const char *where, const char *what, struct err *err);

#endif
