/* A data set to one stage's pack: which task each row gets, and the file that appears only when it is whole.
 */
#include "data/pack.h"
#include "pack_internal.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/log.h"
#include "util/rng.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_ROWS 1024

/* All that one run over the rows needs. */
struct packing {
    const char *path;
    const struct examples *x;
    const struct motion_vocab *vocab;
    const struct pack_options *o;
    struct template *template;
    int32_t *participants; /* of the data set -> of the vocabulary, -1 for unknown */
    struct example example;
    struct row row;
    int32_t *noisy;
    int32_t noisy_capacity;
    int64_t n_done, n_dropped, first_dropped, n_kept[2];
    int32_t longest_dropped;
};

static enum status check_options(const struct pack_options *o, struct err *err)
{
    double sum = 0;
    if (o->stage < 1 || o->stage > 3)
        return err_set(err, ST_USAGE, "stage is %d, must be 1, 2 or 3", o->stage);
    if (o->max_seq_len < 1)
        return err_set(err, ST_USAGE, "max_seq_len is %d, must be at least 1", o->max_seq_len);
    for (int i = 0; i < 3; i++) {
        if (!(o->stage2_weights[i] >= 0) || !isfinite(o->stage2_weights[i]))
            return err_set(err, ST_USAGE, "stage2_weights[%d] is %g, must not be negative", i,
                           o->stage2_weights[i]);
        sum += o->stage2_weights[i];
    }
    if (o->stage == 2 && !(sum > 0 && isfinite(sum)))
        return err_set(err, ST_USAGE, "stage2_weights are all zero");
    if (!(o->denoise_prob >= 0 && o->denoise_prob <= 1))
        return err_set(err, ST_USAGE, "denoise_prob is %g, must be in 0..1", o->denoise_prob);
    return ST_OK;
}

/* Everything besides the data set and tokenizer.json that decides the rows, as text to be hashed. What only
 * stage 2 uses counts for stage 2 only, so that another mixture does not make the other stages again. */
static enum status options_text(struct buf *out, const struct tokenizer *t, const struct motion_vocab *v,
                                const struct pack_options *o, struct err *err)
{
    TRY(buf_printf(out, err, "template %d stage %d max_seq_len %d split %.17g %llu\n", PACK_TEMPLATE_VERSION,
                   o->stage, o->max_seq_len, o->split_test_size, (unsigned long long)o->split_seed));
    if (o->stage == 2)
        TRY(buf_printf(out, err, "seed %llu weights %.17g %.17g %.17g denoise %.17g\n",
                       (unsigned long long)o->seed, o->stage2_weights[0], o->stage2_weights[1],
                       o->stage2_weights[2], o->denoise_prob));
    TRY(buf_printf(out, err, "bos %d eos %d style %d space %d base %d codes %d participants %d\n",
                   tokenizer_bos(t), tokenizer_eos(t), (int)v->style, (int)v->space_tokens,
                   v->base_vocab_size, v->n_codes, v->n_participants));
    for (int32_t i = 0; i < v->n_participants; i++)
        TRY(buf_printf(out, err, "%zu %s\n", strlen(v->participants[i]), v->participants[i]));
    return buf_printf(out, err, "system %zu %s\n", strlen(v->system_prompt), v->system_prompt);
}

static enum status make_header(struct pack_header *h, const struct examples *x, const struct tokenizer *t,
                               const struct motion_vocab *v, const struct pack_options *o, struct err *err)
{
    struct buf text = BUF_INIT;
    *h = (struct pack_header){
        .stage = o->stage, .vocab_size = v->vocab_size, .base_vocab_size = v->base_vocab_size};
    snprintf(h->tokenizer_sha256, SHA256_HEX_BYTES, "%s", tokenizer_sha256(t));
    snprintf(h->source_sha256, SHA256_HEX_BYTES, "%s", examples_sha256(x));
    enum status status = options_text(&text, t, v, o, err);
    if (status == ST_OK)
        sha256_buffer(text.data, text.n_bytes, h->options_sha256);
    buf_release(&text);
    return status;
}

/* Whatever cannot be read as a pack is simply made again. */
static bool already_there(const char *path, const struct pack_header *want)
{
    hid_t file;
    struct pack_header have;
    struct err ignored = ERR_INIT;
    if (!file_exists(path) || data__pack_probe(path, &ignored) != ST_OK ||
        data__pack_file_open(path, &file, &ignored) != ST_OK)
        return false;
    bool same = data__pack_header_read(file, path, &have, &ignored) == ST_OK && have.stage == want->stage &&
                have.vocab_size == want->vocab_size && have.base_vocab_size == want->base_vocab_size &&
                !strcmp(have.tokenizer_sha256, want->tokenizer_sha256) &&
                !strcmp(have.source_sha256, want->source_sha256) &&
                !strcmp(have.options_sha256, want->options_sha256);
    H5Fclose(file);
    return same;
}

