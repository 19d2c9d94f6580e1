/* Private to this folder: the parts of the tables in tiles.c. */
#ifndef SMGPT_OPS_CPU_TILE_NAMES_H
#define SMGPT_OPS_CPU_TILE_NAMES_H

#include "tiles.h"

/* Whether this thread's process may use the tile registers: asks the processor, then the system. */
bool tiles__amx_permitted(void);
void tiles__amx_begin(void);
void tiles__amx_end(void);
void tiles__amx_product(const struct panel_product *p);
void tiles__dpbf16_product(const struct panel_product *p);

void tiles__pack_left(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
void tiles__pack_left_turned(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
void tiles__pack_right(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
void tiles__pack_right_turned(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
void tiles__copy_right(uint16_t *panel, const uint16_t *x, int64_t ld, int64_t n, int64_t k);
void tiles__copy_right_turned(uint16_t *panel, const uint16_t *x, int64_t ld, int64_t n, int64_t k);

#endif
