/* Shared by the files of a push. */
#ifndef SMGPT_HUB_PUSH_INTERNAL_H
#define SMGPT_HUB_PUSH_INTERNAL_H

#include "hub/push.h"
#include "util/file.h"

#define PUSH_BRANCH "main"

/* A file that is to be in the repository. */
struct push_file {
    char *local; /* NULL: the text of `content` */
    char *path;  /* in the repository */
    const char *content;
    int64_t n_bytes;
    char sha256[SHA256_HEX_BYTES], sha1[SHA1_HEX_BYTES]; /* sha1: git's name */
    bool needed;                                         /* the Hub has not got it as it is */
    bool is_lfs;                                         /* as preupload says */
    bool ignored;                                        /* the repository's .gitignore leaves it out */
};

struct push {
    struct http *http;
    const struct push_request *request;
    struct push_result *result;
    struct push_file *files;
    size_t n_files;
    int64_t all_bytes, done_bytes; /* of large files in this round */
    bool again; /* what fails with ST_NET may go well in a new round; false after a refusal */
};

/* dir's files and the card, with their hashes. */
enum status push__collect(struct push *p, struct err *err);
void push__release(struct push *p);

/* Asks which of the needed files go as LFS objects, which are left out. */
enum status push__ask_modes(struct push *p, struct err *err);
/* Uploads the needed LFS objects that the Hub has not got. */
enum status push__upload(struct push *p, struct err *err);
/* One commit on top of tree->commit: needed files, deletions. *n_lines 0: there was nothing to do. */
enum status push__commit(struct push *p, const struct hub_tree *tree, size_t *n_lines, struct err *err);

/* A question in JSON to the Hub, and its answer (new reference): repeated, checked by push__check. `type` is
 * that of both. */
enum status push__ask(struct push *p, const char *url, const json_t *question, const char *type,
                      const char *what, json_t **answer, struct err *err);
/* http_check that also sets p->again: refusals (401, 403, 404) are final. */
enum status push__check(struct push *p, const struct http_reply *reply, const char *what, struct err *err);

/* Appends base64 of n_bytes. */
enum status base64_append(struct buf *out, const void *data, size_t n_bytes, struct err *err);

#endif
