#include "config/nearest.h"
#include <ctype.h>
#include <string.h>

#define MAX_BYTES 63

static int fold(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

int word_distance(const char *a, const char *b)
{
    size_t n_a = strnlen(a, MAX_BYTES), n_b = strnlen(b, MAX_BYTES);
    int row[MAX_BYTES + 1]; /* distances of a's first i bytes to each beginning of b */
    for (size_t j = 0; j <= n_b; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n_a; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= n_b; j++) {
            int replaced = diagonal + (fold(a[i - 1]) != fold(b[j - 1]));
            int least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = least < replaced ? least : replaced;
        }
    }
    return row[n_b];
}

size_t word_nearest(const char *word, const char *const *words, size_t n)
{
    size_t best = 0;
    int best_distance = word_distance(word, words[0]);
    for (size_t i = 1; i < n; i++) {
        int d = word_distance(word, words[i]);
        if (d < best_distance)
            best = i, best_distance = d;
    }
    return best;
}
