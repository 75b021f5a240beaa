"""Attention as the kernels run it: what eager, memory-efficient and flash attention keep and make on the way."""

from __future__ import annotations

from dataclasses import replace

from ..dataclass import dataclass
from .bias import ALIGNED, Shared, added, as_mask
from .decays import decays
from .elementwise import drop
from .passes import FLOAT32, HALF, Pass
from .ring import gathered
from .scores import batched, contiguous, floored, scale_mask, scaled_by, softmax, widened
from .tape import Buffer, Gradients, Size, Value, add, cast, copy, piece, scale, unary, view


@dataclass(frozen=True)
class Shape:
    """Heads and their widths, the `pairs` of positions of all sequences that meet, and what the model's code does.

    Which kernels it has: `eager`: no SDPA; `no_flash`: no flash attention; `single`: keys of one head that SDPA is
        not told to share; `pieced`: but under flash attention it runs in pieces, whose results are joined, and whose
        gradients are.
    Keys: of so many `rows` of another stack, None: of the queries' own positions.
    Scores: `masked`: a mask is given as a tensor; `mask_width`: bytes a value of one that all layers share and that
        is added as it is, 0 of truth values; `added`: at least so many of one that autocast's scores get. `open`: all
        see all, and no mask is added.
        `capped`: they pass through tanh (for which transformers 5 has no
        SDPA). `wide`: queries and keys are multiplied in float32. `bias`: one by position is added, `wide_bias`: one
        in float32. `decay`: a value for each key of each head, made in the layer, is added, by which each query
        meets `chosen` keys where there are more. `floored`: masked scores are raised to their type's least number.
    Softmax: `narrow`: it runs in the values' own type, in float32 under autocast, whose result is `lowered`, or
        dropped and handed on as it is. `sinks`: a score for each head stands beside the others, and
        the softmax is told its type, which autocast leaves; so it is of `lessened` scores, which are made less their
        maximum (and have a sink or not). `sink_scales`: the result is weighted by how much of the
        scores a head's sink leaves. `dropped`: probabilities pass through dropout. `handed`: the layer hands them
        on; `named`: scores have a name of their own until the softmax of their sum with a mask is done;
        `scores_named`: what goes into the softmax has one until attention is done (and the scores have where they are
        `named`); `scores_stay`: until the product behind it is.
    """

    n_heads: int
    n_kv_heads: int
    d_qk: int
    d_v: int
    pairs: Size
    masked: bool = False
    capped: bool = False
    eager: bool = False
    no_flash: bool = False
    narrow: bool = False
    dropped: bool = False
    wide: bool = False
    wide_bias: bool = False
    sinks: bool = False
    single: bool = False
    bias: Shared | None = None
    sink_scales: bool = False
    decay: Value | None = None
    pieced: bool = False
    floored: bool = False
    mask_width: int = 0
    handed: bool = False
    named: bool = False
    open: bool = False
    scores_named: bool = False
    scores_stay: bool = False
    lessened: bool = False
    chosen: int = 0
    rows: Size | None = None
    lowered: bool = False
    added: int = 0

    @property
    def grouped(self) -> bool:
        """Whether several queries share a key."""
        return self.n_heads != self.n_kv_heads


