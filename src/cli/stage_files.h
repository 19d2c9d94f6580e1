/* Rank 0's files of a stage: data set, tokenizer and packs in; what goes beside the numbers in a checkpoint
 * out. */
#ifndef SMGPT_CLI_STAGE_FILES_H
#define SMGPT_CLI_STAGE_FILES_H

#include "config/options.h"
#include "data/examples.h"
#include "data/pack.h"
#include "data/template.h"
#include "data/tokenizer.h"
#include "model/params.h"
#include "util/file.h"

/* Tokens of one packed sequence at most: long enough for efficient products, short enough for its
 * activations. */
#define STAGE_PACK_TOKENS 2048

struct stage_data {
    struct tokenizer *tokenizer; /* NULL when training from a given pack and the model has none */
    struct examples *examples;   /* NULL when training from a given pack */
    struct motion_vocab vocab;
    bool has_vocab;
    char model_dir[PATH_BYTES]; /* of the base model */
};

/* Data set and tokenizer; or, when `pack` names the pack to train from, only the tokenizer if there is one,
 * and the range of stages becomes that pack's stage. */
enum status stage_data_open(struct stage_data *d, const struct options *o, int *first_stage, int *last_stage,
                            struct err *err);
void stage_data_close(struct stage_data *d);

/* Makes the pack if it is not there, opens it. */
enum status stage_pack_open(struct stage_data *d, const struct options *o, int stage, struct pack **pack,
                            struct pack_info *info, struct err *err);
/* Just makes it. dir: where stage<k>.h5 goes. */
enum status stage_pack_make(struct stage_data *d, const struct options *o, int stage, const char *dir,
                            char path[PATH_BYTES], struct err *err);

struct hub_points;
struct stage_files_user {
    const struct stage_data *data;
    const struct options *options;
    const struct params *params;
    struct hub_points *hub; /* NULL: the Hub is off */
};
/* train_files.add_files: adapter_config.json, tokenizer files, smgpt_data.json, effective options, model
 * card. */
enum status stage_add_files(void *user, const char *dir, int32_t stage, int64_t step, struct err *err);

/* ST_INPUT when the checkpoint of `stage` in dir is not that stage's last step. */
enum status stage_check_finished(const char *dir, int stage, struct err *err);
/* --resume none: an output directory with checkpoints is renamed, never deleted. */
enum status stage_set_aside(const char *out_dir, struct err *err);

#endif
