"""What the safetensors files of a local model hold, by their headers alone, against the inventory.

Files spell names in more than one way: with and without the prefixes that wrap a model, experts one by one where
transformers stacks them, quantised weights packed beside their scales. What is certain is mapped; the rest is
reported as a difference.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..schema import Architecture, Matrix, Notice
from .tensor_files import INDEX, BrokenFileError, Tensor, files, read_header

# Bits of one weight inside a packed tensor.
PACKED_BITS = (2, 3, 4, 8)
EIGHT_BITS = frozenset("U8 I8 F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ".split())

# What stands beside a weight without being one: scales and zeros of quantised weights, buffers.
_PACKED = re.compile(r"^(.*)(?:(\.qweight|\.weight_packed)|_blocks)$")
_COMPANION = re.compile(
    r"(?:[._](?:scales?|qzeros|g_idx|SCB|weight_format|weight_shape|weight_zero_point|weight_g_idx|"
    r"weight_scale|weight_scale_inv|weight_global_scale|input_global_scale|scale_inv|input_scale|output_scale|"
    r"activation_scale|k_scale|v_scale|q_scale|quant_map|absmax|nested_absmax|nested_quant_map)|"
    r"\.quant_state\.\w+)$"
)
_BUFFER = re.compile(
    r"(?:(?:^|\.)(?:inv_freq|original_inv_freq|position_ids|token_type_ids|masked_bias|running_mean|running_var|"
    r"num_batches_tracked|cos_cached|sin_cached|e_score_correction_bias|score_correction_bias|expert_bias|"
    r"act_fn\.(?:beta|eps)|(?:input|output)_(?:min|max)|slope_rate|layer_scalar|tid2eid|"
    r"(?:query|key|diagonal)_decay)|(?:^|\.)h\.\d+\.attn\.bias|\.attention\.bias)$"
)
_TIED_LEAF = re.compile(
    r"(?:^|\.)(?:lm_head|embed_tokens|shared|wte|word_embeddings|decoder|proj_out|embed_out|output)\.(?:weight|bias)$"
)
# Words that other spellings of a path add or leave out.
_WORDS = frozenset(
    "model language_model transformer text_model bert roberta gpt_neox base_model backbone".split()
)
_RENAMES = (
    (re.compile(r"\.block_sparse_moe\."), ".mlp."),
    (re.compile(r"(\.experts\.(?:\d+|\*)\.)w1\."), r"\1gate_proj."),
    (re.compile(r"(\.experts\.(?:\d+|\*)\.)w3\."), r"\1up_proj."),
    (re.compile(r"(\.experts\.(?:\d+|\*)\.)w2\."), r"\1down_proj."),
    (re.compile(r"\.mlp\.input_linear\.weight$"), ".mlp.experts.gate_up_proj"),
    (re.compile(r"\.mlp\.output_linear\.weight$"), ".mlp.experts.down_proj"),
    (re.compile(r"\.router\.layer\.weight$"), ".router.weight"),
    (re.compile(r"\.mlp\.moe_statics\."), ".mlp.gate.moe_statics."),
    (re.compile(r"^embed_out\."), "lm_head."),
    (re.compile(r"\.mlp\.gate\.weight$"), ".mlp.router.weight"),
    (re.compile(r"\.attention_sink_bias$"), ".sinks"),
    (re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
    (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"),
)

# Layouts that differ from transformers' in more than prefixes: parts of a stored name and the library's, in order.
_DEEPSEEK_V4 = """
    attn self_attn|ffn mlp|indexer.compressor compressor.indexer|attn_norm input_layernorm
    ffn_norm post_attention_layernorm|hc_attn_fn attn_hc.fn|hc_attn_base attn_hc.base|hc_attn_scale attn_hc.scale
    hc_ffn_fn ffn_hc.fn|hc_ffn_base ffn_hc.base|hc_ffn_scale ffn_hc.scale|attn_sink sinks
    indexer.weights_proj compressor.indexer.scorer.weights_proj|indexer.wq_b compressor.indexer.q_b_proj
    compressor.norm compressor.kv_norm|compressor.indexer.norm compressor.indexer.kv_norm|ape position_bias
    wq_a q_a_proj|self_attn.wq_b self_attn.q_b_proj|wkv kv_proj|wgate gate_proj|wo_a o_a_proj
    wo_b o_b_proj|q_norm q_a_norm|self_attn.norm self_attn.kv_norm|shared_experts.w1 shared_experts.gate_proj
    shared_experts.w2 shared_experts.down_proj|shared_experts.w3 shared_experts.up_proj
    gate.bias gate.e_score_correction_bias
