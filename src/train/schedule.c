#include "train/train.h"
#include <math.h>
#include <string.h>

static double falling(enum schedule_kind kind, int64_t step, int64_t warmup_steps, int64_t max_steps)
{
    const int64_t span = max_steps - warmup_steps > 1 ? max_steps - warmup_steps : 1;
    switch (kind) {
    case SCHEDULE_CONSTANT:
    case SCHEDULE_CONSTANT_WITH_WARMUP:
        return 1;
    case SCHEDULE_LINEAR:
        return fmax(0, (double)(max_steps - step) / (double)span);
    case SCHEDULE_COSINE:
        break;
    }
    /* The library multiplies by pi, the number of half waves (0.5) and 2 in this order. */
    double progress = (double)(step - warmup_steps) / (double)span;
    return fmax(0, 0.5 * (1 + cos(M_PI * 0.5 * 2 * progress)));
}

double schedule_factor(enum schedule_kind kind, int64_t step, int64_t warmup_steps, int64_t max_steps)
{
    if (step < warmup_steps && kind != SCHEDULE_CONSTANT)
        return (double)step / (double)(warmup_steps > 1 ? warmup_steps : 1);
    return falling(kind, step, warmup_steps, max_steps);
}

int64_t schedule_warmup(int64_t max_steps, double ratio)
{
    return (int64_t)ceil((double)max_steps * ratio);
}

bool schedule_by_name(const char *name, enum schedule_kind *out)
{
    static const char *const names[] = {[SCHEDULE_COSINE] = "cosine",
                                        [SCHEDULE_LINEAR] = "linear",
                                        [SCHEDULE_CONSTANT] = "constant",
                                        [SCHEDULE_CONSTANT_WITH_WARMUP] = "constant_with_warmup"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum schedule_kind)i;
            return true;
        }
    return false;
}
