"""What is built holds what the checkout holds: the source distribution, and the wheel that is built from it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from planner import __version__

ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = ("__pycache__", ".pyc")


def shipped(folder: str) -> set[str]:
    """The files below a folder of the checkout, relative to its root."""
    files = (path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file())
    return {name for name in files if not any(part in name for part in NOT_SHIPPED)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel, built with the installed hatchling."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    """The names in the wheel."""
    with zipfile.ZipFile(built / f"lora_plan-{__version__}-py3-none-any.whl") as archive:
        return set(archive.namelist())


def test_the_wheel_carries_every_module_and_every_fact(wheel: set[str]) -> None:
    facts = {f"planner/{name}" for folder in ("data", "reports") for name in shipped(folder)}
    missing = (shipped("planner") | facts) - wheel
    assert not missing
    assert sum(name.startswith("planner/data/models/") and "__" in name for name in wheel) == 500
    assert {"planner/data/laws.toml", "planner/data/models/index.json", "planner/reports/README.md"} <= wheel


def test_the_wheel_carries_nothing_else(wheel: set[str]) -> None:
    # A second top-level package (tests, tools) would land in everybody's site-packages.
    info = f"lora_plan-{__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel} == {"planner", info}
    assert f"{info}/licenses/LICENSE" in wheel


def test_the_wheel_asks_for_no_torch_and_offers_the_command(built: Path) -> None:
    info = f"lora_plan-{__version__}.dist-info"
    with zipfile.ZipFile(built / f"lora_plan-{__version__}-py3-none-any.whl") as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    required = [
        line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line
    ]
    assert required
    assert not [line for line in required if any(name in line for name in ("torch", "peft", "accelerate"))]
    assert "lora-plan = planner.cli:main" in scripts


def test_the_source_distribution_is_complete(built: Path) -> None:
    prefix = f"lora_plan-{__version__}/"
    with tarfile.open(built / f"lora_plan-{__version__}.tar.gz") as archive:
        names = {name.removeprefix(prefix) for name in archive.getnames()}
    folders = ("planner", "data", "reports", "tests", "benchmarks", "tools")
    missing = set().union(*map(shipped, folders)) - names
    assert not missing
    assert {"pyproject.toml", "constraints.txt", "LICENSE", "README.md", "CHANGELOG.md", ".ci/run"} <= names
