"""What a layer reads that is not its own: an encoder's output, and biases by position that a stack's layers share."""

from __future__ import annotations

from typing import Literal

from ..dataclass import dataclass
from ..schema import Attend
from .bias import Bias
from .passes import Pass
from .tape import Buffer, Size, Value

Masks = Literal["all", "cross", "none"]  # which attentions a mask of tokens reaches


@dataclass(frozen=True)
class Outside:
    """`rows` positions of an encoder's output, `width` bytes a value; None: there is none. `grad`: it needs a
    gradient, which the `last` layer makes first. `own` and `cross` are the biases of a layer's attention to itself
    and to the encoder. `held`: the layer holds all of these itself, as one that brings them back from the host;
    `first`: it runs again, and makes `own` and `cross` beside those that the others read. `masks`: which attentions a
    mask of tokens reaches. `seen` takes the numbers of the buffers that stand for the encoder's output, `cached` keys
    and values that a cache holds until the forward pass has ended."""

    rows: Size | None = None
    width: int = 0
    grad: bool = False
    own: Bias | None = None
    cross: Bias | None = None
    held: bool = False
    first: bool = False
    last: bool = False
    masks: Masks = "all"
    seen: list[int] | None = None
    cached: list[Buffer] | None = None

    def keep(self, run: Pass, k: Value, v: Value) -> None:
        """Put keys and values into the cache. As they lie there eager products keep them themselves, unless autocast
        lowers them first."""
        lowered = run.autocast and k.width > run.compute
        if self.cached is not None and (run.kernel != "eager" or lowered or not run.grad):
            self.cached.extend((k.buffer, v.buffer))

    def padded(self, op: Attend) -> bool:
        """Whether a mask of tokens reaches an attention."""
        return self.masks == "all" or (self.masks == "cross" and op.memory)


ALONE = Outside()
