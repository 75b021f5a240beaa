"""Losses that want each label's log-probability: of logits in tiles or chunks, or of all logits at once.

Every position is taken to carry a label, but a prompt's under GRPO; where others carry none, tiled losses hold less.
Sources: trl 1.16, trl/kernels/chunked_logprob.py (ChunkedLogProbFunction) and trl/trainer/utils.py
(add_fused_lm_head); PrimeIntellect-ai/prime-rl b798a90d, src/prime_rl/trainer/models/layers/lm_head.py
(_ChunkedLogProbEntropyFn); trl 1.12 and 1.14, trl/trainer/sft_trainer.py (_chunk, _chunked_cross_entropy_loss);
LLaMA-Factory 0.9, src/llamafactory/train/trainer_utils.py (get_batch_logps) and train/dpo/trainer.py
(concatenated_forward); pytorch v2.13, aten/src/ATen/native/cuda/SoftMax.cu (host_softmax); of completions, trl 0.16
to 1.13, trl/trainer/grpo_trainer.py (_get_per_token_logps) and trl/trainer/utils.py (selective_log_softmax,
entropy_from_logits), trl 1.14, trl/kernels/logprob_entropy.py (_LogProbEntropyFunction); pytorch v2.13,
torch/csrc/autograd/FunctionsManual.cpp (logsumexp_backward).
"""

from __future__ import annotations

from ..objective_rules import SELECTED
from ..setup import Setup
from .passes import FLOAT32, Pass
from .tape import Buffer, Gradients, Size, Value, beside, cast, copy, piece, scale
from .unembedding import Head

TILE_TOKENS, TILE_ENTRIES = 4096, 32768  # TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE
INDEX, TRUTH = 8, 1
ROWS_WHILE_FOLDING = 7  # float32 values a row: maxima, sums and the label's logit
ENTROPY_ROWS = 128  # entropy_from_logits, chunk_size
FIELDS = 3  # float32 values a row that are handed on: log-probability, entropy, mean logit


def labelled(run: Pass) -> float:
    """Positions that predict a label: all but the last of every sequence, or as many as a prompt has."""
    return run.tokens - run.sequences * run.unscored


def tiled(run: Pass, x: Value, head: Head) -> Value:
    """Log-probabilities of x W^T in tiles of 4,096 rows by 32,768 entries.

    The rows that carry a label are copied and kept, with three numbers a row and their place. On the way back tiles
    are made again, x's gradient is summed in float32 and then lowered, laid into zeros of the rows and then of all
    positions. A trained W's gradient is summed in float32 too. Neglects a quantised unembedding, which loaders leave
    out.
    """
    tape, rows = run.tape, labelled(run)
    picked = _picked(run, x, rows, head.reads)
    few = min(rows, TILE_TOKENS)
    given, width = x.width, run.compute if run.autocast else x.width
    parameters, trains, whole = head.reads * head.vocab, head.trained and run.grad, run.whole
    kept = [tape.new(rows * size) for size in (FLOAT32, FLOAT32, INDEX)]
    folding = tape.new(rows * (ROWS_WHILE_FOLDING * FLOAT32))
    work = _tile(run, few, head, given, width)
    del folding, work
    needs, size = x.node is not None, rows * head.reads

    def rule(g: Buffer) -> Gradients:
        made = summed = tape.new(size * FLOAT32) if needs else None
        of_weights = tape.new(parameters * FLOAT32) if trains and whole < FLOAT32 else None
        if trains and of_weights is None:
            tape.gradient(parameters * FLOAT32)
        work = _tile(run, few, head, given, width)
        if needs and given < FLOAT32:
            made = tape.new(size * given)
        if of_weights is not None:
            tape.gradient(parameters * whole)
        del work, summed, of_weights  # names of their own until all is lowered
        return (made,)

    handed = tape.new(rows * (2 * FIELDS * FLOAT32 + 2 * TRUTH))
    return tape.apply((picked,), 0, FLOAT32, (picked.buffer, *kept, handed), rule, trains=trains)


