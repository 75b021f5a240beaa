"""C10: an episode of policy gradient teaches at most one bit.

The secrets are of 4 bits, with as many y as n. They were chosen after others had been tried, so that runs come near
the bound at all: with a secret of 8 bits, as balanced as these, all nine runs ended with 7 right, and with
unbalanced ones policies stuck too (without an entropy bonus, one that gives the commonest answer always never tries
the other again). The choice is of what is learnt, not of the rule, which no run has changed.
"""

from __future__ import annotations

from ..grid import Cell, Lookup, rate
from ..records import RunConfig, RunRecord
from ..statistics import Interval
from . import Claim, Judgement, Setting, undecided
from .arms import lora

BITS = 4
TASKS = tuple(f"secret:bits={BITS},seed={seed}" for seed in (2, 4))
RATES = (-3, -2, -1)
ENOUGH = 0.5


def _configs(setting: Setting) -> list[RunConfig]:
    """Rank 4 learning a secret by reward alone, at a few rates, seeds in turn with either secret; evaluation is the
    success rate on all bits."""
    cell: Cell = lora(setting, 4, kind="rl", task=TASKS[0], steps=2 * setting.steps, batch=64)
    return [
        cell.base.but(lr=rate(k), seed=seed, task=TASKS[seed % len(TASKS)])
        for seed in range(setting.seeds)
        for k in RATES
    ]


def needs(setting: Setting, lookup: Lookup) -> list[RunConfig]:
    """The runs that are not there yet."""
    return [config for config in _configs(setting) if lookup(config) is None]


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The largest share of the reward's bits that a policy knows in the end: the bound is 1."""
    found: list[RunRecord] = [r for config in _configs(setting) if (r := lookup(config)) and r.status == "ok"]
    if not found:
        return undecided("no run finished")
    shares = [record.measured["known_bits"] / max(1.0, record.measured["reward_bits"]) for record in found]
    known = max(record.measured["known_bits"] for record in found)
    best = max(found, key=lambda record: record.measured["known_bits"])
    details = {
        "secret_bits": BITS, "known_bits": [record.measured["known_bits"] for record in found],
        "reward_bits": [record.measured["reward_bits"] for record in found],
        "episodes_a_bit": best.measured["episodes"] / max(known, 1e-9),
    }  # fmt: skip
    measured = Interval(max(shares), min(shares), max(shares))
    if max(shares) > 1:
        return Judgement("refuted", "a run knows more bits than its rewards carried", measured, details)
    if known < ENOUGH * BITS:
        return undecided(f"no run learnt {ENOUGH:.0%} of the {BITS} bits, so that the bound was not put to a test",
                         max(shares), details)  # fmt: skip
    reason = (
        f"at most {max(shares):.2%} of the reward's bits are known in the end ({known:.1f} of {BITS} learnt)"
    )
    return Judgement("confirmed", reason, measured, details)


CLAIM = Claim(
    "C10", "A policy learns at most the entropy of the reward an episode: 1 bit with a binary one.",
    "LoRA Without Regret: I <= H(advantage)", "known bits over bits in the rewards",
    "confirmed where no run knows more bits than its rewards carried and one learnt at least half of the secret; "
    "refuted where one does. A bound, not a rate",
    lambda setting: 1.0, judge, needs, lambda setting: len(RATES) * setting.seeds,
)  # fmt: skip
