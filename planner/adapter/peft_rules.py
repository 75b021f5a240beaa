"""What PEFT adapts, as rules over an inventory (peft 0.21 on transformers 5.23).

`all-linear` is every Linear and Conv1D module except the output embedding. Experts are 3-D parameters there,
not modules, and most routers bare 2-D ones: PEFT converts the target names of the model types below into
`target_parameters` (with a rank multiplied by the number of fused projections), and leaves experts and routers
of every other type frozen. The conversion takes the converted leaf names away from the modules that share them:
the dense first layers and shared experts of DeepSeek-like models then stay frozen. What is left of `all-linear`
are leaf names, which reach every module that bears one: a convolution beside a Linear of its name, too.

Source: peft/utils/transformers_weight_conversion.py (0.21.2), transformers/conversion_mapping.py (5.23.0).
"""

from __future__ import annotations

from ..errors import InputError
from ..schema import Architecture, Matrix

PEFT_VERSION = "0.21.2"
TRANSFORMERS_VERSION = "5.23.0"

# kimi_k2 has no class of its own: its checkpoints load as deepseek_v3.
_QWEN2_MOE_STYLE = (
    "afmoe deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5_moe glm4_moe glm4_moe_lite glm_moe_dsa glm4v_moe "
    "kimi_k2 longcat_flash solar_open mellum qwen3_moe qwen3_omni_moe qwen3_next hunyuan_v1_moe flex_olmo olmoe "
    "exaone_moe cohere2_moe beam qwen3_omni_moe_thinker qwen3_omni_moe_text"
)
_MIXTRAL_STYLE = "mixtral minimax minimax_m2"
_CONVERTED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_QWEN2_MOE_STYLE.split(), ("gate", "gate_proj", "up_proj", "down_proj")),
    **dict.fromkeys(_MIXTRAL_STYLE.split(), ("gate", "w1", "w3", "w2")),
}


# What the library has as a parameter and not as a module.
BARE = ("experts", "parameter")

# Module names on which PEFT refuses LoRA, and the model types for which it does (tuners/tuners_utils.py).
_REFUSED = frozenset({"out_proj", "conv1d"})
_REFUSING = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})


def refused_names(arch: Architecture) -> frozenset[str]:
    """Module names for which PEFT raises an error on this model type instead of adapting them."""
    return _REFUSED if arch.model_type in _REFUSING else frozenset()


def converted_names(arch: Architecture) -> tuple[str, ...]:
    """The module names that PEFT turns into parameters for this model type, empty where it converts none."""
    return _CONVERTED.get(arch.model_type, ())


def by_weight(arch: Architecture, matrix: Matrix, *, materialised: bool) -> bool:
    """Whether PEFT must be given the bare weight: there is no module, or it would turn the module's name into
    another (the shared experts and dense layers of models whose experts it converts)."""
    return materialised or matrix.kind in BARE or matrix.leaf in converted_names(arch)


def old_names(arch: Architecture, matrix: Matrix) -> tuple[str, ...]:
    """The module names that PEFT converts into this parameter, empty where it does not reach it."""
    names = converted_names(arch)
    if not names:
        return ()
    # The parameter is named by its end, `gate.weight`, so that a Linear of that name is adapted as one.
    if matrix.kind in ("parameter", "linear") and matrix.leaf == names[0]:
        return names[:1]
    if matrix.kind == "experts":
        return {"gate_up_proj": names[1:3], "down_proj": names[3:]}.get(matrix.leaf, ())
    return ()


def peft_line(trainable: int, total: int) -> str:
    """What PEFT's print_trainable_parameters says of these counts."""
    share = 100 * trainable / total
    return f"trainable params: {trainable:,d} || all params: {total:,d} || trainable%: {share:.4f}"


