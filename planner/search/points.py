"""Memory at many ranks and micro-batches of one layout at once: the formulas of planner/memory over arrays.

A step's course only adds what its stretches hold, and a stretch is known with symbols for ranks and the micro-batch
(`memory.linear`). So the course is run once with a size for every point in the place of each number, and the highest
of its places is taken at each point by itself. All sizes are whole parts of a byte, which add up exactly in whatever
order. Where something compares sizes, or is no such part, `figures` has nothing, and each point is computed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..adapter import Adapted
from ..dataclass import dataclass, replace
from ..memory.caching import grows, pools_of
from ..memory.constants import constants
from ..memory.course import ways
from ..memory.kinds import Job
from ..memory.known import scales, with_batch
from ..memory.layout import Shaped, shape_of
from ..memory.linear import AtPoints, Joined, Linear, NotLinearError, Points
from ..memory.loading import before_steps
from ..memory.overhead import overhead, times_kept
from ..memory.peak import Throughout, as_run, fixed_bytes, memory_is_ruled, throughout
from ..memory.per_layer import PROJECTION
from ..memory.sharding import end_unit, gathered, in_flat_units, in_one, one_stream, reduce_buffer, spread
from ..memory.stages import Stage, stages
from ..memory.states import Weights, base_weights
from ..memory.step import Place, course
from ..memory.stretch import Held, Peaks, Stretch
from ..schema import Architecture
from ..setup import Setup
from .streams import streams_at
from .tables import Table

Array = Any  # a numpy array
FIGURES = 10
EARLY = 5  # place of a figure, behind the moments of a step
PASSES = ("forward", "loss", "backward")


class Sizes(np.ndarray):
    """A size at every point. It is something where it is at any of them; none is compared."""

    def __bool__(self) -> bool:
        return bool(self.view(np.ndarray).any())

    def _refuse(self, _: object) -> Any:
        raise NotLinearError

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        raise NotLinearError


def sizes(values: Any) -> Sizes:
    """Numbers as sizes."""
    return np.asarray(values, float).view(Sizes)


class _At(AtPoints):
    """Points at which a walk is evaluated: symbols in `values`, a row for each."""

    def __init__(self, values: Array, places: Array) -> None:
        self.values, self.places = values, places

    def beside(self, others: Sequence[_At]) -> _At:
        """These and others of the same symbols."""
        if not others:
            return self
        values, places = zip(*((own.values, own.places) for own in (self, *others)), strict=True)
        return _At(np.concatenate(values, axis=1), np.concatenate(places))

    def stretch(self, part: Stretch) -> Stretch:
        """A stretch at every point."""
        if part.arrays is None:
            highest = part.highest.each if isinstance(part.highest, Peaks) else [part.highest]
            part.arrays = _rows_of([part.change]), _rows_of(highest)
        return Stretch(*(self._held(*each) for each in part.arrays))

    def _held(self, labels: Sequence[str], rows: Array) -> Held:
        """Of what is held at some moments that which is most at each point, by label."""
        if not labels:
            return {}
        width = rows.shape[2]  # 1 where none is over symbols
        found = _most(rows @ self.values[:width])
        return {label: own.view(Sizes) for label, own in zip(labels, found, strict=True)}


def _rows_of(each: Sequence[Held]) -> tuple[list[str], Array]:
    """Labels, and the rows of sizes by moment and label."""
    labels = list(dict.fromkeys(label for held in each for label in held))
    sizes_ = [(number, label, size) for number, held in enumerate(each) for label, size in held.items()]
    width = max((len(size.row) for _, _, size in sizes_ if isinstance(size, Linear)), default=1)
    rows = np.zeros((len(each), len(labels), width))
    for number, label, size in sizes_:
        row = size.row if isinstance(size, Linear) else (size,)
        rows[number, labels.index(label), : len(row)] = row
    return labels, rows


class _Points(Points):
    """Adapters of one shape with all micro-batches each, from place `first` on."""

    def __init__(self, ranks: Sequence[Sequence[int]], batches: tuple[int, ...], first: int) -> None:
        self.ranks, self.batches, self.first = np.array(ranks, float), batches, first
        self._known: dict[Any, _At] = {}

    def of(self, batches: tuple[int, ...], least: int) -> _At:
        """Those of some micro-batches, of a walk for so many sequences and more; for one alone where that is 0."""
        if (batches, least) not in self._known:
            count = len(self.ranks)
            own = np.repeat(self.ranks.T, len(batches), axis=1)  # a row for each rank
            more = np.tile(np.array(batches, float) - (least - 1), count)[None]
            values = np.concatenate([np.ones_like(more), own, *([more, more * own] if least else [])])
            at = np.array([self.batches.index(size) for size in batches])
            places = (np.arange(count)[:, None] * len(self.batches) + at).ravel() + self.first
            self._known[batches, least] = _At(values, places)
        return self._known[batches, least]


class _Together(Joined):
    """Points of adapters and micro-batches one after another, each adapter's with all micro-batches of its part."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.each = [len(part.batches) for part in parts for _ in part.held]
        self.ends = np.cumsum([0, *(len(part.batches) * len(part.held) for part in parts)])
        self.parts = [
            (part.job, _Points(part.ranks, part.batches, int(first)))
            for part, first in zip(parts, self.ends, strict=False)
        ]
        self.count = int(self.ends[-1])
        self.batch = sizes([size for part in parts for _ in part.held for size in part.batches])
        self.buffer = self.of([own for part in parts for own in part.buffers])
        self.setups = [part.job.setup for part in parts for _ in part.held]
        over = list(map(spread, self.setups))
        self.spread = {label: self.of([own[label] for own in over]) for label in over[0]}

    def of(self, by_adapter: Sequence[float]) -> Any:
        """Numbers by adapter at every point; one where they are all alike."""
        alike = len(set(by_adapter)) == 1
        return by_adapter[0] if alike else sizes(np.repeat(by_adapter, self.each))

    def held(self, each: Sequence[Mapping[str, Any]]) -> Held:
        """What is held by adapter at every point."""
        labels = dict.fromkeys(label for held in each for label in held)
        return {label: self.of([held.get(label, 0) for held in each]) for label in labels}

    def stretch(self, places: Sequence[Array], each: Sequence[Stretch]) -> Stretch:
        """Stretches at some of the places each as one."""
        changes, highest = ([one.change for one in each], [one.highest for one in each])
        return Stretch(self._beside(places, changes), self._beside(places, highest))

    def _beside(self, places: Sequence[Array], each: Sequence[Held]) -> Held:
        found: dict[str, Any] = {}
        for label in dict.fromkeys(label for held in each for label in held):
            found[label] = sizes(np.zeros(self.count))
            for held, own in zip(each, places, strict=True):
                found[label][own] = held.get(label, 0)
        return found


