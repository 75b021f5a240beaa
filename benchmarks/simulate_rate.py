"""How long a cold `lora-plan simulate` of Llama-3.1-8B's LoRA step takes, against importing what it runs.

That is torch, transformers and peft. Both run in new processes, in turn, round after round, so that a busy machine
slows both alike; the ratio of medians is what to compare. The imports are part of a simulation: the ratio is above 1.

    python benchmarks/simulate_rate.py [--rounds 3] [--model NAME]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

BASELINE = "import torch, peft; from transformers import LlamaForCausalLM"


def seconds(command: Sequence[str]) -> float:
    """How long a command takes; raises where it fails."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    """Run both in turn and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="meta-llama/Llama-3.1-8B")
    options = parser.parse_args()
    ours = [
        sys.executable,
        "-m",
        "planner",
        "simulate",
        "--model",
        options.model,
        "--methods",
        "lora",
        "--json",
    ]
    commands = {"simulate": ours, "imports": [sys.executable, "-c", BASELINE]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:10}{median:8.2f} s")
    print(f"{'ratio':10}{medians['simulate'] / medians['imports']:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
