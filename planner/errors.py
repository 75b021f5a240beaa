"""The one family of errors: each says what is wrong, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """The choices spelled most like `word`, best first, compared without case."""
    import difflib  # a tenth of a cold start, and needed only where something is misspelt

    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), list(by_lower), n=count, cutoff=cutoff)
    return [by_lower[key] for key in found]


def hint(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """A sentence that names the nearest valid choices, or nothing where none is near."""
    near = nearest(word, choices, cutoff=cutoff)
    return f" Did you mean {' or '.join(near)}?" if near else ""


class PlannerError(Exception):
    """Base class of every error that this package raises on purpose."""

    exit_code = 2


class InputError(PlannerError, ValueError):
    """A value that the user gave is not usable; the message names the field, the value and the remedy."""

    def __init__(self, field: str, found: object, expected: str, remedy: str = "") -> None:
        self.field = field
        self.found = found
        self.expected = expected
        shown = repr(found)
        if len(shown) > 80:
            shown = f"{shown[:38]}...{shown[-39:]}"  # of a path, the end tells more than the start
        super().__init__(f"{field}: found {shown}, expected {expected}.{' ' + remedy if remedy else ''}")


class ConfigError(PlannerError, ValueError):
    """A model config cannot be read or lacks what its architecture needs."""


class UnknownModelError(PlannerError, LookupError):
    """No catalogue entry, file or hub repository has this name."""


class HubError(PlannerError, OSError):
    """The hub could not give the config: gated, missing, or not reachable."""


class UnsupportedArchitectureError(PlannerError, NotImplementedError):
    """No builder knows this model type yet."""


class FactError(PlannerError, ValueError):
    """A fact in data/ is malformed or has no source."""


class MissingDependencyError(PlannerError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""