def _picked(run: Pass, x: Value, rows: Size, width: int) -> Value:
    """The rows that carry a label, copied, with their places; gradients are laid into zeros of all positions but the
    last of each sequence, and then of all."""
    tape, every, some = run.tape, x.bytes, rows * (width * x.width)
    cut = tape.apply((x,), rows * width, x.width, (), lambda g: (tape.new(every),), out=x.buffer)
    places = tape.new(rows * 2 * INDEX)
    return tape.apply((cut,), rows * width, x.width, (places,), lambda g: (tape.new(some),))


def _tile(run: Pass, rows: Size, head: Head, given: int, width: int) -> list[Buffer]:
    """A tile of logits, with the rows and the entries' weights as autocast lowers them."""
    made = [run.tape.new(rows * (TILE_ENTRIES * width))]
    if width < given:
        made.append(run.tape.new(rows * (head.reads * width)))
    held, made_again = run.whole if head.trained else run.norms, min(head.vocab, 2 * TILE_ENTRIES)
    if width != held:  # the last tile's go when the next one's are there
        made.append(run.tape.new(made_again * head.reads * width))
    return made


def recomputed(run: Pass, x: Value, head: Head, chunk: int, *, wide: bool) -> Value:
    """Log-probabilities of x W^T for `chunk` rows at a time, each chunk under a checkpoint: its logits are made again
    on the way back. `wide`: rows and W are copied to float32 first, which autocast lowers again, so that 6 bytes a
    parameter of a 16-bit unembedding lie beside the logits.

    The rows that carry a label are copied and kept. Gradients of chunks are laid into zeros of all rows and added up.
    """
    tape, rows = run.tape, labelled(run)
    picked = _picked(run, x, rows, head.reads)
    few = min(rows, chunk)
    size, needs, trains = picked.bytes, x.node is not None, head.trained and run.grad
    parameters, given = head.reads * head.vocab, FLOAT32 if wide else x.width
    width = run.compute if run.autocast else given
    kept = _chunk(run, few, head, given, width, wide=wide)
    del kept

    def rule(g: Buffer) -> Gradients:
        summed = tape.new(size) if needs else None
        again = _chunk(run, few, head, given, width, wide=wide, again=True)
        chosen = tape.new(few * (head.vocab * FLOAT32))
        of_logits = tape.new(few * (head.vocab * FLOAT32))
        del chosen
        if trains:
            of_weights = tape.new(parameters * width)
            del of_weights
            tape.gradient(parameters * run.whole)
        del again, of_logits
        laid = tape.new(size) if needs else None
        del laid
        return (summed,)

    return tape.apply((picked,), 0, FLOAT32, (picked.buffer,), rule, trains=trains)


def _chunk(
    run: Pass, rows: Size, head: Head, given: int, width: int, *, wide: bool, again: bool = False
) -> list[Buffer]:
    """A chunk's log-probabilities and the lowered weights that its product keeps: what stays until its gradient is
    there. Their exponentials are for an entropy that nobody learns from. `given`: bytes a value that the product is
    given, `width`: that autocast makes of it; `again`: on the way back, where what the product reads is kept."""
    tape, held = run.tape, run.whole if head.trained else run.norms
    parameters, entries = head.reads * head.vocab, rows * head.vocab
    copied = tape.new(parameters * given) if given != held else None
    lowered = [tape.new(parameters * width), tape.new(rows * (head.reads * width))] if width != given else []
    logits = tape.new(entries * width)
    if again and copied is not None and not lowered:
        lowered = [copied]
    del copied
    if width < FLOAT32 and not wide:
        logits = tape.new(entries * FLOAT32)
    chances = tape.new(entries * FLOAT32)
    exponentials = tape.new(entries * FLOAT32)
    products = None if again else tape.new(entries * FLOAT32)  # a checkpoint stops when it has what it lacked
    del products, exponentials, logits
    return [*lowered, chances]


