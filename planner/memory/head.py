"""The end of a model: the last norm, the unembedding and the loss."""

from __future__ import annotations

import math

from ..objective_rules import CHOSEN, OF_ALL_LOGITS
from ..setup import Setup
from . import log_probs
from .elementwise import activation, drop, layer_norm, norm
from .passes import CASTS, FLOAT32, Pass
from .products import Weight, adapted, linear, whole
from .stretch import Held, Stretch, label_kept, plus, stretch
from .tape import Buffer, Gradients, Node, Size, Value, beside, cast, copy, piece, scale, unary
from .traits import Traits
from .unembedding import Dense, Head

LOGITS = "logits"
# Starts of losses without logits that a model's output could hold.
_NONE_HELD = ("chunked", "tiled", "recomputed")


def cross_entropy(run: Pass, logits: Value, loss: str, *, narrow: bool = False) -> Value:
    """The loss of logits.

    "full": cast to float32 as transformers does, log-softmax (kept, float32), and on the way back the gradient of
    the chosen entries and that of the logits, both of full size in float32. "shifted": the same behind a copy,
    which transformers made before 4.50 ("shifted-late": from 4.46 on, where the loss makes the float32 copy and
    the model's forward pass still holds the 16-bit logits; "shifted-narrow": without the cast). "...fused": one
    kernel over the logits, which writes the gradient in their place ("scaled-fused": behind their division by a
    temperature, "scaled-in-place-fused": of a view of them that is divided in place, whose way back makes the
    gradient anew, and again of all, copies it and divides the copy; "widened-fused": over float32 copies of them,
    with the gradient beside these); "wide" is Megatron's of 2024, "wide-in-place" its later one of operations,
    "wide-fused" its compiled one. `narrow`: there is no cast to float32.
    """
    tape = run.tape
    if loss == "fused":
        return log_probs.written_over(logits)
    if loss == "scaled-fused":
        return log_probs.written_over(scale(logits))
    if loss == "scaled-in-place-fused":
        return log_probs.written_over(
            piece(log_probs.divided_in_place(run, logits, logits.bytes), logits.elements)
        )
    if loss == "widened-fused":
        wide = cast(logits, FLOAT32)
        made = wide.bytes
        return tape.apply((wide,), 0, FLOAT32, (wide.buffer,), lambda g: (tape.new(made),))
    if loss == "wide":
        return _in_wide(logits)
    if loss == "wide-in-place":
        return _in_wide(logits, copies=1)
    if loss == "wide-fused":
        return _compiled(logits)
    wide = logits if narrow else cast(logits, FLOAT32)
    shifted = _shifted(wide, single=run.sequences == 1) if loss.startswith("shifted") else wide
    if loss.endswith("fused"):
        return log_probs.written_over(shifted)
    if narrow and run.autocast and shifted.width < FLOAT32:
        return _lowered(shifted)
    size = shifted.bytes
    return tape.apply((shifted,), 0, FLOAT32, (tape.new(size),), beside(tape, size, size))


def _lowered(logits: Value) -> Value:
    """The loss of 16-bit logits under autocast: log-softmax is told their type, so that autocast leaves it, and its
    result is made float32 for the negative log-likelihood; both are kept (torch 2.13, aten/src/ATen:
    native/LossNLL.cpp, cross_entropy_loss; autocast_mode.h, fp32_set_opt_dtype and nll_loss)."""
    tape, size = logits.tape, logits.bytes
    out = tape.new(size)
    chances = tape.apply(
        (logits,), logits.elements, logits.width, (out,), lambda g: (tape.new(size),), out=out
    )
    wide = cast(chances, FLOAT32)
    made = wide.bytes
    return tape.apply((wide,), 0, FLOAT32, (wide.buffer,), lambda g: (tape.new(made),))


