"""convert: a LoRA recipe in another parametrisation, with what stays exactly the same and what does not.

Under Adam the trained weights W + s B A follow from s, the draw of A (B starts at zero), and the two rates. For any
p, q > 0 the change

    s -> s / (p q),  A_0 -> p A_0,  LR_A -> p LR_A,  LR_B -> q LR_B,  eps_A -> eps_A / p,  eps_B -> eps_B / q

keeps A / p, B / q and so s B A at every step: Adam's steps do not depend on the size of the gradient, which becomes
1/p of what it was for A and 1/q for B. Decoupled weight decay keeps its effect where LR x decay does: decay_A / p,
decay_B / q. Source: LoRA Without Regret (2025), section on parametrisation; the factors of eps and decay by
derivation, checked by training in tests/test_parametrisation.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from .. import facts
from ..dataclass import dataclass
from ..errors import InputError, hint
from ..fact_types import Convention
from ..schema import Notice, Source
from ..units import parse_count

SCHEMA = 1
SCALINGS = ("alpha/rank", "alpha/sqrt(rank)", "none")
INITS = ("kaiming-uniform", "xavier-normal", "gaussian")
DEFAULT_D_IN = 4096
Level = Literal["exact", "first order", "not kept"]


@dataclass(frozen=True)
class Recipe:
    """A LoRA recipe. `init_gain` multiplies the convention's own draw of A."""

    rank: int
    alpha: float
    scaling: str
    init: str
    lr_a: float
    lr_b: float
    eps_a: float
    eps_b: float
    decay_a: float
    decay_b: float
    init_gain: float = 1.0

    def scale(self) -> float:
        """s, the factor of B A."""
        return scale_of(self.scaling, self.alpha, self.rank)

    def init_std(self, d_in: int) -> float:
        """The standard deviation of A's entries."""
        return self.init_gain * init_std(self.init, d_in, self.rank)


@dataclass(frozen=True)
class Kept:
    """What becomes of one property of training: exact, first order, or not kept, and why."""

    name: str
    level: Level
    reason: str


@dataclass(frozen=True)
class Conversion:
    """A recipe and its equivalent. `p` and `q` are the factors of A and B. Where the target has one rate for A and B
    but the equivalent needs two, `single_rate` is the rate that agrees to first order."""

    source: str
    target: str
    before: Recipe
    after: Recipe
    p: float
    q: float
    d_in: int
    p_range: tuple[float, float]
    single_rate: float | None
    kept: tuple[Kept, ...]
    warnings: tuple[Notice, ...]
    sources: tuple[tuple[str, Source], ...]

    @property
    def exact(self) -> bool:
        """Whether training is the same step by step, under Adam with the scaled eps and decay and without
        clipping."""
        return all(item.level == "exact" for item in self.kept if item.name in ("initial A", "rates", "rank"))

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `convert`."""
        return {
            "schema": SCHEMA,
            "from": self.source,
            "to": self.target,
            "before": {**vars(self.before), "scale": self.before.scale()},
            "after": {**vars(self.after), "scale": self.after.scale()},
            "p": self.p,
            "q": self.q,
            "d_in": self.d_in,
            "p_range": list(self.p_range),
            "exact": self.exact,
            "single_rate": self.single_rate,
            "lr_ratio": self.after.lr_b / self.after.lr_a,
            "kept": [dict(vars(item)) for item in self.kept],
            "warnings": [dict(vars(notice)) for notice in self.warnings],
            "sources": [{"used_for": use, **vars(source)} for use, source in self.sources],
        }


def scale_of(scaling: str, alpha: float, rank: int) -> float:
    """s = alpha / rank, alpha / sqrt(rank) (rsLoRA), or 1. Dimensionless."""
    return {"alpha/rank": alpha / rank, "alpha/sqrt(rank)": alpha / math.sqrt(rank), "none": 1.0}[scaling]


def alpha_for(scaling: str, scale: float, rank: int) -> float:
    """The alpha that gives a scale; 1 where nothing scales."""
    return {"alpha/rank": scale * rank, "alpha/sqrt(rank)": scale * math.sqrt(rank), "none": 1.0}[scaling]


def init_std(init: str, d_in: int, rank: int) -> float:
    """The standard deviation of A's entries: 1/sqrt(3 d_in) for kaiming-uniform with a = sqrt(5) (bound
    1/sqrt(d_in)), sqrt(2/(d_in + rank)) for xavier-normal, 1/rank for PEFT's gaussian."""
    return {
        "kaiming-uniform": 1 / math.sqrt(3 * d_in),
        "xavier-normal": math.sqrt(2 / (d_in + rank)),
        "gaussian": 1 / rank,
    }[init]


