"""From a plan's choices to what a trainer loads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ..adapter import adapt
from ..adapter.files import CONFIG
from ..adapter.options import DEFAULTS, spec_of
from ..adapter.whole import trained_whole
from ..errors import InputError, hint
from ..estimator import load, model_of
from . import peft

FORMATS = ("peft",)


def text(config: Mapping[str, Any]) -> str:
    """A config as the file's content."""
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def write(config: Mapping[str, Any], folder: str | os.PathLike[str]) -> str:
    """Write adapter_config.json into a folder, whole or not at all; its path."""
    import tempfile  # milliseconds, and needed only here

    place = os.path.join(os.fspath(folder), CONFIG)
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".adapter_config.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text(config))
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(
            "output", os.fspath(folder), f"a folder that can be written ({error.strerror})"
        ) from error
    return place


def export(
    format: str, model: str | os.PathLike[str] | Mapping[str, Any] | None = None, *,
    output: str | os.PathLike[str] | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """The adapter's config for a trainer: `peft` gives the adapter_config.json that trains what `estimate` counts
    with the same adapter options. With `output`, a folder, it is written there too.

    Raises InputError where the trainer cannot express the choice; the message names the nearest that it can.
    """
    if format not in FORMATS:
        raise InputError("format", format, f"one of {', '.join(FORMATS)}", hint(str(format), FORMATS).strip())
    known = {**DEFAULTS, "adapter": None, "adapter_dtype": "float32", "trust_remote_code": False}
    for name in options:
        if name not in known:
            raise InputError(name, options[name], f"one of {', '.join(known)}", hint(name, known).strip())
    given = {**known, **options, "model": model}
    spec = spec_of(given)
    found, arch = load(model_of(given), given["trust_remote_code"])
    adapted = adapt(arch, spec)
    whole = trained_whole(arch, spec, adapted)
    base = None if found.origin == "config" else found.model_id
    config = peft.lora_config(arch, spec, adapted, whole, found.config, base)
    if output is not None:
        write(config, output)
    return config
