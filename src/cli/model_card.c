#include "model_card.h"
#include "checkpoint/state.h"
#include "util/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LOSS_ROWS 12 /* of the training loss; evaluations are all shown */

static const char *const what[] = {"motion-only language modelling",
                                   "text-to-motion, motion-to-text and denoising", "text-to-motion"};

/* The front matter that the Hub reads. A path of this machine is nobody's base model. */
static enum status front_matter(struct buf *b, const char *base, struct err *err)
{
    bool named = base[0] != '/' && base[0] != '.' && strchr(base, '/') && !strpbrk(base, " :#\"'\n");
    TRY(buf_puts(b, "---\nlibrary_name: peft\n", err));
    if (named)
        TRY(buf_printf(b, err, "base_model: %.*s\n", (int)strcspn(base, "@"), base));
    return buf_puts(
        b, "tags:\n- motion-generation\n- sign-language\n- text-to-motion\n- lora\n- smgpt-dist\n---\n\n",
        err);
}

static enum status facts(struct buf *b, const struct stage_files_user *u, int32_t stage, int64_t step,
                         int64_t max_steps, struct err *err)
{
    const struct options *o = u->options;
    const struct params *p = u->params;
    const char *base = strrchr(o->model, '/');
    TRY(buf_printf(
        b, err,
        "# Stage %d: %s\n\nA LoRA adapter%s after %lld of %lld optimizer steps.\n\n| | |\n|---|---|\n",
        (int)stage, what[stage - 1], p->n_new > 0 ? " with new rows for motion tokens" : "", (long long)step,
        (long long)max_steps));
    TRY(buf_printf(b, err, "| base model | `%s` |\n", o->model[0] == '/' && base ? base + 1 : o->model));
    TRY(buf_printf(b, err, "| LoRA | rank %d, alpha %g |\n", (int)p->lora.r, p->lora.alpha));
    if (p->n_new > 0)
        TRY(buf_printf(b, err, "| new tokens | %lld, from id %lld on |\n", (long long)p->n_new,
                       (long long)p->new_first));
    if (u->data->examples)
        TRY(buf_printf(b, err, "| data | %lld rows, %d texts, %d motion codes, %d participants |\n",
                       (long long)examples_count(u->data->examples), examples_n_texts(u->data->examples),
                       examples_n_codes(u->data->examples), examples_n_participants(u->data->examples)));
    return buf_printf(b, err, "| examples a step | %lld |\n| learning rate | %g, %s |\n| seed | %lld |\n",
                      (long long)(o->batch_train * o->grad_accum), o->lr, o->schedule, (long long)o->seed);
}

static bool number(const json_t *row, const char *key, double *out)
{
    const json_t *value = json_object_get(row, key);
    *out = json_is_number(value) ? json_number_value(value) : NAN;
    return isfinite(*out);
}

/* Of the steps' losses about LOSS_ROWS, evenly, with the first and the last. */
static enum status losses(struct buf *b, const json_t *history, struct err *err)
{
    size_t n = json_array_size(history), n_losses = 0, seen = 0;
    double step, value;
    for (size_t i = 0; i < n; i++)
        n_losses += number(json_array_get(history, i), "loss", &value);
    if (n_losses == 0)
        return ST_OK;
    TRY(buf_puts(b, "\n## Loss\n\n| step | training | evaluation |\n|---|---|---|\n", err));
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(history, i);
        if (!number(row, "step", &step))
            continue;
        if (number(row, "loss", &value)) {
            bool shown =
                n_losses <= LOSS_ROWS || seen == 0 || seen + 1 == n_losses ||
                seen * (LOSS_ROWS - 1) / (n_losses - 1) != (seen - 1) * (LOSS_ROWS - 1) / (n_losses - 1);
            if (shown)
                TRY(buf_printf(b, err, "| %.0f | %.4f | |\n", step, value));
            seen++;
        }
        if (number(row, "eval_loss", &value))
            TRY(buf_printf(b, err, "| %.0f | | %.4f |\n", step, value));
    }
    return ST_OK;
}

static enum status ways_on(struct buf *b, int32_t stage, struct err *err)
{
    return buf_printf(b, err,
                      "\n## Going on\n\n"
                      "An ordinary checkpoint of transformers' Trainer with PEFT: `smgpt-dist train --stage "
                      "%d` goes on from "
                      "it (on an empty\nmachine too, when `HF_TOKEN` may read this repository), and so does "
                      "`trainer.train(resume_from_checkpoint=DIR)`.\n"
                      "`smgpt-dist generate --model_path DIR --prompt TEXT` gives motion tokens.\n",
                      (int)stage);
}

enum status model_card_write(const struct stage_files_user *u, const char *dir, int32_t stage, int64_t step,
                             struct err *err)
{
    char path[PATH_BYTES], state_path[PATH_BYTES];
    struct trainer_state s = {0};
    struct buf b = BUF_INIT;
    TRY(path_join(path, dir, "README.md", err));
    TRY(path_join(state_path, dir, "trainer_state.json", err));
    TRY(trainer_state_read(state_path, &s, err));
    enum status st = front_matter(&b, u->options->model, err);
    if (st == ST_OK)
        st = facts(&b, u, stage, step, s.max_steps, err);
    if (st == ST_OK)
        st = losses(&b, s.log_history, err);
    if (st == ST_OK)
        st = ways_on(&b, stage, err);
    if (st == ST_OK)
        st = file_write(path, b.data, b.n_bytes, err);
    trainer_state_release(&s);
    buf_release(&b);
    return st;
}
