/* Whether all hosts hold the same frozen weights. They come from rank 0's files over the network and are
 * packed on each host: once at the start it is looked at whether the same arrived and was made everywhere. */
#ifndef SMGPT_TRAIN_BASE_WEIGHTS_H
#define SMGPT_TRAIN_BASE_WEIGHTS_H

#include "comm/comm.h"
#include "model/weights.h"

/* digests [weights_count]: this rank's share of its host's, from weights_digest_group. ST_ENV names host and
 * tensor of the host that stands alone; of two hosts the other than rank 0's. With one host there is nothing
 * to compare, and nothing is read. Collective. */
enum status base_weights_check(struct comm *c, const struct arch *a, const struct weight_digest *digests,
                               struct err *err);

#endif