def attend(run: Pass, q: Value, k: Value, v: Value, shape: Shape) -> Value:
    """softmax(q k) v in the layout (batch, length, heads): flash where the setup's kernel is flash or SDPA can
    take it (16 bits, at most 256 a head, no mask), memory-efficient attention where SDPA cannot, or eager."""
    if run.fused_heads and shape.grouped:
        k = _repeated(run, k, shape, shape.d_qk, copies=True)
        v = _repeated(run, v, shape, shape.d_v, copies=True)
        shape = replace(shape, n_kv_heads=shape.n_heads)
    if run.autocast and run.kernel != "eager" and not shape.eager:
        if v.width > run.compute and v.elements != _keys(run, shape) * (shape.n_kv_heads * shape.d_v):
            v = piece(
                v, _keys(run, shape) * (shape.n_kv_heads * shape.d_v)
            )  # of what made keys' plain parts too
        q, k, v = run.cast_in(q), run.cast_in(k), run.cast_in(v)
    kernel = "sdpa" if run.kernel == "flash" and shape.no_flash else run.kernel
    if shape.pieced and kernel != "flash":
        return _in_pieces(run, q, k, v, replace(shape, pieced=False), kernel in ("eager", "math"))
    if kernel == "eager" or (shape.eager and kernel != "flash"):
        return _eager(run, q, k, v, shape)
    if kernel == "math":
        return _math(run, q, k, v, shape)
    if kernel == "flash":  # which takes 16 bits
        q, k, v = (cast(each, min(each.width, HALF)) for each in (q, k, v))
        if shape.d_v < shape.d_qk:
            return _widened_values(run, q, k, v, shape)
        if run.kernels == "transformer-engine":
            return _by_batch(run, q, k, v, shape)
    wide = shape.d_qk > 256 or shape.d_qk != shape.d_v
    flash = kernel == "flash" or (q.width < FLOAT32 and not shape.masked and not wide and shape.bias is None)
    flash = flash and shape.decay is None
    if flash:
        return _fused(run, q, k, v, shape, flash=True)
    maths = shape.grouped and not shape.masked and not wide and shape.decay is None
    if maths or shape.single:
        return _math(run, q, k, v, shape)
    if shape.grouped:
        k, v = _repeated(run, k, shape, shape.d_qk), _repeated(run, v, shape, shape.d_v)
    return _fused(run, q, k, v, shape, flash=False)


def _widened_values(run: Pass, q: Value, k: Value, v: Value, shape: Shape) -> Value:
    """Flash attention of values that are narrower than queries: padded to their width, and cut from what comes out,
    by a copy (transformers 5.23, integrations/flash_attention.py, flash_attention_forward)."""
    tape, size = run.tape, v.bytes
    padded = run.tokens * (shape.n_kv_heads * shape.d_qk)
    wide = tape.apply((v,), padded, v.width, (), lambda g: (tape.new(size),))
    del v
    out = _fused(run, q, k, wide, replace(shape, d_v=shape.d_qk), flash=True)
    return copy(piece(out, run.tokens * (shape.n_heads * shape.d_v)))


def _by_batch(run: Pass, q: Value, k: Value, v: Value, shape: Shape) -> Value:
    """Transformer Engine's flash attention of what lies as (length, batch, heads), as Megatron has it: of several
    sequences q, k and v are copied to (batch, length, heads), and the result, which the kernel keeps, back for the
    projection, which keeps its copy (TransformerEngine 1.6, transformer_engine/pytorch/attention.py,
    FlashAttention.forward). On Hopper it takes cuDNN's kernel instead, which copies nothing, but of which v is a view
    that holds queries and keys as they were before they were turned: about one hidden width a token more."""
    if run.sequences == 1:
        return _fused(run, q, k, v, shape, flash=True)
    return copy(_fused(run, copy(q), copy(k), copy(v), shape, flash=True))


def _in_pieces(run: Pass, q: Value, k: Value, v: Value, shape: Shape, eager: bool) -> Value:
    """Attention of each image apart, and what comes out joined. Fused kernels hold little of their own, so that all
    are taken as one; eager scores go one after another. Windows of an image count as one piece, whose scores are
    taken to be held at once: they are few."""
    q, k, v = (view(each, clones=True) for each in (q, k, v))
    count = int(run.sequences) if eager else 1
    if count == 1:
        return copy(attend(run, q, k, v, shape))
    share = 1 / count
    one = replace(run, sequences=1, tokens=run.tokens * share, pairs=run.pairs * share, returned=[])
    part = replace(shape, pairs=shape.pairs * share)
    found = []
    for _ in range(count):
        own = [view(each, each.elements * share) for each in (q, k, v)]
        found.append(attend(one, own[0], own[1], own[2], part))
        one.returned.clear()
        del own
    out, width = run.tokens * (shape.n_heads * shape.d_v), v.width
    return run.tape.apply(found, out, width, (), lambda g: [g] * count)


