"""A shorter import of transformers, for a command that works with models on the meta device and ends.

What only compiling and training on many GPUs need (torch's compiler, its sharded tensors and checkpoints, shapes that
are symbols, scipy's optimisers) is left out, and one list of files is made once instead of twice. What is left out
stands as objects that import the real thing when they are used; any other use of such a module imports the real one.
Only for the versions on which this was compared with the ordinary import, model by model; others come in as usual.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from operator import attrgetter
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any, TypeVar

from ... import process
from .installed import installed
from .listed import kept

# Beginnings of the versions that tools/compare_lighter_import.py compared.
COMPARED = {"transformers": "5.23.", "torch": "2.13."}
LISTS_FILES = "transformers.utils.import_utils"
OF_TORCH = "library"
REGISTERS = f"torch.{OF_TORCH}"
Result = TypeVar("Result")


def _mark(function: Any = None, *_: object, **__: object) -> Any:
    """A mark for torch's compiler, which a command that ends without compiling anything does not need."""
    return (lambda marked: marked) if function is None else function


class Later:
    """Stands for a class or function of a module, or for what calling it gives: imported when it is used.

    Nothing is an instance of a class whose module nobody has imported.
    """

    def __init__(self, module: str, find: Callable[[ModuleType], Any], *, gives_later: bool = False) -> None:
        self._module, self._find, self._gives_later = module, find, gives_later

    def _real(self) -> Any:
        put_back()
        return self._find(import_module(self._module))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the real one gives."""
        if self._gives_later:
            return Later(self._module, lambda module: self._find(module)(*args, **kwargs))
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the real one."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __instancecheck__(self, value: object) -> bool:
        """Whether the value is one of the real class."""
        module = sys.modules.get(self._module)
        return module is not None and type(module) is not LeftOut and isinstance(value, self._real())

    def __subclasscheck__(self, kind: type) -> bool:
        """Whether a class is derived of the real one."""
        return issubclass(kind, self._real())

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[Any, ...]:
        """The real class, to be a base of another."""
        return (self._real(),)

    def __or__(self, other: object) -> Any:
        """In an annotation."""
        return Any

    __ror__ = __or__


class Told:
    """Stands for a function of shapes that may be symbols: answered here where they are plain numbers, which
    is what the real one does of those, and else by the real one."""

    def __init__(self, name: str, plain: Callable[..., bool], answer: Callable[..., Any]) -> None:
        self._real, self._plain, self._answer = Later(SHAPES, attrgetter(name)), plain, answer

    def __call__(self, *values: Any, **more: Any) -> Any:
        """What the real one gives."""
        return self._answer(*values) if not more and self._plain(*values) else self._real(*values, **more)


def _truths(*values: Any) -> bool:
    return all(type(value) is bool for value in values)


def _truth(*values: Any) -> bool:
    return len(values) == 1 and type(values[0]) is bool


def _number(value: Any) -> bool:
    return type(value) is int


def _settled(tensor: Any) -> bool:
    """Whether this is a tensor all of whose sides are numbers."""
    return getattr(tensor, "_has_symbolic_sizes_strides", None) is False


def _no_symbols(_: Any) -> Any:
    return import_module("torch.utils._ordered_set").OrderedSet()


def _whole(*values: Any) -> bool:
    """Whether these are numbers, or lists of numbers."""
    return all(
        type(value) is int
        or (isinstance(value, (list, tuple)) and all(type(entry) is int for entry in value))
        for value in values
    )


def _alike(a: Any, b: Any) -> bool:
    """Whether both are numbers, or both lists of them."""
    return _whole(a, b) and isinstance(a, int) == isinstance(b, int)


def _itself(value: Any) -> Any:
    return value


def _later(module: str, names: str, *, give_later: bool = False) -> dict[str, Any]:
    return {name: Later(module, attrgetter(name), gives_later=give_later) for name in names.split()}


TENSOR, FSDP, STORAGE = "torch.distributed.tensor", "torch.distributed.fsdp", "torch.distributed.checkpoint"
SHAPES = "torch.fx.experimental.symbolic_shapes"
# What is taken from the modules, by transformers at its import and by torch at work, by module, outer modules first.
LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "torch._dynamo": dict.fromkeys(
        ("disable", "allow_in_graph", "assume_constant_result", "mark_static_address", "graph_break"), _mark
    ),
    TENSOR: {
        **_later(TENSOR, "DTensor distribute_tensor"),
        **_later(TENSOR, "Shard Replicate Partial", give_later=True),
    },
    f"{TENSOR}._utils": _later(f"{TENSOR}._utils", "compute_local_shape_and_global_offset"),
    f"{TENSOR}.placement_types": _later(
        f"{TENSOR}.placement_types", "Shard Replicate Partial _StridedShard", give_later=True
    ),
    FSDP: _later(FSDP, "CPUOffloadPolicy MixedPrecisionPolicy FullyShardedDataParallel"),
    "torch.distributed._composable.fsdp": _later("torch.distributed._composable.fsdp", "fully_shard"),
    STORAGE: {},
    f"{STORAGE}.hf_storage": _later(
        f"{STORAGE}.hf_storage", "HuggingFaceStorageReader HuggingFaceStorageWriter"
    ),
    SHAPES: {
        **{
            name: Told(name, _truth, _itself)
            for name in (
                "expect_true",
                "guard_bool",
                "guard_or_false",
                "guard_or_true",
                "guard_size_oblivious",
                "statically_known_true",
            )
        },
        "guard_int": Told("guard_int", _number, _itself),
        "sym_and": Told("sym_and", _truths, lambda *values: all(values)),
        "sym_or": Told("sym_or", _truths, lambda *values: any(values)),
        "sym_eq": Told("sym_eq", _alike, lambda a, b: a == b if isinstance(a, int) else [*a] == [*b]),
        "is_nested_int": Told("is_nested_int", _number, lambda value: False),
        "free_unbacked_symbols": Told("free_unbacked_symbols", _settled, _no_symbols),
        **_later(
            SHAPES, "has_guarding_hint guarding_hint_or_throw constrain_range _constrain_range_for_size"
        ),
    },
    "sympy": _later("sympy", "Basic"),
    "torch.utils._sympy.functions": _later("torch.utils._sympy.functions", "Max"),
    "scipy.optimize": _later("scipy.optimize", "linear_sum_assignment"),
}


# Modules of packages that are left out which need nothing of them, and come in alone.
ALONE = ("torch._dynamo.config", "torch._dynamo._trace_wrapped_higher_order_op")


class LeftOut(ModuleType):
    """Stands for a module while transformers is imported."""

    def __getattr__(self, name: str) -> Any:
        """What it stands for, or the real module's where something else is asked for."""
        if name in LEFT_OUT[self.__name__]:
            return LEFT_OUT[self.__name__][name]
        if f"{self.__name__}.{name}" in ALONE:
            return import_module(f"{self.__name__}.{name}")
        if name.startswith("__"):
            raise AttributeError(name)
        put_back()
        return getattr(import_module(self.__name__), name)


