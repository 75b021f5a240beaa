"""How long it takes until a broken or hostile config is refused, from a cold start of the command.

One config for each way in which a config is refused: by its numbers, by the table of what transformers accepts, by a
config class of transformers, by a model's class, by the number of modules, and by what a build may spend. The target
is 2 seconds of wall time for each, on a machine that does nothing else. Every command runs in a new process with an
empty cache, all in turn; the first round fills the file caches and is not counted. Needs the extra `validate`.

    python benchmarks/refusals.py [--rounds 5] [--out record.json] [--check]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cold_start import environment, ours
from machine import about_this_machine, write_record

MOST_S = 2.0
CONFIGS: dict[str, dict[str, object]] = {
    "a number out of reach": {"model_type": "helium", "num_hidden_layers": 10**6},
    "code in auto_map": {"model_type": "own_code", "auto_map": {"AutoConfig": "code.Config"}},
    "the table": {"model_type": "helium", "hidden_act": "no-such-name"},
    "a config class": {"model_type": "zaya", "num_experts_per_tok": 2},
    "a model's class": {"model_type": "diffllama", "lambda_std_dev": -1.0},
    "very many experts": {"model_type": "nllb-moe", "num_experts": 100_000},
    "experts in many layers": {"model_type": "switch_transformers", "num_experts": 3000, "num_layers": 64},
    "more than 20,000 modules": {
        "model_type": "switch_transformers", "num_experts": 256, "num_layers": 512, "num_sparse_encoder_layers": 512,
    },
    "a loop without end": {
        "model_type": "inkling_mm_model", "architectures": ["InklingModel"],
        "vision_config": {"model_type": "inkling_vision", "patch_size": 0},
    },
}  # fmt: skip


def refused(config: dict[str, object], folder: Path) -> tuple[float, float, str]:
    """Wall and processor seconds until the command has ended, and what it said."""
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    env = {**environment(), "LORA_PLAN_CACHE": tempfile.mkdtemp(dir=folder)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = subprocess.run(
        ours(f"estimate --model {path}"), capture_output=True, text=True, env=env, check=False
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode != 2 or len(run.stderr.strip().splitlines()) != 1:
        raise RuntimeError(
            f"not refused in one line, but exit code {run.returncode}: {run.stderr or run.stdout}"
        )
    return (
        wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, run.stderr.strip()
    )  # fmt: skip


def main() -> int:
    """Measure, print, and check if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command (default 5)")
    parser.add_argument("--out", type=Path, help="write a JSON record here")
    parser.add_argument("--check", action="store_true", help=f"exit 1 if a median is above {MOST_S} s")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        times: dict[str, list[tuple[float, float, str]]] = {label: [] for label in CONFIGS}
        for number in range(options.rounds + 1):
            for label, config in CONFIGS.items():
                taken = refused(config, Path(name))
                if number:
                    times[label].append(taken)
    print(f"{'refused by':26} {'wall':>8} {'worst':>8} {'processor':>10}  message")
    for label, runs in times.items():
        walls, cpu = [run[0] for run in runs], statistics.median(run[1] for run in runs)
        wall = statistics.median(walls)
        print(f"{label:26} {wall:6.2f} s {max(walls):6.2f} s {cpu:8.2f} s  {runs[0][2][:80]}")
        rows.append({"label": label, "wall_s": walls, "cpu_s": [run[1] for run in runs], "said": runs[0][2]})
    slow = [str(row["label"]) for row, runs in zip(rows, times.values(), strict=True)
            if statistics.median(run[0] for run in runs) > MOST_S]  # fmt: skip
    if options.out:
        write_record(options.out, {"benchmark": "refusals", **about_this_machine(), "rows": rows})
    if options.check and slow:
        print(f"FAILED: above {MOST_S} s: {', '.join(slow)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
