"""Why a search has no plan: the limit that no plan keeps, and what the nearest would need."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import units
from ..errors import InputError
from ..fewest import Fewest, fewest_gpus
from ..memory.overhead import said_narrower
from .evaluate import Evaluated, as_run
from .layout import Layout, goes
from .select import MOST_TRIED, RELAXED, Chooser
from .space import Limits, Space, limit_text
from .usable import Open

Array = Any  # a numpy array


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _beyond(name: str, value: float, least: float, nearest: str) -> InputError:
    """A limit below what the nearest plan asks for: the figure is rounded up, so that it can be typed."""
    if name == "deadline":
        found: object = units.duration(value)
        wanted = f"{math.ceil(least)} s ({units.duration(least)})"
    elif name == "budget":
        found, wanted = value, f"{math.ceil(least * 100) / 100:.2f} USD"
    elif name == "host-memory":
        found, wanted = units.byte_size(value), f"{math.ceil(least / 2**30 * 10) / 10:.1f}GiB"
    else:
        step = 10.0 ** (math.floor(math.log10(least)) - 2)
        found, wanted = value, f"{math.ceil(least / step) * step:.3g}"
    alone = " A number alone is in seconds." if name == "deadline" and value < 3600 else ""
    return InputError(name, found, f"at least {wanted}", f"Nothing fits: the nearest is {nearest}.{alone}")


def _also(space: Space, found: Fewest, free: Open) -> str | None:
    """What else has to be typed for so many GPUs, as something else was asked for; None if the trainer cannot."""
    if found.sharding not in free.sharding and not free.sharding_typed:
        return None
    tried: dict[str, Iterable[Any]] = {
        "sharding": free.sharding,
        "checkpointing": space.checkpointing,
        "micro-batch": space.micro_batches,
        "tensor-parallel": [layout.tensor_parallel for layout in space.layouts],
        "pipeline-parallel": [layout.pipeline_parallel for layout in space.layouts],
    }
    if not free.experts:
        tried["expert-parallel"] = [layout.expert_parallel for layout in space.layouts]
    needed = {name: getattr(found, name.replace("-", "_"), 1) for name in tried}
    return "".join(f" --{name} {value}" for name, value in needed.items() if value not in tried[name])


def _more(chooser: Chooser, nearest: Evaluated, free: Open) -> str:
    """How many of its GPUs would do for the nearest plan, as they are typed."""
    job = chooser.cells.job
    found = fewest_gpus(as_run(job, nearest.choice), nearest.memory_bytes)
    if found is None or found.gpus <= nearest.choice.layout.gpus:
        return ""
    apart = Layout(
        found.gpus, found.sharding, found.expert_parallel, sequence_parallel=found.sequence_parallel
    )
    if found.sequence_parallel > 1 and not (free.sequences and goes(job.arch, job.setup, apart)):
        return ""
    if (also := _also(chooser.cells.space, found, free)) is None:
        return ""
    batch = -(-nearest.choice.batch // apart.data_parallel) * apart.data_parallel
    more = f" --batch {batch}" if batch != nearest.choice.batch else ""
    more += f" --sequence-parallel {apart.sequence_parallel}" if apart.sequence_parallel > 1 else ""
    return f" --gpus {found.gpus}{more}{also} would do ({units.byte_size(found.per_gpu_bytes)} a GPU)."


def _refused(chooser: Chooser) -> InputError | None:
    """Why plans whose batches divide are none all the same: in the words of one on the largest GPUs, of a base in the
    fewest bits; None where no batch divides."""
    cells, space = chooser.cells, chooser.cells.space
    pieces = np.array([layout.data_parallel for layout in space.layouts])[cells.layout]
    pieces = pieces * np.array(space.micro_batches)[cells.micro]
    divide = np.flatnonzero(np.array(space.batches)[cells.batch] % pieces == 0)
    if not len(divide):
        return None
    rooms = np.array([gpu.memory_bytes or 0 for gpu in space.accelerators])
    fewer = np.array([table.quantize != "none" for table in cells.tables])[cells.table]
    nearest = divide[np.lexsort((pieces[divide], fewer[divide], rooms[cells.gpu][divide]))[-1]]
    try:
        chooser.full(int(nearest))
    except InputError as error:
        return error
    return None


def nothing_fits(chooser: Chooser, limits: Limits, free: Open, told: str = "") -> InputError:
    """Why no plan keeps the limits: the first limit without which there is one, and the nearest plan; `free` is what
    more GPUs may do, `told` what else would fit where memory is short."""
    cells = chooser.cells
    possible = np.isfinite(cells.over)
    if not possible.any():
        if apart := _refused(chooser):
            return apart
        batches = cells.space.batches
        gpus = sorted({layout.gpus for layout in cells.space.layouts})
        copies = min(layout.data_parallel for layout in cells.space.layouts)
        unit = copies * min(cells.space.micro_batches)
        near = max(unit, round(batches[0] / unit) * unit)
        return InputError(
            "batch", batches[0] if len(batches) == 1 else batches, "a batch that the micro-batches and GPUs divide",
            f"Micro-batches {_listed(cells.space.micro_batches)}; GPUs {_listed(gpus)}. The nearest is {near}.",
        )  # fmt: skip
    if not chooser.fits.any():
        least = chooser.full(int(np.argmin(chooser.missing)))
        need, have = (least.over_bytes(chooser.fit) + least.memory_bytes) / 2**30, least.memory_bytes / 2**30
        return InputError(
            "gpu", least.choice.accelerator.name, "GPUs with enough memory",
            f"Nothing fits: the nearest is {least.choice.text}, which needs {need:.1f} GiB of {have:.1f} GiB."
            + (said_narrower(least.memory) if chooser.fit == "sure" else _more(chooser, least, free)) + told,
        )  # fmt: skip
    given: list[tuple[str, float | None, Array]] = [
        ("budget", limits.budget_usd, cells.usd),
        ("deadline", limits.deadline_s, cells.seconds),
        ("max-regret", limits.max_regret, cells.regret),
        *([("host-memory", limits.host_bytes, chooser.host)] if limits.host_bytes is not None else []),
    ]
    for name, value, figure in given:
        if value is None:
            continue
        others = RELAXED["regret" if name == "max-regret" else name](limits)
        mask = chooser.within(others) & ~np.isnan(figure)
        if mask.any():
            order = np.flatnonzero(mask)[np.argsort(figure[mask], kind="stable")][:MOST_TRIED]
            nearest = next((int(cell) for cell in order if not chooser.misses(int(cell))), None)
            if nearest is not None:
                return _beyond(name, value, float(figure[nearest]), chooser.full(nearest).choice.text)
    if limits.budget_usd is not None and np.isnan(cells.usd).all():
        names = ", ".join(a.name for a in cells.space.accelerators)
        return InputError(
            "budget", limits.budget_usd, "a price beside it", f"{names} has none: give --price."
        )
    kept = [(name, value) for name, value, _ in given if value is not None]
    together = " and ".join(limit_text(name, value) for name, value in kept)
    return InputError(*kept[0], "limits that go together", f"No plan keeps {together} at once: relax one.")
