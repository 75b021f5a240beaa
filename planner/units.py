"""Formatting and parsing of quantities. Inside the planner everything is SI; people see 8.03 B and GiB here."""

from __future__ import annotations

import math
import re

from .errors import InputError

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_COUNT = re.compile(r"\s*(\d[\d_,]*(?:\.\d+)?(?:e\+?\d{1,3})?)\s*([kmbgt]?)\s*", re.IGNORECASE)
_LARGEST = 2**63 - 1
_BYTE_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\+?\d{1,2})?)\s*([kmgt]i?b|b|)\s*", re.IGNORECASE)


def parse_count(field: str, value: object) -> int:
    """A whole number of at least 0, also written 300M, 1.2B, 3e8 or 1_000_000. Raises InputError."""
    expected = "a whole number that is not negative, such as 8, 1e6 or 300M"
    if isinstance(value, bool):
        raise InputError(field, value, expected)
    if isinstance(value, int):
        number: float = value
    elif isinstance(value, float):
        number = value
    else:
        match = _COUNT.fullmatch(str(value))
        if not match:
            raise InputError(field, value, expected)
        digits = match[1].replace("_", "").replace(",", "")
        plain = digits.isdigit()
        number = (int(digits) if plain else float(digits)) * _SUFFIXES[match[2].lower()]
    if isinstance(number, float):
        if not math.isfinite(number) or abs(number - round(number)) > 1e-6 * max(1.0, abs(number)):
            raise InputError(field, value, expected)
        number = round(number)
    if not 0 <= number <= _LARGEST:
        raise InputError(field, value, "a whole number from 0 to 9.2e18")
    return int(number)


def parse_bytes(field: str, value: object) -> int:
    """Bytes above 0, also written 21.4GiB, 23GB or 21913MiB: as many as the unit says, 2^30 or 10^9. Raises
    InputError."""
    expected = "bytes above 0, such as 21.4GiB, 23GB or 21913MiB"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(field, value, expected)
    match = _BYTES.fullmatch(str(value))
    if not match:
        raise InputError(field, value, expected)
    number = float(match[1]) * _BYTE_UNITS[match[2].lower()]
    if isinstance(value, str) and not match[2] and 0 < number < 2**20:  # typed without its unit
        raise InputError(field, value, expected, f"Did you mean {value.strip()}GiB?")
    if not 1 <= number <= _LARGEST:
        raise InputError(field, value, expected)
    return round(number)


def count(number: float) -> str:
    """A count for people: 8.03 B, 125 M, 4,096."""
    for size, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if abs(number) >= size:
            return f"{significant(number / size)} {suffix}"
    return f"{number:,.0f}" if float(number).is_integer() else significant(number)


def counted(number: int, word: str) -> str:
    """1 step, 2,347 steps."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def significant(number: float, digits: int = 3) -> str:
    """A number with so many significant digits, without an exponent."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    return f"{number:,.{decimals}f}"


def flops(number: float) -> str:
    """A count of floating-point operations with an SI prefix: 48.2 GFLOP."""
    for size, prefix in (
        (1e24, "Y"),
        (1e21, "Z"),
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
    ):
        if abs(number) >= size:
            return f"{significant(number / size)} {prefix}FLOP"
    return f"{number:,.0f} FLOP"


def bits(number: float) -> str:
    """Bits with an SI prefix: 176 Mbit."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{significant(number / size)} {prefix}bit"
    return f"{number:,.0f} bit"


def byte_size(number: float) -> str:
    """Bytes for people, in binary units: 336 MiB."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(number) >= size:
            return f"{significant(number / size)} {unit}"
    return f"{number:,.0f} B"


def percent(fraction: float) -> str:
    """A fraction as a percentage."""
    return f"{significant(100 * fraction)}%"


def rate(value: float) -> str:
    """A learning rate: 2.86e-4."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


_SPANS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SPAN = re.compile(
    r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*(|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)\s*",
    re.IGNORECASE,
)


def parse_duration(field: str, value: object) -> float:
    """Seconds above 0, also written 90m, 12h, 2 days. Raises InputError."""
    expected = "a time above 0 such as 45m, 12h, 2d or a number of seconds"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(field, value, expected)
    if isinstance(value, str):
        match = _SPAN.fullmatch(value)
        seconds = float(match[1]) * _SPANS[(match[2] or "s")[0].lower()] if match else 0.0
    else:
        seconds = float(value)
    if not 0 < seconds < math.inf:
        raise InputError(field, value, expected)
    return seconds


def duration(seconds: float) -> str:
    """Seconds for people: 45.0 s, 12.3 min, 5.20 h, 3.10 days."""
    for least, size, unit in ((2 * 86400.0, 86400.0, "days"), (3600.0, 3600.0, "h"), (60.0, 60.0, "min")):
        if seconds >= least:
            return f"{significant(seconds / size)} {unit}"
    return f"{significant(seconds)} s"
