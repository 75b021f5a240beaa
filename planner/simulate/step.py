"""One forward and backward pass under the tracker, and the optimizer's step."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from ..schema import Images
from ..selective import SELECTIVE
from ..setup import Setup
from .attention import RESULTS
from .choosing import contexts
from .images import given, image_inputs
from .kernels import CudaKernels
from .layers import Stack
from .losses import by_chances
from .model import Made, dtype_of
from .pieces import let_pieces_go
from .preferences import Preferences
from .scans import scan_kernels
from .timeline import GRADIENTS, Place, Recording
from .tracker import Tracker

BLOCK_BYTES = 512  # what the CUDA caching allocator rounds a request up to


class _Form:
    """The form in which layers hand on what they make: a tensor, or a tuple of one and of other things.

    The others are known by weak reference: whoever calls the layers holds them, as without us.
    """

    def __init__(self) -> None:
        self.rest: tuple[Any, ...] | None = None

    def note(self, module: Any, args: Any, out: Any) -> None:
        """A hook after a layer that ran."""
        self.rest = None
        if isinstance(out, tuple):
            self.rest = tuple(
                weakref.ref(x) if isinstance(x, torch.Tensor) else lambda x=x: x for x in out[1:]
            )

    def give(self, hidden: Any) -> Any:
        """Hidden states in this form, with what the last layer gave beside them."""
        return hidden if self.rest is None else (hidden, *(each() for each in self.rest))


class _Skip(torch.nn.Module):  # type: ignore[misc]
    """Stands where a layer does not run: hands on what comes in. Has the layer's plain attributes, by which some
    models choose what they give to it."""

    def __init__(self, form: _Form, layer: Any) -> None:
        super().__init__()
        self.form = form
        for name, value in vars(layer).items():
            if name not in vars(self):
                object.__setattr__(self, name, value)

    def forward(self, hidden: Any = None, *args: Any, **kwargs: Any) -> Any:
        return self.form.give(kwargs["hidden_states"] if hidden is None else hidden)


@contextmanager
def only(model: Any, stacks: Iterable[Stack]) -> Iterator[None]:
    """The model with its chosen layers alone; what is left out hands on its input."""
    replaced: list[tuple[Any, str, Any]] = []
    handles = []
    try:
        for stack in stacks:
            modules = model.get_submodule(stack.path)
            form = _Form()
            handles += [modules[index].register_forward_hook(form.note) for index in stack.chosen]
            for index in set(range(len(modules))) - set(stack.chosen):
                replaced.append((modules, str(index), modules[index]))
                modules._modules[str(index)] = _Skip(form, modules[index])
        yield
    finally:
        for handle in handles:
            handle.remove()
        for modules, name, layer in replaced:
            modules._modules[name] = layer


@contextmanager
def watched(model: Any, tracker: Tracker, stacks: Iterable[Stack], head: Any, setup: Setup) -> Iterator[None]:
    """The tracker told which layer runs, where the unembedding begins, and which memory holds gradients."""
    handles = []
    for stack in stacks:
        modules = model.get_submodule(stack.path)
        for index in stack.chosen:
            place = Place("forward", "layer", stack.path, index)
            handles.append(modules[index].register_forward_pre_hook(_enter(tracker, place)))
        after = Place("forward", "after", stack.path)
        handles.append(modules[stack.chosen[-1]].register_forward_hook(_enter(tracker, after)))
    if head is not None:
        handles.append(head.register_forward_pre_hook(_enter(tracker, Place("forward", "head"))))
    seen = _use_at_once if setup.optimizer_in_backward else lambda parameter: None

    def gradient(parameter: Any) -> None:
        tracker.label(parameter.grad, GRADIENTS)
        seen(parameter)

    trained = [p for p in model.parameters() if p.requires_grad]
    handles += [p.register_post_accumulate_grad_hook(gradient) for p in trained]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _use_at_once(parameter: Any) -> None:
    """The optimizer's step inside the backward pass: the gradient is used up where it is made."""
    parameter.grad = None