"""
_HC_HEAD = "hc_head_fn hc_head.hc_fn|hc_head_base hc_head.hc_base|hc_head_scale hc_head.hc_scale"
_LAYOUTS = {
    "deepseek_v4": f"{_DEEPSEEK_V4}|{_HC_HEAD}|embed embed_tokens|head lm_head",
    "olmo_hybrid": "attention_layer_norm input_layernorm|feedforward_layer_norm post_attention_layernorm|"
    "q_conv1d conv1d|k_conv1d conv1d|v_conv1d conv1d",
}


def _layout(model_type: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    pairs = (pair.split() for pair in re.split(r"[|\n]", _LAYOUTS.get(model_type, "")) if pair.strip())
    return tuple((re.compile(rf"(?<![^.]){re.escape(old)}(?![^.])"), new) for old, new in pairs)


@dataclass(frozen=True)
class Checkpoint:
    """The files' tensors against the inventory: `params` are those of it that were found with the right shape,
    `bytes` those of every tensor, buffers and scales too."""

    tensors: int
    params: int
    bytes: int
    agrees: bool


# Names


def canonical(name: str) -> str:
    """A name without the words that spellings of the same path add or leave out."""
    for pattern, instead in _RENAMES:
        name = pattern.sub(instead, name)
    return ".".join(word for word in name.split(".") if word not in _WORDS)


@dataclass(frozen=True)
class Want:
    """A parameter that the inventory expects. `ways` are the spellings under which files may hold it: each a list of
    (name, how many, shape). A shape of one number is a number of elements, in whatever form; 0 tensors means any
    number that hold so many together."""

    name: str
    params: int
    optional: bool
    ways: tuple[tuple[tuple[str, int, tuple[int, ...]], ...], ...]


def _bare(matrix: Matrix) -> bool:
    return matrix.kind in ("experts", "parameter")


def _matrix_wants(matrix: Matrix, layer: int) -> Iterator[Want]:
    path = matrix.name.replace("{}", str(layer))
    weights = matrix.d_in * matrix.d_out * matrix.experts
    parent = path.rpartition(".")[0]
    whole: tuple[int, ...] = (weights,)
    if matrix.kind == "linear":
        whole = (matrix.d_out, matrix.d_in)
    elif matrix.kind in ("conv1d", "embedding"):
        whole = (matrix.d_in, matrix.d_out)
    held = 0 if matrix.kind == "convolution" else 1
    names = (path, f"{path}.weight") if _bare(matrix) else (f"{path}.weight",)
    ways: list[tuple[tuple[str, int, tuple[int, ...]], ...]] = [((name, held, whole),) for name in names]
    star = "*." if matrix.kind == "experts" else ""
    if matrix.kind == "experts" or matrix.parts:
        ways.append(
            tuple(
                (f"{parent}.{star}{part.name}.weight", matrix.experts, (part.d_out, part.d_in))
                for part in matrix.logical
            )
        )
    yield Want(names[0], 0 if matrix.tied else weights, matrix.tied, tuple(ways))
    if not matrix.bias:
        return
    biases = matrix.d_out * matrix.experts
    named = [f"{path}_bias", f"{path}.bias"] if _bare(matrix) else [f"{path}.bias"]
    ways = [((name, 1, (biases,)),) for name in named]
    if matrix.kind == "experts" or matrix.parts:
        ways.append(
            tuple(
                (f"{parent}.{star}{part.name}.bias", matrix.experts, (part.d_out,)) for part in matrix.logical
            )
        )
    yield Want(named[0], biases, False, tuple(ways))


def wants(arch: Architecture) -> Iterator[Want]:
    """Every parameter of an inventory, layer by layer."""
    for matrix in arch.matrices:
        for layer in matrix.layers:
            yield from _matrix_wants(matrix, layer)
    for vector in arch.vectors:
        for layer in vector.layers:
            name = vector.name.replace("{}", str(layer))
            yield Want(name, vector.size, False, (((name, 1, (vector.size,)),),))


# Comparing


@dataclass
class _Stored:
    """The files' tensors by name. Those of numbered experts are gathered under `*`; a packed weight stands under the
    name of the weight that it holds."""

    layout: tuple[tuple[re.Pattern[str], str], ...] = ()
    exact: dict[str, list[Tensor]] = field(default_factory=dict)
    loose: dict[str, list[str]] = field(default_factory=dict)
    packed: set[str] = field(default_factory=set)
    quantised: bool = False

    def add(self, tensor: Tensor) -> None:
        name = tensor.name
        if found := _PACKED.match(name):
            name = f"{found[1]}.weight" if found[2] else found[1]
            self.packed.add(tensor.name)
        elif tensor.dtype in EIGHT_BITS and name.endswith(("weight", "_proj")):
            self.packed.add(tensor.name)
        self.quantised = self.quantised or tensor.name in self.packed
        for pattern, instead in self.layout:
            name = pattern.sub(instead, name)
        key = re.sub(r"(\.experts)\.\d+\.", r"\1.*.", name)
        if key not in self.exact:
            self.loose.setdefault(canonical(key), []).append(key)
        self.exact.setdefault(key, []).append(tensor)

    def find(self, name: str) -> str | None:
        """The key of the stored tensors of this name: spelled so, or the only one that differs by a prefix."""
        if name in self.exact:
            return name
        near = self.loose.get(canonical(name), ())
        return near[0] if len(near) == 1 else None

    def fits(self, tensor: Tensor, shape: tuple[int, ...]) -> bool:
        """Whether a tensor holds a weight of this shape, packed or not."""
        size = math.prod(shape)
        if tensor.name in self.packed:
            return any(tensor.bytes == (size * bits + 7) // 8 for bits in PACKED_BITS)
        return tensor.shape == shape or (len(shape) == 1 and tensor.size == size)


@dataclass
class _Differences:
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """The differences in words, the first of each kind by name."""
        said = []
        for names, one, many in (
            (self.wrong, "tensor has another shape", "tensors have another shape"),
            (self.missing, "tensor is missing", "tensors are missing"),
            (
                self.extra,
                "tensor is in no layer of the inventory",
                "tensors are in no layer of the inventory",
            ),
        ):
            if names:
                more = f" first {names[0]}" if len(names) > 1 else f" {names[0]}"
                said.append(f"{len(names):,} {one if len(names) == 1 else many}:{more}")
        return "; ".join(said)


def _take(want: Want, stored: _Stored, used: set[str], differ: _Differences) -> int:
    """Find one expected parameter; returns how many parameters of it are there in the right shape."""
    for way in want.ways:
        keys = [key if (key := stored.find(name)) not in used else None for name, _, _ in way]
        if not any(keys):
            continue
        good = True
        for key, (name, count, shape) in zip(keys, way, strict=True):
            found = stored.exact[key] if key else []
            used.update([key] if key else [])
            if not count and sum(tensor.size for tensor in found) == math.prod(shape):
                continue
            if count and len(found) != count:
                differ.missing.append(name if not found else f"{name} ({len(found):,} of {count:,})")
                good = False
            bad = next((t for t in found if not stored.fits(t, shape)), None)
            if bad is not None:
                said = " x ".join(map(str, bad.shape)) or "a number"
                differ.wrong.append(f"{bad.name} ({said}, expected {' x '.join(map(str, shape))})")
                good = False
        return want.params if good else 0
    if not want.optional:
        differ.missing.append(want.name)
    return 0


def _is_beside(key: str, stored: _Stored, arch: Architecture, tables: set[int]) -> bool:
    """Whether stored tensors belong to no parameter of the inventory, and rightly so."""
    if _BUFFER.search(key) or (stored.quantised and _COMPANION.search(key)):
        return True
    if re.search(r"(?:^|\.)mtp(?:_|\.|$)", key):
        return True
    layer = re.match(r"(?:(?:model|language_model)\.)*layers\.(\d+)\.", key)
    if layer and int(layer[1]) >= arch.n_layers:  # multi-token prediction, which the library does not build
        return True
    return bool(_TIED_LEAF.search(key)) and all(tensor.size in tables for tensor in stored.exact[key])


def _tables(arch: Architecture) -> set[int]:
    """Sizes of the tables that files may hold twice: the embedding's, and a bias over the vocabulary."""
    tied = arch.tied_embeddings or any(m.tied for m in arch.matrices)
    if not tied:
        return set()
    sizes = {m.d_in * m.d_out for m in arch.matrices if m.role == "embedding"}
    return sizes | {arch.vocab_size}


