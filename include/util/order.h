/* Orders for qsort. */
#ifndef SMGPT_UTIL_ORDER_H
#define SMGPT_UTIL_ORDER_H

#include <stdint.h>

static inline int order_int32(const void *left, const void *right)
{
    const int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    return (a > b) - (a < b);
}

#endif
