#!/usr/bin/env python3
"""make_performance.py OUT_DIR [NOTES]: docs/performance.md, on stdout, from the JSON files that bench/run.sh left in OUT_DIR.

Each figure is the median over the rounds there are. NOTES (default: performance_notes.md beside this script) is put behind
the tables: what was tried, what is missing. Figures of runs during which other processes used more than a fifth of a
processor are marked: their times mean little.
"""

import json
import os
import re
import statistics
import sys

BUSY = 0.2
MODELS = {"smollm": "SmolLM2-135M", "qwen": "Qwen3-0.6B's shape"}
PEERS = {
    "fastest": "HF fastest: {numbers}, new rows alone, compiled, tcmalloc",
    "autocast": "HF: bf16, autocast, new rows alone, tcmalloc",
    "upstream": "HF as upstream runs it: float32, embedding and head trained",
    "float32": "HF: float32, new rows alone, tcmalloc",
    "default": "HF fastest, on our default rows",
}
GLOBAL_BATCH = 64


class Runs:
    """All files of a folder by name without the round's number."""

    def __init__(self, folder):
        self.by_name = {}
        for name in sorted(os.listdir(folder)):
            match = re.fullmatch(r"(.+?)(?:-(\d+|growth\d+))?\.json", name)
            if not match or os.path.getsize(os.path.join(folder, name)) == 0:
                continue
            key = match[1] + ("-growth" if (match[2] or "").startswith("growth") else "")
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                self.by_name.setdefault(key, []).append(json.load(f))

    def has(self, name):
        return name in self.by_name

    def median(self, name, get):
        return statistics.median(get(r) for r in self.by_name[name])

    def one(self, name):
        return self.by_name[name][-1]

    def busy(self, name):
        return max(r.get("other_cpus", 0) for r in self.by_name[name])


def full_step(r):
    """Seconds of a peer's step of the whole batch, from its median micro-batch."""
    micros = GLOBAL_BATCH // (r["batch"] * r["world"])
    return micros * statistics.median(r["micro_s_each"]) + r["rest_s"]


def rate(runs, name):
    """Examples a second."""
    if name.startswith("ours"):
        return runs.median(name, lambda r: r["examples_per_second"])
    return runs.median(name, lambda r: GLOBAL_BATCH / full_step(r))


def mark(runs, name):
    return f" (others {runs.busy(name):.1f})" if runs.busy(name) > BUSY else ""


def table(head, rows):
    if not rows:
        return []
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in rows), ""]


SHARES = {"shared": "prefixes shared", "apart": "prefixes apart"}


def main_numbers(runs):
    """What bench/run.sh took for the fastest numbers of the machine."""
    fastest = next((r[-1] for n, r in runs.by_name.items() if re.fullmatch("peer-.*-fastest", n)), None)
    if fastest:
        return "bfloat16" if fastest["autocast_bf16"] else "float32"
    return "bfloat16" if any("-upstream-bfloat16-" in n for n in runs.by_name) else "float32"


def peer_words(runs, peer):
    return PEERS[peer].format(numbers="bf16, autocast" if main_numbers(runs) == "bfloat16" else "float32")


def ours_name(model, rows, compute, share, grid):
    return f"ours-{model}-{rows}-{compute}-{share}-{grid}"


def conditions(runs):
    machine = next(r[-1]["machine"] for n, r in runs.by_name.items() if n.startswith("ours"))
    peer = next((r[-1] for n, r in runs.by_name.items() if n.startswith("peer")), None)
    lines = [f"Processor: {machine['processor']}, {machine['processors']} processors; kernels: {machine['path']}.", ""]
    if peer:
        lines += [f"Peer: torch {peer['torch']}, transformers {peer['transformers']}, peft {peer['peft']}, on the same machine, "
                  "in the same run, in turns with ours.", ""]
    busiest = max((runs.busy(n), n) for n in runs.by_name)
    lines += [f"While these figures were measured other processes used at most {busiest[0]:.2f} processors "
              f"({busiest[1]}).", ""]
    return lines


def ratios(runs, model, grid):
    """Ours over theirs."""
    numbers = main_numbers(runs)
    wants = [("upstream", numbers, "shared", "fastest", {"smollm": "8", "qwen": "6"}),
             ("upstream", numbers, "apart", "fastest", {"smollm": "1.8", "qwen": "1.6"}),
             ("upstream", numbers, "shared", "autocast", {"smollm": "-", "qwen": "-"}),
             ("upstream", numbers, "shared", "upstream", {"smollm": "25", "qwen": "20"}),
             ("upstream", "float32", "shared", "float32", {"smollm": "5", "qwen": "5"}),
             ("upstream", "float32", "apart", "float32", {"smollm": "-", "qwen": "-"}),
             ("default", numbers, "shared", "default", {"smollm": "-", "qwen": "-"})]
    rows = []
    for kind, compute, share, peer, want in wants:
        mine, theirs = ours_name(model, kind, compute, share, grid), f"peer-{model}-{peer}"
        if not (runs.has(mine) and runs.has(theirs)):
            continue
        a, b = rate(runs, mine), rate(runs, theirs)
        rows.append([f"{compute}, {SHARES[share]}{', default rows' if kind == 'default' else ''}", peer_words(runs, peer), f"{a:.2f}{mark(runs, mine)}",
                     f"{b:.2f}{mark(runs, theirs)}", f"**{a / b:.2f}**", want[model]])
    return table(["ours", "theirs", "ours, examples/s", "theirs", "ratio", "wanted"], rows)