def _math(run: Pass, q: Value, k: Value, v: Value, shape: Shape) -> Value:
    """SDPA where no fused kernel takes the call (float32 with grouped heads, or grouped heads with a mask): scaled
    queries and keys, values for every head and probabilities, all in float32 and kept. Autocast is left inside.
    Float32 copies of what it is given have names until it returns."""
    if run.autocast:
        run = replace(run, autocast=False)
    tape, copies = run.tape, run.sequences != 1 or not shape.single
    wide_q, wide_k, wide_v = cast(q, FLOAT32), cast(k, FLOAT32), cast(v, FLOAT32)
    # Without gradients keys and values of as many heads go as they were laid out for a product, in place of these.
    named = (
        ((wide_q, wide_k, wide_v) if shape.grouped or run.grad else (wide_q,)) if shape.n_kv_heads > 1 else ()
    )
    q, k = scale(wide_q), scale(_repeated(run, wide_k, shape, shape.d_qk, copies=copies))
    del wide_q, wide_k
    if not shape.single:  # whose values the second product spreads by itself
        wide_v = _repeated(run, wide_v, shape, shape.d_v, copies=copies)
    scores = scale_mask(run, batched(run, q, k, shape.pairs * shape.n_heads))
    if shape.masked:
        scores = scale_mask(run, scores)
    chances = softmax(tape, scores, FLOAT32)
    del scores
    if shape.dropped and run.drops:
        chances = drop(run, chances)
    if shape.single:
        wide_v = _repeated(run, wide_v, shape, shape.d_v, copies=copies)
    mixed = batched(run, chances, wide_v, run.tokens * (shape.n_heads * shape.d_v))
    del named
    return cast(contiguous(mixed), v.width)


def _keys(run: Pass, shape: Shape) -> Size:
    """Positions of keys and values."""
    return run.tokens if shape.rows is None else shape.rows


def _repeated(run: Pass, x: Value, shape: Shape, d_head: int, *, copies: bool = False) -> Value:
    """Keys or values copied for every query head; the gradient is summed over the copies. A single head is not copied
    but looked at several times, unless a product `copies` what does not lie as it needs it, as with several
    sequences."""
    tape, size = run.tape, x.bytes
    single = x.buffer if shape.n_kv_heads == 1 and not copies else None
    return tape.apply(
        (x,),
        _keys(run, shape) * (shape.n_heads * d_head),
        x.width,
        (),
        lambda g: (tape.new(size),),
        out=single,
    )


def _fused(run: Pass, q: Value, k: Value, v: Value, shape: Shape, *, flash: bool) -> Value:
    """A fused kernel: keeps q, k, v, its result and the log-sum-exp of each row in float32.

    Backward: the gradients of q, k and v, one float32 value a row, a float32 accumulator as large as q's elements in
    whole tiles (of the memory-efficient kernel since it splits keys: kernel_backward.h, kNeedsAccumGradQ) and, under
    flash with grouped heads, keys' and values' gradients for every query head before they are summed.
    """
    tape, heads = run.tape, run.tokens * shape.n_heads
    out = tape.new(heads * (shape.d_v * v.width))
    sums = tape.new(heads * FLOAT32)
    run.made(out, counted=False)
    run.made(sums, counted=False)
    mask = None if flash else _mask(run, shape, v.width)
    sizes = (q.bytes, k.bytes, v.bytes)
    there, back = gathered(run, q, k, v, heads * shape.d_v)
    around = [tape.new(each) for each in there]
    del around
    width = v.width  # what a gradient's rule names must not be the shape, which holds a bias
    for_heads = [heads * (each * width) for each in (shape.d_qk, shape.d_v) if flash and shape.grouped]
    accumulated = heads * (_tiled(run, shape, flash=flash) * FLOAT32)

    def rule(g: Buffer) -> Gradients:
        around = [tape.new(each) for each in back]
        delta = tape.new(heads * FLOAT32)
        rows = tape.new(accumulated)
        dq, dk, dv = (tape.new(size) for size in sizes)
        spread = [tape.new(size) for size in for_heads]
        del delta, rows, spread, around
        return (dq, dk, dv) if mask_node is None else (dq, dk, dv, tape.new(of_mask))

    of_mask: Size = shape.pairs * (shape.n_heads * width)
    if mask is not None and mask.node is not None and mask.bytes != of_mask:
        mask = _spread(mask, of_mask)
    mask_node = None if mask is None else mask.node
    kept = (q.buffer, k.buffer, v.buffer, out, sums, mask.buffer if mask else None)
    inputs = (q, k, v) if mask is None else (q, k, v, mask)
    return tape.apply(inputs, heads * shape.d_v, width, kept, rule, out=out)


