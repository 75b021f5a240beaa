"""Why published measurements lie further than a quarter from what is predicted: what is not known of them, or what
the formula lacks. Found by reading the trainers' sources; nothing is computed from these words. Row by row:
tools/measured_rows.py; what follows is by source, of the set that was collected last."""

from __future__ import annotations

from tools.measured_rows import COLLECTED, GIVEN, OF_SETS
from tools.published_memory import Case
from tools.published_memory_later import Later

NOT_EXPLAINED = "not explained"


def why(case: Case) -> str:
    """The reason, or that there is none yet."""
    return GIVEN.get(case.row, NOT_EXPLAINED)


OLDER_BASE = (
    "not the process's first run, so that an earlier base lies beside this one: the notebook finds 3.4 GB of the "
    "GPU taken before it loads the model, and each rank has 2.10 GB more than the same run of row 469's fresh "
    "process; with two bases 0.99"
)
RUN_AGAIN = (
    "not the process's first run (its training cell is the 38th to be run, of 11), so that an earlier base lies "
    "beside this one; with two bases 1.06"
)
XTURING = (
    "not explained: 12.3 GB are missing, about what the gradients of all parameters take in 16 bits (13.5; with them "
    "1.04). By its code it is ZeRO-2 with the optimizer in the host, float16 and no checkpointing "
    "(src/xturing/trainers/lightning_trainer.py, 00486bd), of which no whole gradients stay; the README has batch 1 "
    "and at most 512 tokens, as taken"
)
JOINED = (
    "Unsloth joins a micro-batch's four samples without padding (half of the samples have 227 tokens or fewer), "
    "which the command takes as four of the longest, 738; with 1,500 and 1,460 tokens in all the figures would "
    "result"
)
# A part of the address, and the reason.
BY_ADDRESS = (
    ("2A202600921", OLDER_BASE),
    ("lab21_2A202600243", RUN_AGAIN),
    ("lab21_2A202600059", JOINED),
    ("Lab21_2A202600105", JOINED),
)
# A part of the source, the start of the model's name, the method, and the reason.
LATER = (("stochasticai/xTuring", "", "full", XTURING),)


def why_later(case: Later) -> str:
    """The reason of a case collected afterwards, or that there is none yet."""
    if case.found in OF_SETS:
        return OF_SETS[case.found].get(case.number, NOT_EXPLAINED)
    if case.number in COLLECTED:
        return COLLECTED[case.number]
    for part, reason in BY_ADDRESS:
        if part in case.url:
            return reason
    for source, model, method, reason in LATER:
        if source in case.source and case.model.startswith(model) and method in ("", case.method):
            return reason
    return NOT_EXPLAINED
