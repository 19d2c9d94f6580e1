/* The data set from the network, when it is not here. Rank 0 alone. */
#ifndef SMGPT_CLI_FETCH_DATA_H
#define SMGPT_CLI_FETCH_DATA_H

#include "config/options.h"
#include "util/err.h"

/* Downloads o->data_json from `url`, or (NULL) from Google Drive by o->gdrive_id; it takes its name only
 * after it was read as a data set. ST_USAGE: neither is given; ST_NET; ST_INPUT: what came is no data set. */
enum status fetch_data(const struct options *o, const char *url, struct err *err);

#endif
