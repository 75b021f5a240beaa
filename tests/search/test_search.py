"""The search against brute force with the scalar formulas."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner import facts, hardware
from planner.errors import InputError
from planner.search import plan
from planner.search.evaluate import Evaluated, evaluate
from planner.search.layout import layouts
from planner.search.screen import TOLERANCE, Cells, screen
from planner.search.select import SAME, SAME_REGRET, Chooser, first_of, non_dominated
from planner.search.space import Choice, Limits, Space
from planner.units import parse_duration

from .small import GPUS, job_of

SEEN = 0.00581 * 6.14**-0.895  # the law of dense models at the most parameters a token that its sweep had
SMALL = Space(
    GPUS, layouts((1, 2)), ranks=(4, 64), layers=("mlp", "all"), quantize=("none", "nf4"), micro_batches=(1, 4, 16),
    batches=(16,),
)  # fmt: skip


@pytest.fixture(scope="module")
def cells() -> Cells:
    return screen(job_of("meta-llama/Llama-3.1-8B"), SMALL)


@pytest.fixture(scope="module")
def everything(cells: Cells) -> list[Evaluated]:
    """Every plan that goes together, by the scalar formulas."""
    space = cells.space
    found = []
    for gpu, layout, rank, layers, base, again, micro, batch in itertools.product(
        space.accelerators, space.layouts, space.ranks, space.layers, space.quantize, space.checkpointing,
        space.micro_batches, space.batches,
    ):  # fmt: skip
        if batch % (micro * layout.gpus) == 0:
            found.append(evaluate(cells.job, Choice(gpu, layout, rank, layers, base, again, micro, batch)))
    return found


def test_experts_are_divided_where_nothing_else_fits() -> None:
    options: dict[str, Any] = {"tokens": "1M", "gpu": "h100", "micro_batch": 1, "ranks": 16, "layers": "mlp"}
    found = plan("moonshotai/Kimi-K2-Instruct", gpus=(16, 32), quantize="none", **options)
    assert found.best.choice.layout.gpus == found.best.choice.layout.expert_parallel == 32
    assert found.options()["expert_parallel"] == 32 and found.best.over_bytes() <= 0
    assert "experts-divided" in {notice.code for notice in found.warnings}
    alone = plan("Qwen/Qwen3-30B-A3B", gpus=(2, 4), **options)
    assert alone.best.choice.layout.expert_parallel == 1 and "expert_parallel" not in alone.options()


def test_memory_is_close_enough_to_check_what_is_near(cells: Cells, everything: list[Evaluated]) -> None:
    by_choice = {full.choice: full for full in everything}
    for cell in np.flatnonzero(np.isfinite(cells.over)):
        full = by_choice[cells.choice(int(cell))]
        if full.over_bytes() <= 0:
            assert cells.over[cell] <= TOLERANCE, full.choice.text
        if full.over_bytes("sure") <= 0:
            assert cells.over_high[cell] <= TOLERANCE, full.choice.text
    assert len(by_choice) == np.isfinite(cells.over).sum() > 200


LIMITS = [
    Limits(),
    Limits(budget_usd=20.0),
    Limits(deadline_s=3600.0),
    Limits(budget_usd=15.0, deadline_s=7200.0),
    Limits(max_regret=0.003, prefer="cost"),
    Limits(prefer="time"),
    Limits(budget_usd=12.0, prefer="time"),
    Limits(fit="sure"),
    Limits(budget_usd=15.0, fit="sure"),
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_the_best_is_that_of_brute_force(cells: Cells, everything: list[Evaluated], limits: Limits) -> None:
    best = Chooser(cells, limits.fit).best(limits)
    allowed = [full for full in everything if not full.failures(limits)]
    if best is None:
        assert not allowed
        return
    found = evaluate(cells.job, cells.choice(best))
    assert not found.failures(limits)
    if limits.prefer == "cost":
        assert found.usd == min(full.usd or math.inf for full in allowed)
    elif limits.prefer == "time":
        assert found.seconds == min(full.seconds for full in allowed)
    else:
        regret = [max(full.regret.value, SEEN) if full.regret else SEEN for full in allowed]
        good = [f for f, value in zip(allowed, regret, strict=True) if value <= min(regret) + SAME_REGRET]
        cheapest = min(full.usd or math.inf for full in good)
        cheap = [full for full in good if full.usd and full.usd <= SAME * cheapest]
        assert found.choice in [full.choice for full in cheap]
        assert found.seconds <= SAME * min(full.seconds for full in cheap)


def dominates(one: Evaluated, other: Evaluated) -> bool:
    mine, theirs = (
        (full.seconds, full.usd or 0.0, full.regret.value if full.regret else 0.0) for full in (one, other)
    )
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


@pytest.mark.parametrize("limits", [*LIMITS[:4], LIMITS[-1]], ids=str)
def test_nothing_beats_the_frontier(cells: Cells, everything: list[Evaluated], limits: Limits) -> None:
    chooser = Chooser(cells, limits.fit)
    front = [chooser.full(cell) for cell in chooser.frontier(limits, 100)]
    allowed = [full for full in everything if not full.failures(limits)]
    assert front or not allowed
    for point in front:
        assert not point.failures(limits)
        assert not any(dominates(full, point) for full in allowed), point.choice.text
    shown = {(f.seconds, f.usd, f.regret.value if f.regret else 0) for f in front}
    for full in allowed:
        if not any(dominates(other, full) for other in allowed):
            assert (full.seconds, full.usd, full.regret.value if full.regret else 0) in shown


@given(arrays(float, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(0, 6).map(float)))
def test_non_dominated_points_by_brute_force(points: Any) -> None:
    kept = {tuple(points[i]) for i in non_dominated(*points.T)}
    brute = {
        tuple(p)
        for p in points
        if not any(all(q <= p) and any(q < p) for q in points)
    }  # fmt: skip
    assert kept == brute
    assert len(kept) == len(non_dominated(*points.T))


@given(
    arrays(float, st.tuples(st.integers(1, 60), st.just(4)), elements=st.integers(0, 3).map(float)),
    st.integers(1, 20),
)
def test_the_first_of_many_are_those_of_a_whole_order(points: Any, count: int) -> None:
    assert list(first_of(points.T, count)) == list(np.lexsort(points.T)[:count])


def test_a_plan_on_other_gpus_is_evaluated_as_one_alone() -> None:
    """What is counted of it serves all GPUs but those that run it in float16."""
    gpus = (*GPUS, hardware.find("t4"))
    space = Space(gpus, layouts((1, 2)), ranks=(8,), micro_batches=(4,), quantize=("none", "nf4"))
    seen = screen(job_of("Qwen/Qwen3-4B"), space)
    possible = np.flatnonzero(np.isfinite(seen.over))
    assert len(possible) > 40
    for cell in possible:
        choice = seen.choice(int(cell))
        alone = evaluate(job_of("Qwen/Qwen3-4B"), choice)
        assert evaluate(seen.job, choice) == alone, choice.text


def test_alternatives_are_other_ways_and_worse() -> None:
    found = plan("meta-llama/Llama-3.1-8B", tokens="20M", gpu=["rtx 4090", "h100"], gpus=(1, 2))
    ways = {
        (f.choice.accelerator.name, f.choice.quantize != "none") for f in (found.best, *found.alternatives)
    }
    assert len(ways) == 1 + len(found.alternatives) >= 3
    assert all(f.over_bytes() <= 0 for f in (found.best, *found.alternatives, *found.frontier))


def test_neighbours_say_why_they_lose() -> None:
    found = plan("meta-llama/Llama-3.1-8B", tokens="50M", gpu="rtx 4090", gpus=1, budget=30)
    kinds = {item.kind for item in found.rejected}
    assert "memory" in kinds and "worse" in kinds
    for item in found.rejected:
        assert item.change and item.reason
        if item.kind == "memory":
            assert item.reason.endswith("over") and item.plan.over_bytes() > 0
        else:
            assert item.plan.over_bytes() <= 0
    best = found.best.choice.to_dict()
    for item in found.rejected:
        other = item.plan.choice.to_dict()
        differs = {name for name in best if best[name] != other[name]} - {"accumulation"}
        assert differs <= {"gpus", "sharding"} or len(differs) == 1


def test_what_binds() -> None:
    free = plan("meta-llama/Llama-3.1-8B", tokens="50M", gpu="h100", gpus=(1, 2, 4, 8))
    cheap = plan("meta-llama/Llama-3.1-8B", tokens="50M", gpu="h100", gpus=(1, 2, 4, 8), prefer="cost")
    assert free.best.usd and cheap.best.usd and cheap.best.usd < free.best.usd
    tight = plan(
        "meta-llama/Llama-3.1-8B", tokens="50M", gpu="h100", gpus=(1, 2, 4, 8),
        budget=(cheap.best.usd + free.best.usd) / 2, deadline="30d",
    )  # fmt: skip
    assert "budget" in {item.limit for item in tight.binding}
    assert "deadline" not in {item.limit for item in tight.binding}
    assert not {"budget", "deadline"} & {item.limit for item in free.binding}
    for item in tight.binding:
        assert item.message


def test_a_limit_that_is_a_plans_own_figure_lets_that_plan_through(
    cells: Cells, everything: list[Evaluated]
) -> None:
    """Sums in another order differ in the last digit: what stands at a limit is compared in full."""
    fitting = [full for full in everything if full.over_bytes() <= 0]
    for full in fitting[:: len(fitting) // 25]:
        for limits in (
            Limits(deadline_s=full.seconds, prefer="time"),
            Limits(budget_usd=full.usd, prefer="cost"),
            Limits(
                deadline_s=full.seconds,
                budget_usd=full.usd,
                max_regret=full.regret.value if full.regret else None,
            ),
        ):
            best = Chooser(cells).best(limits)
            assert best is not None and not evaluate(cells.job, cells.choice(best)).failures(limits)


WORSE: dict[str, Any] = {
    "quality": lambda f: max(f.regret.value, SEEN) - SAME_REGRET if f.regret else 0.0,
    "cost": lambda f: f.usd,
    "time": lambda f: f.seconds,
}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_looser_limits_never_give_a_worse_plan(
    cells: Cells, everything: list[Evaluated], data: st.DataObject
) -> None:
    costs, times = (
        sorted(filter(None, map(figure, everything))) for figure in (WORSE["cost"], WORSE["time"])
    )
    prefer: Any = data.draw(st.sampled_from(list(WORSE)))
    fit: Any = data.draw(st.sampled_from(["expected", "sure"]))
    budgets, deadlines = (
        sorted(data.draw(st.lists(st.sampled_from(figures), min_size=2, max_size=2)))
        for figures in (costs, times)
    )
    tight, loose = (
        Chooser(cells, fit).best(Limits(budget, deadline, None, prefer, fit))
        for budget, deadline in zip(budgets, deadlines, strict=True)
    )
    if tight is None:
        return
    assert loose is not None
    before, after = (evaluate(cells.job, cells.choice(cell)) for cell in (tight, loose))
    figure = WORSE[prefer]
    assert figure(after) <= figure(before) + (SAME_REGRET if prefer == "quality" else 0)


def test_a_larger_budget_is_never_worse() -> None:
    regrets = []
    cheap = plan("meta-llama/Llama-3.1-8B", tokens="50M", gpu="h100", gpus=1, prefer="cost").best.usd or 0
    for budget in (1.05 * cheap, 1.3 * cheap, 2 * cheap, 5 * cheap):
        found = plan("meta-llama/Llama-3.1-8B", tokens="50M", gpu="h100", gpus=1, budget=budget)
        assert found.best.usd and found.best.usd <= budget and found.best.regret
        regrets.append(found.best.regret.value)
    assert all(late <= early + SAME_REGRET for early, late in itertools.pairwise(regrets))


def test_what_was_never_seen_of_larger_adapters_costs_nothing() -> None:
    """Beyond the law's sweep no plan is dearer than the cheapest of those that are as good as what was seen; with
    more data larger ranks count."""
    options: dict[str, Any] = {"gpu": "h100", "gpus": 1, "layers": "mlp", "quantize": "none"}
    model = "meta-llama/Llama-3.2-1B"
    few, many = (plan(model, tokens=n, **options).best for n in ("1M", "1B"))
    least = plan(model, tokens="1M", max_regret=SEEN + SAME_REGRET, prefer="cost", **options).best
    assert few.usd and least.usd and few.usd <= SAME * least.usd
    assert many.regret and many.regret.value > SEEN and many.choice.rank == 512


def test_the_surest_plan_is_the_best_of_a_search_for_sure_ones() -> None:
    options: dict[str, Any] = {"tokens": "20M", "gpu": "rtx 4090", "gpus": (1, 2), "trainer": "axolotl"}
    found = plan("Qwen/Qwen3-8B", **options)
    assert found.best.over_bytes() <= 0 < found.best.over_bytes("sure")
    tight = next(notice.message for notice in found.warnings if notice.code == "memory-tight")
    assert "--trainer" not in tight
    sure = plan("Qwen/Qwen3-8B", **options, fit="sure")
    assert found.sure and found.sure.choice == sure.best.choice and sure.sure is None
    assert sure.best.memory.high <= sure.best.memory_bytes and sure.feasible < found.feasible
    assert all(f.over_bytes("sure") <= 0 for f in (*sure.alternatives, *sure.frontier))


def test_what_narrows_memorys_interval_is_said_where_its_upper_end_is_too_high() -> None:
    """By a trainer that is not known nothing surely fits that does by one that is."""
    options: dict[str, Any] = {"tokens": "20M", "gpu": "rtx 4090", "gpus": 1, "ranks": 8}
    tight = next(n.message for n in plan("Qwen/Qwen3-8B", **options).warnings if n.code == "memory-tight")
    assert "Naming --trainer narrows memory's interval." in tight
    with pytest.raises(InputError, match="GPUs with enough memory.*Naming --trainer narrows memory's"):
        plan("Qwen/Qwen3-8B", **options, fit="sure")
    assert plan("Qwen/Qwen3-8B", **options, fit="sure", trainer="axolotl").feasible


def test_who_names_a_gpu_and_not_how_many_hears_what_was_tried() -> None:
    found = plan("gpt2", tokens="5M", gpu="rtx 4090", ranks=8, prefer="time")
    assert found.best.choice.layout.gpus == 8 and "gpus-tried" in {notice.code for notice in found.warnings}
    one = plan("gpt2", tokens="5M", gpu="rtx 4090", gpus=1, ranks=8)
    assert "gpus-tried" not in {notice.code for notice in one.warnings}


def test_cost_is_linear_in_the_price() -> None:
    one, two = (
        plan("Qwen/Qwen3-8B", tokens="5M", gpu="h100", gpus=1, price=price, prefer="time").best
        for price in (2, 4)
    )
    assert one.choice == two.choice and one.usd and two.usd == pytest.approx(2 * one.usd)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gpu": "H1000"}, r"gpu: found 'H1000', expected a known accelerator.*Did you mean.*H100"),
        ({"gpus": 0}, r"gpus: found 0"),
        ({"gpus": "2,x"}, r"gpus: found 'x'"),
        ({"budget": 0}, r"budget: found 0, expected a number above 0"),
        ({"budget": -3.0}, r"budget"),
        ({"budget": 1e-3}, r"budget: found 0.001, expected at least \d+\.\d+ USD. Nothing fits: the nearest is rank"),
        ({"deadline": "1s"}, r"deadline: found '1.00 s', expected at least \d+ s \(.* min\). Nothing .* in seconds"),
        ({"deadline": "soon"}, r"deadline: found 'soon', expected a time"),
        ({"max_regret": 1e-9}, r"max-regret: found 1e-09, expected at least .* Nothing fits"),
        ({"prefer": "speed"}, r"prefer: found 'speed', expected one of quality, cost, time"),
        ({"price": 0}, r"price|budget"),
        ({"ranks": "1,-2"}, r"ranks"),
        ({"layers": "mpl"}, r"layers: found 'mpl'.*Did you mean mlp"),
        ({"quantize": "nf5"}, r"quantize: found 'nf5'.*Did you mean nf4"),
        ({"batch": 3, "gpus": 2}, r"batch: found 3, expected a batch that"),
        ({"gpu": "t4", "gpus": 1, "quantize": "none"}, r"gpu: found 'T4'.*Nothing fits: the nearest is .* needs"),
        ({"gpu": "Apple M3"}, r"gpu: found 'Apple M3'"),
        ({"tokens": None}, r"tokens: found None, expected the amount of data"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(options: dict[str, Any], says: str) -> None:
    values = {"gpu": "h100", "tokens": "20M", "gpus": 1, **options}
    with pytest.raises(InputError, match=says):
        plan("meta-llama/Llama-3.1-8B", **values)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("45m", 2700),
        ("12H", 43200),
        ("1.5 h", 5400),
        ("2 days", 172800),
        ("3 weeks", 1814400),
        ("1e5", 1e5),
        (90, 90),
    ],
)
def test_a_deadline_is_read_as_it_is_said(written: object, seconds: float) -> None:
    assert parse_duration("deadline", written) == seconds


@pytest.mark.parametrize("limit", ["budget", "deadline", "max_regret"])
@pytest.mark.parametrize("tokens", ["20M", "7.3M"])
def test_the_limit_that_an_error_asks_for_has_a_plan(limit: str, tokens: str) -> None:
    def limited(value: float) -> Any:
        options: dict[str, Any] = {"gpu": "h100", "tokens": tokens, "gpus": 1, limit: value}
        return plan("meta-llama/Llama-3.1-8B", **options)

    with pytest.raises(InputError) as raised:
        limited(1e-9)
    least = float(raised.value.expected.removeprefix("at least ").split()[0])
    limited(least)
    with pytest.raises(InputError):
        limited(least * 0.98)


def test_a_model_without_mlps_is_searched_all_the_same() -> None:
    found = plan("state-spaces/mamba-1.4b-hf", tokens="5M", gpu="h100", gpus=1)
    assert found.best.choice.layers == "all"
    with pytest.raises(InputError, match="layers: found 'mlp'"):
        plan("state-spaces/mamba-1.4b-hf", tokens="5M", gpu="h100", gpus=1, layers="mlp")
    with pytest.raises(InputError, match="rank: found 100000"):
        plan("Qwen/Qwen3-8B", tokens="5M", gpu="h100", gpus=1, ranks=100_000)


def test_episodes_need_no_law_of_regret() -> None:
    found = plan("Qwen/Qwen3-8B", episodes=10_000, gpu="h100", gpus=1, seq_len=1024)
    assert found.best.regret is None and found.tokens == 10_000 * 1024
    assert "regret-unknown" in {notice.code for notice in found.warnings}


def test_the_json_says_it_all() -> None:
    data = plan("Qwen/Qwen3-8B", tokens="5M", gpu="h100", gpus=1, budget=50).to_dict()
    assert {"best", "alternatives", "frontier", "binding", "rejected", "limits"} <= set(data)
    best = data["best"]
    assert best["cost"]["low"] < best["cost"]["usd"] < best["cost"]["high"] and best["cost"]["usd"] <= 50
    assert best["time"]["low"] < best["time"]["seconds"] < best["time"]["high"]
    assert best["memory"]["per_gpu_bytes"] <= best["memory"]["limit_bytes"]
    assert len({fact.name for fact in facts.accelerators()}) > 40


@pytest.mark.parametrize(
    ("model", "gpu", "batch"),
    [("meta-llama/Llama-3.1-405B", "a100-40gb", 32), ("Qwen/Qwen3-32B", "l4", 3)],
)
def test_more_gpus_that_would_do_are_said_as_they_are_typed(model: str, gpu: str, batch: int) -> None:
    options: dict[str, Any] = {"tokens": "10M", "gpu": gpu, "gpus": 1, "batch": batch, "quantize": "none"}
    with pytest.raises(InputError) as told:
        plan(model, **options)
    typed = re.search(r"--gpus (\d+)(?: --batch (\d+))? would do", str(told.value))
    assert typed
    gpus = int(typed[1])
    several = {**options, "batch": int(typed[2] or batch)}
    assert plan(model, **{**several, "gpus": gpus}).best.choice.layout.gpus == gpus
