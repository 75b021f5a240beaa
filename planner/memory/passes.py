"""What the modules of a forward pass need to know: sizes of a micro-step, widths of dtypes, and choices."""

from __future__ import annotations

from dataclasses import field

from ..choices import DTYPE_BYTES, AttentionKernel, Kernels
from ..dataclass import dataclass
from ..setup import Setup
from .tape import Buffer, Size, Tape, Value, cast

FLOAT32, HALF = 4, 2  # bytes of a value in float32 and in 16 bits
CASTS = "casts"  # the label of weights that autocast lowered
COPIES = "copies"  # of what is as large as a weight: one that is made whole of its bits, a norm of one


@dataclass
class Pass:
    """One run over a tape.

    Sizes on this GPU: `sequences` of `length` positions, `tokens` of both and `pairs` of positions with positions,
    parts of one included where a pass is cut. `reach` is the length that windows are compared with.

    Bytes a value: `compute` of what matrix products make, `stream` of the embedding's result, `base` of frozen
    weights, `trained` of trained ones, `saved` of what is trained in full beside an adapter, `norms` of weights that
    nobody quantises (`wide_norms`: norms' own are float32). `half`: 16 bits are float16; `widens`: matrices that the
    library keeps wide are then in float32. `apart`: an adapter's 16 bits are of the other kind, so that what they
    meet is copied, and sums and products with them are float32.

    `selects`: selective checkpointing runs, `products` so far are counted, and the `results` that it keeps, by their
    buffers' numbers; a pass without gradients holds these itself (`selected`).

    What is trained: `full`: every weight; `norm_biases`: biases of norms alone; `flat`: frozen weights have gradients
    too, as those of one flat parameter; `grad`: whether the pass makes
    gradients at all; `first`: a checkpointed layer runs for the first time, and drops as if it did; `again`: it
    runs once more.

    Whose code runs: `kernel` attention's, `kernels` elementwise; under `autocast` products choose their type, and
    `casts` are the weights that it lowered; with `recasts` those in 16 bits of the other kind are among them, and
    what is added up of both kinds is float32. `handed`: what a layer hands on beside its result; `named`: what
    attention's code has names for until the product behind it is done, `returned` what the layer's has; `inside`:
    numbers of buffers that a checkpoint inside of a checkpointed layer holds; `leaves`: of what a reentrant one has
    detached and wants a gradient of, whose one cast autocast keeps for all that read it. `masked`: attention gets a
    mask as a tensor. `dropout`: what pairs read is dropped; `dropped`: there is a module for it, whose rate
    may be 0. `int8`: quantised weights are multiplied in 8 bits; `bitsandbytes`: it holds them; `inputs_kept`: their
    products keep what they `read`, which stays until the graph goes (`reads_all`: also where the pass makes no
    gradients, but the library's makes a graph that a checkpoint empties of all else); `before` are the buffers that
    litgpt's loop was found to hold of the micro-step before, with `before_held`. This, `fused_heads` and
    `squares_kept` as the set-up has it; `copy_shared`: quantised matrices are made whole in one buffer.

    The loss: `outputs_held` and `outputs_widened` as the set-up has them. `preference`: it is of preferences, and
    scores all positions of a sequence but `unscored`; `sampled`: it is of completions (GRPO).

    Several GPUs: matrices are `split` over tensor-parallel ones, and with `split_stream` the hidden states between
    them by positions; experts over `expert_split`. Keys and values of `ring` GPUs are gathered for attention.
    """

    tape: Tape
    sequences: float
    length: float
    tokens: float
    pairs: float
    compute: int
    stream: int
    base: int
    trained: int
    full: bool
    autocast: bool
    kernel: AttentionKernel
    kernels: Kernels
    dropout: bool
    dropped: bool
    masked: bool
    int8: bool
    reach: int
    split: int = 1
    split_stream: bool = False
    ring: int = 1
    expert_split: int = 1
    grad: bool = True
    outputs_held: bool = False
    preference: bool = False
    unscored: int = 1
    sampled: bool = False
    outputs_widened: bool = False
    saved: int = FLOAT32
    inputs_kept: bool = False
    before_held: bool = False
    fused_heads: bool = False
    squares_kept: bool = False
    copy_shared: bool = False
    norms: int = 2
    wide_norms: bool = False
    half: bool = False
    norm_biases: bool = False
    flat: bool = False
    bitsandbytes: bool = False
    widens: bool = False
    first: bool = False
    again: bool = False
    casts: list[Buffer] = field(default_factory=list)
    handed: list[Value] = field(default_factory=list)
    named: list[Value] = field(default_factory=list)
    returned: list[Value] = field(default_factory=list)
    inside: list[int] = field(default_factory=list)
    read: list[Buffer] = field(default_factory=list)
    reads_all: bool = False
    before: set[int] = field(default_factory=set)
    apart: bool = False
    recasts: bool = False
    selects: bool = False
    products: int = 0
    results: list[int] = field(default_factory=list)
    selected: list[Buffer] = field(default_factory=list)
    leaves: dict[int, Value | None] = field(default_factory=dict)

    def made(self, buffer: Buffer, *, counted: bool = True) -> None:
        """Note a result where selective checkpointing keeps it: of every second product that is `counted`, the first
        among them, and of all else."""
        if not self.selects:
            return
        self.products += counted
        if not counted or self.products % 2:
            self.results.append(buffer.index)
            if not self.grad:
                self.selected.append(buffer)

    @property
    def joins_pairs(self) -> bool:
        """Whether matrices run with their pairs in functions of their own (unsloth/kernels/fast_lora.py, and after it
        axolotl 0.10, src/axolotl/kernels/lora.py, which are not taken to drop anything, nor for a base in 8 bits)."""
        return not self.dropout and (self.kernels == "unsloth" or (self.kernels == "pairs" and not self.int8))

    @property
    def drops(self) -> bool:
        """Whether dropout is on."""
        return self.grad or self.first

    @property
    def whole(self) -> int:
        """Bytes a value of a matrix that is trained in full."""
        return self.trained if self.full else self.saved

    @property
    def rows(self) -> float:
        """Positions of the residual stream on this GPU."""
        return self.tokens * (1 / self.split) if self.split_stream else self.tokens

    def lower(self, parameters: Size, *, trained: bool) -> Buffer:
        """A weight as autocast lowers it; casts of trained ones are kept until autocast is left."""
        made = self.tape.new(parameters * self.compute, CASTS if trained else None)
        if trained:
            self.casts.append(made)
        return made

    def hold(self, value: Value) -> None:
        """Hold what a product with a quantised weight reads as bitsandbytes does: as an attribute of its node."""
        if self.reads_all or (self.grad and value.node is not None):
            self.read.append(value.buffer)

    def kept_before(self, value: Value) -> Buffer | None:
        """What quantised products kept of a value in the micro-step before: litgpt's loop holds the last loss until
        it has the next, and with it what bitsandbytes did not save as autograd's. Once for a value that several read.
        """
        if not self.before_held or value.buffer.index in self.before:
            return None
        self.before.add(value.buffer.index)
        return self.tape.new(value.bytes)

    def cast_in(self, value: Value) -> Value:
        """A value as autocast hands it to a matrix product."""
        number = value.buffer.index
        if not self.autocast or value.width == self.compute or number not in self.leaves:
            return cast(value, self.compute) if self.autocast else value
        found = self.leaves[number] or cast(value, self.compute)
        self.leaves[number] = found
        return found

    def detach(self, value: Value, reentrant: bool = True) -> None:
        """Note what a reentrant checkpoint hands on as a leaf that wants a gradient: of float32, one cast is kept."""
        if reentrant and self.autocast and value.node is not None and value.width == FLOAT32:
            self.leaves[value.buffer.index] = None

    def leave_autocast(self) -> None:
        """Forget what it has lowered."""
        self.casts.clear()
        self.leaves.clear()


