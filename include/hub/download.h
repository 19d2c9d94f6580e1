/* Files from the Hub: resumed where they broke off, and never under their name before their hash is right. */
#ifndef SMGPT_HUB_DOWNLOAD_H
#define SMGPT_HUB_DOWNLOAD_H

#include "hub/api.h"

struct download {
    const struct hub_file *file;
    char *path;   /* where it goes; its directory exists. Owned by the caller */
    bool is_blob; /* the path is named by the hash: what stands there with the right size is it */
};

/* Downloads files of a repository at a commit, several at a time. Each is written to "<path>.incomplete",
 * gone on with where an earlier try ended, checked (size, sha256 of LFS files, git's sha1 of others), written
 * to disk and renamed. One that stands at its path with the right size and hash is left. `what` is named in
 * the progress line. ST_NET: the Hub refuses or faults went on; ST_ENV: disk or memory; ST_STOPPED: a signal.
 * What came stays for the next try. */
enum status hub_download(struct http *h, const char *repo, const char *commit, const struct download *items,
                         size_t n_items, const char *what, struct err *err);

/* All files below `folder` ("" for the root) of a repository at a revision into a directory, which is made;
 * *commit is the one they are of. Paths of the Hub that would lead out of the directory are ST_NET. */
enum status hub_download_folder(struct http *h, const char *repo, const char *revision, const char *folder,
                                const char *dir, char commit[SHA1_HEX_BYTES], struct err *err);

/* The base model "owner/name" or "owner/name@revision" as a directory in the cache that huggingface_hub
 * shares
 * ($HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE, else $HF_HOME/hub): config, tokenizer and safetensors only.
 * What is there already, by whatever program, is used. h NULL: offline, only the cache is asked. path
 * [PATH_BYTES]. ST_NET as above; ST_INPUT: the repository has no safetensors, or offline and not in the
 * cache. */
enum status hub_model(struct http *h, const char *name, char path[], struct err *err);

/* A URL of anywhere to a file, by one GET without token; resumed and renamed as above, no hash is known. */
enum status hub_download_url(struct http *h, const char *url, const char *path, struct err *err);

#endif
