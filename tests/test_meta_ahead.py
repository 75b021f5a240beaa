"""The list of transformers' files that is kept on disk, and torch's library loaded ahead of torch."""

from __future__ import annotations

import copy
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from planner import process
from planner.architecture import cache
from planner.architecture.meta import ahead, lighter, listed

compared = pytest.mark.skipif(not lighter.compared(), reason="versions that were not compared")
AHEAD = """
import sys
from planner import process
from planner.architecture.meta import ahead
process.ends_soon = True
ahead.begin()
ahead.wait()
loaded = "libtorch_cpu.so" in open("/proc/self/maps").read()
assert "torch" not in sys.modules and process.leaves_at_once
import torch
a = torch.arange(6.0).reshape(2, 3).requires_grad_()
(a @ a.T).sum().backward()
print(loaded, a.grad.tolist())
"""


def installation(folder: Path, version: str = "5.23.0") -> Path:
    """A folder of models beside a package manager's record."""
    models = folder / "transformers" / "models"
    (models / "a").mkdir(parents=True)
    (models / "__init__.py").touch()
    record = folder / f"transformers-{version}.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("files")
    return models


@compared
def test_a_kept_list_is_the_library_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers
    from transformers.utils import import_utils

    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    models = str(installation(tmp_path))
    real = os.path.join(os.path.dirname(transformers.__file__), "models")
    theirs = import_utils.define_import_structure.__wrapped__
    asked: list[Any] = []

    def listing(path: Any, prefix: str | None = None) -> Any:
        asked.append(path)
        return theirs(real, prefix) if path == models else "of another folder"

    whole, inside = theirs(real), theirs(real, "models")
    for _ in range(2):  # what it lists, and what is on disk
        found = listed.kept(listing, models, "5.23.0")
        assert found(Path(models), prefix="models") == inside
        assert found(f"{models}/__init__.py") == found(models) == whole and found(models) is not found(models)
        assert [*map(list, found(models).values())] == [*map(list, whole.values())]
        assert found(f"{models}/a") == "of another folder"
    assert asked == [models, f"{models}/a", f"{models}/a"]
    assert len(whole[frozenset({"torch"})]) > 300


def test_a_list_is_kept_for_what_a_package_manager_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a checkout, nor after another installation, nor where the file on disk is none of ours."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    models = installation(tmp_path)
    lists = iter(range(10))

    def asked(version: str = "5.23.0") -> Any:
        found = listed.kept(lambda path: {frozenset(): {f"{next(lists)}": {"a"}}}, str(models), version)
        return found(str(models))[frozenset()]

    assert asked() == {"0": {"a"}} and asked() == {"0": {"a"}}
    assert asked("5.24.0") == {"1": {"a"}} and asked("5.24.0") == {"2": {"a"}}
    [before] = (tmp_path / "cache").iterdir()
    (tmp_path / "transformers-5.23.0.dist-info" / "RECORD").write_text("other files")
    assert asked() == {"3": {"a"}} and asked() == {"3": {"a"}}
    [path] = {*(tmp_path / "cache").iterdir()} - {before}
    for n, spoilt in enumerate(
        ("", "[]", f'{{"key": "{path.stem}", "list": [[1]]}}', f'{{"key": "{path.stem}"}}'), 4
    ):
        path.write_text(spoilt)
        assert asked() == asked() == {f"{n}": {"a"}}


@compared
@pytest.mark.skipif(sys.platform != "linux", reason="loaded ahead on Linux alone")
def test_torch_works_after_its_library_was_loaded_ahead() -> None:
    run = subprocess.run([sys.executable, "-c", AHEAD], capture_output=True, text=True, check=True)
    # of sum over i, j of a_i . a_j the derivative by a_i is twice the sum of rows: 2 (0 + 3), 2 (1 + 4), 2 (2 + 5)
    assert run.stdout == f"True {[[6.0, 10.0, 14.0]] * 2}\n"


def test_nothing_is_loaded_ahead_in_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where torch is there, nor of another version."""
    monkeypatch.setattr(ahead.Loading, "thread", None)
    ahead.begin()
    monkeypatch.setattr(process, "ends_soon", True)
    monkeypatch.setitem(sys.modules, "torch", sys)
    ahead.begin()
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(ahead, "compared", lambda: False)
    ahead.begin()
    assert ahead.Loading.thread is None and not process.leaves_at_once
    ahead.wait()


@pytest.mark.parametrize(("words", "code"), [(["-m", "no-such/model"], 2), (["--help"], 0), (["--rank"], 2)])
def test_a_simulation_ends_with_its_code(words: list[str], code: int) -> None:
    """Though libraries are being loaded when it is refused."""
    command = [sys.executable, "-m", "planner", "simulate", *words]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert run.returncode == code and (run.stdout if code == 0 else run.stderr)


@pytest.mark.parametrize("pattern", [r"^model\.(?P<g0>layers)\.(?!\w)", "a|(b)"])
def test_a_pattern_that_is_compiled_later_finds_the_same(pattern: str) -> None:
    later, now = copy.deepcopy(lighter.LaterPattern(pattern)), re.compile(pattern)
    for text in ("model.layers.", "model.layers.x", "xab", ""):
        found, expected = later.search(text), now.search(text)
        assert (found and (found.span(), found.lastgroup)) == (
            expected and (expected.span(), expected.lastgroup)
        )
    assert later.sub("-", "xab") == now.sub("-", "xab") and later.groups == now.groups


def test_a_caller_is_named_as_inspect_names_it() -> None:
    here, theirs = sys._getframe(), inspect.getframeinfo(sys._getframe())
    assert lighter._module_of(here) is inspect.getmodule(here) is sys.modules[__name__]
    assert lighter._place_of(1) == f"{theirs.filename}:{theirs.lineno + 2}"
