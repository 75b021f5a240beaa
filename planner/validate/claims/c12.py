"""C12: four numbers that set a LoRA run are two: scaling them together leaves Adam's training as it was."""

from __future__ import annotations

from ..grid import Lookup
from ..records import RunConfig
from . import Claim, Judgement, Setting, exact, undecided

# Powers of two scale floating-point numbers without rounding, so that the runs must agree to the bit.
TRANSFORMS = ((2.0, 4.0), (8.0, 0.5), (0.25, 2.0))
STEPS = 30


def _configs(setting: Setting) -> list[RunConfig]:
    base = RunConfig(model=setting.model, task="dialect", rank=8, lr=4e-3, steps=STEPS, eps=2.0**-30)
    return [base.but(p=p, q=q) for p, q in ((1.0, 1.0), *TRANSFORMS)]


def needs(setting: Setting, lookup: Lookup) -> list[RunConfig]:
    """The runs that are not there yet."""
    return [config for config in _configs(setting) if lookup(config) is None]


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The largest difference between a curve and the untransformed one; B A's bytes must be equal too."""
    found = [record for config in _configs(setting) if (record := lookup(config)) is not None]
    if len(found) <= len(TRANSFORMS) or any(record.status != "ok" for record in found):
        return undecided("a run is missing or did not finish")
    plain, *others = found
    gap = max(abs(a - b) for other in others for a, b in zip(plain.curve, other.curve, strict=True))
    same = all(other.measured["change"] == plain.measured["change"] for other in others)
    details = {
        "transforms": [list(pair) for pair in TRANSFORMS], "steps": STEPS,
        "change": [record.measured["change"] for record in found], "loss": plain.curve[-1],
    }  # fmt: skip
    if plain.curve[-1] >= plain.curve[0]:
        return undecided("the runs learnt nothing, so that they could agree for no reason", gap, details)
    return exact(
        gap == 0 and same, gap, f"{len(TRANSFORMS)} transformed runs equal the plain one bit for bit, {STEPS} steps",
        f"curves differ by up to {gap:.3g}" if gap else "the weights' changes differ in their bits", details,
    )  # fmt: skip


CLAIM = Claim(
    "C12", "alpha/(pq), p init_A, p LR_A and q LR_B, with eps_A/p and eps_B/q, leave training under Adam unchanged.",
    "LoRA Without Regret (its eps scaled by derivation: A's gradient scales by 1/p, B's by 1/q)",
    "largest difference of losses, nats", "confirmed where curves and B A agree to the bit, else refuted",
    lambda setting: 0.0, judge, needs, lambda setting: 1 + len(TRANSFORMS),
)  # fmt: skip
