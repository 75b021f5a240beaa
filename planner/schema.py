"""The frozen dataclasses that everything passes around.

A model is an inventory of weight matrices (`Matrix`) and of the remaining parameters (`Vector`), plus the
order in which activations pass through them (`Block`, a list of operations). Every estimate is a sum over
these. Nothing here reads files, prints or knows about a framework.
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from typing import Literal

from .dataclass import dataclass

Basis = Literal["exact", "analytic", "fitted", "simulated", "measured", "assumed"]
SourceKind = Literal["config", "datasheet", "paper", "documentation", "measured", "derived", "assumed"]
Role = Literal[
    "attention",
    "state_space",
    "mlp",
    "expert",
    "shared_expert",
    "router",
    "embedding",
    "unembedding",
    "vision",
    "audio",
    "projector",
    "other",
]
Kind = Literal["linear", "conv1d", "parameter", "experts", "embedding", "convolution"]
OF_TOWERS: tuple[Role, ...] = ("vision", "audio", "projector")  # what text does not pass


@dataclass(frozen=True)
class Source:
    """Where a fact comes from. `locator` is a place inside the source (table, line, commit)."""

    title: str
    url: str
    locator: str
    date: str
    kind: SourceKind


@dataclass(frozen=True)
class Notice:
    """Something the user should know, with a code that programs can match."""

    code: str
    message: str


@dataclass(frozen=True)
class Part:
    """A logical matrix inside a fused one. `tinker` says whether Tinker's layout puts an adapter on it."""

    name: str
    d_in: int
    d_out: int
    tinker: bool = True


@dataclass(frozen=True)
class Matrix:
    """One shape that stands in a model `len(layers) x experts` times.

    `name` is the module path as transformers spells it, with `{}` for the layer number. `kind` is what the
    library makes of it: a Linear module, a Conv1D module (transposed weight), a bare 2-D parameter, a 3-D
    expert parameter, an embedding, a convolution (d_in = in channels / groups * kernel, d_out = out channels).
    `parts` are its logical matrices where it is fused. `tied` marks a matrix that shares its storage with
    another one and so adds no parameters. `outer` is the side of an expert that faces the hidden state: the
    input of gate and up, the output of down. `wide` marks a matrix that the library keeps in float32 under float16,
    and away from quantising loaders; `shared` one that several layers hold, which these loaders leave out too.
    `whole_in` are layers in which the model's own files, quantised by bitsandbytes, leave it in 16 bits.
    """

    name: str
    role: Role
    kind: Kind
    d_in: int
    d_out: int
    layers: tuple[int, ...] = (0,)
    experts: int = 1
    experts_active: int = 1
    bias: bool = False
    tied: bool = False
    parts: tuple[Part, ...] = ()
    outer: Literal["in", "out"] = "in"
    wide: bool = False
    shared: bool = False
    whole_in: tuple[int, ...] = ()

    @property
    def leaf(self) -> str:
        """The last component of the module path, as `target_modules` names it."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def runs(self) -> bool:
        """Whether tokens pass the module of this name: where encoder and decoder share a table they pass modules of
        the stacks' own (transformers' T5Stack, BartEncoder and their kin), so that pairs beside it meet nothing."""
        return self.leaf != "shared" and self.role not in ("vision", "audio")

    @property
    def copies(self) -> int:
        """How many layers hold this matrix."""
        return len(self.layers)

    @cached_property
    def logical(self) -> tuple[Part, ...]:
        """The logical matrices: its parts, or itself where it is not fused."""
        return self.parts or (Part(self.leaf, self.d_in, self.d_out),)

    @cached_property
    def params(self) -> int:
        """Stored parameters over all layers and experts, bias included; nothing where tied (bias excepted)."""
        weights = 0 if self.tied else self.d_in * self.d_out
        return (weights + (self.d_out if self.bias else 0)) * self.copies * self.experts

    @cached_property
    def params_active(self) -> int:
        """Parameters that one token meets: `experts_active` of the experts."""
        return self.params // self.experts * self.experts_active


@dataclass(frozen=True)
class Vector:
    """Parameters that are no matrix: norms, gates, decay rates. `size` is per layer."""

    name: str
    size: int
    layers: tuple[int, ...] = (0,)

    @property
    def params(self) -> int:
        """Parameters over all layers."""
        return self.size * len(self.layers)


Length = Literal["sequence", "memory"]


@dataclass(frozen=True)
class Apply:
    """A weight matrix applied to a value.

    `length` says how many positions: those of the block ("sequence"), those of the cross-attended memory
    ("memory"). `extra` adds positions (a padded convolution), `per` divides them (a strided one), `times` multiplies
    them (0 for what sees a fixed number, as the first token alone). `layer` is the matrix's where not the block's.
    `forward_only` marks work that no gradient reaches (an indexer behind a top-k). `groups` are those of a
    convolution. `at_least` positions are filled up to where the layer keeps a cache (no checkpointing).
    `bypassed`: the forward reads the weight past its module, so that an adapter on the module does no work.
    `all_experts`: the library computes every expert at every position, whichever are active. In sequences shorter
    than `gradient_from` no gradient reaches it.
    """

    matrix: int
    source: int
    out: int
    length: Length = "sequence"
    extra: int = 0
    per: int = 1
    forward_only: bool = False
    groups: int = 1
    at_least: int = 0
    bypassed: bool = False
    all_experts: bool = False
    gradient_from: int = 0
    times: int = 1
    layer: int | None = None


@dataclass(frozen=True)
class Attend:
    """Scores (q times k) and values (probabilities times v); no weights of its own. A `chunked` window does not
    slide: positions attend within chunks of that size. With `compress` each key stands for so many positions, and
    a rest that does not fill one has none. `bias` is a value that is added to the scores, by which each position
    keeps `chosen` others where that is given. `pairs` of positions meet where these attend in pieces of a length of
    their own, as an image's windows; None: all of them."""

    q: int
    k: int
    v: int
    out: int
    n_heads: int
    n_kv_heads: int
    d_qk: int
    d_v: int
    window: int | None = None
    causal: bool = True
    memory: bool = False
    chunked: bool = False
    compress: int = 1
    bias: int | None = None
    pairs: int | None = None
    chosen: int | None = None