def by_entries(run: Pass, x: Value, head: Head, chunk: int) -> Value:
    """Log-probabilities and entropies of x W^T, for all rows and `chunk` entries of the vocabulary at a time.

    Forward every name in the loop keeps its tensor until the next chunk's is there: 14 bytes a logit of a chunk (the
    product, its float32 copy before and after the temperature, and that of the last chunk). On the way back a chunk's
    logits are made again, with the probabilities and their gradient of the last chunk beside them: 22 bytes, and the
    gradients of x and of W in their own type, W's whole and also where it is frozen. Neglects a row's few numbers
    while they are folded (16 bytes).
    """
    tape, rows = run.tape, run.tokens
    width = run.compute if run.autocast else x.width
    piece = rows * min(chunk, head.vocab)
    parameters, size, trains = head.reads * head.vocab, x.bytes, head.trained and run.grad
    lowered = tape.new(parameters * width) if width < (run.whole if head.trained else run.norms) else None
    kept = [tape.new(rows * wide) for wide in (INDEX, FLOAT32, FLOAT32, FLOAT32)]
    work = tape.new(piece * (width + 3 * FLOAT32))
    del work

    def rule(g: Buffer) -> Gradients:
        of_x, of_weights = tape.new(size), tape.new(parameters * width)
        work = tape.new(piece * (width + 5 * FLOAT32))
        del work, of_weights
        if trains:
            tape.gradient(parameters * run.whole)
        return (of_x,)

    return tape.apply((x,), 0, FLOAT32, (x.buffer, lowered, *kept), rule, trains=trains)


def gathered(run: Pass, logits: Value, vocab: int) -> Value:
    """log_softmax of logits in float32, of which each label's is taken: keeps the result. All sequences but the last
    position are copied for the kernel, unless there is one; gradients are laid into zeros of either size."""
    tape, rows = run.tape, labelled(run)
    wide, size, single = cast(logits, FLOAT32), rows * (vocab * FLOAT32), run.sequences == 1
    del logits
    whole = wide.bytes

    def cut(g: Buffer) -> Gradients:
        return (tape.new(whole),)

    part = tape.apply((wide,), rows * vocab, FLOAT32, (), cut, out=wide.buffer)
    copied = None if single else tape.new(size)
    chances = tape.new(size)
    del copied
    return tape.apply((part,), 0, FLOAT32, (chances, tape.new(rows * INDEX)), beside(tape, size, size))


def completions(run: Pass, x: Value, hidden: int) -> Value:
    """The positions whose logits are of completions, and the one before each: a slice of the hidden states, which a
    product copies where it is of several sequences."""
    rows = labelled(run) + run.sequences
    cut = piece(x, rows * hidden)
    if run.sequences == 1:
        return cut
    size = cut.bytes
    return cut.tape.apply((cut,), cut.elements, cut.width, (), lambda g: (cut.tape.new(size),))


def divided_in_place(run: Pass, logits: Value, size: Size) -> Value:
    """Logits of which a view of `size` bytes is divided in place (torch's CopySlices): on the way back the gradient
    of all is copied, then that of the view, and divided."""
    tape, whole = run.tape, logits.bytes

    def rule(g: Buffer) -> Gradients:
        made = tape.new(whole)
        both = tape.new(size), tape.new(size)
        del both
        return (made,)

    return tape.apply((logits,), logits.elements, logits.width, (), rule, out=logits.buffer)


def written_over(logits: Value) -> Value:
    """One kernel's, which keeps the logits, and hands their memory on as that of their gradient."""
    held = logits.buffer
    return logits.tape.apply((logits,), 0, FLOAT32, (held,), lambda g: (held,))


def sliced(run: Pass, logits: Value, vocab: int, *, viewed: bool) -> Value:
    """Log-probabilities of completions, of a slice of all logits, which are divided in place (`viewed`: through a
    view): verl up to 0.8 without use_remove_padding. Of several sequences the kernel is given a copy, in which it
    makes the gradient. Passes that make none make entropies, operation by operation, of a softmax in float32 and its
    product with the logits."""
    tape, rows, whole = run.tape, labelled(run), logits.bytes

    def divided(g: Buffer) -> Gradients:
        return (tape.new(whole),)

    if viewed:
        cooled = divided_in_place(run, logits, whole)
    else:
        cooled = tape.apply((logits,), logits.elements, logits.width, (), divided, out=logits.buffer)
    part = piece(cooled, rows * vocab)
    part = copy(part) if run.sequences > 1 else part
    found = written_over(part)
    del part
    work = tape.new(0 if run.grad else rows * (vocab * 2 * FLOAT32))
    del work
    return found


