"""Losses of preferences, and tiled ones: what stands in for the kernels of TRL's loss, and its reference pass.

TRL 1.16 runs the model without its unembedding, picks the positions that carry a label and projects them in tiles; a
kernel folds each tile into sums where it lies. LLaMA-Factory casts all logits to float32 and takes each label's entry
of their log-softmax. TRL before 1.15 makes all logits, of completions or of pairs, and before 1.14 folds them a
sequence at a time. All run the reference after the trained model, without gradients, by switching the adapter off;
they switch dropout off too. Sources: trl 1.16, kernels/chunked_logprob.py, trainer/{utils.py, dpo_trainer.py,
kto_trainer.py}; LLaMA-Factory 0.9, train/trainer_utils.py, train/dpo/trainer.py; pytorch v2.13,
aten/src/ATen/native/cuda/SoftMax.cu.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from ..errors import ConfigError
from ..objective_rules import CHOSEN, OF_ALL_LOGITS, SELECTED
from ..setup import Setup
from .kernels import CudaKernels
from .losses import FusedBeside, FusedInPlace, divided_view
from .model import Made
from .timeline import Place
from .tracker import Tracker

TILE_TOKENS, TILE_ENTRIES = 4096, 32768
ENTROPY_ROWS = 128
FOLDED = 7  # float32 values a row while tiles are folded


class _Tiled(torch.autograd.Function):  # type: ignore[misc]
    """Log-probability, entropy and mean logit of each row's label, by tiles that a kernel folds where they lie."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, labels: Any, compute: Any, tracker: Tracker) -> Any:
        rows = hidden.shape[0]
        sums = [hidden.new_empty(rows, dtype=torch.float32) for _ in range(FOLDED)]
        ctx.compute, ctx.tracker = compute, tracker
        for _ in _tiles(hidden, weight, compute, tracker):
            pass
        log_z, chances = sums[0] + sums[1], sums[2] - sums[0]
        entropy, mean, first = log_z - sums[3], sums[4] / weight.shape[0], sums[5] >= sums[0]
        ctx.save_for_backward(hidden, weight, labels, log_z, entropy)
        ctx.mark_non_differentiable(mean, first)
        return chances, entropy, mean, first

    @staticmethod
    def backward(ctx: Any, grad: Any, *_: Any) -> Any:
        hidden, weight = ctx.saved_tensors[:2]
        wants = ctx.needs_input_grad
        d_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device) if wants[0] else None
        d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if wants[1] else None
        for tile, _, rows in _tiles(hidden, weight, ctx.compute, ctx.tracker):
            products = (d_hidden is not None) + (d_weight is not None)
            ctx.tracker.add_flops("mm", products * 2 * tile.shape[0] * tile.shape[1] * rows.shape[1])
        d_hidden = None if d_hidden is None else d_hidden.to(hidden.dtype)
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None, None, None


def _tiles(hidden: Any, weight: Any, compute: Any, tracker: Tracker) -> Iterator[tuple[Any, Any, Any]]:
    """Each tile of logits in a buffer that all share, with its part of the weights and its rows."""
    number, entries = hidden.shape[0], weight.shape[0]
    buffer = hidden.new_empty(min(number, TILE_TOKENS), TILE_ENTRIES, dtype=compute)
    for first in range(0, number, TILE_TOKENS):
        rows = hidden[first : first + TILE_TOKENS].to(compute)
        for start in range(0, entries, TILE_ENTRIES):
            part = weight[start : start + TILE_ENTRIES].to(compute)
            tile = buffer[: rows.shape[0], : part.shape[0]]
            tracker.add_flops("mm", 2 * tile.shape[0] * tile.shape[1] * rows.shape[1])
            yield tile, part, rows
            del tile, part