@dataclass(frozen=True)
class Product:
    """A product of two activations other than attention, `macs_per_position` multiply-adds per position. `one_sided`:
    what stands right is made of positions, and needs no gradient."""

    left: int
    right: int
    out: int
    macs_per_position: int
    one_sided: bool = False


# "pairs" is every chunk's state with every other's and the initial one: (n + 1)^2 products for n chunks.
Chunks = Literal["none", "each", "not-first", "not-last", "pairs"]


@dataclass(frozen=True)
class Scan:
    """A product of two activations in a scan over chunks of `chunk` positions, the last one padded or `ragged`.

    A chunk of c positions takes `macs` * c^`power` multiply-adds. `forward`, `left_grad` and `right_grad` say in
    which chunks the product and the gradients of its sides are computed: no gradient reaches the state before
    the first chunk nor the one after the last. `apart`: so many heads run one after another.
    """

    left: int
    right: int
    out: int
    chunk: int
    macs: int
    power: int = 1
    ragged: bool = False
    forward: Chunks = "each"
    left_grad: Chunks = "each"
    right_grad: Chunks = "each"
    apart: int = 1


@dataclass(frozen=True)
class Join:
    """Anything elementwise: the result needs a gradient where one of its inputs does."""

    sources: tuple[int, ...]
    out: int


@dataclass(frozen=True)
class Keep:
    """Keeps a value under a name for later layers: keys and values that they reuse, inputs made for all of them."""

    source: int
    name: str
    out: int


@dataclass(frozen=True)
class Recall:
    """Brings back the value that an earlier layer kept under this name."""

    name: str
    out: int


Operation = Apply | Attend | Product | Scan | Join | Keep | Recall

STREAM = 0
MEMORY = 1


