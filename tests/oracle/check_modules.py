#!/usr/bin/env python3
"""Checkpoints whose new rows stand in whole matrices (modules_to_save), and 8-bit moments: the program goes on from
Trainer's.

    check_modules.py --program smgpt-dist [--only NAME]... [--optim NAME] [--json FILE]

PEFT trains LoRA and copies of embed_tokens and lm_head; a hook keeps the gradient of all rows but the new ones at zero, as
SignMotionGPT does. Trainer saves halfway and goes on; the program reads that checkpoint and takes the same steps.
"""
import argparse
import os
import random
import sys
import tempfile

from check_checkpoint import steps_apart, train_ours
from make_cases import make_rows
from program import Findings, Program
from reference import *
from specs import CHOSEN, TRAIN

STEPS = 20
# name of the base's case, optimizer, one matrix for both ends, limit on the loss
CASES = [("qwen3_gqa5_grown", "adamw_torch", False, 2e-6), ("qwen3_gqa5_grown", "adamw_torch", True, 2e-6),
         ("qwen3_mha_untied_padded", "adamw_torch_fused", False, 2e-6),
         ("llama_odd_sizes", "adamw_torch", False, 2e-6), ("llama_new_names_untied", "adamw_torch", False, 2e-6),
         ("gemma3_rows_apart_partly", "adamw_torch", False, 2e-6), ("gemma3_rows_apart_partly", "adamw_torch", True, 2e-6),
         # 8-bit states are quantized again after each step there, and stay float32 here: the curves part. There a zero
         # next to other values of its block does not stay one, so rows must begin where blocks do (hidden 256).
         ("qwen3_gqa5_grown", "adamw_8bit", False, 1e-5), ("gemma3_rows_apart_partly", "adamw_8bit", False, 1e-5)]


def mask_rows(model, first, end):
    def mask(grad):
        kept = torch.zeros_like(grad)
        kept[first:end] = grad[first:end]
        return kept
    for name, p in model.named_parameters():
        if p.requires_grad and "modules_to_save" in name:
            p.register_hook(mask)


def adapted(spec, base, vocab, tying):
    torch.manual_seed(spec["seed"])
    model = peft.get_peft_model(open_base(base, vocab), peft.LoraConfig(
        r=spec["r"], lora_alpha=spec["alpha"], target_modules=spec.get("targets", PROJECTIONS), task_type="CAUSAL_LM",
        modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=tying))
    with torch.no_grad():
        for name, p in trained(model):
            if "lora_B" in name:
                p.normal_(0, 0.05)
    mask_rows(model, spec["base_vocab"], vocab)
    return model