def compare(tensors: Iterable[Tensor], arch: Architecture) -> tuple[Checkpoint, str]:
    """Stored tensors against an inventory; the text says what differs, or nothing."""
    stored, total, number = _Stored(_layout(arch.model_type)), 0, 0
    for tensor in tensors:
        number += 1
        total += tensor.bytes
        stored.add(tensor)
    used: set[str] = set()
    differ = _Differences()
    params = sum(_take(want, stored, used, differ) for want in wants(arch))
    tables = _tables(arch)
    for key, found in stored.exact.items():
        if key not in used and not _is_beside(key, stored, arch, tables):
            differ.extra.append(found[0].name)
    sentence = differ.sentence()
    return Checkpoint(number, params, total, not sentence), sentence


def check(folder: str, arch: Architecture) -> tuple[Checkpoint | None, tuple[Notice, ...]]:
    """The safetensors files of a folder against the inventory of its config; None where it has none that can be read.
    Files that cannot be read, and differences, become notices: the estimate itself rests on the config."""
    tensors: dict[str, Tensor] = {}
    problems: list[str] = []
    try:
        names = files(folder)
    except BrokenFileError as broken:
        return None, (Notice("checkpoint-unreadable", f"{INDEX} {broken}."),)
    if not names:
        return None, ()
    for name in names:
        try:
            tensors.update((tensor.name, tensor) for tensor in read_header(os.path.join(folder, name)))
        except BrokenFileError as broken:
            problems.append(f"{name} {broken}.")
    notices = tuple(Notice("checkpoint-unreadable", problem) for problem in problems[:1])
    if len(problems) > 1:
        message = f"{problems[0]} {len(problems) - 1:,} more of {len(names):,} files cannot be read."
        notices = (Notice("checkpoint-unreadable", message),)
    if not tensors:
        return None, notices
    checkpoint, sentence = compare(tensors.values(), arch)
    if sentence:
        what = f"The safetensors files do not hold what the config describes: {sentence}."
        notices += (Notice("checkpoint-mismatch", what),)
    if problems:
        checkpoint = Checkpoint(checkpoint.tensors, checkpoint.params, checkpoint.bytes, False)
    return checkpoint, notices