@dataclass(frozen=True)
class Block:
    """One layer, repeated for every number in `layers`: value 0 comes in, value `out` leaves.

    `stack` names the run of layers it belongs to ("stem", "encoder", "decoder", "head"); value 1 is the encoder's
    output where the block attends to one (with no encoder, the embedding's output). `fixed_length` replaces the
    workload's sequence length (Whisper's 1500 frames). `open_end` says that the last matrix product is only added
    to the stream: nothing saves its result, so checkpointing does not compute it again. False where a norm or a
    weighting follows it. `features` says that data come in (sound), which need no gradient, and that the result
    counts as the embedding. `clamps`: in float16 its code clamps what it hands on ("end") or every sum on the stream
    ("sums"), which keeps what it reads.
    """

    stack: str
    layers: tuple[int, ...]
    operations: tuple[Operation, ...]
    out: int
    fixed_length: int | None = None
    open_end: bool = True
    features: bool = False
    clamps: Literal["none", "end", "sums"] = "none"


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a sequence: `count` of `width` x `height` pixels, as the model's processor hands them on.

    `tokens` are the positions that they take in the sequence, marks around them included; `rows` those of them that
    the tower's features fill. The `tower` (with its connector; roles as in a text model, names as in the whole one,
    whose matrix `indices[i]` is the tower's i) runs `units` of them in a sequence (images, tiles), each of `length`
    positions, in blocks "stem", "encoder", "unused" (layers that run for nothing) and "connector". `pixel_shape` is
    that of a sequence's pixel values, `grid` the patches of an image by frames, height and width where the model is
    told them. `hooked`: with checkpointing, transformers makes the tower's patches need a gradient as it does the
    embedding's tokens. `masked`: attention is given a mask because image tokens see each other,
    `masked_windows`: in windows alone. `merged`: all units of a micro-batch pass the tower as one sequence, in which
    a mask keeps them apart unless a flash kernel takes their lengths.
    """

    count: int
    width: int
    height: int
    tokens: int
    rows: int
    tower: Architecture
    indices: tuple[int, ...]
    units: int
    length: int
    pixel_shape: tuple[int, ...]
    grid: tuple[int, int, int] | None
    hooked: bool
    masked: bool
    sources: tuple[Source, ...]
    merged: bool = False
    masked_windows: bool = False


def _outermost(name: str) -> str:
    """The first part of a module's path, behind the model's own."""
    return name.removeprefix("model.").partition(".")[0]


@dataclass(frozen=True, eq=False)
class Architecture:
    """A model as an inventory. `flops_gap` says why no exact FLOP count exists, where none does. `built_by` names the
    library and version that the inventory was read from, where no builder of ours made it. `activation` is the name
    of the MLPs' activation function, where the config says one; `dropouts` are the rates of dropout that it says, by
    its own names. `class_name` is that of the model's class, where the config says one,
    `uncapped` are fields of softcapping that it sets to null; `use_cache`: it does not say that a forward pass
    caches no keys and values. `images` are those of every sequence, None where a step is of text alone.

    Two architectures are equal where they are the same object: caches are keyed by it.
    """

    model_type: str
    hidden_size: int
    n_layers: int
    vocab_size: int
    matrices: tuple[Matrix, ...]
    vectors: tuple[Vector, ...]
    blocks: tuple[Block, ...]
    max_position: int | None = None
    tied_embeddings: bool = False
    flops_gap: str | None = None
    notes: tuple[str, ...] = field(default=())
    built_by: str | None = None
    activation: str | None = None
    dropouts: tuple[tuple[str, float], ...] = ()
    bystanders: tuple[str, ...] = ()
    class_name: str | None = None
    uncapped: tuple[str, ...] = ()
    use_cache: bool = True
    images: Images | None = None

    @cached_property
    def params(self) -> int:
        """Unique parameters, tied matrices once."""
        return sum(m.params for m in self.matrices) + sum(v.params for v in self.vectors)

    @cached_property
    def params_active(self) -> int:
        """Parameters that one token meets."""
        return sum(m.params_active for m in self.matrices) + sum(v.params for v in self.vectors)

    @cached_property
    def towers(self) -> frozenset[str]:
        """The modules that hold towers of images and sounds and their projectors alone, by their first names."""
        inside = {_outermost(m.name) for m in self.matrices if m.role in OF_TOWERS}
        return frozenset(inside - {_outermost(m.name) for m in self.matrices if m.role not in OF_TOWERS})

    def in_towers(self, part: Matrix | Vector) -> bool:
        """Whether a matrix or a vector is of a tower or its projector."""
        return _outermost(part.name) in self.towers

    @cached_property
    def tower_params(self) -> int:
        """Parameters of towers and projectors."""
        parts: tuple[Matrix | Vector, ...] = (*self.matrices, *self.vectors)
        return sum(part.params for part in parts if self.in_towers(part))

    @cached_property
    def stacks(self) -> tuple[tuple[str, tuple[tuple[int, Block], ...]], ...]:
        """Stacks in the order in which they run, each with its layers in order: their numbers and blocks."""
        found: dict[str, list[tuple[int, Block]]] = {}
        for block in self.blocks:
            found.setdefault(block.stack, []).extend((layer, block) for layer in block.layers)
        return tuple(
            (name, tuple(sorted(layers, key=lambda pair: pair[0]))) for name, layers in found.items()
        )

    @cached_property
    def is_encoder_decoder(self) -> bool:
        """Whether a decoder reads what an encoder makes."""
        return {"encoder", "decoder"} <= {block.stack for block in self.blocks}

    @cached_property
    def n_experts(self) -> int:
        """Experts of a layer that stand in one tensor; 1 where there are none."""
        return max((matrix.experts for matrix in self.matrices if matrix.kind == "experts"), default=1)

    @cached_property
    def has_experts(self) -> bool:
        """Whether tokens are routed to experts that stand in one tensor."""
        return any(matrix.kind == "experts" for matrix in self.matrices)

    def lengths(self, seq_len: int) -> dict[str, int]:
        """Positions by stack, and of the "memory" that a decoder attends to: as many as an encoder has whatever the
        text, or the sequence's."""
        fixed = next((block.fixed_length for block in self.blocks if block.stack == "encoder"), None)
        return {**{name: seq_len for name, _ in self.stacks}, "memory": fixed or seq_len}
