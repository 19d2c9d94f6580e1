/* Moments of a parameter as bitsandbytes' 8-bit AdamW stores them. */
#ifndef SMGPT_CHECKPOINT_OPTIMIZER_BNB_H
#define SMGPT_CHECKPOINT_OPTIMIZER_BNB_H

#include "checkpoint/torch_file.h"

/* Whether a state entry is of that optimizer: six keys beside "step" (until 0.49.1) or in a dict of their own
 * (since). */
bool bnb__is_entry(const struct value *entry);
/* The stored tensor of moment 1 (m) or 2 (v), bytes or floats in the parameter's shape; NULL when absent. */
const struct value *bnb__state(const struct value *entry, int moment);
/* Widens that tensor into out [n elements of it]. Bytes are looked up in the file's own table and scaled by
 * their block; parameters of fewer than 4096 elements are stored as floats. ST_INPUT names what does not fit.
 */
enum status bnb__read(const struct value *entry, int moment, const char *path, const char *name, float *out,
                      struct err *err);
/* Clears m where v is 0: there v was below the table's smallest entry, and m over the square root of nothing
 * would be an update without bound. Returns how many it cleared. */
int64_t bnb__drop_unscaled(float *m, const float *v, int64_t n);

#endif
