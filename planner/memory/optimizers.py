"""What an optimizer holds of the tensors that it trains: its states, and what its step takes beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ..setup import Setup
from ..trainers import around_trainer
from .passes import FLOAT32, HALF
from .states import Tensor, ceil_div

QUANTILE_BLOCK = 256  # values that share a scale in an 8-bit optimizer's states (bitsandbytes 0.45 and later)
SMALLEST_8BIT = 4096  # bitsandbytes keeps the states of smaller tensors in float32

IN_32_BITS = {"adamw-8bit": "adamw", "paged-adamw-8bit": "adamw", "lion-8bit": "lion"}


def wide_tables(setup: Setup) -> bool:
    """Whether an 8-bit optimizer keeps the states of embeddings in float32: transformers' Trainer tells bitsandbytes
    so of every nn.Embedding (5.23, trainer.py, create_optimizer, register_module_override; since 4.19), by its
    weight, which is not what sharded parameters are handed over as."""
    eight = setup.optimizer in IN_32_BITS
    return eight and not setup.parameters_sharded and around_trainer(setup.trainer)


# Bytes that one tensor's states take, from its shape and the width of its parameters


def _eight_bit(states: int) -> Callable[[Tensor, int], int]:
    def rule(tensor: Tensor, width: int) -> int:
        if tensor.size < SMALLEST_8BIT:
            return states * FLOAT32 * tensor.size
        return states * (tensor.size + FLOAT32 * ceil_div(tensor.size, QUANTILE_BLOCK))

    return rule


def _adafactor(tensor: Tensor, width: int) -> int:
    """A row and a column of the second moment, in float32; a vector's is kept whole."""
    return FLOAT32 * (tensor.size if tensor.rows == 1 else tensor.rows + tensor.columns)


def _by_muon(tensor: Tensor) -> bool:
    """Whether Muon takes a tensor: matrices, and neither tables nor what has a third dimension."""
    return tensor.rows > 1 and not tensor.embedding and not tensor.stacked


def _muon(tensor: Tensor, width: int) -> int:
    """One momentum for matrices, AdamW's two states for the rest."""
    return tensor.size * width * (1 if _by_muon(tensor) else 2)


def _full_states(states: int) -> Callable[[Tensor, int], int]:
    def rule(tensor: Tensor, width: int) -> int:
        return states * width * tensor.size

    return rule


def _paged_adamw(tensor: Tensor, width: int) -> int:
    """bitsandbytes' two states are float32 whatever the parameter is (optim/optimizer.py, init_state)."""
    return 2 * FLOAT32 * tensor.size


STATES: dict[str, Callable[[Tensor, int], int]] = {
    "adamw": _full_states(2),
    "paged-adamw": _paged_adamw,
    "adamw-8bit": _eight_bit(2),
    "paged-adamw-8bit": _eight_bit(2),
    "sgd": _full_states(0),
    "sgd-momentum": _full_states(1),
    "adafactor": _adafactor,
    "lion": _full_states(1),
    "lion-8bit": _eight_bit(1),
    "muon": _muon,
}


def optimizer_bytes(tensors: Iterable[Tensor], setup: Setup) -> int:
    """Bytes of the optimizer's states, and of float32 masters where there are some (whose states are float32)."""
    masters = setup.masters
    rule = STATES[setup.optimizer]
    of_tables = STATES[IN_32_BITS[setup.optimizer]] if wide_tables(setup) else None

    def states(t: Tensor) -> int:
        if of_tables is not None and t.table:
            return of_tables(t, FLOAT32)
        return rule(t, FLOAT32 if masters else t.width)

    return sum((states(t) + (FLOAT32 * t.size if masters else 0)) * t.copies for t in tensors)


def update_bytes(tensors: tuple[Tensor, ...], setup: Setup) -> int:
    """Temporary bytes of the optimizer's step.

    A fused kernel takes none, nor do bitsandbytes' optimizers (optim/optimizer.py, update_step). AdamW over lists of
    tensors ("foreach", torch's default on CUDA) holds the root of every second moment at once; a loop over tensors
    holds a few copies of the largest. Muon leaves to AdamW what is no matrix.
    """
    tensors = tuple(replace(t, width=FLOAT32) for t in tensors) if setup.masters else tensors
    if setup.optimizer == "adamw":
        return _adamw_update(tensors, setup)
    largest = max((t.size * t.width for t in tensors), default=0)
    if setup.optimizer == "muon":
        own = max((_muon_update(t) for t in tensors if _by_muon(t)), default=0)
        return max(own, _adamw_update([t for t in tensors if not _by_muon(t)], setup))
    if setup.optimizer == "adafactor":
        return _adafactor_update(tensors)
    return largest if setup.optimizer == "lion" else 0


def _adamw_update(tensors: Sequence[Tensor], setup: Setup) -> int:
    """AdamW over these tensors, by its kernel."""
    if setup.optimizer_kernel == "fused":
        return 0
    largest = max((t.size * t.width for t in tensors), default=0)
    total = sum(t.size * t.copies * t.width for t in tensors)
    return {"foreach": total, "loop": 2 * largest}[setup.optimizer_kernel]


def _adafactor_update(tensors: Sequence[Tensor]) -> int:
    """transformers' Adafactor (optimization.py, step), one tensor after another: the square of its gradient and the
    update, in float32; of a narrower one its gradient and weights in float32 too. The update of the one before goes
    when there is a new one; before the ends of the model those are of norms. torch's own, which a torchtune recipe
    may ask for, takes one copy of the largest matrix, for which this is up to eight times too much."""
    most, before = 0, 0
    for tensor in tensors:
        own = FLOAT32 * tensor.size
        copies = 2 if tensor.width == FLOAT32 else 4
        most = max(most, copies * own + (0 if tensor.embedding else before))
        before = own
    return most


def _muon_update(tensor: Tensor) -> int:
    """One matrix's orthogonalisation: the update, two copies of it in bfloat16, and two products of its smaller
    side."""
    return tensor.size * (tensor.width + 2 * HALF) + 2 * HALF * min(tensor.rows, tensor.columns) ** 2
