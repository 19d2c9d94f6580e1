/* config.json to struct arch: both naming generations of transformers (flat rope_theta and rope_scaling, or
 * one rope_parameters object), the defaults of each family's configuration class, and a refusal by name for
 * every field that would change the result and is not understood. */
#include "model/arch.h"
#include "util/json.h"

#include <math.h>
#include <string.h>

static const char *const family_names[] = {
    [FAMILY_LLAMA] = "llama", [FAMILY_QWEN3] = "qwen3", [FAMILY_GEMMA3] = "gemma3_text"};

const char *family_name(enum family f)
{
    return family_names[f];
}

/* What transformers' configuration classes fill in when a key is absent. */
struct family_defaults {
    int64_t hidden, mlp, n_layers, n_q_heads, n_kv_heads, head_dim, vocab, max_positions;
    bool tied;
    double theta;
};
static const struct family_defaults defaults[] = {
    [FAMILY_LLAMA] = {4096, 11008, 32, 32, 0, 0, 32000, 2048, false, 1e4},
    [FAMILY_QWEN3] = {4096, 22016, 32, 32, 32, 128, 151936, 32768, false, 1e4},
    [FAMILY_GEMMA3] = {2304, 9216, 26, 8, 4, 256, 262208, 131072, true, 1e6},
};

struct parser {
    const json_t *root;
    const char *name;
    struct arch *a;
};

static bool is_set(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v);
}

static enum status parse_family(struct parser *p, struct err *err)
{
    const char *type;
    TRY(json_get_string(p->root, p->name, "model_type", false, NULL, &type, err));
    snprintf(p->a->model_type, sizeof p->a->model_type, "%.31s", type);
    for (size_t i = 0; i < sizeof family_names / sizeof *family_names; i++)
        if (strcmp(type, family_names[i]) == 0) {
            p->a->family = (enum family)i;
            return ST_OK;
        }
    err_set(err, ST_INPUT, "%s: model_type '%.60s' is not supported", p->name, type);
    return err_hint(err, "supported are llama, qwen3 and gemma3_text");
}

static enum status parse_size(struct parser *p, const char *key, int64_t max, int64_t def, int32_t *out,
                              struct err *err)
{
    int64_t v;
    TRY(json_get_int(p->root, p->name, key, 1, max, true, def, &v, err));
    *out = (int32_t)v;
    return ST_OK;
}

static enum status parse_sizes(struct parser *p, struct err *err)
{
    struct arch *a = p->a;
    const struct family_defaults *d = &defaults[a->family];
    TRY(parse_size(p, "hidden_size", 1 << 17, d->hidden, &a->hidden, err));
    TRY(parse_size(p, "intermediate_size", 1 << 19, d->mlp, &a->mlp, err));
    TRY(parse_size(p, "num_hidden_layers", ARCH_MAX_LAYERS, d->n_layers, &a->n_layers, err));
    TRY(parse_size(p, "num_attention_heads", 1024, d->n_q_heads, &a->n_q_heads, err));
    TRY(parse_size(p, "num_key_value_heads", 1024, d->n_kv_heads ? d->n_kv_heads : a->n_q_heads,
                   &a->n_kv_heads, err));
    /* An explicit null means "as many as query heads" for every family. */
    if (json_is_null(json_object_get(p->root, "num_key_value_heads")))
        a->n_kv_heads = a->n_q_heads;
    TRY(parse_size(p, "vocab_size", 1 << 24, d->vocab, &a->n_embed_rows, err));
    TRY(parse_size(p, "max_position_embeddings", 1 << 30, d->max_positions, &a->max_positions, err));
    if (a->n_q_heads % a->n_kv_heads)
        return err_set(err, ST_INPUT,
                       "%s: num_attention_heads %d is not a multiple of num_key_value_heads %d", p->name,
                       a->n_q_heads, a->n_kv_heads);
    int64_t head_dim = d->head_dim;
    if (!is_set(p->root, "head_dim") && (a->family == FAMILY_LLAMA)) {
        if (a->hidden % a->n_q_heads)
            return err_set(
                err, ST_INPUT,
                "%s: hidden_size %d is not a multiple of num_attention_heads %d and there is no head_dim",
                p->name, a->hidden, a->n_q_heads);
        head_dim = a->hidden / a->n_q_heads;
    }
    TRY(parse_size(p, "head_dim", 1 << 12, head_dim, &a->head_dim, err));
    if (a->head_dim % 2)
        return err_set(err, ST_INPUT, "%s: head_dim %d is odd, rotary embeddings need pairs", p->name,
                       a->head_dim);
    return ST_OK;
}

