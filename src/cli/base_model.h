/* Where a base model's files are: a directory by its path, or a model of the Hub by its name. Rank 0 alone.
 */
#ifndef SMGPT_CLI_BASE_MODEL_H
#define SMGPT_CLI_BASE_MODEL_H

#include "util/file.h"

/* A directory's path is taken as it is. Else "owner/name" or "owner/name@revision" is a model of the Hub: it
 * is fetched into the cache that huggingface_hub shares, or found there when the Hub is off. ST_INPUT:
 * neither; ST_NET: as hub_model says. */
enum status base_model_find(char dir[PATH_BYTES], const char *name, struct err *err);

#endif
