"""FLOPs of a random point's step: in closed form, and as the simulation counts them by operator.

Both under eager attention, since a fused kernel makes scores twice; with checkpointing that stops where the last
kept value is made; and of one forward and backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from planner import flops
from planner.adapter import adapt
from planner.adapter.whole import NOTHING_WHOLE, trained_whole
from planner.errors import PlannerError
from planner.objective import as_met, step_of, step_tally
from planner.setup import Setup

from .memory_grid import Point
from .memory_random import refusal
from .memory_rows import Drawn


def plain(setup: Setup) -> Setup:
    """The set-up as FLOPs are counted in it."""
    return replace(setup, attention_kernel="eager", reentrant=False, input_grads=None)


def analytic_flops(point: Point) -> int | None:
    """FLOPs in closed form; None where no exact formula exists, and for selective checkpoints, which are modelled for
    fused kernels alone (tests/simulate/test_selective.py compares these)."""
    if point.options["checkpointing"] == "selective":
        return None
    _, arch = point.loaded
    setup, spec = plain(point.setup), point.spec
    pairs = None if spec is None else adapt(arch, spec)
    whole = NOTHING_WHOLE if spec is None or pairs is None else trained_whole(arch, spec, pairs)
    if arch.flops_gap or not arch.blocks or whole.gap:
        return None
    if setup.objective != "grpo":
        return flops.flops(step_tally(arch, setup, pairs, whole, setup.sequences))
    arch, pairs = as_met(arch, setup, pairs)
    return flops.flops(flops.step_macs(arch, step_of(setup, pairs, setup.sequences), pairs, whole))


def simulated_flops(point: Point) -> int | None:
    """FLOPs as the simulated step counts them; None where it does not run."""
    from planner.simulate.core import simulate_step

    config, arch = point.loaded
    setup = plain(point.setup)
    try:
        found = simulate_step(config, point.spec, setup, arch=arch)
    except PlannerError:
        return None
    return found.total_flops


def errors(rows: Iterable[Drawn]) -> list[tuple[Drawn, float]]:
    """Today's error of every row that has both counts."""
    found = []
    for each in rows:
        if each.flops and not each.stale and refusal(each.row.point) is None:
            own = analytic_flops(each.row.point)
            if own is not None:
                found.append((each, own / each.flops - 1))
    return found


def far(rows: Iterable[Drawn], number: int) -> Iterator[str]:
    """The largest errors."""
    for each, error in sorted(errors(rows), key=lambda pair: -abs(pair[1]))[:number]:
        if error:
            yield f"{error:+9.3%} FLOPs {each.row.point.model} {each.row.point.method}: {each.row.point.options}"


def of_flops(rows: Iterable[Drawn]) -> str:
    """One line."""
    found = [abs(error) for _, error in errors(rows)]
    if not found:
        return "no FLOPs"
    same = sum(error == 0 for error in found)
    return f"FLOPs of {len(found)}: equal to the last one in {same}, most {max(found):.2%}"
