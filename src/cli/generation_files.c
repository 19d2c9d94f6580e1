#include "generation_files.h"
#include "util/file.h"

const char *tokenizer_dir_of(const struct model_path *path)
{
    char file[PATH_BYTES];
    if (path->adapter_dir[0] && path_join(file, path->adapter_dir, "tokenizer.json", NULL) == ST_OK &&
        file_exists(file))
        return path->adapter_dir;
    return path->model_dir;
}

/* Not looked for in the base model below an adapter: the adapter brings its own new tokens. */
static enum status read_vocab(struct motion_vocab *v, const struct model_path *path, struct err *err)
{
    char file[PATH_BYTES];
    const char *dir = path->adapter_dir[0] ? path->adapter_dir : path->model_dir;
    TRY(path_join(file, dir, "smgpt_data.json", err));
    if (file_exists(file))
        return motion_vocab_load(v, file, err);
    err_set(err, ST_INPUT, "'%s' has no smgpt_data.json, the motion tokens are not known", dir);
    return err_hint(
        err, "checkpoints of smgpt-dist hold it; copy it, and the tokenizer's files, from one trained on "
             "the same data set");
}

enum status generation_files_open(struct generation_files *f, const struct model_path *path, struct err *err)
{
    *f = (struct generation_files){0};
    enum status st = read_vocab(&f->vocab, path, err);
    if (st == ST_OK)
        st = tokenizer_open(&f->tokenizer, tokenizer_dir_of(path), err);
    if (st == ST_OK)
        st = template_open(&f->template, f->tokenizer, &f->vocab, err);
    if (st != ST_OK)
        generation_files_close(f);
    return st;
}

void generation_files_close(struct generation_files *f)
{
    template_close(f->template);
    tokenizer_close(f->tokenizer);
    motion_vocab_release(&f->vocab);
    *f = (struct generation_files){0};
}

void sampler_from_options(struct sampler *s, const struct options *o)
{
    *s = (struct sampler){.temperature = o->gen_temperature,
                          .top_p = o->gen_top_p,
                          .repetition_penalty = o->gen_repetition_penalty,
                          .end_logit_slope = o->gen_end_logit_slope,
                          .no_repeat_ngram = (int32_t)o->gen_no_repeat_ngram,
                          .max_new_tokens = (int32_t)o->gen_max_new_tokens,
                          .seed = (uint64_t)o->seed};
}
