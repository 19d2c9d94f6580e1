/* The word somebody meant. */
#ifndef SMGPT_CONFIG_NEAREST_H
#define SMGPT_CONFIG_NEAREST_H

#include <stddef.h>

/* Edit distance (insert, delete, replace: 1 each; Levenshtein 1966) of the first 63 bytes; letter case and
 * "-" against
 * "_" cost nothing. */
int word_distance(const char *a, const char *b);
/* Index of the first of the nearest words; n must be at least 1. */
size_t word_nearest(const char *word, const char *const *words, size_t n);

#endif
