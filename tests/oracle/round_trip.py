#!/usr/bin/env python3
"""One run in three parts, each third by Trainer or by the program, compared with a run in one go.

    round_trip.py --program smgpt-dist [--only NAME]... [--json FILE]

Trainer -> program -> Trainer, program -> Trainer -> program, program -> program (equal bytes); a Trainer checkpoint whose
adapter and moments were rounded to bfloat16; the files of the program's checkpoints, what PEFT makes of them, and greedy
decoding by both.
"""
import argparse
import os
import random
import shutil
import sys
import tempfile

from check_checkpoint import steps_apart, train_ours
from make_cases import make_rows
from program import Findings, Program
from reference import *
from specs import CHOSEN

THIRD = 8
STEPS = 3 * THIRD
LIMIT = 1e-6  # of a loss; float32 runs of Trainer differ from float64 by about 1.5e-7
# Tied and grown, untied with spare rows, untied with names of transformers 5, rows apart on a tied base.
CASES = ["qwen3_gqa5_grown", "qwen3_mha_untied_padded", "llama_odd_sizes", "llama_new_names_untied",
         "gemma3_rows_apart_partly"]
STATE_KEYS = {"best_global_step", "best_metric", "best_model_checkpoint", "epoch", "eval_steps", "global_step",
              "is_hyper_param_search", "is_local_process_zero", "is_world_process_zero", "log_history", "logging_steps",
              "max_steps", "num_input_tokens_seen", "num_train_epochs", "save_steps", "stateful_callbacks", "total_flos",
              "train_batch_size", "trial_name", "trial_params"}


class Case:
    """A base, a pack and a start adapter in the current directory, and how to train them on either side."""
    def __init__(self, spec, program):
        self.spec, self.program, self.vocab = spec, program, spec["base_vocab"] + spec["n_new"]
        self.settings = {k: v for k, v in spec["train"].items() if v is not None and k != "epochs"} | {"max_steps": STEPS}
        draw = random.Random(spec["seed"])
        make_base(spec, "model")
        write_pack("pack.h5", {"train": make_rows(spec, draw, 101), "eval": make_rows(spec, draw, 9)}, spec["base_vocab"],
                   self.vocab)
        make_adapter(spec, "model", "init_adapter")
        shutil.copytree("model", "base")
        edit_config(spec, "model")

    def open(self, adapter):
        return open_adapted("base", adapter, self.vocab, trainable=True)

    def theirs(self, out, resume=None):
        """Trainer's steps, all that it makes."""
        model = self.open(resume or "init_adapter")
        return train(model, "pack.h5", out, self.settings, save_steps=THIRD, resume=resume)[0]

    def ours(self, out, resume=None, **more):
        t = self.settings
        options = {"model": os.path.abspath("model"), "pack": "pack.h5", "init_adapter": "init_adapter", "work_dir": "work",
                   "out_s1": out, "batch_train": t["batch"], "grad_accum": t["ga"], "lr": t["lr"], "max_steps": STEPS,
                   "weight_decay": t["weight_decay"], "max_grad_norm": t["max_grad_norm"], "schedule": t["schedule"],
                   "warmup_ratio": t["warmup_ratio"], "seed": t["seed"], "save_steps": THIRD, "keep_checkpoints": 9,
                   "new_rows": self.spec.get("rows", "auto"), "eval_steps": 0, "compute": "float32"} | more
        return train_ours(self.program, options, *(["--resume", resume] if resume else []))


def checkpoint(out, n_thirds):
    return f"{out}/checkpoint-{n_thirds * THIRD}"


