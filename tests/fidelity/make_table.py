"""Writes docs/fidelity.md: runs `smgpt-dist verify --against` on every recorded directory and tabulates what it says.

    python tests/fidelity/make_table.py ./smgpt-dist GOLDEN_DIR > docs/fidelity.md

Standard library only. A directory without train.jsonl is passed over.
"""
import json
import os
import subprocess
import sys
import tempfile

HEAD = """# How close to transformers + PEFT

Made by `tests/fidelity/make_table.py`; do not edit. Each record is a tiny random model that the real libraries
(transformers 4.57.6, peft 0.21.2, torch 2.13.0, on a CPU) ran forward, trained for 30 steps, evaluated and decoded;
`smgpt-dist verify --against DIR` computes the same and prints the largest differences.

* logits: largest absolute difference over three rows. forward loss: relative, of each row of the first step.
* gradients: of every LoRA matrix and new row, relative to the largest one.
* step loss, gradient norm: relative, the largest over the whole trajectory (AdamW, warm-up from rate 0, cosine, steps that
  are clipped, a ragged step at the end of the epoch, the second epoch's beginning). The learning rate must be equal.
* final adapter: largest absolute difference of A, B and new rows after the last step (they move by up to 2e-2).
* evaluation rows: relative, on each row's loss sum. greedy tokens: how many differ (5 prompts of 40 tokens).

In brackets: what transformers' own float32 run differs by from its float64 run, where that was recorded.

"""


def run(program, directory, *more):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run([program, "verify", "--against", directory, "--json", out.name, *more], capture_output=True, text=True)
        if not os.path.getsize(out.name):
            raise SystemExit(f"{directory}: {done.stderr[-500:]}")
        return json.load(open(out.name)), done.returncode


def cell(measure):
    if measure is None:
        return "-"
    text = "0" if measure["difference"] == 0 else f"{measure['difference']:.1e}"
    return text if measure["noise"] is None else f"{text} ({measure['noise']:.1e})"


def main():
    program, root = os.path.abspath(sys.argv[1]), sys.argv[2]
    names = sorted(n for n in os.listdir(root) if os.path.exists(os.path.join(root, n, "train.jsonl")))
    print(HEAD + "## float32\n")
    columns, over = None, []
    for name in names:
        result, code = run(program, os.path.join(root, name))
        if columns is None:
            columns = list(result)
            print("| record | " + " | ".join(columns) + " |\n|---" * 1 + "|---" * len(columns) + "|")
        print(f"| {name} | " + " | ".join(cell(result.get(c)) for c in columns) + " |")
        if code:
            over.append(name)
    print("\nEvery measure is within its limit." if not over else "\nOver a limit: " + ", ".join(over))
    print("\n## bfloat16\n\nDistance of a trajectory to the float64 one, root mean square / largest over the steps (loss and norm "
          "relative, adapter\nabsolute). Ours: `compute=bfloat16`, operands of products in bfloat16, everything else float32.\n")
    print("| record | measure | ours | transformers, bfloat16 weights | the same under autocast |\n|---|---|---|---|---|")
    for name in names:
        if os.path.exists(os.path.join(root, name, "train_bf16.jsonl")):
            result, _ = run(program, os.path.join(root, name), "--set", "compute=bfloat16")
            for measure, d in result.items():
                print(f"| {name} | {measure} | " + " | ".join("%.1e / %.1e" % tuple(d[k]) for k in ("ours", "bf16", "bf16_autocast")) + " |")
    print("\n## Where a comparison cannot be exact\n\nThe order of examples and the split are those of Trainer in one process "
          "(torch's permutation seeded seed + epoch; the split\nof `datasets`). With several ranks Trainer deals batches round-robin and "
          "repeats examples to fill the last ones; here the\nglobal batch is the same for any number of ranks.")


if __name__ == "__main__":
    main()