def expert_targets(arch: Architecture) -> dict[int, int]:
    """Expert tensors that PEFT can reach by conversion, with the factor that it multiplies the rank by."""
    found = {i: len(old_names(arch, m)) for i, m in enumerate(arch.matrices) if m.kind == "experts"}
    return {index: factor for index, factor in found.items() if factor}


def all_linear(arch: Architecture, experts: str) -> dict[int, int]:
    """Indices of the matrices in `all-linear`, with their rank factor.

    Under the `peft` convention exactly what PEFT trains. Under the others every Linear and Conv1D module, and
    the experts by that convention, as when each expert was a module of its own.
    """
    if experts == "peft" and converted_names(arch):
        return _by_leaves(arch)
    return {i: 1 for i, matrix in enumerate(arch.matrices) if _in_all_linear(arch, matrix, experts)}


def _by_leaves(arch: Architecture) -> dict[int, int]:
    """PEFT's all-linear on a type that it converts: the leaf names of the Linear modules, less those that become
    parameters, and the parameters."""
    converted = converted_names(arch)
    linear = {m.leaf for m in arch.matrices if m.kind in ("linear", "conv1d") and m.role != "unembedding"}
    chosen = {}
    for index, matrix in enumerate(arch.matrices):
        old = old_names(arch, matrix)
        if old or (matrix.leaf in linear and matrix.leaf not in converted and matrix.kind not in BARE):
            chosen[index] = len(old) or 1
    return chosen


def _in_all_linear(arch: Architecture, matrix: Matrix, experts: str) -> bool:
    if matrix.kind in ("linear", "conv1d"):
        return matrix.role != "unembedding"
    if matrix.kind == "experts":
        return experts not in ("none", "peft")
    return experts != "none" and bool(old_names(arch, matrix))


def _layers_matching(matrix: Matrix, target: str) -> tuple[int, ...]:
    """Layers in which the module's path equals `target` or ends with it after a dot."""
    pattern, wanted = matrix.name.split("."), target.split(".")
    if len(wanted) > len(pattern):
        return ()
    layers = set(matrix.layers)
    for have, want in zip(reversed(pattern), reversed(wanted), strict=False):
        if have == "{}":
            layers &= {int(want)} if want.isdigit() else set()
        elif have != want:
            return ()
    return tuple(sorted(layers))


def matches(arch: Architecture, matrix: Matrix, target: str, experts: str) -> tuple[tuple[int, ...], int]:
    """Layers in which `target` names this matrix, and the factor on the rank.

    Modules match as in PEFT: the whole path or its end after a dot. An expert tensor answers to its own name, to
    the names of its logical parts and to those that PEFT converts; under `peft` to the last alone, in all layers,
    and a router likewise.
    """
    leaf, converted = target.rsplit(".", 1)[-1], converted_names(arch)
    if matrix.kind == "experts" and experts == "none":
        return (), 1
    if experts == "peft" and (matrix.kind in ("experts", "parameter") or leaf in converted):
        old = old_names(arch, matrix)
        return (matrix.layers, len(old) if matrix.kind == "experts" else 1) if leaf in old else ((), 1)
    if matrix.kind == "experts":
        names = {matrix.leaf, *(part.name for part in matrix.logical), *old_names(arch, matrix)}
        return (matrix.layers if leaf in names else ()), 1
    return _layers_matching(matrix, target), 1


def check_targets(arch: Architecture, targets: tuple[str, ...], experts: str) -> None:
    """Raise InputError where `peft` is asked for one of the projections that it fuses, without the other."""
    fused = converted_names(arch)[1:3]
    if experts != "peft" or not fused:
        return
    leaves = {target.rsplit(".", 1)[-1] for target in targets}
    missing = [name for name in fused if name not in leaves]
    if len(missing) == 1:
        found = next(target for target in targets if target.rsplit(".", 1)[-1] in fused)
        raise InputError(
            "targets", found, f"{missing[0]} beside it: PEFT adapts {' and '.join(fused)} as one"
        )
