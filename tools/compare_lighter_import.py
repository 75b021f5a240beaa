"""Compare what is read off models after the shorter import of transformers with what is read after the ordinary one.

    nice python -m tools.compare_lighter_import [--mutated 3] [--types a,b] [--together 24]

For every class of the auto mappings that has a default (or small) config, that config and a few changed ones are read
in another process with the shorter import, as the command line does it (a process for so many classes together), and
in this one with the ordinary import: the inventories must be equal to the last field, and the refusals word for word.
Exit code 1 where one is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from planner import process
from planner.architecture import cache
from planner.architecture.meta import _build
from planner.architecture.meta.lighter import lighter_import
from planner.errors import PlannerError

Config = dict[str, Any]


def read(config: Config) -> str:
    """The inventory of a config, as a hash of all that the cache would keep, or how it is refused."""
    try:
        kept = json.dumps(cache.encoded(_build(config)))
    except PlannerError as error:
        return f"{type(error).__name__}: {error}"
    return hashlib.sha256(kept.encode()).hexdigest()


def read_in_short(configs: list[Config]) -> list[str]:
    """The same, all of them, in a process that imports in short."""
    run = subprocess.run(
        [sys.executable, "-m", "tools.compare_lighter_import", "--child"],
        input=json.dumps(configs), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(run.stderr)
    found: list[str] = json.loads(run.stdout)
    return found


def child() -> None:
    """Read the configs on standard input as a command of one answer does, all of them within the shorter import."""
    process.ends_soon = True
    with lighter_import():
        import transformers  # noqa: F401

        found = [read(config) for config in json.load(sys.stdin)]
    print(json.dumps(found))


def cases(mutated: int, wanted: set[str]) -> Iterator[tuple[str, list[Config]]]:
    """Configs of every class, with its name."""
    from .compare_config_check import mutated as changed
    from .write_coverage import MAPPINGS, default_config, types_of

    seen = set()
    for mapping in MAPPINGS.values():
        for model_type, name in types_of(mapping):
            if name in seen or (wanted and model_type not in wanted):
                continue
            seen.add(name)
            try:
                config = default_config(model_type, name)
            except Exception:  # a class whose defaults it refuses itself
                continue
            rng = random.Random(name)
            yield name, [config, *(changed(config, rng) for _ in range(mutated))]


def main() -> None:
    """Print every difference; exit 1 where there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--mutated", type=int, default=3, help="changed configs of each class (default 3)")
    parser.add_argument("--types", default="", help="model types, by comma (default: all)")
    parser.add_argument("--together", type=int, default=24, help="classes in one process (default 24)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.child:
        child()
        return
    count = different = 0
    waiting = cases(options.mutated, set(filter(None, options.types.split(","))))
    while batch := list(islice(waiting, options.together)):
        named = [(name, config) for name, configs in batch for config in configs]
        short = read_in_short([config for _, config in named])
        for (name, config), said in zip(named, short, strict=True):
            count += 1
            if said != (ordinary := read(config)):
                different += 1
                print(
                    f"{name}: {said} after the shorter import, {ordinary} after the ordinary one", flush=True
                )
        print(f"{count} configs, up to {batch[-1][0]}", file=sys.stderr, flush=True)
    print(f"{count} configs, {different} read or refused otherwise")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