def _enter(tracker: Tracker, place: Place) -> Any:
    def hook(*_: Any) -> None:
        tracker.enter(place)

    return hook


def checkpointed(model: Any, tracker: Tracker, kernels: CudaKernels, setup: Setup) -> None:
    """Switch on checkpointing of layers as transformers does, reentrant or not, seen by the tracker; with offload,
    what a layer needs to run again waits in host memory; selective, some results are kept (planner/selective.py)."""
    offload, reentrant = setup.checkpointing == "layer-offload", setup.reentrant
    selective = setup.checkpointing == SELECTIVE
    beside = {"context_fn": contexts} if selective else {}

    def run(function: Any, *args: Any, **kwargs: Any) -> Any:
        place: Place | None = None

        def watch(*inner: Any, **more: Any) -> Any:
            nonlocal place
            if place is None:
                place = tracker.place
                with kernels.ungraded() if reentrant else nullcontext():
                    return function(*inner, **more)
            chosen = RESULTS.are("kept") if selective else nullcontext()
            with tracker.recompute(), kernels, kernels.forward(), chosen:
                tracker.enter(place)
                return function(*inner, **more)

        with saved_tensors_hooks(_away, _back) if offload else nullcontext():
            return checkpoint(watch, *args, use_reentrant=reentrant, **beside, **kwargs)

    model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=run)


def _away(tensor: Any) -> Any:
    """A tensor as host memory keeps it: its form, and nothing on the device."""
    return tensor.shape, tensor.dtype, tensor.device


def _back(form: Any) -> Any:
    shape, dtype, device = form
    return torch.empty(shape, dtype=dtype, device=device)


def inputs(model: Any, setup: Setup, device: str = "meta", images: Images | None = None) -> dict[str, Any]:
    """Tokens and their labels, or one of every sequence for a classifier, and a mask where shorter sequences are
    padded or packed; for a model of sound, features and the labels of its decoder; the images of every sequence."""
    config = model.config
    shape = setup.sequences, setup.seq_len
    ids = torch.zeros(shape, dtype=torch.long, device=device)
    if getattr(model, "main_input_name", "") == "input_features" and hasattr(config, "num_mel_bins"):
        frames = 2 * config.max_source_positions
        dtype = next(model.parameters()).dtype
        features = torch.zeros(setup.micro_batch, config.num_mel_bins, frames, dtype=dtype, device=device)
        return {"input_features": features, "labels": ids}
    found = {"input_ids": ids, "labels": _of_sequences(ids, config) if _classifies(model) else ids.clone()}
    if getattr(config, "is_encoder_decoder", False):
        found["decoder_input_ids"] = ids.clone()
    if is_masked(setup):
        found["attention_mask"] = torch.ones(shape, dtype=torch.long, device=device)
    return found if images is None else {**found, **image_inputs(model, images, setup, ids)}


def _classifies(model: Any) -> bool:
    """Whether a model, or that which PEFT holds, classifies sequences."""
    base = getattr(model, "get_base_model", lambda: model)()
    return type(base).__name__.endswith("ForSequenceClassification")


def _of_sequences(ids: Any, config: Any) -> Any:
    """A label of every sequence: a class, or a number where there is one output alone."""
    return ids.new_zeros(ids.shape[0], dtype=torch.long if config.num_labels > 1 else torch.float32)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the cycle collector, which would free memory at moments of its own and takes longer than a step."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def is_masked(setup: Setup) -> bool:
    """Whether attention is given a mask: sequences are padded or packed, and the kernel does not take lengths."""
    return setup.packing != "full" and setup.attention_kernel != "flash"


@dataclass(frozen=True)
class Run:
    """How a step is run beside its set-up: `cuda` with CUDA's kernels in place of the general ones; `keep_outputs`
    with the model's outputs held until the step ends, as a loop that names them does; on which device."""

    cuda: bool = True
    keep_outputs: bool = False
    device: str = "meta"


