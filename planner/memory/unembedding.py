"""The unembedding of a model as its end meets it."""

from __future__ import annotations

from ..dataclass import dataclass
from .products import LowRank


@dataclass(frozen=True)
class Dense:
    """A matrix before the unembedding with an activation and a norm behind it, as BERT's kind has it: what is trained
    of it, its pairs, and the bytes that a quantised one is unpacked to."""

    activation: str
    trained: bool = False
    pairs: tuple[LowRank, ...] = ()
    unpacked: int = 0


@dataclass(frozen=True)
class Head:
    """The unembedding: its widths, what is trained of it, and its pairs. `vocab` 0: a model without one. `normed`: a
    norm stands before it. `d_in`: what it reads, where a matrix makes that of the hidden states; 0: these. `dense`:
    that matrix, where a norm follows it. `keeps`: of a model without an unembedding, whether its hidden states
    stay. `bias`: it adds one, so that its logits are a view of what a product with it made."""

    hidden: int
    vocab: int
    trained: bool = False
    pairs: tuple[LowRank, ...] = ()
    unpacked: int = 0
    normed: bool = True
    d_in: int = 0
    dense: Dense | None = None
    keeps: bool = True
    bias: bool = False

    @property
    def reads(self) -> int:
        """Values a token that the unembedding reads."""
        return self.d_in or self.hidden
