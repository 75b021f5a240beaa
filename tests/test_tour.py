"""The tour is run anew, in a process of its own without a network, and shows what is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import write_tour

ROOT = Path(__file__).resolve().parent.parent


def test_the_cells_show_what_is_written() -> None:
    """Run `python tools/write_tour.py` where this fails."""
    command = [sys.executable, "-m", "tools.write_tour", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_notebook_is_whole() -> None:
    written = nbformat.read(write_tour.NOTEBOOK, as_version=4)
    nbformat.validate(written)
    code = [cell for cell in written.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    pictures = write_tour.figures(written)
    assert len(pictures) >= 2
    for picture in pictures:
        assert picture.startswith(b"\x89PNG") and len(picture) > 5_000


@pytest.mark.parametrize("where", ["output", "source", "figure"])
def test_a_difference_is_found(where: str) -> None:
    built = nbformat.read(write_tour.NOTEBOOK, as_version=4)
    assert write_tour.check(built) == []
    code = [cell for cell in built.cells if cell.cell_type == "code"]
    if where == "output":
        stream = next(output for cell in code for output in cell.outputs if output.output_type == "stream")
        stream["text"] = stream["text"].replace("83,886,080", "83,886,081")
    elif where == "source":
        code[0].source += "\nplan"
    else:
        drawn = next(cell for cell in code if any("image/png" in o.get("data", {}) for o in cell.outputs))
        drawn.outputs = []
    assert write_tour.check(built)
