"""Check `export peft` on every architecture: what PEFT trains with the exported config is what was printed.

    nice python -m tools.check_exports [TYPE ...]     (half an hour for all; prints a line for each that differs)

Each architecture of the four auto mappings of transformers, from the default (or small) config of its class cut to
two layers, for all-linear and for attention, MLPs and unembedding, under every convention for experts where it has
some. The exported adapter_config.json is loaded by PEFT on the model that transformers builds, on the meta device.
Where the export refuses a choice, the nearest that it offers is exported and loaded instead.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from planner import PlannerError, estimate, export
from planner.adapter import ExpertConvention
from planner.architecture.build import build
from planner.architecture.meta.model import quietly

from .config_probes import bases
from .write_coverage import MAPPINGS, their_model, types_of

Config = dict[str, Any]
RANK = 4


def choices(config: Config) -> Iterator[dict[str, Any]]:
    """What is exported of a model."""
    experts = any(matrix.role == "expert" for matrix in build(config).matrices)
    conventions = get_args(ExpertConvention) if experts else ("none",)
    for convention in conventions:
        for layers in ("all-linear", "all"):
            yield {"layers": layers, "experts": convention}


def trained(config: Config, folder: Path) -> int:
    """What PEFT trains with the config in a folder."""
    from peft import LoraConfig, get_peft_model

    loaded = LoraConfig.from_pretrained(str(folder))
    loaded.task_type = None
    count, _ = get_peft_model(their_model(config), loaded).get_nb_trainable_parameters()
    return int(count)


def offered(message: str) -> dict[str, Any] | None:
    """The options of the nearest choice in a refusal."""
    found = re.search(r"(?:nearest|Give|Use)[^-]*(--[\w-]+ .*?)(?: \(.*\))?\.$", message)
    if found is None:
        return None
    words = shlex.split(found[1])
    return {
        name.lstrip("-").replace("-", "_"): value
        for name, value in zip(words[::2], words[1::2], strict=False)
    }


def verdict(config: Config, choice: dict[str, Any], depth: int = 0) -> str:
    """ "equal", "equal, the nearest", or what is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "adapter"
        try:
            printed = estimate(config, rank=RANK, **choice).adapter.params
            export("peft", config, rank=RANK, output=folder, **choice)
        except PlannerError as error:
            nearest = offered(str(error))
            if nearest is None or depth > 2:
                return f"refused: {str(error)[:200]}"
            found = verdict(config, choice | nearest, depth + 1)
            return "equal, the nearest" if found.startswith("equal") else f"{nearest}: {found}"
        try:
            count = trained(config, folder)
        except Exception as error:  # whatever PEFT raises is the answer
            return f"PEFT: {' '.join(str(error).split())[:200]}"
    return "equal" if count == printed else f"differs: printed {printed:,}, trained {count:,}"


def architectures(wanted: set[str]) -> Iterator[tuple[str, str]]:
    """Every type with each of its classes, once."""
    seen = set()
    for mapping in MAPPINGS.values():
        for model_type, name in types_of(mapping):
            if (model_type, name) not in seen and (not wanted or model_type in wanted):
                seen.add((model_type, name))
                yield model_type, name


def main() -> int:
    """Check all or the types given, and say what is not equal."""
    warnings.filterwarnings("ignore")
    counts: Counter[str] = Counter()
    with quietly():
        for model_type, name in architectures(set(sys.argv[1:])):
            _, found = bases(model_type, [name])
            if not found:
                counts["not built by transformers"] += 1
                continue
            for choice in choices(found[0]):
                said = verdict(found[0], choice)
                counts[said.split(":")[0]] += 1
                if not said.startswith("equal"):
                    print(f"{model_type} {name} {' '.join(choice.values())}: {said}", flush=True)
            counts["architectures"] += 1
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return int(any(what.startswith(("differs", "PEFT")) for what in counts))


if __name__ == "__main__":
    sys.exit(main())
