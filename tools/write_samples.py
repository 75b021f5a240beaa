"""Make the sample reports in reports/samples/ anew, and the pictures of them in README.md.

    python tools/write_samples.py

Each sample stands beside a text file with its command, date and version. Dates are fixed, so that nothing changes
where the program does not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pypdf
import typst

from planner.report import fit_report, validation_report
from planner.report.document import Document
from planner.report.gather import gather, moment
from planner.report.make import compose, make, make_fit, make_validation
from planner.report.writers import pdf

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "reports" / "samples"
SWEEP, RUNS = "data/sweeps/tinker_sft.csv", "data/runs/records.jsonl"
FIT_COMMAND, RUNS_COMMAND = (
    f"lora-plan report --sweep {SWEEP} -o fit.pdf",
    f"lora-plan report --runs {RUNS} -o evidence.pdf",
)
EPOCH = "1795478400"  # 24 November 2026, the day of the first samples
DOTS_AN_INCH = 60
RUN = {"tokens": 300_000_000, "gpu": "h100", "batch": 8, "checkpointing": True}
KINDS: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B", RUN, []),
    "qwen3-30b-a3b": ("Qwen/Qwen3-30B-A3B", {**RUN, "rank": 64, "gpu": "h200"}, []),
    "ranks": ("meta-llama/Llama-3.1-8B", RUN, [{"rank": 8}, {"rank": 128}, {"layers": "attention"}]),
}
# Sample, words that the page bears, and the picture's name.
PICTURED = (
    ("llama-3.1-8b", "The plan", "decision"),
    ("llama-3.1-8b", "Trainable parameters by rank", "parameters"),
    ("llama-3.1-8b", "Memory at the peak", "memory"),
    ("learning-rate", "The sweeps", "sweeps"),
    ("evidence", "Lowest evaluation loss", "runs"),
    ("evidence", "Predicted against measured", "accuracy"),
)


def pictures(name: str, document: Document) -> None:
    """Small pictures of some pages, as README.md shows them."""
    fonts = typst.Fonts(include_system_fonts=False, font_paths=pdf.fonts())
    compiler = typst.Compiler(pdf.template(), font_paths=fonts, sys_inputs=pdf.inputs(document, "a4"))
    drawn = compiler.compile(format="png", ppi=DOTS_AN_INCH, timestamp=moment())
    assert isinstance(drawn, list)
    texts = [page.extract_text() for page in pypdf.PdfReader(SAMPLES / f"{name}.pdf").pages]
    for sample, words, what in PICTURED:
        if sample == name:
            page = next(number for number, text in enumerate(texts) if words in text)
            (SAMPLES / f"{name}-{what}.png").write_bytes(drawn[page])


def write(name: str, make_it: Callable[[Path], dict[str, Any]]) -> None:
    """One sample, and the text file beside it."""
    place = SAMPLES / f"{name}.pdf"
    found = make_it(place)
    text = f"{found['command']}\n\n{moment():%Y-%m-%d}, lora-plan {found['version']}, SOURCE_DATE_EPOCH={EPOCH}\n"
    place.with_suffix(".txt").write_text(text, encoding="utf-8")
    print(f"{place.relative_to(ROOT)}: {found['bytes'] / 1000:,.0f} kB")


def main() -> None:
    """Write every sample."""
    os.environ["SOURCE_DATE_EPOCH"] = EPOCH
    os.chdir(ROOT)
    SAMPLES.mkdir(exist_ok=True)
    look: dict[str, Any] = {"paper": "a4", "figures": True}
    for name, (model, options, against) in KINDS.items():
        write(name, partial(make, model, against=against, options=options, **look))
    write("learning-rate", lambda place: make_fit(SWEEP, place, options={}, **look))
    write("evidence", lambda place: make_validation(RUNS, place, **look))
    model, options, _ = KINDS["llama-3.1-8b"]
    pictures("llama-3.1-8b", compose(gather(model, options, more=["-o", "plan.pdf"]), moment(), True))
    fitted = fit_report.compose(SWEEP, moment(), figures=True, command=FIT_COMMAND, options={})
    pictures("learning-rate", fitted)
    pictures("evidence", validation_report.compose(RUNS, moment(), figures=True, command=RUNS_COMMAND))


if __name__ == "__main__":
    main()
