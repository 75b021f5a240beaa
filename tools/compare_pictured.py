"""docs/images.md: published times of steps with images beside what is predicted of them.

python -m tools.compare_pictured
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from .speed_later import Later, Said, later, said_of

PICTURED = "speed_pictured"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "images.md"
BEGIN, END = "<!-- timed: begin -->", "<!-- timed: end -->"
HEAD = (
    "| model | trained | GPUs | published, s | predicted, s (interval) | predicted / published | interval |"
)


def _middle(found: Sequence[Said]) -> str:
    """Median ratio, and how many lie within a factor of 1.5 and in the interval."""
    ratios = [said.seconds / said.measured for said in found]
    near = sum(1 / 1.5 <= ratio <= 1.5 for ratio in ratios)
    return (
        f"{statistics.median(ratios):.2f} in the middle, {near} of {len(ratios)} within a factor of 1.5, "
        f"{sum(said.inside for said in found)} inside the interval"
    )


def table() -> str:
    """What lies between the page's marks."""
    cases = later(PICTURED)
    found = [(case, said_of(case)) for case in cases]
    groups = {
        "A100s": [said for case, said in found if case.gpu.startswith("a100")],
        "a T4": [said for case, said in found if case.gpu == "t4"],
    }
    sources = len({case.source for case in cases})
    lines = [
        f"{len(cases)} steps of {sources} sources, predicted / published: "
        + "; ".join(f"on {name} {_middle(each)}" for name, each in groups.items()) + ".",
        "", HEAD, "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    return "\n".join([*lines, *(_row(case, said) for case, said in found)])


def _row(case: Later, said: Said) -> str:
    what = "projector" if "multi_modal_projector" in case.options else case.method
    return (
        f"| [{case.model}]({case.url}) | {what} | {case.gpus} x {case.gpu} | {said.measured:.2f} | "
        f"{said.seconds:.2f} ({said.low:.2f} to {said.high:.2f}) | {said.seconds / said.measured:.2f} | "
        f"{'inside' if said.inside else 'OUTSIDE'} |"
    )


def main() -> None:
    """Write the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
