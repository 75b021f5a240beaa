"""The shape of the source tree: which way imports point, what a plan may load, how long things may grow."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("planner", "tests", "benchmarks", "tools")
MAX_FILE_LINES = 420
MAX_FUNCTION_LINES = 60

# From the bottom up. A module imports from its own layer or from one below it, and no ring of imports is closed.
LAYERS = (
    "choices dataclass errors fact_types objective_rules process schema setup setup_rules units version",
    "whole_files workers",
    "moments",
    "facts",
    "trainers",
    "architecture",
    "stored",
    "adapter",
    "flops break_even memory capacity hardware information learning_rate objective regret selective sharing",
    "speed cost dataset given samples ranks serving",
    "tables plan notices pictured host",
    "estimator",
    "running",
    "pacing search measuring measured_peak comparing fewest grpo preferences remedies planning commands",
    "simulate validate exports",
    "report",
    "__init__",
    "web",
    "cli __main__",
)

# Where each package from outside may be imported, as prefixes of module names. No other package may be.
HEAVY = "architecture.meta simulate validate"
TABLES = "learning_rate.sweep learning_rate.sweep_file learning_rate.fit dataset report"
ALLOWED = {
    "torch": HEAVY,
    "transformers": HEAVY,
    "peft": HEAVY,
    "accelerate": HEAVY,
    "filelock": "validate",
    "ray": "validate.executors.cluster",
    "numpy": f"{TABLES} {HEAVY} search.screen search.peaks search.points search.makers search.moving search.mixed "
    "search.select search.refused search.hosted search.widening search.times search.parts search.streams "
    "learning_rate.figure",
    "scipy": TABLES,
    "pandas": f"{TABLES} tables learning_rate.figure",
    "matplotlib": "report learning_rate.figure",
    "typst": "report",
    "click": "cli",
    "rich": "cli",
    "huggingface_hub": "architecture.hub dataset",
    "yaml": "exports.reading",
    "tomli": "facts",
    "gradio": "web.page web.server",
    "fastapi": "web.server",
    "starlette": "web.server",
    "uvicorn": "web.server",
    "datasets": "dataset.hub",
    "jinja2": "dataset",
    "orjson": "dataset",
    "pyarrow": "dataset.tables",
    "tokenizers": "dataset",
    "zstandard": "dataset",
}


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def sources(*folders: str) -> list[Path]:
    """The Python files of these folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    """A file of the package as a module name relative to it; __init__ is the package's own."""
    parts = path.relative_to(ROOT / "planner").with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sources("planner")}


def layer_of(module: str) -> int:
    """The height of a module's layer."""
    for height, names in enumerate(LAYERS):
        if module.split(".")[0] in names.split():
            return height
    raise AssertionError(f"planner.{module} stands in no layer of design: add it to LAYERS in {__file__}")


def _inside(target: tuple[str, ...], names: list[ast.alias]) -> Iterator[str]:
    """What `from <target> import <names>` loads: a module for each name that is one, else the target."""
    for alias in names:
        longer = ".".join((*target, alias.name))
        yield longer if longer in MODULES else ".".join(target) or "__init__"


@cache
def imports(module: str) -> tuple[tuple[str, bool], ...]:
    """Each import of a module, lazy ones too: a name, and whether it lies inside the package."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[tuple[str, bool]]:
    path = MODULES[module]
    package = path.parent.relative_to(ROOT / "planner").parts
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            named = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - (node.level - 1)]
                yield from ((name, True) for name in _inside((*base, *named), node.names))
            elif named[0] == "planner":
                yield from ((name, True) for name in _inside(named[1:], node.names))
            else:
                yield named[0], False
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                yield (rest or "__init__", True) if first == "planner" else (first, False)


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions of a module and of its classes, by qualified name."""
    for node in parsed(path).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield f"{node.name}.{item.name}", item


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def test_the_reading_of_imports_sees_the_tree() -> None:
    # The rules below would hold of an empty list.
    assert ("facts", True) in imports("architecture.resolve")
    assert ("errors", True) in imports("architecture.resolve")
    assert ("architecture.hub", True) in imports("architecture.resolve")
    assert ("huggingface_hub", False) in imports("architecture.hub")
    assert ("flops", True) in imports("estimator")
    assert ("planning", True) in imports("__init__")


def test_no_import_points_upward() -> None:
    upward = [
        f"planner.{module} imports {name} from a layer above its own"
        for module in MODULES
        for name, inside in imports(module)
        if inside and layer_of(name) > layer_of(module)
    ]
    assert not upward, "\n".join(upward)


