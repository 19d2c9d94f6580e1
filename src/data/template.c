/* Rows of tokens. A section of text between two special tokens is encoded as one piece, which is how the
 * `tokenizers` library meets it in the whole row; the special tokens themselves are put in as ids. */
#include "data/template.h"
#include "template_internal.h"
#include "util/buf.h"
#include <stdlib.h>
#include <string.h>

/* The texts around the turns of a style. */
struct form {
    const char *turn_start, *turn_end; /* tokens, or NULL */
    const char *system_header;         /* NULL: the system prompt stands in front of the user's text */
    const char *user_header, *assistant_header;
    const char *before_text, *after_text; /* between the markers and the user's text, and behind it */
    const char *after_span;               /* behind a motion span of the user's */
    const char *after_system;             /* when it stands in the user's turn */
    const char *turn_gap;                 /* behind turn_end */
};
static const struct form forms[] = {
    [CHAT_CHATML] = {"<|im_start|>", "<|im_end|>", "system\n", "user\n", "assistant\n", "\n\n", "\n", "\n",
                     "", "\n"},
    [CHAT_GEMMA] = {"<start_of_turn>", "<end_of_turn>", NULL, "user\n", "model\n", "\n\n", "", "", "\n\n",
                    "\n"},
    [CHAT_PLAIN] = {NULL, NULL, NULL, "", "", "", "\n", "", "\n", ""},
};

struct template
{
    const struct tokenizer *tokenizer;
    const struct motion_vocab *vocab;
    const struct form *form;
    int32_t turn_start, turn_end; /* ids, or -1 */
    struct ids head;              /* the row's beginning up to the task marker */
    struct ids before_span;       /* between the markers and a motion span, or nothing more (stage 1) */
    struct ids after_span;
    struct ids tail;       /* end of the user's turn and the assistant's header */
    struct ids space;      /* between motion tokens */
    struct ids motion_end; /* behind a motion answer, never trained */
    struct ids text_end;   /* ends a text answer, trained: the model learns to stop */
    struct ids text_gap;   /* behind that, not trained */
    struct ids scratch;
    struct buf text;
};

static enum status encode(const struct tokenizer *t, const char *text, int flags, struct ids *out,
                          struct err *err)
{
    size_t n = text ? strlen(text) : 0; /* an empty buffer has no text */
    return n ? tokenizer_encode(t, text, n, flags, out, err) : ST_OK;
}

static enum status push_if(struct ids *ids, int32_t id, struct err *err)
{
    return id >= 0 ? ids_push(ids, id, err) : ST_OK;
}

/* start, header and what follows it in the same section. */
static enum status open_turn(struct template *tp, const char *header, const char *text, const char *gap,
                             struct ids *out, struct err *err)
{
    TRY(push_if(out, tp->turn_start, err));
    buf_clear(&tp->text);
    TRY(buf_puts(&tp->text, header, err));
    TRY(buf_puts(&tp->text, text, err));
    TRY(buf_puts(&tp->text, gap, err));
    return encode(tp->tokenizer, tp->text.data, ENCODE_ADDED, out, err);
}

static enum status close_turn(struct template *tp, struct ids *out, struct err *err)
{
    TRY(push_if(out, tp->turn_end, err));
    return encode(tp->tokenizer, tp->form->turn_gap, ENCODE_ADDED, out, err);
}

static enum status make_head(struct template *tp, struct err *err)
{
    const char *prompt = tp->vocab->system_prompt;
    bool own_turn = *prompt && tp->form->system_header;
    TRY(push_if(&tp->head, tokenizer_bos(tp->tokenizer), err));
    if (own_turn) {
        TRY(open_turn(tp, tp->form->system_header, prompt, "", &tp->head, err));
        TRY(close_turn(tp, &tp->head, err));
    }
    bool in_front = *prompt && !own_turn;
    return open_turn(tp, tp->form->user_header, in_front ? prompt : "",
                     in_front ? tp->form->after_system : "", &tp->head, err);
}

/* Behind END nothing is trained and nothing looks back, so a motion row ends there; with space_tokens rows
 * are those of SignMotionGPT, which go on to the turn's end. */
