"""C19: the article's parameter table for Llama-3.1-8B counts an adapter on the unembedding in every row."""

from __future__ import annotations

from ...estimator import estimate
from ..grid import Lookup
from . import Claim, Judgement, Setting, exact

MODEL = "meta-llama/Llama-3.1-8B"
# (layers, rank) -> billions as printed, to two decimals
PRINTED = {("mlp", 256): 0.49, ("attention", 256): 0.25, ("attention,mlp", 256): 0.70, ("mlp", 128): 0.24}


def counts(unembedding: bool) -> dict[tuple[str, int], int]:
    """The planner's counts of the table's rows, with or without an adapter on the unembedding."""
    more = ",unembedding" if unembedding else ""
    return {
        (layers, rank): estimate(MODEL, layers=layers + more, rank=rank).adapter.params
        for layers, rank in PRINTED
    }


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """How many of the rows agree when rounded to two decimals."""
    holds = {}
    for unembedding in (True, False):
        found = counts(unembedding)
        holds[unembedding] = [round(found[row] / 1e9, 2) == printed for row, printed in PRINTED.items()]
    details = {f"{layers}, rank {rank}": number for (layers, rank), number in counts(True).items()}
    return exact(
        all(holds[True]) and not any(holds[False]), float(sum(holds[True])),
        "all 4 rows agree with it, none without",
        f"{sum(holds[True])} rows agree with it, {sum(holds[False])} without",
        details,
    )  # fmt: skip


CLAIM = Claim(
    "C19", "The article's table of LoRA parameters for Llama-3.1-8B includes the unembedding in every row.",
    "LoRA Without Regret, table of parameters (0.49B, 0.25B, 0.70B, 0.24B)", "rows that agree",
    "confirmed where all 4 rows agree with an adapter on the unembedding and none without, else refuted",
    lambda setting: float(len(PRINTED)), judge,
)  # fmt: skip