/* One rope description: an object in the old (rope_scaling) or the new (rope_parameters) spelling. */
static enum status parse_rope_object(struct parser *p, const json_t *o, struct rope_spec *r, struct err *err)
{
    if (!json_is_object(o))
        return err_set(err, ST_INPUT, "%s: rope_scaling or rope_parameters is not an object", p->name);
    const char *type, *old_type;
    TRY(json_get_double(o, p->name, "rope_theta", true, r->theta, &r->theta, err));
    TRY(json_get_string(o, p->name, "type", true, "default", &old_type, err));
    TRY(json_get_string(o, p->name, "rope_type", true, old_type, &type, err));
    double partial;
    TRY(json_get_double(o, p->name, "partial_rotary_factor", true, 1, &partial, err));
    if (partial != 1)
        return err_set(err, ST_INPUT, "%s: partial_rotary_factor %g is not supported", p->name, partial);
    if (strcmp(type, "default") == 0) {
        r->kind = ROPE_DEFAULT;
        return ST_OK;
    }
    if (strcmp(type, "linear") && strcmp(type, "llama3"))
        return err_set(err, ST_INPUT,
                       "%s: rope_type '%.40s' is not supported (default, linear and llama3 are)", p->name,
                       type);
    r->kind = strcmp(type, "linear") == 0 ? ROPE_LINEAR : ROPE_LLAMA3;
    TRY(json_get_double(o, p->name, "factor", false, 0, &r->factor, err));
    if (!(r->factor >= 1) || !isfinite(r->factor))
        return err_set(err, ST_INPUT, "%s: rope factor %g is below 1", p->name, r->factor);
    if (r->kind == ROPE_LINEAR)
        return ST_OK;
    TRY(json_get_double(o, p->name, "low_freq_factor", false, 0, &r->low_freq_factor, err));
    TRY(json_get_double(o, p->name, "high_freq_factor", false, 0, &r->high_freq_factor, err));
    TRY(json_get_int(o, p->name, "original_max_position_embeddings", 1, 1 << 30, true, p->a->max_positions,
                     &r->original_max_positions, err));
    if (!(r->low_freq_factor > 0) || !(r->high_freq_factor > r->low_freq_factor))
        return err_set(err, ST_INPUT, "%s: llama3 rope needs 0 < low_freq_factor < high_freq_factor",
                       p->name);
    return ST_OK;
}

static enum status check_theta(struct parser *p, const struct rope_spec *r, struct err *err)
{
    if (!(r->theta > 0) || !isfinite(r->theta))
        return err_set(err, ST_INPUT, "%s: rope_theta %g is not a positive number", p->name, r->theta);
    return ST_OK;
}

static enum status parse_rope(struct parser *p, struct err *err)
{
    struct arch *a = p->a;
    a->rope_global = (struct rope_spec){.kind = ROPE_DEFAULT, .factor = 1};
    a->rope_local = a->rope_global;
    TRY(json_get_double(p->root, p->name, "rope_theta", true, defaults[a->family].theta,
                        &a->rope_global.theta, err));
    TRY(json_get_double(p->root, p->name, "rope_local_base_freq", true, 1e4, &a->rope_local.theta, err));
    double partial;
    TRY(json_get_double(p->root, p->name, "partial_rotary_factor", true, 1, &partial, err));
    if (partial != 1)
        return err_set(err, ST_INPUT, "%s: partial_rotary_factor %g is not supported", p->name, partial);
    const json_t *params = json_object_get(p->root, "rope_parameters");
    const json_t *full = params ? json_object_get(params, "full_attention") : NULL;
    if (is_set(p->root, "rope_scaling")) {
        TRY(parse_rope_object(p, json_object_get(p->root, "rope_scaling"), &a->rope_global, err));
    } else if (full) {
        TRY(parse_rope_object(p, full, &a->rope_global, err));
        if (is_set(params, "sliding_attention"))
            TRY(parse_rope_object(p, json_object_get(params, "sliding_attention"), &a->rope_local, err));
    } else if (is_set(p->root, "rope_parameters")) {
        TRY(parse_rope_object(p, params, &a->rope_global, err));
    }
    if (a->family != FAMILY_GEMMA3)
        a->rope_local = a->rope_global; /* only Gemma turns its sliding layers with another base */
    TRY(check_theta(p, &a->rope_global, err));
    return check_theta(p, &a->rope_local, err);
}