def _most(held: Array) -> Array:
    """Of bytes by moment, label and point those of the moment that holds most at each point, the first of equals."""
    if len(held) == 1:
        return held[0]
    return held[held.sum(axis=1).argmax(axis=0), :, np.arange(held.shape[2])].T


def _rounded(places: Sequence[Held], count: int) -> tuple[list[str], Array]:
    """Labels, and whole bytes of each at every point where most is held (`memory.peak`'s moments)."""
    labels = list(dict.fromkeys(label for held in places for label in held))
    if not labels:
        return labels, np.zeros((0, count))
    filled = np.zeros((len(places), len(labels), count))
    for number, held in enumerate(places):
        for label, size in held.items():
            filled[number, labels.index(label)] += size
    return labels, np.maximum(np.rint(_most(filled)), 0)


def passing(arch: Architecture, setup: Setup) -> tuple[Any, ...]:
    """What a step's course takes from a set-up beside what is held, gathered and spread over GPUs. Whether gradients
    go at once is each walk's own, but in flat units."""
    arch = as_run(arch, setup)
    leave, go, *others = ways(arch, setup)
    return leave, go and in_flat_units(setup), *others, end_unit(arch, setup), any(gathered(arch, setup))


@dataclass(frozen=True)
class Asked:
    """Figures that are asked for: of adapters on one base, with set-ups that differ in their micro-batch alone."""

    setups: Sequence[Setup]
    tables: Sequence[Table]

    @property
    def batches(self) -> tuple[int, ...]:
        """The micro-batches."""
        return tuple(setup.micro_batch for setup in self.setups)


@dataclass(frozen=True)
class _Part:
    """Adapters of one shape with micro-batches: by adapter what is `held` throughout, the ranks and what FSDP reduces
    in; `place` is where their figures go, by question and adapter."""

    job: Job
    batches: tuple[int, ...]
    held: Sequence[Throughout]
    ranks: Sequence[Sequence[int]]
    buffers: Sequence[int]
    place: tuple[int, tuple[int, ...]]


