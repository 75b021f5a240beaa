"""A first call in short: what the import of transformers may leave out, and what a build may spend."""

from __future__ import annotations

import mmap
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from typing import Any

import pytest

pytest.importorskip("transformers")

from planner.architecture.meta import checks, lighter, watch
from planner.architecture.meta.installed import installed
from planner.architecture.meta.model import build_model
from planner.errors import ConfigError
from tools.compare_lighter_import import read, read_in_short

compared = pytest.mark.skipif(not lighter.compared(), reason="versions that were not compared")
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "helium"}, {"model_type": "helium", "hidden_size": -1}, {"model_type": "fnet"},
]  # fmt: skip
# One import in short, forked where it stands: one process looks at what comes in alone, the other goes on without.
AFTERWARDS = """
import os, sys
from planner import process
from planner.architecture.meta.lighter import LeftOut, lighter_import, put_back
process.ends_soon = True
with lighter_import():
    import torch, transformers.modeling_utils
    if not (child := os.fork()):
        alone = torch._dynamo.config
        print(type(sys.modules["torch._dynamo"]) is LeftOut, "torch._dynamo.symbolic_convert" in sys.modules)
        tensors = torch.distributed.tensor
        put_back()
        print(type(tensors) is LeftOut, isinstance(torch.zeros(1), torch.distributed.tensor.DTensor))
        import torch._dynamo
        print(torch._dynamo.config is alone, torch._dynamo.config.cache_size_limit, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    import transformers.models.helium.modeling_helium
print("scipy.optimize" in sys.modules, "torch._dynamo.symbolic_convert" in sys.modules)
import torch, torch._dynamo, scipy.optimize
from torch.distributed.tensor import DTensor, Shard
from transformers.distributed import sharding_utils, tensor_parallel
print(torch._dynamo.__file__ is not None, callable(torch._dynamo.optimize), scipy.optimize.minimize is not None)
print(isinstance(torch.zeros(1), sharding_utils.DTensor), isinstance(Shard(0), sharding_utils.Shard))
from transformers.loss.loss_for_object_detection import linear_sum_assignment
print([list(map(int, side)) for side in linear_sum_assignment([[4, 1], [2, 3]])])
from torch.fx.experimental.symbolic_shapes import ShapeEnv, guard_or_false
import sympy
print(torch._dynamo.config is sys.modules["torch._dynamo.config"], guard_or_false(True), sympy.Symbol("x"))
print(type(ShapeEnv()).__module__)
"""


@cache
def afterwards() -> list[str]:
    """What both processes print."""
    run = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=True)
    return run.stdout.split("\n")


@compared
def test_a_shorter_import_reads_and_refuses_the_same() -> None:
    assert read_in_short(CONFIGS) == [read(config) for config in CONFIGS]


@compared
def test_a_module_of_a_package_that_is_left_out_comes_in_alone() -> None:
    assert afterwards()[:3] == ["True False", "True False", "True 8"]


@compared
def test_what_was_left_out_is_there_when_it_is_used() -> None:
    assert afterwards()[3:9] == [
        "False False", "True True True", "False True", "[[0, 1], [1, 0]]", "True True x",
        "torch.fx.experimental.symbolic_shapes",
    ]  # fmt: skip


PLAIN: list[Any] = [True, False, 0, 1, 7, (), [2, 3], (2, 3), (2, 4), (2, 3, 4)]


@compared
@pytest.mark.filterwarnings("ignore:guard_size_oblivious will be removed:FutureWarning")
@pytest.mark.parametrize(
    "name",
    [name for name, here in lighter.LEFT_OUT[lighter.SHAPES].items() if isinstance(here, lighter.Told)],
)
def test_of_plain_numbers_is_told_what_torch_tells(name: str) -> None:
    """Each function that is answered here, of every one and two values, and what it refuses."""
    import torch
    from torch.fx.experimental import symbolic_shapes

    here, real = lighter.LEFT_OUT[lighter.SHAPES][name], getattr(symbolic_shapes, name)
    assert here._real._real() is real
    tensors = [(torch.zeros(2, 3),)] if name == "free_unbacked_symbols" else []
    told = 0
    for values in [*tensors, *((a,) for a in PLAIN), *((a, b) for a in PLAIN for b in PLAIN)]:
        try:
            expected = real(*values)
        except Exception as error:
            with pytest.raises(type(error)):
                here(*values)
            continue
        found = here(*values)
        assert found == expected and type(found) is type(expected), values
        told += here._plain(*values)
    assert told


