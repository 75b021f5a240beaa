"""A model on the meta device -> its inventory: every parameter once, as a matrix or as a vector."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...schema import Architecture, Kind, Matrix, Part
from ..trace import Trace
from .forward import Index, read_blocks
from .roles import ROUTER, SHARED, Place, Roles

TOP_K = (
    "num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k top_k_experts num_selected_experts "
    "experts_per_token num_activated_experts topk top_k router_topk num_experts_per_topk expert_top_k".split()
)
CHOOSES = re.compile(r"Top(\d+)(?:Gating)?Router$")
POSITIONS = frozenset(
    "max_position_embeddings n_positions n_ctx max_seq_len seq_length max_seq_length max_target_positions "
    "max_sequence_length".split()
)
DOWN = re.compile(r"down|w2|output_linear|out_proj|wo$")
PRODUCT_NAME = re.compile(r"(?:_weight|proj|kernel|[._]fn)$")
# What a fused projection to queries, keys and values is called.
FUSED_QKV = re.compile(
    r"^(?:qkv|qkv_proj|wqkv|query_key_value|c_attn|w_pack|in_proj|att_proj|qkv_linear)$", re.I
)
FUSED_MLP = re.compile(r"^(?:gate_up_proj|input_linear|fused_gate_up|wi_fused)$")


@dataclass
class Found:
    """A parameter as a matrix, before its role is known."""

    kind: Kind
    d_in: int
    d_out: int
    name: str
    experts: int = 1
    bias: str | None = None
    parts: tuple[Part, ...] = ()
    outer: Literal["in", "out"] = "in"


@dataclass
class Reading:
    """What is collected on the way. `index` tells which matrix a parameter (by id) became, in which layer;
    `aliases` are further paths of tables."""

    trace: Trace = field(default_factory=Trace)
    seen: set[int] = field(default_factory=set)
    index: Index = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)
    unknown_top_k: bool = False


def read(model: Any, config: Mapping[str, Any], built_by: str, *, flops: bool = True) -> Architecture:
    """The inventory of a model, with the products of its forward pass where `flops` asks for them."""
    reading = Reading()
    roles = Roles(model, moe_blocks(model))
    owner = table_weight(roles)
    for place in places(model):
        bias_done: set[str] = set()
        for leaf, parameter in place.module._parameters.items():
            if parameter is not None and leaf not in bias_done:
                _parameter(reading, roles, model, place, leaf, parameter, owner, bias_done)
    notes: tuple[str, ...] = ()
    if reading.unknown_top_k:
        notes = (
            "Neither the config nor the model says how many experts see a token: the active parameters count all.",
        )
    text = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    given = {*config, *(key for value in config.values() if isinstance(value, Mapping) for key in value)}
    longest = _number(text, "max_position_embeddings") if given & POSITIONS else 0
    output = roles.output
    tied = owner is not None and output is not None and getattr(output, "weight", None) is owner[0]
    inventory = reading.trace.architecture(
        model_type=str(getattr(model.config, "model_type", None) or config["model_type"]),
        hidden_size=_hidden(model, text, roles), n_layers=_layers(model, text),
        vocab_size=_number(text, "vocab_size") or (owner[0].shape[0] if owner else 0),
        max_position=longest or None, tied_embeddings=tied, notes=notes, built_by=built_by,
        bystanders=tuple(dict.fromkeys([*reading.aliases, *_without_parameters(model)])),
    )  # fmt: skip
    if not flops:
        return inventory
    blocks, gap = read_blocks(model, inventory.matrices, reading.index)
    return replace(inventory, blocks=blocks, flops_gap=gap)


def places(model: Any) -> Iterator[Place]:
    """Every module once, in the order of the model."""

    def walk(module: Any, path: str, above: tuple[tuple[str, Any], ...], in_layer: bool) -> Iterator[Place]:
        if id(module) in seen:
            return
        seen.add(id(module))
        here = (*above, (path, module))
        yield Place(path, module, here, in_layer)
        repeated = type(module).__name__ == "ModuleList"
        for name, child in module._modules.items():
            if child is not None:
                yield from walk(child, f"{path}.{name}" if path else name, here, in_layer or repeated)

    seen: set[int] = set()
    yield from walk(model, "", (), False)


def _without_parameters(model: Any) -> Iterator[str]:
    """Paths of the innermost modules that hold no parameters, with `{}` for the layer."""
    for place in places(model):
        if not place.module._modules and not place.module._parameters:
            yield split_layer(place.path, _lists(place))[0]


def moe_blocks(model: Any) -> dict[str, int]:
    """Paths of the modules that hold experts, with the number of experts."""
    found: dict[str, int] = {}
    for place in places(model):
        experts = 0
        if place.path.rsplit(".", 1)[-1] in ("experts", "expert"):
            experts = len(expert_modules(place.module))
        for leaf, parameter in place.module._parameters.items():
            if parameter is not None and is_experts(place, leaf, parameter):
                experts = max(experts, parameter.shape[0])
        if experts and not re.search(r"shared", place.path.rsplit(".", 1)[-1]):
            parent = place.path.rpartition(".")[0]
            found[parent] = max(found.get(parent, 0), experts)
    return found


def expert_modules(module: Any) -> tuple[Any, ...]:
    """The experts of a module that holds each as a module of its own, in a list or by name, perhaps beside something
    without parts, such as a dropout."""
    children = tuple(child for child in module._modules.values() if child is not None and child._modules)
    alike = len(children) > 1 and len({type(child) for child in children}) == 1
    return children if alike and not module._parameters else ()


def own_expert(place: Place) -> int | None:
    """Which expert a module belongs to, where each is a module of its own."""
    for (path, holder), (_, child) in zip(place.above, place.above[1:], strict=False):
        if path.rsplit(".", 1)[-1] in ("experts", "expert"):
            return next((i for i, expert in enumerate(expert_modules(holder)) if expert is child), None)
    return None


def is_experts(place: Place, leaf: str, parameter: Any) -> bool:
    """Whether a parameter is a stack of experts' matrices."""
    return (
        parameter.dim() == 3
        and parameter.shape[0] > 0
        and "bias" not in leaf
        and ("Expert" in type(place.module).__name__ or place.path.endswith("experts"))
    )


