"""How long cold `lora-plan simulate` takes, of three methods, against importing what it runs.

That is torch, transformers and peft. All run in new processes, in turn, round after round, so that a busy machine
slows all alike; the ratios of medians are what to compare, of wall time and of processor time, which is that of all
processes of a simulation: methods run side by side where there are cores. A simulation leaves out what it does not
need of these libraries, so that a ratio may be below 1. Targets on 2 cores: 8 s for Llama-3.1-8B, 30 s for a mixture
of a trillion parameters.

    python benchmarks/simulate_rate.py [--rounds 5] [--out record.json] [--check 1.5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from cold_start import environment, ours, taken
from machine import about_this_machine, write_record

BASELINE = "import torch, peft; from transformers import LlamaForCausalLM"
MODELS = ("meta-llama/Llama-3.1-8B", "moonshotai/Kimi-K2-Instruct")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write a JSON record here")
    parser.add_argument(
        "--check",
        type=float,
        metavar="RATIO",
        help="exit 1 if the first model's ratio of processor time is above",
    )
    return parser.parse_args()


def main() -> int:
    """Run all in turn and print medians and their ratios to the imports."""
    options = arguments()
    commands = {f"python -c '{BASELINE}'": [sys.executable, "-c", BASELINE]}
    commands |= {f"lora-plan simulate -m {model}": ours(f"simulate -m {model} --json") for model in MODELS}
    env = environment()
    times: dict[str, list[tuple[float, float]]] = {label: [] for label in commands}
    for number in range(options.rounds + 1):
        for label, command in commands.items():
            found = taken(command, env)
            if number:  # the first round fills the file caches
                times[label].append(found)
    medians = {
        label: [statistics.median(column) for column in zip(*found, strict=True)]
        for label, found in times.items()
    }
    base = next(iter(medians.values()))
    rows: list[dict[str, object]] = []
    print(f"{'wall':>9} {'of cpu':>9} {'ratio':>6} {'of cpu':>6}  command ({options.rounds} runs each)")
    for label, (wall, cpu) in medians.items():
        print(f"{wall:7.2f} s {cpu:7.2f} s {wall / base[0]:6.2f} {cpu / base[1]:6.2f}  {label}")
        rows.append(
            {
                "command": label,
                "median_s": wall,
                "cpu_s": cpu,
                "ratio": wall / base[0],
                "cpu_ratio": cpu / base[1],
            }
        )
    if options.out:
        write_record(options.out, {"benchmark": "simulate_rate", **about_this_machine(), "rows": rows})
    ratio = float(str(rows[1]["cpu_ratio"]))
    if options.check is not None and ratio > options.check:
        print(f"FAILED: {ratio:.2f} is above {options.check}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
