/* The pickle machine: protocol 2 as torch.save writes it, turned into a tree of plain values. Nothing is
 * executed: three functions and a dozen classes are known by name and everything else is refused. */
#ifndef SMGPT_CHECKPOINT_PICKLE_INTERNAL_H
#define SMGPT_CHECKPOINT_PICKLE_INTERNAL_H

#include "checkpoint/torch_file.h"
#include "zip_internal.h"

/* Memory that lives as long as the file is open. */
struct arena {
    struct arena_block *blocks;
};
void *arena__take(struct arena *a, size_t n_bytes, struct err *err); /* aligned to 16, not cleared; or NULL */
void arena__release(struct arena *a);

enum node_tag { NODE_VALUE, NODE_GLOBAL, NODE_STORAGE };
enum global { GLOBAL_REBUILD_TENSOR, GLOBAL_REBUILD_PARAMETER, GLOBAL_ORDERED_DICT, GLOBAL_STORAGE };

/* What stands on the stack. Globals and storages look like VALUE_NONE from outside. */
struct node {
    struct value value; /* first: a value's address is its node's */
    enum node_tag tag;
    enum global global;           /* NODE_GLOBAL */
    enum dtype dtype;             /* NODE_STORAGE and GLOBAL_STORAGE: the elements' type */
    const struct zip_entry *data; /* NODE_STORAGE */
    uint64_t numel;               /* NODE_STORAGE */
    size_t capacity;              /* list or dict under construction */
    struct node *next_dict;       /* chain of all dicts */
};

struct pickle {
    const unsigned char *bytes;
    size_t n_bytes, at;
    size_t op_at; /* where the current opcode stands */
    const char *path;
    struct zip *zip;
    struct arena *arena;
    struct node **stack, **memo;
    size_t n_stack, stack_capacity, memo_capacity;
    size_t *marks;
    size_t n_marks, mark_capacity;
    size_t n_nodes;
    size_t copied_bytes; /* spent on tensors that do not lie in one piece */
    struct node *dicts;
};

#define PICKLE_MAX_BYTES ((size_t)16 << 20)
#define PICKLE_MAX_NODES 2000000
#define PICKLE_MAX_STACK 1000000
#define PICKLE_MAX_MEMO  2000000
#define PICKLE_MAX_MARKS 1000

/* ST_INPUT: "<path>, data.pkl, byte <n>: <text>". */
enum status pickle__refuse(const struct pickle *p, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
enum status pickle__node(struct pickle *p, enum value_kind kind, struct node **out, struct err *err);
enum status pickle__set_item(struct pickle *p, struct node *dict, struct node *key, struct node *value,
                             struct err *err);

/* The parts that know torch: a name to a global; a persistent id to a storage; a call to its result. */
enum status pickle__global(struct pickle *p, const char *module, size_t n_module, const char *name,
                           size_t n_name, struct node **out, struct err *err);
enum status pickle__storage(struct pickle *p, const struct node *id, struct node **out, struct err *err);
enum status pickle__reduce(struct pickle *p, const struct node *function, const struct node *args,
                           struct node **out, struct err *err);

/* Runs a whole pickle. *root lives in the arena. */
enum status pickle__read(struct zip *zip, const struct zip_entry *entry, struct arena *arena,
                         struct value **root, struct err *err);

#endif