def by_sequence(run: Pass, logits: Value, vocab: int, loss: str) -> Value:
    """Log-probabilities of labels, of all logits of completions or of pairs: TRL before 1.15.

    Under autocast accelerate makes the logits float32. All but the last of each sequence, which GRPO divides by the
    temperature into a new tensor, are folded a sequence at a time: of float32 each label's logit less the log of the
    sum of exponentials, which both keep that tensor; of 16 bits by log_softmax, whose results are kept. On the way
    back the gradients of all sequences are made one by one (of float32 beside two such tensors) and joined to one:
    three times the logits, 12 bytes each in float32, of one sequence 16. "fused": one kernel (1.14)
    that keeps the logits as they came and makes their gradient in a new tensor; "...in-place" (GRPO from 1.0 to 1.9):
    a slice of the logits is divided in place. Neglects a few numbers a row, that TRL before 1.8 lets the undivided
    logits go before GRPO's entropies, which counts where fewer than some 400 positions are scored, that TRL before
    0.16 divided none, and that TRL before 0.27 folds the last position of pairs too.
    """
    tape, entries = run.tape, labelled(run) * vocab
    one, few = (run.length - run.unscored) * vocab, min(labelled(run), ENTROPY_ROWS) * vocab
    logits = cast(logits, FLOAT32) if run.autocast else logits
    width, size = logits.width, entries * logits.width
    in_place = loss.endswith("in-place")
    if in_place:
        logits = divided_in_place(run, logits, size)
    part = piece(logits, entries)
    part = (
        piece(part, entries) if run.sampled else part
    )  # without the last position, and then without the prompt
    if loss == "fused":
        return tape.apply((part,), 0, FLOAT32, (part.buffer,), lambda g: (tape.new(size),))
    cooled, wide = scale(part) if run.sampled and not in_place else part, width == FLOAT32
    chosen = cooled

    def laid(g: Buffer) -> Gradients:
        zeros = tape.new(size)  # each label's, in zeros, is added to the others
        del zeros
        return (g,)

    if wide:
        chosen = tape.apply((cooled,), entries, width, (cooled.buffer,), laid, out=cooled.buffer)
    joined = tape.apply((chosen,), entries, width, (), lambda g: (tape.new(size),), out=cooled.buffer)

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size)
        work = tape.new(2 * one * width if wide else 0)  # what 16-bit ones keep goes one by one
        del work
        return (made,)

    folding = tape.new(one * width) if wide else None
    del folding
    kept = (
        None if wide else tape.new(size if run.grad else one * width)
    )  # without gradients one after another
    found = tape.apply((joined,), 0, FLOAT32, (kept,), rule)
    work = tape.new(few * (3 * width) if run.sampled else 0)  # entropies, which nobody learns from
    del work
    return found


def with_chosen(run: Pass, logits: Value, vocab: int, loss: str) -> Value:
    """ORPO by TRL, and DPO by 0.9 to 0.11, whose way back does without it: the cross-entropy of the chosen answers,
    half of all, beside log-probabilities of both. A copy without the last positions is made for it, of which
    log-softmax is kept; its gradient is laid into zeros of half of the logits and of all."""
    tape, rows = run.tape, labelled(run) / 2
    logits = cast(logits, FLOAT32) if run.autocast or loss.startswith("full") else logits
    size, whole = rows * vocab * logits.width, logits.bytes

    part = tape.apply(
        (logits,), logits.elements / 2, logits.width, (), lambda g: (tape.new(whole),), out=logits.buffer
    )
    part = tape.apply(
        (part,), rows * vocab, part.width, (), lambda g: (tape.new(whole / 2),), out=logits.buffer
    )
    copied, chances = tape.new(size), tape.new(size)
    del copied
    own = tape.apply((part,), 0, FLOAT32, (chances,), beside(tape, size, size))
    del part, chances
    folded = (
        gathered(run, logits, vocab) if loss.startswith("full") else by_sequence(run, logits, vocab, loss)
    )
    del logits
    return tape.apply((own, folded), 0, FLOAT32, (), lambda g: (tape.new(0), tape.new(0)))


