/* The figures of a measurement as JSON, and as tables. */
#include "bench.h"
#include "machine.h"
#include "util/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_step_s(const struct bench_result *r)
{
    double s[BENCH_MAX_STEPS];
    for (int64_t i = 0; i < r->n_steps; i++)
        s[i] = r->steps[i].end_s - r->steps[i].begin_s;
    qsort(s, (size_t)r->n_steps, sizeof *s, by_value);
    return r->n_steps % 2 ? s[r->n_steps / 2] : (s[r->n_steps / 2 - 1] + s[r->n_steps / 2]) / 2;
}

/* Takes the reference; false when there is none. */
static bool put(json_t *to, const char *key, json_t *value)
{
    return json_object_set_new(to, key, value) == 0;
}

static bool put_machine(json_t *j, const struct bench_result *r, const struct options *o)
{
    const struct assembly *s = r->stage->model;
    char cpu[128];
    machine_cpu_name(cpu, sizeof cpu);
    return put(j, "machine",
               json_pack("{s:s, s:i, s:s, s:i, s:i, s:I}", "processor", cpu, "processors", cpu_count(),
                         "path", s->ops->describe(s->dev), "ranks", s->comm->world_size, "hosts",
                         s->comm->n_nodes, "threads_of_a_rank", (json_int_t)o->threads)) &&
           put(j, "other_cpus", json_real(r->other_cpu_s / r->window_s));
}

static bool put_work(json_t *j, const struct bench_result *r, const struct options *o)
{
    const struct assembly *s = r->stage->model;
    const struct train_options *t = r->stage->options;
    const struct train_load *l = &r->load;
    const struct model_load *run = t->share_prefix ? &l->shared : &l->apart;
    double n = (double)l->n_steps;
    const char *name = strrchr(o->model, '/');
    return put(j, "model",
               json_pack("{s:s, s:s, s:i, s:i, s:I, s:I, s:I}", "name", name ? name + 1 : o->model, "type",
                         s->arch.model_type, "layers", s->arch.n_layers, "hidden", s->arch.hidden,
                         "vocabulary", (json_int_t)model_vocab(s->model), "new_rows",
                         (json_int_t)s->params.n_new, "trained_values", (json_int_t)s->params.n_values)) &&
           put(j, "work",
               json_pack("{s:i, s:b, s:b, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:f}", "stage", (int)t->stage,
                         "share_prefix", t->share_prefix, "space_tokens", o->space_tokens, "rows_a_step",
                         (double)l->n_rows / n, "tokens_a_step", (double)l->n_tokens / n,
                         "computed_tokens_a_step", (double)model_load_computed(run) / n, "labels_a_step",
                         (double)run->n_labels / n, "sequences_a_step", (double)run->n_sequences / n,
                         "longest_sequence", (json_int_t)run->longest, "tokens_left_out_forward_a_step",
                         (double)run->n_kept / n, "tokens_left_out_backward_a_step",
                         (double)run->n_stem / n));
}

static bool put_speed(json_t *j, const struct bench_result *r)
{
    const struct train_load *l = &r->load;
    json_t *each = json_array(), *losses = json_array(), *norms = json_array();
    double step_s = median_step_s(r), n = (double)l->n_steps * step_s;
    for (int64_t i = 0; i < r->n_steps; i++) {
        json_array_append_new(each, json_real(r->steps[i].end_s - r->steps[i].begin_s));
        json_array_append_new(losses, json_real(r->steps[i].loss));
        json_array_append_new(norms, json_real(r->steps[i].grad_norm));
    }
    const struct model_load *run = r->stage->options->share_prefix ? &l->shared : &l->apart;
    return put(j, "warmup_steps", json_integer(r->n_warmup)) && put(j, "steps", json_integer(r->n_steps)) &&
           put(j, "step_seconds", json_real(step_s)) && put(j, "step_seconds_each", each) &&
           put(j, "losses", losses) && put(j, "grad_norms", norms) &&
           put(j, "examples_per_second", json_real((double)l->n_rows / n)) &&
           put(j, "tokens_per_second", json_real((double)l->n_tokens / n)) &&
           put(j, "computed_tokens_per_second", json_real((double)model_load_computed(run) / n)) &&
           put(j, "label_tokens_per_second", json_real((double)run->n_labels / n)) &&
           put(j, "start_to_first_step_seconds", json_real(r->first_step_s)) &&
           put(j, "start_to_first_step_done_seconds", json_real(r->first_step_done_s));
}

