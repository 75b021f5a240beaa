"""A step as it goes: what is held, and the stretches that were passed over it."""

from __future__ import annotations

from collections.abc import Sequence

from ..dataclass import dataclass
from ..moments import Phase
from ..schema import Architecture
from ..setup import Setup
from .kinds import Job
from .linear import is_exact
from .sharding import (
    copied_out,
    end_buffer,
    gradients_go,
    gradients_leave_layer,
    handed_over,
    in_flat_units,
    in_one,
    joined_gradients,
    one_stream,
    reduce_buffer,
    root_waits,
    spread,
)
from .stretch import Held, Stretch, plus
from .tape import EXPERT_GRADIENTS, Size

GRADIENTS = ("gradients", EXPERT_GRADIENTS)
NOTHING = Stretch()
Passed = tuple[str, Stretch]  # where, and what is passed


@dataclass(frozen=True)
class Place:
    """A stretch of the step with what is held when it begins."""

    phase: Phase
    where: str
    base: Held
    highest: Held


def ways(arch: Architecture, setup: Setup) -> tuple[int, ...]:
    """How a course goes under a set-up."""
    return (
        gradients_leave_layer(setup), gradients_go(setup), copied_out(setup), joined_gradients(setup),
        in_flat_units(setup), root_waits(arch, setup), end_buffer(arch, setup), handed_over(setup),
        one_stream(setup), in_one(setup),
    )  # fmt: skip


