"""The forward pass of a model on the meta device -> blocks of operations, exact in the number of positions.

The pass runs once at a short length, and once more with another batch at a length beyond most windows and chunks,
where every product must be what the first foretells. Whatever does not fit is a gap with a reason, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...schema import MEMORY, STREAM, Apply, Attend, Block, Matrix, Product
from .page import Page
from .recorder import (
    NOTHING,
    Event,
    NotCountedError,
    Recording,
    Root,
    Roots,
    Segment,
    Sizes,
    Weight,
    sizes_mode,
    watching,
)
from .state import restore, state

# Of a parameter (by identity): the matrices that it became, each with its layer and its module's identity.
Index = dict[int, list[tuple[int, int, int]]]
BATCH, LENGTH = 2, 32
CHECKED_BATCH, CHECKED_LENGTH = 3, 2056
# Reading a pass takes some milliseconds a layer.
MOST_LAYERS = 200
# Where the model may have a table of positions whose length its config does not name.
CHECKED_LENGTH_UNNAMED = 504


def read_blocks(
    model: Any, matrices: tuple[Matrix, ...], index: Index
) -> tuple[tuple[Block, ...], str | None]:
    """The blocks, or why there are none. `index` tells which matrix (and layer) a parameter became."""
    try:
        layers = _layers(model)
        if len(layers) > MOST_LAYERS:
            raise NotCountedError(f"it has more than {MOST_LAYERS} layers")
        prepare(model)
        before = state(model)
        recording = record(model, layers, BATCH, LENGTH)
        restore(before)
        length = _checked_length(model)
        # Without gradients a library may leave something out or put a copy in; twice as much is another pass.
        other = sizes(model, CHECKED_BATCH, length, 2 * recording.operations)
        return Writer(model, matrices, index, recording, other, length).blocks(), None
    except NotCountedError as reason:
        return (), f"No exact FLOP count: {reason}."
    except Exception as error:  # a forward pass that the meta device cannot run
        line = " ".join(str(error).split())[:160] or type(error).__name__
        if "nonzero" in line:  # torch's sentence about it speaks of its own registries
            return (), "No exact FLOP count: its forward pass depends on the values of its input."
        return (), f"No exact FLOP count: its forward pass does not run without data ({line})."


def prepare(model: Any) -> None:
    """As it is trained; experts all at once, since the loop over those that were chosen needs to know which. The
    products are the same: every position meets as many."""
    model.train()
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_experts_implementation"):
            config._experts_implementation = "batched_mm"
    languages = getattr(model.config, "languages", None)
    if languages and hasattr(model, "set_default_language"):
        model.set_default_language(languages[0])  # its adapters are alike: a sequence runs one of them


def _checked_length(model: Any) -> int:
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    longest = getattr(config, "max_position_embeddings", None)
    if not isinstance(longest, int) or longest < 1:
        return CHECKED_LENGTH_UNNAMED
    return min(CHECKED_LENGTH, longest // 8 * 8 - 8)


def _layers(model: Any) -> dict[int, tuple[str, int]]:
    """The modules of the outermost lists, by identity, with the list's path and their number."""
    found: dict[int, tuple[str, int]] = {}
    lists: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{known}.") for known in lists)
        if type(module).__name__ == "ModuleList" and not inside and any(_is_layer(each) for each in module):
            lists.append(path)
            for number, layer in enumerate(module):
                found[id(layer)] = path, number
    return found


def _is_layer(module: Any) -> bool:
    """Whether a module of a list has parts that hold parameters: a single projection or rotation is no layer."""
    return any(next(child.parameters(), None) is not None for child in module.children())


def token_inputs(model: Any, batch: int, length: int) -> dict[str, Any]:
    """Tokens without values; of a model of sound in codebooks, one sequence of codes a codebook."""
    import torch

    text = model.config.get_text_config(decoder=True)
    books = (
        getattr(text, "num_codebooks", 1)
        if isinstance(model.get_input_embeddings(), torch.nn.ModuleList)
        else 1
    )
    ids = torch.zeros((batch * books, length), dtype=torch.long, device="meta")
    if getattr(model.config, "is_encoder_decoder", False):
        return {"input_ids": ids, "decoder_input_ids": ids.clone()}
    return {"input_ids": ids}


