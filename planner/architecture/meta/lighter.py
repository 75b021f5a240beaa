"""A shorter import of transformers, for a command that builds a model on the meta device and ends.

What only compiling and training on many GPUs need (torch's compiler, its sharded tensors and checkpoints, scipy's
optimisers) is left out of the import, and one list of files is made once instead of twice. What is left out stands as
objects that import the real thing when they are used; any other use of such a module imports the real one at once.
Only for the versions on which this was compared with the ordinary import, model by model; others come in as usual.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from operator import attrgetter
from types import ModuleType
from typing import Any

from ... import process
from .installed import installed

# Beginnings of the versions that tools/compare_lighter_import.py compared.
COMPARED = {"transformers": "5.23.", "torch": "2.13."}
LISTS_FILES = "transformers.utils.import_utils"


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

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[Any, ...]:
        """The real class, to be a base of another."""
        return (self._real(),)

    def __or__(self, other: object) -> Any:
        """In an annotation."""
        return Any

    __ror__ = __or__


def _later(module: str, names: str, *, give_later: bool = False) -> dict[str, Any]:
    return {name: Later(module, attrgetter(name), gives_later=give_later) for name in names.split()}


TENSOR, FSDP, STORAGE = "torch.distributed.tensor", "torch.distributed.fsdp", "torch.distributed.checkpoint"
TRACING = "torch._dynamo._trace_wrapped_higher_order_op"
# What transformers takes from the modules at its import, by module, outer modules first.
LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "torch._dynamo": dict.fromkeys(
        ("disable", "allow_in_graph", "assume_constant_result", "mark_static_address"), _mark
    ),
    TRACING: _later(TRACING, "TransformGetItemToIndex"),
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
    "scipy.optimize": _later("scipy.optimize", "linear_sum_assignment"),
}


class LeftOut(ModuleType):
    """Stands for a module while transformers is imported."""

    def __getattr__(self, name: str) -> Any:
        """What it stands for, or the real module's where something else is asked for."""
        if name in LEFT_OUT[self.__name__]:
            return LEFT_OUT[self.__name__][name]
        if name.startswith("__"):
            raise AttributeError(name)
        put_back()
        return getattr(import_module(self.__name__), name)


class Finder(MetaPathFinder, Loader):
    """Finds the modules that are left out, and the one that lists files."""

    def __init__(self) -> None:
        self.ordinary: Any = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that this module stands for."""
        if fullname in LEFT_OUT:
            return ModuleSpec(fullname, self, is_package=True)
        if fullname.rpartition(".")[0] in LEFT_OUT:
            put_back()
            outer = import_module(fullname.rpartition(".")[0])
            return PathFinder.find_spec(fullname, outer.__path__)
        if fullname == LISTS_FILES and (found := PathFinder.find_spec(fullname, path)) is not None:
            self.ordinary, found.loader = found.loader, self
            return found
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """An empty module."""
        return LeftOut(spec.name) if spec.name in LEFT_OUT else None

    def exec_module(self, module: ModuleType) -> None:
        """Nothing for a module that is left out."""
        if module.__name__ == LISTS_FILES:
            self.ordinary.exec_module(module)
            list_files_once(module)


def list_files_once(module: ModuleType) -> None:
    """Let it keep every list of a folder's names (it keeps 128, fewer than there are models, and asks twice), and
    look for a file's list of names, the last there, from its end."""
    lister, names = (
        getattr(module, name, None) for name in ("create_import_structure_from_path", "fetch__all__")
    )
    if (listing := getattr(lister, "__wrapped__", None)) is not None:
        module.create_import_structure_from_path = functools.cache(listing)  # type: ignore[attr-defined]
    if names is not None:
        module.fetch__all__ = lambda text: names(text[max(text.rfind("\n__all__"), 0) :])  # type: ignore[attr-defined]


def put_back() -> None:
    """Take every module that stands for another out of the way, so that the next import finds the real one."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    for name in LEFT_OUT:
        if isinstance(sys.modules.get(name), LeftOut):
            del sys.modules[name]
        outer, _, inner = name.rpartition(".")
        if isinstance(vars(sys.modules.get(outer, sys)).get(inner), LeftOut):
            delattr(sys.modules[outer], inner)


@contextmanager
def lighter_import() -> Iterator[None]:
    """Import transformers without what is left out, where that is safe."""
    if not process.ends_soon or "transformers" in sys.modules or not compared():
        yield
        return
    sys.meta_path.insert(0, Finder())
    try:
        yield
    finally:
        put_back()


def compared() -> bool:
    """Whether the installed versions are those that were compared."""
    return all(installed(name).startswith(beginning) for name, beginning in COMPARED.items())
