"""Writes a report to its place, whole or not at all."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InputError, hint
from ..whole_files import put

SUFFIXES = {".pdf": "pdf", ".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown"}


def format_of(output: str | os.PathLike[str]) -> str:
    """The format that a file's name asks for. Raises InputError where it asks for none."""
    ending = os.path.splitext(os.fspath(output))[1].lower()
    if ending not in SUFFIXES:
        near = hint(ending, SUFFIXES, cutoff=0.4).strip()
        raise InputError("output", os.fspath(output), "a file name that ends in .pdf, .html or .md", near)
    return SUFFIXES[ending]


def check_target(output: str | os.PathLike[str]) -> None:
    """Raise InputError where a file could not be put there, before any work is done."""
    place = os.fspath(output)
    folder = os.path.dirname(place) or "."
    if os.path.isdir(place):
        raise InputError("output", place, "a file's name, not a folder")
    if not os.path.isdir(folder):
        raise InputError("output", place, f"a folder that exists, not {folder}", "Make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError("output", place, f"a folder that can be written to, not {folder}")


def write_whole(output: str | os.PathLike[str], content: bytes) -> None:
    """Write a report. Raises InputError where it cannot be."""
    try:
        put(output, content)
    except OSError as error:
        place = f"a place that can be written ({error.strerror or error})"
        raise InputError("output", os.fspath(output), place) from error


def check_options(function: Callable[..., Any], options: Mapping[str, Any], expected: str) -> None:
    """Raise InputError for the first option that the function, whose findings are reported, does not take."""
    known = [word for word in inspect.signature(function).parameters if not word.startswith("on_")]
    for word, value in options.items():
        if word not in known:
            raise InputError(word.replace("_", "-"), value, expected, hint(word, known).strip())
