"""A choice of matrices and ranks as PEFT's LoraConfig, by names that match exactly what was chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..adapter import Adapted, AdapterSpec, adapt, params
from ..adapter.files import spec_from
from ..adapter.peft_names import module, parameter, path, pattern_value
from ..adapter.peft_rules import PEFT_VERSION, by_weight, refused_names
from ..adapter.whole import Whole, trained_whole
from ..errors import InputError, PlannerError
from ..schema import Architecture, Matrix

Naming = Callable[[Matrix, int], str]


def _by_weight(arch: Architecture, item: Adapted) -> bool:
    """Whether PEFT must be given the bare weight."""
    return by_weight(arch, item.matrix, materialised=item.pairs[0].materialised)


EVERYTHING = ("target_parameters", "rank_pattern")


def nearest_experts(
    arch: Architecture, spec: AdapterSpec, adapted: Sequence[Adapted], has: Iterable[str] = EVERYTHING
) -> str:
    """The options nearest to a choice of experts that PEFT has no place for, with their count; of a trainer whose
    config `has` but some fields of LoraConfig, those that it can say."""
    has = set(has)
    if "target_parameters" not in has:
        frozen = replace(spec, experts="none", layout="modules")
        return (
            f"The nearest leaves experts frozen, {params(adapt(arch, frozen)):,} parameters: --experts none."
        )
    names: dict[str, int] = {}
    for item in adapted:
        if item.matrix.kind == "experts":
            names[".".join(item.matrix.name.split(".")[-2:])] = item.pairs[0].rank
    pinned = tuple(names.items()) if "rank_pattern" in has else ()
    near = replace(
        spec, experts="none", layout="modules", target_parameters=(*spec.target_parameters, *names),
        rank_pattern=(*pinned, *spec.rank_pattern),
    )  # fmt: skip
    try:
        number = params(adapt(arch, near))
    except PlannerError:
        return "The nearest is --experts peft."
    sets = f"--layers {','.join(spec.layers)} " if spec.layers else ""
    ranks = f" --rank-pattern {','.join(f'{name}={rank}' for name, rank in pinned)}" if pinned else ""
    whole = "" if pinned else f" at rank {spec.rank}"
    return (
        f"The nearest has one pair for gate and up together{whole}, {number:,} parameters: {sets}--experts none "
        f"--target-parameters {','.join(names)}{ranks}."
    )


def _check(arch: Architecture, spec: AdapterSpec, adapted: Sequence[Adapted], has: Iterable[str]) -> None:
    """Raise InputError where PEFT cannot train what was chosen, with the nearest that it can."""
    field = "experts" if any(i.matrix.kind == "experts" and not i.as_peft for i in adapted) else "layout"
    odd = next(
        (
            item
            for item in adapted
            if not item.as_peft and (field == "layout" or item.matrix.kind == "experts")
        ),
        None,
    )
    if odd is not None and spec.layout == "tinker" and odd.matrix.kind != "experts":
        raise InputError(
            "layout", "tinker", "modules: PEFT has one pair on a fused matrix", "Give --layout modules."
        )
    if odd is not None and spec.variant == "dora":
        raise InputError("variant", "dora", "lora: PEFT has no DoRA for experts", "Use --experts none.")
    if odd is not None:
        raise InputError(
            field, spec.experts, f"what PEFT can train: it has one pair on the whole of {odd.matrix.leaf}",
            nearest_experts(arch, spec, adapted, has),
        )  # fmt: skip
    refused = sorted({item.matrix.leaf for item in adapted} & refused_names(arch))
    if refused:
        raise InputError(
            "targets", refused[0], f"modules that PEFT {PEFT_VERSION} adapts in {arch.model_type}",
            f"The nearest leaves them out: --exclude-modules {','.join(refused)}.",
        )  # fmt: skip
    if spec.variant == "dora" and any(_by_weight(arch, item) for item in adapted):
        leaves = sorted({item.matrix.leaf for item in adapted if _by_weight(arch, item)})
        raise InputError(
            "variant", "dora", f"lora: on {arch.model_type} PEFT reaches {', '.join(leaves)} only as bare parameters",
            f"The nearest leaves them out: --exclude-modules {','.join(leaves)}.",
        )  # fmt: skip


def _owners(key: str) -> Iterable[str]:
    while key:
        yield key
        key = key.rpartition(".")[0]


def _modules(arch: Architecture) -> frozenset[str]:
    """Every module path that the inventory knows of, those of modules without parameters among them."""
    keys = (module(matrix, layer) for matrix in arch.matrices for layer in matrix.layers)
    vectors = (v.name.replace("{}", str(n)).rpartition(".")[0] for v in arch.vectors for n in v.layers)
    others = (name.replace("{}", "0") for name in arch.bystanders)
    return frozenset(owner for key in (*keys, *vectors, *others) for owner in _owners(key))


def _parameters(arch: Architecture) -> frozenset[str]:
    matrices = {parameter(m, n) for m in arch.matrices for n in m.layers}
    return frozenset(matrices | {v.name.replace("{}", str(n)) for v in arch.vectors for n in v.layers})


def _suffixes(name: str) -> Iterable[str]:
    """The ends of a path pattern, shortest first, up to the layer number."""
    tail = name.rpartition("{}")[2].lstrip(".").split(".") if "{}" in name else name.split(".")
    for count in range(1, len(tail) + 1):
        yield ".".join(tail[-count:])


def _endings(keys: Iterable[str]) -> dict[str, set[str]]:
    """The paths that each possible end of a path names."""
    found: dict[str, set[str]] = {}
    for key in keys:
        parts = key.split(".")
        for start in range(len(parts)):
            found.setdefault(".".join(parts[start:]), set()).add(key)
    return found


def _targets(items: Sequence[Adapted], naming: Naming, universe: frozenset[str]) -> list[str]:
    """The shortest names that match exactly these items among all paths."""
    chosen = {naming(item.matrix, layer) for item in items for layer in item.layers}
    reach = _endings(universe)
    names: list[str] = []
    covered: set[str] = set()
    for item in items:
        pattern = naming(replace(item.matrix, name=item.matrix.name.replace("{}", "\0")), 0).replace(
            "\0", "{}"
        )
        short = next((s for s in _suffixes(pattern) if reach.get(s, {""}) <= chosen), None)
        wanted = {naming(item.matrix, layer) for layer in item.layers}
        if wanted <= covered:
            continue
        if short is not None:
            names.append(short)
            covered |= reach[short]
        else:
            names += sorted(wanted - covered)
            covered |= wanted
    return list(dict.fromkeys(names))


def _layered(item: Adapted, naming: Naming) -> str:
    """An expression for the paths of a matrix in the layers where it is adapted."""
    every = len(item.layers) == len(item.matrix.layers)
    numbers = r"\d+" if every else f"({'|'.join(map(str, item.layers))})"
    marked = naming(replace(item.matrix, name=item.matrix.name.replace("{}", "\0")), 0)
    return numbers.join(re.escape(part) for part in marked.split("\0"))


def _module_targets(arch: Architecture, items: Sequence[Adapted]) -> list[str] | str:
    """Names for `target_modules`; an expression where a list cannot tell the modules from others: PEFT takes a name
    for the end of a path, so that a module at the top of the model is also every module of its name below."""
    universe = _modules(arch)
    chosen = {path(item.matrix, layer) for item in items for layer in item.layers}
    names, reach = _targets(items, path, universe), _endings(universe)
    if all(reach.get(name, set()) <= chosen for name in names):
        return names
    return "|".join(dict.fromkeys(_layered(item, path) for item in items))


def _patterns(
    arch: Architecture, adapted: Sequence[Adapted], value: Callable[[Adapted, str], float], usual: float
) -> dict[str, float]:
    """A pattern entry for each group of layers whose value is not the usual one."""
    found: dict[str, float] = {}
    for item in adapted:
        naming = parameter if _by_weight(arch, item) else path
        groups: dict[float, list[int]] = {}
        for layer in item.layers:
            groups.setdefault(value(item, naming(item.matrix, layer)), []).append(layer)
        for number, layers in groups.items():
            if number != usual:
                found[_layered(replace(item, layers=tuple(layers)), naming)] = number
    return found


def _task(arch: Architecture, config: Mapping[str, Any]) -> str | None:
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    return "SEQ_2_SEQ_LM" if arch.is_encoder_decoder and name.endswith("ForConditionalGeneration") else None


def _whole_number(value: float) -> float:
    return int(value) if value == int(value) else value


def lora_config(
    arch: Architecture, spec: AdapterSpec, adapted: Sequence[Adapted], whole: Whole, config: Mapping[str, Any],
    model: str | None, has: Iterable[str] = EVERYTHING,
) -> dict[str, Any]:  # fmt: skip
    """The adapter_config.json that PEFT reads. Raises InputError where PEFT cannot train what was counted, naming the
    nearest by the fields that its trainer `has`."""
    _check(arch, spec, adapted, has)
    modules = [item for item in adapted if not _by_weight(arch, item)]
    weights = [item for item in adapted if _by_weight(arch, item)]
    alphas = dict(spec.alpha_pattern)

    def alpha(item: Adapted, key: str) -> float:
        named = pattern_value(alphas, key)
        fused = spec.experts == "peft" and item.matrix.kind == "experts" and not item.pinned
        return named or _whole_number(spec.alpha * (item.pairs[0].rank // spec.rank if fused else 1))

    usual = _whole_number(spec.alpha)
    found: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": _task(arch, config),
        "base_model_name_or_path": model,
        "inference_mode": False,
        "r": spec.rank,
        "lora_alpha": usual,
        "lora_dropout": 0.0,
        "target_modules": _module_targets(arch, modules),
        "target_parameters": _targets(weights, parameter, _parameters(arch)) or None,
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": _patterns(arch, adapted, lambda item, _: item.pairs[0].rank, spec.rank),
        "alpha_pattern": _patterns(arch, adapted, alpha, usual),
        "modules_to_save": list(spec.modules_to_save) or None,
        "bias": spec.bias,
        "use_dora": spec.variant == "dora",
        "use_rslora": spec.use_rslora,
        "fan_in_fan_out": not weights and all(item.matrix.kind == "conv1d" for item in modules),
        "init_lora_weights": True,
    }
    _verify(arch, found, params(adapted) + whole.params)
    return found


def _verify(arch: Architecture, config: Mapping[str, Any], number: int) -> None:
    """The config, read back by PEFT's rules, trains this many parameters."""
    spec = spec_from(config)
    back = adapt(arch, spec)
    count = params(back) + trained_whole(arch, spec, back).params
    if count != number:
        raise InputError(
            "targets", number, f"a choice that PEFT can name; its nearest trains {count:,} parameters",
            "Name the modules with --targets.",
        )  # fmt: skip