class Finder(MetaPathFinder, Loader):
    """Finds the modules that are left out, and the one that lists files."""

    def __init__(self) -> None:
        self.ordinary: dict[str, Any] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that this module stands for."""
        if fullname in LEFT_OUT:
            return ModuleSpec(fullname, self, is_package=True)
        if fullname in ALONE:
            name = fullname.rpartition(".")[0]
            package = PathFinder.find_spec(name, sys.modules[name.rpartition(".")[0]].__path__)
            return PathFinder.find_spec(fullname, package.submodule_search_locations) if package else None
        if fullname.rpartition(".")[0] in LEFT_OUT:
            put_back()
            outer = import_module(fullname.rpartition(".")[0])
            return PathFinder.find_spec(fullname, outer.__path__)
        if fullname in SHORTENED and (found := PathFinder.find_spec(fullname, path)) is not None:
            self.ordinary[fullname], found.loader = found.loader, self
            return found
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """An empty module."""
        if spec.name not in LEFT_OUT:
            return None
        module = LeftOut(spec.name)
        vars(module).update(LEFT_OUT[spec.name])  # found faster than by __getattr__: torch asks 30,000 times
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing for a module that is left out."""
        if module.__name__ in SHORTENED:
            self.ordinary[module.__name__].exec_module(module)
            SHORTENED[module.__name__](module)


