"""What is taken away: the plan as JSON and as a document, and a config for each trainer that `exports` knows."""

from __future__ import annotations

import io
import json
import os
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, hint
from ..exports import export as make
from ..exports.registry import TARGETS
from ..planning import estimate
from ..report import report
from .configs import model_of
from .state import Choices, options

DOCUMENTS = {"plan.pdf": "PDF", "plan.html": "HTML", "plan.md": "Markdown", "plan.json": "JSON"}
TYPES = {
    ".pdf": "application/pdf", ".html": "text/html; charset=utf-8", ".md": "text/markdown; charset=utf-8",
    ".json": "application/json", ".zip": "application/zip",
}  # fmt: skip
_DRAWING = threading.Lock()
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class File:
    """A file to hand out."""

    name: str
    content: bytes

    @property
    def media_type(self) -> str:
        """Its type by the ending of its name."""
        return TYPES.get(os.path.splitext(self.name)[1], PLAIN)


@dataclass(frozen=True)
class Target:
    """A trainer for which there is an export."""

    name: str
    label: str


def exports() -> tuple[Target, ...]:
    """Every target of the registry."""
    return tuple(Target(name, target.title) for name, target in TARGETS.items())


def document(name: str, chosen: Choices, *, hub: bool = False) -> File:
    """The plan as one of DOCUMENTS. Raises a PlannerError."""
    if name not in DOCUMENTS:
        raise InputError("download", name, f"one of {', '.join(DOCUMENTS)}", hint(name, DOCUMENTS).strip())
    model: Any = model_of(chosen, hub=hub)
    asked = options(chosen)
    if name == "plan.json":
        found = estimate(model, **asked).to_dict()
        return File(name, (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode())
    subject = model.config if model.origin == "config" else model
    # One at a time: drawing figures sets letters and colours for the whole process.
    with _DRAWING, tempfile.TemporaryDirectory(prefix="lora-plan-") as folder:
        place = os.path.join(folder, name)
        report(subject, place, **asked)
        with open(place, "rb") as stream:
            return File(name, stream.read())


def export(target: str, chosen: Choices, *, hub: bool = False) -> File:
    """A trainer's config for the plan; several files come as an archive. Raises a PlannerError."""
    names = [each.name for each in exports()]
    if target not in names:
        raise InputError("export", target, f"one of {', '.join(names)}", hint(target, names).strip())
    model: Any = model_of(chosen, hub=hub)
    return packed(target, dict(make(target, model, **options(chosen)).files))


def packed(target: str, files: dict[str, str]) -> File:
    """One file as it is; several as a zip archive, the same bytes for the same files."""
    if len(files) == 1:
        [(name, content)] = files.items()
        return File(name, content.encode())
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
            archive.writestr(info, content)
    return File(f"lora-plan-{target}.zip", stream.getvalue())
