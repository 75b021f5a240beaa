"""Memory of all plans of a space at once.

It is computed with the scalar formula for every layout and micro-batch whose parts go together, with one micro-step
and with several, at the ends of the ranks and at ranks between them until these lie on straight lines, moment by
moment. Sizes of a step are sums linear in ranks and a moment is the largest of several such sums, which is a straight
line where a point between two lies on the line through them; to the byte but for what is rounded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..choices import Checkpointing, Quantize
from ..dataclass import dataclass, replace
from ..memory.calibration import corrected, telling
from ..memory.constants import constants
from ..memory.interval_kinds import MEASURED
from ..memory.overhead import cached, kind_of
from ..memory.peak import as_run, estimate_stages, throughout
from ..memory.stages import stages
from ..memory.states import base_weights
from ..moments import Interval, MemoryEstimate
from ..objective_rules import SHARES_GPU
from ..setup import Setup
from ..workers import done
from .layout import NOT_SHARDED, Layout
from .points import Asked, figures, passing
from .space import NO_ENGINE, Job, Space, setup_of
from .tables import Table

Array = Any  # a numpy array
Group = tuple[str, Quantize, Checkpointing]  # of tables: layers, base and recompute
Key = tuple[Layout, int, int]  # of a sample: layout, micro-batch, micro-steps
Sampled = tuple[Group, Layout, int]  # samples of all micro-batches: tables, layout, micro-steps
Early = tuple[Key, bool]  # whether what comes before the first step counts
# Then all that comes before the first step.
MOMENTS = ("evaluation", "forward", "loss", "backward", "optimizer")
EARLY = len(MOMENTS)
HELD = ("weights", "adapter", "optimizer", "gathered")  # labels of what stays through the passes of a step
BESIDE_RANK = 1e-6  # how far a line may pass a rank by what is rounded
ENOUGH = 8  # samples of several groups and micro-batches that are worth a process
ROUNDED = 64.0  # bytes that a point may lie beside a line by what is rounded


@dataclass(frozen=True)
class _Samples:
    """`_figures` of tables of one group with several micro-batches, micro-batches x stages of the pipeline (one where
    there is none), without the making of completions; `known` by parameters, where they were made with others."""

    job: Job
    setups: Sequence[Setup]
    tables: Sequence[Table]
    known: dict[int, Array] = field(default_factory=dict)

    @classmethod
    def of(
        cls, job: Job, layout: Layout, batches: Sequence[int], micro_steps: int, found: Sequence[Table]
    ) -> _Samples:
        """Those of a group under a layout."""
        some = found[0]
        setups = (
            setup_of(job, some.quantize, some.checkpointing, layout, size, micro_steps) for size in batches
        )
        own = (
            replace(setup, generation="server", **NO_ENGINE) if setup.objective == "grpo" else setup
            for setup in setups
        )
        return cls(job, tuple(own), found)

    @property
    def sure(self) -> Asked:
        """What is surely asked for."""
        return Asked(self.setups, sure(self.tables))

    @property
    def left(self) -> Asked:
        """What is not known."""
        own = {each.params: each for each in self.tables if each.params not in self.known}
        return Asked(self.setups, list(own.values()))

    def bends(self) -> bool:
        """Whether more is asked for than what surely is, which is known."""
        own = {table.params: table for table in self.tables}
        params = sorted(own)
        for low, high in stretches(*(own[number] for number in params)):
            ends, middle = (params[low], params[high]), params[(low + high) // 2]
            if high - low > 1 and self.known.keys() >= {*ends, middle}:
                one, other = (self.known[number] for number in ends)
                share = (middle - ends[0]) / (ends[1] - ends[0])
                if not _close(self.known[middle], one + share * (other - one), ROUNDED):
                    return bool(self.left.tables)
        return False

    def __call__(self, table: Table) -> Array:
        if table.params not in self.known:  # between two that lie on no line, as others may
            at_once([(self, self.left)])
        if table.params not in self.known:
            self.known[table.params] = np.stack([self._alone(setup, table) for setup in self.setups])
        return self.known[table.params]

    def _alone(self, setup: Setup, table: Table) -> Array:
        stages = estimate_stages(self.job.arch, setup, table.pairs, table.whole)
        peaks = self.job.calibration.peaks
        return np.stack([_figures(corrected(found, self.job.arch, peaks), setup) for found in stages])


def at_once(asked: Sequence[tuple[_Samples, Asked]]) -> None:
    """Make samples of several groups together, as far as they can be. Measured peaks correct an estimate by its
    items, one by one."""
    job = asked[0][0].job
    found = None if job.calibration.peaks else figures(job.arch, [each for _, each in asked])
    if found is None and len(asked) > 1 and not job.calibration.peaks:
        for one in asked:
            at_once([one])
        return
    for (samples, each), made in zip(asked, found or (), strict=False):
        samples.known.update(zip((table.params for table in each.tables), made, strict=True))


def _figures(found: MemoryEstimate, setup: Setup) -> Array:
    """Bytes of each of MOMENTS and before the first step, of the overhead, of what the allocator keeps of a step, of
    that without what varying lengths leave, and of all that it has taken before the first."""
    moments = {str(moment.phase): float(moment.bytes) for moment in found.moments}
    overhead = float(sum(item.bytes for item in found.overhead))
    early = float(found.loading_peak.bytes) if found.loading_peak else 0.0
    kept = (cached(setup, found.apart_bytes, found.gathered_bytes, own) for own in (found.varied_bytes, 0))
    more, plain = (float(each + found.streams_bytes) for each in kept)
    of_step = (moments.get(phase, 0.0) for phase in MOMENTS)
    return np.array([*of_step, early, overhead, more, plain, float(found.before_bytes)])


@lru_cache(maxsize=64)
def stretches(*found: Table) -> tuple[tuple[int, int], ...]:
    """First and last places of stretches of tables, in the order of their parameters, in which the ranks of all pairs
    grow evenly with these: those of experts may stay at 1 while the others' grow."""
    ranks = [[table.params, *(pair.rank for item in table.pairs for pair in item.pairs)] for table in found]
    if len(set(map(len, ranks))) > 1:  # they differ in more than ranks
        return ((0, len(found) - 1),)
    points, ends = np.array(ranks, float), [0]
    for place in range(2, len(points)):
        own = points[ends[-1] : place + 1] - points[ends[-1]]
        rise = own[-1, 0]
        shares = own[:, :1] / rise if rise else np.zeros((len(own), 1))
        if np.abs(own[:, 1:] - shares * own[-1, 1:]).max(initial=0.0) > BESIDE_RANK:
            ends.append(place - 1)
    return tuple(itertools.pairwise([*ends, len(points) - 1])) or ((0, 0),)


