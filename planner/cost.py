"""From a step to a run: its steps, seconds and dollars.

    steps   = ceil(tokens x epochs / tokens of a step)
    seconds = steps x seconds of a step
    usd     = seconds / 3600 x GPUs x price of a GPU and hour

Left out: starting up, compiling, evaluation, checkpoints and idle machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import facts
from .dataclass import dataclass
from .errors import InputError
from .schema import Basis, Notice, Source
from .speed import StepTime

if TYPE_CHECKING:
    from .fact_types import Accelerator, Price

HOUR_S = 3600.0
DEAREST = 1e4  # dollars a GPU and hour, beyond which a price is a slip


@dataclass(frozen=True)
class GpuPrice:
    """Dollars of a GPU and hour. From the price list: the median of what providers asked last, and their range."""

    usd_per_gpu_hour: float
    low: float
    high: float
    basis: Basis
    providers: int = 0
    dates: tuple[str, str] | None = None
    sources: tuple[Source, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "usd_per_gpu_hour": self.usd_per_gpu_hour,
            "low": self.low,
            "high": self.high,
            "providers": self.providers,
            "from": self.dates[0] if self.dates else None,
            "to": self.dates[1] if self.dates else None,
            "basis": self.basis,
        }


def own_price(price: object) -> GpuPrice:
    """The user's own price. Raises InputError where it is no price."""
    if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 < price <= DEAREST:
        raise InputError(
            "price", price, f"dollars a GPU and hour, above 0 and at most {DEAREST:g}, such as 2.5"
        )
    value = float(price)
    return GpuPrice(value, value, value, "assumed")


def _newest(prices: Iterable[Price]) -> list[Price]:
    """Each provider's newest price; `prices` come newest first."""
    found: dict[str, Price] = {}
    for price in prices:
        found.setdefault(price.provider, price)
    return list(found.values())


def _median(values: list[float]) -> float:
    """The middle one, or the mean of the middle two; the module statistics is 5 % of a cold start."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def list_price(accelerator: Accelerator, kind: str = "on-demand") -> GpuPrice | None:
    """What providers ask for this accelerator by the dated list; None where it has no price."""
    found = _newest(facts.prices_of(accelerator.name, kind))
    if not found:
        return None
    asked = [price.usd_per_gpu_hour for price in found]
    dates = sorted(price.date for price in found)
    sources = tuple(dict.fromkeys(price.source for price in found))
    return GpuPrice(
        _median(asked), min(asked), max(asked), "measured", len(found), (dates[0], dates[-1]), sources
    )


def price_of(accelerator: Accelerator, own: object = None) -> tuple[GpuPrice | None, tuple[Notice, ...]]:
    """The user's own price, else the list's; where there is none, what to say of it. Raises InputError."""
    found = list_price(accelerator) if own is None else own_price(own)
    if found is not None:
        return found, ()
    text = f"No price of {accelerator.name} is listed, so that there is no cost: --price says yours."
    return None, (Notice("no-price", text),)


@dataclass(frozen=True)
class RunTime:
    """A step, and how many of them a run has; `steps` and the seconds are None where the amount of data is not
    known."""

    step: StepTime
    steps: int | None
    calibrated: bool = False
    seq_len: int | None = None  # of samples as they are padded, on average; None where sequences are full

    def _times(self, seconds: float) -> float | None:
        return None if self.steps is None else self.steps * seconds

    @property
    def seconds(self) -> float | None:
        """Seconds of the run."""
        return self._times(self.step.seconds)

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return self._times(self.step.low)

    @property
    def high(self) -> float | None:
        """Upper end."""
        return self._times(self.step.high)

    def to_dict(self) -> dict[str, Any]:
        """The contract's `time`."""
        return {
            "seconds": self.seconds,
            "low": self.low,
            "high": self.high,
            "steps": self.steps,
            "seq_len": self.seq_len,
            "gpu_hours": None if self.seconds is None else self.seconds * self.step.gpus / HOUR_S,
            "step": self.step.to_dict(),
            "interval": self.step.interval(),
            "coverage": self.step.coverage,
            "calibrated": self.calibrated,
            "basis": self.step.basis,
        }


def run_time(step: StepTime, tokens: int | None, calibrated: bool = False) -> RunTime:
    """The run over `tokens` tokens, epochs counted."""
    steps = None if tokens is None else max(1, math.ceil(tokens / step.tokens))
    return RunTime(step, steps, calibrated)


@dataclass(frozen=True)
class Cost:
    """Dollars of a run: the lowest time at the lowest price, up to the longest at the dearest."""

    usd: float | None
    low: float | None
    high: float | None
    price: GpuPrice
    coverage: float | None = None  # the share of times that the ends are to hold, at any price of the list
    basis: Basis = "fitted"

    def to_dict(self) -> dict[str, Any]:
        """The contract's `cost`."""
        return {
            "usd": self.usd,
            "low": self.low,
            "high": self.high,
            "coverage": self.coverage,
            "price": self.price.to_dict(),
            "basis": self.basis,
        }


def cost_of(run: RunTime, price: GpuPrice) -> Cost:
    """What a run costs at a price."""

    def usd(seconds: float | None, rate: float) -> float | None:
        return None if seconds is None else seconds / HOUR_S * run.step.gpus * rate

    return Cost(
        usd(run.seconds, price.usd_per_gpu_hour), usd(run.low, price.low), usd(run.high, price.high), price,
        run.step.coverage,
    )  # fmt: skip