def sizes(setup: Setup) -> tuple[int, int, int, int]:
    """Sequences, length, tokens and pairs of positions that one GPU holds: b, s, b s / n and b s^2 / n with n GPUs
    sharing each sequence."""
    b, s, n = setup.sequences, setup.seq_len, setup.sequence_parallel
    return b, s // n, b * s // n, b * s * s // n


def _masked(setup: Setup) -> bool:
    """Whether attention gets a mask as a tensor: with padding, and with packed documents unless the flash kernel
    takes their lengths."""
    return setup.packing == "padded" or (setup.packing == "packed" and setup.attention_kernel != "flash")


def fsdp_mixed(setup: Setup) -> bool:
    """Whether float32 shards are gathered in 16 bits: the mixed precision of FSDP, in which modules see narrow
    weights."""
    return setup.precision == "autocast" and setup.sharding in ("fsdp", "fsdp-hybrid")


def _apart(setup: Setup) -> bool:
    """Whether an adapter is in 16 bits of the other kind than those that are computed in."""
    kinds = {setup.trained_dtype, setup.compute_dtype}
    return setup.method != "full" and not fsdp_mixed(setup) and kinds == {"float16", "bfloat16"}


def shares_copy(setup: Setup) -> bool:
    """Whether products make quantised matrices whole in one buffer that stays: Unsloth's functions, which drop
    nothing."""
    return setup.copy_shared and setup.kernels == "unsloth" and not setup.lora_dropout


