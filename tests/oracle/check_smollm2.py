#!/usr/bin/env python3
"""A real model: SmolLM2-135M, or any model directory with a tokenizer of a supported family.

    check_smollm2.py --program smgpt-dist --model DIR [--json FILE]

Token ids of English paragraphs, their perplexity and the greedy continuation of a sentence, in float32, beside
transformers'.
"""
import argparse
import math
import os
import sys
import tempfile

from program import Findings, Program
from reference import *

TEXTS = [
    "A lighthouse keeper on a small island kept a diary for thirty-one years. Most entries were about the weather, the "
    "price of lamp oil and the ships that passed, but on the first day of every month she wrote down one thing she had "
    "learned. In 1897 it was that gulls can tell a boat's engine by its sound; in 1903, that a letter read twice is a "
    "different letter. When the light was automated, the diary went to the museum in town, where nobody opened it until "
    "a schoolboy asked why the weather in it was always so good.",
    "  Line one\n\n\tline two: 3.14159 + 42 = 45.14159; don't split \"quotes\" -- or do?\r\nNa\u00efve caf\u00e9 \u2603",
]
START = "The three most important things to know about the sea are"


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--program", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--json")
    a = p.parse_args()
    program, found, name = Program(a.program), Findings(), os.path.basename(os.path.normpath(a.model))
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    model = open_base(a.model).eval()
    theirs = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    with tempfile.TemporaryDirectory() as tmp:
        texts, pack, ids_file = (os.path.join(tmp, n) for n in ("texts.json", "pack.h5", "ids.json"))
        write_json(TEXTS, texts)
        ours = json.loads(program.run("tokenize", "--model", a.model, texts))
        found.fact(name, "token ids", ours == theirs)
        vocab = model.config.vocab_size
        write_pack(pack, {"train": [(ids, ids) for ids in theirs], "eval": [(theirs[0], theirs[0])]}, vocab, vocab)
        rows = read_pack(pack, "train")
        _, report, _ = forward(model, rows, gradients=False)
        _, exact, _ = forward(open_base(a.model, exact=True), rows, gradients=False)
        mine = program.run_json("loss", "--model_path", a.model, "--pack", pack, "--set", "compute=float32")
        for i, (x, y) in enumerate(zip(mine["rows"], report["rows"])):
            u, v = (math.exp(r["loss_sum"] / r["n_labels"]) for r in (x, y))
            print(f"{name}: paragraph {i}: {len(theirs[i])} tokens, perplexity {u:.6f}, transformers {v:.6f}")
            found.number(name, f"perplexity of paragraph {i}, relative", abs(u - v) / v, 1e-4)
            for who, r in (("ours", x), ("transformers'", y)):
                w = math.exp(exact["rows"][i]["loss_sum"] / r["n_labels"])
                found.number(name, f"  {who}, from float64", abs(math.exp(r["loss_sum"] / r["n_labels"]) - w) / w, 1e-4)
        start = tokenizer(START, add_special_tokens=False)["input_ids"]
        tokens, margin = greedy(model, start, 40)
        write_json([start], ids_file)
        for how, args in (("ids", ("--ids", ids_file)), ("text", ("--text", START))):
            out = program.run_json("complete", "--model_path", a.model, *args, "--max_new_tokens", 40, "--greedy",
                                   "--set", "compute=float32")[0]["ids"]
            found.fact(name, f"40 greedy tokens from {how}", tokens is not None and out == tokens[:len(out)] and (
                len(out) == 40 or tokens[len(out)] == model.config.eos_token_id))
        print(f"{name}: {START}{tokenizer.decode(tokens or [])!r}, smallest lead {margin:.4f}")
    return found.end(a.json)


if __name__ == "__main__":
    sys.exit(main())