def table_weight(roles: Roles) -> tuple[Any, str] | None:
    """The weight of the token table."""
    weight = getattr(roles.table, "weight", None)
    return (weight, "weight") if weight is not None else None


def split_layer(path: str, lists: set[str]) -> tuple[str, int]:
    """A path with `{}` for the number of its first list of modules, and that number."""
    parts = path.split(".")
    for position, part in enumerate(parts):
        if part.isdigit() and ".".join(parts[:position]) in lists:
            return ".".join([*parts[:position], "{}", *parts[position + 1 :]]), int(part)
    return path, 0


def _lists(place: Place) -> set[str]:
    return {path for path, module in place.above if type(module).__name__ == "ModuleList"}


def _parameter(
    reading: Reading, roles: Roles, model: Any, place: Place, leaf: str, parameter: Any,
    owner: tuple[Any, str] | None, bias_done: set[str],
) -> None:  # fmt: skip
    """Note one parameter of a module."""
    full = f"{place.path}.{leaf}" if place.path else leaf
    lists = _lists(place)
    generic, layer = split_layer(full, lists)
    found = as_matrix(place, leaf, parameter)
    # A table owns the storage that it shares, wherever it stands in the model.
    is_table = place.module is roles.table and leaf == "weight"
    first = id(parameter) not in reading.seen and (owner is None or parameter is not owner[0] or is_table)
    if found is None:
        if first:
            reading.seen.add(id(parameter))
            reading.trace.vector(generic, parameter.numel(), (layer,))
        return
    if found.kind == "embedding" and not first:
        reading.aliases.append(split_layer(found.name, lists)[0])
        return  # another name of a table: a look-up that stores nothing
    bias = place.module._parameters.get(found.bias) if found.bias else None
    with_bias = (
        bias is not None and bias.numel() == found.d_out * found.experts and id(bias) not in reading.seen
    )
    if with_bias and found.bias:
        bias_done.add(found.bias)
        reading.seen.add(id(bias))
    if first:
        reading.seen.add(id(parameter))
    role = roles.of(place, leaf, found.kind, found.d_out)
    name, _ = split_layer(found.name, lists)
    active = _active(reading, model, place, found)
    matrix = Matrix(
        name, role, found.kind, found.d_in, found.d_out, (0,), found.experts, active, with_bias, not first,
        found.parts, found.outer,
    )  # fmt: skip
    number = reading.trace.matrix((layer,), matrix)
    if found.kind != "embedding":
        reading.index.setdefault(id(parameter), []).append((number, layer, id(place.module)))


