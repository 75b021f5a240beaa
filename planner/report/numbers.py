"""Numbers out of a report's material: looked up by path, formatted in one place, and remembered with their path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import units
from .document import Number, Run

Path = tuple[str, ...]
UNKNOWN = "not known"
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def duration(seconds: float) -> str:
    """Seconds as people say them: 42.0 s, 12.5 min, 3.20 h, 2.10 days."""
    for size, unit in ((_DAY * 2, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{units.significant(seconds / (_DAY if unit == 'days' else size))} {unit}"
    return f"{units.significant(seconds)} s"


def dollars(value: float) -> str:
    """Dollars: $0.42, $12.3, $4,210."""
    return f"${value:,.2f}" if abs(value) < 10 else f"${units.significant(value)}"


STYLES: Mapping[str, Callable[[float], str]] = {
    "whole": lambda value: f"{value:,}" if isinstance(value, int) else units.significant(value),
    "count": units.count,
    "plain": lambda value: f"{value:g}",
    "significant": units.significant,
    "figure": lambda value: f"{value:.3g}",
    "signed": lambda value: f"{value:+.3f}".replace("-", "\N{MINUS SIGN}"),
    "percent": units.percent,
    "flops": units.flops,
    "bits": units.bits,
    "bytes": units.byte_size,
    "rate": units.rate,
    "duration": duration,
    "usd": dollars,
    "times": lambda value: f"{units.significant(value)} times",
}


class Material:
    """The nested data behind a report, and the numbers in it. A path is a word with slashes: "plan/adapter/params".

    `at` a folder of it, so that a section can be written once for a plan wherever it stands.
    """

    def __init__(self, data: Mapping[str, Any], base: Path = ()) -> None:
        self.data = data
        self.base = base

    def within(self, path: str) -> Material:
        """The same material, with paths from here."""
        return Material(self.data, (*self.base, *path.split("/")))

    @property
    def root(self) -> Material:
        """The whole material."""
        return Material(self.data)

    def get(self, path: str = "") -> Any:
        """The value at a path; None where anything on the way is missing or null."""
        found: Any = self.data
        for key in (*self.base, *(path.split("/") if path else ())):
            if isinstance(found, Mapping):
                found = found.get(key)
            elif isinstance(found, (list, tuple)) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            else:
                return None
        return found

    def _path(self, path: str) -> Path:
        return (*self.base, *path.split("/"))

    def number(self, path: str, style: str = "whole") -> Run:
        """The number at a path in a style of STYLES, or words for what is not known."""
        value = self.get(path)
        if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return UNKNOWN
        return Number(STYLES[style](value), value, self._path(path))

    def quotient(self, path: str, over: str, style: str = "percent") -> Run:
        """The quotient of the numbers at two paths."""
        value, whole = self.get(path), self.get(over)
        if value is None or not whole:
            return UNKNOWN
        return Number(STYLES[style](value / whole), value / whole, self._path(path), self._path(over))