def _in_wide(logits: Value, copies: int = 2) -> Value:
    """Megatron's loss of operations: a float32 copy of the logits, and one less their maximum, in which exponentials
    and probabilities are made (kept). Beside the logits that is 2 + 4 + 4 bytes each in 16 bits. On the way back the
    gradient is made in the probabilities and cast: 4 + 2 (Megatron-LM core_v0.6.0 and core_v0.7.0,
    megatron/core/tensor_parallel/cross_entropy.py, _VocabParallelCrossEntropy, on `logits.float()`). With one of the
    `copies` alone the maximum is taken off in place, 2 + 4 (d98e8a64dd of 2026, the same file,
    calculate_predicted_logits)."""
    tape, size, narrow = logits.tape, logits.elements * FLOAT32, logits.bytes
    if logits.width == FLOAT32:  # which is its own float32 copy, and so its gradient
        if copies == 1:
            return log_probs.written_over(logits)
        kept = tape.new(size)
        return tape.apply((logits,), 0, FLOAT32, (kept,), lambda g: (kept,))
    wide = tape.new(size * (copies - 1))
    found = tape.apply((logits,), 0, FLOAT32, (tape.new(size),), lambda g: (tape.new(narrow),))
    del wide
    return found


def _compiled(logits: Value) -> Value:
    """Megatron's fused loss: float32 probabilities (kept) take the place of a float32 copy of the logits. On the way
    back the compiler copies them once more, since the chosen entries are written into them while the whole is read,
    and makes the logits' gradient beside both: 4 + 4 + 2 bytes a logit in 16 bits (megatron-core 0.13.1,
    megatron/core/fusions/fused_cross_entropy.py under torch.compile, of torch 2.13 on a CPU; by its allocations)."""
    tape, size = logits.tape, logits.elements * FLOAT32
    return tape.apply((logits,), 0, FLOAT32, (tape.new(size),), beside(tape, size, logits.bytes))


def _shifted(logits: Value, *, single: bool) -> Value:
    """A contiguous copy without the last position, of a single sequence a view; its gradient is laid into zeros."""
    tape, size = logits.tape, logits.bytes
    if single:
        return piece(logits, logits.elements)
    return tape.apply((logits,), logits.elements, logits.width, (), lambda g: (tape.new(size),))


def unembed(run: Pass, x: Value, head: Head, traits: Traits, rows: Size) -> Value:
    """Logits of so many rows, with what the family does to them."""
    width = run.whole if head.trained else run.saved if run.recasts else run.norms
    weight = Weight(head.reads, head.vocab, head.trained, head.bias, head.unpacked, width)
    if traits.wide_logits:  # of the stream in the weight's type
        x = cast(x, width)
    logits = adapted(run, x, rows, weight, head.pairs)
    if traits.wide_logits:
        return cast(logits, FLOAT32)
    if traits.logits == "scaled":
        return scale(logits)
    if traits.logits == "biased":  # by a buffer as the weights were loaded: what widens parameters leaves it
        return cast(logits, run.base) if run.base > logits.width else copy(logits)
    if traits.logits == "capped":
        logits = scale(logits)
        logits = unary(logits, "out")
        return scale(logits)
    return logits


