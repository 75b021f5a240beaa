"""vLLM's constants from half of the published passes, and the interval of a step of GRPO from first predictions.

    python -m tools.fit_decode            # shows both
    python -m tools.fit_decode --write    # into data/decode.toml; then tools/import_facts.py --index-only
    python -m tools.fit_decode --first    # first predictions of rows that have none: grpo_steps_blind.csv

Constants: least squares of log(predicted / published) over the passes of data/measured/decode.csv that are marked
"fit" (models are halved before anything is fitted), each model on its GPU counting the same. The interval: what holds
the share COVERAGE (n + 1) / n of n sources' steps as they were first predicted, as much left out at either end,
sources counting the same; it is judged by intervals that leave each source out in turn, and by the set "later", which
has no part in it.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.optimize import minimize

from planner.speed.decode import Engine
from tools.grpo_rows import MEASURED, ROOT, Pass, rows_of, step_of

TABLE = ROOT / "data" / "decode.toml"
FIRST = MEASURED / "grpo_steps_blind.csv"
COVERAGE = 0.8
DATE = "2026-11-29"
START = (0.85, 1e-3, 2e-5)


def by_group(passes: Iterable[Pass]) -> dict[tuple[str, str, str, str], list[Pass]]:
    """Passes by source, engine, model and GPU."""
    found: dict[tuple[str, str, str, str], list[Pass]] = {}
    for each in passes:
        found.setdefault(each.group, []).append(each)
    return found


def of_vllm(values: Sequence[float]) -> Engine:
    """vLLM with these constants."""
    memory, pass_s, sequence_s = values
    return Engine(memory, pass_s, sequence_s, True)


def distance(engine: Engine) -> float:
    """The mean square of log(predicted / published) over the passes that are marked "fit", by model and GPU."""
    groups = by_group(Pass(row) for row in rows_of("decode") if row["half"] == "fit")
    squares = [
        np.mean([math.log(each.predicted(engine) / each.seconds) ** 2 for each in group])
        for group in groups.values()
    ]
    return float(np.mean(squares))


def fitted() -> Engine:
    """vLLM's constants."""
    start = [math.log(each) for each in START]
    best = minimize(
        lambda logs: distance(of_vllm([math.exp(each) for each in logs])), start, method="Nelder-Mead",
        options={"maxiter": 400},
    )  # fmt: skip
    return of_vllm([float(f"{math.exp(each):.4g}") for each in best.x])


def first_ratios(name: str = "first") -> dict[str, list[float]]:
    """Published over first predicted seconds, by source, of the set that the interval rests on, or of another."""
    found: dict[str, list[float]] = {}
    for row in rows_of("grpo_steps_blind"):
        if row["set"] != name:
            continue
        found.setdefault(row["source"], []).append(float(row["step_s"]) / float(row["predicted_s"]))
    return found


def interval(ratios: dict[str, list[float]]) -> tuple[float, float]:
    """The ends, as multiples of what is predicted, between which COVERAGE (n + 1) / n of first predictions lie."""
    number = len(ratios)
    outside = (1 - min(1.0, COVERAGE * (number + 1) / number)) / 2
    weighted = sorted((ratio, 1 / len(some) / number) for some in ratios.values() for ratio in some)
    below = np.cumsum([weight for _, weight in weighted])
    low = next(ratio for (ratio, _), sum_ in zip(weighted, below, strict=True) if sum_ > outside + 1e-9)
    high = next(ratio for (ratio, _), sum_ in zip(weighted, below, strict=True) if sum_ >= 1 - outside - 1e-9)
    return float(f"{low:.2g}"), float(f"{high:.2g}")


def judged(ratios: dict[str, list[float]], later: dict[str, list[float]]) -> list[float]:
    """The share of each source's steps that an interval without it holds: of the sources that make it the others',
    of later ones the whole."""

    def share(some: list[float], ends: tuple[float, float]) -> float:
        return float(np.mean([ends[0] <= ratio <= ends[1] for ratio in some]))

    without = {name: {other: r for other, r in ratios.items() if other != name} for name in ratios}
    found = [share(some, interval(without[name])) for name, some in ratios.items()]
    return found + [share(some, interval(ratios)) for some in later.values()]


def _entry(name: str, value: float, source: dict[str, str]) -> str:
    said = ", ".join(f'{key} = "{text}"' for key, text in source.items())
    return f'\n[[constant]]\nname = "{name}"\nvalue = {value}\nsource = {{ {said} }}\n'


def toml() -> str:
    """data/decode.toml."""
    engine, ratios = fitted(), first_ratios()
    number = sum(row["half"] == "fit" for row in rows_of("decode"))
    of_passes = {
        "title": "tools/fit_decode.py on data/measured/decode.csv", "url": "https://github.com/ml-energy/leaderboard",
        "locator": f"{number} published passes of vLLM on H100 and A100, half of the models; the others judge them",
        "date": DATE, "kind": "derived",
    }  # fmt: skip
    of_steps = {
        "title": "tools/fit_decode.py on data/measured/grpo_steps_blind.csv",
        "url": "https://github.com/unslothai/notebooks",
        "locator": "first predictions of published steps of GRPO: docs/grpo.md", "date": DATE, "kind": "derived",
    }  # fmt: skip
    low, high = interval(ratios)
    text = (
        "# Making completions: what vLLM reaches, and how far published steps of GRPO lie from the formula.\n"
        '# Written by tools/fit_decode.py.\nbasis = "fitted"\n'
    )
    for name, value in (
        ("memory", engine.memory),
        ("pass_s", engine.pass_s),
        ("sequence_s", engine.sequence_s),
    ):
        text += _entry(name, value, of_passes)
    shares = judged(ratios, first_ratios("later"))
    of_interval = {
        "low": low, "high": high, "coverage": COVERAGE, "sources": len(ratios),
        "steps": sum(map(len, ratios.values())), "held": float(f"{np.mean(shares):.3g}"), "judged": len(shares),
    }  # fmt: skip
    for name, value in of_interval.items():
        text += _entry(name, value, of_steps)
    return text


def predict_first() -> None:
    """Predict the steps that have no first prediction, and keep it."""
    known = rows_of("grpo_steps_blind") if FIRST.exists() else []
    seen = {(row["source"], row["model"], row["options"]) for row in known}
    names = ["set", "source", "model", "method", "gpu", "gpus", "step_s", "stated", "options", "predicted_s"]
    for row in rows_of("grpo_steps"):
        if (row["source"], row["model"], row["options"]) not in seen:
            known.append(
                {**{name: row[name] for name in names[:-1]}, "predicted_s": f"{step_of(row).seconds:.4g}"}
            )
    with FIRST.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(known)


def main() -> None:
    """Show, or write."""
    if "--first" in sys.argv[1:]:
        predict_first()
    elif "--write" in sys.argv[1:]:
        TABLE.write_text(toml(), encoding="utf-8")
    else:
        print(toml())


if __name__ == "__main__":
    main()
