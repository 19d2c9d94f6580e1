/* The texts of --prompt or --prompts. */
#ifndef SMGPT_CLI_PROMPTS_H
#define SMGPT_CLI_PROMPTS_H

#include "util/buf.h"
#include <jansson.h>
#include <stdint.h>

struct prompts {
    const char **items; /* [n] owned list of texts that live in file, list or argv */
    int32_t n;
    struct buf file;
    json_t *list;
};
/* One text. */
enum status prompts_one(struct prompts *p, const char *text, struct err *err);
/* A file: a JSON list of texts (any name; one that ends in .json must be that), or one text a line, where
 * lines without anything are skipped. ST_INPUT names file and place. */
enum status prompts_read(struct prompts *p, const char *path, struct err *err);
void prompts_release(struct prompts *p);

/* streams[i], apart by the text's own number: for the k-th of equal texts that number + k n. So n samples
 * drawn from streams[i] on depend neither on what else stands in the file nor repeat those of an equal text,
 * and two texts do not share their random numbers. */
enum status prompts_streams(const struct prompts *p, uint32_t n, uint32_t *streams, struct err *err);

#endif
