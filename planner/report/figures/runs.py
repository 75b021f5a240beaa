"""Figures of training runs, as readers of the article know them, from records; none where its runs are missing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any

from ... import units
from ..document import Figure
from .style import COLOURS, DASHES, INK, MARKS, draw, powers, spread

FULL = 0  # full fine-tuning among ranks
Runs = Iterable[Any]  # planner.validate.records.RunRecord
Groups = dict[Any, dict[float, list[Any]]]


def _arm_name(rank: int) -> str:
    return "full" if rank == FULL else f"rank {rank}"


def _groups(runs: Runs, key: Callable[[Any], Any]) -> Groups:
    """Runs by arm and learning rate."""
    found: Groups = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[key(run)][run.config.lr].append(run)
    return dict(sorted(found.items()))


def _loss(runs: Iterable[Any], step: int | None = None) -> float:
    values = [run.evaluation(step) for run in runs]
    return fmean(values) if values and all(map(math.isfinite, values)) else math.inf


def _best(by_rate: Mapping[float, list[Any]], step: int | None = None) -> float:
    """The rate with the lowest mean loss."""
    return min(by_rate, key=lambda rate: _loss(by_rate[rate], step))


def plain_runs(records: Runs, model: str, steps: int) -> list[Any]:
    """Supervised runs on fresh text of the usual length and batch, on every layer, in the plain parametrisation."""
    return [
        r for r in records
        if r.config.kind == "sft" and r.config.model == model and r.config.task == "dialect"
        and r.config.steps == steps and r.config.batch == 16 and r.config.layers == "all"
        and r.config.p == r.config.q == 1 and r.config.examples == 0 and r.config.alpha == 32
        and r.config.variant == "plain" and r.config.evaluate_at
    ]  # fmt: skip


def _looks(arms: Iterable[int]) -> dict[int, dict[str, Any]]:
    """How each arm is drawn: full fine-tuning in ink, ranks in the same order of colours in every figure."""
    found: dict[int, dict[str, Any]] = {FULL: {"color": INK, "ls": "-", "marker": "o", "ms": 3.8}}
    for number, rank in enumerate(sorted(set(arms) - {FULL})):
        place = number % len(COLOURS)
        found[rank] = {"color": COLOURS[place], "ls": DASHES[place], "marker": MARKS[place], "ms": 3.8}
    return found


def _rate_axis(axes: Any, rates: Iterable[float]) -> None:
    """A logarithmic axis of learning rates with a few of them named."""
    there = list(rates)
    axes.set_xscale("log")
    low, high = min(there), max(there)
    kept = [m * 10.0**e for e in range(-8, 2) for m in (1, 3) if low / 1.5 < m * 10.0**e < high * 1.5]
    powers(axes, "x", kept, [units.rate(tick).replace(".00", "") for tick in kept])
    axes.set_xlabel("learning rate")


def _ends(axes: Any, x: float, ends: list[tuple[float, str]]) -> None:
    """Names beside the right ends of lines, moved apart so that each can be read."""
    from matplotlib.transforms import blended_transform_factory

    low, high = axes.get_ylim()
    place = blended_transform_factory(axes.transData, axes.transAxes)
    heights = spread([(y - low) / (high - low) for y, _ in ends], 0.085)
    for (_, words), height in zip(ends, heights, strict=True):
        axes.text(x, height, words, va="center", ha="left", transform=place, clip_on=False)


def loss_by_rate(runs: list[Any]) -> Figure | None:
    """Final loss against the learning rate, a line for each rank and for full fine-tuning."""
    arms = _groups(runs, lambda run: run.config.rank)
    arms = {rank: {r: v for r, v in rates.items() if math.isfinite(_loss(v))} for rank, rates in arms.items()}
    arms = {rank: rates for rank, rates in arms.items() if len(rates) > 2}
    if len(arms) < 2:
        return None

    def paint(axes: Any) -> None:
        looks = _looks(arms)
        for rank, rates in arms.items():
            x = sorted(rates)
            axes.plot(x, [_loss(rates[rate]) for rate in x], **looks[rank], label=_arm_name(rank))
            for rate in x:
                seeds = [run.evaluation() for run in rates[rate]]
                if len(seeds) > 1:
                    axes.plot([rate] * 2, [min(seeds), max(seeds)], color=looks[rank]["color"], lw=0.8)
        every = [_loss(v) for rates in arms.values() for v in rates.values()]
        axes.set_ylim(min(every) - 0.03, min(min(every) + 0.6, max(every) + 0.03))
        _rate_axis(axes, [rate for rates in arms.values() for rate in rates])
        axes.set_ylabel("evaluation loss, nats a character")
        axes.legend(frameon=False, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))

    words = "Evaluation loss at the end against the learning rate, by rank and for full fine-tuning; bars span seeds."
    return Figure("Loss against learning rate", draw("loss-by-rate", 2.9, paint), words, words)


def curves(runs: list[Any], steps: int) -> Figure | None:
    """Loss against steps, each arm at each step's best rate: the article's pointwise minimum."""
    arms = _groups(runs, lambda run: run.config.rank)
    marks = sorted({step for run in runs for step, _ in run.evaluations})
    if len(arms) < 2 or len(marks) < 3:
        return None
    lowest = {
        rank: [min((_loss(v, mark) for v in rates.values()), default=math.inf) for mark in marks]
        for rank, rates in arms.items()
    }
    lowest = {rank: values for rank, values in lowest.items() if all(map(math.isfinite, values))}

    def paint(axes: Any) -> None:
        looks = _looks(lowest)
        for rank, values in lowest.items():
            axes.plot(marks, values, **looks[rank])
        axes.set_xscale("log")
        powers(axes, "x", [float(mark) for mark in marks], [str(mark) for mark in marks])
        axes.set_xlabel("steps")
        axes.set_ylabel("evaluation loss, nats a character")
        _ends(axes, marks[-1] * 1.04, [(values[-1], _arm_name(rank)) for rank, values in lowest.items()])

    words = "Lowest evaluation loss over learning rates at each number of steps, by rank and for full fine-tuning."
    return Figure("Loss against steps", draw("curves", 2.8, paint), words, words)


def early(runs: list[Any]) -> Figure | None:
    """Loss against steps at one rate that every rank was run at: early curves coincide."""
    arms = {rank: rates for rank, rates in _groups(runs, lambda run: run.config.rank).items() if rank != FULL}
    if len(arms) < 2:
        return None
    shared = set.intersection(*(set(rates) for rates in arms.values()))
    shared = {rate for rate in shared if all(math.isfinite(_loss(rates[rate])) for rates in arms.values())}
    if not shared:
        return None
    rate = min(shared, key=lambda r: max(_loss(rates[r]) for rates in arms.values()))
    marks = sorted({step for run in runs for step, _ in run.evaluations})

    def paint(axes: Any) -> None:
        looks = _looks(arms)
        for rank, rates in arms.items():
            axes.plot(
                marks,
                [_loss(rates[rate], mark) for mark in marks],
                **looks[rank],
                label=_arm_name(rank),
            )
        axes.set_xlabel("steps")
        axes.set_ylabel("evaluation loss, nats a character")
        axes.legend(frameon=False, loc="upper right")

    words = f"Evaluation loss against steps at the one rate {units.rate(rate)}, by rank."
    return Figure("Early curves by rank", draw("early", 2.5, paint), words, words)


def by_batch(records: Runs, model: str) -> Figure | None:
    """Each arm's loss at its best rate against the batch, at equal numbers of examples."""
    chosen = [
        r for r in records
        if r.config.kind == "sft" and r.config.model == model and r.config.task == "dialect"
        and r.config.layers == "all" and r.config.batch in (8, 32, 128) and r.config.p == r.config.q == 1
        and r.config.variant == "plain"
    ]  # fmt: skip
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for (rank, batch), rates in _groups(chosen, lambda run: (run.config.rank, run.config.batch)).items():
        found[rank][batch] = _loss(rates[_best(rates)])
    arms = {rank: losses for rank, losses in found.items() if len(losses) > 1}
    if len(arms) < 2:
        return None
    batches = sorted({batch for losses in arms.values() for batch in losses})

    def paint(axes: Any) -> None:
        looks = _looks(arms)
        for rank, losses in sorted(arms.items()):
            axes.plot(list(losses), list(losses.values()), **looks[rank])
        axes.set_xscale("log", base=2)
        powers(axes, "x", [float(batch) for batch in batches], [str(batch) for batch in batches])
        axes.set_xlabel("sequences in a batch, at equal tokens")
        axes.set_ylabel("evaluation loss, nats a character")
        ends = [(losses[max(losses)], _arm_name(rank)) for rank, losses in sorted(arms.items())]
        _ends(axes, batches[-1] * 1.08, ends)

    words = (
        "Evaluation loss at each arm’s best rate against the batch. A larger batch takes fewer steps here."
    )
    return Figure("Loss against batch", draw("batch", 2.6, paint), words, words)


def rewards(records: Runs) -> Figure | None:
    """Success rate at the end of policy-gradient runs against the learning rate."""
    chosen = [r for r in records if r.config.kind == "rl" and r.config.task.startswith("arithmetic")]
    arms = _groups(chosen, lambda run: run.config.rank)
    arms = {rank: rates for rank, rates in arms.items() if len(rates) > 2}
    if len(arms) < 2:
        return None

    def paint(axes: Any) -> None:
        looks = _looks(arms)
        for rank, rates in arms.items():
            x = sorted(rate for rate in rates if math.isfinite(_loss(rates[rate])))
            axes.plot(
                x,
                [1 - _loss(rates[rate]) for rate in x],
                **looks[rank],
                label=_arm_name(rank),
            )
        axes.set_ylim(0, 1.02)
        _rate_axis(axes, [rate for rates in arms.values() for rate in rates])
        axes.set_ylabel("success rate at the end")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))

    words = "Success rate at the end of policy-gradient runs against the learning rate, by rank and in full."
    return Figure("Reward against learning rate", draw("rewards", 2.5, paint), words, words)
