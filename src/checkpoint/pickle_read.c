/* The opcodes. Arguments are bounded by the pickle's own size, work by the limits in pickle_internal.h. */
#include "checkpoint_internal.h"
#include "pickle_internal.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum status pickle__refuse(const struct pickle *p, struct err *err, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return err_set(err, ST_INPUT, "\"%s\", data.pkl, byte %zu: %s", p->path, p->op_at, text);
}

enum status pickle__node(struct pickle *p, enum value_kind kind, struct node **out, struct err *err)
{
    if (p->n_nodes >= PICKLE_MAX_NODES)
        return pickle__refuse(p, err, "more than %d values", PICKLE_MAX_NODES);
    struct node *node = arena__take(p->arena, sizeof *node, err);
    if (!node)
        return ST_ENV;
    memset(node, 0, sizeof *node);
    node->value.kind = kind;
    if (kind == VALUE_DICT) {
        node->next_dict = p->dicts;
        p->dicts = node;
    }
    p->n_nodes++;
    *out = node;
    return ST_OK;
}

/* Room for one more pointer in an array of the machine. */
static enum status grow(const struct pickle *p, void **array, size_t n, size_t *capacity, size_t limit,
                        size_t item_bytes, const char *what, struct err *err)
{
    if (n < *capacity)
        return ST_OK;
    if (n >= limit)
        return pickle__refuse(p, err, "%s deeper than %zu", what, limit);
    size_t grown = *capacity ? *capacity : 64;
    while (grown <= n)
        grown *= 2;
    void *moved = realloc(*array, grown * item_bytes);
    if (!moved)
        return err_memory(err, "a pickle's stack", grown * item_bytes);
    memset((char *)moved + *capacity * item_bytes, 0, (grown - *capacity) * item_bytes);
    *array = moved;
    *capacity = grown;
    return ST_OK;
}

static enum status push(struct pickle *p, struct node *node, struct err *err)
{
    TRY(grow(p, (void **)&p->stack, p->n_stack, &p->stack_capacity, PICKLE_MAX_STACK, sizeof *p->stack,
             "stack", err));
    p->stack[p->n_stack++] = node;
    return ST_OK;
}

static enum status push_new(struct pickle *p, enum value_kind kind, struct node **out, struct err *err)
{
    TRY(pickle__node(p, kind, out, err));
    return push(p, *out, err);
}

/* Items above the topmost mark cannot be reached by single pops of what lies below it. */
static enum status pop(struct pickle *p, struct node **out, struct err *err)
{
    size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (p->n_stack <= floor)
        return pickle__refuse(p, err, "nothing on the stack");
    *out = p->stack[--p->n_stack];
    return ST_OK;
}

static enum status top(const struct pickle *p, enum value_kind kind, const char *what, struct node **out,
                       struct err *err)
{
    size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (p->n_stack <= floor || p->stack[p->n_stack - 1]->value.kind != kind)
        return pickle__refuse(p, err, "no %s to add to", what);
    *out = p->stack[p->n_stack - 1];
    return ST_OK;
}

static enum status take_mark(struct pickle *p, size_t *first, struct err *err)
{
    if (p->n_marks == 0)
        return pickle__refuse(p, err, "no mark on the stack");
    *first = p->marks[--p->n_marks];
    return ST_OK;
}

static enum status argument(struct pickle *p, size_t n_bytes, const unsigned char **out, struct err *err)
{
    if (n_bytes > p->n_bytes - p->at)
        return pickle__refuse(p, err, "the pickle is cut short");
    *out = p->bytes + p->at;
    p->at += n_bytes;
    return ST_OK;
}

/* Little-endian unsigned number of n <= 8 bytes. */
static enum status number(struct pickle *p, int n_bytes, uint64_t *out, struct err *err)
{
    const unsigned char *bytes = NULL;
    TRY(argument(p, (size_t)n_bytes, &bytes, err));
    *out = 0;
    for (int i = 0; i < n_bytes; i++)
        *out |= (uint64_t)bytes[i] << (8 * i);
    return ST_OK;
}

