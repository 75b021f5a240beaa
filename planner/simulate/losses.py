"""Losses that do not make float32 logits: a fused cross-entropy, and one that never holds all logits.

They replace the loss that transformers computes (logits cast to float32, log-softmax kept), by what Liger's kernels
allocate: liger-kernel 0.6, ops/cross_entropy.py and ops/fused_linear_cross_entropy.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..choices import PAST_PAIRS
from ..errors import InputError
from ..objective_rules import OF_THESE_ALONE
from ..setup import Setup
from .pieces import BY_PIECES, by_pieces


class FusedInPlace(torch.autograd.Function):  # type: ignore[misc]
    """Cross-entropy in one kernel: a float32 loss a row, and the gradient written over the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Any, labels: Any) -> Any:
        """The sum of all losses."""
        ctx.save_for_backward(logits.detach())
        losses = logits.new_empty(logits.shape[0], dtype=torch.float32)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """The gradient, where the logits were."""
        return ctx.saved_tensors[0], None


class FusedBeside(FusedInPlace):
    """The same with the gradient beside the logits."""

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """The gradient, in a new tensor."""
        return torch.empty_like(ctx.saved_tensors[0]), None


class _Compiled(torch.autograd.Function):  # type: ignore[misc]
    """Megatron's fused loss as torch compiles it: float32 probabilities, which the backward pass copies before it
    makes the logits' gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Any) -> Any:
        chances = torch.empty_like(logits, dtype=torch.float32)
        ctx.save_for_backward(chances)
        ctx.given = logits.dtype
        return logits.new_empty(logits.shape[0], dtype=torch.float32).sum()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (chances,) = ctx.saved_tensors
        written = torch.empty_like(chances)
        found = torch.empty_like(chances, dtype=ctx.given)
        del written
        return found


class _Wide(torch.autograd.Function):  # type: ignore[misc]
    """Megatron's loss of operations: a float32 copy of the logits, and one less their maximum, which becomes the
    probabilities and on the way back the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Any) -> Any:
        wide = logits.float()
        chances = torch.empty_like(wide)
        del wide
        ctx.save_for_backward(chances)
        ctx.given = logits.dtype
        return logits.new_empty(logits.shape[0], dtype=torch.float32).sum()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (chances,) = ctx.saved_tensors
        return torch.empty_like(chances, dtype=ctx.given)


class _WideInPlace(_Wide):
    """Megatron's later one, which makes probabilities in the float32 copy."""

    @staticmethod
    def forward(ctx: Any, logits: Any) -> Any:
        ctx.save_for_backward(logits.float())
        ctx.given = logits.dtype
        return logits.new_empty(logits.shape[0], dtype=torch.float32).sum()


class _Chunked(torch.autograd.Function):  # type: ignore[misc]
    """Unembedding and loss together, `chunk` rows at a time; gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, chunk: int) -> Any:
        wants = ctx.needs_input_grad
        d_hidden = torch.zeros_like(hidden) if wants[0] else None
        d_weight = torch.zeros_like(weight) if wants[1] else None
        losses = hidden.new_zeros(hidden.shape[0], dtype=torch.float32)
        for start in range(0, hidden.shape[0], chunk):
            rows = hidden[start : start + chunk]
            logits = torch.nn.functional.linear(rows, weight, bias)
            if d_hidden is not None:
                d_hidden[start : start + chunk] = logits @ weight
            if d_weight is not None:
                d_weight.addmm_(logits.t(), rows)
            del logits
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.bias = bias
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        d_hidden, d_weight = ctx.saved_tensors
        d_bias = torch.empty_like(ctx.bias) if ctx.needs_input_grad[2] else None
        return d_hidden, d_weight, d_bias, None


class _Through(nn.Module):  # type: ignore[misc]
    """Stands where the unembedding stands, hands the hidden states on to the loss, and keeps the weight."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    @property
    def weight(self) -> Any:
        """The unembedding's weight."""
        return self.head.weight

    def forward(self, hidden: Any) -> Any:
        return hidden


def choose_loss(model: Any, setup: Setup, *, narrow_before: bool = False) -> None:
    """Give a causal language model the loss asked for. `narrow_before`: before transformers 4.50 this model's code
    left its logits in their own type. Raises InputError where it cannot take it."""
    if setup.loss in (
        "full",
        "full-copied",
        "tiled",
        *OF_THESE_ALONE,
    ):  # what is logged of logits is left out
        return
    if getattr(model.config, "is_encoder_decoder", False):
        raise InputError("loss", setup.loss, "full: an encoder with a decoder computes its own loss")
    head = model.get_output_embeddings()
    if head is None or not hasattr(model, "loss_function"):
        raise InputError(
            "loss", setup.loss, "full for this model", "It makes no logits by one Linear module."
        )
    if setup.loss in BESIDE_LOGITS and not (narrow_before and setup.loss.startswith("shifted")):
        model.loss_function = BESIDE_LOGITS[setup.loss]
        return
    if setup.loss == "widened-fused":
        head.register_forward_hook(_widen(model.config.get_text_config()))
        model.loss_function = _widened_fused
        return
    if setup.loss.startswith("shifted"):
        if not narrow_before and setup.loss != "shifted-narrow":
            head.register_forward_hook(_widen(model.config.get_text_config()))
        model.loss_function = _shifted_fused if setup.loss.endswith("fused") else _shifted
        return
    if setup.loss in PAST_PAIRS:
        _check_linear(head, setup.loss)
    model.set_output_embeddings(_Through(head))
    most = getattr(model.config, "final_logit_softcapping", None)
    if most:
        model.config.final_logit_softcapping = None  # the loss's own, piece by piece
    if setup.loss in BY_PIECES:
        model.loss_function = by_pieces(setup.loss, head, setup.loss_chunk, most, holds=setup.outputs_held)
        return

    def chunked(logits: Any, labels: Any, *_: Any, **__: Any) -> Any:
        hidden = logits.reshape(-1, logits.shape[-1])
        return _Chunked.apply(hidden, head.weight, getattr(head, "bias", None), setup.loss_chunk)

    model.loss_function = chunked