def check(program, found, spec, optim, tying, limit, tmp):
    os.chdir(tmp)
    vocab, draw = spec["base_vocab"] + spec["n_new"], random.Random(spec["seed"])
    t = TRAIN | {"max_steps": STEPS, "weight_decay": 0.0, "optim": optim}
    if optim == "adamw_8bit":
        spec = spec | {"config": spec["config"] | {"hidden_size": 256}}
    name = f"{spec['name']} {optim}{' tied' if tying else ''}"
    make_base({k: v for k, v in spec.items() if k != "stored"}, "model")
    write_pack("pack.h5", {"train": make_rows(spec, draw, 101), "eval": make_rows(spec, draw, 9)}, spec["base_vocab"], vocab)
    model = adapted(spec, "model", vocab, tying)
    model.save_pretrained("init_adapter")
    theirs, _ = train(model, "pack.h5", "train", t, save_steps=STEPS // 2)
    # PEFT's last checkpoint, opened there and here.
    rows = read_pack("pack.h5", "eval")
    last = f"train/checkpoint-{STEPS}"
    peft_rows = forward(model, rows, 0, gradients=False)[1]["rows"]
    mine = program.run_json("loss", "--model_path", last, "--pack", "pack.h5", "--group", "eval")["rows"]
    found.number(name, "losses of PEFT's checkpoint", max(abs(x["loss_sum"] - y["loss_sum"]) / y["loss_sum"]
                 for x, y in zip(mine, peft_rows) if y["n_labels"]), 5e-6)
    apart = not tying or not model.config.tie_word_embeddings
    options = {"model": "model", "pack": "pack.h5", "init_adapter": "init_adapter", "work_dir": "work", "out_s1": "work/run",
               "batch_train": t["batch"], "grad_accum": t["ga"], "lr": t["lr"], "weight_decay": 0, "max_steps": STEPS,
               "max_grad_norm": t["max_grad_norm"], "schedule": t["schedule"], "warmup_ratio": t["warmup_ratio"],
               "seed": t["seed"], "save_steps": STEPS, "eval_steps": 0, "compute": "float32",
               "new_rows": "untied" if apart else "tied"}
    if optim != "adamw_8bit":
        whole = train_ours(program, options | {"out_s1": "work/whole"})
        found.number(name, "from its adapter", steps_apart(whole, theirs)[0], limit)
    ours = train_ours(program, options, "--resume", f"train/checkpoint-{STEPS // 2}")
    loss, rate = steps_apart([r for r in ours if r["step"] > STEPS // 2], theirs[STEPS // 2:])
    found.number(name, "we go on from Trainer's checkpoint", loss, limit)
    found.number(name, "  its learning rates", rate, 0)
    if optim == "adamw_8bit":
        options["checkpoint_optim"], limit = "adamw_8bit", 2e-6 # 32-bit moments stay such
    check_way_back(program, found, name, spec, options, t, vocab, limit)


def same_bytes(a, b):
    with open(a, "rb") as f, open(b, "rb") as g:
        return f.read() == g.read()


def check_way_back(program, found, name, spec, options, t, vocab, limit):
    """We write whole matrices: Trainer goes on from our halfway checkpoint, PEFT opens our last one, and so do we."""
    options = options | {"checkpoint_layout": "modules_to_save", "save_steps": STEPS // 2, "keep_checkpoints": 9}
    ours = train_ours(program, options | {"out_s1": "work/layout"})
    middle, last = f"work/layout/checkpoint-{STEPS // 2}", f"work/layout/checkpoint-{STEPS}"
    model = open_adapted("model", middle, vocab, trainable=True)
    mask_rows(model, spec["base_vocab"], vocab)
    theirs, _ = train(model, "pack.h5", "theirs", t, resume=middle)
    found.number(name, "Trainer goes on from our whole matrices", steps_apart(ours[STEPS // 2:], theirs)[0], limit)
    rows = read_pack("pack.h5", "eval")
    peft_rows = forward(open_adapted("model", last, vocab), rows, 0, gradients=False)[1]["rows"]
    mine = program.run_json("loss", "--model_path", last, "--pack", "pack.h5", "--group", "eval")["rows"]
    found.number(name, "PEFT's losses of our whole matrices", max(abs(x["loss_sum"] - y["loss_sum"]) / y["loss_sum"]
                 for x, y in zip(mine, peft_rows) if y["n_labels"]), 5e-6)
    train_ours(program, options | {"out_s1": "work/again"}, "--resume", middle)
    found.fact(name, "our own resume has the same bytes", all(
        same_bytes(f"{last}/{f}", f"work/again/checkpoint-{STEPS}/{f}") for f in ("adapter_model.safetensors", "optimizer.pt")))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--program", required=True)
    p.add_argument("--only", action="append", default=[])
    p.add_argument("--optim", help="only cases of that optimizer")
    p.add_argument("--json")
    a = p.parse_args()
    program, found, specs = Program(a.program), Findings(), {s["name"]: s for s in CHOSEN}
    for name, optim, tying, limit in CASES:
        if (not a.only or name in a.only) and a.optim in (None, optim):
            with tempfile.TemporaryDirectory() as tmp:
                check(program, found, specs[name], optim, tying, limit, tmp)
    os.chdir("/")
    return found.end(a.json)


if __name__ == "__main__":
    sys.exit(main())