static enum status put_int(struct pickle *p, int64_t v, struct err *err)
{
    struct node *node = NULL;
    TRY(push_new(p, VALUE_INT, &node, err));
    node->value.integer = v;
    return ST_OK;
}

static enum status put_bool(struct pickle *p, bool v, struct err *err)
{
    struct node *node = NULL;
    TRY(push_new(p, VALUE_BOOL, &node, err));
    node->value.boolean = v;
    return ST_OK;
}

/* LONG1: two's complement of up to 255 bytes in Python; more than 8 do not occur in sizes and steps. */
static enum status op_long(struct pickle *p, struct err *err)
{
    uint64_t n = 0, v = 0;
    TRY(number(p, 1, &n, err));
    if (n > 8)
        return pickle__refuse(p, err, "an integer of %" PRIu64 " bytes", n);
    TRY(number(p, (int)n, &v, err));
    if (n > 0 && n < 8 && (v >> (8 * n - 1)) & 1)
        v |= UINT64_MAX << (8 * n);
    return put_int(p, (int64_t)v, err);
}

static enum status op_float(struct pickle *p, struct err *err)
{
    const unsigned char *bytes = NULL;
    TRY(argument(p, 8, &bytes, err));
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | bytes[i];
    struct node *node = NULL;
    TRY(push_new(p, VALUE_FLOAT, &node, err));
    memcpy(&node->value.real, &bits, sizeof bits);
    return ST_OK;
}

static enum status op_string(struct pickle *p, int n_length, struct err *err)
{
    uint64_t n = 0;
    const unsigned char *bytes = NULL;
    TRY(number(p, n_length, &n, err));
    TRY(argument(p, (size_t)n, &bytes, err));
    json_t *utf8 = json_stringn((const char *)bytes, (size_t)n); /* jansson checks the encoding */
    bool is_utf8 = utf8 != NULL;
    json_decref(utf8);
    if (!is_utf8)
        return pickle__refuse(p, err, "a string that is no UTF-8");
    char *text = arena__take(p->arena, (size_t)n + 1, err);
    if (!text)
        return ST_ENV;
    memcpy(text, bytes, (size_t)n);
    text[n] = '\0';
    struct node *node = NULL;
    TRY(push_new(p, VALUE_STRING, &node, err));
    node->value.string.text = text;
    node->value.string.n_bytes = (size_t)n;
    return ST_OK;
}

static enum status op_tuple(struct pickle *p, size_t first, struct err *err)
{
    size_t n = p->n_stack - first;
    struct node *node = NULL;
    TRY(pickle__node(p, VALUE_TUPLE, &node, err));
    node->value.list.items = arena__take(p->arena, (n ? n : 1) * sizeof(struct value *), err);
    if (!node->value.list.items)
        return ST_ENV;
    for (size_t i = 0; i < n; i++)
        node->value.list.items[i] = &p->stack[first + i]->value;
    node->value.list.n = n;
    p->n_stack = first;
    return push(p, node, err);
}

static enum status op_small_tuple(struct pickle *p, size_t n, struct err *err)
{
    size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (p->n_stack - floor < n)
        return pickle__refuse(p, err, "nothing on the stack");
    return op_tuple(p, p->n_stack - n, err);
}

/* Makes room for one more in an array of pointers that lives in the arena. */
static enum status widen(struct pickle *p, struct value ***array, size_t n, size_t capacity, struct err *err)
{
    struct value **wide = arena__take(p->arena, capacity * sizeof *wide, err);
    if (!wide)
        return ST_ENV;
    if (n > 0)
        memcpy(wide, *array, n * sizeof *wide);
    *array = wide;
    return ST_OK;
}

static enum status append(struct pickle *p, struct node *list, struct node *item, struct err *err)
{
    size_t n = list->value.list.n;
    if (n == list->capacity) {
        list->capacity = n ? 2 * n : 4;
        TRY(widen(p, &list->value.list.items, n, list->capacity, err));
    }
    list->value.list.items[list->value.list.n++] = &item->value;
    return ST_OK;
}