static enum status make_ends(struct template *tp, struct err *err)
{
    const char *gap = tp->form->turn_gap;
    int32_t stop = tp->turn_end >= 0 ? tp->turn_end : tokenizer_eos(tp->tokenizer);
    if (tp->vocab->space_tokens) {
        TRY(encode(tp->tokenizer, " ", ENCODE_ADDED, &tp->space, err));
        TRY(encode(tp->tokenizer, tp->form->after_span, ENCODE_ADDED, &tp->motion_end, err));
        TRY(push_if(&tp->motion_end, stop, err));
        TRY(encode(tp->tokenizer, gap, ENCODE_ADDED, &tp->motion_end, err));
        TRY(encode(tp->tokenizer, gap, ENCODE_ADDED, &tp->text_gap, err));
    }
    if (stop >= 0)
        return ids_push(&tp->text_end, stop, err);
    return encode(tp->tokenizer, "\n", ENCODE_ADDED, &tp->text_end, err);
}

static enum status make_pieces(struct template *tp, struct err *err)
{
    TRY(make_head(tp, err));
    TRY(encode(tp->tokenizer, tp->form->before_text, ENCODE_ADDED, &tp->before_span, err));
    TRY(encode(tp->tokenizer, tp->form->after_span, ENCODE_ADDED, &tp->after_span, err));
    TRY(close_turn(tp, &tp->tail, err));
    TRY(open_turn(tp, tp->form->assistant_header, "", "", &tp->tail, err));
    return make_ends(tp, err);
}

/* The vocabulary may come from another file than the tokenizer. */
static enum status check_tokens(const struct tokenizer *t, const struct motion_vocab *v, struct err *err)
{
    char content[NEW_TOKEN_BYTES];
    for (int32_t i = 0; i < v->vocab_size - v->base_vocab_size; i++) {
        data__new_token(v, i, content);
        int32_t id = tokenizer_id(t, content);
        if (id != v->base_vocab_size + i) {
            err_set(err, ST_INPUT, "token %s has id %d in the tokenizer and %d in the data's vocabulary",
                    content, id, v->base_vocab_size + i);
            return err_hint(err, "the tokenizer and smgpt_data.json must come from the same checkpoint");
        }
    }
    return ST_OK;
}

static enum status find_turn_tokens(struct template *tp, struct err *err)
{
    tp->turn_start = tp->turn_end = -1;
    if (!tp->form->turn_start)
        return ST_OK;
    tp->turn_start = tokenizer_id(tp->tokenizer, tp->form->turn_start);
    tp->turn_end = tokenizer_id(tp->tokenizer, tp->form->turn_end);
    if (tp->turn_start < 0 || tp->turn_end < 0)
        return err_set(err, ST_INPUT, "the tokenizer lacks %s or %s, which the data's chat style needs",
                       tp->form->turn_start, tp->form->turn_end);
    return ST_OK;
}

enum status template_open(struct template **out, const struct tokenizer *t, const struct motion_vocab *v,
                          struct err *err)
{
    *out = NULL;
    TRY(check_tokens(t, v, err));
    struct template *tp = calloc(1, sizeof *tp);
    if (!tp)
        return err_memory(err, "a template", sizeof *tp);
    tp->tokenizer = t;
    tp->vocab = v;
    tp->form = &forms[v->style];
    enum status status = find_turn_tokens(tp, err);
    if (status == ST_OK)
        status = make_pieces(tp, err);
    if (status != ST_OK) {
        template_close(tp);
        return status;
    }
    *out = tp;
    return ST_OK;
}