def figures(arch: Architecture, asked: Sequence[Asked]) -> list[Array] | None:
    """`peaks._figures`, tables x set-ups x stages, of each that is asked for; their set-ups differ in the
    micro-batch, in micro-steps, in how weights are quantised and in the number of GPUs whose steps are `passing`
    alike. None where some of it cannot be had at once."""
    setup = asked[0].setups[0]
    arch = as_run(arch, setup)
    if not all(_regular(arch, each.setups[0], each.tables[0]) for each in asked):
        return None
    if len(asked) > 1 and any(
        matrix.leaf == PROJECTION for matrix in arch.matrices
    ):  # pairs on it change the step
        return None
    found = []
    for stage in stages(arch, setup):
        made = _of_stage(arch, asked, stage)
        if made is None:
            return None
        found.append(made)
    return [np.stack([made[number] for made in found], axis=2) for number in range(len(asked))]


def _of_stage(arch: Architecture, asked: Sequence[Asked], stage: Stage) -> list[Array] | None:
    """Figures by table and set-up."""
    found = [np.zeros((len(each.tables), len(each.setups), FIGURES)) for each in asked]
    weights = [base_weights(arch, each.setups[0]) for each in asked]
    held = [
        [throughout(arch, each.setups[0], t.pairs, t.whole, own, stage, known=t.made) for t in each.tables]
        for each, own in zip(asked, weights, strict=True)
    ]
    parts = [
        part
        for number, each in enumerate(asked)
        for part in _parts(arch, each, number, held[number], weights[number])
    ]
    try:
        made = _at_all(parts, stage)
    except NotLinearError:
        return None
    for part, own in zip(parts, made, strict=True):
        number, tables = part.place
        found[number][list(tables)] = own
    for into, each, own_held, bases in zip(found, asked, held, weights, strict=True):
        _with_what_comes_before(arch, into, each, own_held, bases, stage)
    return found


def _parts(
    arch: Architecture, asked: Asked, number: int, held: Sequence[Throughout], weights: Weights
) -> Iterator[_Part]:
    """Tables of one shape each."""
    shapes: dict[Any, list[int]] = {}
    for place, table in enumerate(asked.tables):
        shapes.setdefault(_shape(table)[0][0], []).append(place)
    setup = asked.setups[0]
    for tables in shapes.values():
        (shape, _), pairs = _shape(asked.tables[tables[0]])
        job = Job(
            arch, setup, pairs, asked.tables[tables[0]].whole, unpacked=weights.unpacked,
            ranks_follow=True, shaped=(shape, shape_of(pairs)[1]),
        )  # fmt: skip
        yield _Part(
            job, asked.batches, [held[place] for place in tables],
            [(*_shape(asked.tables[place])[0][1], *scales(setup)) for place in tables],
            [reduce_buffer(arch, setup, asked.tables[place].pairs) for place in tables], (number, tuple(tables)),
        )  # fmt: skip


def _shape(table: Table) -> tuple[Shaped, tuple[Adapted, ...]]:
    """The shape of an adapter and its ranks, with one of that shape whose ranks differ (`shapes_of`)."""
    if "shape" not in table.made:
        table.made["shape"] = (shape_of(table.pairs), table.pairs)
    found: tuple[Shaped, tuple[Adapted, ...]] = table.made["shape"]
    return found


def _regular(arch: Architecture, setup: Setup, some: Table) -> bool:
    """Whether a set-up has only what is summed over arrays: one stack of text, nothing run before or between steps,
    nothing trained at the embedding, and shares that are powers of two."""
    plain = not (arch.is_encoder_decoder or arch.images or setup.eval_batch or setup.runs_reference)
    halves = all(float(over).hex().startswith("0x1.0000000000000p") for over in spread(setup).values())
    made = setup.objective != "grpo" or setup.generation == "server"
    embedded = any(item.matrix.role == "embedding" for item in some.pairs) or some.whole.embedding
    known = setup.kernels != "litgpt" and setup.method != "full" and memory_is_ruled(arch)
    return plain and halves and made and known and not (embedded or in_one(setup))