def transform(recipe: Recipe, p: float, q: float) -> Recipe:
    """The article's invariance: the same training with A times p and B times q.

    alpha / (p q), init_A p, LR_A p, LR_B q, eps_A / p, eps_B / q, decay_A / p, decay_B / q. Exact under Adam and
    AdamW up to rounding (none where p and q are powers of two). Neglects gradient clipping by the global norm.
    Raises InputError where the recipe has no alpha to divide.
    """
    if recipe.scaling == "none" and not math.isclose(p * q, 1.0):
        raise InputError(
            "scaling", "none", "a scaling with an alpha", f"The scale would have to be {1 / (p * q):g}."
        )
    return replace(
        recipe, alpha=recipe.alpha / (p * q) if recipe.scaling != "none" else recipe.alpha,
        init_gain=recipe.init_gain * p, lr_a=recipe.lr_a * p, lr_b=recipe.lr_b * q, eps_a=recipe.eps_a / p,
        eps_b=recipe.eps_b / q, decay_a=recipe.decay_a / p, decay_b=recipe.decay_b / q,
    )  # fmt: skip


def _positive(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InputError(field, value, "a positive number")
    return float(value)


def _rank(field: str, value: object) -> int:
    number = parse_count(field, value)
    if not 1 <= number <= 1_000_000:
        raise InputError(field, value, "a whole number of at least 1")
    return number


def _choice(field: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise InputError(field, value, f"one of {', '.join(choices)}", hint(value, choices).strip())


def _own_alpha(fact: Convention, rank: int) -> float | None:
    """The alpha that a convention sets by itself; None where it has none."""
    if fact.alpha_rule:
        return float(rank) * (2 if fact.alpha_rule.startswith("2") else 1)
    return fact.alpha


def _before(
    fact: Convention, rank: int, alpha: float | None, lr: float, lr_ratio: float | None, scaling: str | None,
    init: str | None, init_gain: float, eps: float | None, weight_decay: float,
) -> Recipe:  # fmt: skip
    if alpha is None:
        alpha = _own_alpha(fact, rank)
        if alpha is None and (scaling or fact.scaling) != "none":
            raise InputError("alpha", None, "alpha", f"{fact.id} has none of its own.")
    ratio = fact.lr_ratio if lr_ratio is None else _positive("lr-ratio", lr_ratio)
    if fact.single_rate and not math.isclose(ratio, 1.0):
        remedy = "Name lora+ as the convention for two rates."
        raise InputError("lr-ratio", ratio, f"1, since {fact.id} has one rate for A and B", remedy)
    epsilon = fact.eps if eps is None else eps
    return Recipe(
        rank, alpha if alpha is not None else 1.0, scaling or fact.scaling, init or fact.init, lr, lr * ratio,
        epsilon, epsilon, weight_decay, weight_decay, init_gain,
    )  # fmt: skip


def convert(
    source: str, target: str, *, lr: float, rank: int | None = None, alpha: float | None = None,
    lr_ratio: float | None = None, scaling: str | None = None, init: str | None = None, init_gain: float = 1.0,
    eps: float | None = None, weight_decay: float = 0.0, d_in: int = DEFAULT_D_IN,
    to_alpha: float | str | None = None, to_rank: int | None = None, keep_init: bool = False,
) -> Conversion:  # fmt: skip
    """A recipe of the convention `source` as an equivalent one of `target`.

    `lr` is A's rate (and B's, but for LoRA+: times `lr_ratio`). The target's alpha is chosen so that one rate serves
    A and B; `to_alpha` fixes it instead (a number, or "own" for the convention's), and then B's rate takes up the
    difference. `keep_init` scales the target's draw of A to the source's spread; otherwise the target's own is used.
    Raises InputError.
    """
    one, two = facts.convention(source, "from"), facts.convention(target, "to")
    _choice("scaling", scaling, SCALINGS)
    _choice("init", init, INITS)
    r1 = _rank("rank", rank if rank is not None else one.rank or 32)
    r2 = _rank("to-rank", to_rank if to_rank is not None else r1)
    width = _rank("d-in", d_in)
    rate, gain = _positive("lr", lr), _positive("init-gain", init_gain)
    if alpha is not None:
        alpha = _positive("alpha", alpha)
    if eps is not None and not (eps == 0 or _positive("eps", eps)):
        raise InputError("eps", eps, "a number that is not negative")
    if isinstance(weight_decay, bool) or not 0 <= weight_decay < math.inf:
        raise InputError("weight-decay", weight_decay, "a number that is not negative")
    before = _before(one, r1, alpha, rate, lr_ratio, scaling, init, gain, eps, float(weight_decay))
    return _convert(one, two, before, r2, width, to_alpha, keep_init)


def _target_scale(two: Convention, rank: int, to_alpha: float | str | None) -> float | None:
    """The target's scale where something fixes it, else None."""
    if two.scaling == "none":
        return 1.0
    if to_alpha is None:
        return None
    if to_alpha == "own":
        own = _own_alpha(two, rank)
        if own is None:
            raise InputError("to-alpha", "own", "a number", f"{two.id} has no alpha of its own.")
        return scale_of(two.scaling, own, rank)
    try:
        number = float(to_alpha)
    except ValueError:
        raise InputError("to-alpha", to_alpha, "a positive number, or own") from None
    return scale_of(two.scaling, _positive("to-alpha", number), rank)


def _convert(
    one: Convention, two: Convention, before: Recipe, rank: int, d_in: int, to_alpha: float | str | None,
    keep_init: bool,
) -> Conversion:  # fmt: skip
    target_std = before.init_std(d_in) if keep_init else init_std(two.init, d_in, rank)
    p = target_std / before.init_std(d_in)
    same_rank = before.scale() * before.rank / rank  # scale x rank is kept where the rank changes
    fixed = _target_scale(two, rank, to_alpha)
    # LR_B / LR_A of the target: its own convention's, unless a fixed alpha leaves no choice.
    q = p * before.lr_a * two.lr_ratio / before.lr_b if fixed is None else same_rank / (fixed * p)
    scale = same_rank / (p * q) if fixed is None else fixed
    after = Recipe(
        rank, alpha_for(two.scaling, scale, rank), two.scaling, two.init, before.lr_a * p, before.lr_b * q,
        before.eps_a / p, before.eps_b / q, before.decay_a / p, before.decay_b / q,
        target_std / init_std(two.init, d_in, rank),
    )  # fmt: skip
    span = (p, p)
    if not keep_init and two.init != before.init:
        widths = [init_std(two.init, w, rank) / before.init_std(w) for w in (512, 65536)]
        span = (min(widths), max(widths))
    ratio = after.lr_b / after.lr_a
    single = after.lr_b if two.single_rate and not math.isclose(ratio, 1.0, rel_tol=1e-9) else None
    return Conversion(
        one.id, two.id, before, after, p, q, d_in, span, single,
        tuple(_kept(before, after, p, q, single, keep_init)), tuple(_notices(one, two, after, span, single, p)),
        ((f"convention {one.id}", one.source), (f"convention {two.id}", two.source),
         ("invariance", facts.rate_contexts()["alpha"].source)),
    )  # fmt: skip


def _kept(
    before: Recipe, after: Recipe, p: float, q: float, single: float | None, keep_init: bool
) -> list[Kept]:
    """What stays exactly, to first order, or not."""
    unit = math.isclose(p, 1.0) and math.isclose(q, 1.0)
    items = [_kept_init(before, after, keep_init), _kept_rates(single), _kept_digits(p, q)]
    if before.rank != after.rank:
        text = "another rank is another adapter; scale x rank is kept, at which the first steps have the same size"
        items.append(Kept("rank", "first order", text))
    text = "only with eps_A / p and eps_B / q; with one epsilon for both, to first order where gradients are larger"
    items.append(Kept("Adam's epsilon", "exact", "unchanged" if unit else text))
    if before.decay_a or before.decay_b:
        text = "unchanged" if unit else "only decoupled (AdamW) and with decay_A / p and decay_B / q"
        items.append(Kept("weight decay", "exact" if single is None else "not kept", text))
    if not unit:
        text = (
            "gradients become 1/p and 1/q of what they were; with p = q a threshold divided by p is the same"
        )
        items.append(Kept("gradient clipping", "not kept", text))
        text = "SGD, Muon and Adafactor scale otherwise; Lion and signSGD as Adam"
        items.append(Kept("other optimizers", "not kept", text))
    return items


def _kept_init(before: Recipe, after: Recipe, keep_init: bool) -> Kept:
    if before.init == after.init:
        return Kept("initial A", "exact", "the same draw, scaled")
    text = "the same spread by a gain on the draw" if keep_init else "spread allowed for in the rates"
    return Kept("initial A", "first order", f"{text}, but drawn from another distribution")


def _kept_rates(single: float | None) -> Kept:
    if single is None:
        return Kept("rates", "exact", "A's and B's steps scale with A and B")
    text = "one rate for both: B's is kept, which decides while A has hardly moved; A's is not"
    return Kept("rates", "first order", text)


def _kept_digits(p: float, q: float) -> Kept:
    if all(math.log2(x) == round(math.log2(x)) for x in (p, q)):
        return Kept("rounding", "exact", "p and q are powers of two")
    return Kept("rounding", "first order", "p and q are no powers of two: the last digits differ")


def _notices(
    one: Convention, two: Convention, after: Recipe, span: tuple[float, float], single: float | None, p: float
) -> list[Notice]:
    notes = []
    if single is not None:
        text = (
            f"{two.id} has one rate for A and B, and this alpha needs LR_B / LR_A = {after.lr_b / after.lr_a:.4g}: "
            "use two rates (LoRA+), leave alpha free, or take B's rate for both, which is right to first order."
        )
        notes.append(Notice("one-rate", text))
    if span[1] / span[0] > 1.001:
        text = (
            f"A's spread differs by {span[0]:.3g} to {span[1]:.3g} with a matrix's width (512 to 65,536 inputs); "
            f"{p:.4g} holds at the given one."
        )
        notes.append(Notice("init-by-width", text))
    return notes + [Notice("convention", f"{fact.id}: {fact.notes}") for fact in (one, two) if fact.notes]


def to_rows(recipe: Recipe) -> Mapping[str, float]:
    """The figures of a recipe that a reader sets."""
    return {
        "rank": recipe.rank,
        "alpha": recipe.alpha,
        "scale": recipe.scale(),
        "LR of A": recipe.lr_a,
        "LR of B": recipe.lr_b,
        "epsilon of A": recipe.eps_a,
        "epsilon of B": recipe.eps_b,
        "weight decay of A": recipe.decay_a,
        "weight decay of B": recipe.decay_b,
        "gain of A's draw": recipe.init_gain,
    }