def sizes(runs, model, grid):
    """Memory, start-up and checkpoints beside the peer's."""
    numbers = main_numbers(runs)
    mine, rows = ours_name(model, "upstream", numbers, "shared", grid), []
    if not runs.has(mine):
        return []
    ours = {"peak memory, GiB": runs.median(mine, lambda r: r["peak_rss_bytes"]) / 2 ** 30,
            "start to first step, s": runs.median(mine, lambda r: r["start_to_first_step_seconds"]),
            "start to its end, s": runs.median(mine, lambda r: r["start_to_first_step_done_seconds"])}
    if runs.has(f"checkpoint-{model}"):
        ours["checkpoint, MB"] = runs.one(f"checkpoint-{model}")["bytes"] / 1e6
    wants = {"peak memory, GiB": "0.3", "start to first step, s": "0.2", "start to its end, s": "-", "checkpoint, MB": "0.4 / 0.06"}
    get = {"peak memory, GiB": lambda r: r["peak_rss_bytes"] / 2 ** 30, "start to first step, s": lambda r: r["start_to_first_step_s"],
           "start to its end, s": lambda r: r["start_to_first_step_done_s"],
           "checkpoint, MB": lambda r: r["save"]["bytes"] / 1e6 if r.get("save") else float("nan")}
    for what, value in ours.items():
        cells = [what, f"{value:.2f}"]
        for peer in ("fastest", "upstream"):
            theirs = f"peer-{model}-{peer}"
            if runs.has(theirs):
                b = runs.median(theirs, get[what])
                cells.append(f"{b:.2f} ({value / b:.3f})")
            else:
                cells.append("-")
        rows.append(cells + [wants[what]])
    return table(["", f"ours ({numbers}, shared)", "HF fastest (ratio)", "HF as upstream (ratio)", "wanted"], rows)


def every_run(runs, model):
    rows = []
    for name in sorted(runs.by_name):
        if not name.startswith(f"ours-{model}-") or name.endswith("-growth"):
            continue
        _, _, kind, compute, share, grid = name.split("-")
        r = runs.one(name)
        rows.append([kind, compute, share, grid, f"{r['step_seconds']:.2f}", f"{r['examples_per_second']:.2f}",
                     f"{r['tokens_per_second']:.0f}", f"{r['computed_tokens_per_second']:.0f}", f"{r['label_tokens_per_second']:.0f}",
                     f"{r['peak_rss_bytes'] / 2 ** 30:.2f}", f"{r['start_to_first_step_seconds']:.1f} / {r['start_to_first_step_done_seconds']:.1f}",
                     f"{r['ceiling_gflops']:.0f}", f"{r['part_of_bound']:.2f}", f"{r['other_cpus']:.2f}"])
    head = ["rows", "numbers", "prefixes", "ranks x threads", "step, s", "examples/s", "tokens/s", "computed tokens/s", "labelled/s",
            "peak RSS, GiB", "start to step 1 begun / done, s", "best product, GFLOP/s", "part of bound", "others' CPUs"]
    out = table(head, rows)
    rows = []
    for peer in PEERS:
        words = peer_words(runs, peer)
        name = f"peer-{model}-{peer}"
        if not runs.has(name):
            continue
        r = runs.one(name)
        step = full_step(r)
        peak = r.get("peak_tflops_mm4096") or {} # not measured where bfloat16 has no units
        rows.append([words, f"{r['world']}x{r['threads']}", f"{step:.1f}", f"{GLOBAL_BATCH / step:.2f}",
                     f"{GLOBAL_BATCH / step * r['real_tokens_per_row']:.0f}", f"{r['peak_rss_bytes'] / 2 ** 30:.2f}",
                     f"{r['start_to_first_step_s']:.1f} / {r['start_to_first_step_done_s']:.1f}",
                     " / ".join(f"{1000 * peak[k]:.0f}" for k in ("bfloat16_2t", "float32_2t") if k in peak) or "-", f"{r['other_cpus']:.2f}"])
    return out + table(["peer", "ranks x threads", "step of 64 rows, s", "examples/s", "tokens/s", "peak RSS, GiB",
                        "start to step 1 begun / done, s", "torch.mm 4096, GFLOP/s bf16 / f32", "others' CPUs"], rows)


