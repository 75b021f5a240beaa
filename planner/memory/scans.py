"""Scans of state-space and linear-attention layers as CUDA's kernels run them: what they keep, and what they
hold while they run.

The kernels are those that transformers calls where they are installed: causal_conv1d_fn, selective_scan_fn (Mamba),
mamba_chunk_scan_combined (Mamba 2) and chunk_gated_delta_rule. Sizes a position follow from the block's widths.
Neglected: the padding of a last chunk (less than a chunk's part of a sequence), and the fused kernels that take
the projections in (they keep less, and pass by adapters).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from ..dataclass import dataclass
from ..schema import Apply, Architecture, Block, Join, Scan
from .elementwise import by_wide, norm, rms_norm
from .layout import uses
from .passes import FLOAT32, Pass
from .products import Weight
from .tape import Buffer, Gradients, Size, Value, by_tensor, cast, copy, multiply, piece, unary

# Types whose scan's kernel has no rule here: Kimi Delta Attention's (chunk_kda), with a decay for every channel.
UNRULED_SCANS = frozenset({"kimi_linear"})
SIDES_NORMED = ("jamba", "falcon_mamba")  # types that norm what makes time steps, B and C, in float32
SCAN_CHUNK = 2048  # positions between the states that selective_scan keeps


@dataclass(frozen=True)
class Mixer:
    """A scan in a block. `inside` are its elementwise operations and products, which one kernel runs at `first`;
    `last` joins its result with the gate. Widths: `inner` of the result, `keys` of queries and of keys, `state`
    of a row of a state (a head's keys in the delta rule); `groups` share theirs. `apart`: so many heads, each with a
    kernel of its own (Zamba). `sides_normed`: what makes time steps, B and C is normed in float32."""

    kind: Literal["selective", "chunked", "delta"]
    inside: frozenset[int]
    first: int
    last: int
    convolution: int
    convolved: int
    inner: int
    heads: int
    state: int
    groups: int
    chunk: int
    keys: int
    normed: bool
    apart: int = 1
    sides_normed: bool = False


@lru_cache(maxsize=512)
def mixer_of(arch: Architecture, block: Block) -> Mixer | None:
    """The scan of a block, None where it has none of these kinds."""
    ops = block.operations
    scans = [i for i, op in enumerate(ops) if isinstance(op, Scan)]
    if not scans:
        return None
    joins = {op.out for op in ops if isinstance(op, Join)}
    conv = _latest(arch, block, scans[0])
    end = next((op for op in ops[scans[-1] :] if isinstance(op, Apply) and op.source in joins), None)
    if conv is None or end is None:
        return None
    last = next(i for i, op in enumerate(ops) if op.out == end.source)
    inside = frozenset(i for i in range(conv + 1, last + 1) if isinstance(ops[i], (Join, Scan)))
    found = [op for op in ops if isinstance(op, Scan)]
    inner, width = arch.matrices[end.matrix].d_in, arch.matrices[_apply(block, conv).matrix].d_out
    state = max(op.macs for op in found if op.power == 1) // inner
    kind: Literal["selective", "chunked", "delta"] = "chunked"
    if found[0].chunk == 1:
        kind = "selective"
    elif any(op.forward == "none" for op in found):
        kind = "delta"
    heads = max(1, found[0].macs // state)
    groups = (width - inner) // (2 * state) if kind == "chunked" else 1
    prefix = arch.matrices[_apply(block, conv).matrix].name.removesuffix("conv1d")
    return Mixer(
        kind, inside, min(inside), last, _apply(block, conv).source, width, inner, heads, state, groups,
        found[0].chunk, (width - inner) // 2, f"{prefix}norm.weight" in {v.name for v in arch.vectors},
        found[0].apart, arch.model_type in SIDES_NORMED,
    )  # fmt: skip


def read_turned(mixer: Mixer | None, block: Block) -> int:
    """The number of the matrix that reads what a scan makes with time innermost; -1 where none does."""
    if mixer is None or mixer.kind != "selective":
        return -1
    made = block.operations[mixer.last].out
    found = [op.matrix for op in block.operations if isinstance(op, Apply) and op.source == made]
    return found[0] if found else -1


def _latest(arch: Architecture, block: Block, before: int) -> int | None:
    """The last convolution before an operation."""
    found = None
    for i, op in enumerate(block.operations[:before]):
        if isinstance(op, Apply) and arch.matrices[op.matrix].kind == "convolution":
            found = i
    return found


def _apply(block: Block, number: int) -> Apply:
    op = block.operations[number]
    assert isinstance(op, Apply)
    return op


def convolve(run: Pass, x: Value, weight: Weight, mixer: Mixer) -> Value:
    """A causal depthwise convolution with its activation in one kernel: keeps what it reads, a slice of x, or of it
    anew queries, keys and values (in the delta rule) or every other row (of heads that run apart)."""
    width = weight.d_out
    if (mixer.kind == "delta" or mixer.apart > 1) and x.elements != run.tokens * width:
        x = copy(piece(x, run.tokens * width))
    return by_filters(run, x, run.tokens * width, weight)


def by_filters(run: Pass, x: Value, elements: Size, weight: Weight) -> Value:
    """One filter a channel: keeps what it reads. Of what is trained the bias alone has a gradient that is counted:
    filters are a few thousandths of a layer."""
    tape, size, shifts = run.tape, elements * x.width, weight.bias_trained and run.grad
    needs = x.node is not None

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size) if needs else None
        if shifts:
            tape.gradient(weight.d_out * weight.width)
        return (made,)

    return tape.apply((x,), elements, x.width, (x.buffer,), rule, trains=shifts)


def scanned(run: Pass, mixer: Mixer, values: Mapping[int, Value], block: Block) -> Value:
    """The scan's kernel, of the values that the block's projections made."""
    op = block.operations[mixer.first]
    assert isinstance(op, Join)
    convolved = values[op.sources[0]]
    if run.masked and run.sequences != 1:  # padding is set to 0 again
        convolved = by_tensor(convolved)
    scan = next(each for each in block.operations[mixer.first :] if isinstance(each, Scan))
    if mixer.apart > 1:
        sides = values[scan.right]
        return _by_heads(run, mixer, convolved, values[op.sources[-1]], values[mixer.convolution], sides)
    if mixer.kind == "selective":
        sides = values[scan.right]
        return _selective(run, mixer, convolved, values[op.sources[-1]], values[mixer.convolution], sides)
    if mixer.kind == "delta":
        strengths = dict.fromkeys((op.sources[-1], uses(block.operations[mixer.first + 1])[-1]))
        return _delta_rule(run, mixer, convolved, [values[number] for number in strengths])
    return _chunked(run, mixer, convolved)


def _selective(run: Pass, mixer: Mixer, u: Value, step: Value, projected: Value, from_u: Value) -> Value:
    """Mamba's scan, gated: keeps u and the gate with time innermost (copies), the time step, the result before the
    gate, B and C, and a state (two float32 values) every 2,048 positions. Sizes are positions x inner. Norms of what
    was projected `from_u` keep it in float32."""
    tape, width = run.tape, u.width
    size, sides = run.tokens * (mixer.inner * width), run.tokens * (2 * mixer.state * width)
    gate = piece(projected, run.tokens * mixer.inner)
    copies = tape.new(size), tape.new(size), tape.new(sides)
    states = _states(run, mixer)
    before = tape.new(size)

    def rule(g: Buffer) -> Gradients:
        wide = tape.new(run.tokens * (2 * mixer.state * FLOAT32))
        made = tape.new(size), tape.new(size), tape.new(size)
        del wide
        return made

    normed = tape.new(from_u.elements * (FLOAT32 * mixer.sides_normed))
    kept = (*copies, step.buffer, states, before, normed, _rates(run, mixer))
    return tape.apply((u, step, gate), run.tokens * mixer.inner, width, kept, rule)


def _rates(run: Pass, mixer: Mixer) -> Buffer:
    """A, which is made of its logarithm in float32."""
    return run.tape.new(mixer.inner * (mixer.state * FLOAT32))


def _states(run: Pass, mixer: Mixer) -> Buffer:
    """Two float32 values for each state of each chunk of 2,048 positions of a sequence, the last one begun."""
    chunks = -(-run.length // SCAN_CHUNK) * run.sequences
    return run.tape.new(chunks * (2 * mixer.inner * mixer.state * FLOAT32))


def _by_heads(run: Pass, mixer: Mixer, u: Value, step: Value, projected: Value, sides: Value) -> Value:
    """Mamba's scan, gated, of one head after another, and their results joined: keeps u, the time step and what B and
    C are parts of (`sides`) as they are, a copy of the gate with time innermost, the result before the gate and a
    state every 2,048 positions. The gradients of a head are laid into zeros as large as all heads' before the next
    one's are added to these."""
    tape, width = run.tape, u.width
    size = run.tokens * (mixer.inner * width)
    gate = piece(projected, run.tokens * mixer.inner)
    copied, before = tape.new(size), tape.new(size)
    states = _states(run, mixer)
    run.named.append(tape.leaf(size, 1, grad=False))  # a list of the heads' results
    share = 1 / mixer.apart

    def rule(g: Buffer) -> Gradients:
        first = [tape.new(size * share) for _ in range(3)]
        made = [tape.new(size) for _ in first]
        del first
        others = [tape.new(size * share) for _ in made]
        laid = tape.new(size)
        del others, laid
        return made

    others = tape.new(sides.bytes * (mixer.apart - 1))
    kept = (u.buffer, step.buffer, copied, before, states, sides.buffer, others, _rates(run, mixer))
    return tape.apply((u, step, gate), run.tokens * mixer.inner, width, kept, rule)


def _chunked(run: Pass, mixer: Mixer, x: Value) -> Value:
    """Mamba 2's scan: keeps x, B and C, its result and a float32 sum a head and position. Forward and backward hold
    a state (inner x state) a chunk in float32 and in x's type, and C B of all pairs within chunks in float32; the
    backward pass also the states' gradients, those of C B, and B's and C's gradients in float32."""
    tape, tokens, width = run.tape, run.tokens, x.width
    size, state = tokens * (mixer.inner * width), tokens * (mixer.inner * mixer.state / mixer.chunk)
    pairs, sides = tokens * (mixer.groups * mixer.chunk * FLOAT32), tokens * (mixer.groups * mixer.state)
    sums = tape.new(tokens * (mixer.heads * FLOAT32))
    held = [
        tape.new(each) for each in (tokens * (mixer.heads * FLOAT32), state * FLOAT32, state * width, pairs)
    ]
    out = tape.new(size)
    del held

    def rule(g: Buffer) -> Gradients:
        again = [tape.new(each) for each in (state * FLOAT32, state * width, pairs, state * width, pairs)]
        wide = tape.new(sides * (2 * FLOAT32))
        made = tape.new(size), tape.new(sides * (2 * width))
        del again, wide
        whole = tape.new(tokens * (mixer.convolved * width))
        del made
        return (whole,)

    return tape.apply((x,), tokens * mixer.inner, width, (x.buffer, sums, out), rule, out=out)


def _delta_rule(run: Pass, mixer: Mixer, qkv: Value, strengths: Sequence[Value]) -> Value:
    """The gated delta rule of queries, keys and values with write strengths and decays: keeps normed queries and
    keys, values, a float32 sum and a write strength a head and position, and of each position its row of the chunk's
    triangle. Forward and backward hold two products of the triangle, a state (keys x values) a chunk and new values;
    the backward pass also the gradients of states and values, and three of keys."""
    tape, tokens, width = run.tape, run.tokens, qkv.width
    values, keys = tokens * (mixer.inner * width), tokens * (mixer.heads * mixer.state * width)
    states = tokens * (mixer.inner * mixer.state * width / mixer.chunk)
    own = tokens * (mixer.keys * width)
    kept = [
        tape.new(own),
        tape.new(own),
        tape.new(values),
        tape.new(tokens * (mixer.heads * (FLOAT32 + width))),
    ]
    kept.append(tape.new(tokens * (mixer.heads * mixer.chunk * width)))
    sides = [each.bytes if each.node else None for each in strengths]
    held = [tape.new(each) for each in (keys, values, states, values)]
    out = tape.new(values)
    del held

    def rule(g: Buffer) -> Gradients:
        again = [tape.new(each) for each in (keys, values, states, values, states, values, keys, keys, keys)]
        made = tape.new(own), tape.new(own), tape.new(values)
        del again
        whole = tape.new(tokens * (mixer.convolved * width))
        del made
        return (whole, *(None if size is None else tape.new(size) for size in sides))

    return tape.apply((qkv, *strengths), tokens * mixer.inner, width, tuple(kept), rule, out=out)


def gated_result(run: Pass, mixer: Mixer, out: Value, source: Value) -> Value:
    """A scan's result with its gate, which is a slice of what a projection made, in float32: Mamba 2 gates before
    its norm, the delta rule after it."""
    if mixer.kind == "selective":
        return out
    width = out.width
    gate = piece(source, out.elements) if source.elements != out.elements else source
    if mixer.kind == "delta":
        head = mixer.inner // mixer.heads
        widens = width < run.norms and not run.full
        normed = by_wide(norm(run, out, 0, "rms")) if widens else norm(run, out, head, "rms")
        if run.full:
            normed = cast(normed, max(width, run.norms))
        return cast(multiply(normed, unary(cast(gate, FLOAT32), "in")), width)
    if not mixer.normed:
        return multiply(out, unary(gate, "in"))
    wide = multiply(cast(out, FLOAT32), unary(cast(gate, FLOAT32), "in"))
    return rms_norm(run, wide, mixer.inner, given=width)
