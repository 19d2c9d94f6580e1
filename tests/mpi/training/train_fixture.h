/* What the tests of training on all ranks share: a tiny model, its pack, runs into a scratch directory of all
 * ranks. What one rank would do is done by rank 0 alone on the table of one rank. */
#ifndef SMGPT_TESTS_MPI_TRAIN_FIXTURE_H
#define SMGPT_TESTS_MPI_TRAIN_FIXTURE_H

#include "comm/comm.h"
#include "model/tiny.h"
#include "mpi/small_pack.h"
#include "support/scratch.h"
#include "train/train.h"

#define VOCAB     37
#define NEW_FIRST 33
#define STEPS     9

extern struct comm comm;
extern struct scratch scratch;
extern const struct small_pack usual;

/* One run: a model of its own, the pack, the options and what add_files shall do. */
struct run {
    struct tiny tiny;
    struct train_context c;
    struct train_options o;
    struct train_result result;
    struct err err;
    int64_t stop_at, fail_at; /* steps whose save asks to stop, or fails; -1: none */
    int64_t wait_at;          /* the save of that step goes on when the log has a later one; -1: none */
};

/* pack: a file of the scratch directory; out: where the run writes. */
void run_open(struct run *r, struct comm *c, const struct small_pack *pack, const char *out);
void run_close(struct run *r);
void run_good(struct run *r);
void run_bad(struct run *r, enum status expected, const char *what);

/* Rank 0: two files of the scratch directory hold the same bytes. */
void assert_same_file(const char *a, const char *b);
/* Rank 0: the lines of a run's log, as an array. */
json_t *log_lines(const char *out);
/* Rank 0: checkpoints 4 and 9 hold the same bytes, and the curves are equal to the last bit. */
void assert_same_run(const char *a, const char *b);
/* The yardstick: the whole run by rank 0 alone, into "alone". */
void train_alone(void);

/* Opens comm; false when it does not open. */
bool runs_begin(void);
/* Set-up and tear-down of a group. */
int share_scratch(void **state);
int remove_scratch(void **state);

#endif