class Course:
    """The step as it goes: `level` is what is held, `places` the stretches that were passed.

    Gradients that a stretch leaves are `spread` over so many GPUs, by their label. While a layer runs, its
    gathered weights and those of the next one (`unit` bytes each) are held too.
    """

    def __init__(self, base: Held, job: Job, unit: Size = 0) -> None:
        setup = job.setup
        self.level = base
        self.places: list[Place] = []
        self.spread = spread(setup) if job.points is None else job.points.spread
        self.unit = unit
        self.drops, self.goes = gradients_leave_layer(setup), gradients_go(setup)
        self.copied_out = bool(unit) and copied_out(setup)
        self.buffer: Size = 0
        if unit:
            given = None if job.points is None else job.points.buffer
            self.buffer = reduce_buffer(job.arch, setup, job.adapted) if given is None else given
        self.joins = joined_gradients(setup) if unit else False
        self.flat = bool(unit) and in_flat_units(setup)
        self.one = in_one(setup) and setup.shards > 1
        self.waits = (bool(unit) or self.one) and root_waits(job.arch, setup)
        self.end_buffer = end_buffer(job.arch, setup) if unit else 0
        self.reducing: Size = 0  # of the unit that was reduced last, until another is
        self.waiting: Held = {}
        self.hands_over = bool(unit) and handed_over(setup)
        self.back = False  # whether a layer has run back
        self.late = setup.gradients_late and setup.accumulation == 1  # of the step before, and not gone yet

    def go(self, phase: Phase, where: str, part: Stretch, units: int = 0) -> None:
        """Pass a stretch, with so many units gathered; where the model is one unit, nothing of it is reduced before
        the end."""
        if self.one and phase == "backward":
            self.go_whole(phase, where, part)
            return
        if self.copied_out and units and phase == "forward":
            self._at(phase, where, NOTHING, units + 1)
        if self.hands_over and units and phase == "backward":
            if self.back:
                self._at(phase, where, NOTHING, units + 1)
            self.back = True
        self._at(phase, where, part, units)
        if self.joins and units and phase == "backward":
            self._join(where, part, units)
        self.level = plus(self.level, self._left_by(part, phase, units))
        if self.buffer and units and phase == "backward":  # from the first layer that was reduced on
            self._reduce(self.buffer)
            self.buffer = 0

    def _join(self, where: str, part: Stretch, units: int) -> None:
        """A layer's gradients beside the copy that joins them, those of frozen weights in its flat parameter among
        them (what `part` has not of these, as of biases, all at once)."""
        own: Size = sum(part.change.get(label, 0) for label in GRADIENTS)
        size = self.unit if self.flat else own
        self._at(
            "backward",
            where,
            Stretch({}, plus(part.change, {"gradients": size - own, "buckets": size})),
            units,
        )

    def go_whole(self, phase: Phase, where: str, part: Stretch, units: int = 0) -> None:
        """Pass a stretch outside of the layers: where FSDP has a root, its gradients wait there, whole, for the end
        of the backward pass."""
        if not self.waits:
            if self.end_buffer and phase == "backward":
                level = plus(plus(self.level, part.change), {"buckets": self.end_buffer - self.reducing})
                weights_gone = {label: held for label, held in level.items() if label != "gathered"}
                self.places.append(Place("backward", where, weights_gone, {}))
            self.go(phase, where, part, units)
            if self.end_buffer and phase == "backward":
                self._reduce(self.end_buffer)
            return
        self._at(phase, where, part, units)
        self._wait(part.change)

    def _reduce(self, buffer: Size) -> None:
        """What a unit's gradients are reduced in stays until the next unit's are."""
        self.level = plus(self.level, {"buckets": buffer - self.reducing})
        self.reducing = buffer

    def _wait(self, change: Held, times: int = 1) -> None:
        """Hold what stretches leave, of which gradients wait for the end."""
        self.level = plus(self.level, change, times)
        own = {label: change[label] for label in GRADIENTS if label in change}
        self.waiting = plus(self.waiting, own, times)

    def end(self) -> None:
        """The root's gradients are copied, to be reduced; FSDP 2 has let its weights go before."""
        if size := sum(self.waiting.values()):
            level = plus(self.level, {"buckets": size})
            if self.copied_out:
                level = {label: held for label, held in level.items() if label != "gathered"}
            self.places.append(Place("backward", "root", level, {}))

    def go_through(self, phase: Phase, rounds: Sequence[Sequence[Passed]], units: int = 0) -> None:
        """Pass rounds of stretches that are alike. What is held grows evenly from round to round, so that each
        stretch is highest in the first or the last; where it does not add up exactly, every round is passed."""
        if len(rounds) > 2:
            change: Held = {}
            together = self.one and phase == "backward"
            for _, part in rounds[0]:
                change = plus(change, part.change if together else self._left_by(part, phase, units))
            sizes = (*change.values(), *self.level.values())
            if float not in map(type, sizes) or all(map(is_exact, sizes)):
                for where, part in rounds[0]:
                    self.go(phase, where, part, units)
                if together:
                    self._wait(change, len(rounds) - 2)
                else:
                    self.level = plus(self.level, change, len(rounds) - 2)
                rounds = rounds[-1:]
        for each in rounds:
            for where, part in each:
                self.go(phase, where, part, units)

    def _at(self, phase: Phase, where: str, part: Stretch, units: int) -> None:
        if self.late and phase == "backward":
            self.let_go("gradients")
            self.late = False
        held = plus(self.level, {"gathered": self.unit * units}) if self.unit and units else self.level
        self.places.append(Place(phase, where, held, part.highest))

    def _left_by(self, part: Stretch, phase: Phase, units: int) -> Held:
        """What a stretch leaves on this GPU: of a layer in a flat parameter, its share of frozen weights' gradients
        too."""
        change = part.change
        if self.flat and units and phase == "backward" and not self.goes:
            change = plus(change, {"gradients": self.unit - sum(change.get(label, 0) for label in GRADIENTS)})
        for label, over in self.spread.items():
            if self.drops and label in change:  # taken and freed, or added to what is held
                change = {**change, label: 0}
            elif label in change and not (isinstance(over, (int, float)) and over == 1):
                change = {**change, label: change[label] * (1 / over)}
        return change

    def let_go(self, label: str) -> None:
        """Hold no more of this kind."""
        self.level = {name: size for name, size in self.level.items() if name != label}

    def hold(self, more: Held, times: int = 1) -> None:
        """Hold something more from here on; less with `times` -1."""
        self.level = plus(self.level, more, times)
