"""Trains small models with the trainers' own programs, from files that `export` wrote, and counts what they trained.

    python tools/try_trainers.py trl=VENV/bin/python axolotl=VENV/bin/python ... [--only WORD] [--keep DIR]

Each trainer runs in an environment of its own, named on the command line; no GPU is needed. A case is a plan for a
model of some ten thousand random weights with a tokenizer and a data file made on the spot; it holds if the trainer
ends without an error, and the adapter that it saved has exactly the plan's parameters (read from the safetensors
file); in full fine-tuning, if the saved tensors that differ from the model's have as many as the model. Steps are
printed beside the plan's, and not required: Unsloth does not pack everywhere.
Prints a table, and --json FILE writes it.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner import export
from planner.errors import PlannerError
from tools.small_models import data_files, small_models

USUAL: dict[str, Any] = {
    "layers": "attention,mlp", "rank": 4, "alpha": 8, "seq_len": 32, "batch": 16, "accumulation": 4, "lr": 1e-3,
    "attention_kernel": "sdpa", "packing": "padded", "precision": "fp32", "seed": 3,
}  # fmt: skip
FULL: dict[str, Any] = {"full": True, "layers": None, "rank": None, "alpha": None}
LIMIT_S = 600
LINES = 12  # of a failure's output
NO_GPU = "You need to assign use_cpu"  # which Axolotl has no option for


@dataclass(frozen=True)
class Case:
    """A plan: its name, the model, the data file, options beside the usual ones, and for which trainers it is."""

    name: str
    model: str = "llama"
    data: str = "messages.jsonl"
    options: Mapping[str, Any] = field(default_factory=dict)
    trainers: tuple[str, ...] = ("trl-sft", "axolotl", "llamafactory", "unsloth")


CASES = (
    Case("dense"),
    Case("attention only", options={"layers": "attention"}),
    Case("rank, alpha, rsLoRA", options={"rank": 6, "alpha": 12, "use_rslora": True}),
    Case("DoRA", options={"variant": "dora"}),
    Case("unembedding too", options={"layers": "all"}),
    Case("unembedding in full", options={"modules_to_save": "lm_head"}),
    Case("some layers", options={"layers_to_transform": "1"}),
    Case("a rank of its own", options={"rank_pattern": {"down_proj": 2}}),
    Case("bf16, checkpointing", options={"precision": "bf16", "checkpointing": "layer"}),
    Case("NF4 base", options={"quantize": "nf4-double", "precision": "bf16"}),
    Case("filled sequences", options={"packing": "full"}),
    Case("packed documents", options={"packing": "packed"}),
    Case("dense, Qwen3", model="qwen3"),
    Case("experts", model="qwen3_moe",
         options={"layers": "attention", "target_parameters": "experts.gate_up_proj,experts.down_proj"}),
    Case("experts frozen", model="qwen3_moe", options={"layers": "attention", "experts": "none"}),
    Case("ShareGPT", data="sharegpt.jsonl"),
    Case("Alpaca", data="alpaca.jsonl", options={"seq_len": 128}),
    Case("Alpaca, CSV", data="alpaca.csv", options={"seq_len": 128}),
    Case("prompt and completion", data="prompts.jsonl"),
    Case("question and answer", data="questions.jsonl"),
    Case("texts", data="texts.jsonl"),
    Case("full", options=FULL, trainers=("trl-sft", "axolotl", "llamafactory")),
    Case("full, experts", model="qwen3_moe", options={**FULL, "checkpointing": "layer"},
         trainers=("trl-sft", "axolotl", "llamafactory")),
    Case("GRPO", data="problems.jsonl", options={"episodes": 48, "group": 4, "seq_len": 16}, trainers=("trl-grpo",)),
)  # fmt: skip
# Overrides that a machine without a GPU needs, and nothing else: Axolotl's Triton kernels ask for one.
ADDED = {
    "axolotl": [*(f"lora_{part}_kernel: false\n" for part in ("mlp", "qkv", "o"))],
    "llamafactory": ["use_cpu: true\n"],
}
ON_CPU = {
    "trl-sft": ["--use_cpu", "True", "--report_to", "none", "--logging_steps", "1"],
    "trl-grpo": ["--use_cpu", "True", "--report_to", "none", "--logging_steps", "1"],
}


def saved_parameters(folder: Path) -> tuple[int | None, int | None]:
    """The parameters of the adapter in a folder, and the steps that the trainer took, where it says them."""
    places = [folder, *sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rsplit("-", 1)[1]))]
    count = steps = None
    for place in places:
        file = place / "adapter_model.safetensors"
        if count is None and file.is_file():
            count = sum(_tensors(file))
        state = place / "trainer_state.json"
        if state.is_file():
            steps = json.loads(state.read_text())["global_step"]
    return count, steps


def changed_parameters(folder: Path, model: Path) -> int | None:
    """The parameters in the tensors of a saved model that are not as in the model that it started from."""
    files = [place / "model.safetensors" for place in (folder, *sorted(folder.glob("checkpoint-*")))]
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        return None
    from safetensors.numpy import load_file

    before, after = load_file(model / "model.safetensors"), load_file(file)
    return sum(
        after[name].size for name in after if not (after[name].astype("float32") == before[name]).all()
    )


def _tensors(file: Path) -> Iterator[int]:
    """Numbers of elements of the tensors in a safetensors file, whose header is JSON behind its length."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        # PEFT saves the frozen weight beside a pair on the unembedding.
        if name != "__metadata__" and not name.endswith("base_layer.weight"):
            size = 1
            for side in entry["shape"]:
                size *= side
            yield size