class _Fused(torch.autograd.Function):  # type: ignore[misc]
    """Each label's log-probability by one kernel, which keeps the logits and makes their gradient in a new tensor."""

    @staticmethod
    def forward(ctx: Any, logits: Any) -> Any:
        ctx.save_for_backward(logits)
        return logits.new_empty(logits.shape[:-1], dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return torch.empty_like(ctx.saved_tensors[0], memory_format=torch.contiguous_format)


class _Taken(torch.autograd.Function):  # type: ignore[misc]
    """Each label's logit, whose gradient is laid into zeros where they lie: torch's own makes a second such tensor of
    tensors without values (pytorch v2.13, torch/csrc/autograd/FunctionsManual.cpp, gather_backward)."""

    @staticmethod
    def forward(ctx: Any, logits: Any, labels: Any) -> Any:
        ctx.save_for_backward(logits, labels)
        return torch.gather(logits, 2, labels.unsqueeze(2)).squeeze(2)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, None]:
        logits, labels = ctx.saved_tensors
        return torch.zeros_like(logits).scatter_add_(2, labels.unsqueeze(2), grad.unsqueeze(2)), None


def _log_sum(rows: Any) -> Any:
    """The log of the sum of a row's exponentials: the kernels make these in a tensor of their own (pytorch v2.13,
    aten/src/ATen/native/ReduceOps.cpp, logsumexp_out_impl)."""
    held = torch.empty_like(rows)
    del held
    return torch.logsumexp(rows, -1)


def _log_softmax(rows: Any) -> Any:
    """CUDA's, which copies rows that do not lie together."""
    copied = rows.contiguous()
    found = torch.log_softmax(rows, -1)
    del copied
    return found


def _entropies(logits: Any) -> None:
    """Entropies of a few rows at a time, which nobody learns from."""
    for few in logits.reshape(-1, logits.shape[-1]).split(ENTROPY_ROWS):
        chances = torch.log_softmax(few, -1)
        (torch.exp(chances) * chances).sum(-1)
        del chances


def _placed(rows: Any, size: Any) -> Any:
    """Numbers of the rows that were scored, at the ends of their sequences."""
    laid = rows.view(size[0], -1)
    return laid if laid.shape == size else torch.nn.functional.pad(laid, (size[1] - laid.shape[1], 0))


