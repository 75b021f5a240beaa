"""torch, transformers and peft, or one sentence that names the extra; devices and what a record says of a machine."""

from __future__ import annotations

import os
import platform
import sys
from functools import lru_cache
from importlib import metadata
from typing import Any

from ..errors import InputError, MissingDependencyError


@lru_cache(maxsize=1)
def require() -> Any:
    """torch, with transformers and peft importable. Raises MissingDependencyError."""
    try:
        import peft  # noqa: F401
        import torch
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            f"validate trains real models and needs the `validate` extra: pip install 'lora-plan[validate]'."
            f" ({error})"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch


def _gpus(torch: Any) -> int:
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def device_of(name: str) -> str:
    """`auto` is the first accelerator that torch sees, else cpu; other names are checked. Raises InputError."""
    torch = require()
    known = {"cpu": 1, "cuda": _gpus(torch), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if known[kind])
    kind, colon, number = name.partition(":")
    if known.get(kind) and (not colon or (number.isdigit() and int(number) < known[kind])):
        return name
    seen = ", ".join(f"{key} (0 to {n - 1})" if n > 1 else key for key, n in known.items() if n)
    why = f"torch {torch.__version__} sees no GPU." if kind == "cuda" and not known["cuda"] else ""
    raise InputError("device", name, f"auto or one that torch sees here: {seen}", why)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("lora-plan", "torch", "transformers", "peft")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a checkout that is not installed
            found[name] = "unknown"
    return found


def hardware(device: str) -> dict[str, Any]:
    """The machine, in words that do not name its user."""
    torch = require()
    found: dict[str, Any] = {
        "device": device, "machine": platform.machine(), "system": platform.system(), "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    if device.startswith("cuda"):
        found["accelerator"] = torch.cuda.get_device_name(device)
    elif sys.platform.startswith("linux"):
        found["processor"] = _processor()
    return found


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""