enum status pickle__set_item(struct pickle *p, struct node *dict, struct node *key, struct node *value,
                             struct err *err)
{
    if (key->value.kind != VALUE_STRING && key->value.kind != VALUE_INT)
        return pickle__refuse(p, err, "a key that is neither string nor integer");
    size_t n = dict->value.dict.n;
    if (n == dict->capacity) {
        dict->capacity = n ? 2 * n : 4;
        TRY(widen(p, &dict->value.dict.keys, n, dict->capacity, err));
        TRY(widen(p, &dict->value.dict.values, n, dict->capacity, err));
    }
    dict->value.dict.keys[n] = &key->value;
    dict->value.dict.values[n] = &value->value;
    dict->value.dict.n++;
    return ST_OK;
}

static enum status op_append(struct pickle *p, size_t first, struct err *err)
{
    size_t n = p->n_stack;
    struct node *list = NULL;
    p->n_stack = first;
    TRY(top(p, VALUE_LIST, "list", &list, err));
    for (size_t i = first; i < n; i++)
        TRY(append(p, list, p->stack[i], err));
    return ST_OK;
}

static enum status op_set_items(struct pickle *p, size_t first, struct err *err)
{
    size_t n = p->n_stack;
    struct node *dict = NULL;
    p->n_stack = first;
    TRY(top(p, VALUE_DICT, "dict", &dict, err));
    if ((n - first) % 2 != 0)
        return pickle__refuse(p, err, "a key without a value");
    for (size_t i = first; i < n; i += 2)
        TRY(pickle__set_item(p, dict, p->stack[i], p->stack[i + 1], err));
    return ST_OK;
}

static enum status op_put(struct pickle *p, int n_index, struct err *err)
{
    uint64_t index = 0;
    TRY(number(p, n_index, &index, err));
    if (p->n_stack == 0)
        return pickle__refuse(p, err, "nothing on the stack");
    TRY(grow(p, (void **)&p->memo, (size_t)index, &p->memo_capacity, PICKLE_MAX_MEMO, sizeof *p->memo, "memo",
             err));
    p->memo[index] = p->stack[p->n_stack - 1];
    return ST_OK;
}

static enum status op_get(struct pickle *p, int n_index, struct err *err)
{
    uint64_t index = 0;
    TRY(number(p, n_index, &index, err));
    if (index >= p->memo_capacity || !p->memo[index])
        return pickle__refuse(p, err, "memo %" PRIu64 " is empty", index);
    return push(p, p->memo[index], err);
}

static enum status line(struct pickle *p, const char **out, size_t *n, struct err *err)
{
    const unsigned char *start = p->bytes + p->at;
    size_t left = p->n_bytes - p->at;
    const unsigned char *end = memchr(start, '\n', left < 256 ? left : 256);
    if (!end)
        return pickle__refuse(p, err, "a global without a name");
    *out = (const char *)start;
    *n = (size_t)(end - start);
    p->at += *n + 1;
    return ST_OK;
}

static enum status op_global(struct pickle *p, struct err *err)
{
    const char *module = NULL, *name = NULL;
    size_t n_module = 0, n_name = 0;
    struct node *node = NULL;
    TRY(line(p, &module, &n_module, err));
    TRY(line(p, &name, &n_name, err));
    TRY(pickle__global(p, module, n_module, name, n_name, &node, err));
    return push(p, node, err);
}

static enum status op_storage(struct pickle *p, struct err *err)
{
    struct node *id = NULL, *node = NULL;
    TRY(pop(p, &id, err));
    TRY(pickle__storage(p, id, &node, err));
    return push(p, node, err);
}

static enum status op_reduce(struct pickle *p, struct err *err)
{
    struct node *args = NULL, *function = NULL, *node = NULL;
    TRY(pop(p, &args, err));
    TRY(pop(p, &function, err));
    TRY(pickle__reduce(p, function, args, &node, err));
    return push(p, node, err);
}

