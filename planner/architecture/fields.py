"""Reading fields of a config: every failure names the field, what was found and what was expected."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, hint

_MISSING: Any = object()

# No model comes near these; a config that exceeds them is broken or hostile.
MOST = 10**9
MOST_LAYERS = 10_000
LAYER_COUNTS = frozenset(
    "num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers num_decoder_layers depth "
    "num_global_layers num_nextn_predict_layers first_k_dense_replace".split()
)


class Fields:
    """A config's fields with types checked on access. `null` counts as absent, as transformers treats it."""

    def __init__(self, data: Mapping[str, Any], path: str = "") -> None:
        self.data = data
        self.path = path

    def _name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, expected: str) -> ConfigError:
        """The error for a field whose value cannot be used."""
        shown = repr(self.data.get(key))
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return ConfigError(f"config field {self._name(key)}: found {shown}, expected {expected}.")

    def _get(self, key: str, default: Any, expected: str) -> Any:
        value = self.data.get(key)
        if value is not None:
            return value
        if default is not _MISSING:
            return default
        others = (str(name) for name in self.data if name != key)
        raise ConfigError(
            f"config field {self._name(key)} is missing, expected {expected}.{hint(key, others)}"
        )

    def has(self, key: str) -> bool:
        """Whether the field is present and not null."""
        return self.data.get(key) is not None

    def int(self, key: str, default: Any = _MISSING, minimum: int = 1) -> Any:
        """A whole number of at least `minimum`. With `default=None` an absent field gives None."""
        expected = f"a whole number of at least {minimum}"
        value = self._get(key, default, expected)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.fail(key, expected)
        most = MOST_LAYERS if key in LAYER_COUNTS else MOST
        if value > most:
            raise self.fail(key, f"a whole number of at most {most}")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A finite number."""
        value = self._get(key, default, "a number")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MOST:
            raise self.fail(key, f"a number of at most {MOST}")
        return float(value)

    def bool(self, key: str, default: Any = _MISSING) -> Any:
        """true or false."""
        value = self._get(key, default, "true or false")
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def str(self, key: builtins.str, default: Any = _MISSING) -> Any:
        """Text."""
        value = self._get(key, default, "text")
        if value is not None and not isinstance(value, str):
            raise self.fail(key, "text")
        return value

    def list(self, key: builtins.str, default: Any = _MISSING, length: builtins.int | None = None) -> Any:
        """A list, of `length` items where that is given."""
        expected = "a list" if length is None else f"a list of {length} items"
        value = self._get(key, default, expected)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
            raise self.fail(key, expected)
        return list(value)

    def sub(self, key: builtins.str, default: Any = _MISSING) -> Fields:
        """A nested config."""
        value = self._get(key, default, "a nested config")
        if not isinstance(value, Mapping):
            raise self.fail(key, "a nested config")
        return Fields(value, self._name(key))
