"""How long `lora-plan estimate` takes for a model type without a builder, which transformers has to build.

First against a process that only imports torch and transformers and builds the same model on the meta
device (target: at most 1.3 times that), then, from the disk cache, against a catalogue model of its size (target: as
fast): one whose layers have about as many operations, which is what an estimate's own time goes by.
Every command runs in a new process, all in turn; CPU time of the process, so that a busy machine does little harm.
Needs the extra `validate`.

    python benchmarks/meta_route.py [--rounds 9] [--out record.json] [--check]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cold_start import environment, ours
from machine import about_this_machine, write_record

FIRST, CACHED = 1.3, 1.05
BUILD = """\
import torch, transformers
config = transformers.AutoConfig.from_pretrained({path!r})
with torch.device("meta"):
    transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
"""
# A small dense model, a deep one, and a hybrid with experts.
CONFIGS: dict[str, dict[str, object]] = {
    "helium": {"model_type": "helium", "architectures": ["HeliumForCausalLM"]},
    "helium, deep": {
        "model_type": "helium", "architectures": ["HeliumForCausalLM"], "hidden_size": 6144,
        "num_hidden_layers": 96, "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 24576, "vocab_size": 256000,
    },
    "beam": {"model_type": "beam", "architectures": ["BeamForCausalLM"]},
}  # fmt: skip
# Catalogue models of their size: 1,034 operations of a step's layers against 943, and 2,341 against beam's 2,291.
PEERS = {
    "helium": "meta-llama/Llama-3.1-8B", "helium, deep": "meta-llama/Llama-3.1-405B", "beam": "Qwen/Qwen3-Coder-Next",
}  # fmt: skip


def cpu_time(command: Sequence[str], env: Mapping[str, str]) -> float:
    """User and system seconds of a command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode:
        raise RuntimeError((run.stderr.strip().splitlines() or ["no message"])[-1])
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(path: str, peer: str, folder: Path, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of the four commands for one config."""
    env = {**environment(), "LORA_PLAN_CACHE": str(folder / "kept")}
    build = [sys.executable, "-c", BUILD.format(path=path)]
    commands: dict[str, Callable[[], float]] = {
        "build": lambda: cpu_time(build, env),
        "first": lambda: cpu_time(
            ours(f"estimate --model {path} --json"), {**env, "LORA_PLAN_CACHE": tempfile.mkdtemp(dir=folder)}
        ),
        "cached": lambda: cpu_time(ours(f"estimate --model {path} --json"), env),
        "catalogue": lambda: cpu_time(ours(f"estimate --model {peer} --json"), env),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, run in commands.items():
            taken = run()
            if number:  # the first round fills the caches
                times[name].append(taken)
    return times


def main() -> int:
    """Measure, print, and check if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="runs of each command (default 9)")
    parser.add_argument("--out", type=Path, help="write a JSON record here")
    parser.add_argument("--check", action="store_true", help="exit 1 if a ratio is above its target")
    options = parser.parse_args()
    rows, slow = [], []
    print(
        f"{'model type':12} {'build':>8} {'first':>8} {'ratio':>6} {'cached':>8} {'catalogue':>9} {'ratio':>6}"
    )
    with tempfile.TemporaryDirectory() as name:
        for model_type, config in CONFIGS.items():
            folder = Path(name) / model_type.replace(", ", "-")
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
            times = measure(os.fspath(folder), PEERS[model_type], folder, options.rounds)
            build, first, cached, catalogue = (statistics.median(values) for values in times.values())
            ratios = first / build, cached / catalogue
            print(
                f"{model_type:12} {build:6.2f} s {first:6.2f} s {ratios[0]:6.2f} "
                f"{cached:6.3f} s {catalogue:7.3f} s {ratios[1]:6.2f}"
            )
            rows.append({"model_type": model_type, "cpu_s": times, "first": ratios[0], "cached": ratios[1]})
            slow += [model_type] if ratios[0] > FIRST or ratios[1] > CACHED else []
    if options.out:
        write_record(options.out, {"benchmark": "meta_route", **about_this_machine(), "rows": rows})
    if options.check and slow:
        print(f"FAILED: above {FIRST} (first) or {CACHED} (cached): {', '.join(slow)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
