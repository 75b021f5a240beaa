"""Fit the constants of planner/speed on published runs and judge them on others.

    python -m tools.fit_speed          # fit, write data/speed.toml, its JSON and docs/speed.md
    python -m tools.fit_speed --widths # the same with the constants as they are and intervals' widths fitted
    python -m tools.fit_speed --page   # docs/speed.md from the constants as they are

Of each source's models every second one is fitted on (tools/speed_runs.py), the others are judged. Sources count by
the 0.2th power of their number of runs, so that one with many does not decide alone, and every constant is held to
what is known of its part (tools/speed_priors.py). Widths of intervals are those of first predictions of sources that
nobody had looked at (tools/speed_widths.py); the noise of set-ups that of sources left out of a fit on all others,
steps gathered later among them (tools/speed_left_out.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from planner.speed import efficiency as speed_constants
from planner.speed.efficiency import Efficiency, Spread, family_of
from tools.speed_fit import fit, left_out, log_ratios
from tools.speed_later import stated_runs
from tools.speed_pages import page
from tools.speed_reach import reached
from tools.speed_runs import Run, runs
from tools.speed_widths import spread

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "data" / "speed.toml"
DATE = "2026-11-28"


def fitted_on(found: Sequence[Run]) -> list[str]:
    """Chips with a fitted run."""
    return sorted({family_of(run.machine.accelerator.name) for run in found})


def _source(name: str, number: int) -> tuple[str, dict[str, str]]:
    fitted = {
        "title": "tools/fit_speed.py on data/measured/speed.csv",
        "url": "https://github.com/foundation-model-stack/fms-acceleration",
        "locator": f"{number} published runs of this and other sources, data/measured/SPEED.md, held to what is "
        "expected of the part (tools/speed_priors.py)",
        "date": DATE,
        "kind": "derived",
    }  # fmt: skip
    paper = {
        "title": "FlashAttention-3: Fast and Accurate Attention with Asynchrony and Low-precision",
        "url": "https://arxiv.org/abs/2407.08608", "date": "2024-07", "kind": "paper",
    }  # fmt: skip
    if name in ("staged", "staged_spread"):
        measured = {
            "locator": "nccl-tests of five publishers, data/measured/links.csv (tools/staged_rings.py)"
        }
        return "fitted", {**fitted, "title": "nccl-tests on cards without access to each other", **measured,
                          "url": "https://github.com/NVIDIA/nccl-tests"}  # fmt: skip
    if name in ("below", "above"):
        first = {
            "title": "tools/fit_speed.py on first predictions, data/measured/speed_*_blind.csv, by hierarchical "
            "conformal prediction",
            "url": "https://arxiv.org/abs/2306.06342",
            "locator": "published steps that state their set-up, sources counting the same (tools/speed_widths.py)",
        }
        return "fitted", {**fitted, **first}
    if name == "attention_native":
        return "assumed", {
            **paper,
            "locator": "forward up to 75% of an H100, less backward and at short lengths",
        }
    if name in ("scan", "coverage", "z"):
        return "assumed", {**fitted, "locator": "chosen; no published run to fit it on", "kind": "assumed"}
    return "fitted", fitted


def write(constants: Efficiency, deviations: Spread, found: Sequence[Run]) -> None:
    """Write data/speed.toml and the JSON that the planner reads."""
    lines = [
        "# Written by tools/fit_speed.py. Shares of the peaks that programs reach, times that no peak explains (s),",
        "# and how far measured runs lie from the formula (standard deviations of the logarithm).",
    ]
    entries = []
    for name, value in {**asdict(constants), **asdict(deviations)}.items():
        basis, source = _source(name, len(found))
        entries.append({"name": name, "value": float(f"{value:.4g}"), "basis": basis, "source": source})
        shown = ", ".join(f"{key} = {json.dumps(text)}" for key, text in source.items())
        lines += ["", "[[constant]]", f'name = "{name}"', f"value = {float(value):.4g}", f'basis = "{basis}"']
        lines += [f"source = {{ {shown} }}"]
    known, seen = list(reached()), fitted_on(found)
    lines += ["", "[fitted_on]", f"accelerators = {json.dumps(seen)}"]
    for entry in known:
        shown = ", ".join(f"{key} = {json.dumps(text)}" for key, text in entry["source"].items())
        lines += [
            "",
            "[[reached]]",
            f'accelerator = "{entry["accelerator"]}"',
            f"share = {entry['share']:.4g}",
        ]
        lines += [f"source = {{ {shown} }}"]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps(
        {"constant": entries, "fitted_on": {"accelerators": seen}, "reached": known},
        ensure_ascii=False,
        indent=0,
    )
    (ROOT / "data" / "compiled" / "speed.json").write_text(text + "\n", encoding="utf-8")
    speed_constants.constants.cache_clear()


def main() -> None:
    """Fit where asked, and write the page."""
    found = runs()
    without = left_out([*found, *stated_runs()])
    if "--page" not in sys.argv:
        chosen = [run for run in found if run.fitted]
        made = speed_constants.constants().efficiency if "--widths" in sys.argv else fit(chosen)
        write(made, spread(without), chosen)
    shipped = speed_constants.constants()
    path = ROOT / "docs" / "speed.md"
    ratios, thin = log_ratios(found, shipped.efficiency)
    path.write_text(page(found, ratios, thin, without, shipped), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
