/* Private to the data room: what the vocabulary and the rows share. */
#ifndef SMGPT_DATA_TEMPLATE_INTERNAL_H
#define SMGPT_DATA_TEMPLATE_INTERNAL_H

#include "data/template.h"

#define NEW_TOKEN_BYTES 256
#define CODE_COUNT_MAX  1000001 /* codebook ids reach 1,000,000 */

/* The content of new token number i, counted from base_vocab_size. */
void data__new_token(const struct motion_vocab *v, int32_t i, char out[NEW_TOKEN_BYTES]);

#endif
