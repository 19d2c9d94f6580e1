#ifndef SMGPT_HUB_SPOOL_INTERNAL_H
#define SMGPT_HUB_SPOOL_INTERNAL_H

#include "hub/spool.h"
#include "util/file.h"

#define SPOOL_NAME_BYTES 64

/* "stage2-checkpoint-330" */
void spool__name(const struct spool_point *point, char name[SPOOL_NAME_BYTES]);
/* Notes that the point is on the Hub and takes it out of the spool. */
enum status spool__sent(const char *dir, const struct spool_point *point, struct err *err);
/* Removes what a killed process left half made. Before this process puts anything. */
void spool__clean(const char *dir);

/* How many whole points wait; nothing is said of others. */
int spool__count(const char *dir);

#endif
