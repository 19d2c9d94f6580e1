/* From a model directory, and an adapter on top, to a model ready to run: shared by all commands that
 * compute. */
#ifndef SMGPT_CLI_ASSEMBLE_H
#define SMGPT_CLI_ASSEMBLE_H

#include "checkpoint/state.h"
#include "comm/comm.h"
#include "config/options.h"
#include "data/template.h"
#include "data/tokenizer.h"
#include "model/model.h"
#include "util/file.h"

struct assembly {
    struct comm *comm; /* borrowed */
    const struct ops *ops;
    struct device *dev;
    struct arch arch;
    enum dtype matrix;        /* type of the frozen matrices */
    struct comm_shared block; /* the frozen weights and their packed forms, one copy a host */
    struct weights weights;
    char model_sha256[SHA256_HEX_BYTES]; /* fingerprint of config and weights */
    struct params params;
    struct model *model;
    float *values; /* device [params.n_values] */
};

/* What --model_path means. */
struct model_path {
    char model_dir[PATH_BYTES];   /* the base model */
    char adapter_dir[PATH_BYTES]; /* "" for a plain model directory */
};
/* A stage's output directory, a checkpoint, any PEFT adapter or a plain model directory. The base is looked
 * for as its name stands in the adapter, then below the adapter's parent directories. Not collective. */
enum status model_path_resolve(struct model_path *out, const char *path, struct err *err);

/* Opens device and base model. dir is used on rank 0 only. Collective. */
enum status assembly_open(struct assembly *s, struct comm *comm, const struct options *o, const char *dir,
                          struct err *err);
/* The same without the weights: enough to say what the model would take. */
enum status assembly_open_shape(struct assembly *s, struct comm *comm, const struct options *o,
                                const char *dir, struct err *err);
/* Lays out the trainable values (zeroed) and the model on them. Collective in that all ranks must call it
 * alike. */
enum status assembly_params(struct assembly *s, const struct lora_config *lora, int64_t new_first,
                            int64_t n_new, bool untied_rows, struct err *err);
void assembly_close(struct assembly *s);

/* LoRA settings from the options / from an adapter's config. */
enum status lora_from_options(struct lora_config *lora, const struct options *o, struct err *err);
enum status lora_from_adapter(struct lora_config *lora, const struct adapter_config *c, struct err *err);

/* The new rows of an adapter: one run of ids, as this program and its data use them. */
struct adapter_rows {
    int64_t first, n;
    bool apart; /* the head's are trained apart from the input's */
};
/* ST_INPUT for any other choice of rows. tied: whether the base ties its head; dir is for the message. */
enum status rows_from_adapter(struct adapter_rows *out, const struct adapter_config *c, bool tied,
                              const char *dir, struct err *err);

/* Base and adapter of a --model_path on one process: the whole of a generating or measuring command's start.
 */
enum status assembly_open_path(struct assembly *s, struct comm *comm, const struct options *o,
                               const struct model_path *path, struct err *err);

#endif