def head_stretches(
    run: Pass, head: Head, traits: Traits, loss: str, chunk: int, x_grad: bool
) -> tuple[Stretch, Stretch | None]:
    """From the last layer's result to the loss, and back to its gradient. Both are labelled as logits, but for the
    norm's part."""
    tape = run.tape
    x = tape.leaf(run.rows * head.hidden, run.stream, grad=x_grad)
    normed = norm(run, x, head.hidden, traits.norm if head.normed and not traits.post else "none")
    if traits.dropped_end:
        normed = drop(run, normed)
    del x
    inner = whole(run, normed)
    del normed
    named = None if run.preference else inner  # by the model's code, until it returns
    inner = _read(run, inner, head, loss)
    start, bound, width = len(tape.sizes), None, held_width(run, loss, narrow=traits.narrow_before)
    if not head.vocab:
        final = inner
    elif loss.startswith(_NONE_HELD):
        final = _in_pieces(run, inner, head, loss, chunk)
    elif run.preference and loss not in OF_ALL_LOGITS:
        given, inner = [inner], tape.leaf(0, FLOAT32, grad=False)  # the model's code alone has a name for it
        final = _of_chances(run, given, head, traits, loss)
    elif loss.startswith("split"):
        final, bound = _split(run, inner, head, traits, loss, chunk)
    else:
        given, inner = [inner], tape.leaf(0, FLOAT32, grad=False) if run.preference else inner
        logits = unembed(run, given.pop(), head, traits, run.tokens)
        inner = named or inner  # what was made of the hidden states for the product alone
        narrow = traits.narrow_loss or loss == "shifted-narrow"
        narrow = narrow or (traits.narrow_before and loss.startswith("shifted"))
        if loss in ("shifted", "shifted-fused", "widened-fused") and not narrow:
            logits = cast(logits, FLOAT32)  # the model's own, which holds no other from here on
        final = cross_entropy(run, logits, loss, narrow=narrow)
        if run.outputs_widened and logits.width < FLOAT32:
            tape.new(logits.elements * FLOAT32)  # beside them, until the caller has taken the loss
        width = FLOAT32 if run.outputs_widened else logits.width
        bound = [logits.buffer] if run.outputs_held and _in_loss(run, loss) else None
        del logits
    del inner, named
    run.casts.clear()
    _label_new(run, start, len(tape.sizes))
    label_kept(tape, "activations")
    label_kept(tape, LOGITS, CASTS)  # a lowered unembedding waits for the hidden states' gradient
    forward = stretch(tape, 0, len(tape.events))
    if not head.vocab and not head.keeps:
        forward.change = plus(forward.change, {"activations": final.bytes}, -1)
    node = final.node
    del final
    if node is None:
        return forward, None
    held: Held = {LOGITS: run.tokens * (head.vocab * width)}
    if run.outputs_held and head.vocab and not loss.startswith(_NONE_HELD) and bound is None:
        forward.change = plus(forward.change, held)
    nodes = [node]
    del node
    backward = _way_back(run, nodes)
    del bound
    return forward, backward


def _way_back(run: Pass, nodes: list[Node]) -> Stretch:
    """From the loss to the last layer's result."""
    tape = run.tape
    begin, first = len(tape.events), len(tape.sizes)
    leaves = tape.backward(nodes.pop(), [tape.new(0)])
    _label_new(run, first, len(tape.sizes))
    leaves.clear()
    return stretch(tape, begin, len(tape.events))


def _read(run: Pass, x: Value, head: Head, loss: str) -> Value:
    """What the unembedding reads, where a matrix makes that of the hidden states; TRL's tiled loss meets these with
    the unembedding itself."""
    if head.dense:
        return x if loss == "tiled" else _transformed(run, x, head, head.dense)
    if not head.d_in:
        return x
    made = Weight(head.hidden, head.d_in, run.full, width=run.whole if run.full else run.norms)
    return linear(run, x, run.tokens, made)


def _transformed(run: Pass, x: Value, head: Head, dense: Dense) -> Value:
    """What BERT's kind unembeds: the hidden states through a matrix, an activation and a norm."""
    width = run.whole if dense.trained else run.base if dense.unpacked else run.saved
    weight = Weight(head.hidden, head.reads, dense.trained, True, dense.unpacked, width)
    made = activation(run, adapted(run, x, run.tokens, weight, dense.pairs), dense.activation)
    return layer_norm(run, made, head.reads)


def _of_chances(run: Pass, given: list[Value], head: Head, traits: Traits, loss: str) -> Value:
    """A loss of log-probabilities that has all logits: of completions, or of whole sequences. Trainers make it of
    what a model has returned, whose hidden states are gone by then: they are taken out of `given`."""
    if loss in CHOSEN:
        return log_probs.with_chosen(
            run, unembed(run, given.pop(), head, traits, run.tokens), head.vocab, loss
        )
    if loss.startswith("full"):
        return log_probs.gathered(run, unembed(run, given.pop(), head, traits, run.tokens), head.vocab)
    if loss == "sliced-fused":
        viewed = head.bias and not head.pairs and traits.logits == "plain"
        return log_probs.sliced(
            run, unembed(run, given.pop(), head, traits, run.tokens), head.vocab, viewed=viewed
        )
    if loss == "wide-fused":
        return cross_entropy(run, unembed(run, given.pop(), head, traits, run.tokens), loss)
    rows = run.tokens
    if run.sampled:
        given = [log_probs.completions(run, given.pop(), head.reads)]
        rows = log_probs.labelled(run) + run.sequences
    return log_probs.by_sequence(run, unembed(run, given.pop(), head, traits, rows), head.vocab, loss)


