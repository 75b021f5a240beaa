"""What a forward pass may change in a model for good, to put it back between two passes: BigBird switches to other
attention where a sequence is short, which would hide from a second pass that it does."""

from __future__ import annotations

from typing import Any

State = list[tuple[Any, dict[str, Any], dict[str, Any]]]
PLAIN = (bool, int, float, str, type(None))


def state(model: Any) -> State:
    """Every module with its plain attributes and its parts."""
    return [
        (module, {k: v for k, v in module.__dict__.items() if isinstance(v, PLAIN)}, dict(module._modules))
        for module in model.modules()
    ]


def restore(found: State) -> None:
    """Put back what `state` found."""
    for module, plain, parts in found:
        module.__dict__.update(plain)
        if module._modules != parts:
            module._modules.clear()
            module._modules.update(parts)
