"""What plans of a space have in common: GPUs that run a job alike, with layouts under which they compute alike.

What these take of memory and what work they do is made once, whatever GPUs differ in besides, and shared among the
cores of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataclass import dataclass, replace
from ..setup import Setup
from ..workers import done
from .makers import make_ready
from .peaks import Sampling, peaks, sample
from .space import Job, Space, alone_of, families
from .tables import Table, tables
from .times import Kept, Timed, kept_of, lengths_of, of_length
from .twins import in_float16, twin_of, workspaces_beyond

if TYPE_CHECKING:
    from ..fact_types import Accelerator

Array = Any  # a numpy array
Known = dict[Any, Any]  # what parts share, by what it hangs on
LAYOUTS = 12  # of which what is sent is worth a process


@dataclass(frozen=True)
class Part:
    """GPUs that run a job alike with layouts under which they compute alike, with the numbers of both."""

    job: Job
    space: Space
    layouts: tuple[int, ...]
    gpus: tuple[int, ...]


def _parts(job: Job, space: Space) -> Iterator[Part]:
    for mine, some in _kinds(job, space.accelerators):
        gpus = tuple(space.accelerators[number] for number in some)
        for numbers in families(mine, space):
            within = tuple(space.layouts[number] for number in numbers)
            own = mine.computed_in(within[0].precision)
            yield Part(own, replace(space, accelerators=gpus, layouts=within), numbers, tuple(some))


def _kinds(job: Job, accelerators: Sequence[Accelerator]) -> list[tuple[Job, list[int]]]:
    """The job as kinds of GPU run it, with the numbers of those that run it alike."""
    found: list[tuple[Job, list[int]]] = []
    for number, accelerator in enumerate(accelerators):
        mine = job.on(accelerator)
        for other, numbers in found:
            if other.setup == mine.setup and other.room == mine.room:
                numbers.append(number)
                break
        else:
            found.append((mine, [number]))
    return found


@dataclass(frozen=True)
class Alike:
    """What parts have that differ in the GPUs' memory alone: the length at which a step is timed, its micro-steps,
    tables, these by length, and `peaks`; `counted` is the job whose memory is theirs too."""

    counted: Job
    timed: Array
    steps: Array
    tables: tuple[Table, ...]
    at: dict[int, tuple[Job, Timed]]
    peaks: tuple[Array, Array, Array]


def in_common(job: Job, space: Space, known: Known, room: float) -> list[tuple[Part, Alike]]:
    """The parts of a space, each with what it shares with others. Of plans that hold more than `room` bytes whatever
    they compute no more is asked for."""
    parts = list(_parts(job, space))
    base = _base(job, parts)
    counted = [part.job if base is None else twin_of(part.job, base, part.space) for part in parts]
    _make_tables(parts, counted, known)
    asked = [_asked(part, own, known, room) for part, own in zip(parts, counted, strict=True)]
    own = {_whole(each): each for each in asked}  # of twins once
    sample(list(own.values()))
    _keep(list(own.values()), known)
    return [
        (part, _alike(part, each.job, own[_whole(each)], known))
        for part, each in zip(parts, asked, strict=True)
    ]


def _base(job: Job, parts: Sequence[Part]) -> Job | None:
    """One that runs in the type that is asked for, on a GPU of no memory yet, whose memory others may share: the job
    itself where some GPU runs it so; None where all run in another type."""
    alike = (part.job for part in parts if part.job.setup.precision == job.setup.precision)
    found = min(alike, key=lambda own: own.setup != job.setup, default=None)
    return found and replace(found, room=job.room)


def _asked(part: Part, counted: Job, known: Known, room: float) -> Sampling:
    """The memory that is asked for of a part."""
    space = part.space
    micro, batches = np.array(space.micro_batches, float), np.array(space.batches)
    copies = np.array([layout.data_parallel for layout in space.layouts])
    steps = batches[None, None, :] / (micro[:, None, None] * copies[None, :, None])
    made: tuple[Table, ...] = known[_key(counted, space, _each(lengths_of(part.job, space))[0])]
    return Sampling(counted, space, made, steps, known, room)


def _whole(asked: Sampling) -> tuple[Any, ...]:
    """What sets it apart from what is asked for of other parts."""
    return *_setups(asked.job, asked.space), asked.space.layouts


def _setups(job: Job, space: Space) -> tuple[Setup, ...]:
    """The set-ups of one GPU by itself, of every base."""
    return tuple(alone_of(job, q, c, space.layouts[0]) for q in space.quantize for c in space.checkpointing)


def _make_tables(parts: Sequence[Part], counted: Sequence[Job], known: Known) -> None:
    """Tables of all parts at the lengths at which they are timed, those that are not there yet."""
    wanted: dict[Any, tuple[Job, Space]] = {}
    for part, own in zip(parts, counted, strict=True):
        for length in _each(lengths_of(part.job, part.space)):
            wanted.setdefault(_key(own, part.space, length), (own.at(length), part.space))
    open_ = [key for key in wanted if key not in known]
    known.update(zip(open_, done(lambda n: tuple(tables(*wanted[open_[n]])), open_, enough=1), strict=True))


def _each(lengths: Array) -> list[int]:
    """Each length once, in order; np.unique would load numpy.ma, a tenth of a small search."""
    return sorted(set(lengths.ravel().tolist()))


def _key(counted: Job, space: Space, length: int) -> tuple[Any, ...]:
    return "tables", *_setups(counted, space), length


def _alike(part: Part, counted: Job, asked: Sampling, known: Known) -> Alike:
    """What is `known` of a part, or made of it, in the job's type from that of the job that is `counted`."""
    job, space = part.job, part.space
    key = (*_setups(job, space), space.layouts, asked.room)
    if key not in known:
        timed = lengths_of(job, space)
        lengths = _each(timed)
        made: list[tuple[Table, ...]] = [known[_key(counted, space, length)] for length in lengths]
        kept = [known[_kept_key(asked, length)] for length in lengths]
        held = peaks(asked, workspaces_beyond(job, counted))
        make_ready(counted, space, made[0], known)
        if counted.setup.precision != job.setup.precision:
            made = [in_float16(own) for own in made]
        at = {
            length: (job.at(length), of_length(own, beside))
            for length, own, beside in zip(lengths, made, kept, strict=True)
        }
        known[key] = Alike(counted, timed, asked.steps, made[0], at, held)
    alike: Alike = known[key]
    return alike


def _kept_key(asked: Sampling, length: int) -> tuple[Any, ...]:
    return "kept", *_whole(asked), length


def _keep(asked: Sequence[Sampling], known: Known) -> None:
    """What no GPU changes of each layout, at each length, where that is not there yet."""
    open_ = [
        (own, length, layout)
        for own in asked
        for length in _each(lengths_of(own.job, own.space))
        if _kept_key(own, length) not in known
        for layout in own.space.layouts
    ]

    def task(number: int) -> Kept:
        own, length, layout = open_[number]
        return kept_of(known[_key(own.job, own.space, length)], own.job.at(length), layout, own.space)

    for (own, length, _), made in zip(open_, done(task, range(len(open_)), enough=LAYOUTS), strict=True):
        known.setdefault(_kept_key(own, length), []).append(made)
