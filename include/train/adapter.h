/* The trained values as PEFT's adapter_model.safetensors, both ways. */
#ifndef SMGPT_TRAIN_ADAPTER_H
#define SMGPT_TRAIN_ADAPTER_H

#include "model/params.h"

/* Reads adapter_model.safetensors (or, where only that is there, adapter_model.bin) of a PEFT directory into
 * values, host [p->n_values]. Every tensor of p must be there with its shape, in any floating type; ST_INPUT
 * names the one that is not, and any tensor that p has no place for. Left aside are what PEFT stores besides
 * when it had to grow the base: base_layer matrices, and the head's copy of tied rows when it is equal.
 * Not collective. */
enum status adapter_read(const char *dir, const struct params *p, float *values, struct err *err);

/* Writes path (a .safetensors file) from host values, beside and renamed. Equal values give equal bytes. */
enum status adapter_write(const char *path, const struct params *p, const float *values, struct err *err);

#endif
