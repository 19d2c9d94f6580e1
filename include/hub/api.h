/* What the Hub is asked: who am I, make a repository, what is in it. Protocol facts: huggingface_hub's
 * documentation and what its clients put on the wire. All calls wait, on the caller's thread, and repeat
 * passing faults themselves. */
#ifndef SMGPT_HUB_API_H
#define SMGPT_HUB_API_H

#include "hub/http.h"
#include "util/sha1.h"
#include "util/sha256.h"

#define HUB_REPO_BYTES 128

/* "name" or "owner/name" as the Hub allows it: letters, digits, "-_.", at most 96, no "--" and "..", no
 * ".git" at its end, no "-" or "." at either end of a part. */
bool hub_repo_is_valid(const char *repo);

/* Name of the token's owner. ST_NET when the Hub refuses or cannot be reached. */
enum status hub_whoami(struct http *h, char name[HUB_REPO_BYTES], struct err *err);

/* Makes a private model repository "owner/name", or finds it there. */
enum status hub_repo_make(struct http *h, const char *repo, struct err *err);

struct hub_file {
    char *path;
    int64_t n_bytes;
    bool is_lfs;
    char oid[SHA256_HEX_BYTES]; /* sha256 of an LFS file, git's sha1 of another */
};
struct hub_tree {
    char commit[SHA1_HEX_BYTES]; /* the files are those of this commit */
    struct hub_file *files;
    size_t n_files;
};
/* All files of a model repository at a revision, read at the commit that it has now. ST_NET with http's
 * message; *missing (may be NULL) says that the repository or revision is not there (404, or 401 of a private
 * one). The tree is to be released after success. */
enum status hub_tree_read(struct http *h, const char *repo, const char *revision, struct hub_tree *tree,
                          bool *missing, struct err *err);
void hub_tree_release(struct hub_tree *tree);
const struct hub_file *hub_tree_find(const struct hub_tree *tree, const char *path); /* NULL: not there */

/* "checkpoint-<step>/..." or "checkpoint-<step>" -> step; -1 for any other path. *n_bytes (may be NULL): of
 * the folder's name. */
int64_t hub_checkpoint_step(const char *path, size_t *n_bytes);

#endif
