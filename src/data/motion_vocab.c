/* The new tokens of a data set, and smgpt_data.json. */
#include "data/template.h"
#include "template_internal.h"
#include "util/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB_MAX_BYTES ((size_t)1 << 30)

static const char default_system_prompt[] = "You translate between text and sign motion tokens. Answer a "
                                            "text with its motion span, and a motion span "
                                            "with its text. Answer with nothing else.";

static const char *const style_names[] = {
    [CHAT_CHATML] = "chatml", [CHAT_GEMMA] = "gemma", [CHAT_PLAIN] = "plain"};

static void text_info_release(struct text_info *t)
{
    free(t->text);
    free(t->codes);
    *t = (struct text_info){0};
}

void motion_vocab_release(struct motion_vocab *v)
{
    for (int32_t i = 0; v->participants && i < v->n_participants; i++)
        free(v->participants[i]);
    free(v->participants);
    for (int32_t i = 0; v->texts && i < v->n_texts; i++)
        text_info_release(&v->texts[i]);
    free(v->texts);
    free(v->system_prompt);
    *v = (struct motion_vocab){0};
}

/* In the order of the ids: everything follows from the first id and two counts. */
static enum status vocab_number(struct motion_vocab *v, struct err *err)
{
    int64_t first = v->base_vocab_size, n_pids = v->n_participants ? (int64_t)v->n_participants + 1 : 0;
    int64_t size = first + 2 + v->n_codes + 4 + n_pids;
    if (size > INT32_MAX)
        return err_set(err, ST_INPUT, "a vocabulary of %lld tokens is too large", (long long)size);
    v->begin = v->base_vocab_size;
    v->end = v->begin + 1;
    v->motion_first = v->begin + 2;
    v->t2m = v->motion_first + v->n_codes;
    v->m2t = v->t2m + 1;
    v->denoise = v->t2m + 2;
    v->mask = v->t2m + 3;
    v->pid_null = v->n_participants ? v->mask + 1 : -1;
    v->pid_first = v->n_participants ? v->mask + 2 : -1;
    v->vocab_size = (int32_t)size;
    return ST_OK;
}

/* The content of new token number i (from 0). */
void data__new_token(const struct motion_vocab *v, int32_t i, char out[NEW_TOKEN_BYTES])
{
    static const char *const first[] = {"<MOT_BEGIN>", "<MOT_END>"};
    static const char *const last[] = {"<T2M>", "<M2T>", "<DENOISE>", "<MOTION_MASK>", "<PID_NULL>"};
    if (i < 2)
        snprintf(out, NEW_TOKEN_BYTES, "%s", first[i]);
    else if (i - 2 < v->n_codes)
        snprintf(out, NEW_TOKEN_BYTES, "<motion_%d>", i - 2);
    else if (i - 2 - v->n_codes < 5)
        snprintf(out, NEW_TOKEN_BYTES, "%s", last[i - 2 - v->n_codes]);
    else
        snprintf(out, NEW_TOKEN_BYTES, "<PID_%s>", v->participants[i - 7 - v->n_codes]);
}

/* A tokenizer that knows these tokens already (one saved with a checkpoint) must know them in this order. */
static enum status vocab_add_tokens(struct motion_vocab *v, struct tokenizer *t, struct err *err)
{
    char content[NEW_TOKEN_BYTES];
    int32_t known = tokenizer_id(t, "<MOT_BEGIN>");
    v->base_vocab_size = known >= 0 ? known : tokenizer_size(t);
    TRY(vocab_number(v, err));
    for (int32_t i = 0; i < v->vocab_size - v->base_vocab_size; i++) {
        int32_t id;
        data__new_token(v, i, content);
        TRY(tokenizer_add(t, content, &id, err));
        if (id != v->base_vocab_size + i) {
            err_set(err, ST_INPUT, "the tokenizer has %s as id %d where this data set needs %d", content, id,
                    v->base_vocab_size + i);
            return err_hint(
                err,
                "start from the base model's tokenizer, or use the data set that the model was made for");
        }
    }
    return ST_OK;
}

static enum chat_style style_of(const struct tokenizer *t)
{
    if (tokenizer_id(t, "<|im_start|>") >= 0 && tokenizer_id(t, "<|im_end|>") >= 0)
        return CHAT_CHATML;
    if (tokenizer_id(t, "<start_of_turn>") >= 0 && tokenizer_id(t, "<end_of_turn>") >= 0)
        return CHAT_GEMMA;
    return CHAT_PLAIN;
}

