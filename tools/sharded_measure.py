"""What one process of a spread step holds and sends: measured in a real step on the CPU.

Processes are forked, as many as the case has, and talk by gloo; with `fake` one process stands for the first of them
and torch's fake group for the others, which moves nothing but takes the same memory and is asked for the same
collectives.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from .measured_memory import LORA, allocated, checkpointed, real
from .sharded_cases import CONFIGS, Case, cases
from .sharded_layouts import Spread, spread, trained

Record = dict[str, Any]
SETTLES_S = 0.05


def local(tensor: Any) -> Any:
    """This process's part of a tensor."""
    return tensor._local_tensor if hasattr(tensor, "_local_tensor") else tensor


def nbytes(tensors: Any) -> int:
    """Bytes that this process holds of tensors, each stretch of memory once."""
    found = {}
    for tensor in map(local, tensors):
        found[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(found.values())


def storages(tensors: Any) -> int:
    """Bytes of the storages of tensors, whatever else lies in them."""
    found = {
        local(tensor).untyped_storage()._cdata: local(tensor).untyped_storage().nbytes() for tensor in tensors
    }
    return sum(found.values())


COLLECTIVES = {
    "allreduce": "all_reduce", "all_reduce": "all_reduce", "allgather": "all_gather",
    "all_gather_into_tensor": "all_gather", "reduce_scatter": "reduce_scatter", "alltoall": "all_to_all",
    "all_to_all_single": "all_to_all", "broadcast": "broadcast", "send": "send", "recv": "receive",
}  # fmt: skip


class Calls(TorchDispatchMode):  # type: ignore[misc]
    """Counts collectives by kind and bytes: of what is gathered the whole, of what is reduced what goes in."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func.namespace in ("c10d", "_c10d_functional", "_c10d_functional_autograd"):
            name = func._opname
            kind = next((COLLECTIVES[word] for word in COLLECTIVES if word in name.lstrip("_")), None)
            if kind is not None:
                tensors = _tensors(args[0]) if name == "allgather_" else None
                size = (
                    sum(t.nbytes for t in tensors)
                    if tensors
                    else max(t.nbytes for t in _tensors((args, made)))
                )
                self.found[kind, size] += 1
        return made


def _tensors(tree: Any) -> list[Any]:
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def ids(case: Case) -> torch.Tensor:
    """A micro-batch."""
    sequences, tokens = case.shape
    return torch.arange(sequences * tokens).remainder(300).reshape(sequences, tokens)


def step_of(made: Spread, case: Case) -> None:
    """A whole step, up to the optimizer's."""
    for number in range(case.micro_steps):
        waits = case.waits and number < case.micro_steps - 1
        with made.around(), made.alone() if waits else nullcontext():
            made.forward(ids(case)).backward()


def measure(case: Case) -> Record:
    """The figures of this process."""
    torch.manual_seed(0)
    made = spread(_prepared(case), case)
    calls = Calls()
    with calls:
        step_of(made, case)
        made.optimizer.step()
    own = trained(made.model)
    frozen = [p for p in made.model.parameters() if not p.requires_grad]
    found: Record = {
        "weights": nbytes(frozen), "trained": nbytes(own),
        "gradients": storages(p.grad for p in own if p.grad is not None),
        "optimizer": states_of(made.optimizer),
        "sent": sorted([*what, times] for what, times in calls.found.items()),
    }  # fmt: skip
    if case.micro_steps == 1 or case.waits:  # else the one measured adds to the gradients of the one before
        made.optimizer.zero_grad()
    return {**found, **_passes(made, case)}


def _prepared(case: Case) -> Any:
    """The model of a case, whose layers are run again where it says so."""
    setup = case.alone().setup
    made = real(CONFIGS[case.model], LORA, setup)
    checkpointed(made, setup)
    return made.model.train()


def _passes(made: Spread, case: Case) -> Record:
    """What a forward pass leaves for its backward pass, and the most that both hold, gradients of the micro-step
    before among it. Where these wait it is the most of the whole step: they go in its last micro-step, and the
    profiler hears nothing of what goes that it has not heard of coming."""
    batch, before = ids(case), storages(p.grad for p in trained(made.model) if p.grad is not None)
    losses: list[Any] = []
    # First, as what the profiler has heard of coming must not go later; so the gradients stay.
    whole = allocated(lambda: step_of(made, case))[0] if case.waits else 0
    with made.around():
        forward, held = allocated(lambda: _settled(losses, made.forward(batch)))
        backward, _ = allocated(lambda: losses.pop().backward())
    return {"held": held, "top": whole or before + max(forward, held + backward)}


def _settled(losses: list[Any], loss: Any) -> None:
    """Take a loss, once threads that send have let go of what they sent."""
    losses.append(loss)
    time.sleep(SETTLES_S)


def states_of(optimizer: Any) -> int:
    """Bytes of an optimizer's states but for their counts of steps."""
    optimizer = getattr(optimizer, "optim", optimizer)
    return nbytes(
        value
        for state in optimizer.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and name != "step"
    )


def _process(rank: int, case: Case, store: str, out: str, fake: bool) -> None:
    torch.set_num_threads(1)
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the profiler's own lines
        if fake:
            from torch.testing._internal.distributed.fake_pg import FakeStore

            dist.init_process_group("fake", rank=rank, world_size=case.world, store=FakeStore())
        else:
            dist.init_process_group("gloo", rank=rank, world_size=case.world, init_method=f"file://{store}")
        found = measure(case)
        gc.collect()
    except BaseException:
        found = {"error": traceback.format_exc()}
    Path(out, f"{rank}.json").write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


def measured(case: Case, *, fake: bool = False) -> list[Record]:
    """The figures of every process, of the first alone where the others are `fake`."""
    import peft  # noqa: F401
    import transformers  # noqa: F401

    context = get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "store"))
        processes = [
            context.Process(target=_process, args=(rank, case, store, folder, fake))
            for rank in range(1 if fake else case.world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(len(processes))]


def main() -> None:
    """Measure the first process of the cases that are named, with a fake group, and print what it holds as JSON."""
    found = {case.name: measured(case, fake=True)[0] for case in cases() if case.name in sys.argv[1:]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