def check_thirds(c, found, name):
    straight, own = c.theirs("theirs"), c.ours("ours")
    found.number(name, "in one go, ours and Trainer's", steps_apart(own, straight)[0], LIMIT)

    middle = c.ours("theirs-ours", resume=checkpoint("theirs", 1))[:THIRD]
    found.number(name, "Trainer -> ours", steps_apart(middle, straight[THIRD:2 * THIRD])[0], LIMIT)
    last = c.theirs("theirs-ours-theirs", resume=checkpoint("theirs-ours", 2))
    found.number(name, "Trainer -> ours -> Trainer", steps_apart(last, straight[2 * THIRD:])[0], LIMIT)

    middle = c.theirs("ours-theirs", resume=checkpoint("ours", 1))[:THIRD]
    found.number(name, "ours -> Trainer", steps_apart(middle, own[THIRD:2 * THIRD])[0], LIMIT)
    last = c.ours("ours-theirs-ours", resume=checkpoint("ours-theirs", 2))
    loss, rate = steps_apart(last, own[2 * THIRD:])
    found.number(name, "ours -> Trainer -> ours", loss, LIMIT)
    found.number(name, "  its learning rates", rate, 0)

    c.ours("ours-ours", resume=checkpoint("ours", 1))
    same = all(open(f"{checkpoint('ours', 3)}/{f}", "rb").read() == open(f"{checkpoint('ours-ours', 3)}/{f}", "rb").read()
               for f in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"))
    found.fact(name, "ours -> ours, the same bytes", same)


def round_checkpoint(place):
    """A checkpoint as somebody would keep it who has little room: adapter and moments in bfloat16. PEFT's copies of the
    base stay as they are: the program goes by the base."""
    file = f"{place}/adapter_model.safetensors"
    save_file({k: v if "base_layer" in k else v.bfloat16() for k, v in load_file(file).items()}, file,
              metadata={"format": "pt"})
    file = f"{place}/optimizer.pt"
    o = torch.load(file, weights_only=True)
    for entry in o["state"].values():
        for key in ("exp_avg", "exp_avg_sq"):
            entry[key] = entry[key].bfloat16()
    torch.save(o, file)


def check_rounded(c, found, name):
    shutil.copytree(checkpoint("theirs", 1), checkpoint("rounded", 1))
    round_checkpoint(checkpoint("rounded", 1))
    theirs = c.theirs("rounded-theirs", resume=checkpoint("rounded", 1))
    ours = c.ours("rounded-ours", resume=checkpoint("rounded", 1))
    found.number(name, "from Trainer's, rounded to bfloat16", steps_apart(ours, theirs)[0], LIMIT)


def check_files(found, name, place):
    state = read_json(place, "trainer_state.json")
    found.fact(name, "trainer_state.json has the twenty keys", set(state) == STATE_KEYS)
    found.fact(name, "no rng_state.pth, no training_args.bin",
               not [f for f in os.listdir(place) if f.startswith(("rng_state", "training_args"))])
    o, s = (torch.load(f"{place}/{f}.pt", weights_only=True) for f in ("optimizer", "scheduler"))
    found.fact(name, "torch.load(weights_only=True)", len(o["param_groups"]) == 2 and s["last_epoch"] == state["global_step"])


def losses_apart(c, model, place):
    """Largest relative difference of a row's loss: PEFT's, and the program's of the same checkpoint."""
    theirs = forward(model, read_pack("pack.h5", "eval"), 0, gradients=False)[1]["rows"]
    ours = c.program.run_json("loss", "--model_path", place, "--pack", "pack.h5", "--group", "eval")["rows"]
    return max(relative(x["loss_sum"], y["loss_sum"]) for x, y in zip(ours, theirs) if y["n_labels"])


def check_peft(c, found, name, place):
    model = c.open(place).eval()
    found.number(name, "PEFT's losses of our checkpoint", losses_apart(c, model, place), 5e-6)
    draw, prompts, wanted = random.Random(c.spec["seed"]), [], []
    for length in (2, 9, 33):
        for _ in range(10):
            prompt = [draw.randrange(3, c.vocab) for _ in range(length)]
            tokens, margin = greedy(model, prompt, 16)
            if tokens and margin > 1e-3:
                prompts.append(prompt)
                wanted.append(tokens)
                break
    write_json(prompts, "prompts.json")
    got = c.program.run_json("complete", "--model_path", place, "--ids", "prompts.json", "--greedy", "--max_new_tokens", 16)
    found.fact(name, f"the same greedy tokens for {len(prompts)} prompts", prompts and [x["ids"] for x in got] == wanted)


def check_save_dtype(c, found, name):
    c.ours("half", save_dtype="bfloat16")
    place = checkpoint("half", 3)
    kinds = {v.dtype for v in load_file(f"{place}/adapter_model.safetensors").values()}
    found.fact(name, "save_dtype=bfloat16 is bfloat16", kinds == {torch.bfloat16})
    found.number(name, "PEFT's losses of it", losses_apart(c, c.open(place), place), 5e-6)


def check(program, found, spec, tmp):
    os.chdir(tmp)
    name, c = spec["name"], Case(spec, program)
    check_thirds(c, found, name)
    check_rounded(c, found, name)
    check_files(found, name, checkpoint("ours", 2))
    check_peft(c, found, name, checkpoint("ours", 3))
    check_save_dtype(c, found, name)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--program", required=True)
    p.add_argument("--only", action="append", default=[])
    p.add_argument("--json")
    a = p.parse_args()
    program, found, specs = Program(a.program), Findings(), {s["name"]: s for s in CHOSEN}
    if a.json:
        a.json = os.path.abspath(a.json)
    for name in a.only or CASES:
        with tempfile.TemporaryDirectory() as tmp:
            check(program, found, specs[name], tmp)
            os.chdir("/")
    return found.end(a.json)


if __name__ == "__main__":
    sys.exit(main())