class Preferences:
    """The forward passes of a step whose loss is one of log-probabilities."""

    def __init__(self, made: Made, setup: Setup, tracker: Tracker, kernels: CudaKernels) -> None:
        self.made, self.setup, self.tracker, self.kernels = made, setup, tracker, kernels
        self.base = made.model.get_base_model() if setup.method != "full" else made.model
        if self.base.base_model is self.base:
            raise ConfigError(f"{type(self.base).__name__} has no body that runs without its unembedding.")

    def loss(self, batch: dict[str, Any]) -> Any:
        """The loss, after the reference has run where there is one."""
        given = {name: value for name, value in batch.items() if name != "labels"}
        how, told = SELECTED.get(self.setup.loss), None
        if self.setup.objective == "kto":
            with torch.no_grad(), self._unchecked(), self.kernels.ungraded():
                told = self._of_others(given)
            self.kernels.forget()  # casts that were made without gradients have none to pass on
        if self.setup.loss == "sliced-fused":
            with torch.no_grad(), self._unchecked(), self.kernels.ungraded():
                self._score(given)
            self.kernels.forget()
        chances, *others = self._chances(given)
        if how:
            others = self._select(others, how.again)
        told = None
        if self.setup.reference_inside:
            with torch.no_grad(), self._as_reference(), self.kernels.ungraded():
                if self.setup.objective == "kto":
                    told = self._of_others(given)
                compared, *beside = self._chances(given)
                if how and how.again:
                    beside = self._select(beside, again=False)
            self._log(others)
            del others, beside, told
            return (chances.sum(1) - compared.sum(1)).sum()
        self._log(others)
        del others
        return chances.sum()

    def _score(self, batch: dict[str, Any]) -> None:
        """Completions by the model itself before it learns from them, with entropies, as verl scores them under
        autocast (dp_actor.py, compute_log_prob; torch_functional.py, entropy_from_logits). Its FLOPs are none of the
        step's."""
        self.tracker.counts = False
        found, part = self._sliced(batch)
        del found
        chances = torch.empty_like(part, dtype=torch.float32)  # softmax's, in float32 whatever it reads
        (chances * part).sum(-1)
        self.tracker.counts = True

    def _sliced(self, batch: dict[str, Any]) -> tuple[Any, Any]:
        """Log-probabilities of completions, of a slice of all logits that are divided in place, and the slice."""
        made, labels = self.base(**batch).logits, batch["input_ids"].view(-1)
        scored = self.setup.seq_len - max(1, self.setup.prompt_tokens)
        part = made.div_(torch.ones_like(made[:, :1, :1]))[:, -scored - 1 : -1]
        found = FusedInPlace.apply(part.reshape(-1, part.shape[-1]), labels[: part.shape[0] * scored])
        return found, part

    def _of_others(self, batch: dict[str, Any]) -> Any:
        """Other answers, whose log-probabilities estimate a divergence: what of them has a name in the next pass."""
        found, how = self._chances(batch), SELECTED.get(self.setup.loss)
        return found if how and how.others else None

    @staticmethod
    def _select(made: list[Any], again: bool) -> list[Any]:
        """Copies of the logits of answers that were wanted and of those that were not, before what else is held;
        `again`: in a function of its own, whose other names go."""
        logits = made[-1].detach()
        half = (logits.shape[0] + 1) // 2
        copies = [logits[:half].clone(), logits[half:].clone()]
        return copies if again else [*made, *copies]

    def _log(self, held: list[Any]) -> None:
        """What TRL before 1.15 logs of pairs, while the reference's output has a name too: entropies of all but the
        last positions, which are copied to lie together, or where one kernel made these, means of half the logits."""
        loss = self.setup.loss
        if self.setup.objective == "grpo" or not (loss.startswith("by-sequence") or loss == "fused"):
            return
        if loss in (*CHOSEN, "by-sequence-unlogged") or (loss in SELECTED and not SELECTED[loss].logged):
            return
        part = held[0].detach()
        part = part if loss == "by-sequence-copied" else part[:, :-1]
        if self.setup.loss == "fused":
            part[: (part.shape[0] + 1) // 2].clone()
            return
        _entropies(part)

    def _chances(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        """Log-probabilities of all labels, and what the loss holds beside them."""
        if self.setup.loss == "tiled":
            return self._tiled(batch)
        if self.setup.loss in (*OF_ALL_LOGITS, "sliced-fused"):
            return self._divided(batch)
        return self._gathered(batch) if self.setup.loss.startswith("full") else self._by_sequence(batch)

    def _tiled(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        found = self.base.base_model(**batch)
        hidden = found.last_hidden_state[:, :-1]
        del found
        scored = self.setup.seq_len - max(1, self.setup.prompt_tokens)
        rows = hidden.shape[0] * scored
        head, mask = self.base.get_output_embeddings(), batch["input_ids"][:, 1:] != -100
        self.tracker.enter(Place("forward", "head"))
        compute = self.kernels.autocast or hidden.dtype
        size, width = mask.shape, hidden.shape[-1]
        places = [torch.zeros(rows, dtype=torch.long, device=hidden.device) for _ in range(2)]
        picked = (
            hidden[places[0], places[1]]
            if hidden.device.type == "meta"
            else hidden[:, -scored:].reshape(-1, width)
        )
        hidden_device = hidden.device
        del hidden, places
        labels = batch["input_ids"][:, -scored:].reshape(-1)
        made = _Tiled.apply(picked, head.weight, labels, compute, self.tracker)
        del picked
        fields = made[:2] if self.setup.objective == "grpo" else made
        laid = torch.zeros(size, dtype=torch.float32, device=hidden_device) + _placed(fields[0], size)
        return (laid, *(_placed(each, size).clone() for each in fields[1:]))

    def _divided(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        """Of all logits, of prompts too, by a kernel that writes the gradient in their place, as verl has it, or of
        float32 copies of them and beside these, as OpenRLHF has it."""
        if self.setup.loss == "sliced-fused":
            return self._sliced(batch)[:1]
        made, labels = self.base(**batch).logits, batch["input_ids"].view(-1)
        if self.setup.loss == "widened-fused":
            made = made.float()
            return (FusedBeside.apply(made.view(-1, made.shape[-1]), labels),)
        cooled = divided_view(made) if self.setup.loss == "scaled-in-place-fused" else made / made.new_ones(1)
        return (FusedInPlace.apply(cooled.view(-1, cooled.shape[-1]), labels),)

    def _gathered(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        logits = self.base(**batch).logits.to(torch.float32)
        labels = batch["input_ids"][:, 1:].clone()
        own = self._of_chosen(logits, labels)
        taken = torch.gather(_log_softmax(logits[:, :-1]), 2, labels.unsqueeze(2)).squeeze(2)
        taken = taken + own if own is not None else taken
        named = self.setup.loss in ("full", *SELECTED) or (own is not None and self.setup.objective == "dpo")
        return (taken, logits) if named else (taken,)

    def _of_chosen(self, logits: Any, labels: Any) -> Any:
        """Cross-entropy of the first half of the sequences, which TRL's ORPO has beside log-probabilities."""
        if self.setup.loss not in CHOSEN:
            return None
        few = labels.shape[0] // 2
        rows = logits[:few, :-1].contiguous()
        return torch.nn.functional.cross_entropy(rows.view(-1, rows.shape[-1]), labels[:few].reshape(-1))

    def _by_sequence(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        scored, sampled = (
            self.setup.seq_len - max(1, self.setup.prompt_tokens),
            self.setup.objective == "grpo",
        )
        made = self.base(**batch, **({"logits_to_keep": scored + 1} if sampled else {})).logits
        made = made.to(torch.float32) if self.kernels.autocast else made
        labels = batch["input_ids"][:, -scored:]
        own = self._of_chosen(made, labels)
        part = made[:, :-1]
        copied = self.setup.loss.endswith("-copied")
        part = part.contiguous() if copied else part
        part = part[:, -scored:] if sampled else part
        if self.setup.loss == "fused":
            return _Fused.apply(part), made
        cooled = part / 1.0 if sampled and self.setup.loss != "by-sequence-in-place" else part
        if self.setup.loss == "by-sequence-in-place":
            cooled.div_(1.0)
        if cooled.dtype == torch.float32:
            chosen = _Taken.apply(cooled, labels)
            found = chosen - torch.stack([_log_sum(one) for one in cooled])
        else:
            pairs = zip(cooled, labels, strict=True)
            found = torch.stack(
                [_log_softmax(one).gather(1, own.unsqueeze(1)).squeeze(1) for one, own in pairs]
            )
        if sampled:
            _entropies(cooled.detach())
        if copied:
            return found, part, made
        if own is not None:
            return (found + own,)
        alone = sampled or self.setup.loss == "by-sequence-unlogged"
        return (found,) if alone else (found, made)  # held by a name while a reference runs

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        """The model without its adapter, and without running layers again."""
        pairs, self.kernels.pairs = self.kernels.pairs, {}
        without = self.made.model.disable_adapter() if self.setup.method != "full" else nullcontext()
        with self._unchecked(), without:
            try:
                yield
            finally:
                self.kernels.pairs = pairs

    @contextmanager
    def _unchecked(self) -> Iterator[None]:
        """Without running layers again."""
        again = [m for m in self.made.model.modules() if getattr(m, "gradient_checkpointing", False)]
        for module in again:
            module.gradient_checkpointing = False
        try:
            yield
        finally:
            for module in again:
                module.gradient_checkpointing = True
