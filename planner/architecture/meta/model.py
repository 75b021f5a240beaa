"""Config -> a transformers model on the meta device: no weights, no remote code, no network."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import ConfigError, MissingDependencyError, UnsupportedArchitectureError
from ..hub import offline
from .checks import cleaned
from .known import unknown
from .watch import Progress, TooMuchError, watched

# In this order where `architectures` names no class of transformers.
MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
    "MODEL_FOR_MASKED_LM_MAPPING", "MODEL_MAPPING",
)  # fmt: skip
MOST_MODULES = 20_000


class TooManyModulesError(ConfigError):
    """A model of more modules than are built."""


def build_model(config: Mapping[str, Any], most_alike: int | None = None) -> Any:
    """The model, its tied weights tied. Every failure of transformers is a ConfigError of one line.

    Raises TooManyModulesError at MOST_MODULES, and where `most_alike` is given at more experts in a module than that.
    """
    with _clearly(config) as model_type:
        return _build(model_type, config, most_alike)


def load_classes(config: Mapping[str, Any]) -> None:
    """Import the code that builds the model, and refuse what `build_model` refuses of its config."""
    with _clearly(config) as model_type:
        _read(model_type, config)


@contextlib.contextmanager
def _clearly(config: Mapping[str, Any]) -> Iterator[str]:
    """The model type of a config that transformers knows; what goes wrong with it is told in one line."""
    model_type = config.get("model_type")
    with quietly():
        from transformers import __version__
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
            raise UnsupportedArchitectureError(
                unknown(model_type, CONFIG_MAPPING, f"transformers {__version__}")
            )
        try:
            yield model_type
        except (ConfigError, UnsupportedArchitectureError):
            raise
        except TooMuchError as error:
            raise ConfigError(
                f"the config of model_type {model_type!r} keeps transformers from building it in a bounded time and "
                "memory; one of its numbers is out of place."
            ) from error
        except ImportError as error:
            raise MissingDependencyError(
                f"model_type {model_type!r} has no builder in this version, and transformers needs another package "
                f"for it: {_one_line(error)}"
            ) from error
        except Exception as error:
            raise ConfigError(
                f"transformers cannot build model_type {model_type!r} from this config: {_one_line(error)}"
            ) from error


def model_class(model_type: str, config: Any, architectures: object) -> Any:
    """The class named in `architectures` where transformers has it, else the first that an auto mapping gives."""
    import transformers
    from transformers.models.auto import modeling_auto

    names = architectures if isinstance(architectures, (list, tuple)) else [architectures]
    for name in names[:1]:
        if isinstance(name, str) and name.isidentifier() and not name.startswith(("_", "TF", "Flax", "Auto")):
            found = getattr(transformers, name, None)
            wanted = getattr(found, "config_class", None)
            if isinstance(found, type) and isinstance(wanted, type) and isinstance(config, wanted):
                return found
    for mapping in MAPPINGS:
        found = getattr(modeling_auto, mapping).get(type(config), None)
        if found is not None:
            return found[0] if isinstance(found, tuple) else found
    raise UnsupportedArchitectureError(
        f"model_type {model_type!r} has no builder in this version, and transformers has no language model of it."
    )


def _read(model_type: str, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """transformers' object of a config, and the class of its model."""
    from transformers import AutoConfig

    fields = cleaned(config)
    fields.pop("model_type", None)
    with watched():
        made = AutoConfig.for_model(model_type, **fields)
    read = _text_alone(made, config.get("architectures"))
    return read, model_class(model_type, read, config.get("architectures"))


def _build(model_type: str, config: Mapping[str, Any], most_alike: int | None) -> Any:
    import torch

    read, cls = _read(model_type, config)
    with watched(), torch.device("meta"), no_init(), _bounded(most_alike):
        model = cls._from_config(read, attn_implementation="eager")
        model.tie_weights()
    return model


def _text_alone(config: Any, architectures: object) -> Any:
    """The text part of a config where the class named in `architectures` is made from that part, as the library's own
    auto classes take it."""
    import transformers

    name = architectures[0] if isinstance(architectures, (list, tuple)) and architectures else architectures
    found = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
    wanted = getattr(found, "config_class", None)
    if not isinstance(wanted, type) or isinstance(config, wanted):
        return config
    text = config.get_text_config(decoder=True)
    return text if isinstance(text, wanted) else config


def no_init() -> Any:
    """No initialisation of weights that are not there, where this transformers can leave it out."""
    try:
        from transformers.initialization import no_init_weights
    except ImportError:
        return contextlib.nullcontext()
    return no_init_weights()


@contextlib.contextmanager
def _bounded(most_alike: int | None) -> Iterator[None]:
    """Stop at MOST_MODULES: a module takes memory and time even where its weights take none."""
    from torch.nn.modules import module

    count = 0

    def registered(outer: Any, name: str, inner: Any) -> None:
        nonlocal count
        count += 1
        Progress.made += 1
        if count > MOST_MODULES or _one_more_expert(outer, name, inner, most_alike):
            raise TooManyModulesError(f"the config describes more than {MOST_MODULES} modules.")

    handle = module.register_module_module_registration_hook(registered)
    try:
        yield
    finally:
        handle.remove()


def _one_more_expert(outer: Any, name: str, inner: Any, most: int | None) -> bool:
    """Whether a module that holds so many parts gets an expert more, by what the parts are called."""
    if most is None or len(outer._modules) < most:
        return False
    return "expert" in f"{name} {type(outer).__name__} {type(inner).__name__}".lower()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without warnings, log lines or network while transformers works."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with offline(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _one_line(error: BaseException) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        line = f"no entry {line}"
    return line if len(line) <= 300 else line[:297] + "..."