/* A pure function of seed and row: neither the order of rows nor the number of ranks matters. */
static enum task draw_task(const struct pack_options *o, int64_t row)
{
    static const enum task tasks[3] = {TASK_T2M, TASK_M2T, TASK_DENOISE};
    if (o->stage == 1)
        return TASK_MOTION_LM;
    if (o->stage == 3)
        return TASK_T2M;
    const double *w = o->stage2_weights;
    double u = rng_uniform(o->seed, RNG_STAGE2_TASK, 0, (uint64_t)row) * (w[0] + w[1] + w[2]), below = 0;
    int last = 0;
    for (int i = 0; i < 3; i++) {
        below += w[i];
        if (w[i] > 0)
            last = i; /* rounding must not lead to a task of weight 0 */
        if (w[i] > 0 && u < below)
            return tasks[i];
    }
    return tasks[last];
}

static enum status mask_motion(struct packing *p, int64_t row, struct err *err)
{
    int32_t n = p->example.n_motion;
    if (n > p->noisy_capacity) {
        int32_t *grown = realloc(p->noisy, (size_t)n * sizeof *grown);
        if (!grown)
            return err_memory(err, "a masked motion", (size_t)n * sizeof *grown);
        p->noisy = grown;
        p->noisy_capacity = n;
    }
    for (int32_t i = 0; i < n; i++) {
        bool masked = rng_uniform(p->o->seed, RNG_DENOISE, (uint32_t)i, (uint64_t)row) < p->o->denoise_prob;
        p->noisy[i] = masked ? -1 : p->example.motion[i];
    }
    return ST_OK;
}

static enum status pack_one(struct packing *p, int64_t row, struct group_writer *g, enum pack_group group,
                            struct err *err)
{
    const struct example *e = &p->example;
    TRY(examples_read(p->x, row, &p->example, err));
    enum task task = draw_task(p->o, row);
    if (task == TASK_DENOISE)
        TRY(mask_motion(p, row, err));
    int32_t participant = e->participant >= 0 ? p->participants[e->participant] : -1;
    if (template_row(p->template, task, e->text, e->motion, e->n_motion,
                     task == TASK_DENOISE ? p->noisy : NULL, participant, &p->row, err) != ST_OK)
        return err_where(err, "\"%s\": row %lld", examples_path(p->x), (long long)row);
    if (p->row.ids.n > p->o->max_seq_len) {
        if (p->n_dropped == 0 || row < p->first_dropped)
            p->first_dropped = row;
        if (p->row.ids.n > p->longest_dropped)
            p->longest_dropped = p->row.ids.n;
        p->n_dropped++;
        return ST_OK;
    }
    p->n_kept[group]++;
    return data__group_add(g, &p->row, row, err);
}

static enum status pack_rows(struct packing *p, const int64_t *rows, int64_t n, struct group_writer *g,
                             enum pack_group group, struct err *err)
{
    int64_t total = examples_count(p->x);
    for (int64_t i = 0; i < n; i++) {
        TRY(pack_one(p, rows[i], g, group, err));
        p->n_done++;
        if (p->n_done % PROGRESS_ROWS && p->n_done < total)
            continue;
        if (p->o->progress)
            log_progress(p->n_done == total, "packing stage %d: %lld of %lld rows", p->o->stage,
                         (long long)p->n_done, (long long)total);
        if (stop_requested())
            return err_set(err, ST_STOPPED, "stopped by a signal while packing stage %d", p->o->stage);
    }
    return ST_OK;
}

static enum status pack_groups(struct packing *p, hid_t file, struct err *err)
{
    int64_t *rows[2], n[2];
    struct rows_hash hashes[2];
    char hex[SHA256_HEX_BYTES];
    TRY(split_make(examples_count(p->x), p->o->split_test_size, p->o->split_seed, &rows[PACK_TRAIN],
                   &n[PACK_TRAIN], &rows[PACK_EVAL], &n[PACK_EVAL], err));
    enum status status = ST_OK;
    for (int group = PACK_TRAIN; group <= PACK_EVAL && status == ST_OK; group++) {
        struct group_writer g;
        status = data__group_open(&g, file, p->path, data__pack_group_names[group], err);
        if (status == ST_OK)
            status = pack_rows(p, rows[group], n[group], &g, (enum pack_group)group, err);
        enum status closed = data__group_close(&g, status == ST_OK, err);
        status = status == ST_OK ? closed : status;
        hashes[group] = g.hash;
    }
    free(rows[PACK_TRAIN]);
    free(rows[PACK_EVAL]);
    TRY(status);
    data__rows_hash_hex(hashes, hex);
    return data__pack_hash_write(file, p->path, hex, err);
}

