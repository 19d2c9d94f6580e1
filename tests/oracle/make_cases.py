#!/usr/bin/env python3
"""Records what transformers, PEFT and Trainer compute for tiny random models, for `smgpt-dist verify --against`.

    make_cases.py --out DIR [--only NAME]... [--random N] [--seed FIRST] [--no-chosen]

Each case becomes DIR/NAME/: model/, pack.h5, init_adapter/, forward_ids.json, forward.json, forward.safetensors,
forward.grads.safetensors, train.jsonl, train_totals.json, train/checkpoint-N, eval.json, generate.json, noise.json,
spec.json. docs/fidelity.md says what they hold. A case that is there already is left as it is.
"""
import argparse
import math
import os
import random
import shutil
import sys
import traceback

from reference import *
from specs import CHOSEN, random_case


def make_rows(spec, draw, n):
    """Conversations: shared beginnings of several lengths, labels on the answers, and the odd ones: no label at all, two
    tokens, one token."""
    vocab, longest = spec["base_vocab"] + spec["n_new"], spec.get("max_tokens", 90)
    some = lambda k: [draw.randrange(3, vocab) for _ in range(k)]
    bare = spec["train"]["batch"] * spec["train"]["ga"] >= 6  # Trainer's loss of a step without any label is NaN
    beginnings = [some(draw.randint(3, longest // 2)) for _ in range(3)]
    rows = []
    for i in range(n):
        ids, labels = (list(draw.choice(beginnings)) if draw.random() < 0.6 else some(1)), []
        labels += [-100] * len(ids)
        for _ in range(draw.randint(1, 3)):
            question, answer = some(draw.randint(0, 9)), some(draw.randint(1, max(2, longest // 4)))
            ids += question + answer
            labels += [-100] * len(question) + answer
        if spec.get("labels") == "all":
            labels = [-100] + ids[1:]
        if i % 13 == 5 and bare:
            labels = [-100] * len(ids)
        if i % 17 == 3:
            ids, labels = ids[-2:], [-100, ids[-1]]
        if i % 29 == 7 and bare:
            ids, labels = ids[:1], [-100]
        rows.append((ids[:longest], labels[:longest]))
    return rows


def step_rows(spec, path):
    """Rows of the file's beginning, as many as a step takes."""
    t = spec["train"]
    return read_pack(path, "train")[:t["batch"] * t["ga"]]


def record_forward(spec, vocab):
    rows = step_rows(spec, "pack.h5")
    write_json({"vocab_size": vocab, "input_ids": [r[0] for r in rows], "labels": [r[1] for r in rows]},
               "forward_ids.json")
    logits, report, grads = forward(open_adapted("model", "init_adapter", vocab, trainable=True), rows)
    exact_logits, exact_report, exact_grads = forward(
        open_adapted("model", "init_adapter", vocab, exact=True, trainable=True), rows)
    save_file(logits, "forward.safetensors")
    save_file(grads, "forward.grads.safetensors")
    write_json(report, "forward.json")
    return {"logits": dict(zip(("abs_max", "over_max_value"), largest_difference(logits, exact_logits))),
            "grads": dict(zip(("abs_max", "over_max_value"), largest_difference(grads, exact_grads))),
            "rows": {"rel_max": rows_apart(report, exact_report)}}


def run_again(t, vocab, exact=False, nudge=None):
    """The run in float64, or from values that are moved by half of their last bit: (steps, final values)."""
    model = open_adapted("model", "init_adapter", vocab, exact=exact, trainable=True)
    if nudge is not None:
        draw = torch.Generator().manual_seed(nudge)
        with torch.no_grad():
            for _, p in trained(model):
                p.mul_(1 + 6e-8 * torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p.dtype))
    steps, _ = train(model, "pack.h5", "scratch", t)
    shutil.rmtree("scratch", ignore_errors=True)
    return steps, {k: v.detach() for k, v in trained(model)}


def record_training(spec, vocab):
    """Trainer's run, saved halfway and at its end. Its noise is the largest difference to the same run in float64 and to
    two that begin a last bit away: some runs blow up what rounding does."""
    t = {k: v for k, v in spec["train"].items() if v is not None}
    per_epoch = -(-len(read_pack("pack.h5", "train")) // (t["batch"] * t["ga"]))
    n_steps = t.get("max_steps") or -int(-t["epochs"] * per_epoch // 1)
    model = open_adapted("model", "init_adapter", vocab, trainable=True)
    steps, trainer = train(model, "pack.h5", "train", t, save_steps=max(1, n_steps // 2))
    assert len(steps) == n_steps == trainer.state.global_step, (len(steps), n_steps)
    assert all(math.isfinite(x["loss"]) for x in steps), "a step without labels"
    write_lines(steps, "train.jsonl")
    write_json({"steps": n_steps, "options": t}, "train_totals.json")
    end, noise = {k: v.detach() for k, v in trained(model)}, {}
    for other in ({"exact": True}, {"nudge": 1}, {"nudge": 2}):
        other_steps, other_end = run_again(t, vocab, **other)
        found = {"final_param_abs_max": largest_difference(end, other_end)[0]}
        for key in ("loss", "grad_norm"):
            found[key + "_rel_max"] = max(relative(x[key], y[key]) for x, y in zip(steps, other_steps))
        noise = {k: max(v, noise.get(k, 0)) for k, v in found.items()}
    return n_steps, noise


def record_greedy(model, spec, vocab, draw):
    """Prompts whose continuation does not hang on the last bits."""
    cases, smallest = [], None
    for length in (1, 4, 16, 31, 70):
        for _ in range(20):
            prompt = [draw.randrange(3, vocab) for _ in range(length)]
            tokens, margin = greedy(model, prompt, 32)
            if tokens and margin > 1e-3:
                cases.append({"prompt": prompt, "tokens": tokens})
                smallest = min(smallest or margin, margin)
                break
    write_json({"cases": cases}, "generate.json")
    return smallest


def make(spec):
    """Everything of one case, in the current directory."""
    draw, vocab = random.Random(spec["seed"]), spec["base_vocab"] + spec["n_new"]
    write_json(spec, "spec.json")
    make_base(spec, "model")
    write_pack("pack.h5", {"train": make_rows(spec, draw, spec.get("n_rows", 101)), "eval": make_rows(spec, draw, 19)},
               spec["base_vocab"], vocab)
    make_adapter(spec, "model", "init_adapter")
    noise = {"forward_vs_f64": record_forward(spec, vocab)}
    n_steps, noise["train_vs_float64"] = record_training(spec, vocab)
    checkpoint, rows = f"train/checkpoint-{n_steps}", read_pack("pack.h5", "eval")
    final, exact = open_adapted("model", checkpoint, vocab), open_adapted("model", checkpoint, vocab, exact=True)
    report = forward(final, rows, 0, gradients=False)[1]
    write_json(report, "eval.json")
    noise["eval_vs_f64"] = {"rel_max": rows_apart(report, forward(exact, rows, 0, gradients=False)[1])}
    noise["generate_min_margin"] = record_greedy(final, spec, vocab, draw)
    write_json(noise, "noise.json")
    write_json(versions(), "versions.json")
    edit_config(spec, "model")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", required=True)
    p.add_argument("--only", action="append", default=[])
    p.add_argument("--random", type=int, default=0, help="so many random cases")
    p.add_argument("--seed", type=int, default=1000, help="of the first random case")
    p.add_argument("--no-chosen", action="store_true")
    a = p.parse_args()
    specs = ([] if a.no_chosen else CHOSEN) + [random_case(a.seed + i) for i in range(a.random)]
    names = {s["name"] for s in specs}
    for name in a.only:
        if name not in names:
            p.error(f"there is no case {name}; there are {' '.join(sorted(names))}")
    os.makedirs(a.out, exist_ok=True)
    top, failed = os.path.abspath(a.out), 0
    for spec in specs:
        place = os.path.join(top, spec["name"])
        if (a.only and spec["name"] not in a.only) or os.path.exists(place):
            continue
        os.makedirs(place + ".part")
        os.chdir(place + ".part")
        try:
            make(spec)
            os.rename(place + ".part", place)
            print(spec["name"], "made", flush=True)
        except Exception:
            traceback.print_exc()
            print(spec["name"], "FAILED", flush=True)
            failed += 1
        finally:
            os.chdir(top)
            shutil.rmtree(place + ".part", ignore_errors=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
