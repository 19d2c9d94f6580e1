/* See bf16.h. A product of one size and output stride is a compiled program of oneDNN; they are made when
 * first needed and kept. Rows are cut into blocks of 128 and the rest is filled up to a few sizes, so that
 * packed sequences of all lengths share them. */
#include "bf16.h"
#include "cpu_internal.h"
#include "util/fatal.h"
#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_BLOCK = 128, COLUMN_BLOCK = 256 };

struct program {
    int64_t m, k, n;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t a, b, c, scratch;
    size_t scratch_bytes;
};

struct bf16_engine {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct program *programs;
    size_t n_programs, capacity;
};

struct bf16_matrix {
    int64_t k, n, n_blocks;
    dnnl_memory_desc_t md[2]; /* of a whole block, of the last one */
    size_t block_bytes;       /* from one block to the next */
    char *blocks;
};

const char *cpu__bf16_path(void)
{
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    if ((isa & dnnl_cpu_isa_avx512_core_amx) == dnnl_cpu_isa_avx512_core_amx)
        return "amx";
    if ((isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16)
        return "avx512_bf16";
    return NULL;
}

bool cpu__bf16_without_amx(void)
{
    const char *path = cpu__bf16_path();
    if (path != NULL && strcmp(path, "amx") == 0)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
    path = cpu__bf16_path();
    return path != NULL && strcmp(path, "avx512_bf16") == 0;
}

enum status cpu__bf16_open(struct bf16_engine **out, struct err *err)
{
    struct bf16_engine *e = calloc(1, sizeof *e);
    if (e == NULL)
        return err_memory(err, "bfloat16 products", sizeof *e);
    if (dnnl_engine_create(&e->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&e->stream, e->engine, dnnl_stream_default_flags) != dnnl_success) {
        cpu__bf16_close(e);
        return err_set(err, ST_ENV, "oneDNN does not start");
    }
    *out = e;
    return ST_OK;
}

void cpu__bf16_close(struct bf16_engine *e)
{
    if (e == NULL)
        return;
    for (size_t i = 0; i < e->n_programs; i++)
        dnnl_primitive_destroy(e->programs[i].primitive);
    free(e->programs);
    if (e->stream != NULL)
        dnnl_stream_destroy(e->stream);
    if (e->engine != NULL)
        dnnl_engine_destroy(e->engine);
    free(e);
}

static dnnl_status_t matrix_md(dnnl_memory_desc_t *md, dnnl_data_type_t type, int64_t rows, int64_t columns,
                               int64_t row_step, int64_t column_step)
{
    dnnl_dims_t dims = {rows, columns}, steps = {row_step, column_step};
    return dnnl_memory_desc_init_by_strides(md, 2, dims, type, steps);
}

/* oneDNN cuts a product by the threads that OpenMP would give it when it is made; a team of one counts as
 * outside any parallel region. So one thread is what it is told, here and where programs run. */
static int threads_hide(void)
{
    int n_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    return n_threads;
}

/* Makes p->primitive for the sizes in p. b: the packed layout, or NULL to let oneDNN choose it (p->b). */
static dnnl_status_t program_make(struct program *p, dnnl_engine_t engine, const dnnl_memory_desc_t *b)
{
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_dims_t dims = {p->k, p->n};
    int n_threads = threads_hide();
    dnnl_status_t s = matrix_md(&p->a, dnnl_bf16, p->m, p->k, p->k, 1);
    if (s == dnnl_success)
        s = matrix_md(&p->c, dnnl_f32, p->m, p->n, p->n, 1);
    if (b != NULL)
        p->b = *b;
    else if (s == dnnl_success)
        s = dnnl_memory_desc_init_by_tag(&p->b, 2, dims, dnnl_bf16, dnnl_format_tag_any);
    if (s == dnnl_success)
        s = dnnl_matmul_desc_init(&desc, &p->a, &p->b, NULL, &p->c);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_create(&attr);
    if (s == dnnl_success) /* the library's own scratchpad belongs to the thread that makes the primitive */
        s = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (s == dnnl_success)
        s = dnnl_primitive_desc_create(&pd, &desc, attr, engine, NULL);
    if (s == dnnl_success) {
        const char *name = "";
        dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
        if (strncmp(name, "ref", 3) == 0) /* a thousand times slower: an error is kinder */
            s = dnnl_unimplemented;
    }
    if (s == dnnl_success) {
        p->b = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        p->scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        p->scratch_bytes = dnnl_memory_desc_get_size(&p->scratch);
        s = dnnl_primitive_create(&p->primitive, pd);
    }
    if (attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    omp_set_num_threads(n_threads);
    return s;
}

static _Noreturn void give_up(const char *what, int64_t m, int64_t k, int64_t n)
{
    struct err err = ERR_INIT;
    err_set(&err, ST_ENV, "oneDNN cannot %s a bfloat16 product of %lld x %lld x %lld", what, (long long)m,
            (long long)k, (long long)n);
    err_hint(&err, "set compute=float32, or cpu_path=avx512");
    fatal(&err);
}

/* The program for these sizes, by its index: the table may move when it grows. */
static size_t program_find(struct bf16_engine *e, const struct program *wanted, const dnnl_memory_desc_t *b)
{
    for (size_t i = 0; i < e->n_programs; i++) {
        const struct program *p = &e->programs[i];
        if (p->m == wanted->m && p->k == wanted->k && p->n == wanted->n && dnnl_memory_desc_equal(&p->b, b))
            return i;
    }
    if (e->n_programs == e->capacity) {
        size_t capacity = e->capacity > 0 ? 2 * e->capacity : 32;
        struct program *more = realloc(e->programs, capacity * sizeof *more);
        if (more == NULL)
            give_up("keep", wanted->m, wanted->k, wanted->n);
        e->programs = more;
        e->capacity = capacity;
    }
    e->programs[e->n_programs] = *wanted;
    if (program_make(&e->programs[e->n_programs], e->engine, b) != dnnl_success)
        give_up("make", wanted->m, wanted->k, wanted->n);
    return e->n_programs++;
}

static dnnl_status_t program_run(const struct bf16_engine *e, const struct program *p, const uint16_t *a,
                                 const char *b, float *c, void *scratch)
{
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, NULL}, {DNNL_ARG_WEIGHTS, NULL}, {DNNL_ARG_DST, NULL}, {DNNL_ARG_SCRATCHPAD, NULL}};
    const dnnl_memory_desc_t *md[] = {&p->a, &p->b, &p->c, &p->scratch};
    void *data[] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c, scratch};
    dnnl_status_t s = dnnl_success;
    for (int i = 0; i < 4 && s == dnnl_success; i++)
        s = dnnl_memory_create(&args[i].memory, md[i], e->engine, data[i]);
    if (s == dnnl_success)
        s = dnnl_primitive_execute(p->primitive, e->stream, 4, args);
    for (int i = 0; i < 4; i++)
        if (args[i].memory != NULL)
            dnnl_memory_destroy(args[i].memory);
    return s;
}