def list_files_once(module: ModuleType) -> None:
    """Let it keep every list of a folder's names (it keeps 128, fewer than there are models, and asks twice), that of
    all models on disk, and look for a file's list of names, the last there, from its end."""
    lister, names, define = (
        getattr(module, name, None)
        for name in ("create_import_structure_from_path", "fetch__all__", "define_import_structure")
    )
    if (listing := getattr(lister, "__wrapped__", None)) is not None:
        module.create_import_structure_from_path = functools.cache(listing)  # type: ignore[attr-defined]
    if define is not None:
        models = os.path.join(os.path.dirname(os.path.dirname(str(module.__file__))), "models")
        module.define_import_structure = kept(define, models, installed("transformers"))  # type: ignore[attr-defined]
    if names is not None:
        module.fetch__all__ = lambda text: names(text[max(text.rfind("\n__all__"), 0) :])  # type: ignore[attr-defined]


def name_callers(module: ModuleType) -> None:
    """Let torch's registrations of operators take their caller from its frame. inspect goes through the files of all
    modules for it."""
    if module.__name__ == REGISTERS:
        module.inspect = SimpleNamespace(getmodule=_module_of)  # type: ignore[attr-defined]
    else:
        module.get_source = _place_of  # type: ignore[attr-defined]


def _module_of(frame: FrameType) -> ModuleType | None:
    return sys.modules.get(frame.f_globals["__name__"])


def _place_of(level: int) -> str:
    """The file and line of a caller so many levels up."""
    frame = sys._getframe(level)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class LaterPattern:
    """Stands for a regular expression, compiled when it is used."""

    def __init__(self, *given: Any) -> None:
        self._given = given

    def __getattr__(self, name: str) -> Any:
        """What the expression has."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(re.compile(*self._given), name)


def compile_later(module: ModuleType) -> None:
    """Let transformers make its rules for checkpoints of all models, of which PEFT asks for those of one, without
    compiling the thousand expressions of the others."""
    module.re = SimpleNamespace(**{**vars(re), "compile": LaterPattern})  # type: ignore[attr-defined]


# Modules that are changed a little once they are imported.
SHORTENED: Mapping[str, Callable[[ModuleType], None]] = {
    LISTS_FILES: list_files_once, REGISTERS: name_callers, "torch._library.utils": name_callers,
    "transformers.core_model_loading": compile_later,
}  # fmt: skip


def put_back() -> None:
    """Take every module that stands for another out of the way, so that the next import finds the real one. As an
    attribute of its package it stays until then: whoever reads it there has not imported it."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    for name in LEFT_OUT:
        if isinstance(sys.modules.get(name), LeftOut):
            del sys.modules[name]


class State:
    """Whether something was left out in this process."""

    in_short = False


@contextmanager
def lighter_import() -> Iterator[None]:
    """Import transformers without what is left out, where that is safe."""
    whole = "transformers" in sys.modules and not State.in_short
    if not process.ends_soon or whole or not compared():
        yield
        return
    State.in_short = True
    sys.meta_path.insert(0, Finder())
    try:
        yield
    finally:
        put_back()


def undisturbed(step: Callable[[], Result]) -> Result:
    """What a step gives, done again where it brought in what was left out: a module may keep an exception of its
    import, and with it the frames of the step and all that they hold."""
    before = _came_in()
    found = step()
    while State.in_short and _came_in() != before:
        before = _came_in()
        found = step()
    return found


def _came_in() -> int:
    """How many of the modules that are left out are there after all."""
    return sum(name in sys.modules and not isinstance(sys.modules[name], LeftOut) for name in LEFT_OUT)


def compared() -> bool:
    """Whether the installed versions are those that were compared."""
    return all(installed(name).startswith(beginning) for name, beginning in COMPARED.items())
