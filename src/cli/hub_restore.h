/* Checkpoints that the Hub has and this machine has not: what a start on an empty machine goes on from. Rank
 * 0 alone. */
#ifndef SMGPT_CLI_HUB_RESTORE_H
#define SMGPT_CLI_HUB_RESTORE_H

#include "config/options.h"
#include "hub/http.h"

/* For each stage of first..last, and the one before: when the newest complete checkpoint of its repository is
 * of a later step than the newest one here, it is downloaded into the stage's output directory, whole or not
 * at all; one that turns out to be broken is passed over, with the reason, for the one before. A repository
 * that is not there is no fault; a Hub that cannot be asked is a warning. ST_NET: it has a newer checkpoint
 * and does not give it: to start over, or from an older one, would be wrong. */
enum status hub_restore(struct http *h, const struct options *o, int first, int last, struct err *err);

#endif