static enum status op_mark(struct pickle *p, struct err *err)
{
    TRY(grow(p, (void **)&p->marks, p->n_marks, &p->mark_capacity, PICKLE_MAX_MARKS, sizeof *p->marks,
             "marks", err));
    p->marks[p->n_marks++] = p->n_stack;
    return ST_OK;
}

static enum status op_protocol(struct pickle *p, struct err *err)
{
    uint64_t version = 0;
    TRY(number(p, 1, &version, err));
    if (version != 2)
        return pickle__refuse(p, err, "pickle protocol %" PRIu64 ", only 2 is read", version);
    return ST_OK;
}

/* Opcodes that pickles have and torch's files have not, by name for the message. */
static const char *opcode_name(unsigned char op)
{
    static const struct {
        unsigned char op;
        const char *name;
    } names[] = {
        {'b', "BUILD"},
        {0x81, "NEWOBJ"},
        {0x92, "NEWOBJ_EX"},
        {0x93, "STACK_GLOBAL"},
        {'i', "INST"},
        {'o', "OBJ"},
        {'P', "PERSID"},
        {0x94, "MEMOIZE"},
        {0x95, "FRAME"},
        {'0', "POP"},
        {'1', "POP_MARK"},
        {'2', "DUP"},
        {'I', "INT"},
        {'L', "LONG"},
        {'F', "FLOAT"},
        {'S', "STRING"},
        {'T', "BINSTRING"},
        {'V', "UNICODE"},
        {0x8c, "SHORT_BINUNICODE"},
        {0x8d, "BINUNICODE8"},
        {'B', "BINBYTES"},
        {'C', "SHORT_BINBYTES"},
        {0x8e, "BINBYTES8"},
        {0x8f, "EMPTY_SET"},
        {0x90, "ADDITEMS"},
        {0x91, "FROZENSET"},
        {0x8b, "LONG4"},
        {'p', "PUT"},
        {'g', "GET"},
        {'l', "LIST"},
        {'d', "DICT"},
        {0x82, "EXT1"},
        {0x83, "EXT2"},
        {0x84, "EXT4"},
        {0x96, "BYTEARRAY8"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].op == op)
            return names[i].name;
    }
    return "no pickle opcode";
}

static enum status refuse_opcode(const struct pickle *p, unsigned char op, struct err *err)
{
    pickle__refuse(p, err, "opcode 0x%02x (%s) is not allowed", op, opcode_name(op));
    return err_hint(err,
                    "only what torch.save writes for tensors, numbers, strings, lists and dicts is read");
}

/* Numbers, strings and the memo. */
static enum status step_scalar(struct pickle *p, unsigned char op, struct err *err)
{
    uint64_t v = 0;
    struct node *node = NULL;
    switch (op) {
    case 'N':
        return push_new(p, VALUE_NONE, &node, err);
    case 0x88:
    case 0x89:
        return put_bool(p, op == 0x88, err);
    case 'K':
    case 'M':
        TRY(number(p, op == 'K' ? 1 : 2, &v, err));
        return put_int(p, (int64_t)v, err);
    case 'J':
        TRY(number(p, 4, &v, err));
        return put_int(p, (int32_t)(uint32_t)v, err);
    case 0x8a:
        return op_long(p, err);
    case 'G':
        return op_float(p, err);
    case 'X':
    case 'U':
        return op_string(p, op == 'X' ? 4 : 1, err);
    case 'q':
    case 'r':
        return op_put(p, op == 'q' ? 1 : 4, err);
    case 'h':
    case 'j':
        return op_get(p, op == 'h' ? 1 : 4, err);
    case 0x80:
        return op_protocol(p, err);
    default:
        return refuse_opcode(p, op, err);
    }
}