void template_close(struct template *tp)
{
    if (!tp)
        return;
    struct ids *all[] = {&tp->head,       &tp->before_span, &tp->after_span, &tp->tail,   &tp->space,
                         &tp->motion_end, &tp->text_end,    &tp->text_gap,   &tp->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ids_release(all[i]);
    buf_release(&tp->text);
    free(tp);
}

/* Task marker and participant. */
static enum status put_markers(const struct template *tp, enum task task, int32_t participant,
                               struct ids *out, struct err *err)
{
    const struct motion_vocab *v = tp->vocab;
    int32_t marker = task == TASK_M2T ? v->m2t : task == TASK_DENOISE ? v->denoise : v->t2m;
    if (participant < -1 || participant >= v->n_participants)
        return err_set(err, ST_INPUT, "participant %d of %d", participant, v->n_participants);
    TRY(ids_push(out, marker, err));
    return push_if(out, participant >= 0 ? v->pid_first + participant : v->pid_null, err);
}

/* BEGIN, motion, END; -1 stands for a masked code. */
static enum status put_span(const struct template *tp, const int32_t *motion, int32_t n, struct ids *out,
                            struct err *err)
{
    const struct motion_vocab *v = tp->vocab;
    TRY(ids_push(out, v->begin, err));
    for (int32_t i = 0; i < n; i++) {
        if (motion[i] < -1 || motion[i] >= v->n_codes)
            return err_set(err, ST_INPUT, "codebook id %d, the vocabulary has %d", motion[i], v->n_codes);
        TRY(ids_append(out, tp->space.data, tp->space.n, err));
        TRY(ids_push(out, motion[i] < 0 ? v->mask : v->motion_first + motion[i], err));
    }
    TRY(ids_append(out, tp->space.data, tp->space.n, err));
    return ids_push(out, v->end, err);
}

/* The user's text never matches an added token: it cannot turn into a special one. */
static enum status put_text(struct template *tp, const char *before, const char *text, const char *after,
                            struct ids *out, struct err *err)
{
    buf_clear(&tp->text);
    TRY(buf_puts(&tp->text, before, err));
    TRY(buf_puts(&tp->text, text, err));
    TRY(buf_puts(&tp->text, after, err));
    return encode(tp->tokenizer, tp->text.data, ENCODE_PLAIN, out, err);
}

/* Everything up to and including the assistant's header. */
static enum status put_prompt(struct template *tp, enum task task, const char *text, const int32_t *span,
                              int32_t n_span, int32_t participant, struct ids *out, struct err *err)
{
    TRY(ids_append(out, tp->head.data, tp->head.n, err));
    TRY(put_markers(tp, task, participant, out, err));
    if (task == TASK_T2M)
        TRY(put_text(tp, tp->form->before_text, text, tp->form->after_text, out, err));
    else
        TRY(ids_append(out, tp->before_span.data, tp->before_span.n, err));
    if (task == TASK_M2T || task == TASK_DENOISE) {
        TRY(put_span(tp, span, n_span, out, err));
        TRY(ids_append(out, tp->after_span.data, tp->after_span.n, err));
    }
    return ids_append(out, tp->tail.data, tp->tail.n, err);
}

enum status template_prompt(struct template *tp, const char *text, int32_t participant, struct ids *out,
                            struct err *err)
{
    ids_clear(out);
    return put_prompt(tp, TASK_T2M, text, NULL, 0, participant, out, err);
}

/* Appends ids to both sides: as labels, or as -100. */
static enum status row_put(struct row *row, const struct ids *ids, bool trained, struct err *err)
{
    TRY(ids_append(&row->ids, ids->data, ids->n, err));
    for (int i = 0; i < ids->n; i++)
        TRY(ids_push(&row->labels, trained ? ids->data[i] : -100, err));
    return ST_OK;
}

static enum status put_text_answer(struct template *tp, const char *text, struct row *out, struct err *err)
{
    ids_clear(&tp->scratch);
    TRY(put_text(tp, "", text, tp->vocab->space_tokens ? tp->form->after_span : "", &tp->scratch, err));
    TRY(row_put(out, &tp->scratch, true, err));
    TRY(row_put(out, &tp->text_end, true, err));
    return row_put(out, &tp->text_gap, false, err);
}

enum status template_row(struct template *tp, enum task task, const char *text, const int32_t *motion,
                         int32_t n_motion, const int32_t *noisy, int32_t participant, struct row *out,
                         struct err *err)
{
    ids_clear(&out->ids);
    ids_clear(&out->labels);
    ids_clear(&tp->scratch);
    const int32_t *span = task == TASK_DENOISE && noisy ? noisy : motion;
    TRY(put_prompt(tp, task, text, span, n_motion, participant, &tp->scratch, err));
    TRY(row_put(out, &tp->scratch, false, err));
    if (task == TASK_M2T)
        return put_text_answer(tp, text, out, err);
    ids_clear(&tp->scratch);
    TRY(put_span(tp, motion, n_motion, &tp->scratch, err));
    TRY(row_put(out, &tp->scratch, true, err));
    return row_put(out, &tp->motion_end, false, err);
}
