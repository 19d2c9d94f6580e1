#include "flip.h"
#include <string.h>

enum { MAX_RANKS = 64, BIT = 18 };

static struct {
    int64_t at, n;
    float *x;
} flips[MAX_RANKS];
static const struct comm_ops *real;
static struct comm_ops counting;

static void turn_over(float *x)
{
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    bits ^= UINT32_C(1) << BIT;
    memcpy(x, &bits, sizeof bits);
}

static enum status scatter(struct comm *c, const struct buf *parts, struct buf *out, struct err *err)
{
    if (++flips[c->rank].n == flips[c->rank].at)
        turn_over(flips[c->rank].x);
    return real->scatter(c, parts, out, err);
}

void flip_install(struct comm *c, int64_t n, float *x)
{
    if (c->rank >= MAX_RANKS)
        return;
    if (c->ops != &counting)
        real = c->ops;
    counting = *real;
    counting.scatter = scatter;
    c->ops = &counting;
    flips[c->rank].at = n;
    flips[c->rank].n = 0;
    flips[c->rank].x = x;
}

void flip_remove(struct comm *c)
{
    c->ops = real;
}
