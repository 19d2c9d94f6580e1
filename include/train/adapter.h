/* The trained values as PEFT's adapter_model.safetensors, both ways. */
#ifndef SMGPT_TRAIN_ADAPTER_H
#define SMGPT_TRAIN_ADAPTER_H

#include "model/params.h"

/* The ids of the new rows in the order in which the files hold them: embed and head [p->n_new]. They belong
 * into trainable_token_indices. On a base that ties its head PEFT trains the two apart only when the lists
 * differ, and another order is a difference: the head's ids come last first there. */
void adapter_row_ids(const struct params *p, int64_t *embed, int64_t *head);

/* Reads adapter_model.safetensors (or, where only that is there, adapter_model.bin) of a PEFT directory into
 * values, host [p->n_values]; new rows by the lists of adapter_config.json, in any order, or by ascending id
 * where that file is missing. Every tensor of p must be there with its shape, in any floating type; ST_INPUT
 * names the one that is not, any tensor that p has no place for, and ids that are not p's. Left aside are
 * what PEFT stores besides when it had to grow the base: base_layer matrices, and the head's copy of tied
 * rows when it is equal. New rows may also stand in whole matrices (modules_to_save) when p knows the base:
 * ST_INPUT unless their other rows are the base's. Not collective. */
enum status adapter_read(const char *dir, const struct params *p, float *values, struct err *err);

/* The same from a .safetensors file that holds tensors of those names, such as their gradients, in the order
 * of dir's adapter. */
enum status adapter_read_file(const char *path, const char *dir, const struct params *p, float *values,
                              struct err *err);

/* Of a directory with whole matrices (modules_to_save): the run of ids *first .. *first + *n - 1 outside of
 * which all rows of both are the base's; rows that the base has not got are in it. At least one id. embed and
 * head are the base's, in host memory. ST_INPUT for matrices that the base does not fit. */
enum status adapter_whole_rows(const char *dir, const struct weight *embed, const struct weight *head,
                               int64_t *first, int64_t *n, struct err *err);

/* Writes path (a .safetensors file) from host values, rows as adapter_row_ids() lists them, beside and
 * renamed; in a floating type, to which values are rounded to nearest, ties to even. Equal values give equal
 * bytes. */
enum status adapter_write(const char *path, const struct params *p, const float *values, enum dtype dtype,
                          struct err *err);

/* The same with new rows as whole matrices of embedding and head (modules_to_save), all other rows the
 * base's, which p must know; one parameter for both ends stands there under both names. */
enum status adapter_write_whole(const char *path, const struct params *p, const float *values,
                                enum dtype dtype, struct err *err);

#endif