static enum status text_duplicate(char **out, const char *text, struct err *err)
{
    *out = strdup(text);
    return *out ? ST_OK : err_memory(err, "a text", strlen(text) + 1);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(((const struct text_info *)a)->text, ((const struct text_info *)b)->text);
}

static enum status vocab_copy_texts(struct motion_vocab *v, const struct examples *x, struct err *err)
{
    int32_t n = examples_n_texts(x);
    v->texts = calloc((size_t)n, sizeof *v->texts);
    if (!v->texts)
        return err_memory(err, "texts", (size_t)n * sizeof *v->texts);
    for (int32_t i = 0; i < n; i++) {
        struct text_stats s;
        struct text_info *info = &v->texts[i];
        examples_text_stats(x, i, &s);
        v->n_texts++;
        info->min_len = s.min_len;
        info->median_len = s.median_len;
        info->max_len = s.max_len;
        info->n_codes = s.n_codes;
        TRY(text_duplicate(&info->text, s.text, err));
        info->codes = malloc((size_t)s.n_codes * sizeof *info->codes);
        if (!info->codes)
            return err_memory(err, "codes of a text", (size_t)s.n_codes * sizeof *info->codes);
        memcpy(info->codes, s.codes, (size_t)s.n_codes * sizeof *info->codes);
    }
    qsort(v->texts, (size_t)n, sizeof *v->texts, compare_texts);
    return ST_OK;
}

static enum status vocab_copy_participants(struct motion_vocab *v, const struct examples *x, struct err *err)
{
    int32_t n = examples_n_participants(x);
    v->participants = calloc((size_t)n + 1, sizeof *v->participants);
    if (!v->participants)
        return err_memory(err, "participants", ((size_t)n + 1) * sizeof *v->participants);
    for (int32_t i = 0; i < n; i++) {
        v->n_participants++;
        TRY(text_duplicate(&v->participants[i], examples_participant(x, i), err));
    }
    return ST_OK;
}

static enum status vocab_fill(struct motion_vocab *v, struct tokenizer *t, const struct examples *x,
                              const char *system_prompt, struct err *err)
{
    v->style = style_of(t);
    if (!system_prompt)
        system_prompt = v->style == CHAT_PLAIN ? "" : default_system_prompt;
    TRY(text_duplicate(&v->system_prompt, system_prompt, err));
    TRY(vocab_copy_participants(v, x, err));
    TRY(vocab_copy_texts(v, x, err));
    return vocab_add_tokens(v, t, err);
}

enum status motion_vocab_make(struct motion_vocab *v, struct tokenizer *t, const struct examples *x,
                              const char *system_prompt, bool space_tokens, struct err *err)
{
    *v = (struct motion_vocab){
        .n_codes = examples_n_codes(x), .space_tokens = space_tokens, .median_len = examples_median_len(x)};
    enum status status = vocab_fill(v, t, x, system_prompt, err);
    if (status != ST_OK)
        motion_vocab_release(v);
    return status;
}

const struct text_info *motion_vocab_text(const struct motion_vocab *v, const char *text)
{
    if (v->n_texts == 0)
        return NULL;
    struct text_info key = {.text = (char *)(uintptr_t)text}; /* only compared */
    return bsearch(&key, v->texts, (size_t)v->n_texts, sizeof *v->texts, compare_texts);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, *(const char *const *)b);
}

int32_t motion_vocab_participant(const struct motion_vocab *v, const char *name)
{
    if (v->n_participants == 0)
        return -1;
    char **at =
        bsearch(name, v->participants, (size_t)v->n_participants, sizeof *v->participants, compare_names);
    return at ? (int32_t)(at - v->participants) : -1;
}

/* Codes as one string: a list of JSON numbers would cost many times the memory to read. */
static enum status codes_write(const struct text_info *t, struct buf *out, struct err *err)
{
    buf_clear(out);
    for (int32_t i = 0; i < t->n_codes; i++)
        TRY(buf_printf(out, err, i ? " %d" : "%d", t->codes[i]));
    return ST_OK;
}

static enum status save_texts(const struct motion_vocab *v, json_t *list, struct buf *scratch,
                              struct err *err)
{
    for (int32_t i = 0; i < v->n_texts; i++) {
        const struct text_info *t = &v->texts[i];
        TRY(codes_write(t, scratch, err));
        if (json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:i, s:s}", "text", t->text, "min_len",
                                                  t->min_len, "median_len", t->median_len, "max_len",
                                                  t->max_len, "codes", scratch->data ? scratch->data : "")))
            return err_memory(err, "smgpt_data.json", scratch->n_bytes);
    }
    return ST_OK;
}

