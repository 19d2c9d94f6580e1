/* Private to this folder: the parts of the tables in tiles.c. */
#ifndef SMGPT_OPS_CPU_TILE_NAMES_H
#define SMGPT_OPS_CPU_TILE_NAMES_H

#include "tiles.h"

void tiles__amx_begin(void);
void tiles__amx_end(void);
void tiles__amx_product(const struct panel_product *p);
void tiles__dpbf16_end(void);
void tiles__dpbf16_product(const struct panel_product *p);

void tiles__pack_left(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
void tiles__pack_left_turned(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
void tiles__pack_right(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
void tiles__pack_right_turned(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
void tiles__copy_right_turned(uint16_t *panel, const uint16_t *x, int64_t ld, int64_t n, int64_t k);
void tiles__turn_right(uint16_t *to, const uint16_t *from);

void tiles__keep_gated_bf16(void *kept, const float *gate, const float *up, int rows);
void tiles__kept_gated_bf16(float *gate, float *up, const void *kept, int rows);
void tiles__keep_gated_f32(void *kept, const float *gate, const float *up, int rows);
void tiles__kept_gated_f32(float *gate, float *up, const void *kept, int rows);

void tiles__left_rows(uint16_t *step, const float *x, int first, int n);
void tiles__right_rows(uint16_t *step, const float *x, int first, int n);

void tiles__softmax(uint16_t *left, float *lse, float *sum, const float *scores, int64_t ld,
                    const uint32_t *seen, int64_t n_panels, int rows, float scale);
void tiles__softmax_back(const struct score_block *b, int first, int end);
void tiles__row_dots(float *dots, const uint16_t *left, const float *x, int64_t ld, int64_t rows, int64_t k,
                     int64_t n_heads);
void tiles__divide_rows(float *to, int64_t ld_to, const float *from, int64_t ld_from, const float *by,
                        int64_t rows, int64_t n);

#endif