def make_pass(
    setup: Setup, *, merges: bool = False, accumulates: bool = False, length: int | None = None
) -> Pass:
    """A pass with the sizes and choices of a setup, on a new tape; `length` replaces the sequences'."""
    b, s, tokens, pairs = sizes(setup)
    if length is not None:
        s, tokens, pairs = length, b * length, b * length * length
    mixed = fsdp_mixed(setup)
    width = DTYPE_BYTES[setup.compute_dtype if mixed else setup.weight_dtype]
    recasts = setup.under_autocast and {setup.weight_dtype, setup.compute_dtype} == {"float16", "bfloat16"}
    stream = FLOAT32 if setup.upcast_small or recasts else width
    return Pass(
        tape=Tape(merges=merges, accumulates=accumulates), sequences=b, length=s, tokens=tokens, pairs=pairs,
        compute=DTYPE_BYTES[setup.compute_dtype], stream=stream, norms=stream, widens=setup.weight_dtype == "float16",
        base=width, half=setup.compute_dtype == "float16",
        trained=width if mixed else DTYPE_BYTES[setup.trained_dtype],
        full=setup.method == "full", autocast=setup.under_autocast and not mixed, kernel=setup.attention_kernel,
        kernels=setup.kernels, dropout=setup.lora_dropout > 0 and setup.drops, dropped=setup.lora_dropout > 0,
        masked=_masked(setup),
        int8=setup.quantize == "int8", bitsandbytes=setup.quantize in ("nf4", "nf4-double", "int8"),
        reach=setup.seq_len, ring=setup.sequence_parallel if setup.keys_gathered else 1,
        wide_norms=setup.upcast_norms and stream < FLOAT32,
        split=setup.tensor_parallel, split_stream=setup.split_stream and setup.tensor_parallel > 1,
        expert_split=setup.expert_parallel, outputs_held=setup.outputs_held, preference=setup.objective != "sft",
        unscored=max(1, setup.prompt_tokens), sampled=setup.objective == "grpo",
        outputs_widened=setup.outputs_widened and setup.under_autocast,
        saved=width if mixed or not setup.upcast_small else FLOAT32, inputs_kept=setup.quantised_inputs_kept,
        before_held=setup.before_held, fused_heads=setup.fused_heads, apart=_apart(setup),
        squares_kept=setup.squares_kept, copy_shared=shares_copy(setup), recasts=recasts,
    )  # fmt: skip
