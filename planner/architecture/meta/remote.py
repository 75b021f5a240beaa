"""A model whose repository carries its code: built by that code on the meta device, only where the user says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from ...schema import Architecture
from . import require
from .checks import check

# The auto classes that a repository's auto_map may name, in the order in which one trains language models.
AUTO_CLASSES = (
    "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText", "AutoModelForMaskedLM",
    "AutoModel",
)  # fmt: skip


def architecture(place: str, config: Mapping[str, Any]) -> Architecture:
    """The inventory of the model in a folder (or hub repository) as its own code builds it. The code is run.

    Nothing is kept on disk: the code may change where the config does not. Raises ConfigError where it fails.
    """
    check(config)
    require(config)
    from .inventory import read

    folder = os.path.dirname(place) if os.path.isfile(place) else place
    name = str(config.get("model_type"))
    try:
        model = _build(folder, config)
    except Exception as error:  # whatever the repository's code raises
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"the code in {place} cannot build model_type {name!r}: {line}") from error
    return read(model, config, f"the code in {place}")


def _build(folder: str, config: Mapping[str, Any]) -> Any:
    import torch
    import transformers

    read = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    mapped = config["auto_map"]
    auto = next((name for name in AUTO_CLASSES if name in mapped), None)
    if auto is None:
        raise ConfigError(f"its auto_map names none of {', '.join(AUTO_CLASSES)}")
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(read, trust_remote_code=True)
        model.tie_weights()
    return model