def sure(found: Sequence[Table]) -> list[Table]:
    """Of tables that differ in rank alone those that `over_ranks` surely asks for: at both ends of each of their
    stretches, and between them."""
    own = {table.params: table for table in found}
    in_order = [own[number] for number in sorted(own)]
    places = {place for low, high in stretches(*in_order) for place in (low, (low + high) // 2, high)}
    return [in_order[place] for place in sorted(places)]


def over_ranks(found: Sequence[Table], sample: Callable[[Table], Array], rounded: float = ROUNDED) -> Array:
    """The figures of tables that differ in rank alone, or in what changes no figure: of those with as many
    parameters, which have the same adapter, one is taken. Sampled at both ends of each of their `stretches` and
    between them, and taken from the line through two neighbours where a sample between these lies on it: of what is
    the largest of several lines that proves all between, given three different points."""
    own = {table.params: table for table in found}
    params = sorted(own)
    known: dict[int, Array] = {}

    def at(place: int) -> Array:
        if place not in known:
            known[place] = sample(own[params[place]])
        return known[place]

    def line(low: int, high: int, place: int) -> Array:
        share = (params[place] - params[low]) / (params[high] - params[low])
        return at(low) + share * (at(high) - at(low))

    open_ = list(stretches(*(own[number] for number in params)))
    while open_:
        low, high = open_.pop()
        at(low), at(high)
        if high - low < 2:
            continue
        middle = (low + high) // 2
        halves = ((low, middle), (middle, high))
        if not _close(at(middle), line(low, high, middle), rounded):
            open_ += halves
            continue
        for start, end in halves:
            known.update({place: line(start, end, place) for place in range(start + 1, end)})
    places = {number: place for place, number in enumerate(params)}
    return np.stack([known[places[table.params]] for table in found])


def _close(one: Array, other: Array, rounded: float) -> bool:
    """numpy's allclose, which is slow and needed only where something is not finite."""
    off = np.abs(one - other)
    if np.isfinite(off).all():
        return bool((off <= rounded + 1e-12 * np.abs(other)).all())
    return bool(np.allclose(one, other, rtol=1e-12, atol=rounded))


def _needed(figures: Array, early: bool, through: int) -> Array:
    """Of figures by stage: what the stage of a pipeline that needs most needs, what the allocator keeps beside, and
    what it keeps of a step whose lengths are all alike; `early`: whether what comes before the first step counts, and
    what the allocator had taken by then; `through`: bytes that are held besides all through the steps."""
    at, (beyond, more, plain, before) = figures[..., :-4].copy(), np.moveaxis(figures[..., -4:], -1, 0)
    at[..., :EARLY] += through
    if not early:
        at[..., EARLY], before = 0.0, np.zeros_like(before)
    most = at.max(axis=-1)
    taken = np.maximum(np.maximum(at[..., :EARLY].max(axis=-1) + more, before), most)
    needed, kept = most + beyond, taken - most
    top = needed.argmax(axis=-1)[..., None]
    return np.stack([np.take_along_axis(figure, top, -1)[..., 0] for figure in (needed, kept, plain)])


def _one_for(layout: Layout) -> Layout:
    """One layout that stands for all whose steps take the same memory: copies, however many, and whoever makes
    completions."""
    if layout.sharding in NOT_SHARDED:
        layout = replace(layout, gpus=0)
    if layout.generation is not None:
        layout = replace(layout, generation="server", vllm_gpus=1)
    return layout


def _sample_of(space: Space, at: tuple[int, ...], micro_steps: int) -> Key:
    """The sample that stands for a micro-batch, layout and batch: two micro-steps stand for several; as many as a
    pipeline has stages are in flight."""
    layout = space.layouts[at[1]]
    return _one_for(layout), space.micro_batches[at[0]], min(micro_steps, max(2, layout.pipeline_parallel))


@dataclass(frozen=True, eq=False)
class Sampling:
    """What is asked for: the memory of a job's tables under every layout of a space; `steps` are micro-steps by
    micro-batch, layout and batch. `known` holds samples that others of the same job have made. Where more than `room`
    bytes are held throughout, these alone are asked for."""

    job: Job
    space: Space
    found: Sequence[Table]
    steps: Array
    known: dict[Any, Any]
    room: float = math.inf

    @cached_property
    def samples(self) -> dict[tuple[int, ...], Key]:
        """The sample of each micro-batch, layout and batch that go together."""
        whole = (self.steps >= 1) & (self.steps == np.floor(self.steps))
        together = (tuple(map(int, at)) for at in np.argwhere(whole))
        return {at: _sample_of(self.space, at, int(self.steps[at])) for at in together}

    @cached_property
    def groups(self) -> dict[Group, list[int]]:
        """Numbers of tables by group."""
        own: dict[Group, list[int]] = {}
        for number, table in enumerate(self.found):
            own.setdefault((table.layers, table.quantize, table.checkpointing), []).append(number)
        return own

    @cached_property
    def seen(self) -> dict[Group, dict[Key, Array]]:
        """The figures of samples that were made, of each group of tables."""
        return {group: self.known.setdefault(("peaks", self.job.setup, group), {}) for group in self.groups}

    @cached_property
    def real(self) -> dict[Key, Layout]:
        """A layout of each sample."""
        return {key: self.space.layouts[at[1]] for at, key in self.samples.items()}

    @cached_property
    def beyond(self) -> dict[tuple[Group, Layout], float]:
        """Bytes that are held throughout, by group and layout, where that is more than there is room for. None is
        looked for where completions or measured peaks have a say in what is needed."""
        if self.room == math.inf or self.job.setup.objective == "grpo" or self.job.calibration.peaks:
            return {}
        layouts = {key[0]: layout for key, layout in self.real.items()}
        found: dict[tuple[Group, Layout], float] = {}
        for group, numbers in self.groups.items():
            least = min((self.found[number] for number in numbers), key=lambda table: table.params)
            found.update(
                {(group, key): _throughout(self.job, group, own, least) for key, own in layouts.items()}
            )
        return {place: held for place, held in found.items() if held > self.room}

    def left(self) -> list[dict[Sampled, list[Key]]]:
        """Samples that are not there yet, those in one that are made at once."""
        asked = {
            group: [k for k in self.real if k not in seen and (group, k[0]) not in self.beyond]
            for group, seen in self.seen.items()
        }
        return _together(self.job, self.real, asked)

    def made(self, asked: Mapping[Sampled, Sequence[Key]]) -> dict[Sampled, Array]:
        """The figures of samples that can be made at once, tables x micro-batches x stages."""
        real = self.real
        alike = {group: [self.found[number] for number in self.groups[group]] for group, *_ in asked}
        own = {
            (group, layout, steps): _Samples.of(
                self.job, real[keys[0]], [batch for _, batch, _ in keys], steps, alike[group]
            )
            for (group, layout, steps), keys in asked.items()
        }
        at_once([(samples, samples.sure) for samples in own.values()])
        if more := [(samples, samples.left) for samples in own.values() if samples.bends()]:
            at_once(more)
        return {each: over_ranks(alike[each[0]], samples) for each, samples in own.items()}


def _throughout(job: Job, group: Group, layout: Layout, least: Table) -> float:
    """Bytes that a GPU of the stage that has most holds of the weights, the adapter and its states through the passes
    of a step, with one gathered layer; `least`: the smallest adapter."""
    setup = setup_of(job, group[1], group[2], layout, 1, 1)
    arch = as_run(job.arch, setup)
    own, most = base_weights(arch, setup), 0.0
    for stage in stages(arch, setup):
        held = throughout(arch, setup, least.pairs, least.whole, own, stage, known=least.made)
        passing: Mapping[str, Any] = held.passing  # no symbols are among these
        most = max(most, held.live + sum(passing[label] for label in HELD))
    return most


def sample(asked: Sequence[Sampling]) -> None:
    """Make the samples that are not there yet, all of them shared among the cores of this machine."""
    open_ = [(own, each) for own in asked for each in own.left()]
    kinds = [(*(group[1:] for group, *_ in each), *_walked(next(iter(each))[1])) for _, each in open_]
    made = done(lambda number: open_[number][0].made(open_[number][1]), kinds, enough=ENOUGH)
    for (own, each), figures_ in zip(open_, made, strict=True):
        for place, keys in each.items():
            own.seen[place[0]].update(zip(keys, np.moveaxis(figures_[place], 1, 0), strict=True))


def _together(
    job: Job, real: Mapping[Key, Layout], asked: Mapping[Group, Sequence[Key]]
) -> list[dict[Sampled, list[Key]]]:
    """Samples that are asked for, those together that differ in what is added up alone: in a group's adapters, in
    the micro-batch and in micro-steps (but of a pipeline, which has as many in flight), in the number of GPUs and of
    those that share experts."""
    found: dict[Any, dict[Sampled, list[Key]]] = {}
    ways: dict[Any, Any] = {}
    for group, key in ((group, key) for group, keys in asked.items() for key in keys):
        layout, batch, micro_steps = key
        own = (group[1:], layout, micro_steps)
        if own not in ways:
            setup = setup_of(job, group[1], group[2], real[key], batch, micro_steps)
            sharding = "ddp" if layout.sharding in NOT_SHARDED else layout.sharding
            apart = 1 if layout.pipeline_parallel == 1 else layout.expert_parallel
            alike = replace(layout, gpus=0, shard_size=None, sharding=sharding, expert_parallel=apart)
            flight = micro_steps if layout.pipeline_parallel > 1 else 0
            ways[own] = alike, passing(job.arch, setup), flight
        quantised = group[1].startswith("nf4")
        kind = (*ways[own], quantised, group[2] if quantised else group[1:])
        found.setdefault(kind, {}).setdefault((group, layout, micro_steps), []).append(key)
    return list(found.values())


def _walked(layout: Layout) -> tuple[int, int]:
    """What of a layout changes the operations of a step, for which layers are walked, beside how experts are
    divided."""
    return layout.tensor_parallel, layout.sequence_parallel


def peaks(asked: Sampling, through: int = 0) -> tuple[Array, Array, Array]:
    """Bytes that a GPU needs, that the allocator keeps beside them, and that it keeps of a step whose lengths are
    alike, whatever is needed besides: tables x micro-batches x layouts x batches. Infinite where the parts do not go
    together; at least so much where that is `beyond` the room. `through` more stands all through the steps."""
    sample([asked])
    shape = (len(asked.found), *asked.steps.shape)
    held, kept, plain = np.full(shape, math.inf), np.zeros(shape), np.zeros(shape)
    if not asked.samples:
        return held, kept, plain
    # A vLLM is not there yet while the base is loaded: what is added for it later is not for that moment.
    early = {at: asked.space.layouts[at[1]].generation not in SHARES_GPU for at in asked.samples}
    for group, seen in asked.seen.items():
        needed = _needed_of(seen, {(k, early[at]) for at, k in asked.samples.items() if k in seen}, through)
        for at, key in asked.samples.items():
            if key not in seen:
                bound = np.array([[asked.beyond[group, key[0]]], [0.0], [0.0]])
                needed[key, early[at]] = np.repeat(bound, len(asked.groups[group]), axis=1)
        made = np.stack([needed[key, early[at]] for at, key in asked.samples.items()], axis=-1)
        for into, figure in zip((held, kept, plain), made, strict=True):
            into[(np.array(asked.groups[group])[:, None], *np.array(list(asked.samples)).T)] = figure
    return held, kept, plain


def _needed_of(seen: Mapping[Key, Array], asked: Iterable[Early], through: int) -> dict[Early, Array]:
    """`_needed` of samples, those of as many stages together."""
    together: dict[Any, list[Key]] = {}
    for key, early in asked:
        together.setdefault((seen[key].shape, early), []).append(key)
    found: dict[Early, Array] = {}
    for (_, early), keys in together.items():
        made = np.moveaxis(_needed(np.stack([seen[key] for key in keys]), early, through), 1, 0)
        found.update(zip([(key, early) for key in keys], made, strict=True))
    return found


def upper_ends(job: Job, space: Space, found: Sequence[Table]) -> tuple[tuple[Array, Array], ...]:
    """The upper ends of intervals, each with the bytes that are added to what is needed before: by table, micro-batch
    (one for all), layout and batch. The lowest holds: after a measured peak of those of such peaks and of the
    set-up's own kind, as `memory.calibration.scaled` has it."""

    def intervals(quantize: Quantize, layout: Layout) -> tuple[Interval, Interval]:
        setup = setup_of(job, quantize, "none", layout, 1, 1)
        own = constants().of_kind(kind_of(setup, job.lengths_open))
        measured = telling(job.calibration.peaks, job.arch, setup)
        return own, constants().of_kind(MEASURED) if measured else own

    by_base = [[intervals(quantize, layout) for layout in space.layouts] for quantize in space.quantize]
    own = np.array([[[(end.high, end.extra_bytes) for end in both] for both in base] for base in by_base])
    ends = own[[space.quantize.index(table.quantize) for table in found]]
    numbers = range(2 if job.calibration.peaks else 1)
    return tuple((ends[:, None, :, None, n, 0], ends[:, None, :, None, n, 1]) for n in numbers)
