#!/usr/bin/env python3
"""Plans, runs and compares: what a plan promises against what the machine gives.

    tools/plan_accuracy.py --millrace build/release/bin/millrace --models DIR --runs FILE -o OUT.json
    tools/plan_accuracy.py --table OUT.json
    tools/plan_accuracy.py --plot OUT.json -o OUT.svg

FILE has a run per line: a model file in DIR, then flags of `millrace plan` (budget, context, cache type).
Every run is planned, the plan is saved, and `millrace bench --plan` measures a prompt and decoding with
the caches half full, as the plan predicts it. On a GPU the driver's peak is what nvidia-smi counts
every 50 ms, less what it counted before; on a CPU it is the process's largest resident size.
"""
import argparse
import json
import math
import pathlib
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time


def gpu_used():
    out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                         capture_output=True, text=True)
    return [int(line) for line in out.stdout.split()] if out.returncode == 0 else []


class PeakOfGpus:
    """The largest figure of nvidia-smi, MiB by GPU, while it is open."""

    def __enter__(self):
        self.before = gpu_used()
        self.peak = list(self.before)
        self.process = None
        if self.before:
            self.process = subprocess.Popen(
                ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits", "-lms", "50"],
                stdout=subprocess.PIPE, text=True)
            self.thread = threading.Thread(target=self.read)
            self.thread.start()
        return self

    def read(self):
        for line in self.process.stdout:
            index, used = line.split(",")
            self.peak[int(index)] = max(self.peak[int(index)], int(used))

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.thread.join(timeout=10)

    def taken(self):
        return [peak - before for peak, before in zip(self.peak, self.before)]


def ledger_of(plan):
    """MiB by memory."""
    return {f"{t['worker']}/{t['memory']}": int(t["used"]) / 2**20 for t in plan["totals"] if int(t["used"]) > 0}


def run_one(args, words):
    model, flags = words[0], words[1:]
    name = str(pathlib.Path(args.models) / model)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/plan.json"
        planned = subprocess.run([args.millrace, "plan", name, *flags, "-o", path],
                                 capture_output=True, text=True, timeout=120)
        if planned.returncode != 0:
            return {"model": model, "flags": flags, "error": (planned.stderr or planned.stdout).strip()[-400:]}
        plan = json.loads(pathlib.Path(path).read_text())
        predicted = plan["predicted"]
        depth, prompt = plan["context"] // 2, int(predicted["prompt_tokens"])
        made = max(4, min(args.tokens, plan["context"] - depth - 1))
        batches = "1" if plan["slots"] == 1 else f"1,{plan['slots']}"
        command = [args.millrace, "bench", name, "--plan", path, "--prompt", str(prompt), "--gen", str(made),
                   "--depth", str(depth), "--batch", batches, "--repeat", "1", "--json"]
        with PeakOfGpus() as gpus:
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            return {"model": model, "flags": flags, "error": done.stderr.strip()[-400:]}
        rows = json.loads(done.stdout)["results"]
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    rate = {(r["kind"], r["batch"]): r["tokens_per_second"]["median"] for r in rows}
    out = {"model": model, "flags": flags, "ledger_mib": ledger_of(plan), "driver_peak_mib": gpus.taken(),
           "rss_mib": largest / 1024 if largest > before else None,
           "ttft_ms": [predicted["ttft_ms"], 1000 * prompt / rate["prefill", 1]],
           "token_ms": [predicted["time_per_token_ms"], 1000 / rate["decode", 1]]}
    out["resources"] = {f"{r['kind']} {r['batch']}": r["resources"] for r in rows if r.get("resources")}
    if plan["slots"] > 1:
        out["batch_pass_ms"] = [1000 * plan["slots"] / predicted["batch_tokens_per_second"],
                                1000 * plan["slots"] / rate["decode", plan["slots"]]]
    return out


def error(pair):
    return 100 * (pair[0] / pair[1] - 1)


