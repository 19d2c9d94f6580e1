/* A plain Hugging Face model directory with the adapter merged in. */
#ifndef SMGPT_CLI_EXPORT_H
#define SMGPT_CLI_EXPORT_H

#include "assemble.h"

/* Merges s->params into s->weights (in place: s is good for nothing else afterwards) and writes config.json,
 * model.safetensors (float32) and the tokenizer's files to out_dir, which must not exist yet; it appears
 * whole or not at all. *untied: the base was tied, but its new input and output rows differ, so the head
 * stands alone. Single process. */
enum status export_merged(struct assembly *s, const struct model_path *from, const char *out_dir,
                          bool *untied, struct err *err);

#endif
