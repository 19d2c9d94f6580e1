#!/usr/bin/env python3
"""Writes docs/fidelity.md: everything that is compared with transformers, PEFT and Trainer, in numbers.

    make_fidelity.py --program smgpt-dist [--golden DIR]... [--cases DIR] [--model DIR] --out docs/fidelity.md

--golden and --cases: directories of recorded runs for `verify --against` (--cases: those of make_cases.py, which are also
exported and trained to checkpoints); --model: SmolLM2-135M. Needs the libraries of tests/oracle/requirements.txt.
"""
import argparse
import os
import subprocess
import sys
import tempfile

from program import Program, cases_in
from reference import pack_vocab, read_json, versions

HEAD = """# How close to transformers, PEFT and Trainer

Made by `tests/oracle/make_fidelity.py`; do not edit. {versions}, all on a CPU with one thread; smgpt-dist
{program}.

A record is a directory with what the real libraries computed for a tiny random model, its adapter and its pack.
`smgpt-dist verify --against DIR` computes the same and prints the largest differences; limits are those of the
libraries' own rounding noise, times five. In brackets: that noise, which is how far their float32 run is from their
float64 run (for the made cases: or from runs that begin half a last bit away, since some runs blow up what rounding does).

| measure | what is compared |
|---|---|
| logits | all logits of three rows, each alone and unpadded; absolute |
| forward loss | sum of the cross entropies of each row of a step; relative |
| gradients | of the step's token mean, for every LoRA matrix and new row; relative to the largest |
| step loss | each step's token mean over the whole run: order of the rows, padding, accumulation, divisor; relative |
| gradient norm | of each step, before clipping; relative |
| learning rate | of each step; must be the same double |
| final adapter | A, B and new rows after the last step; absolute (they move by up to 2e-2) |
| evaluation rows | loss sum of each evaluation row with the adapter that Trainer trained; relative |
| greedy tokens | how many tokens of 5 greedy continuations differ |
"""

WORDS = """
## What the numbers mean

**Divisor.** The loss of a step is the sum of the cross entropies of all its rows over the number of targets of all its
rows, whatever the number of micro-batches and ranks: Trainer's since 4.46, `num_items_in_batch`. A label is a target when
it is not -100 and not the first of its row, since position t is scored against label t+1. transformers up to 5.9 counts a
label at position 0 in the divisor although nothing is scored against it; here it is not counted (nor in newer versions). The two
are equal for all rows that begin with an unlabelled token, as those of all three stages do. A step without any label has loss 0
and gradient 0 here, and is said once; in Trainer it is NaN.

**Evaluation loss.** Here the token mean of the whole group. Trainer's `eval_loss` is the mean over the rows of the token
mean of the evaluation batch that a row was in, so it moves with the batch size; the sums of rows agree.

**Order.** With shuffle=true epoch e takes the rows in the order torch.randperm(n) gives for a generator seeded seed + e:
Trainer's in one process, shown above by the runs that are shuffled. An epoch's last step has the rows that are left. Trainer
with several ranks deals its batches to the ranks in turn and fills the last ones up with rows of the epoch's beginning: it takes
other steps then, and cannot be compared step by step. Here the global batch is the same for any number of ranks.

**Rounding.** compute=float32 is what is compared. Sums have a fixed order that is not torch's, so the last bits differ
as they do between two machines of torch's. Packing rows with shared beginnings (share_prefix) changes nothing but that order.

**New rows apart on a tied base** (new_rows=untied): the two lists of `trainable_token_indices` have the same ids in another
order, the only form in which PEFT trains them apart; the tensors and moments are stored in the order of the lists. One new row alone
cannot be told from tied, and is refused.

**Not compared**: dropout (refused unless 0), the random start of a new adapter (another generator), float16 compute.
"""


def cell(m):
    if m is None:
        return "-"
    text = "0" if m["difference"] == 0 else f"{m['difference']:.1e}"
    return text + (f" ({m['noise']:.1e})" if m["noise"] is not None else "") + (" OVER" if m["difference"] > m["limit"] else "")


def table(head, rows):
    return "\n".join("| " + " | ".join(map(str, r)) + " |" for r in [head, ["---"] * len(head), *rows]) + "\n"


def describe(case):
    """What a record has of models and settings, from its own files."""
    c, a = read_json(case, "model", "config.json"), read_json(case, "init_adapter", "adapter_config.json")
    t, (first, end) = read_json(case, "train_totals.json"), pack_vocab(os.path.join(case, "pack.h5"))
    heads = c["num_attention_heads"]
    size = c.get("head_dim") or c["hidden_size"] // heads
    rows = a.get("trainable_token_indices") or {}
    tied = c.get("tie_word_embeddings", c["model_type"] == "gemma3_text")
    apart = tied and isinstance(rows, dict) and rows.get("lm_head", rows.get("embed_tokens")) != rows.get("embed_tokens")
    rope = c.get("rope_scaling") or c.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    more = [rope.get("rope_type", "default") + " rope"] if rope.get("rope_type", "default") != "default" else []
    if "rope_parameters" in c:
        more.append("names of transformers 5")
    if "sliding_attention" in (c.get("layer_types") or []) or c.get("use_sliding_window") or c.get("sliding_window_pattern"):
        more.append(f"window {c['sliding_window']}")
    if len(a["target_modules"]) < 7:
        more.append("LoRA on " + " ".join(sorted(a["target_modules"])))
    if a.get("use_rslora"):
        more.append("rslora")
    o = t["options"]
    length = f"{t['steps']} steps" + (f", {o['epochs']:g} epochs" if "epochs" in o else "")
    return [c["model_type"], f"{heads}:{c['num_key_value_heads']} x {size}", "apart" if apart else "tied" if tied else "own head",
            f"{c['vocab_size']}, {first}..{end - 1}" if end > first else f"{c['vocab_size']}, none", f"{a['r']}, {a['lora_alpha']:g}",
            (c.get("torch_dtype") or c.get("dtype") or "float32"), f"{length}, {o['batch']} x {o['ga']}",
            "shuffled" if o.get("shuffle") else "in order", "; ".join(more)]