static bool put_memory(json_t *j, const struct bench_result *r)
{
    json_t *peak = json_array(), *pss = json_array();
    int64_t highest = 0, sum = 0;
    for (int i = 0; i < r->stage->model->comm->world_size; i++) {
        const struct bench_rank *k = &r->ranks[i];
        json_array_append_new(peak, json_integer(k->peak_rss_bytes));
        json_array_append_new(pss, json_integer(k->pss_bytes));
        highest = k->peak_rss_bytes > highest ? k->peak_rss_bytes : highest;
        sum += k->pss_bytes;
    }
    return put(j, "peak_rss_bytes", json_integer(highest)) && put(j, "peak_rss_bytes_each", peak) &&
           put(j, "pss_bytes", json_integer(sum)) && put(j, "pss_bytes_each", pss);
}

/* Rates, and what the step would take if all that cannot be left out ran at the best of them. */
static bool put_ceiling(json_t *j, const struct bench_result *r)
{
    const struct assembly *s = r->stage->model;
    const struct model_load *run = r->stage->options->share_prefix ? &r->load.shared : &r->load.apart;
    struct model_flops f;
    json_t *rates = json_array();
    double n = (double)r->load.n_steps, best = r->rates.best_gflops;
    model_flops(&f, &s->arch, &s->params, run);
    for (int i = 0; i < r->rates.n; i++) {
        const struct bench_rate *k = &r->rates.items[i];
        json_array_append_new(rates,
                              json_pack("{s:I, s:I, s:I, s:s, s:f}", "n_out", (json_int_t)k->n_out, "n_in",
                                        (json_int_t)k->n_in, "tokens", (json_int_t)k->n_tokens, "direction",
                                        k->back ? "back" : "forward", "gflops", k->gflops));
    }
    double bound_s = f.total / n / (best * 1e9);
    return put(j, "products", rates) && put(j, "ceiling_gflops", json_real(best)) &&
           put(j, "needed_gflop_a_step",
               json_pack("{s:f, s:f, s:f, s:f, s:f}", "projections", f.projections / n * 1e-9, "lora",
                         f.lora / n * 1e-9, "attention", f.attention / n * 1e-9, "head", f.head / n * 1e-9,
                         "total", f.total / n * 1e-9)) &&
           put(j, "bound_seconds", json_real(bound_s)) &&
           put(j, "part_of_bound", json_real(bound_s / median_step_s(r)));
}

static bool put_operations(json_t *j, const struct bench_result *r)
{
    json_t *list = json_array();
    double n = (double)r->n_steps, all_s = 0, in_ops_s = 0;
    for (int64_t i = 0; i < r->n_steps; i++)
        all_s += r->steps[i].end_s - r->steps[i].begin_s;
    for (int i = 0; i < r->n_ops; i++) {
        const struct op_time *k = &r->ops[i];
        double gflops = k->seconds > 0 ? k->flops / k->seconds * 1e-9 : 0;
        /* Rates are of rank 0 alone; the ceiling is that of all ranks. */
        double ceiling = r->rates.best_gflops / r->stage->model->comm->world_size;
        json_t *line =
            json_pack("{s:s, s:f, s:f, s:f}", "name", k->name, "calls_a_step", (double)k->calls / n,
                      "seconds_a_step", k->seconds / n, "part_of_step", k->seconds / all_s);
        if (line && k->flops > 0) {
            put(line, "gflops", json_real(gflops));
            put(line, "part_of_ceiling", json_real(gflops / ceiling));
        }
        json_array_append_new(list, line);
        in_ops_s += k->seconds;
    }
    return put(j, "operations", list) &&
           put(j, "outside_operations_seconds", json_real((all_s - in_ops_s) / n));
}

