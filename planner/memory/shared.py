"""Matrices that several layers share (Zamba's transformers, ALBERT's groups): their gradients are gathered from the
last of these layers back to the first, and there is one of each throughout."""

from __future__ import annotations

from ..schema import Architecture, Matrix
from ..setup import Setup
from .passes import make_pass

ENDS = ("embedding", "unembedding")


def is_shared(arch: Architecture, matrix: Matrix) -> bool:
    """Whether a matrix of a layer is one that others of the layers run as well: tied, or of layers that run again."""
    if matrix.shared:
        return True
    if matrix.role in ENDS or "{}" not in matrix.name:
        return False
    return any(len(set(block.layers)) < len(block.layers) for block in arch.blocks)


def _stored(arch: Architecture) -> int:
    """Parameters of shared matrices, each counted once. Neglected: norms, less than a thousandth of them."""
    return sum(m.d_in * m.d_out for m in arch.matrices if not m.tied and is_shared(arch, m))


def _lowers(setup: Setup) -> bool:
    """Whether autocast lowers trained weights, once for all layers of a forward pass that keeps its graph."""
    run = make_pass(setup)
    return run.autocast and run.whole > run.compute and setup.checkpointing == "none"


def shared_casts(arch: Architecture, setup: Setup) -> int:
    """Bytes of shared matrices as autocast lowers them, held through the forward pass."""
    full = setup.method == "full" and _lowers(setup)
    return make_pass(setup).compute * _stored(arch) if full else 0


def shared_gradients(arch: Architecture, setup: Setup) -> int:
    """Bytes of the gradients of shared matrices, from the first that is made on: parameters times their width, or
    that in which autocast lowered them. An earlier layer's is made beside it and added."""
    if setup.method != "full":
        return 0
    run = make_pass(setup)
    return (run.compute if _lowers(setup) else run.whole) * _stored(arch)
