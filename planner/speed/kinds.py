"""Kinds of set-ups, all known before a step runs: which first predictions tell how far an estimate of its time may be
off."""

from __future__ import annotations

from .. import units
from ..dataclass import dataclass
from ..hardware import Cluster
from ..setup import Setup
from .styles import takes_mask

PLACES = ("one", "several", "machines")  # usual set-ups, by where their GPUs are
RARE = ("unseen", "offloaded", "padded", "small")  # harder to predict, wherever their GPUs are
KINDS = (*PLACES, *RARE)
MEASURED = "measured"  # the interval after a step of one's own, whatever its kind
GRPO = "grpo"  # steps that make completions, whose interval is their own (speed/policy.py)
SMALL_TOKENS = 2048  # of a GPU and pass: below, waiting for the host and for each other decides

# In few words, for the cell of a table.
KIND_WORDS = {
    "one": "one GPU", "several": "a machine's GPUs", "machines": "over machines", "unseen": "unmeasured GPU",
    "offloaded": "offloading", "padded": "padded, sdpa", "small": "small passes", "measured": "measured step",
    "grpo": "GRPO",
}  # fmt: skip


@dataclass(frozen=True)
class Grounds:
    """What the interval of a kind rests on: `runs` steps of so many `sources`. `held` is the mean, over the `judged`
    sources of this very kind, of the share of each one's steps that an interval of all other sources holds; None
    where nobody has judged it."""

    kind: str
    sources: int
    runs: int | None
    judged: int
    held: float | None

    @property
    def words(self) -> str:
        """How often such intervals hold, for a table's cell."""
        return held_words(self.held, self.judged)

    @property
    def said(self) -> str:
        """Whose interval it is and how often such intervals hold."""
        return f"{KIND_WORDS[self.kind]}: it holds {self.words}"


def held_words(held: float | None, judged: int) -> str:
    """How often intervals hold, in few words."""
    return "not judged" if held is None else f"{held:.0%} of {units.counted(judged, 'source')}"


def kind_of(setup: Setup, machine: Cluster, evidence: str) -> str:
    """The kind of a set-up: the first of `RARE` that it is, or where its GPUs are. `evidence`: whether constants were
    fitted on its accelerator."""
    rare = {
        "unseen": evidence == "unseen",
        "offloaded": setup.offload != "none",
        "padded": takes_mask(setup),
        "small": setup.tokens < SMALL_TOKENS,
    }
    for kind in RARE:
        if rare[kind]:
            return kind
    if setup.gpus == 1:
        return "one"
    return "several" if setup.gpus <= machine.per_node else "machines"
