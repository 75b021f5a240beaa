"""docs/images.md: steps with images, in closed form beside the simulated ones (FLOPs, memory), model by model.

python -m tools.compare_images [first|later]
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner import flops
from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.architecture.images import with_images
from planner.estimator import load
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.schema import Architecture
from planner.setup import Setup
from planner.simulate.core import simulate_step
from planner.simulate.timeline import PARTS

from .pictured_models import IDEFICS3, INTERNVL, PIXTRAL, SMOLVLM

PAGE = Path(__file__).resolve().parent.parent / "docs" / "images.md"
MARKS = {"first": "compared", "later": "compared later"}  # of the page's tables
STATES = 4  # weights, adapter, gradients, optimizer: the first of the parts
TEXT = AdapterSpec(rank=16, layers=("attention", "mlp"))
TOWER = AdapterSpec(rank=16, layers=("all-linear",))
TRAINED: dict[str, tuple[str, AdapterSpec | None]] = {
    "LoRA": ("lora", TEXT), "LoRA, tower too": ("lora", TOWER), "QLoRA": ("qlora", TEXT), "full": ("full", None),
}  # fmt: skip
HOW = (("bf16", "sdpa"), ("autocast", "sdpa"))
Model = tuple[str, str | dict[str, Any], int, str | None]  # with images a sequence and their size
MODELS: tuple[Model, ...] = (
    ("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-2B-Instruct", 2, "1280x720"),
    ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", 3, "1000x1400"),
    ("Qwen/Qwen3-VL-4B-Instruct", "Qwen/Qwen3-VL-4B-Instruct", 1, "1280x720"),
    ("google/gemma-3-4b-it", "google/gemma-3-4b-it", 2, None),
    ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf", 2, None),
    ("Idefics 3, as 8B", IDEFICS3, 1, "800x600"),
    ("SmolVLM, as 256M", SMOLVLM, 1, "1600x1000"),
    ("InternVL3, as 1B", INTERNVL, 1, "1200x800"),
)
LATER: tuple[Model, ...] = (
    ("mistralai/Ministral-3-3B-Base-2512", "mistralai/Ministral-3-3B-Base-2512", 2, "1280x720"),
    ("google/gemma-4-E4B-it", "google/gemma-4-E4B-it", 2, "1280x720"),
    ("google/gemma-4-31B-it", "google/gemma-4-31B-it", 4, "800x600"),
    ("Pixtral, as 12B", PIXTRAL, 1, "900x1200"),
)


@dataclass(frozen=True)
class Point:
    """A step of a model: both peaks, both of what lies beyond states, both counts of FLOPs."""

    model: str
    trained: str
    how: str
    checkpointing: str
    tokens: int
    found: int
    seen: int
    beyond: float
    flops: float

    @property
    def error(self) -> float:
        """Closed form over simulated, less 1."""
        return self.found / self.seen - 1


def _model(given: str | dict[str, Any], count: int, size: str | None) -> tuple[Any, Architecture]:
    config, arch = (given, build(given)) if isinstance(given, dict) else _loaded(given)
    return config, with_images(arch, config, count, size)


def _loaded(name: str) -> tuple[Any, Architecture]:
    found, arch = load(name)
    return found.config, arch


def points(models: Sequence[Model]) -> Iterator[Point]:
    """Every point; FLOPs are compared under eager attention, of which nothing runs again unseen."""
    for name, given, count, size in models:
        config, arch = _model(given, count, size)
        assert arch.images
        length = -(-arch.images.tokens // 512) * 512 + 512
        for (trained, (method, spec)), again in itertools.product(TRAINED.items(), ("none", "layer")):
            pairs = () if spec is None else adapt(arch, spec)
            common: dict[str, Any] = {
                "method": method, "checkpointing": again, "seq_len": length, "micro_batch": 2,
                "quantize": "nf4" if method == "qlora" else "none",
                "adapter_dtype": None if method == "full" else "float32",
            }  # fmt: skip
            eager = Setup(**common, attention_kernel="eager")
            counted = simulate_step(config, spec, eager, arch=arch).total_flops
            step = flops.Step(2, length, again != "none")
            own = flops.flops(flops.step_macs(arch, step, None if spec is None else pairs))
            for precision, kernel in HOW:
                if method == "qlora" and precision == "autocast":
                    continue
                setup = Setup(**common, precision=precision, attention_kernel=kernel)  # type: ignore[arg-type]
                seen = simulate_step(config, spec, setup, arch=arch).peak
                top = max(estimate_memory(arch, setup, pairs).moments, key=lambda each: each.bytes)
                found = top.bytes - WORKSPACES * WORKSPACE_BYTES
                states = sum(item.bytes for item in top.items if item.part in PARTS[:STATES])
                like = sum(seen.parts[STATES:])
                beyond = (found - states) / like - 1 if like else 0.0
                yield Point(
                    name, trained, f"{precision}, {kernel}", again, arch.images.tokens, found, seen.bytes, beyond,
                    own / counted - 1,
                )  # fmt: skip


def table(found: list[Point]) -> str:
    """The table, model by model, and the worst points."""
    head = (
        f"Of {len(found)} steps (batch 2; {', '.join(TRAINED)}; with and without checkpointing; bf16, and float32 "
        "under autocast, with SDPA), the error of the peak: median "
        f"{statistics.median(abs(p.error) for p in found):.2%}, 95th percentile "
        f"{statistics.quantiles([abs(p.error) for p in found], n=20)[-1]:.2%}. FLOPs are equal to the last one in "
        f"{sum(p.flops == 0 for p in found)} of them."
    )
    lines = [
        head,
        "",
        "| model | tokens of images | steps | median | most | beyond states, median | FLOPs, most |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in dict.fromkeys(p.model for p in found):
        own = [p for p in found if p.model == name]
        errors = [abs(p.error) for p in own]
        lines.append(
            f"| {name} | {own[0].tokens:,} | {len(own)} | {statistics.median(errors):.2%} | {max(errors):.2%} | "
            f"{statistics.median(abs(p.beyond) for p in own):.2%} | {max(abs(p.flops) for p in own):.2%} |"
        )
    lines += [
        "",
        "The worst:",
        "",
        "| model | trained | how | checkpointing | closed form, GiB | simulated | error |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for p in sorted(found, key=lambda each: -abs(each.error))[:8]:
        lines.append(
            f"| {p.model} | {p.trained} | {p.how} | {p.checkpointing} | {p.found / 2**30:.2f} | "
            f"{p.seen / 2**30:.2f} | {p.error:+.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Write the tables into the page, or one of them."""
    for name, models in (("first", MODELS), ("later", LATER)):
        if name not in (sys.argv[1:] or MARKS):
            continue
        found = table(list(points(models)))
        begin, end = (f"<!-- {MARKS[name]}: {where} -->" for where in ("begin", "end"))
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.split(begin)[0], text.split(end)[1]
        PAGE.write_text(f"{before}{begin}\n{found}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
