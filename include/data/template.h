/* From an example to the tokens of one row, for each stage, and the vocabulary that this needs. Tokens and
 * turns are those of SignMotionGPT, the spaces between motion tokens left out unless asked for. */
#ifndef SMGPT_DATA_TEMPLATE_H
#define SMGPT_DATA_TEMPLATE_H

#include "data/examples.h"
#include "data/tokenizer.h"

enum task { TASK_MOTION_LM, TASK_T2M, TASK_M2T, TASK_DENOISE };
enum chat_style { CHAT_CHATML, CHAT_GEMMA, CHAT_PLAIN };

/* What is known about one text for decoding; owned. */
struct text_info {
    char *text;
    int32_t min_len, median_len, max_len;
    int32_t *codes; /* sorted codebook ids */
    int32_t n_codes;
};

/* Ids of the new tokens and all that generation must know besides the weights. Saved as smgpt_data.json in
 * every checkpoint, so that a checkpoint alone is enough to generate. */
struct motion_vocab {
    int32_t base_vocab_size; /* first new id */
    int32_t begin, end, motion_first, n_codes;
    int32_t t2m, m2t, denoise, mask;
    int32_t pid_null, pid_first, n_participants; /* pid_null = -1 without participants */
    char **participants;
    int32_t vocab_size; /* one past the last new id */
    enum chat_style style;
    bool space_tokens;
    char *system_prompt;
    int32_t median_len;
    struct text_info *texts;
    int32_t n_texts;
};
void motion_vocab_release(struct motion_vocab *v);

/* Adds the new tokens, in the order of the ids below, to t and fills v (texts and participants sorted by
 * bytes). A tokenizer that has them already must have them with the same ids. system_prompt NULL: our own
 * text, none for CHAT_PLAIN. */
enum status motion_vocab_make(struct motion_vocab *v, struct tokenizer *t, const struct examples *x,
                              const char *system_prompt, bool space_tokens, struct err *err);
enum status motion_vocab_save(const struct motion_vocab *v, const char *path, struct err *err);
/* Checks every field: ids must be those that follow from the counts, lists must be in order. */
enum status motion_vocab_load(struct motion_vocab *v, const char *path, struct err *err);
/* NULL for an unknown text. */
const struct text_info *motion_vocab_text(const struct motion_vocab *v, const char *text);
/* Index of a participant's name, or -1. */
int32_t motion_vocab_participant(const struct motion_vocab *v, const char *name);

/* Builds rows. Keeps the encoded fixed parts, so that a row costs only its own text. */
struct template;
/* t and v are borrowed; ST_INPUT when they do not agree on the new tokens. */
enum status template_open(struct template **out, const struct tokenizer *t, const struct motion_vocab *v,
                          struct err *err);
void template_close(struct template *tp);

struct row {
    struct ids ids, labels; /* equal lengths; labels -100 where not trained, unshifted */
};
/* The row of an example under a task; noisy: for TASK_DENOISE the motion with -1 where masked, else NULL.
 * participant -1: <PID_NULL> when the data has participants.
 *
 * [BOS] [system turn] user turn: task marker, participant, text or motion span; assistant turn: the answer.
 * Trained (labels) are: of a motion answer BEGIN, the motion ids and END (with space_tokens the spaces
 * between them too), and the row ends there; of a text answer the text and the token that ends the turn, so
 * that the model learns to stop. With space_tokens rows are token for token those of SignMotionGPT for the
 * same system prompt, which has them go on to the turn's end. Without turn tokens (CHAT_PLAIN) a row is
 * marker, participant, text and line feed, answer; a text answer ends with eos, or a line feed where there is
 * none.
 *
 * A section between two special tokens is encoded in one piece, as the tokenizers library does; the user's
 * text is encoded without matching added tokens. The system prompt is the operator's: it may name added
 * tokens. ST_INPUT for a codebook id or participant outside the vocabulary and for text that is not UTF-8. */
enum status template_row(struct template *tp, enum task task, const char *text, const int32_t *motion,
                         int32_t n_motion, const int32_t *noisy, int32_t participant, struct row *out,
                         struct err *err);
/* The text-to-motion prompt up to and including the assistant's header: exactly the row's beginning. out is
 * cleared first. */
enum status template_prompt(struct template *tp, const char *text, int32_t participant, struct ids *out,
                            struct err *err);

#endif
