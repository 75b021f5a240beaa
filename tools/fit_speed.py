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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from planner.speed import efficiency as speed_constants
from planner.speed.efficiency import ENDS, Efficiency, Spread, family_of
from planner.speed.kinds import KINDS, MEASURED, Grounds
from tools.speed_calibrated import measured_grounds, measured_of
from tools.speed_firsts import KEPT, grounds_of, keep_left_out
from tools.speed_fit import COVERAGE, LeftOut, Z, fit, left_out, log_ratios, noise_of
from tools.speed_later import stated_runs
from tools.speed_pages import page
from tools.speed_reach import reached
from tools.speed_runs import Run, runs
from tools.speed_widths import rule_of, shipped_grounds
from tools.staged_rings import staged

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
    if name in ("interval", "measured"):
        first = {
            "title": "tools/fit_speed.py on first predictions, data/measured/speed_*_blind.csv, by hierarchical "
            "conformal prediction",
            "url": "https://arxiv.org/abs/2306.06342",
            "locator": "published steps that state their set-up, sources counting the same (tools/speed_widths.py, "
            "tools/speed_calibrated.py)",
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


def _shown(source: dict[str, str]) -> str:
    return f"source = {{ {', '.join(f'{key} = {json.dumps(text)}' for key, text in source.items())} }}"


@dataclass(frozen=True)
class Table:
    """What data/speed.toml holds, found so far; without `grounds` nobody has judged the intervals yet."""

    efficiency: Efficiency
    spreads: Mapping[str, Spread]
    runs: int
    fitted: Sequence[str]
    grounds: Mapping[str, Grounds]

    def constants(self) -> list[dict[str, Any]]:
        """Numbers that every kind of set-up shares."""
        shared = asdict(next(iter(self.spreads.values())))
        entries = []
        for name, value in {**asdict(self.efficiency), **shared}.items():
            if name not in ENDS:
                basis, source = _source(name, self.runs)
                value = float(f"{value:.4g}")
                entries.append({"name": name, "value": value, "basis": basis, "source": source})
        return entries

    def intervals(self) -> list[dict[str, Any]]:
        """Widths by kind, with what they rest on."""
        _, source = _source("interval", self.runs)
        entries = []
        for kind, rests in self.grounds.items():
            ends = {name: getattr(self.spreads[kind], name) for name in ENDS} if kind in KINDS else {}
            entries.append({**asdict(rests), **ends, "source": source})
        return entries


def write(table: Table) -> None:
    """Write data/speed.toml and the JSON that the planner reads."""
    lines = [
        "# Written by tools/fit_speed.py. Shares of the peaks that programs reach, times that no peak explains (s),",
        "# and how far measured runs lie from the formula (standard deviations of the logarithm).",
    ]
    known = list(reached())
    for head, entries in (("constant", table.constants()), ("interval", table.intervals())):
        for entry in entries:
            lines += ["", f"[[{head}]]"]
            lines += [f"{name} = {json.dumps(value)}" for name, value in entry.items() if name != "source"]
            lines.append(_shown(entry["source"]))
    lines += ["", "[fitted_on]", f"accelerators = {json.dumps(table.fitted)}"]
    for entry in known:
        lines += ["", "[[reached]]", f'accelerator = "{entry["accelerator"]}"']
        lines += [f"{name} = {json.dumps(entry[name])}" for name in ("format",) if name in entry]
        lines += [f"share = {entry['share']:.4g}", _shown(entry["source"])]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = {
        "constant": table.constants(), "interval": table.intervals(),
        "fitted_on": {"accelerators": table.fitted}, "reached": known,
    }  # fmt: skip
    text = json.dumps(found, ensure_ascii=False, indent=0)
    (ROOT / "data" / "compiled" / "speed.json").write_text(text + "\n", encoding="utf-8")
    speed_constants.constants.cache_clear()


def widths(made: Efficiency, chosen: Sequence[Run], without: Sequence[LeftOut]) -> None:
    """Noise, widths and what they rest on, each from what was written before it."""
    between, within, thin = noise_of(without)
    rings = float(f"{staged()[1]:.4g}")
    shared = Spread(0.0, 0.0, between, within, thin, rings, 1.0, COVERAGE, Z)
    shared = replace(shared, measured=measured_of(shared))
    fitted, unjudged = fitted_on(chosen), {kind: Grounds(kind, 1, 1, 1, 0.0) for kind in (*KINDS, MEASURED)}
    spreads = rule_of(grounds_of(), shared)
    write(Table(made, spreads, len(chosen), fitted, unjudged))
    held = {**shipped_grounds(), MEASURED: measured_grounds()}
    write(Table(made, spreads, len(chosen), fitted, held))


def main() -> None:
    """Fit where asked, and write the page."""
    found = runs()
    without = left_out([*found, *stated_runs()])
    if "--page" not in sys.argv:
        chosen = [run for run in found if run.fitted]
        keep_left_out(without, ROOT / "data" / "measured" / f"{KEPT}.csv")
        widths(
            speed_constants.constants().efficiency if "--widths" in sys.argv else fit(chosen), chosen, without
        )
    shipped = speed_constants.constants()
    path = ROOT / "docs" / "speed.md"
    ratios, thin = log_ratios(found, shipped.efficiency)
    path.write_text(page(found, ratios, thin, without, shipped), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
