#!/usr/bin/env python3
"""Merged models of `smgpt-dist export`, opened by transformers as plain models.

    check_export.py --program smgpt-dist --cases DIR [--only NAME]... [--json FILE]

Of each case that make_cases.py (or anything with its layout) recorded, the trained adapter is merged. Then: the logits of
the merged model are the adapted model's; the program's own logits of the merged directory are transformers'; a base
that ties its head gives a merged model that ties it, unless its rows were trained apart.
"""
import argparse
import os
import sys
import tempfile

from program import Findings, Program, cases_in
from reference import *


def trained_rows_apart(case):
    rows = read_json(case, "init_adapter", "adapter_config.json").get("trainable_token_indices") or {}
    return isinstance(rows, dict) and "lm_head" in rows and rows["lm_head"] != rows.get("embed_tokens")


def record_of(merged, rows, place, model):
    """A directory for `verify --against` with transformers' numbers of the plain merged model, and their noise."""
    os.makedirs(place)
    os.symlink(os.path.abspath(merged), os.path.join(place, "model"))
    logits, report, _ = forward(model, rows, gradients=False)
    exact_logits, exact, _ = forward(in_float64(model), rows, gradients=False)
    write_json({"forward_vs_f64": {"logits": {"abs_max": largest_difference(logits, exact_logits)[0]},
                                   "rows": {"rel_max": rows_apart(report, exact)}}}, place, "noise.json")
    save_file(logits, os.path.join(place, "forward.safetensors"))
    write_json({"input_ids": [r[0] for r in rows], "labels": [r[1] for r in rows]}, place, "forward_ids.json")
    write_json(report, place, "forward.json")
    return report


def check(program, found, name, case, tmp):
    checkpoint = os.path.join(case, "train", f"checkpoint-{read_json(case, 'train_totals.json')['steps']}")
    pack, merged = os.path.join(case, "pack.h5"), os.path.join(tmp, "merged")
    program.run("export", "--model_path", checkpoint, "--merged", merged)

    base_tied = open_base(readable_model(os.path.join(case, "model"), os.path.join(tmp, "base"))).config.tie_word_embeddings
    apart = trained_rows_apart(case) and base_tied
    plain = open_base(readable_model(merged, os.path.join(tmp, "old_names")))
    shared = plain.lm_head.weight.data_ptr() == plain.model.embed_tokens.weight.data_ptr()
    head_stored = any("lm_head.weight" in load_file(os.path.join(merged, f))
                      for f in os.listdir(merged) if f.endswith(".safetensors"))
    found.fact(name, "tied as it should be", shared != head_stored and shared == (base_tied and not apart))

    rows = read_pack(pack, "eval")
    adapted = open_adapted(readable_model(os.path.join(case, "model"), os.path.join(tmp, "base")), checkpoint,
                           pack_vocab(pack)[1]).eval()
    with torch.no_grad():
        ids = torch.tensor([rows[0][0]])
        x, y = plain(input_ids=ids).logits, adapted(input_ids=ids).logits
    found.fact(name, "as many logits as the adapted model", x.shape == y.shape)
    found.number(name, "merged and adapted in transformers, relative", ((x - y).abs().max() / y.abs().max()).item(), 3e-5)
    report = record_of(merged, rows, os.path.join(tmp, "record"), plain)  # makes `plain` float64
    for measure, r in program.verify(os.path.join(tmp, "record")).items():
        found.number(name, f"ours and transformers', merged: {measure}", r["difference"], r["limit"])
    ours = program.run_json("loss", "--model_path", merged, "--pack", pack, "--group", "eval")
    found.number(name, "loss of the group, relative", abs(ours["loss"] - report["loss"]) / report["loss"], 2e-6)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--program", required=True)
    p.add_argument("--cases", required=True, action="append")
    p.add_argument("--only", action="append", default=[])
    p.add_argument("--json")
    a = p.parse_args()
    program, found = Program(a.program), Findings()
    for top in a.cases:
        for name, case in cases_in(top):
            if not a.only or name in a.only:
                with tempfile.TemporaryDirectory() as tmp:
                    check(program, found, name, case, tmp)
    return found.end(a.json)


if __name__ == "__main__":
    sys.exit(main())