def records(program, tops):
    names, described, measured, columns = [], [], [], []
    for top in tops:
        for name, case in cases_in(top, "train.jsonl"):
            found = program.verify(case)
            columns += [m for m in found if m not in columns]
            names.append(name)
            described.append(describe(case))
            measured.append(found)
            print(name, file=sys.stderr, flush=True)
    over = sum(m["difference"] is None or m["difference"] > m["limit"] for found in measured for m in found.values())
    text = f"\n## Records in float32\n\n{len(names)} records, {over} measures over their limits.\n\n"
    text += table(["record", *columns], [[n, *(cell(m.get(c)) for c in columns)] for n, m in zip(names, measured)])
    text += "\n### What the records are\n\nHeads: query:key x size. Rows: of the base's embedding, and the trained ids.\n\n"
    text += table(["record", "family", "heads", "head", "rows, new ids", "r, alpha", "stored", "run", "order", "more"],
                  [[n, *d] for n, d in zip(names, described)])
    return text, over


def bfloat16(program, tops):
    paths, rows = ("amx", "avx512_bf16", "avx512"), []
    for top in tops:
        for name, case in cases_in(top, "train_bf16.jsonl"):
            found = {}
            for path in paths:
                try:
                    found[path] = program.run_json("verify", "--against", case, "--set", "compute=bfloat16", "--set", f"cpu_path={path}")
                except RuntimeError as e:
                    if "does not run the path" not in str(e):
                        raise
            for measure, d in next(iter(found.values()), {}).items():
                ours = [found[path][measure]["ours"] if path in found else None for path in paths]
                rows.append([name, measure, *("%.1e / %.1e" % tuple(x) if x else "-" for x in (*ours, d["bf16"], d["bf16_autocast"]))])
    if not rows:
        return ""
    return ("\n## bfloat16\n\nDistance of a run to the float64 one, root mean square / largest over the steps (loss and norm relative, "
            "adapter absolute).\nOurs: compute=bfloat16 with cpu_path as the column says. With amx and avx512_bf16 the operands of all products "
            "are bfloat16,\nLoRA's and attention's too; with avx512 and all other paths only those of products with frozen matrices. "
            "Everything else is\nfloat32, but for what gate and up gave, which amx keeps in bfloat16 for the way back.\n\n"
            + table(["record", "measure", *paths, "transformers, bfloat16 weights", "the same under autocast"], rows))


def script(name, program, *args):
    """Rows of a check's --json."""
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "found.json")
        done = subprocess.run([sys.executable, os.path.join(here, name), "--program", program.path, *args, "--json", out],
                              capture_output=True, text=True)
        if not os.path.exists(out):
            raise RuntimeError(f"{name}: {done.stderr[-3000:]}")
        print(name, done.stdout.strip().splitlines()[-1], file=sys.stderr, flush=True)
        return read_json(out)


def summary(rows):
    """The worst of each kind over all cases."""
    kinds = {}
    for r in rows:
        kinds.setdefault(r["what"].strip(), []).append(r)
    lines = []
    for what, group in kinds.items():
        bad = [r["case"] for r in group if not r["ok"]]
        if "value" in group[0]:
            result = f"{max(r['value'] for r in group):.1e}"
        else:
            result = "yes" if not bad else "no"
        lines.append([what, len(group), result, "all" if not bad else "not " + ", ".join(bad)])
    return table(["what", "compared", "largest", "within its limit"], lines), sum(not r["ok"] for r in rows)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--program", required=True)
    p.add_argument("--golden", action="append", default=[])
    p.add_argument("--cases")
    p.add_argument("--model")
    p.add_argument("--out", required=True)
    a = p.parse_args()
    program, tops = Program(a.program), [*a.golden, *([a.cases] if a.cases else [])]
    head = HEAD.format(versions=", ".join(f"{k} {v}" for k, v in versions().items()),
                       program=program.version().removeprefix("smgpt-dist "))
    text, bad = records(program, tops)
    text = head + text + bfloat16(program, tops)
    if a.cases:
        found, n = summary(script("check_checkpoint.py", program, "--cases", a.cases))
        text += ("\n## Checkpoints across the border\n\nEach made case is trained by the program. PEFT opens its checkpoints, Trainer goes on "
                 "from the one halfway, the program\ngoes on from Trainer's; losses relative, the limit as for the step loss.\n\n" + found)
        bad += n
    found, n = summary(script("check_export.py", program, *(x for top in tops for x in ("--cases", top))))
    text += ("\n## Merged models\n\n`smgpt-dist export --merged` of the adapter that Trainer trained, opened by transformers as a plain model.\n\n" + found)
    bad += n
    if a.model:
        found = script("check_smollm2.py", program, "--model", a.model)
        text += ("\n## A real model\n\nSmolLM2-135M in float32: two texts of 123 and 50 tokens, and a greedy continuation of 40 tokens.\n\n"
                 + table(["what", "found", "limit"], [[r["what"].strip(), f"{r['value']:.1e}" if "value" in r else "equal" if r["ok"] else
                                                       "DIFFERENT", f"{r['limit']:.0e}" if "limit" in r else ""] for r in found]))
        bad += sum(not r["ok"] for r in found)
    with open(a.out, "w") as f:
        f.write(text + WORDS)
    print(f"{a.out}: {bad} over their limits")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
