/* What the tests of the data room share. */
#ifndef SMGPT_TESTS_DATA_SUPPORT_H
#define SMGPT_TESTS_DATA_SUPPORT_H

#include "data/template.h"
#include "support/scratch.h"

/* Ends the test with err's message unless status is good. */
void good(enum status status, const struct err *err);
/* "<shared>/<name>", shared being $SMGPT_SHARED or beside the repository; NULL, said once, when it is absent.
 */
const char *shared_path(const char *name);

/* A byte tokenizer whose turn tokens are those of the style, made in the scratch directory. */
struct tokenizer *style_tokenizer(struct scratch *s, enum chat_style style);
/* Writes text as data.json and opens it. */
struct examples *examples_of(struct scratch *s, const char *text);

#endif
