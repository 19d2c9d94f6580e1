/* config.json and generation_config.json of the presets of init-model. */
#ifndef SMGPT_CLI_INIT_CONFIG_H
#define SMGPT_CLI_INIT_CONFIG_H

#include <jansson.h>
#include <stdint.h>

struct init_tokens {
    int32_t vocab_size, bos, eos; /* -1: none */
};

/* family: qwen3, gemma3_text or llama; preset: tiny, small or 0.6b (qwen3 alone). New references; NULL when
 * memory is out, or the family has no such preset. */
json_t *init_config(const char *family, const char *preset, const struct init_tokens *ids);
json_t *init_generation_config(const struct init_tokens *ids);

#endif
