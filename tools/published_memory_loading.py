"""Published peaks that come before the first step: which they are, as they were predicted first and are now."""

from __future__ import annotations

from collections.abc import Sequence

from planner.moments import BEFORE
from tools.published_memory_later import RUN, Later, Said, estimate_of

GB = 10**9
TEXT = """\
## Before the first step

Of these peaks {count} are not of a step: they are reached while the base is loaded, quantised, prepared or spread
over GPUs, and stay with torch's allocator, so that nvidia-smi shows them throughout. No estimate had such a moment
when they were predicted first. Each follows from the code of the version that ran, which its profile names
(`planner/memory/loading.py`): transformers 5.0 to 5.3 put all weights onto the GPU in 16 bits while they are
quantised one by one (0.92 of them were measured, and 0.95 by the pull request that ended it); torchao 0.1 compares
whole matrices with NF4's 16 numbers, 68 bytes a value; TRL before 0.25 has PEFT make float32 copies of embeddings
and unembedding for a while; DDP's first broadcast takes flat copies of all parameters, whose blocks torch before 2.8
does not use again until the GPU has caught up. A step's blocks that are larger than those that loading left come on
top, which is not counted (the ChatGLM above); of TRL's three 1.2 to 2.7 GB are not explained (the notebook's log, of
another model, has 12.07 GiB reserved before training and 2.0 more after it). torchtune 0.1's profile also has
batches of many lengths and FSDP 1's units, which brings its other rows nearer (254, 255, 257; 256 is 11% too high).

| source | rows | before the first step | measured | blind | now |
|---|---|---|---|---|---|
"""
Pair = tuple[Later, Said]


def before_the_first_step(first: Sequence[Pair], now: Sequence[Pair]) -> list[str]:
    """Lines of the page: text, and a row for each figure that is one of loading now."""
    blind = {case.number: said for case, said in first}
    rows = []
    for case, said in now:
        if case.metric in RUN:
            continue
        found = estimate_of(case)
        top = found.loading_peak
        allocated = found.peak.phase in BEFORE and case.metric == "allocated"
        if top is not None and (
            allocated or (case.metric != "allocated" and found.before_bytes >= found.reserved_bytes)
        ):
            ratios = (each.predicted / case.measured for each in (blind[case.number], said))
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            rows.append(
                f"| {case.source} | {case.number} | {top.name} | {case.measured / GB:.1f} GB | {cells} |"
            )
    return [*TEXT.format(count=len(rows)).splitlines(), *rows, ""]
