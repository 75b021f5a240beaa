"""simulate: from a model and a few choices to the simulated step of each method."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module, metadata, util
from typing import TYPE_CHECKING, Any

from .. import hardware
from ..adapter import AdapterSpec, adapt
from ..adapter.options import names, spec_of
from ..architecture.meta import ahead, checks, nothing_collected
from ..architecture.meta.lighter import lighter_import, undisturbed
from ..errors import InputError, MissingDependencyError, hint
from ..estimator import load, model_of
from ..memory.passed_over import passed_over
from ..memory.peak import WORKSPACES
from ..memory.scans import UNRULED_SCANS
from ..pictured import image_notices, pictured
from ..schema import Architecture, Notice, Source
from ..setup import Setup
from ..trainers import claimed
from .apart import each
from .check import clear_errors
from .report import SimulatedStep, SimulatedSteps, beside_bytes, context_bytes
from .setups import setups_of
from .spread import lengths_of

if TYPE_CHECKING:
    from ..fact_types import Accelerator
    from .core import Simulation
    from .spread import Spread

METHODS = ("lora", "full", "qlora")
NEEDED = ("torch", "transformers", "peft")
URLS = {
    "torch": "https://github.com/pytorch/pytorch/tree/v{}",
    "transformers": "https://github.com/huggingface/transformers/tree/v{}",
    "peft": "https://github.com/huggingface/peft/tree/v{}",
}
Progress = Callable[[str], None]


def simulate(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, *, methods: str | Sequence[str] | None = None,
    seq_len: int | None = None, batch: int = 1, accumulation: int = 1, checkpointing: bool | str | None = None,
    trainer: str | None = None, eval_batch: int | None = None,
    precision: str | None = None, autocast: bool | None = None, quantize: str | None = None,
    upcast_small: bool | None = None, optimizer: str | None = None, attention_kernel: str | None = None,
    packing: str | None = None, loss: str | None = None, objective: str | None = None, reference: str | None = None,
    prompt_tokens: int | None = None, lora_dropout: float | None = None, base_dtype: str | None = None,
    outputs_held: bool | None = None, expandable_segments: bool | None = None, gpu: str | None = None,
    rank: int = 32, alpha: float = 32,
    layers: str | Sequence[str] | None = None, targets: str | Sequence[str] | None = None,
    experts: str = "scaled", layout: str | None = None,
    variant: str = "lora", adapter_dtype: str = "float32", target_regex: str | None = None,
    target_parameters: str | Sequence[str] | None = None,
    layers_to_transform: int | str | Sequence[int] | None = None,
    exclude_modules: str | Sequence[str] | None = None, rank_pattern: str | Mapping[str, int] | None = None,
    alpha_pattern: str | Mapping[str, float] | None = None, modules_to_save: str | Sequence[str] | None = None,
    bias: str = "none", use_rslora: bool = False, adapter: str | os.PathLike[str] | None = None,
    images: int | None = None, image_size: str | Sequence[int] | None = None,
    data: str | os.PathLike[str] | None = None, tokenizer: str | os.PathLike[str] | None = None,
    format: str | None = None, loss_on: str | None = None, split: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    trust_remote_code: bool = False, whole: bool = False, progress: Progress | None = None,
) -> SimulatedSteps:  # fmt: skip
    """The training step of `model`, run without weights: peak memory by part, its moment, and FLOPs.

    The options are those of `lora-plan simulate`, by the same names; `batch` is of one GPU. A `trainer`'s profile
    fills those that are not given, as in an estimate. Of the usual methods, those that cannot be run so are left out
    and said; methods that are named are run or refused. `eval_batch`: with an evaluation of so many sequences. A
    `gpu` is one that it has to fit on, as torch's allocator serves it. Of `data` that are padded, what the allocator
    reserves is told for their own lengths too.
    `whole` runs every layer instead of a few that stand for all. `progress` is told what is being done. Raises a
    PlannerError whose message says what to do; MissingDependencyError without torch.
    """
    started = time.monotonic()
    options: dict[str, Any] = dict(locals())
    chosen = _methods(methods)
    spec = spec_of(options)
    card = None if gpu is None else hardware.find(gpu)
    if trust_remote_code:
        raise InputError("trust-remote-code", True, "nothing: a simulation runs transformers' own code only")
    found, arch = load(model_of(options))
    arch = pictured(arch, found.config, options)
    spread, read = lengths_of(options, arch)
    setups, left_out = setups_of(chosen, options, arch, named=methods is not None, spec=spec)
    _installed()
    checks.check(found.config)
    tell = progress or (lambda _: None)
    tell("loading torch and transformers")
    memory_bytes = None if card is None else card.memory_bytes
    steps, notes = _run(setups, found.config, spec, arch, whole, memory_bytes, spread, tell)
    return SimulatedSteps(
        found.model_id, found.origin, arch.model_type, arch.params, spec, card, steps,
        (
            *found.notices, *read, *left_out, *_of_card(card, steps),
            *_notices(arch, found.config, spec, steps, notes, spread),
        ),
        (
            *(("model config", source) for source in found.sources), *_sources(), *claimed(trainer),
            *((("accelerator", card.source),) if card else ()),
        ),
        round(time.monotonic() - started, 3),
    )  # fmt: skip


def _run(
    setups: Sequence[Setup], config: Mapping[str, Any], spec: AdapterSpec, arch: Architecture, whole: bool,
    memory_bytes: int | None, spread: Spread | None, tell: Progress,
) -> tuple[dict[str, SimulatedStep], list[str]]:  # fmt: skip
    """The step of every set-up, by method, on a GPU of so many bytes, and what ran otherwise than asked for."""
    room = None if memory_bytes is None else memory_bytes - context_bytes(setups[0])
    with nothing_collected(), lighter_import():
        with clear_errors(str(config.get("model_type"))):
            import_module("transformers")  # which does not import torch, and leaves time to load its library
        from .core import prepare, simulate_step

        how: dict[str, Any] = {"arch": arch, "whole": whole, "reserve": True, "room": room, "spread": spread}

        def run(setup: Setup) -> Simulation:
            return undisturbed(partial(simulate_step, config, spec, setup, **how))

        prepare(config, setups[0])
        ahead.wait()
        results = each(run, setups, tell)
    steps: dict[str, SimulatedStep] = {
        setup.method: SimulatedStep(
            setup,
            result.peak,
            result.moments,
            _of_a_step(result.flops, setup.accumulation),
            result.trained,
            result.layers_run,
            result.layers,
            result.reserved_bytes,
            _fits(setup, result, memory_bytes),
            result.varied,
        )
        for setup, result in zip(setups, results, strict=True)
    }
    return steps, [note for result in results for note in result.notes]


def _fits(setup: Setup, result: Simulation, memory_bytes: int | None) -> bool | None:
    """Whether a GPU of so many bytes holds the step: as its allocator serves it at its length and, where there
    are data, in every order of theirs, or where that cannot be told, by the peak."""
    if memory_bytes is not None and result.varied is not None and result.served:
        return result.varied.served == len(result.varied.reserved)
    if memory_bytes is None or result.served is not None:
        return result.served
    return result.peak.bytes + beside_bytes(setup) <= memory_bytes


def _of_card(card: Accelerator | None, steps: Mapping[str, SimulatedStep]) -> Iterator[Notice]:
    """What to say of the GPU that was named."""
    if card is None:
        return
    if card.memory_bytes is None:
        yield Notice(
            "gpu-memory-unknown",
            f"How much memory {card.name} has differs by machine: whether it fits is for you to say.",
        )
        return
    for name, step in steps.items():
        if step.fits is False and step.per_gpu_bytes <= card.memory_bytes:
            yield Notice(
                "fragmented",
                f"{name}: what is allocated at once would fit on {card.name}, but not in the segments that torch's "
                "allocator cuts: --expandable-segments (PYTORCH_ALLOC_CONF=expandable_segments:True)",
            )


def _of_a_step(flops: Mapping[str, Mapping[str, int]], micro_steps: int) -> dict[str, dict[str, int]]:
    """FLOPs by phase and operator of a step of so many micro-steps, of which one was run."""
    return {phase: {name: micro_steps * n for name, n in found.items()} for phase, found in flops.items()}


def _methods(given: str | Sequence[str] | None) -> tuple[str, ...]:
    chosen = names("methods", given) or METHODS
    for method in chosen:
        if method not in METHODS:
            raise InputError(
                "methods", method, f"a comma list of {', '.join(METHODS)}", hint(method, METHODS).strip()
            )
    return chosen


def _installed() -> None:
    missing = [name for name in NEEDED if util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f'simulating a step needs {" and ".join(missing)}: pip install "lora-plan[validate]".'
        )


def _notices(
    arch: Architecture, config: Mapping[str, Any], spec: AdapterSpec, steps: Mapping[str, SimulatedStep],
    notes: Sequence[str], spread: Spread | None,
) -> Iterator[Notice]:  # fmt: skip
    """What a reader of the figures should know."""
    first = next(iter(steps.values())).setup
    yield Notice(
        "overhead-not-simulated",
        f"the CUDA context comes on top ({context_bytes(first) / 1e9:.1f} GB as an estimate has it), to the "
        f"peak cuBLAS' workspaces too ({WORKSPACES * first.workspace_bytes / 1e6:.0f} MB)",
    )
    if any(step.reserved_bytes is None for step in steps.values()):
        yield Notice(
            "reserved-not-simulated", "what the allocator reserves cannot be told from the layers that ran"
        )
    if any(step.setup.lengths_vary and step.varied is None for step in steps.values()):
        told = "the data's lengths make requests of too many kinds" if spread else "--data tells it"
        text = f"reserved is of steps of one length; where lengths vary the allocator takes more: {told}"
        yield Notice("reserved-of-one-length", text)
    yield from (Notice("simulated-otherwise", note) for note in dict.fromkeys(notes))
    pairs = adapt(arch, spec)
    adapted = [step for step in steps.values() if step.setup.method != "full"]
    yield from dict.fromkeys(note for step in adapted for note in passed_over(step.setup, pairs))
    yield from image_notices(arch, next(iter(steps.values())).setup.seq_len, None)
    length = max(step.setup.seq_len for step in steps.values())
    if arch.max_position and length > arch.max_position:
        yield Notice("long-sequence", f"{length:,} tokens are more than the model's {arch.max_position:,}")
    yield from _of_scans(arch)
    if config.get("quantization_config"):
        text = "the config's own quantisation is left out: weights are held as asked for"
        yield Notice("weights-unquantised", text)
    if arch.has_experts and spec.experts not in ("peft", "none"):
        yield Notice(
            "expert-pairs",
            f"experts {spec.experts}: PEFT has no place for these pairs; they run beside transformers' grouped "
            "product",
        )


def _of_scans(arch: Architecture) -> Iterator[Notice]:
    """What runs in the place of kernels of state-space and linear-attention layers."""
    if any(matrix.role == "state_space" for matrix in arch.matrices):
        yield Notice(
            "scan-kernels",
            "state-space and linear-attention layers run stand-ins for the kernels of scan and convolution "
            "(mamba-ssm, causal-conv1d, flash-linear-attention), written from what those kernels keep, and not "
            "measured; transformers' reference code, where they are not installed, keeps several times more. The "
            "fused kernels that take Mamba's projections in are not simulated: they keep less",
        )
    if arch.model_type in UNRULED_SCANS:
        yield Notice(
            "reference-scan",
            f"the scan of {arch.model_type} runs transformers' reference code, which keeps several times more "
            "than its kernel (flash-linear-attention): no stand-in is written for it; an estimate leaves it out",
        )


def _sources() -> list[tuple[str, Source]]:
    """The libraries whose code ran."""
    found = []
    for name in NEEDED:
        version = metadata.version(name)
        url = URLS[name].format(version.partition("+")[0])
        found.append(("the step", Source(f"{name} {version}", url, "the code that ran", "", "derived")))
    return found
