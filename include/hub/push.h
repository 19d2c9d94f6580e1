/* A directory to the Hub: its large files first, then one commit with everything. */
#ifndef SMGPT_HUB_PUSH_H
#define SMGPT_HUB_PUSH_H

#include "hub/api.h"

struct push_request {
    const char *repo;    /* "owner/name"; it exists */
    const char *dir;     /* its regular files go up, those of sub-directories too; links are left alone */
    const char *folder;  /* where they go: "checkpoint-10"; "" is the root. In a folder what is there and not
                            in dir   is deleted; at the root nothing is */
    const char *card;    /* NULL, or text for README.md at the root, in the same commit */
    const char *summary; /* first line of the commit's message */
    int keep; /* > 0: of the folders checkpoint-<step>, those of ours (they hold smgpt_state.json) that are
                 not among the newest `keep` are deleted in the same commit; this one never is */
    /* NULL, or told of the bytes that are up, of all that have to go. */
    void (*progress)(void *user, int64_t done_bytes, int64_t all_bytes);
    void *user;
};
struct push_result {
    char commit[SHA1_HEX_BYTES]; /* head of the branch in which all is there */
    bool unchanged;              /* nothing had to be sent: all was there already */
    int n_rounds;
    int64_t sent_bytes; /* of large files */
};

/* Plans from what the Hub has, sends what it lacks, commits; and plans again when a commit's outcome is
 * unknown, the branch has moved, a signed URL has run out or an object went missing. So it may be called
 * again at any time and ends with the same files once. At most one commit is made; another's commits are not
 * undone. ST_NET: the Hub refuses (no use in trying again; see its message) or faults went on for all rounds;
 * ST_INPUT: the directory cannot be read, has a file that changed meanwhile, or a name the Hub does not take;
 * ST_STOPPED. */
enum status hub_push(struct http *h, const struct push_request *request, struct push_result *result,
                     struct err *err);

#endif
