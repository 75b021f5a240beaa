"""Read the names of a trainer's options from the installed package into data/trainers/.

    python tools/trainer_options.py ID ...

Run it in an environment that has the package; nothing is trained or downloaded.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "data" / "trainers"


def fields(*classes: Any) -> set[str]:
    """The names of dataclasses' fields."""
    return {field.name for kind in classes for field in dataclasses.fields(kind) if field.init}


def trl_sft() -> Iterable[str]:
    """What `trl sft` reads."""
    from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig

    return fields(ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)


def trl_grpo() -> Iterable[str]:
    """What `trl grpo` reads."""
    from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig
    from trl.scripts.grpo import GRPOScriptArguments

    return fields(GRPOScriptArguments, GRPOConfig, ModelConfig, DatasetMixtureConfig)


def accelerate() -> Iterable[str]:
    """What a launcher's YAML may hold."""
    from accelerate.commands.config.config_args import ClusterConfig

    return fields(ClusterConfig)


# package, what was read, the function that reads it
TRAINERS: dict[str, tuple[str, str, str, Callable[[], Iterable[str]]]] = {
    "trl-sft": ("trl", "https://github.com/huggingface/trl", "the dataclasses of trl/scripts/sft.py", trl_sft),
    "trl-grpo": ("trl", "https://github.com/huggingface/trl", "the dataclasses of trl/scripts/grpo.py", trl_grpo),
    "accelerate": ("accelerate", "https://github.com/huggingface/accelerate", "ClusterConfig", accelerate),
}  # fmt: skip


def entry(name: str) -> dict[str, Any]:
    """The facts of one trainer."""
    package, url, locator, read = TRAINERS[name]
    return {
        "id": name,
        "package": package,
        "version": version(package),
        "source": {
            "title": f"{package} {version(package)}", "url": url, "locator": locator, "date": str(date.today()),
            "kind": "documentation",
        },
        "options": sorted(read()),
    }  # fmt: skip


def main() -> int:
    """Write the files of the trainers that are named."""
    warnings.simplefilter("ignore")
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        path = OUT / f"{name}.json"
        path.write_text(json.dumps(entry(name), indent=1) + "\n", encoding="utf-8")
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