static dnnl_status_t block_pack(const struct bf16_engine *e, const dnnl_memory_desc_t *from,
                                const uint16_t *source, const dnnl_memory_desc_t *to, void *block)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, NULL}, {DNNL_ARG_TO, NULL}};
    dnnl_status_t s = dnnl_reorder_primitive_desc_create(&pd, from, e->engine, to, e->engine, NULL);
    if (s == dnnl_success)
        s = dnnl_primitive_create(&reorder, pd);
    if (s == dnnl_success)
        s = dnnl_memory_create(&args[0].memory, from, e->engine, (void *)(uintptr_t)source);
    if (s == dnnl_success)
        s = dnnl_memory_create(&args[1].memory, to, e->engine, block);
    if (s == dnnl_success)
        s = dnnl_primitive_execute(reorder, e->stream, 2, args);
    for (int i = 0; i < 2; i++)
        if (args[i].memory != NULL)
            dnnl_memory_destroy(args[i].memory);
    if (reorder != NULL)
        dnnl_primitive_destroy(reorder);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    return s;
}

static dnnl_status_t block_from(const struct bf16_engine *e, const struct bf16_matrix *b, int64_t j,
                                const uint16_t *source, int64_t k_step, int64_t n_step)
{
    bool last = j == b->n_blocks - 1;
    dnnl_memory_desc_t from;
    dnnl_status_t s =
        matrix_md(&from, dnnl_bf16, b->k, last ? b->n - j * COLUMN_BLOCK : COLUMN_BLOCK, k_step, n_step);
    if (s != dnnl_success)
        return s;
    return block_pack(e, &from, source, &b->md[last], b->blocks + (size_t)j * b->block_bytes);
}

