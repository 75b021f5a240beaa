"""Decays that a layer makes of its values and adds to attention's scores (Doge): spread over queries, masked, and cut
to the keys that each query meets."""

from __future__ import annotations

from .passes import FLOAT32, Pass
from .tape import Size, Value, cast

INDEX = 8


def decays(run: Pass, decay: Value, pairs: Size, heads: tuple[int, int], chosen: int) -> Value:
    """Decays of each of the `heads` of keys spread over queries and masked, with the mask kept, then copied for every
    one of queries; autocast makes them in float32. Of sequences longer than `chosen` each query meets so many keys
    (transformers 5.23, models/doge/modeling_doge.py, prepare_dynamic_mask)."""
    decay = cast(decay, FLOAT32) if run.autocast else decay
    tape, (queries, keys), width = run.tape, heads, decay.width
    each, mask = pairs * (keys * width), tape.new(pairs)
    spread = tape.apply((decay,), pairs * keys, width, (mask,), lambda g: (tape.new(each),))
    del mask
    if chosen and run.length > chosen:
        spread = _cut(run, spread, run.tokens * (keys * chosen))
    if queries == keys:
        return spread
    return tape.apply((spread,), pairs * queries, width, (), lambda g: (tape.new(each),))


def _cut(run: Pass, spread: Value, places: Size) -> Value:
    """The largest decays of every query, of whose `places` a tensor of ones is laid down; what is not among them is
    masked, by truth values that are kept."""
    tape, size, elements = run.tape, spread.bytes, spread.elements
    nothing = tape.new(elements * run.stream)
    largest, positions = tape.new(places * spread.width), tape.new(places * INDEX)
    del largest
    ones = tape.new(elements * run.stream)
    del nothing
    left = tape.new(elements)
    found = tape.apply((spread,), elements, spread.width, (left,), lambda g: (tape.new(size),))
    del positions, ones, left
    return found
