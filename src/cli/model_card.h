/* README.md of a checkpoint: the model card that the Hub shows. */
#ifndef SMGPT_CLI_MODEL_CARD_H
#define SMGPT_CLI_MODEL_CARD_H

#include "stage_files.h"

/* Writes dir/README.md: base model and tags for the Hub's search, what was trained on what, the losses that
 * dir/trainer_state.json has, and how to go on. Depends on nothing but the run. */
enum status model_card_write(const struct stage_files_user *u, const char *dir, int32_t stage, int64_t step,
                             struct err *err);

#endif