def of_pairs(run: Pass, setup: Setup, vocab: int, *, widened: bool) -> tuple[Size, Size]:
    """Bytes of logits that a loss of preferences has beside what it keeps: those with a name while a reference runs
    (LLaMA-Factory's float32 ones, and 16-bit ones that TRL folds a sequence at a time; what one kernel or a float32
    sum folds is kept itself), and what TRL before 1.15 has besides when it logs what it made: the reference's logits,
    and a copy of all but the last positions, of which entropies are taken (of half of them, as where one kernel has
    made the entropies). From 0.29 to 1.5 log-probabilities were of a copy of all but the last positions, of both
    models ("copied"); from 0.14 to 0.28 it logged means that it took before ("unlogged"), and with 0.12 and 0.13,
    which folded all at once ("full-freed"), let go of all logits before the reference ran. `widened`: the model makes
    its logits float32."""
    if setup.loss in ("full", "full-chosen"):
        return run.tokens * (vocab * FLOAT32), 0
    if setup.loss in SELECTED:
        return _of_answers(run, setup, vocab, widened=widened)
    if setup.loss not in ("by-sequence", "by-sequence-copied", "fused"):
        return 0, 0
    rows, fused, wide = labelled(run), setup.loss == "fused", run.autocast or widened
    width = vocab * (FLOAT32 if wide else run.norms)
    named = 0 if fused or width == vocab * FLOAT32 else run.tokens * width
    compared = run.tokens if setup.reference_inside else 0
    if setup.loss == "by-sequence-copied":
        beside = run.tokens if width == vocab * FLOAT32 else run.tokens + rows
        few = 3 * min(rows, ENTROPY_ROWS)
        if not setup.reference_inside:
            return beside * width, few * width
        one = run.length - run.unscored  # which the reference folds at a time
        return beside * width, (run.tokens + rows + max(one, few)) * width
    many = run.sequences  # of which the longer half, where there is one
    half = (many + 1) // 2 / many if isinstance(many, int) else 0.5
    copied = rows * half if fused else rows + 3 * min(rows, ENTROPY_ROWS)
    return named, (compared + copied) * width


def _of_answers(run: Pass, setup: Setup, vocab: int, *, widened: bool) -> tuple[Size, Size]:
    """The same of KTO by TRL before 1.9, which copies the logits of either kind of answers while its output has a
    name: until a function of its own returns (`again`), or through the reference's passes. Of float32 logits that are
    folded a sequence at a time the loss keeps the output, or its copy, itself. All but the last positions of a single
    sequence lie together and are not copied."""
    how, rows, one = SELECTED[setup.loss], labelled(run), run.length - run.unscored
    full = setup.loss.startswith("full")
    width = vocab * (FLOAT32 if full or run.autocast or widened else run.norms)
    kept, several = width == vocab * FLOAT32 and not full, run.sequences > 1
    copied, rows = how.copied and several, rows if several else 0
    entropies = (rows + 3 * min(labelled(run), ENTROPY_ROWS)) * how.logged
    output = run.tokens * (copied or not kept) + (rows if copied and not kept else 0)
    named = run.tokens * (1 + how.others) + (0 if how.again else output)
    if not setup.reference_inside:
        return named * width, (entropies + (output if how.again else 0)) * width
    if copied:
        return named * width, (run.tokens + rows + one) * width
    return named * width, ((1 + how.again) * run.tokens + entropies) * width


def logged_copies(run: Pass, vocab: int, *, widened: bool) -> Size:
    """Bytes of logits beside what their loss keeps while TRL from 1.3 to 1.5 logs entropies and accuracies: the
    model's output, and two copies of all but the last positions, the first of which has its name until the second is
    made; of a single sequence there is nothing to copy."""
    width = vocab * (FLOAT32 if run.autocast or widened else run.norms)
    rows = run.tokens - run.sequences if run.sequences > 1 else 0
    return (run.tokens + 2 * rows) * width
