"""What a report shows beside a plan's own JSON: the card."""

from __future__ import annotations

from typing import Any


def card(gpu: Any) -> dict[str, Any] | None:
    """The accelerator's name, memory and source."""
    if gpu is None:
        return None
    from .. import hardware

    found = hardware.find(gpu)
    return {"name": found.name, "memory_bytes": found.memory_bytes, "source": dict(vars(found.source))}