def _in_pieces(run: Pass, x: Value, head: Head, loss: str, chunk: int) -> Value:
    """A loss that never has all logits."""
    if loss == "chunked":
        return _chunked(run, x, head, chunk)
    if loss == "chunked-vocabulary":
        return log_probs.by_entries(run, x, head, chunk)
    if loss == "tiled":
        return log_probs.tiled(run, x, head)
    return log_probs.recomputed(run, x, head, chunk, wide=loss.endswith("wide"))


def sums_unembedding(setup: Setup) -> bool:
    """Whether the unembedding's gradient is a tensor of its own when its way back ends: where the loss makes it, or
    where several pieces of tokens have been summed."""
    if setup.loss.startswith("split"):
        return setup.seq_len // setup.sequence_parallel > setup.loss_chunk
    if setup.loss.startswith("recomputed"):
        return setup.tokens > setup.loss_chunk
    return setup.loss in ("chunked", "tiled", "chunked-vocabulary")


def _in_loss(run: Pass, loss: str) -> bool:
    """Whether a loss keeps the memory of the logits in a model's output itself."""
    own = ("fused", "scaled-in-place-fused", "widened-fused")
    return loss in own or (loss == "shifted-fused" and run.sequences == 1)


def held_width(run: Pass, loss: str, *, narrow: bool = False) -> int:
    """Bytes a value of the logits in a model's output: those of the stream where no autocast lowers the product,
    float32 where the model's code makes them so before the loss (but where it leaves them `narrow`)."""
    if loss in ("shifted", "shifted-fused") and not narrow:
        return FLOAT32
    return run.compute if run.autocast else run.norms


def _split(
    run: Pass, x: Value, head: Head, traits: Traits, loss: str, chunk: int
) -> tuple[Value, list[Buffer] | None]:
    """Logits of all tokens in pieces of `chunk` positions of every sequence, each with a loss of its own, so that on
    the way back no more is made beside what is kept than a piece's.

    "split" takes log-softmax in the logits' own type (litgpt), which autocast follows with a float32 copy,
    "split-wide" in float32 (torchtune), and both keep what they make; "split-fused" is the latter compiled, which
    keeps the logits alone and makes their gradient at once (2 bytes a logit in 16 bits: torch 2.13's compiler on a
    CPU, by its allocations). Without gradients a piece keeps none of it. All logits are there before the first loss,
    and on the way back all their gradients before the first product's; the last piece may be a short one. With the
    loss come the logits that are kept and that a loop has a name for.
    """
    tape, waiting = run.tape, list[Buffer]()
    longest = min(chunk, run.length)
    last, rows = (run.length % longest or longest) * run.sequences, longest * run.sequences
    rest, some, before = run.tokens - last, x, None
    if rest:
        before, others = _earlier(run, x, head, traits, rest, rows)
        some = _last(run, x, head, last * head.reads, others, waiting)
    logits = unembed(run, some, head, traits, last)
    inner, width = logits.width, FLOAT32 if loss == "split-wide" else logits.width
    size, one, others_size = logits.elements, rows * head.vocab, rest * head.vocab
    cast_too = loss == "split" and run.autocast and inner < FLOAT32
    made = 0 if loss == "split-fused" else width + FLOAT32 * cast_too
    aside = width if loss == "split-wide" and inner < width else 0
    earlier: list[Buffer] = []
    if before:
        made_first = [before] if not made else [tape.new((others_size if run.grad else one) * made)]
        work = tape.new(one * aside)
        del work
        earlier = made_first if run.grad else earlier
        del made_first
    kept = [logits.buffer] if not made else [tape.new(size * made)]
    work = tape.new(size * aside)
    named = [logits.buffer, *([before] if before else [])] if run.outputs_held and not made else None
    del work, before
    beside_one = inner if loss == "split-fused" else 2 * width

    def rule(g: Buffer) -> Gradients:
        found = _gradient_of_pieces(run, kept, size * beside_one, size * inner)
        if rest:
            first = _gradient_of_pieces(run, earlier, one * beside_one, one * inner)
            waiting.extend((tape.new((others_size - one) * inner), first))
        return (found,)

    return tape.apply((logits,), 0, FLOAT32, (None,), rule), named


