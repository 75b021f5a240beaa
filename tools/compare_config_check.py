"""Compare the check of configs without transformers with what transformers itself builds, on mutated configs.

    nice python -m tools.compare_config_check [--count 400] [--seed 1] [--types a,b] [--catalogue]

For every auto mapping: `count` configs, each a default (or small) config of one of its types, changed in one to three
places. Prints how many transformers refuses, the share of those that the check refuses before transformers is
imported, and the false refusals, of which there must be none (exit code 1). With --catalogue the shipped configs are
checked as well, all of which transformers must build where the check refuses none.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from planner import facts
from planner.architecture.build import BUILDERS, text_alone
from planner.architecture.meta import checks, known, transformers_version
from planner.architecture.meta.model import build_model, quietly
from planner.errors import ConfigError, PlannerError

from .config_probes import bases, holders
from .write_coverage import MAPPINGS, types_of

Config = dict[str, Any]
LIBRARY = f"transformers {transformers_version()}"
VALUES: tuple[Any, ...] = (
    None, True, False, -3, 0, 1, 3, 7, 129, 300, 10**6, 0.5, 1.0, -0.25, float("nan"), "x", "", "gelu", "linear",
    "12", "default", [], {}, [1], ["a", 2], [None], {"a": 1}, [[2]], ["full_attention"], "full_attention",
)  # fmt: skip


@dataclass
class Score:
    """Verdicts on one mapping's configs."""

    configs: int = 0
    refused: int = 0
    early: int = 0
    false: list[str] = field(default_factory=list)
    late: Counter[str] = field(default_factory=Counter)


def mutated(config: Config, rng: random.Random) -> Config:
    """The config with one to three fields removed, replaced or changed a little."""
    made = copy.deepcopy(config)
    parts = [part for path, part in holders(made) if "per_layer_config" not in path]
    part = rng.choice(parts if rng.random() < 0.5 else parts[:1])
    for key in rng.sample(sorted(part), min(len(part), rng.choice((1, 1, 1, 2, 3)))):
        if rng.random() < 0.12:
            part.pop(key)
        else:
            part[key] = _changed(part[key], rng)
    return made


def _changed(old: Any, rng: random.Random) -> Any:
    if rng.random() < 0.5 or old is None or isinstance(old, dict):
        return copy.deepcopy(rng.choice(VALUES))
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice(
            (old + 1, old - 1, old * 2, old // 2, max(1, old // 3), old * 3, 0, -old, float(old))
        )
    if isinstance(old, float):
        return rng.choice((int(old), -old, old * 10, str(old)))
    if isinstance(old, str):
        return rng.choice((old + "x", old.upper(), [old], None))
    return rng.choice((old[:-1], old + old[:1], [rng.choice(VALUES), *old[1:]], old[::-1]))


def early_refusal(config: Config) -> str:
    """How the config is refused without transformers, or nothing."""
    try:
        checks.check(config)
        known.check(checks.cleaned(config), LIBRARY)
    except PlannerError as error:
        return str(error)
    return ""


def refusal(config: Config) -> str:
    """How transformers refuses the config, or nothing."""
    try:
        build_model(config)
    except PlannerError as error:
        return str(error)
    return ""


def compare(config: Config, score: Score) -> None:
    """Judge one config both ways. What checks.py refuses is a bound of ours, and not counted."""
    try:
        checks.check(config)
    except ConfigError:
        return
    early, late = early_refusal(config), refusal(config)
    score.configs += 1
    score.refused += bool(late)
    score.early += bool(late and early)
    if early and not late:
        score.false.append(f"{config.get('model_type')}: {early}")
    if late and not early:
        score.late[f"{config.get('model_type')}: {late.split('from this config: ')[-1]}"[:150]] += 1


def mapping_score(mapping: str, count: int, seed: int, wanted: set[str]) -> Score:
    """Random configs of one mapping's types, in turn."""
    rng, score = random.Random(f"{seed} {mapping}"), Score()
    types: dict[str, list[str]] = {}
    for model_type, name in types_of(mapping):
        if (model_type not in BUILDERS and not wanted) or model_type in wanted:
            types.setdefault(model_type, []).append(name)
    each = -(-count // max(len(types), 1))
    for model_type, names in sorted(types.items()):
        for base in bases(model_type, names)[1]:
            compare(base, score)
            for _ in range(each):
                compare(mutated(base, rng), score)
    return score


def catalogue() -> Iterator[str]:
    """Shipped configs that the check would refuse."""
    for name in facts.model_ids():
        config = dict(text_alone(json.loads(facts.model_config_path(name).read_text(encoding="utf-8"))))
        if said := early_refusal(config):
            if refusal(config):
                continue  # transformers refuses it too
            yield f"{name}: {said}"


def main() -> None:
    """Print a line for each mapping; exit 1 where anything was refused wrongly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--count", type=int, default=400, help="configs of each mapping, at least (default 400)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default 1)")
    parser.add_argument(
        "--types", default="", help="model types, by comma (default: those without a builder)"
    )
    parser.add_argument("--late", type=int, default=0, help="show so many of the errors that come late")
    parser.add_argument("--catalogue", action="store_true", help="check the shipped configs as well")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    false: list[str] = []
    with quietly():
        for title, mapping in MAPPINGS.items():
            score = mapping_score(
                mapping, options.count, options.seed, set(filter(None, options.types.split(",")))
            )
            share = score.early / score.refused if score.refused else 1.0
            print(
                f"{title}: {score.configs} configs, {score.refused} refused by transformers, {score.early} of them "
                f"({share:.1%}) before it is imported; {len(score.false)} refused wrongly", flush=True
            )  # fmt: skip
            for said, times in score.late.most_common(options.late):
                print(f"  late, {times} times: {said}")
            false += score.false
        false += list(catalogue()) if options.catalogue else []
    print(*false, sep="\n", end="\n" if false else "")
    sys.exit(bool(false))


if __name__ == "__main__":
    main()
