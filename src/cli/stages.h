/* The three stages in sequence: data to pack, pack to adapter, adapter handed to the next stage. */
#ifndef SMGPT_CLI_STAGES_H
#define SMGPT_CLI_STAGES_H

#include "assemble.h"
#include "comm/comm.h"
#include "config/options.h"
#include "train/train.h"

struct hub_points;

/* A stage that could be trained now: bench and plan do something else with it. */
struct stage_ready {
    const struct assembly *model;
    const struct train_context *context;
    const struct train_options *options;
    const char *model_dir; /* rank 0 */
};
typedef enum status stage_hook(void *user, const struct stage_ready *stage, struct err *err);

enum resume_kind { RESUME_AUTO, RESUME_NONE, RESUME_DIR };

struct stages_request {
    const struct options *options;
    int first_stage, last_stage; /* 1..3 */
    enum resume_kind resume;
    const char *resume_dir; /* RESUME_DIR */
    int64_t stop_step;      /* end the stage after this step; 0: at its last */
    bool dry_run;           /* say what would be done */
    struct hub_points *hub; /* rank 0's; NULL: checkpoints stay here */
    double start_s;         /* clock_s at the program's start: the deadline counts from here */
    /* Called in place of training, on all ranks; nothing is resumed, set aside or saved, and the values are
     * zeros. With shape_only the weights are not read and the model cannot be run. */
    stage_hook *instead;
    void *instead_user;
    bool shape_only;
};
/* ST_OK, ST_STOPPED after a stop that was saved, or the failure; the same on every rank. Collective. */
enum status stages_run(struct comm *comm, const struct stages_request *r, struct err *err);

#endif
