"""From choices to what the page shows: calls of the planner, and nothing calculated here."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .. import facts
from ..adapter import slope
from ..adapter.options import DEFAULTS, spec_of
from ..architecture.resolve import ResolvedConfig
from ..capacity import capacity_bits
from ..commands import command_of
from ..errors import PlannerError
from ..estimator import load
from ..planning import estimate
from ..search import plan as search
from .configs import model_of
from .state import Choices, options, query

RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Options of an estimate that a search of plans holds fixed; it ranges over the others itself.
_FIXED = (
    "alpha", "experts", "dataset", "tokens", "episodes", "success_rate", "epochs", "seq_len", "precision",
    "optimizer", "kernels", "price", "trainer",
)  # fmt: skip
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """A plan's JSON with what stands beside it, or an error in one sentence. `curve` holds (rank, bits) of adapters
    of this kind, `card` the GPU's memory in bytes."""

    chosen: Choices
    query: str
    plan: Mapping[str, Any] | None = None
    command: str = ""
    curve: tuple[tuple[int, float], ...] = ()
    card: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Search:
    """The JSON of `lora-plan plan` with its command, or why there is none."""

    found: Mapping[str, Any] | None = None
    command: str = ""
    error: str | None = None
    missing: tuple[str, ...] = field(default=())


def guarded(call: Callable[[], Result]) -> tuple[Result | None, str | None]:
    """What a call returns, or its error as one sentence. An error that nobody foresaw goes to standard error in
    full, and to the page by its name alone."""
    try:
        return call(), None
    except PlannerError as error:
        return None, str(error)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return None, f"This combination could not be calculated ({type(error).__name__}); nothing was kept."


def answer(chosen: Choices, *, hub: bool = False) -> Answer:
    """Everything for the page but the search of plans; the JSON is that of `lora-plan estimate --json`."""
    made, error = guarded(lambda: _answer(chosen, hub))
    return made if made is not None else Answer(chosen, _query(chosen), error=error)


def _query(chosen: Choices) -> str:
    return guarded(lambda: query(chosen))[0] or ""


def _answer(chosen: Choices, hub: bool) -> Answer:
    model, asked = model_of(chosen, hub=hub), options(chosen)
    name: Any = model
    found = estimate(name, **asked).to_dict()
    return Answer(
        chosen, query(chosen), found, command_of(_named(model), asked, "estimate"), _curve(model, asked, found),
        _card(chosen.gpu),
    )  # fmt: skip


def _named(model: ResolvedConfig) -> object:
    """What a command calls the model; a pasted config is a file there."""
    return model.config if model.origin == "config" else model.model_id


def _curve(model: Any, asked: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """What adapters of this kind hold at usual ranks, and at the two that the plan names."""
    known = {name: asked[name] for name in asked if name in DEFAULTS}
    spec = spec_of({**DEFAULTS, "adapter": None, "adapter_dtype": "float32", **known})
    line = slope(load(model)[1], spec)
    named = {found["adapter"]["rank"], found["capacity"]["required_rank"] or 1}
    return tuple((rank, capacity_bits(line.params(rank))) for rank in sorted({*RANKS, *named}))


def _card(gpu: str) -> int | None:
    if not gpu:
        return None
    from ..hardware import find

    return find(gpu).memory_bytes


def plans(chosen: Choices, *, hub: bool = False) -> Search:
    """The best plans for these data on this GPU, within the limits; the JSON is that of `lora-plan plan --json`."""
    missing = [] if chosen.data or chosen.dataset or chosen.tokens or chosen.episodes else ["data"]
    missing += [] if chosen.gpu else ["GPU"]
    if missing:
        return Search(missing=tuple(missing))
    made, error = guarded(lambda: _plans(chosen, hub))
    return made if made is not None else Search(error=error)


def _plans(chosen: Choices, hub: bool) -> Search:
    given = options(chosen)
    asked = {name: given[name] for name in _FIXED if name in given}
    asked["gpu"] = chosen.gpu
    if "data" in given:  # a search takes amounts alone
        name = "episodes" if given["data"].kind == "rl" else "tokens"
        asked[name] = given["data"].information.units
    counts = [count for count in (1, 2, 4, 8) if count <= chosen.gpus]
    asked["gpus"] = ",".join(map(str, sorted({*counts, chosen.gpus})))
    if chosen.batch > 1:
        asked["batch"] = chosen.batch
    if chosen.budget is not None:
        asked["budget"] = chosen.budget
    if chosen.deadline:
        asked["deadline"] = chosen.deadline
    model = model_of(chosen, hub=hub)
    subject: Any = model
    return Search(search(subject, **asked).to_dict(), command_of(_named(model), asked, "plan"))


# What there is to choose from


def model_names() -> list[str]:
    """Every name of the catalogue, without case in order."""
    return sorted({*facts.model_ids(), *facts.model_aliases()}, key=str.lower)


def gpu_names() -> list[str]:
    """Every accelerator whose memory is known, those of a maker together."""
    return [fact.name for fact in facts.accelerators() if fact.memory_bytes]


def dataset_names() -> list[str]:
    """Every dataset of known size."""
    return [fact.name for fact in facts.datasets()]