/* layer_types, or what the family's class computes when it is absent. */
static enum status parse_layers(struct parser *p, struct err *err)
{
    struct arch *a = p->a;
    if (a->family == FAMILY_LLAMA)
        return ST_OK; /* Llama's class has no sliding layers and ignores such keys */
    bool use = a->family == FAMILY_GEMMA3;
    int64_t window = 0, first = 0, pattern = 0;
    if (!use)
        TRY(json_get_bool(p->root, p->name, "use_sliding_window", true, false, &use, err));
    if (use)
        TRY(json_get_int(p->root, p->name, "sliding_window", 1, 1 << 30, true, 4096, &window, err));
    TRY(json_get_int(p->root, p->name, "max_window_layers", 0, 1 << 20, true, 28, &first, err));
    TRY(json_get_int(p->root, p->name, "sliding_window_pattern", 1, 1 << 20, true, 6, &pattern, err));
    const json_t *types = json_object_get(p->root, "layer_types");
    if (types && !json_is_null(types) &&
        (!json_is_array(types) || json_array_size(types) != (size_t)a->n_layers))
        return err_set(err, ST_INPUT, "%s: layer_types is not a list of %d names", p->name, a->n_layers);
    for (int i = 0; i < a->n_layers; i++) {
        if (types && !json_is_null(types)) {
            const char *t = json_string_value(json_array_get(types, (size_t)i));
            if (!t || (strcmp(t, "full_attention") && strcmp(t, "sliding_attention")))
                return err_set(err, ST_INPUT, "%s: layer_types[%d] '%.40s' is not supported", p->name, i,
                               t ? t : "(no text)");
            a->sliding[i] = strcmp(t, "sliding_attention") == 0;
        } else if (a->family == FAMILY_GEMMA3) {
            a->sliding[i] = (i + 1) % pattern != 0;
        } else {
            a->sliding[i] = use && i >= first;
        }
        if (a->sliding[i] && !window)
            return err_set(err, ST_INPUT,
                           "%s: layer_types[%d] is sliding_attention but use_sliding_window is false",
                           p->name, i);
    }
    a->window = (int32_t)window;
    return ST_OK;
}

static enum status parse_activation(struct parser *p, struct err *err)
{
    const char *key = p->a->family == FAMILY_GEMMA3 ? "hidden_activation" : "hidden_act", *act;
    TRY(json_get_string(p->root, p->name, key, true,
                        p->a->family == FAMILY_GEMMA3 ? "gelu_pytorch_tanh" : "silu", &act, err));
    if (strcmp(act, "silu") == 0 || strcmp(act, "swish") == 0)
        p->a->act = ACT_SILU;
    else if (strcmp(act, "gelu_pytorch_tanh") == 0)
        p->a->act = ACT_GELU_TANH;
    else
        return err_set(err, ST_INPUT, "%s: %s '%.40s' is not supported (silu and gelu_pytorch_tanh are)",
                       p->name, key, act);
    return ST_OK;
}

/* Fields that enter the mathematics in transformers and that this program does not compute. */
static enum status refuse_unsupported(struct parser *p, struct err *err)
{
    static const char *const must_be_false[] = {"attention_bias", "mlp_bias", "use_bidirectional_attention",
                                                "add_cross_attention", "is_encoder_decoder"};
    static const char *const must_be_absent[] = {"attn_logit_softcapping", "final_logit_softcapping",
                                                 "quantization_config",    "num_experts",
                                                 "num_local_experts",      "logit_scale",
                                                 "residual_multiplier",    "embedding_multiplier"};
    static const char *const must_be_zero[] = {"attention_dropout", "hidden_dropout", "embd_pdrop",
                                               "resid_pdrop"};
    for (size_t i = 0; i < sizeof must_be_false / sizeof *must_be_false; i++) {
        bool v;
        TRY(json_get_bool(p->root, p->name, must_be_false[i], true, false, &v, err));
        if (v)
            return err_set(err, ST_INPUT, "%s: %s true is not supported", p->name, must_be_false[i]);
    }
    for (size_t i = 0; i < sizeof must_be_absent / sizeof *must_be_absent; i++)
        if (is_set(p->root, must_be_absent[i]))
            return err_set(err, ST_INPUT, "%s: %s is not supported", p->name, must_be_absent[i]);
    for (size_t i = 0; i < sizeof must_be_zero / sizeof *must_be_zero; i++) {
        double v;
        TRY(json_get_double(p->root, p->name, must_be_zero[i], true, 0, &v, err));
        if (v != 0)
            return err_set(err, ST_INPUT, "%s: %s %g is not supported, only 0", p->name, must_be_zero[i], v);
    }
    return ST_OK;
}