def command_of(trainer: str, python: str) -> list[str]:
    """The trainer's own program, as the head of the exported file says."""
    own = Path(python).parent
    return {
        "trl-sft": [str(own / "trl"), "sft", "--config", "trl-sft.yaml", *ON_CPU.get(trainer, [])],
        "trl-grpo": [str(own / "trl"), "grpo", "--config", "trl-grpo.yaml", *ON_CPU.get(trainer, [])],
        "axolotl": [str(own / "axolotl"), "train", "on-cpu.yaml", "--launcher", "python"],
        "llamafactory": [str(own / "llamafactory-cli"), "train", "on-cpu.yaml"],
        "unsloth": [python, "unsloth_train.py"],
    }[trainer]  # fmt: skip


def tried(case: Case, trainer: str, python: str, root: Path) -> dict[str, Any]:
    """One case with one trainer: exported, trained, counted."""
    place = root / f"{trainer}-{case.name.replace(' ', '_').replace(',', '')}"
    usual = {**USUAL, "kernels": "unsloth", "precision": "bf16"} if trainer == "unsloth" else USUAL
    found: dict[str, Any] = {"case": case.name, "trainer": trainer}
    options = {**usual, **case.options, "data": root / "data" / case.data}
    if case.data == "problems.jsonl":
        options.update(train_data=str(options.pop("data")))
    try:
        done = export(trainer, str(root / case.model), output=place, **options)
    except PlannerError as error:
        return {**found, "result": "refused", "why": str(error)}
    assert done.plan is not None
    full = bool(case.options.get("full"))
    found["planned"] = done.plan.model.params if full else done.plan.adapter.params
    began = time.monotonic()
    environment = {
        **os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true",
        "HF_DATASETS_CACHE": str(root / "cache"), "DISABLE_VERSION_CHECK": "1", "AXOLOTL_DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": "",
    }  # fmt: skip
    if trainer in ADDED:
        (place / "on-cpu.yaml").write_text("".join([done.text, *ADDED[trainer]]))
    log = place / "log.txt"
    with log.open("w") as stream:
        try:
            code = subprocess.run(
                command_of(trainer, python),
                cwd=place,
                env=environment,
                stdout=stream,
                stderr=stream,
                timeout=LIMIT_S,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    found["seconds"] = round(time.monotonic() - began, 1)
    found["trained"], found["steps"] = saved_parameters(place / "out")
    if full:
        found["trained"] = changed_parameters(place / "out", root / case.model)
    text = log.read_text(errors="replace")
    if code and NO_GPU in text:
        return {**found, "result": "needs a GPU"}
    if code:
        tail = [line for line in text.splitlines() if line.strip()][-LINES:]
        return {**found, "result": "failed", "why": "\n".join(tail)}
    return {**found, "result": "equal" if found["trained"] == found["planned"] else "DIFFERENT"}


def main() -> int:
    """Try every case with every trainer that has an environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "python", nargs="+", metavar="TRAINER=PYTHON", help="trl, axolotl, llamafactory, unsloth"
    )
    parser.add_argument("--only", default="", help="words in the names of cases, parted by |")
    parser.add_argument("--keep", help="a folder for models, files and logs")
    parser.add_argument("--json", help="a file for the results")
    given = parser.parse_args()
    pythons = dict(item.split("=", 1) for item in given.python)
    pythons |= {name: pythons["trl"] for name in ("trl-sft", "trl-grpo") if "trl" in pythons}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(given.keep or temporary)
        small_models(root)
        data_files(root / "data")
        results = []
        for case in CASES:
            for trainer in case.trainers if any(word in case.name for word in given.only.split("|")) else ():
                if trainer in pythons:
                    results.append(tried(case, trainer, pythons[trainer], root))
                    print(line_of(results[-1]), flush=True)
    if given.json:
        Path(given.json).write_text(json.dumps(results, indent=1) + "\n")
    bad = [r for r in results if r["result"] in ("failed", "DIFFERENT")]
    print(f"{len(results) - len(bad)} hold, {len(bad)} do not")
    return 1 if bad else 0


def line_of(found: Mapping[str, Any]) -> str:
    """A result as a line."""
    shown = f"{found['trainer']:13} {found['case']:24} {found['result']:9}"
    if "planned" in found:
        shown += f" planned {found['planned']:,}, trained {found['trained']}, {found['steps']} steps, "
        shown += f"{found['seconds']} s"
    return shown + (f"\n{found['why']}" if "why" in found else "")


if __name__ == "__main__":
    raise SystemExit(main())
