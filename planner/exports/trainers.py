"""What is known of each trainer: its version, and the names of its options as its own source has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from .. import facts
from ..dataclass import dataclass
from ..errors import FactError
from ..schema import Source


@dataclass(frozen=True)
class Trainer:
    """A trainer's package. `options` are the names that its config may hold, in the version that was
    read; `extra` is what else was read of it."""

    id: str
    package: str
    version: str
    options: frozenset[str]
    source: Source
    extra: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Package and version in words."""
        return f"{self.package} {self.version}"


@cache
def trainer(name: str) -> Trainer:
    """The facts of data/trainers/NAME.json; FactError where it is broken or has no source."""
    try:
        raw = json.loads(facts.read_data("trainers", f"{name}.json"))
        return Trainer(
            name, raw["package"], raw["version"], frozenset(raw["options"]),
            facts.source_from(raw.get("source"), f"trainers/{name}.json"), raw.get("extra", {}),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise FactError(f"data/trainers/{name}.json cannot be read: {error!r}.") from error
