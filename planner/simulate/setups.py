"""The set-ups of a simulation: one GPU's micro-step by each method, as an estimate has it, by a trainer's profile
too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..adapter import AdapterSpec, adapt
from ..adapter.peft_rules import PEFT_VERSION, by_weight
from ..choices import CHOICES
from ..errors import InputError
from ..estimator import sequence_length
from ..given import whole_number
from ..memory.states import is_quantised
from ..running import setup_from
from ..schema import Architecture, Notice
from ..selective import SELECTIVE, as_it_goes, check_selective
from ..setup import Setup
from ..trainers import as_spelt, asked_adapter_dtype
from .check import check_setup

# Options of a simulation that are fields of a set-up, or that fields follow from.
SAID = (
    "checkpointing", "trainer", "eval_batch", "precision", "autocast", "upcast_small", "optimizer",
    "attention_kernel", "packing", "loss", "objective", "reference", "prompt_tokens", "lora_dropout",
    "base_dtype", "outputs_held", "expandable_segments", "gpu", "lengths_vary",
)  # fmt: skip


def setups_of(
    methods: Sequence[str],
    options: Mapping[str, Any],
    arch: Architecture,
    *,
    named: bool,
    spec: AdapterSpec | None = None,
) -> tuple[list[Setup], list[Notice]]:
    """The set-up of each method. Where methods were not `named`, those that cannot be run are left out, and said.

    Raises InputError where one that was named cannot be run, or none can.
    """
    found: list[Setup] = []
    refused: list[tuple[str, InputError]] = []
    for method in methods:
        try:
            setup = setup_of(method, options, arch)
            if spec is not None:
                check_pairs(spec, setup, arch)
            found.append(setup)
        except InputError as error:
            if named or (error.field == "quantize" and not _is_choice("quantize", options)):
                raise
            refused.append((method, error))
    if not found:
        raise refused[0][1]
    return found, [Notice("method-not-simulated", f"{method} is left out: {why}") for method, why in refused]


def _is_choice(name: str, options: Mapping[str, Any]) -> bool:
    """Whether an option is not given, or a word that some method could take."""
    return options[name] is None or as_spelt(name, options[name]) in CHOICES[name]


def check_pairs(spec: AdapterSpec, setup: Setup, arch: Architecture) -> None:
    """Raise InputError where PEFT reaches a quantised matrix as a bare parameter alone: the pair's product is added
    to the weight, which a packed one cannot be (peft 0.21, lora/layer.py, ParamWrapper; torch refuses it). One in FP8
    it casts, but the product gives none of these a gradient, experts' neither (transformers 5.23,
    integrations/finegrained_fp8.py, FP8LinearFunction, FP8GroupedMatmulFunction)."""
    if setup.method != "qlora":
        return
    packed = [
        item
        for item in adapt(arch, spec)
        if (item.matrix.kind != "experts" or item.pairs[0].materialised)
        and is_quantised(item.matrix, setup)
        and by_weight(arch, item.matrix, materialised=item.pairs[0].materialised)
    ]
    if packed:
        leaves = ",".join(sorted({item.matrix.leaf for item in packed}))
        raise InputError(
            "layers", leaves, "modules",
            f"PEFT {PEFT_VERSION} reaches these of {arch.model_type} as bare parameters alone, which cannot be "
            f"adapted where they are quantised: --exclude-modules {leaves}.",
        )  # fmt: skip


def setup_of(method: str, options: Mapping[str, Any], arch: Architecture) -> Setup:
    """The set-up of a method, which a simulation can run."""
    batch, accumulation = (whole_number(name, options[name]) for name in ("batch", "accumulation"))
    asked = {name: options[name] for name in SAID if options.get(name) is not None}
    if method == "qlora" and options["quantize"] is not None:
        asked["quantize"] = options["quantize"]
    dtype = asked_adapter_dtype(options["adapter_dtype"], options["trainer"])
    if method != "full" and dtype is not None:
        asked["adapter_dtype"] = dtype
    asked |= {"method": method, "accumulation": accumulation, "batch": batch * accumulation}
    setup = setup_from(asked, sequence_length(arch, options["seq_len"]), arch.model_type)
    setup = as_it_goes(arch, setup, said=asked.get("checkpointing"))
    if not arch.has_experts:
        setup = replace(setup, quantize_experts=False)
    elif setup.checkpointing == SELECTIVE and "checkpointing" not in asked:
        setup = replace(setup, checkpointing="layer", reentrant=False)
    elif setup.checkpointing == SELECTIVE:
        raise InputError(
            "checkpointing", SELECTIVE, "none, layer or layer-offload for a mixture of experts",
            "Its router is not told apart in a simulation; `estimate` takes it.",
        )  # fmt: skip
    check_setup(setup)
    check_selective(arch, setup)
    return setup
