/* Tokenizers read from a Hugging Face tokenizer.json: BPE with byte-level (Qwen, Llama 3, SmolLM2) or
 * metaspace + byte-fallback (Llama 2, Gemma) conventions. Equal ids to the `tokenizers` library. Anything in
 * the file that would change ids and is not supported is refused by name when it is opened. */
#ifndef SMGPT_DATA_TOKENIZER_H
#define SMGPT_DATA_TOKENIZER_H

#include "util/buf.h"
#include "util/err.h"
#include "util/sha256.h"
#include <stdbool.h>
#include <stdint.h>

struct tokenizer;

struct ids { /* growable list of token ids */
    int32_t *data;
    int n, capacity;
};
#define IDS_INIT                                                                                             \
    {                                                                                                        \
        0                                                                                                    \
    }
void ids_release(struct ids *ids);
void ids_clear(struct ids *ids);
enum status ids_push(struct ids *ids, int32_t id, struct err *err);
enum status ids_append(struct ids *ids, const int32_t *data, int n, struct err *err);

/* Reads <dir>/tokenizer.json and, when there, <dir>/tokenizer_config.json. ST_INPUT names file and field.
 * truncation and padding in the file are not heeded: AutoTokenizer does not either, and callers cut rows. */
enum status tokenizer_open(struct tokenizer **out, const char *dir, struct err *err);
void tokenizer_close(struct tokenizer *t);

/* len(tokenizer): the first id behind all that are in the vocabulary or added. Changes with tokenizer_add. */
int32_t tokenizer_size(const struct tokenizer *t);
/* SHA-256 of tokenizer.json as it was read. */
const char *tokenizer_sha256(const struct tokenizer *t);
/* -1 if unknown. Added tokens and vocabulary alike. */
int32_t tokenizer_id(const struct tokenizer *t, const char *token);
/* Content of a token, borrowed until tokenizer_close; NULL for a free id. Byte-level vocabularies write bytes
 * in GPT-2's alphabet (a space is U+0120). */
const char *tokenizer_token(const struct tokenizer *t, int32_t id);
/* The id that the post-processor puts in front (BOS), or -1. */
int32_t tokenizer_bos(const struct tokenizer *t);
/* eos_token of tokenizer_config.json, or -1 if it names none. */
int32_t tokenizer_eos(const struct tokenizer *t);

enum encode_flags {
    ENCODE_PLAIN = 0,
    ENCODE_ADDED = 1,  /* match added tokens in the text, as the library does by default */
    ENCODE_SPECIAL = 2 /* add what the post-processor adds (BOS) */
};
/* Appends the ids of text (UTF-8; invalid UTF-8 is ST_INPUT). Without ENCODE_ADDED no added token is ever
 * matched, and merges that would make a special token of the vocabulary are undone: a user's text can then
 * not become a special token. `out` is as before on failure. Thread-safe for different `out`. */
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n_bytes, int flags,
                             struct ids *out, struct err *err);
/* Appends text (valid UTF-8: what is not decodable is U+FFFD, as in the library); unknown ids are ST_INPUT.
 * Thread-safe for different `out`. */
enum status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special,
                             struct buf *out, struct err *err);

/* Adds a special token (special, normalized=false); one that is known, added or in the vocabulary, keeps its
 * id. *id as assigned. At most 1024 bytes of UTF-8. Not while another thread uses t. */
enum status tokenizer_add(struct tokenizer *t, const char *content, int32_t *id, struct err *err);
/* Writes tokenizer.json (with the tokens added) and tokenizer_config.json into dir; AutoTokenizer reads them.
 */
enum status tokenizer_save(const struct tokenizer *t, const char *dir, struct err *err);

/* Writes the files of a small byte-level tokenizer without merges: 256 bytes and <|endoftext|>,
 * <|im_start|>, <|im_end|>. */
enum status tokenizer_write_bytes(const char *dir, struct err *err);

#endif