def table(runs):
    print("| model and flags | driver's peak of the ledger, MiB | first token, ms | one token, ms | together, ms |")
    print("|---|---|---|---|---|")
    errors = {"first token": [], "one token": [], "together": [], "memory": []}
    cell = lambda pair: f"{pair[0]:.4g} / {pair[1]:.4g} ({error(pair):+.1f}%)"
    for run in runs:
        name = " ".join([run["model"], *run["flags"]])
        if "error" in run:
            print(f"| {name} | {run['error']} | | | |")
            continue
        gpus = [v for k, v in run["ledger_mib"].items() if "/gpu" in k]
        if gpus and run["driver_peak_mib"]:
            memory = (run["driver_peak_mib"][0], sum(gpus))
        else:
            memory = (run["rss_mib"] or 0, sum(run["ledger_mib"].values()))
        errors["memory"].append(100 * (memory[0] / memory[1] - 1))
        errors["first token"].append(error(run["ttft_ms"]))
        errors["one token"].append(error(run["token_ms"]))
        together = ""
        if "batch_pass_ms" in run:
            errors["together"].append(error(run["batch_pass_ms"]))
            together = cell(run["batch_pass_ms"])
        print(f"| {name} | {memory[0]:.0f} of {memory[1]:.0f} ({errors['memory'][-1]:+.1f}%) "
              f"| {cell(run['ttft_ms'])} | {cell(run['token_ms'])} | {together} |")
    print()
    for what, values in errors.items():
        if not values:
            continue
        sizes = sorted(abs(v) for v in values)
        print(f"{what}: {len(values)} runs, median error {sizes[len(sizes) // 2]:.1f}%, worst {sizes[-1]:.1f}% "
              f"(from {min(values):+.1f}% to {max(values):+.1f}%)")


def plot(runs):
    """An SVG: measured to the right, predicted upwards, both on one logarithmic scale, with lines 20% off."""
    size, margin, low, high = 560, 60, 1.0, 1000.0
    place = lambda ms: margin + (size - 2 * margin) * math.log(ms / low) / math.log(high / low)
    x, y = place, lambda ms: size - place(ms)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" '
           'font-size="12">', f'<rect width="{size}" height="{size}" fill="white"/>']
    for ms in (1, 10, 100, 1000):
        out.append(f'<path d="M{x(ms):.1f} {y(low):.1f}V{y(high):.1f}M{x(low):.1f} {y(ms):.1f}H{x(high):.1f}" '
                   'stroke="#ddd"/>')
        out.append(f'<text x="{x(ms):.1f}" y="{size - margin + 18}" text-anchor="middle">{ms}</text>')
        out.append(f'<text x="{margin - 8}" y="{y(ms) + 4:.1f}" text-anchor="end">{ms}</text>')
    for factor, dash in ((1, ""), (1.2, "4 4"), (1 / 1.2, "4 4")):
        begin, end = max(low, low / factor), min(high, high / factor)
        out.append(f'<path d="M{x(begin):.1f} {y(begin * factor):.1f}L{x(end):.1f} {y(end * factor):.1f}" '
                   f'stroke="#999" stroke-dasharray="{dash}"/>')
    kinds = (("ttft_ms", "#1f77b4", "first token"), ("token_ms", "#d62728", "one token"),
             ("batch_pass_ms", "#2ca02c", "a pass of several sequences"))
    for row, (key, colour, name) in enumerate(kinds):
        for run in runs:
            if key in run:
                out.append(f'<circle cx="{x(run[key][1]):.1f}" cy="{y(run[key][0]):.1f}" r="3.5" '
                           f'fill="{colour}" fill-opacity="0.7"/>')
        out.append(f'<circle cx="{margin + 12}" cy="{margin + 12 + 18 * row}" r="3.5" fill="{colour}"/>'
                   f'<text x="{margin + 22}" y="{margin + 16 + 18 * row}">{name}</text>')
    out.append(f'<text x="{size / 2}" y="{size - 12}" text-anchor="middle">measured, ms</text>')
    out.append(f'<text x="16" y="{size / 2}" text-anchor="middle" transform="rotate(-90 16 {size / 2})">'
               'predicted, ms</text></svg>')
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millrace", default="build/release/bin/millrace")
    parser.add_argument("--models", default=".")
    parser.add_argument("--runs")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("-o", "--output")
    parser.add_argument("--table")
    parser.add_argument("--plot")
    args = parser.parse_args()
    if args.plot:
        if not args.output:
            parser.error("--plot needs -o")
        pathlib.Path(args.output).write_text(plot(json.loads(pathlib.Path(args.plot).read_text())))
        return 0
    if args.table:
        table(json.loads(pathlib.Path(args.table).read_text()))
        return 0
    if not args.runs or not args.output:
        parser.error("--runs and -o are needed, or --table")
    runs = []
    for line in pathlib.Path(args.runs).read_text().splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        begin = time.monotonic()
        runs.append(run_one(args, words))
        print(f"{time.monotonic() - begin:5.1f} s  {json.dumps(runs[-1])}", file=sys.stderr)
        pathlib.Path(args.output).write_text(json.dumps(runs, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
