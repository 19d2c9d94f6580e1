/* Which tables there are, and which of their slots are empty. */
#include "ops_internal.h"
#include <stdio.h>
#include <string.h>

const struct ops *ops_by_name(const char *name)
{
    static const struct ops *const tables[] = {&ops__cpu, &ops__reference};
    const struct ops *timed = name != NULL ? ops__timed(name) : NULL;
    if (timed != NULL)
        return timed;
    for (size_t i = 0; name != NULL && i < sizeof tables / sizeof tables[0]; i++)
        if (strcmp(name, tables[i]->name) == 0)
            return tables[i];
    return NULL;
}

#define SLOT(name)                                                                                           \
    {                                                                                                        \
#name, offsetof(struct ops, name)                                                                    \
    }
static const struct {
    const char *name;
    size_t offset;
} slots[] = {
    SLOT(open),           SLOT(close),
    SLOT(describe),       SLOT(alloc),
    SLOT(release),        SLOT(upload),
    SLOT(download),       SLOT(zero),
    SLOT(copy),           SLOT(weight_bytes),
    SLOT(weight_prepare), SLOT(weight_release),
    SLOT(linear),         SLOT(linear_back),
    SLOT(project),        SLOT(project_back),
    SLOT(mlp_kept_bytes), SLOT(mlp),
    SLOT(mlp_back),       SLOT(gemm),
    SLOT(rms_norm),       SLOT(rms_norm_back),
    SLOT(rope),           SLOT(attention),
    SLOT(attention_back), SLOT(attention_decode),
    SLOT(act_mul),        SLOT(act_mul_back),
    SLOT(embed),          SLOT(embed_back),
    SLOT(gather_rows),    SLOT(scatter_add_rows),
    SLOT(cross_entropy),  SLOT(add),
    SLOT(sum_squares),    SLOT(adamw),
    SLOT(sync),
};
/* A new slot must get its line above: the table is the struct without its name. */
_Static_assert(sizeof slots / sizeof slots[0] ==
                   (sizeof(struct ops) - sizeof(const char *)) / sizeof(void (*)(void)),
               "slots[] lists every slot of struct ops");

int ops_missing(const struct ops *ops, char *text, size_t n_bytes)
{
    int n_missing = 0;
    size_t used = 0;
    if (n_bytes > 0)
        text[0] = '\0';
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        void (*slot)(void);
        memcpy(&slot, (const char *)ops + slots[i].offset, sizeof slot);
        if (slot != NULL)
            continue;
        if (used < n_bytes) {
            int n = snprintf(text + used, n_bytes - used, "%s%s", n_missing ? " " : "", slots[i].name);
            used += n > 0 ? (size_t)n : 0;
        }
        n_missing++;
    }
    return n_missing;
}
