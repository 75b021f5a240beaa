"""What servers printed of their memory, against the planner's serving: docs/serving.md.

    python -m tools.compare_serving

data/measured/serving.csv holds what was published: bytes of the base and of the cache on each GPU, and how many
tokens the cache holds. Nothing is fitted on it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner import facts
from planner.estimator import load
from planner.memory.engine import cache_parts
from planner.serving import base_bytes, cache_bytes_per_token, server_bytes

PAGE = Path(__file__).resolve().parents[1] / "docs" / "serving.md"
GIB = 2**30
HEAD = """\
# Serving: predicted against published

Written by `python -m tools.compare_serving` from [serving.csv](../data/measured/serving.csv): what servers printed
when they started, on each GPU. Nothing is fitted on it. `token` is the cache over its tokens; `left` what 90% of
the memory leaves for the cache (and for adapters) beside base, pass and graphs, over the cache or the tokens that
were printed times our bytes of one: `left` by a pass of 4,096 tokens, which is what `serving` takes, and by the
source's own pass where its length is known. Ratios are predicted over published.

| source | model, GPUs | base | token | left | by its own pass | of it |
|---|---|---|---|---|---|---|"""
FOOT = """
Bytes of the base and of a token are what is printed, within the two or three digits of the figures (Qwen3-235B
under vLLM: {far_token}, where SGLang's cache of the same model agrees). What is left was {before} too much in the
worst case on one GPU without pass and graphs, and is {worst} with them: vLLM's pass was of 29,000 tokens there, on
a card on which little is left. By the sources' own passes it is {least} to {most} of what was printed. Llama-2-70B
on four GPUs is not explained: what a server takes beside torch there is not counted.

Not held against anything: how many adapters stay resident (vLLM reserves `max_loras` places whatever is loaded, and
no source was found that prints their bytes); the time to load one. `load_s` is the least that the bus takes from
the host's memory. What is published is a whole load through Python: half a second to over one, 20 ms a layer, in
LoRAX ([issue 433](https://github.com/predibase/lorax/issues/433), rank and model not stated), where the bus takes
milliseconds.
"""


@dataclass(frozen=True)
class Compared:
    """A published start of a server beside ours: ratios of predicted to published, None where nothing is."""

    source: str
    url: str
    model: str
    gpus: int
    notes: str
    base: float | None
    token: float | None
    left: float | None
    by_pass: float | None
    bare: float | None  # `left` without pass and graphs


def _number(text: str) -> float | None:
    return float(text) if text else None


def compared() -> Iterator[Compared]:
    """Every row."""
    for row in csv.DictReader(io.StringIO(facts.read_data("measured", "serving.csv"))):
        arch, gpus = load(row["model"])[1], int(row["gpus"])
        base, token = base_bytes(arch) / gpus, cache_bytes_per_token(arch) / cache_parts(arch, gpus)
        said_base, cache, tokens, memory, share = (
            _number(row[name]) for name in ("base_gib", "cache_gib", "tokens", "memory_gib", "utilisation")
        )
        left = by_pass = bare = None
        if memory and share:
            held = cache * GIB if cache else (tokens or 0) * token
            bare = (share * memory * GIB - base) / held
            left = bare - server_bytes(arch, gpus) / held
            length = int(row["pass_tokens"] or 0)
            by_pass = bare - server_bytes(arch, gpus, length) / held if length else None
        yield Compared(
            row["source"], row["url"], row["model"], gpus, row["notes"],
            base / GIB / said_base if said_base else None,
            token * tokens / (cache * GIB) if cache and tokens else None, left, by_pass, bare,
        )  # fmt: skip


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def page(found: Sequence[Compared]) -> str:
    """The whole page."""
    lines = [HEAD]
    for one in found:
        gpus = "one GPU" if one.gpus == 1 else f"{one.gpus} GPUs"
        cells = " | ".join(_cell(value) for value in (one.base, one.token, one.left, one.by_pass))
        lines.append(f"| [{one.source}]({one.url}) | {one.model}, {gpus} | {cells} | {one.notes} |")
    alone = [one for one in found if one.gpus == 1 and one.left and one.bare]
    before, worst = max(one.bare or 0 for one in alone), max(one.left or 0 for one in alone)
    far = max((one.token for one in found if one.token), key=lambda ratio: abs(ratio - 1))
    own = [one.by_pass for one in found if one.by_pass]
    text = FOOT.format(
        before=f"{before - 1:.0%}", worst=f"{worst - 1:.0%}", far_token=f"{far:.3f}", least=f"{min(own):.2f}",
        most=f"{max(own):.2f}",
    )  # fmt: skip
    return "\n".join([*lines, text])


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(tuple(compared())), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