def test_a_step_that_brings_in_what_was_left_out_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as something more comes in; not where everything had come in before, as in a program."""
    monkeypatch.setattr(lighter, "LEFT_OUT", {"no_such_a": {}, "no_such_b": {}})
    names = iter(("no_such_a", "no_such_b"))
    calls = []

    def step() -> int:
        calls.append(1)
        if (name := next(names, None)) is not None:
            monkeypatch.setitem(sys.modules, name, sys)
        return len(calls)

    monkeypatch.setattr(lighter.State, "in_short", True)
    assert lighter.undisturbed(step) == 3
    assert lighter.undisturbed(step) == 4
    monkeypatch.setattr(lighter.State, "in_short", False)
    monkeypatch.delitem(sys.modules, "no_such_a")
    names = iter(("no_such_a",))
    assert lighter.undisturbed(step) == 5


def test_the_list_of_files_is_that_of_the_library() -> None:
    """Names from the end of a file are those that the library finds from its beginning."""
    from transformers.utils import import_utils

    class Module:
        fetch__all__ = staticmethod(import_utils.fetch__all__)

    lighter.list_files_once(Module)  # type: ignore[arg-type]
    for text in ("", "__all__ = ['A']\n", "x = 1\n__all__ = [\n  'A',\n  'B',\n]\n", "'__all__'\nx\n",
                 "__all__ = ['A']\n__all__ = ['B']\ny = __all__\n", "import __all__\n"):  # fmt: skip
        assert Module.fetch__all__(text) == import_utils.fetch__all__(text)


def test_other_versions_are_imported_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lighter, "installed", lambda name: "5.24.0")
    assert not lighter.compared()
    assert installed("no-such-package") == "none"


# What a build may spend


def loop_for_ever() -> None:
    """As a model's code may that catches every Exception."""
    while True:
        with suppress(Exception):
            time.sleep(0)


def fill(megabytes: int) -> None:
    """Hold so much memory, none of which a heap that was larger before has left over."""
    held = []
    for _ in range(megabytes):
        held.append(mmap.mmap(-1, 10**6))
        held[-1].write(b"x" * 10**6)
        time.sleep(0.005)


def test_a_loop_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MOST_S", 0.1)
    started = time.process_time()
    with pytest.raises(watch.TooMuchError), watch.watched():
        loop_for_ever()
    assert time.process_time() - started < 5


def test_a_build_that_makes_modules_has_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a second of work: stopped at half of it where no module is made, and let through where they are."""
    monkeypatch.setattr(watch, "MOST_S", 1.2)
    monkeypatch.setattr(watch, "SHARE_OF_BEFORE", 1e6)

    def work(makes: bool) -> None:
        ends = time.thread_time() + 0.8
        while time.thread_time() < ends:
            watch.Progress.made += makes

    with watch.watched():
        work(True)
    with pytest.raises(watch.TooMuchError), watch.watched():
        work(False)


def test_memory_that_grows_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MOST_MEMORY_BYTES", 20_000_000)
    monkeypatch.setattr(watch, "MOST_S", 60.0)
    if not watch.resident_bytes():
        pytest.skip("this system does not say how much memory a process holds")
    with pytest.raises(watch.TooMuchError), watch.watched():
        fill(400)


def test_nothing_is_raised_after_a_build_that_was_in_time() -> None:
    for _ in range(20):
        with watch.watched():
            pass
    time.sleep(2 * watch.EVERY_S)


def test_a_config_of_very_many_values_is_refused_where_something_is_built_from_them() -> None:
    many = [1] * (checks.MOST_VALUES + 1)
    with pytest.raises(ConfigError, match="more than 100000 values, up to text_config.x"):
        checks.check({"model_type": "helium", "text_config": {"x": many}})
    with pytest.raises(ConfigError, match="more than 100000 values"):
        checks.check({f"x{number}": 1 for number in range(checks.MOST_VALUES + 1)})
    checks.check({"model_type": "helium", "quantization_config": {"ignore": many}})


def test_a_config_on_which_transformers_loops_is_refused() -> None:
    pytest.importorskip("transformers.models.inkling")
    config = {
        "model_type": "inkling_mm_model",
        "architectures": ["InklingForConditionalGeneration"],
        "vision_config": {"model_type": "inkling_vision", "patch_size": 0},
    }
    with pytest.raises(ConfigError, match="bounded time and memory|expected"):
        build_model(config)