/* The layout that oneDNN likes best for a block of n columns, asked with a full block of rows. */
static dnnl_status_t layout_ask(const struct bf16_engine *e, int64_t k, int64_t n, dnnl_memory_desc_t *md)
{
    struct program p = {.m = ROW_BLOCK, .k = k, .n = n};
    dnnl_status_t s = program_make(&p, e->engine, NULL);
    if (s != dnnl_success)
        return s;
    *md = p.b;
    return dnnl_primitive_destroy(p.primitive);
}

static enum status refused(const struct bf16_matrix *b, struct err *err)
{
    err_set(err, ST_ENV, "oneDNN cannot pack a bfloat16 weight of %lld x %lld", (long long)b->n,
            (long long)b->k);
    return err_hint(err, "set compute=float32, or cpu_path=avx512");
}

enum status cpu__bf16_open_matrix(struct bf16_matrix **out, size_t *n_bytes, struct device *dev, void *memory,
                                  int64_t k, int64_t n, struct err *err)
{
    const struct bf16_engine *e = dev->bf16;
    struct bf16_matrix *b = calloc(1, sizeof *b);
    *out = NULL;
    if (b == NULL)
        return err_memory(err, "a packed weight", sizeof *b);
    *b = (struct bf16_matrix){.k = k, .n = n, .n_blocks = cpu_blocks(n, COLUMN_BLOCK), .blocks = memory};
    int64_t last = n - (b->n_blocks - 1) * COLUMN_BLOCK;
    dnnl_status_t s = layout_ask(e, k, last, &b->md[1]);
    b->md[0] = b->md[1];
    if (s == dnnl_success && b->n_blocks > 1)
        s = layout_ask(e, k, COLUMN_BLOCK, &b->md[0]);
    if (s != dnnl_success) {
        enum status status = refused(b, err);
        cpu__bf16_close_matrix(b);
        return status;
    }
    size_t bytes = dnnl_memory_desc_get_size(&b->md[0]), last_bytes = dnnl_memory_desc_get_size(&b->md[1]);
    b->block_bytes = ((bytes > last_bytes ? bytes : last_bytes) + 63) / 64 * 64;
    *n_bytes = b->block_bytes * (size_t)b->n_blocks;
    *out = b;
    return ST_OK;
}

enum status cpu__bf16_pack(struct bf16_matrix *b, struct device *dev, const uint16_t *source, int64_t k_step,
                           int64_t n_step, struct err *err)
{
    const struct bf16_engine *e = dev->bf16;
    int failures = 0;
#pragma omp parallel num_threads(dev->n_threads) reduction(+ : failures)
    {
        threads_hide(); /* until the region ends */
#pragma omp for schedule(static)
        for (int64_t j = 0; j < b->n_blocks; j++)
            if (block_from(e, b, j, source + j * COLUMN_BLOCK * n_step, k_step, n_step) != dnnl_success)
                failures++;
    }
    return failures > 0 ? refused(b, err) : ST_OK;
}

void cpu__bf16_close_matrix(struct bf16_matrix *b)
{
    free(b);
}