def _active(reading: Reading, model: Any, place: Place, found: Found) -> int:
    """How many of a stack's experts see a token. Of experts that are modules of their own the first top_k count as
    one each and the others as none, so that the sum is right."""
    number = own_expert(place)
    if number is None and (found.kind != "experts" or SHARED.search(place.path)):
        return found.experts
    known = top_k(model, place)
    reading.unknown_top_k |= known is None
    if number is not None:
        return int(known is None or number < known)
    return min(known or found.experts, found.experts)


def as_matrix(place: Place, leaf: str, parameter: Any) -> Found | None:
    """A parameter as a matrix of a product, or None where it is none."""
    from torch import nn

    module, shape = place.module, tuple(parameter.shape)
    bias = "bias" if leaf == "weight" else None
    if leaf == "weight":
        if isinstance(module, nn.Linear):
            return Found("linear", shape[1], shape[0], place.path, bias=bias, parts=_parts(place, shape))
        if type(module).__name__ == "Conv1D" and len(shape) == 2:
            return Found(
                "conv1d", shape[0], shape[1], place.path, bias=bias, parts=_parts(place, shape[::-1])
            )
        if isinstance(module, nn.Embedding):
            return Found("embedding", shape[0], shape[1], place.path)
        if isinstance(module, nn.modules.conv._ConvNd):
            out = parameter.numel() // shape[0] if module.transposed else shape[0]
            return Found("convolution", parameter.numel() // out if out else 0, out, place.path, bias=bias)
    full = f"{place.path}.{leaf}" if place.path else leaf
    if is_experts(place, leaf, parameter):
        return _experts(place, leaf, shape, full)
    if len(shape) == 2 and _bare_product(place, leaf):
        name = place.path if leaf == "weight" else full
        return Found("parameter", shape[1], shape[0], name, bias="bias" if leaf == "weight" else None)
    return None


def _bare_product(place: Place, leaf: str) -> bool:
    """Whether a bare 2-D parameter is the matrix of a product: a router's, or one named as such."""
    if leaf != "weight":
        return bool(PRODUCT_NAME.search(f".{leaf}")) and "embed" not in leaf
    name = place.path.rsplit(".", 1)[-1]
    called = type(place.module).__name__
    return bool(ROUTER.search(name)) or "Router" in called or "Linear" in called


def _experts(place: Place, leaf: str, shape: tuple[int, ...], full: str) -> Found:
    """A stack of experts, with the sides of one expert's matrix as the module lays them out."""
    down = bool(DOWN.search(leaf if leaf != "weight" else place.path.rsplit(".", 1)[-1]))
    d_out, d_in = (shape[2], shape[1]) if _transposed(place) else (shape[1], shape[2])
    parts: tuple[Part, ...] = ()
    fused = "gate_up" in leaf or (leaf == "weight" and place.path.endswith("mlp.input_linear"))
    if fused and d_out % 2 == 0:
        parts = (Part("gate_proj", d_in, d_out // 2), Part("up_proj", d_in, d_out // 2))
    bias = f"{leaf}_bias" if f"{leaf}_bias" in place.module._parameters else None
    return Found(
        "experts", d_in, d_out, full, experts=shape[0], bias=bias, parts=parts, outer="out" if down else "in"
    )


def _transposed(place: Place) -> bool:
    """Whether the module stores (experts, in, out): as it says itself, or by how its two stacks fit together."""
    declared = getattr(place.module, "is_transposed", None)
    if isinstance(declared, bool):
        return declared
    stacks = {
        leaf: tuple(p.shape) for leaf, p in place.module._parameters.items() if p is not None and p.dim() == 3
    }
    up = next((shape for leaf, shape in stacks.items() if not DOWN.search(leaf)), None)
    down = next((shape for leaf, shape in stacks.items() if DOWN.search(leaf)), None)
    if up is None or down is None:
        return False
    plain = up[2] == down[1] and up[1] in (down[2], 2 * down[2])
    return not plain and up[1] == down[2] and up[2] in (down[1], 2 * down[1])


def _parts(place: Place, shape: tuple[int, ...]) -> tuple[Part, ...]:
    """The logical matrices of a fused projection, from its name and the width of what follows it."""
    d_out, d_in = shape
    name = place.path.rsplit(".", 1)[-1]
    if FUSED_MLP.match(name) and d_out % 2 == 0:
        return Part("gate_proj", d_in, d_out // 2), Part("up_proj", d_in, d_out // 2)
    if FUSED_QKV.match(name) and len(place.above) > 1:
        inner = _output_width(place.above[-2][1], place.module)
        if inner and d_out > inner and (d_out - inner) % 2 == 0:
            kv = (d_out - inner) // 2
            return Part("q_proj", d_in, inner), Part("k_proj", d_in, kv), Part("v_proj", d_in, kv)
    return ()


def _output_width(parent: Any, fused: Any) -> int | None:
    """What the output projection beside a fused one takes in: the width of the queries."""
    for name, module in parent._modules.items():
        weight = getattr(module, "weight", None)
        if module is fused or weight is None or weight.dim() != 2 or "norm" in name:
            continue
        return int(weight.shape[0] if type(module).__name__ == "Conv1D" else weight.shape[1])
    return None


def top_k(model: Any, place: Place) -> int | None:
    """How many experts see a token: as the modules around the experts say, else their config."""
    around = [module for _, module in reversed(place.above[-3:])]
    beside = [child for module in around[:2] for child in module._modules.values() if child is not None]
    configs = [getattr(module, "config", None) for module in around]
    text = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    for holder in (*around, *beside, *configs, text):
        for name in TOP_K:
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return _router_says(place)


def _router_says(place: Place) -> int | None:
    """How many experts the class of the router beside a layer's experts names: a Top2Router chooses two."""
    for _, module in reversed(place.above):
        for child in module._modules.values():
            if found := CHOOSES.search(type(child).__name__):
                return int(found[1])
    return None


def _number(config: Any, *names: str) -> int:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def _layers(model: Any, text: Any) -> int:
    """Layers of the language model, an encoder's and a decoder's together."""
    n = _number(text, "num_hidden_layers", "num_layers", "decoder_layers") or _deepest(model)
    if getattr(model.config, "is_encoder_decoder", False):
        n = _number(text, "encoder_layers") or n
        n += _number(text, "decoder_layers", "num_decoder_layers")
    return n


def _hidden(model: Any, text: Any, roles: Roles) -> int:
    weight = getattr(roles.table, "weight", None)
    return _number(text, "hidden_size", "d_model", "n_embd", "dim") or (
        weight.shape[1] if weight is not None else 0
    )


def _deepest(model: Any) -> int:
    """The length of the longest list of modules."""
    return max((len(m) for m in model.modules() if type(m).__name__ == "ModuleList"), default=0)