static enum status step(struct pickle *p, unsigned char op, struct err *err)
{
    struct node *node = NULL;
    size_t first = 0;
    switch (op) {
    case '(':
        return op_mark(p, err);
    case '}':
        return push_new(p, VALUE_DICT, &node, err);
    case ']':
        return push_new(p, VALUE_LIST, &node, err);
    case ')':
        return op_tuple(p, p->n_stack, err);
    case 0x85:
    case 0x86:
    case 0x87:
        return op_small_tuple(p, op - 0x84u, err);
    case 't':
        TRY(take_mark(p, &first, err));
        return op_tuple(p, first, err);
    case 'a':
        TRY(pop(p, &node, err));
        return op_append(p, p->n_stack++, err);
    case 'e':
        TRY(take_mark(p, &first, err));
        return op_append(p, first, err);
    case 's':
        TRY(pop(p, &node, err));
        TRY(pop(p, &node, err));
        p->n_stack += 2;
        return op_set_items(p, p->n_stack - 2, err);
    case 'u':
        TRY(take_mark(p, &first, err));
        return op_set_items(p, first, err);
    case 'c':
        return op_global(p, err);
    case 'Q':
        return op_storage(p, err);
    case 'R':
        return op_reduce(p, err);
    default:
        return step_scalar(p, op, err);
    }
}

static int by_key(const void *a, const void *b)
{
    const struct value *x = *(struct value *const *)a, *y = *(struct value *const *)b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->kind == VALUE_INT)
        return (x->integer > y->integer) - (x->integer < y->integer);
    size_t n = x->string.n_bytes < y->string.n_bytes ? x->string.n_bytes : y->string.n_bytes;
    int order = memcmp(x->string.text, y->string.text, n);
    return order ? order : (x->string.n_bytes > y->string.n_bytes) - (x->string.n_bytes < y->string.n_bytes);
}

/* A key that stands twice would mean one thing to us and another to Python. */
static enum status check_keys(const struct pickle *p, const struct node *dict, struct err *err)
{
    size_t n = dict->value.dict.n;
    if (n < 2)
        return ST_OK;
    struct value **keys = malloc(n * sizeof *keys);
    if (!keys)
        return err_memory(err, "a pickle's keys", n * sizeof *keys);
    memcpy(keys, dict->value.dict.keys, n * sizeof *keys);
    qsort(keys, n, sizeof *keys, by_key);
    enum status status = ST_OK;
    for (size_t i = 1; status == ST_OK && i < n; i++) {
        if (by_key(&keys[i - 1], &keys[i]) != 0)
            continue;
        if (keys[i]->kind == VALUE_INT)
            status = pickle__refuse(p, err, "a dict has the key %" PRId64 " twice", keys[i]->integer);
        else
            status = pickle__refuse(p, err, "a dict has the key \"%s\" twice",
                                    checkpoint__quote(keys[i]->string.text, keys[i]->string.n_bytes).text);
    }
    free(keys);
    return status;
}

static enum status run(struct pickle *p, struct value **root, struct err *err)
{
    for (;;) {
        const unsigned char *op = NULL;
        p->op_at = p->at;
        TRY(argument(p, 1, &op, err));
        if (*op == '.')
            break;
        TRY(step(p, *op, err));
    }
    if (p->n_stack != 1 || p->n_marks != 0)
        return pickle__refuse(p, err, "the pickle ends with %zu values in place of one", p->n_stack);
    if (p->at != p->n_bytes)
        return pickle__refuse(p, err, "%zu bytes behind the end of the pickle", p->n_bytes - p->at);
    for (const struct node *dict = p->dicts; dict; dict = dict->next_dict)
        TRY(check_keys(p, dict, err));
    *root = &p->stack[0]->value;
    return ST_OK;
}

enum status pickle__read(struct zip *zip, const struct zip_entry *entry, struct arena *arena,
                         struct value **root, struct err *err)
{
    struct pickle p = {
        .bytes = entry->data, .n_bytes = entry->n_bytes, .path = zip->path, .zip = zip, .arena = arena};
    if (p.n_bytes > PICKLE_MAX_BYTES)
        return err_set(err, ST_INPUT, "\"%s\": data.pkl has %zu bytes, at most %zu are read", zip->path,
                       p.n_bytes, PICKLE_MAX_BYTES);
    enum status status = run(&p, root, err);
    free(p.stack);
    free(p.memo);
    free(p.marks);
    return status;
}