static enum status save_to(const struct motion_vocab *v, json_t *root, struct buf *scratch, struct err *err)
{
    json_t *participants = json_object_get(root, "participants");
    for (int32_t i = 0; i < v->n_participants; i++) {
        if (json_array_append_new(participants, json_string(v->participants[i])))
            return err_memory(err, "smgpt_data.json", strlen(v->participants[i]));
    }
    return save_texts(v, json_object_get(root, "texts"), scratch, err);
}

enum status motion_vocab_save(const struct motion_vocab *v, const char *path, struct err *err)
{
    struct buf scratch = BUF_INIT;
    json_t *root = json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:b, s:s, s:i, s:[], s:[]}",
        "format_version", 1, "base_vocab_size", v->base_vocab_size, "vocab_size", v->vocab_size, "n_codes",
        v->n_codes, "begin", v->begin, "end", v->end, "motion_first", v->motion_first, "t2m", v->t2m, "m2t",
        v->m2t, "denoise", v->denoise, "mask", v->mask, "pid_null", v->pid_null, "chat_style",
        style_names[v->style], "space_tokens", v->space_tokens, "system_prompt", v->system_prompt,
        "median_len", v->median_len, "participants", "texts");
    if (!root) {
        err_set(err, ST_INPUT, "\"%s\": cannot be made: the system prompt is not UTF-8, or memory is short",
                path);
        return err_hint(err, "check system_prompt or system_prompt_file");
    }
    enum status status = save_to(v, root, &scratch, err);
    if (status == ST_OK)
        status = json_write_file(path, root, false, err);
    buf_release(&scratch);
    json_decref(root);
    return status;
}

static enum status load_int(const json_t *o, const char *path, const char *key, int32_t min, int32_t max,
                            int32_t *out, struct err *err)
{
    int64_t value;
    TRY(json_get_int(o, path, key, min, max, false, 0, &value, err));
    *out = (int32_t)value;
    return ST_OK;
}

static enum status load_participants(struct motion_vocab *v, const json_t *root, const char *path,
                                     struct err *err)
{
    const json_t *list = json_object_get(root, "participants");
    if (!json_is_array(list) || json_array_size(list) > INT32_MAX / 2)
        return err_set(err, ST_INPUT, "\"%s\": participants is no list", path);
    v->participants = calloc(json_array_size(list) + 1, sizeof *v->participants);
    if (!v->participants)
        return err_memory(err, "participants", json_array_size(list) * sizeof *v->participants);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *name = json_array_get(list, i);
        if (!json_is_string(name) || json_string_length(name) > NEW_TOKEN_BYTES - sizeof "<PID_>")
            return err_set(err, ST_INPUT, "\"%s\": participants[%zu] is no short string", path, i);
        TRY(text_duplicate(&v->participants[i], json_string_value(name), err));
        v->n_participants++;
        if (i > 0 && strcmp(v->participants[i - 1], v->participants[i]) >= 0)
            return err_set(err, ST_INPUT, "\"%s\": participants[%zu] is out of order", path, i);
    }
    return ST_OK;
}

static enum status load_codes(struct text_info *t, const char *codes, int32_t n_codes, const char *path,
                              size_t i, struct err *err)
{
    size_t capacity = strlen(codes) / 2 + 1;
    t->codes = malloc(capacity * sizeof *t->codes);
    if (!t->codes)
        return err_memory(err, "codes of a text", capacity * sizeof *t->codes);
    while (*codes) {
        int64_t code = 0;
        const char *begin = codes;
        for (; *codes >= '0' && *codes <= '9' && code <= INT32_MAX; codes++)
            code = 10 * code + (*codes - '0');
        if (codes == begin || code >= n_codes || (*codes && (*codes != ' ' || !codes[1])) ||
            (t->n_codes > 0 && code <= t->codes[t->n_codes - 1]))
            return err_set(err, ST_INPUT, "\"%s\": texts[%zu].codes is no rising list of ids below %d", path,
                           i, n_codes);
        t->codes[t->n_codes++] = (int32_t)code;
        codes += *codes == ' ';
    }
    if (t->n_codes == 0)
        return err_set(err, ST_INPUT, "\"%s\": texts[%zu].codes is empty", path, i);
    return ST_OK;
}

