/* Products of bfloat16 operands on processors that multiply them natively (AVX-512 BF16, AMX), by oneDNN.
 *
 * oneDNN never sees a whole product: it would choose its cut, even over the summed dimension, by the number
 * of threads. It gets blocks whose borders depend on the sizes alone, and one thread for each. */
#ifndef SMGPT_OPS_CPU_BF16_H
#define SMGPT_OPS_CPU_BF16_H

#include "util/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;
struct bf16_engine;
/* A right operand B [k, n], packed in blocks of columns. */
struct bf16_matrix;

/* "amx", "avx512_bf16", or NULL where oneDNN has no native bfloat16 on this processor. */
const char *cpu__bf16_path(void);
/* Keeps oneDNN from using more than AVX-512 BF16; false when it has already been used with more. */
bool cpu__bf16_without_amx(void);

enum status cpu__bf16_open(struct bf16_engine **out, struct err *err);
void cpu__bf16_close(struct bf16_engine *engine);

/* Describes B in memory that begins at a multiple of 64 and holds or will hold its blocks; *n_bytes of it.
 * The memory stays the caller's; NULL when only the size is asked for. */
enum status cpu__bf16_open_matrix(struct bf16_matrix **out, size_t *n_bytes, struct device *dev, void *memory,
                                  int64_t k, int64_t n, struct err *err);
/* Packs source (bfloat16): element (l, j) at source[l * k_step + j * n_step]; one of the steps is 1. */
enum status cpu__bf16_pack(struct bf16_matrix *b, struct device *dev, const uint16_t *source, int64_t k_step,
                           int64_t n_step, struct err *err);
void cpu__bf16_close_matrix(struct bf16_matrix *b);
/* c [m, n] (stride ldc) = a [m, k] (float32, stride lda, rounded here) times b (+ c when accumulate). */
void cpu__bf16_product(struct device *dev, float *c, int64_t ldc, const float *a, int64_t lda, int64_t m,
                       const struct bf16_matrix *b, bool accumulate);

#endif