def _spread(mask: Value, size: Size) -> Value:
    """One mask seen as `size` bytes, one for each sequence, whose gradients are summed once attention's are made."""
    tape, one = mask.tape, mask.bytes
    return tape.apply(
        (mask,), size * (1 / mask.width), mask.width, (), lambda g: (tape.new(one),), out=mask.buffer
    )


def _tiled(run: Pass, shape: Shape, *, flash: bool) -> float:
    """Values a query that its gradient's accumulator has: widths in tiles of 32 (64 above 128, and of the
    memory-efficient kernel), with a share of the rows that fill the last tile of a sequence (128 or 64)."""
    wide, high = (32 if shape.d_qk <= 128 else 64, 128) if flash else (64, 64)
    length = max(1, round(run.length))
    return -(-shape.d_qk // wide) * wide * (-(-length // high) * high / length)


def _mask(run: Pass, shape: Shape, width: int) -> Value | None:
    """The additive mask that memory-efficient attention gets, in the type of the values, its rows padded to
    ALIGNED values by a copy; None where it needs none."""
    if shape.decay is not None:
        heads = shape.n_heads, shape.n_kv_heads
        found = decays(run, shape.decay, shape.pairs, heads, shape.chosen)
        run.named.append(found)
        return cast(found, width)
    if shape.bias is not None:
        return as_mask(run, shape.bias, shape.pairs, width, masked=shape.masked)
    if not shape.masked:
        return None
    if mask_as_given(run.length, shape.mask_width, width):
        return run.tape.leaf(0, width, grad=False)
    given = run.tape.leaf(0 if shape.mask_width == width else shape.pairs, width, grad=False)
    length = max(1, round(run.length))
    if length % ALIGNED == 0:
        return given
    padded = run.tape.leaf(shape.pairs * (-(-length // ALIGNED) * ALIGNED / length), width, grad=False)
    del given
    return padded


def mask_as_given(length: float, given: int, width: int) -> bool:
    """Whether the kernel takes a mask of `given` bytes a value as it is: in the values' type, rows of whole
    ALIGNED values."""
    return given == width and length % ALIGNED == 0


def _eager(run: Pass, q: Value, k: Value, v: Value, shape: Shape) -> Value:
    """Scores, softmax in float32 and their cast, each a matrix of all pairs of positions for every head."""
    copies, width = run.sequences != 1, v.width if _by_values(shape) else q.width
    if not shape.wide:  # autocast lowers each before it is laid down
        q, k = run.cast_in(q), k if shape.grouped else run.cast_in(k)
    q, k = copy(q), _repeated(run, k, shape, shape.d_qk, copies=copies)
    spread = shape.grouped and not shape.single  # else the second product copies values by itself
    if spread:
        v = _repeated(run, v, shape, shape.d_v, copies=copies)
    elif not shape.grouped and v.elements != _keys(run, shape) * (shape.n_heads * shape.d_v):
        v = piece(v, _keys(run, shape) * (shape.n_heads * shape.d_v))
    pairs = shape.pairs * shape.n_heads
    if shape.wide:
        q, k = cast(q, FLOAT32), cast(k, FLOAT32)
    weights, floats = batched(run, q, k, pairs), (q, k) if shape.wide else ()
    del q
    if not spread:
        del k
    weights = scale(weights)
    if shape.capped:
        weights = scale(unary(scale(weights), "out"))
    if shape.bias is not None:
        weights = added(run, weights, shape.bias)
    if shape.decay is not None:
        heads = shape.n_heads, shape.n_kv_heads
        weights = add(weights, decays(run, shape.decay, shape.pairs, heads, shape.chosen))
    if shape.wide_bias:
        weights = widened(run, weights)
    scores = weights.buffer if shape.named else None
    if not shape.open and (shape.bias is None or shape.masked or shape.bias.kind.causal):
        widens = shape.floored or run.autocast  # by a mask in the hidden states' type
        weights = scale_mask(run, weights, max(weights.width, run.norms, shape.added) if widens else 0)
    if shape.floored:
        weights = floored(run, weights)
    if shape.sinks and shape.lessened:
        weights = copy(weights)
    if shape.sinks or shape.lessened:  # joined, and less their maximum
        weights = scale_mask(run, weights if shape.lessened else copy(weights))
    share = _left_by_sink(run, weights, shape) if shape.sink_scales else None
    narrows = shape.narrow and (shape.sinks or shape.lessened or not run.autocast)
    at_once = narrows or (
        run.half and weights.width < FLOAT32
    )  # from float16 CUDA's softmax widens by itself
    wide = weights if at_once else cast(weights, FLOAT32)
    chances = softmax(run.tape, wide, weights.width if narrows else FLOAT32)
    bound = (*_bound(run, shape, weights, chances, scores), *floats)
    named = None if shape.lowered or shape.wide else weights  # where the cast is no statement of its own
    del wide, weights, scores, floats
    narrow = chances if _left_wide(shape) else cast(chances, width)
    del chances, named
    if shape.dropped and run.drops:
        narrow = drop(run, narrow)
    (run.handed if shape.handed else run.returned).append(narrow)
    if not spread:
        v = _repeated(run, v, shape, shape.d_v, copies=copies) if shape.grouped else copy(v)
    mixed = batched(run, narrow, v, run.tokens * (shape.n_heads * shape.d_v))
    del bound
    if share is not None:
        mixed = scaled_by(run, mixed, share)
    return view(contiguous(mixed), clones=False)


def _by_values(shape: Shape) -> bool:
    """Whether probabilities are cast to the values' type; else to the queries', which a rotation may have widened."""
    return shape.wide or shape.narrow or shape.sinks or shape.lessened


def _left_wide(shape: Shape) -> bool:
    """Whether what the softmax makes is dropped and handed on as it is, and autocast alone lowers it."""
    return shape.narrow and not (shape.sinks or shape.lessened or shape.lowered)


def _bound(
    run: Pass, shape: Shape, weights: Value, chances: Value, scores: Buffer | None
) -> tuple[Value | Buffer | None, ...]:
    """What has a name of its own until the code returns: gpt-oss's scores and probabilities, RoFormer's scores, those
    of GPT-NeoX Japanese before and behind their mask; MPNet's stay until the product behind attention is done."""
    if shape.sinks and not shape.lessened:
        return weights, chances
    if shape.scores_stay:
        run.named.append(weights)
    return (weights, scores) if shape.scores_named else ()


def _left_by_sink(run: Pass, weights: Value, shape: Shape) -> Value:
    """sigmoid(logsumexp(scores) - sink), a float32 value a row: keeps the scores, whose gradient is made by two
    tensors of their size."""
    tape, size, rows = run.tape, weights.bytes, run.tokens * shape.n_heads

    def rule(g: Buffer) -> Gradients:
        differences = tape.new(size)
        made = tape.new(size)
        del differences
        return (made,)

    sums = tape.apply((weights,), rows, weights.width, (weights.buffer,), rule)
    return unary(cast(sums, FLOAT32), "out")


def beside_heads(v: Value, q: Value, k: Value) -> Value:
    """Values as a view of what queries and keys were made with: whoever keeps them keeps these as they were made."""
    return v.tape.apply((v,), v.elements, v.width, (q.buffer, k.buffer), lambda g: (g,), out=v.buffer)


def keys_of_parts(parts: tuple[Value, ...], elements: Size) -> Value:
    """Keys laid down from a plain part of each head and a turned one that all share, in a new tensor: its gradient is
    copied, and the plain part's laid into a tensor of that part's size."""
    tape, plain, width = parts[0].tape, parts[0].bytes, parts[0].width

    def rule(g: Buffer) -> Gradients:
        again = tape.new(elements * width)
        made = tape.new(plain)
        del again
        return (made, tape.new(0))

    return tape.apply(parts, elements, width, (), rule)