json_t *bench_json(const struct bench_result *r, const struct options *o)
{
    json_t *j = json_object();
    bool good = j && put(j, "format", json_integer(1)) && put(j, "version", json_string(SMGPT_VERSION)) &&
                put_machine(j, r, o) && put_work(j, r, o) && put_speed(j, r) && put_memory(j, r) &&
                put_ceiling(j, r) && put_operations(j, r);
    if (good && r->growth)
        good = json_object_set(j, "growth", r->growth) == 0;
    if (good)
        return j;
    json_decref(j);
    return NULL;
}

static double real(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void print_growth(const json_t *growth)
{
    size_t i;
    json_t *line;
    printf("\n%-12s %8s %6s %8s %10s %8s %10s %12s\n", "growth of", "to", "rows", "tokens", "computed",
           "labels", "seconds", "not shared");
    json_array_foreach(growth, i, line)
    {
        printf("%-12s %8.0f %6.0f %8.0f %10.0f %8.0f %10.4f", text(line, "kind"), real(line, "value"),
               real(line, "rows"), real(line, "tokens"), real(line, "computed_tokens"), real(line, "labels"),
               real(line, "seconds"));
        if (json_object_get(line, "seconds_apart"))
            printf(" %12.4f", real(line, "seconds_apart"));
        printf("\n");
    }
}

void bench_print(const json_t *j)
{
    const json_t *m = json_object_get(j, "machine"), *w = json_object_get(j, "work");
    size_t i;
    json_t *line;
    printf("%s: %s; %.0f ranks x %.0f threads\n", text(m, "processor"), text(m, "path"), real(m, "ranks"),
           real(m, "threads_of_a_rank"));
    printf("%s, %.0f rows a step, %.1f tokens a row, %.0f of %.0f tokens computed, %.0f labels\n",
           text(json_object_get(j, "model"), "name"), real(w, "rows_a_step"),
           real(w, "tokens_a_step") / real(w, "rows_a_step"), real(w, "computed_tokens_a_step"),
           real(w, "tokens_a_step"), real(w, "labels_a_step"));
    printf("%.3f s a step: %.2f examples/s, %.0f tokens/s, %.0f labelled tokens/s; others used %.2f "
           "processors\n",
           real(j, "step_seconds"), real(j, "examples_per_second"), real(j, "tokens_per_second"),
           real(j, "label_tokens_per_second"), real(j, "other_cpus"));
    printf("start to first step %.2f s, to its end %.2f s; peak memory of a rank %.0f MiB\n",
           real(j, "start_to_first_step_seconds"), real(j, "start_to_first_step_done_seconds"),
           real(j, "peak_rss_bytes") / 1048576);
    printf("best rate of products %.1f GFLOP/s; the step at that rate %.3f s, %.2f of what it took\n\n",
           real(j, "ceiling_gflops"), real(j, "bound_seconds"), real(j, "part_of_bound"));
    printf("%-28s %10s %10s %7s %10s %8s\n", "operation", "calls", "ms a step", "part", "GFLOP/s", "of best");
    json_array_foreach(json_object_get(j, "operations"), i, line)
    {
        printf("%-28s %10.0f %10.2f %6.1f%%", text(line, "name"), real(line, "calls_a_step"),
               1e3 * real(line, "seconds_a_step"), 100 * real(line, "part_of_step"));
        if (json_object_get(line, "gflops"))
            printf(" %10.1f %8.2f", real(line, "gflops"), real(line, "part_of_ceiling"));
        printf("\n");
    }
    printf("%-28s %10s %10.2f\n", "(outside)", "", 1e3 * real(j, "outside_operations_seconds"));
    if (json_object_get(j, "growth"))
        print_growth(json_object_get(j, "growth"));
}