def test_no_ring_of_imports() -> None:
    graph = {name: {other for other, inside in imports(name) if inside} - {name} for name in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_packages_from_outside_stay_where_they_belong() -> None:
    astray = []
    for module in MODULES:
        for name, inside in imports(module):
            if inside or name in sys.stdlib_module_names:
                continue
            places = ALLOWED.get(name, "").split()
            if not any(f"{module}.".startswith(f"{place}.") for place in places):
                astray.append(f"planner.{module} imports {name}, which is allowed in {places or 'no module'}")
    assert not astray, "\n".join(astray)


def loaded(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running code, and each of the planner's."""
    tail = "\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code + tail], capture_output=True, text=True, env=env, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    names = run.stderr.split()
    return {name.partition(".")[0] for name in names} | {
        name for name in names if name.startswith("planner.")
    }


NEVER = {
    "torch", "transformers", "peft", "accelerate", "numpy", "scipy", "pandas", "matplotlib", "typst", "datasets",
    "jinja2", "orjson", "pyarrow", "tokenizers", "zstandard",
}  # fmt: skip
# What an estimate without a GPU and without a file of data has no use for: a share of every cold start.
IDLE = {
    "planner.speed", "planner.cost", "planner.serving", "planner.fewest", "planner.remedies", "planner.search",
    "planner.comparing", "planner.measuring", "planner.exports", "planner.simulate", "planner.validate",
    "planner.web",
}  # fmt: skip
MODEL = "meta-llama/Llama-3.1-8B"
THROUGH_CLI = """
from planner.cli import main
import sys
sys.argv = ["lora-plan", "estimate", "--model", {model!r}, *{more!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


LIGHT = NEVER | {"huggingface_hub"}
PLANS: tuple[list[str], ...] = (
    [],
    ["--gpu", "h100", "--tokens", "10M", "--json"],
    ["--gpu", "l4", "--gpus", "2", "--batch", "2", "--dataset", "no-robots"],  # it does not fit
    ["--trainer", "trl", "--quantize", "nf4"],
    ["--law", "tinker-cookbook-2025-11", "--curves", "--explain"],
    ["--episodes", "1M", "--targets", "q_proj"],
    ["--help"],
)


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        pytest.param("import planner", NEVER | {"click", "rich", "huggingface_hub"}, id="import"),
        pytest.param(
            f"import planner; planner.estimate(model={MODEL!r}).to_dict()",
            NEVER | IDLE | {"click", "rich", "huggingface_hub"},
            id="estimate",
        ),
        pytest.param(
            THROUGH_CLI.format(model=MODEL, more=["--json"]),
            NEVER | IDLE | {"rich", "huggingface_hub"},
            id="json",
        ),
        # One after the other in one process, which none of them may bring to load what is heavy.
        pytest.param(
            "".join(THROUGH_CLI.format(model=MODEL, more=more) for more in PLANS), LIGHT, id="pages"
        ),
    ],
)
def test_a_plan_loads_no_heavy_package(code: str, forbidden: set[str]) -> None:
    found = loaded(code)
    assert found.isdisjoint(forbidden), sorted(found & forbidden)


@pytest.mark.parametrize("name", ["adapter_config.json", "axolotl.yml"])
def test_a_plan_of_a_trainers_config_loads_no_heavy_package(name: str, tmp_path: Path) -> None:
    config = tmp_path / name
    if name.endswith(".json"):
        config.write_text(
            f'{{"peft_type": "LORA", "base_model_name_or_path": "{MODEL}", "r": 8, "target_modules": ["q_proj"]}}'
        )
    else:
        config.write_text(
            f"base_model: {MODEL}\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_linear: true\n"
        )
    code = THROUGH_CLI.format(model=MODEL, more=["--config", str(config), "--gpu", "h100", "--json"])
    assert loaded(code).isdisjoint(NEVER | {"rich", "huggingface_hub"})


def test_every_public_function_has_a_docstring() -> None:
    bare = [
        f"planner.{module}.{name}"
        for module, path in MODULES.items()
        for name, node in functions(path)
        if not any(part.startswith("_") for part in name.split(".")) and ast.get_docstring(node) is None
    ]
    assert not bare


def test_files_and_functions_stay_small() -> None:
    large = []
    for path in sources(*FOLDERS):
        place = path.relative_to(ROOT)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            large.append(f"{place}: {lines} lines, at most {MAX_FILE_LINES}")
        large += [
            f"{place}: {name} has {length(node)} lines, at most {MAX_FUNCTION_LINES}"
            for name, node in functions(path)
            if length(node) > MAX_FUNCTION_LINES
        ]
    assert not large


def tree() -> Iterator[Path]:
    """The files that make up the project: no caches, environments or build output."""
    kept = {".ci", ".github"}
    for folder, names, files in os.walk(ROOT):
        names[:] = [
            name
            for name in names
            if (name in kept or not name.startswith("."))
            and name not in ("__pycache__", "build", "dist", "node_modules")
            and not name.endswith(".egg-info")
            and not (Path(folder) / name / "pyvenv.cfg").exists()
        ]
        yield from (Path(folder) / name for name in files if not name.endswith(".pyc"))


def test_no_file_names_a_path_of_this_machine() -> None:
    # A folder of one name (/tmp, /home) is in ordinary texts too: a checkout right below it is looked for by its own.
    folders = (ROOT if len(ROOT.parent.parts) < 3 else ROOT.parent, Path(sys.prefix))
    words = [f"{folder}{os.sep}" for folder in folders if len(folder.parts) > 1]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in tree()
        if path.is_file() and path.name != ".git"
        for word in words
        if word.encode() in path.read_bytes()
    ]
    assert not found


# Classes of many fields, and of these the ones whose names say it all.
DESCRIBED = {
    ("setup.py", "Setup"): "",
    ("memory/traits.py", "Traits"): "",
    ("memory/passes.py", "Pass"): "tape",
    ("memory/attention.py", "Shape"): "n_heads n_kv_heads d_qk d_v",
    ("speed/efficiency.py", "Efficiency"): "scan memory overlap",
}


@pytest.mark.parametrize("place", DESCRIBED, ids=lambda place: place[1])
def test_every_field_is_described(place: tuple[str, str]) -> None:
    body = parsed(ROOT / "planner" / place[0]).body
    found = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == place[1])
    fields = [
        n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ]
    text = ast.get_docstring(found) or ""
    plain = DESCRIBED[place].split()
    assert len(fields) > 10
    assert [name for name in fields if f"`{name}`" not in text and name not in plain] == []