def _at_all(parts: Sequence[_Part], stage: Stage) -> list[Array]:
    """Figures of each part by table and micro-batch, nothing being known of what comes before the first step. Raises
    NotLinearError."""
    points, first = _Together(parts), parts[0].job
    many = with_batch(first.setup, points.batch)
    held = [each for part in parts for each in part.held]
    fixed: Held = {"fixed": fixed_bytes(many)}
    passing, last = (
        {**points.held(own), **fixed}
        for own in ([each.passing for each in held], [each.last for each in held])
    )
    going = course(
        replace(first, setup=many, points=points), passing, stage, points.of([each.live for each in held])
    )
    found = [_rounded(_of_phase(going.places, phase), points.count) for phase in PASSES]
    found.append(_rounded([last], points.count))
    columns = _figures(first.arch, first.setup, points, held, going.places, found)
    made = np.stack([np.broadcast_to(each, points.count) for each in columns], axis=-1)
    return [
        made[start:end].reshape(len(part.held), len(part.batches), FIGURES)
        for part, start, end in zip(parts, points.ends, points.ends[1:], strict=False)
    ]


def _with_what_comes_before(
    arch: Architecture, found: Array, asked: Asked, held: Sequence[Throughout], weights: Weights, stage: Stage
) -> None:
    """Put in bytes of the highest moment before the first step, and of all that is taken until then."""
    setup = asked.setups[0]
    for own, each in zip(found, held, strict=True):
        before = before_steps(arch, setup, weights, stage, each.own)
        own[:, EARLY] = max((sum(place.base.values()) for place in before.places), default=0)
        own[:, -1] = before.reserved


def _of_phase(places: Sequence[Place], phase: str) -> list[Held]:
    found = []
    for place in places:
        if place.phase == phase:
            held = dict(place.base)
            for label, size in place.highest.items():
                held[label] = held[label] + size if label in held else size
            found.append(held)
    return found


def _figures(
    arch: Architecture, setup: Setup, points: _Together, held: Sequence[Throughout], places: Sequence[Place],
    found: Sequence[tuple[list[str], Array]],
) -> list[Any]:  # fmt: skip
    """As `peaks._figures` has them, from whole bytes by label of the passes and the optimizer's step."""
    moments = np.stack([own.sum(axis=0) for _, own in found])
    apart = _apart(places, points.of([each.update for each in held]), points.count)
    varied = _varied(setup, found[:-1], moments[:-1])
    streamed = points.of(
        [
            each.unit + each.outside if own.gpus > 1 and not one_stream(own) else 0
            for own, each in zip(points.setups, held, strict=True)
        ]
    )
    beyond = points.of([sum(item.bytes for item in overhead(own)) for own in points.setups])
    sets = zip(points.setups, held, strict=True)
    pools = [pools_of(arch, own, each.gradients, each.unit, each.outside) for own, each in sets]
    streams = streams_at(pools, points.of, found, moments)
    times = _times_kept(points.setups[0], points.batch)
    kept = (_cached(times, apart, streamed, each) + streams for each in (varied, 0))
    return [0, *moments, 0, beyond, *kept, 0]


def _apart(places: Sequence[Place], update: Any, count: int) -> Array:
    """`memory.peak`'s transient bytes of the phases but the largest."""
    kinds: list[Array] = []
    for inside in (True, False):
        own = [place.highest for place in places if ("layer" in place.where) == inside]
        totals = [np.zeros(count), *(np.asarray(sum(held.values()), float) for held in own if held)]
        kinds.append(np.maximum.reduce([np.broadcast_to(total, count) for total in totals]))
    kinds.append(np.broadcast_to(np.asarray(update, float), count))
    return np.rint(np.sort(np.stack(kinds), axis=0)[:-1].sum(axis=0))


def _varied(setup: Setup, found: Sequence[tuple[list[str], Array]], moments: Array) -> Array:
    """`memory.caching.varied_bytes` at every point."""
    names = grows(setup)
    own = [
        np.sum(
            [held[labels.index(name)] for name in names if name in labels] or [np.zeros(moments.shape[1])],
            axis=0,
        )
        for labels, held in found
    ]
    return np.stack(own)[moments.argmax(axis=0), np.arange(moments.shape[1])]


def _times_kept(setup: Setup, batch: Any) -> Array:
    """`memory.overhead.times_kept` at micro-batches."""
    sizes, places = np.unique(np.asarray(batch), return_inverse=True)
    own = [times_kept(replace(setup, micro_batch=int(size)), constants()) for size in sizes]
    return np.array(own)[places]


def _cached(times: Any, apart: Array, streamed: Any, varied: Any) -> Array:
    """`memory.overhead.cached` at every point."""
    known = constants()
    gathered = known.cached_gathered * np.asarray(streamed, float)
    return np.rint(known.cached_apart * apart + gathered + times * varied)
