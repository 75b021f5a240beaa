"""README and docs against the program: outputs, help texts, keys of the JSON, links to files."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from planner import calibrate, estimate
from planner.adapter import ALL_LINEAR, LAYER_SETS, PRESETS
from planner.choices import CHOICES
from planner.cli.main import COMMANDS
from planner.memory.loading import LOADING_CODES
from tools import write_docs

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_pages_that_are_written_whole_are_there() -> None:
    assert set(write_docs.WHOLE) <= {path.name for path in write_docs.paths()}


@pytest.mark.parametrize("path", write_docs.paths(), ids=lambda path: path.name)
def test_pages_show_what_the_program_prints(path: Path) -> None:
    """Run `python tools/write_docs.py` where this fails."""
    assert path.read_text(encoding="utf-8") == write_docs.text_of(path)


def test_the_readme_opens_with_a_command_and_its_output() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8")[:4000]
    assert "<!-- command: estimate -->" in first_screen and "<!-- command: test -->" in first_screen
    assert "88,121,344" in first_screen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_pages_exist(page: Path) -> None:
    for name in re.findall(r"lora-plan ([a-z][\w-]*)", page.read_text(encoding="utf-8")):
        assert name in COMMANDS, name


def keys(data: Any, path: str = "") -> set[str]:
    """Dotted key paths of a JSON document."""
    if isinstance(data, dict):
        below = {k for key, value in data.items() for k in keys(value, f"{path}{key}.")}
        return {f"{path}{key}" for key in data} | below
    if isinstance(data, list) and data:
        return keys(data[0], path)
    return set()


def test_every_key_of_the_json_is_documented() -> None:
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([\w.\-]+)` \|", text, flags=re.MULTILINE))
    found = keys(estimate("Qwen/Qwen3-30B-A3B", rank=30, dataset="alpaca", gpu="h100").to_dict())
    sampled = estimate(
        "Qwen/Qwen3-8B", objective="grpo", prompt_tokens=256, generation="colocate", gpu="h100"
    ).to_dict()
    found |= {key for key in keys({"grpo": sampled["grpo"]}) if not key.startswith("grpo.flops.")}
    loaded = keys({"memory": estimate("Qwen/Qwen3-8B", trainer="hf-trainer").memory})
    found |= {key for key in loaded if key.startswith("memory.lora.loading.")}
    peak = calibrate("Qwen/Qwen3-8B", peak="60GiB", peak_of="allocated").calibration
    corrected = keys({"memory": estimate("Qwen/Qwen3-8B", calibration=peak).memory})
    found |= {key for key in corrected if key.startswith("memory.lora.corrected.")}
    found |= {
        key for key in keys(estimate("google/gemma-3-4b-it", images=1).to_dict()) if key.startswith("images.")
    }
    free: tuple[str, ...] = (
        "adapter.params_by_role.",
        "adapter.layer_sets.",
        "adapter.bytes_by_dtype.",
        "time.step.parts.",
    )
    free += tuple(f"memory.lora.{part}." for part in ("parts", "overhead", "traffic", "setup"))
    free += ("memory.lora.would_fit.options.", "memory.qlora", "memory.full")
    assert {key for key in found if not key.startswith(free)} - documented == set()
    assert documented - found == set()


@cache
def _codes() -> list[ast.expr]:
    """The first argument of every Notice that the program makes."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "planner").rglob("*.py"))
    nodes = (node for text in texts if "Notice(" in text for node in ast.walk(ast.parse(text)))
    return [
        node.args[0]
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Notice"
    ]


def test_every_code_of_a_warning_is_documented() -> None:
    """And none that there is not; a code that is put together stands by all that it can be."""
    text = (ROOT / "docs" / "json-warnings.md").read_text(encoding="utf-8")
    cells = "".join(re.findall(r"^\|([^|]*)\|", text, flags=re.MULTILINE))
    documented = re.findall(r"`([a-z0-9-]+)`", cells)
    made = {code.value for code in _codes() if isinstance(code, ast.Constant)} | set(LOADING_CODES)
    assert all(isinstance(code, (ast.Constant, ast.JoinedStr, ast.Subscript)) for code in _codes())
    joined = {ast.unparse(code) for code in _codes() if isinstance(code, ast.JoinedStr)}
    assert joined == {"f'learning-rate-{code}'"}
    made |= {f"learning-rate-{code}" for code in ("rank", "width", "batch", "steps")}
    assert len(documented) == len(set(documented))
    assert set(documented) == made


def test_the_json_example_is_real() -> None:
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    shown = json.loads(re.search(r"```json\n(.*?)```", text, flags=re.DOTALL)[1])  # type: ignore[index]
    data = estimate("meta-llama/Llama-3.1-8B", tokens="300M").to_dict()
    for section, values in shown.items():
        if isinstance(values, dict):
            for key, value in values.items():
                assert data[section][key] == pytest.approx(value) if isinstance(value, float) else value
        else:
            assert data[section] == values


def test_layer_sets_are_named_in_the_methods() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for name in (*LAYER_SETS, *PRESETS, ALL_LINEAR):
        assert f"`{name}`" in text, name


def _figures(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?%?", re.sub(r"\]\([^)]*\)", "", text)))


def test_every_word_of_loss_is_explained() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    section = text.partition("### The words of `--loss`")[2].partition("\n### ")[0]
    first = "".join(re.findall(r"^\|([^|]*)\|", section, flags=re.MULTILINE))
    assert set(re.findall(r"`([a-z-]+)`", first)) == {*CHOICES["loss"], "--loss"}


def test_the_short_table_says_what_the_full_one_says() -> None:
    """Every figure of README's table stands in docs/agreement.md, whose figures tests hold to what they find."""
    short = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Predicted against")[2]
    rows = [line for line in short.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    full = _figures((ROOT / "docs" / "agreement.md").read_text(encoding="utf-8"))
    assert {figure for row in rows for figure in _figures(row)} <= full
