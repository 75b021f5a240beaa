"""How long cold commands take, `lora-plan estimate` first, against importing click and two modules of rich.

Every command runs in a new process, all commands in turn, round after round, so that a busy machine slows all of
them alike; the ratios of medians are what to compare, of wall time and of processor time. The target is a ratio of at
most 2 for an estimate, as JSON or as a page, with a GPU or without one, whatever the model.

    python benchmarks/cold_start.py [--rounds 25] [--out record.json] [--check 2.0]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from machine import about_this_machine, write_record

BASELINE = "import click, rich.console, rich.table"
MODELS = ("meta-llama/Llama-3.1-8B", "moonshotai/Kimi-K2-Instruct")
FORMS = ("--json", "", "--gpu h100 --tokens 10M --json", "--gpu h100 --tokens 10M")
OTHERS = (
    "--help", "estimate --help", "models", "gpus", "lr -m {model} --json", "lr -m {model}",
    "compare -m {model} --gpu h100 --tokens 10M --json", "plan -m {model} --gpu h100 --tokens 10M --json",
    "convert --from tinker --to peft --lr 5e-4", "dataset --help", "export peft -m {model} --layers attention,mlp",
    "export axolotl -m {model} --layers attention,mlp --tokens 10M",
    "report -m {model} --tokens 10M --no-figures -o {folder}/plan.md",
)  # fmt: skip
COOKBOOK = """\
from tinker_cookbook.hyperparam_utils import get_lora_param_count
get_lora_param_count("meta-llama/Llama-3.1-8B", lora_rank=32)"""


def beside_python(name: str) -> str | None:
    """The script of this name in the running interpreter's environment, else on the path."""
    script = Path(sys.executable).with_name(name)
    return str(script) if script.exists() else shutil.which(name)


def ours(words: str) -> list[str]:
    """One of our own commands."""
    script = beside_python("lora-plan")
    return [*([script] if script else [sys.executable, "-m", "planner"]), *words.split()]


def peers() -> tuple[dict[str, list[str]], list[str]]:
    """Comparable programs that are installed here, and the names of those that are not."""
    found: dict[str, list[str]] = {}
    absent = []
    if script := beside_python("ftune"):
        found["ftune estimate (Llama-3.1-8B)"] = [
            script,
            "estimate",
            "--model",
            MODELS[0],
            "--method",
            "lora",
        ]
    else:
        absent.append("ftuneai")
    if importlib.util.find_spec("tinker_cookbook"):
        found["tinker-cookbook get_lora_param_count (Llama-3.1-8B)"] = [sys.executable, "-c", COOKBOOK]
    else:
        absent.append("tinker-cookbook")
    return found, absent


def taken(command: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Wall and processor seconds from start to exit of a command that must succeed."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode:
        raise RuntimeError((run.stderr.strip().splitlines() or ["no message"])[-1])
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment() -> dict[str, str]:
    """Offline, with compiled modules kept as an installation has them, and with the checkout on the path where
    lora-plan is not installed."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if importlib.util.find_spec("planner") is None:
        root = str(Path(__file__).resolve().parent.parent)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


Times = dict[str, list[tuple[float, float]]]


def measure(commands: Mapping[str, Sequence[str]], rounds: int) -> tuple[Times, dict[str, str]]:
    """Times by label, and why the others failed. A round before the first fills the file caches."""
    env = environment()
    times: Times = {}
    failed: dict[str, str] = {}
    for label, command in commands.items():
        try:
            taken(command, env)
            times[label] = []
        except RuntimeError as error:
            failed[label] = str(error)
    for _ in range(rounds):
        for label, values in times.items():
            values.append(taken(commands[label], env))
    return times, failed


def table(times: Times) -> list[dict[str, object]]:
    """Median, quartiles and the ratios of medians to the first command, for each command."""
    base, base_cpu = (statistics.median(column) for column in zip(*next(iter(times.values())), strict=True))
    rows: list[dict[str, object]] = []
    for label, values in times.items():
        walls, cpu = zip(*values, strict=True)
        low, middle, high = statistics.quantiles(walls, n=4)
        rows.append(
            {
                "command": label,
                "median_s": middle,
                "q1_s": low,
                "q3_s": high,
                "ratio": middle / base,
                "cpu_ratio": statistics.median(cpu) / base_cpu,
                "n": len(values),
            }
        )
    return rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=25, help="runs of each command, at least 20 (default 25)"
    )
    parser.add_argument("--out", type=Path, help="write a JSON record here")
    parser.add_argument(
        "--check", type=float, metavar="RATIO", help="exit 1 if an estimate's ratio is above this"
    )
    options = parser.parse_args()
    if options.rounds < 20:
        parser.error("--rounds: a median of fewer than 20 runs says little")
    return options


def main() -> int:
    """Measure, print, and check if asked to."""
    options = arguments()
    baseline = {f"python -c '{BASELINE}'": [sys.executable, "-c", BASELINE]}
    asked = [f"estimate -m {model} {form}".strip() for model in MODELS for form in FORMS]
    estimates = {f"lora-plan {words}": ours(words) for words in asked}
    peer, absent = peers()
    with tempfile.TemporaryDirectory() as folder:
        others = {
            f"lora-plan {words.format(model=MODELS[0], folder='.')}": ours(
                words.format(model=MODELS[0], folder=folder)
            )
            for words in OTHERS
        }
        times, failed = measure({**baseline, **estimates, **others, **peer}, options.rounds)
    rows = table(times)
    print(f"{'median':>9} {'quartiles':>15} {'ratio':>6} {'of cpu':>6}  command ({options.rounds} runs each)")
    for row in rows:
        quartiles = f"{row['q1_s']:7.3f}-{row['q3_s']:.3f} s"
        print(
            f"{row['median_s']:7.3f} s {quartiles} {row['ratio']:6.2f} {row['cpu_ratio']:6.2f}  {row['command']}"
        )
    for label, reason in failed.items():
        print(f"failed: {label}: {reason}")
    if absent:
        print(f"not installed here, so not compared: {', '.join(absent)}")
    if options.out:
        write_record(options.out, {"benchmark": "cold_start", **about_this_machine(), "rows": rows})
    ratios = {str(row["command"]): float(str(row["ratio"])) for row in rows}
    slow = [
        label for label in estimates if options.check and not ratios.get(label, math.inf) <= options.check
    ]
    if slow:
        print(f"FAILED: not within {options.check} times the baseline: {slow}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
