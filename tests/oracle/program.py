"""Running smgpt-dist from the checks, and telling what they found."""
import json
import os
import subprocess
import tempfile


class Program:
    def __init__(self, path):
        self.path = os.path.abspath(path)

    def run(self, *args):
        """stdout, or an exception with what went to stderr."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        done = subprocess.run([self.path, *map(str, args)], capture_output=True, text=True, env=kept)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr[-2000:]}{done.stdout[-2000:]}")
        return done.stdout

    def run_json(self, *args):
        """What the command writes with --json."""
        with tempfile.TemporaryDirectory() as tmp:
            name = os.path.join(tmp, "out.json")
            self.run(*args, "--json", name)
            with open(name) as f:
                return json.load(f)

    def verify(self, directory):
        """The measures of `verify --against`, also when some are over their limits; an exception for anything else."""
        with tempfile.TemporaryDirectory() as tmp:
            name = os.path.join(tmp, "out.json")
            done = subprocess.run([self.path, "verify", "--against", directory, "--json", name], capture_output=True,
                                  text=True)
            if not os.path.exists(name):
                raise RuntimeError(f"{directory}: {done.stderr[-2000:]}")
            with open(name) as f:
                return json.load(f)

    def version(self):
        return self.run("version").strip()


class Findings:
    """Numbers and their limits, printed as they come."""
    def __init__(self):
        self.rows, self.bad = [], 0

    def number(self, name, what, value, limit):
        ok = value <= limit
        self.rows.append({"case": name, "what": what, "value": value, "limit": limit, "ok": ok})
        self.bad += not ok
        print(f"{name:28} {what:44} {value:10.2e} {limit:10.1e}{'' if ok else '  OVER'}", flush=True)

    def fact(self, name, what, holds):
        self.rows.append({"case": name, "what": what, "ok": bool(holds)})
        self.bad += not holds
        print(f"{name:28} {what:44} {'yes' if holds else 'NO':>10}", flush=True)

    def end(self, path=None):
        if path:
            with open(path, "w") as f:
                json.dump(self.rows, f, indent=1)
        print(f"{len(self.rows)} checks, {self.bad} bad")
        return 1 if self.bad or not self.rows else 0


def cases_in(top, needs="train_totals.json"):
    """Directories of records below top, by name."""
    names = sorted(n for n in os.listdir(top) if os.path.exists(os.path.join(top, n, needs)) and not n.endswith(".part"))
    return [(n, os.path.abspath(os.path.join(top, n))) for n in names]
