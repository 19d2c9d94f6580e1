/* The Hub's token: where it comes from, and keeping it from where it must not go. */
#ifndef SMGPT_HUB_TOKEN_H
#define SMGPT_HUB_TOKEN_H

#include "util/err.h"
#include <stdbool.h>

#define TOKEN_BYTES 512

struct hub_token {
    char text[TOKEN_BYTES]; /* empty: there is none. Never printed, never written */
    char source[64];        /* "HF_TOKEN", "token file", for messages */
};

/* Takes the token from HF_TOKEN, HUGGINGFACE_HUB_TOKEN, HUGGING_FACE_HUB_TOKEN or the token file
 * ($HF_TOKEN_PATH, else $HF_HOME/token, else the same below $XDG_CACHE_HOME/huggingface or
 * ~/.cache/huggingface); blanks and line ends around it are dropped, an empty one counts as none.
 *
 * Afterwards the variables are gone from the environment, their bytes overwritten, so that neither a child
 * nor /proc/<pid>/environ has them; and when there is a token, private memory is left out of a core file of
 * this process. To be called on every rank, in the beginning, while there is one thread. Not collective.
 *
 * No token is ST_OK with an empty text. A token file that others may read draws a warning. ST_INPUT: the
 * token has characters that no header may carry, is too long, or its file cannot be read; the text of the
 * token is in no message. */
enum status hub_token_take(struct hub_token *token, struct err *err);

/* Overwrites it. */
void hub_token_forget(struct hub_token *token);

/* True when HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE says 1, ON, YES or TRUE in any case. */
bool hub_is_offline(void);
/* The same of HF_HUB_DISABLE_SYMLINKS: the cache is to hold files where it has links to blobs. */
bool hub_without_links(void);

/* Where huggingface_hub keeps its things: $HF_HOME, else $XDG_CACHE_HOME/huggingface, else
 * ~/.cache/huggingface. ST_ENV when none of HF_HOME, XDG_CACHE_HOME and HOME is set. */
enum status hub_home(char path[], struct err *err); /* path [PATH_BYTES] */

#endif