/* Rows that a block of m <= ROW_BLOCK rows is filled up to. */
static int64_t filled_rows(int64_t m)
{
    return m <= 8 ? 8 : m <= 16 ? 16 : cpu_blocks(m, 32) * 32;
}

/* What one call needs; programs by [last row block][last column block]. */
struct bf16_call {
    struct device *dev;
    const struct bf16_matrix *b;
    const uint16_t *a; /* [rows filled up, k] */
    float *c;
    int64_t ldc, m;
    bool accumulate;
    size_t program[2][2];
};

static dnnl_status_t task_run(const struct bf16_call *call, int thread, int64_t row_block,
                              int64_t column_block)
{
    const struct bf16_matrix *b = call->b;
    const struct bf16_engine *e = call->dev->bf16;
    int64_t i = row_block * ROW_BLOCK, j = column_block * COLUMN_BLOCK,
            rows = cpu_min(call->m - i, ROW_BLOCK);
    const struct program *p =
        &e->programs[call->program[i + ROW_BLOCK >= call->m][column_block == b->n_blocks - 1]];
    size_t scratch_bytes = (p->scratch_bytes + 63) / 64 * 64;
    char *scratch = ops__scratch(call->dev, thread, scratch_bytes + (size_t)(p->m * p->n) * sizeof(float));
    float *from = (float *)(scratch + scratch_bytes), *to = call->c + i * call->ldc + j;
    dnnl_status_t s = program_run(e, p, call->a + i * b->k, b->blocks + (size_t)column_block * b->block_bytes,
                                  from, scratch);
    for (int64_t r = 0; r < rows; r++)
        if (call->accumulate)
            call->dev->kernels->add(to + r * call->ldc, from + r * p->n, p->n);
        else
            memcpy(to + r * call->ldc, from + r * p->n, (size_t)p->n * sizeof *to);
    return s;
}

void cpu__bf16_product(struct device *dev, float *c, int64_t ldc, const float *a, int64_t lda, int64_t m,
                       const struct bf16_matrix *b, bool accumulate)
{
    struct bf16_call call = {.dev = dev, .b = b, .c = c, .ldc = ldc, .m = m, .accumulate = accumulate};
    int64_t row_blocks = cpu_blocks(m, ROW_BLOCK), last_rows = m - (row_blocks - 1) * ROW_BLOCK;
    int64_t filled = filled_rows(last_rows), all_rows = (row_blocks - 1) * ROW_BLOCK + filled;
    for (int r = row_blocks > 1 ? 0 : 1; r < 2; r++)
        for (int j = b->n_blocks > 1 ? 0 : 1; j < 2; j++) {
            struct program p = {.m = r == 0 ? ROW_BLOCK : filled, .k = b->k, .n = COLUMN_BLOCK};
            if (j == 1)
                p.n = b->n - (b->n_blocks - 1) * COLUMN_BLOCK;
            call.program[r][j] = program_find(dev->bf16, &p, &b->md[j]);
        }
    uint16_t *rounded = ops__scratch(dev, dev->n_threads, (size_t)(all_rows * b->k) * sizeof *rounded);
    call.a = rounded;
    int failures = 0;
    bool large = m * b->n * b->k > CPU_GRAIN_TERMS;
#pragma omp parallel num_threads(dev->n_threads) reduction(+ : failures) if (large)
    {
        threads_hide(); /* until the region ends */
#pragma omp for schedule(static)
        for (int64_t r = 0; r < all_rows; r++)
            if (r < m)
                dev->kernels->to_bf16(rounded + r * b->k, a + r * lda, b->k);
            else
                memset(rounded + r * b->k, 0, (size_t)b->k * sizeof *rounded);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < row_blocks * b->n_blocks; task++)
            if (task_run(&call, omp_get_thread_num(), task / b->n_blocks, task % b->n_blocks) != dnnl_success)
                failures++;
    }
    if (failures > 0)
        give_up("run", m, b->k, b->n);
}
