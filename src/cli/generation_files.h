/* What lies beside the weights and is needed to generate: tokenizer, smgpt_data.json, and the settings. */
#ifndef SMGPT_CLI_GENERATION_FILES_H
#define SMGPT_CLI_GENERATION_FILES_H

#include "assemble.h"
#include "generate/generate.h"

/* The directory whose tokenizer belongs to the weights: the adapter's if it has one, else the base model's.
 */
const char *tokenizer_dir_of(const struct model_path *path);

struct generation_files {
    struct tokenizer *tokenizer;
    struct motion_vocab vocab;
    struct template *template;
};
/* ST_INPUT when smgpt_data.json is missing or does not fit the tokenizer. */
enum status generation_files_open(struct generation_files *f, const struct model_path *path, struct err *err);
void generation_files_close(struct generation_files *f);

/* The gen_* options and the seed; greedy and per_prompt_vocab stay false. */
void sampler_from_options(struct sampler *s, const struct options *o);

#endif
