#include "measure.h"
#include "data/batch.h"

enum status measure_row(struct model *m, const int32_t *ids, const int32_t *labels, int32_t n_tokens,
                        double *loss_sum, int64_t *n_labels, struct err *err)
{
    struct shard shard;
    struct batch_row row = {.ids = ids, .labels = labels, .n_tokens = n_tokens};
    *loss_sum = 0;
    *n_labels = 0;
    TRY(shard_make(&shard, &row, 1, 0, n_tokens, false, err));
    enum status st = ST_OK;
    for (int32_t i = 0; i < shard.n_sequences && st == ST_OK; i++) {
        st = model_loss(m, &shard.sequences[i], 0, NULL, loss_sum, NULL, err);
        *n_labels += shard.sequences[i].n_labels;
    }
    shard_release(&shard);
    return st;
}
