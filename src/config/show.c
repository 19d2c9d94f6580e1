/* The options for others to read: the saved file, the part that decides the training curve, the help. */
#include "config_internal.h"
#include <string.h>

static json_t *value_json(const struct options *o, const struct option_row *row)
{
    const void *field = config__field_const(o, row);
    switch (row->kind) {
    case KIND_INTEGER:
        return json_integer(*(const int64_t *)field);
    case KIND_REAL:
        return json_real(*(const double *)field);
    case KIND_BOOL:
        return json_boolean(*(const bool *)field);
    default:
        return json_string(field);
    }
}

static json_t *to_json(const struct options *o, bool curve_only)
{
    json_t *out = json_object();
    for (size_t i = 0; i < config__n_rows; i++) {
        const struct option_row *row = &config__rows[i];
        if (row->curve || !curve_only)
            json_object_set_new(out, row->key, value_json(o, row));
    }
    return out;
}

json_t *options_json(const struct options *o)
{
    return to_json(o, false);
}

json_t *options_curve_json(const struct options *o)
{
    return to_json(o, true);
}

static enum status help_range(const struct option_row *row, struct buf *out, struct err *err)
{
    switch (row->kind) {
    case KIND_INTEGER:
        TRY(buf_printf(out, err, "%lld", (long long)row->int_def));
        if (row->int_max >= 1000000000)
            return row->int_min ? buf_printf(out, err, " (%lld or more)", (long long)row->int_min) : ST_OK;
        return buf_printf(out, err, " (%lld to %lld)", (long long)row->int_min, (long long)row->int_max);
    case KIND_REAL:
        return buf_printf(out, err, "%g (%g to %.10g)", row->real_def, row->real_min, row->real_max);
    case KIND_BOOL:
        return buf_puts(out, row->bool_def ? "true" : "false", err);
    default:
        return buf_puts(out, row->text_def[0] ? row->text_def : "-", err);
    }
}

/* "a, b; not built yet: c" */
static enum status help_words(const struct option_row *row, struct buf *out, struct err *err)
{
    for (int planned = 0; planned < 2; planned++) {
        bool first = true;
        for (const char *at = row->words; *at;) {
            size_t n = strcspn(at, "|");
            if ((*at == '!') == planned) {
                const char *lead = !first ? ", " : planned ? "; not built yet: " : ": ";
                TRY(buf_printf(out, err, "%s%.*s", lead, (int)n - planned, at + planned));
                first = false;
            }
            at += n + (at[n] == '|');
        }
    }
    return ST_OK;
}

enum status options_help(struct buf *out, struct err *err)
{
    for (size_t i = 0; i < config__n_rows; i++) {
        const struct option_row *row = &config__rows[i];
        TRY(buf_printf(out, err, "  %s", row->key));
        if (row->env[0])
            TRY(buf_printf(out, err, " (variable %s)", row->env));
        TRY(buf_puts(out, " = ", err));
        TRY(help_range(row, out, err));
        TRY(buf_printf(out, err, "\n      %s", row->help));
        if (row->kind == KIND_CHOICE)
            TRY(help_words(row, out, err));
        TRY(buf_puts(out, "\n", err));
    }
    return ST_OK;
}
