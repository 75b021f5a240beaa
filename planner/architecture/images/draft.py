"""What a builder of images hands back, and the small pieces that towers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...dataclass import dataclass
from ...schema import Source
from ..fields import Fields
from ..trace import Layer, Trace

VERSION = "5.23.0"
REPOSITORY = f"https://github.com/huggingface/transformers/blob/v{VERSION}/src/transformers"


@dataclass(frozen=True)
class Draft:
    """One image through its tower. `tokens` in the sequence, `marks` of them around the features; `units` of
    `length` positions each; `rows` that the connector hands on, `pixels` the shape of an image's values; `kind` names
    the rules of its layers' memory, `act` their activation. The rest is as in `schema.Images`."""

    trace: Trace
    kind: str
    act: str
    width: int
    layers: int
    tokens: int
    rows: int
    units: int
    length: int
    pixels: tuple[int, ...]
    sources: tuple[Source, ...]
    grid: tuple[int, int, int] | None = None
    hooked: bool = True
    masked: bool = False
    merged: bool = False
    masked_windows: bool = False

    def with_sources(self, *more: Source) -> Draft:
        """The same with these behind its sources."""
        return replace(self, sources=(*self.sources, *more))


Builder = Callable[[Fields, int, "tuple[int, int] | None"], Draft]


def code(path: str, where: str) -> Source:
    """A place in transformers' code."""
    return Source(
        f"transformers {VERSION}, {path}", f"{REPOSITORY}/{path}", where, "2026-11-28", "documentation"
    )


def processor(model: str, where: str) -> Source:
    """A published preprocessor_config.json."""
    url = f"https://huggingface.co/{model}/blob/main/preprocessor_config.json"
    return Source(f"{model}, preprocessor_config.json", url, where, "2026-11-28", "config")


def patch_stem(
    trace: Trace, name: str, channels: int, kernel: int, d: int, bias: bool, patches: int | None = None
) -> None:
    """The convolution from pixels to patches, one position each: d_in = channels x kernel values. `patches` are those
    of a unit where it has more positions, as a class token."""
    with trace.layer("stem", (0,), fixed_length=patches) as stem:
        stem.features = True
        stem.stream = stem.linear(
            name, "vision", channels * kernel, d, stem.stream, bias=bias, kind="convolution"
        )


def plain_attention(
    layer: Layer, d: int, heads: int, names: tuple[str, ...], *, bias: Any = True, o_bias: bool = True,
    pairs: int | None = None,
) -> None:  # fmt: skip
    """Attention of all positions of a unit with each other; `names` are q, k, v and o, or a fused one and o."""
    x = layer.stream
    if len(names) == 2:
        q = k = v = layer.linear(names[0], "attention", d, 3 * d, x, bias=bias)
    else:
        q, k, v = (layer.linear(name, "attention", d, d, x, bias=bias) for name in names[:3])
    mixed = layer.attend(
        q, k, v, n_heads=heads, n_kv_heads=heads, d_qk=d // heads, d_v=d // heads, causal=False, pairs=pairs
    )
    layer.add(layer.linear(names[-1], "attention", d, d, mixed, bias=o_bias))


def two_layers(
    layer: Layer, names: tuple[str, str], widths: tuple[int, int, int], *, per: int = 1, bias: bool = True
) -> None:
    """A connector of two matrices with an activation between, over `per` positions joined."""
    first, second = names
    inner = layer.linear(first, "mlp", widths[0], widths[1], layer.stream, bias=bias, per=per)
    layer.stream = layer.linear(second, "mlp", widths[1], widths[2], inner, bias=bias, per=per)