def grid(runs, model, cores):
    numbers = main_numbers(runs)
    base = ours_name(model, "upstream", numbers, "shared", f"1x{cores}")
    rows = []
    for name in sorted(runs.by_name):
        match = re.fullmatch(rf"ours-{model}-upstream-{numbers}-shared-(\d+)x(\d+)", name)
        if match and runs.has(base):
            rows.append([f"{match[1]} x {match[2]}", f"{rate(runs, name):.2f}{mark(runs, name)}", f"{rate(runs, name) / rate(runs, base):.2f}",
                         f"{runs.one(name)['pss_bytes'] / 2 ** 30:.2f}"])
    return table(["ranks x threads", "examples/s", f"of 1 x {cores}", "memory of all ranks (PSS), GiB"], rows)


def operations(runs, name):
    r = runs.one(name)
    rows = [[o["name"], f"{o['calls_a_step']:.0f}", f"{1000 * o['seconds_a_step']:.1f}", f"{100 * o['part_of_step']:.1f} %",
             f"{o['gflops']:.0f}" if "gflops" in o else "", f"{o['part_of_ceiling']:.2f}" if "part_of_ceiling" in o else ""]
            for o in r["operations"] if o["part_of_step"] >= 0.005]
    rows.append(["outside operations", "", f"{1000 * r['outside_operations_seconds']:.1f}", f"{100 * r['outside_operations_seconds'] / r['step_seconds']:.1f} %", "", ""])
    need = r["needed_gflop_a_step"]
    text = [f"{name}: {r['step_seconds']:.2f} s a step{mark(runs, name)}; best product {r['ceiling_gflops']:.0f} GFLOP/s. What has to be done is "
            f"{need['total']:.0f} GFLOP (projections {need['projections']:.0f}, LoRA {need['lora']:.0f}, attention {need['attention']:.0f}, "
            f"head {need['head']:.0f}): {r['bound_seconds']:.2f} s at that rate, {r['part_of_bound']:.2f} of the step.", ""]
    return text + table(["operation", "calls a step", "ms a step", "part", "GFLOP/s", "of the best"], rows)


def growth(runs):
    out = []
    for name in sorted(n for n in runs.by_name if n.endswith("-growth")):
        rows = [[g["kind"], str(g["value"]), str(g["rows"]), str(g["tokens"]), str(g["computed_tokens"]), str(g["labels"]),
                 f"{1000 * g['seconds']:.1f}", f"{1000 * g['seconds_apart']:.1f}" if "seconds_apart" in g else ""]
                for g in runs.one(name).get("growth", [])]
        out += [f"One forward and backward pass over made-up rows ({name}{mark(runs, name)}).", ""]
        out += table(["growing", "to", "rows", "tokens", "computed", "labels", "ms", "ms, prefixes apart"], rows)
    return out


def document(runs, notes):
    cores = next(r[-1]["machine"]["processors"] for n, r in runs.by_name.items() if n.startswith("ours"))
    main_grid = f"1x{cores}"
    out = ["# Performance", "", "Made by `bench/make_performance.py` from the figures that `bench/run.sh` measured; do not edit the tables by hand.", ""]
    out += ["`part of bound` is the time that the operations which cannot be left out would take at the best rate of products measured in the "
            "same run, over the time the step took. Rows \"upstream\": spaces between motion tokens and a system prompt of about 170 tokens, "
            "text to motion, 64 rows a step; \"default\": our own rows. `smgpt-dist help bench` says how to measure a run of your own, "
            "`smgpt-dist help plan` what a run will take.", ""]
    out += ["## Conditions", "", *conditions(runs)]
    for model, words in MODELS.items():
        if not any(n.startswith(f"ours-{model}-") for n in runs.by_name):
            continue
        out += [f"## {words}", "", "### Against Hugging Face", "", *ratios(runs, model, main_grid), *sizes(runs, model, main_grid)]
        out += ["### Ranks and threads", "", *grid(runs, model, cores), "### All runs", "", *every_run(runs, model), "### Where the time goes", ""]
        for compute, share in (("bfloat16", "shared"), ("bfloat16", "apart"), ("float32", "shared")):
            name = ours_name(model, "upstream", compute, share, main_grid)
            if runs.has(name):
                out += operations(runs, name)
    grown = growth(runs)
    if grown:
        out += ["## How the cost grows", "", *grown]
    return "\n".join(out).rstrip() + "\n" + ("\n" + notes.rstrip() + "\n" if notes else "")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    path = sys.argv[2] if len(sys.argv) == 3 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "performance_notes.md")
    notes = open(path, encoding="utf-8").read() if os.path.exists(path) else ""
    runs = Runs(sys.argv[1])
    if not any(n.startswith("ours") for n in runs.by_name):
        sys.exit(f"{sys.argv[1]} holds no figures of bench/run.sh")
    sys.stdout.write(document(runs, notes))


if __name__ == "__main__":
    main()