def _widen(config: Any) -> Any:
    """What older code did behind the unembedding: logits in float32, bounded before where the model bounds them."""
    most = getattr(config, "final_logit_softcapping", None)
    if not most:
        return lambda module, args, out: out.float()
    config.final_logit_softcapping = None
    return lambda module, args, out: (torch.tanh(out / most) * most).float()


def _fused(logits: Any, labels: Any, vocab_size: int, **_: Any) -> Any:
    labels = nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].contiguous().view(-1)
    return FusedInPlace.apply(logits.view(-1, logits.shape[-1]), labels)


def _scaled_fused(logits: Any, labels: Any, vocab_size: int, **more: Any) -> Any:
    """The same of logits that were divided by a temperature into a new tensor."""
    return _fused(logits / torch.ones_like(logits[..., :1]), labels, vocab_size, **more)


def _scaled_in_place_fused(logits: Any, labels: Any, vocab_size: int, **more: Any) -> Any:
    """The same of a view of the logits that was divided in place, as verl up to 0.8 does it."""
    return _fused(divided_view(logits), labels, vocab_size, **more)


def _widened_fused(logits: Any, labels: Any, vocab_size: int, **_: Any) -> Any:
    """The same of float32 logits, with their gradient beside them, as OpenRLHF has it."""
    return FusedBeside.apply(logits.view(-1, logits.shape[-1]), labels.view(-1))


def divided_view(logits: Any) -> Any:
    """A view of logits, divided by a temperature in place."""
    rows = logits.view(-1, logits.shape[-1])
    return rows.div_(torch.ones_like(rows[:, :1]))


def _shifted(logits: Any, labels: Any, vocab_size: int, **_: Any) -> Any:
    """The loss of transformers before 4.50, which copied all positions but the last. Most models made their logits
    float32 before."""
    rows = logits[..., :-1, :].contiguous().view(-1, logits.shape[-1])
    return nn.functional.cross_entropy(rows, labels[..., 1:].contiguous().view(-1))


def _shifted_fused(logits: Any, labels: Any, vocab_size: int, **_: Any) -> Any:
    """The same with a fused kernel behind the copy."""
    rows = logits[..., :-1, :].contiguous().view(-1, logits.shape[-1])
    return FusedInPlace.apply(rows, labels[..., 1:].contiguous().view(-1))


def _shifted_late(logits: Any, labels: Any, vocab_size: int, **more: Any) -> Any:
    """The loss of transformers 4.46 to 4.49, which made the float32 copy itself."""
    logits = logits.float()
    return _shifted(logits, labels, vocab_size, **more)


def _shifted_late_fused(logits: Any, labels: Any, vocab_size: int, **more: Any) -> Any:
    """The same with a fused kernel behind the copy."""
    logits = logits.float()
    return _shifted_fused(logits, labels, vocab_size, **more)


def _wide(logits: Any, labels: Any, vocab_size: int, **_: Any) -> Any:
    return _Wide.apply(logits.view(-1, logits.shape[-1]))


def _wide_in_place(logits: Any, labels: Any, vocab_size: int, **_: Any) -> Any:
    return _WideInPlace.apply(logits.view(-1, logits.shape[-1]))


def _wide_fused(logits: Any, labels: Any, vocab_size: int, **_: Any) -> Any:
    return _Compiled.apply(logits.view(-1, logits.shape[-1]))


# Losses that take the logits as the model makes them.
BESIDE_LOGITS = {
    "fused": _fused,
    "scaled-fused": _scaled_fused,
    "scaled-in-place-fused": _scaled_in_place_fused,
    "wide": _wide,
    "wide-in-place": _wide_in_place,
    "wide-fused": _wide_fused,
    "shifted-late": _shifted_late,
    "shifted-late-fused": _shifted_late_fused,
}


def by_chances(setup: Setup) -> bool:
    """Whether a loss is one of log-probabilities that the model does not compute itself."""
    return setup.loss == "tiled" or setup.objective != "sft"


def check_by_chances(model: Any, setup: Setup) -> None:
    """Raise InputError where a loss of preferences, or a tiled one, cannot be run on a model."""
    if getattr(model.config, "is_encoder_decoder", False):
        name, value = ("loss", "tiled") if setup.objective == "sft" else ("objective", setup.objective)
        raise InputError(name, value, "another for an encoder with a decoder")
    if setup.loss == "tiled":
        _check_linear(model.get_output_embeddings(), "tiled")


def _check_linear(head: Any, loss: str) -> None:
    """Raise InputError where a loss finds no weight of a Linear module; pairs beside that are passed over."""
    if not isinstance(getattr(head, "base_layer", head), nn.Linear):
        raise InputError(
            "loss", loss, "full where the unembedding is trained as a copy, or is no Linear module"
        )


def without_dropout(model: Any) -> None:
    """Switch off dropout modules, as trainers of preferences do."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