PLAIN = Run()


def run(
    made: Made, setup: Setup, stacks: list[Stack], tracker: Tracker, how: Run = PLAIN,
) -> Recording:  # fmt: skip
    """One forward and backward pass of the chosen layers, recorded. With accumulation it is a later one of its
    micro-steps, that finds gradients."""
    model, kernels = made.model, _kernels(made, setup, tracker, how)
    if setup.checkpointing != "none":
        checkpointed(model, tracker, kernels, setup)
    if setup.accumulation > 1 or setup.gradients_kept:
        give_gradients(model)
    with _entered(made, setup, stacks, tracker, how) as batch:
        with kernels, kernels.forward(), given(model, made.images, setup, how.device):
            # Logits and all else that the model returns are dropped at once, as most trainers do.
            outputs: Any = None if by_chances(setup) else model(**batch)
            loss = outputs.loss if outputs else Preferences(made, setup, tracker, kernels).loss(batch)
            widens = setup.outputs_widened and kernels.autocast is not None
            if widens and getattr(outputs, "logits", None) is not None:
                outputs.logits = outputs.logits.float()
            if not (how.keep_outputs or setup.outputs_held):
                del outputs
        tracker.label_alive()
        loss.backward()
        tracker.enter(Place("backward", "end"))
        del loss  # and the graph with what its nodes hold
        let_pieces_go(model)
    return tracker.recording


def evaluate(made: Made, setup: Setup, stacks: list[Stack], tracker: Tracker, how: Run = PLAIN) -> Recording:
    """The forward pass and the loss of an evaluation, recorded: no gradients, no dropout, no layers run again."""
    model, kernels = made.model, _kernels(made, setup, tracker, how)
    model.eval()
    try:
        with torch.no_grad(), _entered(made, setup, stacks, tracker, how) as batch, kernels.ungraded():
            with kernels, kernels.forward(), given(model, made.images, setup, how.device):
                outputs: Any = None if by_chances(setup) else model(**batch)
                loss = outputs.loss if outputs else Preferences(made, setup, tracker, kernels).loss(batch)
                if setup.outputs_widened and kernels.autocast is not None and outputs is not None:
                    outputs.logits = outputs.logits.float()
                del outputs
                let_pieces_go(model)
            del loss
    finally:
        model.train()
    return tracker.recording


def _kernels(made: Made, setup: Setup, tracker: Tracker, how: Run) -> CudaKernels:
    """CUDA's ways for a set-up."""
    tracker.cuda = how.cuda
    compute = dtype_of(setup.compute_dtype)
    autocast = compute if setup.under_autocast else None
    maths = setup.attention_kernel == "math"
    masked, length = is_masked(setup), setup.seq_len
    return CudaKernels(tracker, autocast, how.cuda, made.pairs, masked, compute, maths, length)


@contextmanager
def _entered(
    made: Made, setup: Setup, stacks: list[Stack], tracker: Tracker, how: Run
) -> Iterator[dict[str, Any]]:
    """The tracker at the start of a pass of the chosen layers, and the pass's inputs."""
    model = made.model
    batch = inputs(model, setup, how.device, made.images)
    tracker.ignore(held(model))
    head = model.get_output_embeddings()
    scans = scan_kernels(model, tracker) if how.cuda else nullcontext()
    with uncollected(), only(model, stacks), watched(model, tracker, stacks, head, setup), scans, tracker:
        tracker.enter(Place("forward", "start"))
        for tensor in batch.values():
            tracker.see(tensor)
        yield batch


def give_gradients(model: Any) -> None:
    """A gradient for every trained parameter, as earlier micro-steps leave them."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)


def held(model: Any) -> list[Any]:
    """What a model holds when a step begins: parameters, buffers and gradients."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [*model.parameters(), *model.buffers(), *gradients]