def _gradient_of_pieces(run: Pass, kept: list[Buffer], work: Size, size: Size) -> Buffer:
    """The gradient of pieces' logits in the place of what was kept of them, each made beside so much `work`."""
    held = run.tape.new(work)
    del held
    kept.clear()
    return run.tape.new(size)


def _earlier(
    run: Pass, x: Value, head: Head, traits: Traits, rest: float, rows: float
) -> tuple[Buffer, Buffer]:
    """Logits of the tokens before the last piece, and what else is kept of making them: so many times what a token
    leaves on the tape, and of each piece what does not depend on its tokens (a frozen weight that autocast lowers
    every time)."""
    one, two = (_left_by(run, x, head, traits, tokens) for tokens in (1, 2))
    by_token, pieces = two[1] - one[1], math.ceil(rest / rows)
    kept = by_token * rest + (one[1] - by_token) * pieces
    before = run.tape.new((one[0] + by_token) * (rest - rows))
    _left_by(run, x, head, traits, rows)  # what comes and goes where a whole piece is made beside these
    del before
    return run.tape.new(one[0] * rest), run.tape.new(kept)


def _left_by(run: Pass, x: Value, head: Head, traits: Traits, tokens: float) -> tuple[Size, Size]:
    """Bytes of the logits of so many tokens, and of what else stays once these are made, but what autocast lowers of
    what is trained: that it lowers once."""
    tape, first, casts = run.tape, len(run.tape.sizes), len(run.casts)
    made = unembed(run, piece(x, tokens * head.reads), head, traits, tokens)
    del run.casts[casts:]
    left = {event for event in tape.events if event >= first}
    left -= {~event for event in tape.events if event < 0}
    others: Size = 0
    for index in sorted(left - {made.buffer.index}):
        if tape.labels[index] != CASTS:
            others += tape.sizes[index]
    return made.bytes, others


def _last(run: Pass, x: Value, head: Head, elements: Size, others: Buffer, waiting: list[Buffer]) -> Value:
    """The last piece of x; what the earlier ones keep stays until its gradient is there, and so do the gradients of
    their logits that are `waiting`. Beside these a trained weight's second gradient is made, and is added to the
    first in a new tensor, since that is a view; others are added in place."""
    tape, size, trains = run.tape, x.bytes, head.trained and run.grad
    width = run.compute if run.autocast and run.whole > run.compute else run.whole
    weight = head.reads * head.vocab * width if trains else 0

    def rule(g: Buffer) -> Gradients:
        made, second = tape.new(size), tape.new(weight)
        waiting.pop()
        total = tape.new(weight)
        del second, total
        waiting.clear()
        return (made,)

    return tape.apply((x,), elements, x.width, (others,), rule, trains=trains, out=x.buffer)


def _label_new(run: Pass, first: int, last: int) -> None:
    labels = run.tape.labels
    for index in range(first, last):
        if labels[index] is None:
            labels[index] = LOGITS


def _chunked(run: Pass, x: Value, head: Head, chunk: int) -> Value:
    """Unembedding and loss for `chunk` tokens at a time, as Liger's fused kernel has it: the gradient is written
    over the chunk's logits, and those of x, and of the unembedding where it is trained, are made at once and
    kept."""
    tape = run.tape
    rows = min(chunk, run.tokens)
    gradient = tape.new(x.bytes) if x.node is not None else None
    parameters = head.reads * head.vocab
    weights = None
    if head.trained and tape.accumulates:  # waits to be added to that of earlier micro-steps
        weights = tape.new(parameters * run.whole)
    elif head.trained:
        tape.gradient(parameters * run.whole)
    logits = tape.new(rows * (head.vocab * x.width))
    back = tape.new(rows * (head.reads * x.width))
    del logits, back

    def rule(g: Buffer) -> Gradients:
        return (tape.new(x_size) if gradient is None else gradient,)

    x_size = x.bytes
    return tape.apply((x,), 0, FLOAT32, (gradient, weights), rule, trains=head.trained)