static enum status load_text(struct motion_vocab *v, const json_t *o, const char *path, size_t i,
                             struct err *err)
{
    const char *text, *codes;
    struct text_info *t = &v->texts[i];
    v->n_texts++;
    if (!json_is_object(o))
        return err_set(err, ST_INPUT, "\"%s\": texts[%zu] is no object", path, i);
    TRY(json_get_string(o, path, "text", false, NULL, &text, err));
    TRY(json_get_string(o, path, "codes", false, NULL, &codes, err));
    TRY(load_int(o, path, "min_len", 1, INT32_MAX, &t->min_len, err));
    TRY(load_int(o, path, "median_len", t->min_len, INT32_MAX, &t->median_len, err));
    TRY(load_int(o, path, "max_len", t->median_len, INT32_MAX, &t->max_len, err));
    TRY(text_duplicate(&t->text, text, err));
    if (i > 0 && strcmp(v->texts[i - 1].text, text) >= 0)
        return err_set(err, ST_INPUT, "\"%s\": texts[%zu] is out of order", path, i);
    return load_codes(t, codes, v->n_codes, path, i, err);
}

static enum status load_texts(struct motion_vocab *v, const json_t *root, const char *path, struct err *err)
{
    const json_t *list = json_object_get(root, "texts");
    if (!json_is_array(list) || json_array_size(list) > INT32_MAX / 2)
        return err_set(err, ST_INPUT, "\"%s\": texts is no list", path);
    v->texts = calloc(json_array_size(list) + 1, sizeof *v->texts);
    if (!v->texts)
        return err_memory(err, "texts", json_array_size(list) * sizeof *v->texts);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(load_text(v, json_array_get(list, i), path, i, err));
    return ST_OK;
}

/* The ids stand in the file for readers of other languages; they must be those that follow from the counts.
 */
static enum status load_check_ids(const struct motion_vocab *v, const json_t *root, const char *path,
                                  struct err *err)
{
    const struct {
        const char *key;
        int32_t value;
    } ids[] = {{"begin", v->begin},     {"end", v->end},           {"motion_first", v->motion_first},
               {"t2m", v->t2m},         {"m2t", v->m2t},           {"mask", v->mask},
               {"denoise", v->denoise}, {"pid_null", v->pid_null}, {"vocab_size", v->vocab_size}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        int32_t value;
        TRY(load_int(root, path, ids[i].key, -1, INT32_MAX, &value, err));
        if (value != ids[i].value)
            return err_set(err, ST_INPUT,
                           "\"%s\": %s is %d, must be %d by base_vocab_size, n_codes and participants", path,
                           ids[i].key, value, ids[i].value);
    }
    return ST_OK;
}

static enum status load_style(struct motion_vocab *v, const json_t *root, const char *path, struct err *err)
{
    const char *style;
    TRY(json_get_string(root, path, "chat_style", false, NULL, &style, err));
    for (int i = CHAT_CHATML; i <= CHAT_PLAIN; i++) {
        if (!strcmp(style, style_names[i])) {
            v->style = (enum chat_style)i;
            return ST_OK;
        }
    }
    return err_set(err, ST_INPUT, "\"%s\": chat_style \"%.40s\" is not known", path, style);
}

static enum status vocab_load(struct motion_vocab *v, const json_t *root, const char *path, struct err *err)
{
    int32_t version;
    const char *prompt;
    if (!json_is_object(root))
        return err_set(err, ST_INPUT, "\"%s\": not an object", path);
    TRY(load_int(root, path, "format_version", 1, 1, &version, err));
    TRY(load_int(root, path, "base_vocab_size", 0, INT32_MAX, &v->base_vocab_size, err));
    TRY(load_int(root, path, "n_codes", 1, CODE_COUNT_MAX, &v->n_codes, err));
    TRY(load_int(root, path, "median_len", 1, INT32_MAX, &v->median_len, err));
    TRY(json_get_bool(root, path, "space_tokens", false, false, &v->space_tokens, err));
    TRY(json_get_string(root, path, "system_prompt", false, NULL, &prompt, err));
    TRY(text_duplicate(&v->system_prompt, prompt, err));
    TRY(load_style(v, root, path, err));
    TRY(load_participants(v, root, path, err));
    TRY(vocab_number(v, err));
    TRY(load_check_ids(v, root, path, err));
    return load_texts(v, root, path, err);
}

enum status motion_vocab_load(struct motion_vocab *v, const char *path, struct err *err)
{
    json_t *root;
    *v = (struct motion_vocab){0};
    TRY(json_read_file(&root, path, VOCAB_MAX_BYTES, err));
    enum status status = vocab_load(v, root, path, err);
    json_decref(root);
    if (status != ST_OK)
        motion_vocab_release(v);
    return status;
}
