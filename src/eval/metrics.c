#include "eval/metrics.h"

#include <stdlib.h>

/* Two rows of the table, of which one is kept: while row i is written over row i - 1, `diagonal` is what
 * stood at (i - 1, j - 1). */
enum status edit_distance(struct motion_span a, struct motion_span b, int32_t *distance, struct err *err)
{
    if (a.n < b.n) {
        struct motion_span longer = b;
        b = a;
        a = longer;
    }
    size_t bytes = ((size_t)b.n + 1) * sizeof(int32_t);
    int32_t *row = malloc(bytes);
    if (!row)
        return err_memory(err, "an edit distance", bytes);
    for (int32_t j = 0; j <= b.n; j++)
        row[j] = j;
    for (int32_t i = 1; i <= a.n; i++) {
        int32_t diagonal = row[0];
        row[0] = i;
        for (int32_t j = 1; j <= b.n; j++) {
            int32_t above = row[j], best = diagonal + (a.ids[i - 1] != b.ids[j - 1]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
            diagonal = above;
        }
    }
    *distance = row[b.n];
    free(row);
    return ST_OK;
}

enum status edit_distance_min(struct motion_span a, const struct motion_span *references,
                              int32_t n_references, int32_t *distance, int32_t *nearest, struct err *err)
{
    int32_t best = a.n, at = -1;
    for (int32_t i = 0; i < n_references; i++) {
        int32_t d;
        TRY(edit_distance(a, references[i], &d, err));
        if (at < 0 || d < best) {
            best = d;
            at = i;
        }
    }
    *distance = best;
    if (nearest)
        *nearest = at;
    return ST_OK;
}
