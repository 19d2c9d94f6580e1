#!/usr/bin/env python3
"""Checkpoints across the border, both ways.

    check_checkpoint.py --program smgpt-dist --cases DIR [--only NAME]... [--json FILE]

Of each case that make_cases.py recorded: the program trains it; PEFT opens the program's last checkpoint and has the
program's losses; Trainer goes on from the program's halfway checkpoint and takes the same steps; the program goes on from
Trainer's halfway checkpoint and takes Trainer's steps.
"""
import argparse
import os
import shutil
import sys
import tempfile

from program import Findings, Program, cases_in
from reference import *


def settings(case, work, steps):
    """The case's settings as options of the program; half the steps between two saves."""
    t = read_json(case, "train_totals.json")["options"]
    spec = read_json(case, "spec.json")
    length = {"epochs_s1": t["epochs"]} if "epochs" in t else {"max_steps": t["max_steps"]}
    return t, {"model": os.path.join(case, "model"), "pack": os.path.join(case, "pack.h5"),
               "init_adapter": os.path.join(case, "init_adapter"), "work_dir": work, "out_s1": os.path.join(work, "run"),
               "batch_train": t["batch"], "grad_accum": t["ga"], "lr": t["lr"], "weight_decay": t["weight_decay"],
               "max_grad_norm": t["max_grad_norm"], "adam_beta1": t["betas"][0], "adam_beta2": t["betas"][1],
               "adam_epsilon": t["eps"], "schedule": t["schedule"], "warmup_ratio": t["warmup_ratio"],
               "seed": t["seed"], "shuffle": t["shuffle"], "new_rows": spec.get("rows", "auto"),
               "save_steps": max(1, steps // 2), "keep_checkpoints": 10, "eval_steps": 0, "compute": "float32", **length}


def train_ours(program, options, *more):
    sets = []
    for key, value in options.items():
        sets += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    program.run("train", "--stage", 1, *sets, *more)
    return [r for r in read_lines(options["out_s1"], "train_log.jsonl") if "loss" in r]


def steps_apart(ours, theirs):
    assert [x["step"] for x in ours] == [y["step"] for y in theirs], (len(ours), len(theirs))
    return (max(abs(x["loss"] - y["loss"]) / y["loss"] for x, y in zip(ours, theirs)),
            max(abs(x["learning_rate"] - y["learning_rate"]) for x, y in zip(ours, theirs)))


def check(program, found, name, case, tmp):
    record, noise = read_lines(case, "train.jsonl"), read_json(case, "noise.json")["train_vs_float64"]
    base, vocab = readable_model(os.path.join(case, "model"), os.path.join(tmp, "base")), pack_vocab(
        os.path.join(case, "pack.h5"))[1]
    n, limit = len(record), max(1e-6, 5 * noise["loss_rel_max"])
    t, options = settings(case, tmp, n)
    ours, half = train_ours(program, options), max(1, n // 2)
    found.number(name, "our steps and Trainer's", steps_apart(ours, record)[0], limit)

    # PEFT opens what we wrote.
    last = os.path.join(options["out_s1"], f"checkpoint-{n}")
    model = open_adapted(base, last, vocab, trainable=True)
    first = open_adapted(base, os.path.join(case, "init_adapter"), vocab, trainable=True)
    found.fact(name, "PEFT trains the same tensors", {k: v.shape for k, v in trained(model)} ==
               {k: v.shape for k, v in trained(first)})
    rows = read_pack(options["pack"], "eval")
    theirs = forward(model, rows, 0, gradients=False)[1]
    mine = program.run_json("loss", "--model_path", last, "--pack", options["pack"], "--group", "eval")
    found.number(name, "PEFT's losses of our checkpoint", max(
        abs(x["loss_sum"] - y["loss_sum"]) / y["loss_sum"] for x, y in zip(mine["rows"], theirs["rows"]) if y["n_labels"]),
        5e-6)

    # Trainer goes on from ours, we from Trainer's.
    middle = os.path.join(options["out_s1"], f"checkpoint-{half}")
    if half < n:
        model = open_adapted(base, middle, vocab, trainable=True)
        steps, _ = train(model, options["pack"], os.path.join(tmp, "theirs"), t, resume=middle)
        found.number(name, "Trainer goes on from our checkpoint", steps_apart(ours[half:], steps)[0], limit)
        shutil.rmtree(options["out_s1"])
        again = train_ours(program, options, "--resume", os.path.join(case, "train", f"checkpoint-{half}"))
        again = [r for r in again if r["step"] > half]
        loss, rate = steps_apart(again, record[half:])
        found.number(name, "we go on from Trainer's checkpoint", loss, limit)
        found.number(name, "  its learning rates", rate, 0)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--program", required=True)
    p.add_argument("--cases", required=True)
    p.add_argument("--only", action="append", default=[])
    p.add_argument("--json")
    a = p.parse_args()
    program, found = Program(a.program), Findings()
    for name, case in cases_in(a.cases, "spec.json"):
        if not a.only or name in a.only:
            with tempfile.TemporaryDirectory() as tmp:
                check(program, found, name, case, tmp)
    return found.end(a.json)


if __name__ == "__main__":
    sys.exit(main())