def record(model: Any, layers: dict[int, tuple[str, int]], batch: int, length: int) -> Recording:
    """One pass."""
    recording = Recording({id(p): name for name, p in model.named_parameters()})
    inputs = token_inputs(model, batch, length)
    with watching(model, recording, layers):
        out = model(**inputs)
    made = out.logits if "logits" in out else out[0]
    recording.final = _plain(recording.of(made))
    if not recording.embedded:
        raise NotCountedError("its tokens pass no embedding that it names")
    return recording


def sizes(model: Any, batch: int, length: int, most: int) -> list[tuple[str, int]]:
    """The products of another pass of at most so many operations, by size alone."""
    import torch

    found = Sizes(most)
    with torch.no_grad(), sizes_mode(found):
        model(**token_inputs(model, batch, length))
    return found.products


@dataclass
class Cost:
    """A product with its multiply-adds at the other size."""

    short: Event
    long: int
    length: int


class Writer:
    """Writes the blocks of a recorded pass."""

    def __init__(
        self, model: Any, matrices: tuple[Matrix, ...], index: Index, recording: Recording,
        other: list[tuple[str, int]], length: int,
    ) -> None:  # fmt: skip
        self.model = model
        self.matrices = matrices
        self.index = index
        self.segments = recording.segments
        events = [event for segment in self.segments for event in segment.events]
        ops = [event.op for event in events]
        if [op for op, _ in other] != ops:
            raise NotCountedError("its products change with the length")
        self.costs = {
            event.out: Cost(event, macs, length) for event, (_, macs) in zip(events, other, strict=True)
        }
        self.live = _live(recording)
        if model.get_output_embeddings() is None and any(event.out not in self.live for event in events):
            raise NotCountedError(
                "its class has no loss over tokens, and not all of its work reaches the last hidden state"
            )
        self.modules = {id(m): m for m in model.modules()}
        self.first_decoder = self._check_order()
        self.kept = self._crossing()

    def blocks(self) -> tuple[Block, ...]:
        """All blocks; equal layers as one."""
        made: list[Block] = []
        for number, segment in enumerate(self.segments):
            last = number == len(self.segments) - 1
            if segment.events or not last:
                made.append(self._block(number, segment, last))
        merged: dict[Block, list[int]] = {}
        for block in made:
            merged.setdefault(replace(block, layers=()), []).extend(block.layers)
        return tuple(replace(block, layers=tuple(numbers)) for block, numbers in merged.items())

    def _check_order(self) -> int | None:
        """The segment with which the decoder begins where an encoder stands before it."""
        layers = [
            (number, s.layer) for number, s in enumerate(self.segments) if s.layer is not None and s.events
        ]
        lists = list(dict.fromkeys(path for _, (path, _) in layers))
        both = len(lists) == 2 and getattr(self.model.config, "is_encoder_decoder", False)
        in_turns = len(lists) > 1 and {path for _, (path, _) in layers[: len(lists)]} == set(lists)
        if len(lists) > 1 and not both and not in_turns:
            raise NotCountedError(f"its tokens pass several stacks of layers ({', '.join(sorted(lists))})")
        order = [(0 if in_turns else lists.index(path), number) for _, (path, number) in layers]
        if order != sorted(order):
            raise NotCountedError("it comes back to layers that it has left")
        return next((number for number, (path, _) in layers if path == lists[1]), None) if both else None

    def _given(self, number: int) -> dict[Root, int]:
        """What a segment's values are called: the stream, in a decoder the encoder's output as the memory, and in its
        first layer the embedding as the stream."""
        first = self.first_decoder
        if first is None or number < first:
            return {(number, 0): STREAM}
        return {(0, 0) if number == first else (number, 0): STREAM, (first, 0): MEMORY}

    def _crossing(self) -> dict[Root, str]:
        """Roots that a later segment reads, with the name under which they are kept."""
        found: dict[Root, str] = {}
        for number, segment in enumerate(self.segments):
            read = [segment.out, *(side for e in segment.events for side in (e.left, e.right))]
            for side in read:
                if not isinstance(side, Weight):
                    later = [root for root in side if root[0] != number and root not in self._given(number)]
                    found.update({root: f"value {root[0]}.{root[1]}" for root in later})
        return found

    def _block(self, number: int, short: Segment, last: bool) -> Block:
        page = Page(number, self.kept, self._given(number))
        pairs = _attention(short.events)
        for position, event in enumerate(short.events):
            self._event(page, self.costs[event.out], pairs, position, short.events)
        out = page.value(short.out) if short.out else STREAM
        if not short.out and not last:
            raise NotCountedError("a layer's output is not made from its input")
        page.keep_stream()
        stack, layers = "head" if last else "stem", (0,)
        if short.layer is not None:
            encodes = self.first_decoder is not None and number < self.first_decoder
            stack, layers = "encoder" if encodes else "decoder", (short.layer[1],)
        return Block(stack, layers, tuple(page.operations), out, None, not short.saves_after)

    def _event(
        self, page: Page, cost: Cost, pairs: dict[int, int], position: int, short: list[Event]
    ) -> None:
        event = cost.short
        other = short[pairs.get(position, position)]
        squares = _grows(cost, 2) and _grows(self.costs[other.out], 2)
        weights = [side for side in (event.left, event.right) if isinstance(side, Weight)]
        if len(weights) == 2:
            raise NotCountedError("it multiplies parameters by parameters")
        if weights:
            self._apply(page, cost, weights[0])
        elif squares and position in pairs:
            self._attend(page, short[pairs[position]], event)
        elif squares and position in pairs.values():
            page.define(event.out, page.value(_plain(event.left) | _plain(event.right)))
        else:
            self._plain(page, cost)

    def _apply(self, page: Page, cost: Cost, weight: Weight) -> None:
        event = cost.short
        source = event.right if event.left == weight else event.left
        known = self.index.get(weight.parameter)
        if not known or isinstance(source, Weight):
            raise NotCountedError("it multiplies by a parameter that is no matrix of the inventory")
        number, layer, owner = next((one for one in known if one[2] in event.modules), known[-1])
        matrix = self.matrices[number]
        segment = self.segments[event.segment]
        here = segment.layer[1] if segment.layer else 0
        at = layer if len(matrix.layers) > 1 and layer != here else None
        all_experts = _every_expert(cost, matrix)
        times, per, extra = (1, 1, 0) if all_experts else _positions(cost, matrix)
        if (
            not source and times
        ):  # a fixed number may be of constants; else a way from the tokens was not seen
            raise NotCountedError(f"{matrix.name} is applied to something that is not made from the tokens")
        bypassed = matrix.kind in ("linear", "conv1d") and (not event.modules or event.modules[-1] != owner)
        page.add(
            event.out,
            lambda out: Apply(
                number, page.value(source), out, extra=extra, per=per, groups=event.groups, bypassed=bypassed,
                forward_only=not event.graded or event.out not in self.live, all_experts=all_experts, times=times,
                layer=at,
            ),
        )  # fmt: skip

    def _check_live(self, event: Event) -> None:
        """No operation of ours says that a product of values has no gradient: its sides must tell."""
        sides = _plain(event.left) | _plain(event.right)
        if event.out not in self.live and sides & self.live:
            raise NotCountedError("it multiplies values without a gradient that elsewhere have one")

    def _attend(self, page: Page, scores: Event, values: Event) -> None:
        self._check_live(values)
        q, k = page.value(_plain(scores.left)), page.value(_plain(scores.right))
        made = _plain(values.left) if _reaches(values.left, scores.out) else _plain(values.right)
        v = page.value(_plain(values.right if made == _plain(values.left) else values.left))
        heads = scores.sizes[0] // BATCH
        module = next(
            (self.modules[m] for m in reversed(scores.modules) if hasattr(self.modules[m], "is_causal")), None
        )
        causal = bool(getattr(module, "is_causal", self._decodes())) and not self._from_memory(scores)
        window = getattr(module, "sliding_window", None)
        shared = getattr(module, "num_key_value_groups", 1)
        kv_heads = max(1, heads // shared) if isinstance(shared, int) and shared > 0 else heads
        square = scores.sizes[0] * LENGTH**2
        d_qk, d_v = scores.macs // square, values.macs // square
        window = window if isinstance(window, int) and window > 0 and causal else None
        page.add(values.out, lambda out: Attend(q, k, v, out, heads, kv_heads, d_qk, d_v, window, causal))

    def _from_memory(self, scores: Event) -> bool:
        """Whether one side of the scores is made from the encoder's output alone."""
        memory = {(self.first_decoder, 0)}
        for root in _plain(scores.left) | _plain(scores.right):
            made = self.costs.get(root)
            if made is not None and _plain(made.short.left) | _plain(made.short.right) == memory:
                return True
        return False

    def _decodes(self) -> bool:
        return type(self.model).__name__.endswith(("CausalLM", "LMHeadModel"))

    def _plain(self, page: Page, cost: Cost) -> None:
        """A product of two values: of each position by itself, or of every position with every other."""
        event = cost.short
        self._check_live(event)
        left, right = page.value(_plain(event.left)), page.value(_plain(event.right))
        each = event.macs // (BATCH * LENGTH)
        if _grows(cost, 1):
            page.add(event.out, lambda out: Product(left, right, out, each))
        elif _grows(cost, 2):
            causal = self._decodes()
            page.add(
                event.out, lambda out: Attend(left, right, left, out, 1, 1, each // LENGTH, 0, None, causal)
            )
        else:
            raise NotCountedError("a product of values grows neither with the length nor with its square")


def _grows(cost: Cost, power: int) -> bool:
    """Whether a product grows with the batch and with this power of the length."""
    here, there = int(BATCH * LENGTH**power), int(CHECKED_BATCH * cost.length**power)
    unit, rest = divmod(cost.short.macs, here)
    return not rest and cost.long == unit * there


def _plain(side: Roots | Weight) -> Roots:
    return NOTHING if isinstance(side, Weight) else side


def _reaches(side: Roots | Weight, root: Root) -> bool:
    return root in _plain(side)


def _attention(events: list[Event]) -> dict[int, int]:
    """Pairs of products that are scores and values of attention: the second's position -> the first's."""
    found: dict[int, int] = {}
    for position, event in enumerate(events):
        if event.op not in ("bmm", "baddbmm") or not _plain(event.left) or not _plain(event.right):
            continue
        for earlier in range(position - 1, max(-1, position - 12), -1):
            scores = events[earlier]
            if (
                scores.op not in ("bmm", "baddbmm")
                or scores.sizes[0] != event.sizes[0]
                or earlier in found.values()
            ):
                continue
            square = scores.sizes[1] == LENGTH == scores.sizes[3] and scores.sizes[2] != LENGTH
            both = _plain(scores.left) and _plain(scores.right) and earlier not in found
            sides = (_reaches(event.left, scores.out), _reaches(event.right, scores.out))
            if square and both and sides.count(True) == 1 and event.macs % (event.sizes[0] * LENGTH**2) == 0:
                found[position] = earlier
                break
    return found


def _live(recording: Recording) -> set[Root]:
    """The roots that a gradient of the output reaches."""
    live = set(recording.final)
    for number in range(len(recording.segments) - 1, -1, -1):
        segment = recording.segments[number]
        for event in reversed(segment.events):
            if event.out in live:
                live |= _plain(event.left) | _plain(event.right)
        if (number, 0) in live and number:
            live |= recording.segments[number - 1].out
    return live


def _every_expert(cost: Cost, matrix: Matrix) -> bool:
    """Whether every expert runs at every position, whichever are active."""
    if matrix.kind != "experts" or matrix.experts == matrix.experts_active:
        return False
    unit = matrix.d_in * matrix.d_out * matrix.experts
    return cost.short.macs == unit * BATCH * LENGTH and cost.long == unit * CHECKED_BATCH * cost.length


def _positions(cost: Cost, matrix: Matrix) -> tuple[int, int, int]:
    """How many positions a weight is applied to, as positions * times // per + extra: one number for any length (the
    first token's), those of the sequence and a rest (a padded convolution), a multiple or a fraction of them."""
    weight = matrix.d_in * matrix.d_out * max(1, matrix.experts_active)
    short, rest = divmod(cost.short.macs, BATCH * weight)
    long, rest_long = divmod(cost.long, CHECKED_BATCH * weight)
    if rest or rest_long:
        raise NotCountedError(f"{matrix.name} is applied to part of the positions")
    if short == long:
        return 0, 1, short
    extra = short - LENGTH
    if extra >= 0 and long == cost.length + extra:
        return 1, 1, extra
    times, over = divmod(short, LENGTH)
    if not over and long == cost.length * times:
        return times, 1, 0
    per = LENGTH // short if short else 0
    if per > 1 and (short, long) == (LENGTH // per, cost.length // per):
        return 1, per, 0
    raise NotCountedError(
        f"{matrix.name} is applied to a number of positions that does not follow the length"
    )