static enum status parse_token_ids(struct parser *p, struct err *err)
{
    struct arch *a = p->a;
    const json_t *eos = json_object_get(p->root, "eos_token_id"),
                 *pad = json_object_get(p->root, "pad_token_id");
    size_t n = json_is_array(eos) ? json_array_size(eos) : json_is_integer(eos) ? 1 : 0;
    for (size_t i = 0; i < n && a->n_eos_ids < 8; i++) {
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < (1 << 24))
            a->eos_ids[a->n_eos_ids++] = (int32_t)json_integer_value(v);
    }
    int64_t id = a->family == FAMILY_GEMMA3 && !pad ? 0 : -1; /* Gemma's class pads with 0 */
    if (json_is_integer(pad))
        id = json_integer_value(pad);
    if (id >= (1 << 24))
        return err_set(err, ST_INPUT, "%s: pad_token_id is out of range", p->name);
    a->pad_id = id < 0 ? -1 : (int32_t)id;
    return ST_OK;
}

static enum status parse_all(struct parser *p, struct err *err)
{
    struct arch *a = p->a;
    TRY(parse_family(p, err));
    TRY(parse_sizes(p, err));
    double eps, query_scalar;
    TRY(json_get_double(p->root, p->name, "rms_norm_eps", true, 1e-6, &eps, err));
    if (!(eps >= 0) || !isfinite(eps))
        return err_set(err, ST_INPUT, "%s: rms_norm_eps %g is not a small positive number", p->name, eps);
    a->rms_eps = (float)eps;
    TRY(json_get_bool(p->root, p->name, "tie_word_embeddings", true, defaults[a->family].tied, &a->tied,
                      err));
    bool gemma = a->family == FAMILY_GEMMA3;
    a->qk_norm = gemma || a->family == FAMILY_QWEN3;
    a->sandwich = gemma;
    a->norm_offset = gemma ? 1 : 0;
    a->embed_scale = gemma ? sqrtf((float)a->hidden) : 1;
    TRY(json_get_double(p->root, p->name, "query_pre_attn_scalar", true, 256, &query_scalar, err));
    if (gemma && !(query_scalar > 0 && isfinite(query_scalar)))
        return err_set(err, ST_INPUT, "%s: query_pre_attn_scalar %g is not positive", p->name, query_scalar);
    a->attn_scale = (float)pow(gemma ? query_scalar : a->head_dim, -0.5);
    TRY(parse_rope(p, err));
    TRY(parse_layers(p, err));
    TRY(parse_activation(p, err));
    TRY(refuse_unsupported(p, err));
    return parse_token_ids(p, err);
}

enum status arch_parse(struct arch *a, const char *json, size_t n_bytes, const char *name, struct err *err)
{
    json_t *root = NULL;
    memset(a, 0, sizeof *a);
    TRY(json_read_text(&root, json, n_bytes, name, err));
    struct parser p = {.root = root, .name = name, .a = a};
    enum status st =
        json_is_object(root) ? parse_all(&p, err) : err_set(err, ST_INPUT, "%s: not a JSON object", name);
    json_decref(root);
    return st;
}

static const struct {
    const char *path, *name;
} proj_names[N_PROJ] = {
    [PROJ_Q] = {"self_attn.q_proj", "q_proj"},    [PROJ_K] = {"self_attn.k_proj", "k_proj"},
    [PROJ_V] = {"self_attn.v_proj", "v_proj"},    [PROJ_O] = {"self_attn.o_proj", "o_proj"},
    [PROJ_GATE] = {"mlp.gate_proj", "gate_proj"}, [PROJ_UP] = {"mlp.up_proj", "up_proj"},
    [PROJ_DOWN] = {"mlp.down_proj", "down_proj"},
};

const char *proj_path(enum proj p)
{
    return proj_names[p].path;
}

const char *proj_name(enum proj p)
{
    return proj_names[p].name;
}

void proj_shape(const struct arch *a, enum proj p, int64_t *n_out, int64_t *n_in)
{
    int64_t q = (int64_t)a->n_q_heads * a->head_dim, kv = (int64_t)a->n_kv_heads * a->head_dim;
    switch (p) {
    case PROJ_Q:
        *n_out = q, *n_in = a->hidden;
        break;
    case PROJ_K:
    case PROJ_V:
        *n_out = kv, *n_in = a->hidden;
        break;
    case PROJ_O:
        *n_out = a->hidden, *n_in = q;
        break;
    case PROJ_GATE:
    case PROJ_UP:
        *n_out = a->mlp, *n_in = a->hidden;
        break;
    default:
        *n_out = a->hidden, *n_in = a->mlp;
    }
}