static enum status report_dropped(const struct packing *p, struct err *err)
{
    if (p->n_kept[PACK_TRAIN] == 0) {
        err_set(err, ST_INPUT,
                "\"%s\": no row is left to train on: all are longer than max_seq_len %d (up to %d tokens)",
                examples_path(p->x), p->o->max_seq_len, p->longest_dropped);
        return err_hint(err, "raise max_seq_len");
    }
    if (p->n_dropped > 0)
        log_warn("stage %d: %lld of %lld rows are longer than max_seq_len %d (up to %d tokens) and were left "
                 "out, the "
                 "first is row %lld",
                 p->o->stage, (long long)p->n_dropped, (long long)examples_count(p->x), p->o->max_seq_len,
                 p->longest_dropped, (long long)p->first_dropped);
    if (p->n_kept[PACK_EVAL] == 0)
        log_warn("stage %d: no rows for evaluation (%lld rows, split_test_size %g)", p->o->stage,
                 (long long)examples_count(p->x), p->o->split_test_size);
    return ST_OK;
}

/* Fills a new file at tmp_path; closed in any case. */
static enum status write_file(struct packing *p, const char *tmp_path, const struct pack_header *header,
                              struct err *err)
{
    hid_t access = data__h5_access();
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110); /* with sums over HDF5's own tables too */
    hid_t file = H5Fcreate(tmp_path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    enum status status = file < 0 ? data__h5_fail(err, ST_ENV, tmp_path, "cannot make the file")
                                  : data__pack_header_write(file, tmp_path, header, err);
    H5Pclose(access);
    if (file < 0)
        return status;
    if (status == ST_OK)
        status = pack_groups(p, file, err);
    if (status == ST_OK && H5Fflush(file, H5F_SCOPE_GLOBAL) < 0)
        status = data__h5_fail(err, ST_ENV, tmp_path, "cannot write");
    if (H5Fclose(file) < 0 && status == ST_OK)
        status = data__h5_fail(err, ST_ENV, tmp_path, "cannot close");
    return status;
}

/* Makes the bytes durable before the name appears. */
static enum status publish(const char *tmp_path, const char *path, struct err *err)
{
    int fd = open(tmp_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ST_ENV, "\"%s\": cannot open", tmp_path);
    int failed = fsync(fd);
    int kept = errno;
    close(fd);
    errno = kept;
    if (failed)
        return err_errno(err, ST_ENV, "\"%s\": cannot write to disk", tmp_path);
    if (rename(tmp_path, path))
        return err_errno(err, ST_ENV, "\"%s\": cannot rename to \"%s\"", tmp_path, path);
    char dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    return dir_sync(slash ? dir : ".", err);
}

/* Numbers of the vocabulary for the data set's participants, who may be others when it comes from a
 * checkpoint. */
static enum status map_participants(struct packing *p, struct err *err)
{
    int32_t n = examples_n_participants(p->x), n_unknown = 0, unknown = -1;
    p->participants = malloc(((size_t)n + 1) * sizeof *p->participants);
    if (!p->participants)
        return err_memory(err, "participants", (size_t)n * sizeof *p->participants);
    for (int32_t i = 0; i < n; i++) {
        p->participants[i] = motion_vocab_participant(p->vocab, examples_participant(p->x, i));
        if (p->participants[i] < 0 && n_unknown++ == 0)
            unknown = i;
    }
    if (n_unknown > 0)
        log_warn("%d participants (the first: \"%s\") are not in the vocabulary, their rows are packed "
                 "without one",
                 n_unknown, examples_participant(p->x, unknown));
    return ST_OK;
}

static enum status write_all(struct packing *p, const struct pack_header *header, struct err *err)
{
    char tmp_path[PATH_BYTES];
    int n = snprintf(tmp_path, sizeof tmp_path, "%s.tmp.%ld", p->path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof tmp_path)
        return err_set(err, ST_INPUT, "\"%.200s...\": the path is too long", p->path);
    data__h5_quiet();
    enum status status = write_file(p, tmp_path, header, err);
    if (status == ST_OK)
        status = report_dropped(p, err);
    if (status == ST_OK)
        status = publish(tmp_path, p->path, err);
    if (status != ST_OK)
        unlink(tmp_path);
    return status;
}

enum status pack_write(const char *path, const struct examples *x, const struct tokenizer *t,
                       const struct motion_vocab *v, const struct pack_options *o, bool *skipped,
                       struct err *err)
{
    struct pack_header header;
    *skipped = false;
    TRY(check_options(o, err));
    TRY(make_header(&header, x, t, v, o, err));
    if (already_there(path, &header)) {
        *skipped = true;
        return ST_OK;
    }
    struct packing p = {.path = path, .x = x, .vocab = v, .o = o, .example = EXAMPLE_INIT};
    enum status status = template_open(&p.template, t, v, err);
    if (status == ST_OK)
        status = map_participants(&p, err);
    if (status == ST_OK)
        status = write_all(&p, &header, err);
    template_close(p.template);
    example_release(&p.example);
    ids_release(&p.row.ids);
    ids_release(&p.row.labels);
    free(p.noisy);
    free(p.participants);
    return status;
}
