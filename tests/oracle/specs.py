"""What to compare: chosen cases that together touch every branch, and random ones from a seed.

A spec: family, seed, config (of the library's configuration class), base_vocab and n_new (the trained ids), r, alpha and
optional: targets, rslora, rows ("untied": the head's new rows trained apart), stored (type of the weights), shard_size,
v5 and config_edit (spellings of config.json), n_rows, max_tokens, labels ("all": everything but the first token), train.
"""
import random

TRAIN = {"batch": 4, "ga": 2, "lr": 1e-3, "weight_decay": 0.01, "max_grad_norm": 1.0, "betas": [0.9, 0.999],
         "eps": 1e-8, "schedule": "cosine", "warmup_ratio": 0.1, "seed": 42, "shuffle": True, "optim": "adamw_torch",
         "max_steps": 24}
COMMON = {"bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 512, "rms_norm_eps": 1e-6}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


def shape(vocab, hidden, mlp, layers, heads, kv_heads, head_dim, tied, **more):
    c = {"vocab_size": vocab, "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers,
         "num_attention_heads": heads, "num_key_value_heads": kv_heads, "tie_word_embeddings": tied} | COMMON | more
    if head_dim:
        c["head_dim"] = head_dim
    return c


def case(name, family, config, base_vocab, n_new, r=4, alpha=8, train=None, **more):
    if family == "gemma3_text":
        config = {"pad_token_id": 0, "rope_theta": 1e6, "rope_local_base_freq": 1e4} | config
    return {"name": name, "family": family, "config": config, "base_vocab": base_vocab, "n_new": n_new, "r": r,
            "alpha": alpha, "train": TRAIN | (train or {}), **more}


def epochs(n, **more):
    return {"max_steps": None, "epochs": n} | more


CHOSEN = [
    case("qwen3_gqa5_grown", "qwen3", shape(277, 50, 70, 2, 10, 2, 14, True, rope_theta=1e6), 277, 11, seed=1,
         train=epochs(2), n_rows=75),
    case("qwen3_mha_untied_padded", "qwen3", shape(300, 33, 61, 2, 3, 3, 26, False, rope_theta=1e6), 271, 8, r=5, alpha=3,
         seed=2, targets=["q_proj", "v_proj"], train={"max_grad_norm": 1000.0}),
    case("qwen3_mqa_window_9", "qwen3", shape(260, 48, 64, 3, 6, 1, 10, True, rope_theta=1e4, use_sliding_window=True,
                                               sliding_window=9, max_window_layers=1), 250, 7, seed=3),
    case("qwen3_window_wide", "qwen3", shape(260, 40, 64, 2, 4, 2, 12, True, rope_theta=1e4, use_sliding_window=True,
                                              sliding_window=200, max_window_layers=0), 260, 5, seed=4),
    case("llama_gqa3_linear_fp16", "llama", shape(290, 72, 90, 2, 9, 3, None, True, rope_theta=1e5,
                                                   rope_scaling={"rope_type": "linear", "factor": 4.0}), 290, 9, r=6,
         alpha=6, seed=5, stored="float16"),
    case("llama_rope3_partly_grown", "llama", shape(296, 64, 96, 2, 4, 2, 18, True, rope_theta=1e3, rope_scaling=LLAMA3),
         290, 16, seed=6, stored="bfloat16", shard_size="60KB"),
    case("llama_new_names_untied", "llama", shape(300, 56, 80, 2, 4, 4, 22, False, rope_theta=5e3, rope_scaling=LLAMA3),
         300, 6, seed=7, v5=True, train={"schedule": "linear", "warmup_ratio": 0.0}),
    case("llama_odd_sizes", "llama", shape(263, 30, 37, 2, 5, 5, None, True, rope_theta=1e4, rms_norm_eps=1e-5), 263, 3,
         r=1, alpha=2, seed=8, train={"batch": 3, "ga": 3, "max_grad_norm": 2.5}),
    case("gemma3_default_layers", "gemma3_text", shape(272, 44, 60, 7, 4, 1, 16, True, query_pre_attn_scalar=11,
                                                        sliding_window=5), 272, 10, seed=9,
         config_edit={"layer_types": None, "_sliding_window_pattern": None, "sliding_window_pattern": 6}),
    case("gemma3_untied_window_wide", "gemma3_text", shape(310, 52, 66, 3, 4, 2, 20, False, query_pre_attn_scalar=20,
                                                            sliding_window=150, layer_types=[
                                                                "sliding_attention", "full_attention",
                                                                "sliding_attention"]), 300, 10, seed=10),
    case("gemma3_new_names_linear", "gemma3_text", shape(280, 48, 72, 4, 6, 3, 24, True, query_pre_attn_scalar=24,
                                                          sliding_window=13, rope_scaling={"rope_type": "linear",
                                                                                           "factor": 8.0},
                                                          layer_types=["full_attention", "sliding_attention"] * 2),
         270, 15, seed=11, v5=True, stored="bfloat16", train=epochs(1.5), n_rows=90),
    case("qwen3_rows_apart", "qwen3", shape(299, 48, 80, 2, 4, 2, 16, True, rope_theta=1e6), 280, 9, seed=12,
         rows="untied", train=epochs(3, seed=7), n_rows=61),
    case("llama_rows_apart_grown", "llama", shape(281, 60, 84, 2, 6, 2, 10, True, rope_theta=1e5), 281, 8, seed=13,
         rows="untied", train={"shuffle": False}),
    case("gemma3_rows_apart_partly", "gemma3_text", shape(280, 40, 64, 2, 2, 1, 28, True, query_pre_attn_scalar=28,
                                                           sliding_window=7, layer_types=["sliding_attention",
                                                                                          "full_attention"]),
         276, 12, seed=14, rows="untied", train={"optim": "adamw_torch_fused"}),
    case("qwen3_rslora_mlp", "qwen3", shape(270, 64, 76, 2, 4, 2, 32, True, rope_theta=1e6), 264, 4, r=5, alpha=3, seed=15,
         rslora=True, targets=["gate_proj", "up_proj", "down_proj"],
         train={"schedule": "constant_with_warmup", "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1}),
    case("llama_no_new_rows", "llama", shape(288, 64, 88, 2, 8, 1, 8, True, rope_theta=1e4), 288, 0, r=8, alpha=16,
         seed=16, train=epochs(4, seed=1234, schedule="constant"), n_rows=41),
    case("qwen3_all_labels", "qwen3", shape(290, 56, 64, 2, 4, 2, 14, False, rope_theta=1e6), 290, 12, seed=17,
         labels="all", train={"batch": 1, "ga": 7, "weight_decay": 0.0, "max_grad_norm": 0.5}),
    case("llama_long_rows", "llama", shape(264, 32, 48, 2, 4, 1, 8, True, rope_theta=1e4), 260, 4, seed=18,
         max_tokens=400, n_rows=24, train=epochs(2, batch=2, ga=4)),
]


def random_case(seed):
    """Every choice from one generator: equal seeds, equal cases."""
    d = random.Random(seed)
    family = d.choice(["qwen3", "llama", "gemma3_text"])
    kv_heads, ratio, layers = d.choice([1, 1, 2, 3]), d.choice([1, 2, 3, 5]), d.randint(1, 4)
    heads, hidden, spare = kv_heads * ratio, d.randint(24, 72), d.choice([0, 0, 3, 30])
    base_vocab, n_new = d.randint(256, 330), d.choice([0, 1, 2, 7, 16])
    head_dim = 2 * d.randint(3, 18)
    if family == "llama" and d.random() < 0.4:
        hidden, head_dim = heads * head_dim, None
    tied = d.random() < 0.6
    more = {"rope_theta": d.choice([1e3, 1e4, 5e5, 1e6]), "rms_norm_eps": d.choice([1e-6, 1e-5])}
    if d.random() < 0.4:
        more["rope_scaling"] = d.choice([{"rope_type": "linear", "factor": 2.5}, LLAMA3])
    if family == "gemma3_text":
        more |= {"query_pre_attn_scalar": d.randint(4, 40), "sliding_window": d.choice([1, 4, 30, 512]),
                 "layer_types": [d.choice(["sliding_attention", "full_attention"]) for _ in range(layers)],
                 "rope_local_base_freq": d.choice([1e3, 1e4])}
    elif family == "qwen3" and d.random() < 0.5:
        more |= {"use_sliding_window": True, "sliding_window": d.choice([1, 6, 300]),
                 "max_window_layers": d.randint(0, layers)}
    t = {"batch": d.randint(1, 5), "ga": d.randint(1, 4), "lr": d.choice([3e-4, 1e-3]), "shuffle": d.random() < 0.7,
         "weight_decay": d.choice([0.0, 0.05]), "max_grad_norm": d.choice([0.3, 1.0, 5.0]), "seed": d.randint(0, 99999),
         "schedule": d.choice(["cosine", "linear", "constant_with_warmup"]), "warmup_ratio": d.choice([0.0, 0.07, 0.3]),
         "optim": d.choice(["adamw_torch", "adamw_torch_fused"])}
    spec = case(f"random_{seed}", family,
                shape(base_vocab + spare, hidden, d.randint(20, 90), layers, heads, kv_heads, head_dim, tied, **more),
                base_vocab, n_new, r=d.randint(1, 9), alpha=d.choice([1, 4, 8, 16]), seed=seed,
                train=t | (epochs(d.choice([1, 1.3, 2, 3])) if d.random() < 0.5 else {}), n_rows=d.randint(20, 60))
    if tied and n_new > 1 and d.random() < 0.4:
        spec["rows"] = "untied"
    if d.random() < 0.5:
        spec["targets"] = d.sample(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                                   d.randint(1, 6))
    spec |= {"rslora": d.random() < 0.3, "stored": d.choice(["float32", "bfloat16", "float16"]), "v5": d.random() < 0.4}
    return spec
