"""What PEFT adapts, as rules over an inventory (peft 0.21 on transformers 5.23).

`all-linear` is every Linear and Conv1D module except the output embedding. Experts are 3-D parameters there,
not modules: PEFT converts the target names of the model types below into `target_parameters` (with a rank
multiplied by the number of fused projections), and leaves the experts of every other type frozen. The
conversion takes the converted leaf names away from the modules that share them: the dense first layers and
shared experts of DeepSeek-like models then stay frozen.

Source: peft/utils/transformers_weight_conversion.py (0.21.2), transformers/conversion_mapping.py (5.23.0).
"""

from __future__ import annotations

from .schema import Architecture, Matrix

PEFT_VERSION = "0.21.2"
TRANSFORMERS_VERSION = "5.23.0"

_QWEN2_MOE_STYLE = (
    "afmoe deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5_moe glm4_moe glm4_moe_lite glm_moe_dsa glm4v_moe "
    "longcat_flash solar_open mellum qwen3_moe qwen3_omni_moe qwen3_next hunyuan_v1_moe flex_olmo olmoe "
    "exaone_moe cohere2_moe"
)
_MIXTRAL_STYLE = "mixtral minimax minimax_m2"
_CONVERTED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_QWEN2_MOE_STYLE.split(), ("gate", "gate_proj", "up_proj", "down_proj")),
    **dict.fromkeys(_MIXTRAL_STYLE.split(), ("gate", "w1", "w3", "w2")),
}


def converted_names(arch: Architecture) -> tuple[str, ...]:
    """The module names that PEFT turns into parameters for this model type, empty where it converts none."""
    return _CONVERTED.get(arch.model_type, ())


def expert_targets(arch: Architecture) -> dict[int, int]:
    """Expert tensors that PEFT can reach by conversion, with the factor that it multiplies the rank by."""
    if not converted_names(arch):
        return {}
    return {
        index: 2 if matrix.leaf == "gate_up_proj" else 1
        for index, matrix in enumerate(arch.matrices)
        if matrix.kind == "experts" and matrix.leaf in ("gate_up_proj", "down_proj")
    }


def all_linear(arch: Architecture, experts: str) -> dict[int, int]:
    """Indices of the matrices in `all-linear`, with their rank factor.

    Under the `peft` convention exactly what PEFT trains. Under the others every Linear and Conv1D module, and
    the experts by that convention, as when each expert was a module of its own.
    """
    converted = converted_names(arch)
    chosen: dict[int, int] = {}
    for index, matrix in enumerate(arch.matrices):
        if matrix.kind in ("linear", "conv1d"):
            if matrix.role == "unembedding" or (experts == "peft" and matrix.leaf in converted):
                continue
            chosen[index] = 1
        elif matrix.kind == "parameter" and matrix.role == "router":
            if matrix.leaf in converted and experts != "none":
                chosen[index] = 1
        elif matrix.kind == "experts" and experts not in ("none", "peft"):
            chosen[index] = 1
    if experts == "peft":
        chosen.update(expert_targets(arch))
    return chosen


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

    Modules match as in PEFT: the whole path or its end after a dot. An expert tensor answers to its own name
    and to the names of its logical parts; under `peft` only where PEFT converts that name.
    """
    converted = converted_names(arch)
    leaf = target.rsplit(".", 1)[-1]
    if matrix.kind == "experts":
        if experts == "none":
            return (), 1
        names = {matrix.leaf, *(part.name for part in matrix.logical)}
        if leaf not in names:
            return (), 1
        if experts == "peft" and leaf not in converted:
            return (), 1
        return matrix.layers, expert_targets(arch).get(arch.matrices.index(matrix), 1)
    if experts == "peft" and leaf in converted and matrix.kind in ("linear", "conv1d"):
        return (), 1
    return _layers_matching(matrix, target), 1
