"""One forward and backward pass under the tracker, and the optimizer's step."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..setup import Setup
from .kernels import CudaKernels
from .layers import Stack
from .timeline import Place, Recording
from .tracker import Tracker

BLOCK_BYTES = 512  # what the CUDA caching allocator rounds a request up to


class _Skip(torch.nn.Module):  # type: ignore[misc]
    """Stands where a layer does not run: hands on what comes in, in the form in which the layer before gave it."""

    def __init__(self, form: dict[str, Any]) -> None:
        super().__init__()
        self.form = form

    def forward(self, hidden: Any = None, *args: Any, **kwargs: Any) -> Any:
        if hidden is None:
            hidden = kwargs["hidden_states"]
        return (hidden, *self.form["rest"]) if self.form["tuple"] else hidden


def _attribute(module: Any, name: str, default: Any = None) -> Any:
    return getattr(module, name, default)


@contextmanager
def only(model: Any, stacks: Iterable[Stack]) -> Iterator[None]:
    """The model with its chosen layers alone; what is left out hands on its input."""
    replaced: list[tuple[Any, str, Any]] = []
    handles = []
    try:
        for stack in stacks:
            modules = model.get_submodule(stack.path)
            form: dict[str, Any] = {"tuple": False, "rest": ()}

            def note(module: Any, args: Any, out: Any, form: dict[str, Any] = form) -> None:
                form["tuple"] = isinstance(out, tuple)
                form["rest"] = tuple(None for _ in out[1:]) if isinstance(out, tuple) else ()

            for index in stack.chosen:
                handles.append(modules[index].register_forward_hook(note))
            for index in set(range(len(modules))) - set(stack.chosen):
                replaced.append((modules, str(index), modules[index]))
                modules._modules[str(index)] = _Skip(form)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for modules, name, layer in replaced:
            modules._modules[name] = layer


@contextmanager
def watched(model: Any, tracker: Tracker, stacks: Iterable[Stack], head: Any) -> Iterator[None]:
    """The tracker told which layer runs, where the unembedding begins, and which memory holds gradients."""
    handles = []
    for stack in stacks:
        modules = model.get_submodule(stack.path)
        last = stack.chosen[-1]
        for index in stack.chosen:
            place = Place("forward", "layer", stack.path, index)
            handles.append(modules[index].register_forward_pre_hook(_enter(tracker, place)))
        after = Place("forward", "after", stack.path)
        handles.append(modules[last].register_forward_hook(_enter(tracker, after)))
    if head is not None:
        handles.append(head.register_forward_pre_hook(_enter(tracker, Place("forward", "head"))))
    for parameter in model.parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_post_accumulate_grad_hook(tracker.gradient_hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(tracker: Tracker, place: Place) -> Any:
    def hook(*_: Any) -> None:
        tracker.enter(place)

    return hook


def checkpointed(model: Any, tracker: Tracker, kernels: CudaKernels) -> None:
    """Switch on checkpointing of layers as transformers does (not reentrant), seen by the tracker."""

    def run(function: Any, *args: Any, **kwargs: Any) -> Any:
        seen = False

        def watch(*inner: Any, **more: Any) -> Any:
            nonlocal seen
            if not seen:
                seen = True
                return function(*inner, **more)
            with tracker.recompute(), kernels, kernels.forward():
                return function(*inner, **more)

        return checkpoint(watch, *args, use_reentrant=False, **kwargs)

    model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=run)


def inputs(model: Any, setup: Setup, device: str = "meta") -> dict[str, Any]:
    """Tokens and their labels."""
    shape = setup.micro_batch, setup.seq_len
    ids = torch.zeros(shape, dtype=torch.long, device=device)
    return {"input_ids": ids, "labels": ids.clone()}


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the cycle collector, which would free memory at moments of its own."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def run(
    model: Any, setup: Setup, stacks: list[Stack], tracker: Tracker, batch: Mapping[str, Any],
    cuda: bool = True,
) -> Recording:  # fmt: skip
    """One forward and backward pass of the chosen layers, recorded."""
    kernels = CudaKernels(tracker, torch.bfloat16 if setup.under_autocast else None, cuda)
    if setup.checkpointing != "none":
        checkpointed(model, tracker, kernels)
    tracker.ignore((*model.parameters(), *model.buffers()))
    head = model.get_output_embeddings()
    with uncollected(), only(model, stacks), watched(model, tracker, stacks, head), tracker:
        tracker.enter(Place("forward", "start"))
        for tensor in batch.values():
            tracker.see(tensor)
        with kernels, kernels.forward():
            # Logits and all else that the model returns are dropped, as trainers do.
            loss = model(**batch).loss
        tracker.label_alive()
        loss.backward()
        del loss
    return tracker.recording
