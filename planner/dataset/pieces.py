"""Encoding a long text in pieces, since the tokenizers library needs some 500 bytes a token for one text.

Pieces overlap; two neighbours are joined where, in the middle of what both hold, they agree on `AGREE` tokens on
either side. Splitting into words and merging bytes look no further than that, so that the tokens are those of the
whole text; where no such place is found, a text of up to `WHOLE_LETTERS` is encoded as a whole and a longer one
refused.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from .formats import RowError

LONG_LETTERS = 1 << 16
PIECE_LETTERS = 1 << 16
OVERLAP_LETTERS = 1 << 12
AGREE = 16
WHOLE_LETTERS = 1 << 19
AT_ONCE = 4


class LongEncoding:
    """The tokens of a long text with the letters that they stand for; as much of an Encoding as counting needs."""

    def __init__(self) -> None:
        self.ids, self.begins, self.ends = array("L"), array("L"), array("L")

    def __len__(self) -> int:
        return len(self.ids)

    def char_to_token(self, letter: int) -> int | None:
        """The first token that holds a letter."""
        at = bisect_right(self.ends, letter)
        return at if at < len(self.ends) and self.begins[at] <= letter else None

    def token_to_chars(self, token: int) -> tuple[int, int]:
        """The letters of a token."""
        return self.begins[token], self.ends[token]

    def extend(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], shift: int) -> None:
        """Put tokens behind the others."""
        self.ids.extend(ids)
        self.begins.extend(begin + shift for begin, _ in offsets)
        self.ends.extend(end + shift for _, end in offsets)

    def cut(self, token: int) -> None:
        """Forget the tokens from this one on."""
        for column in (self.ids, self.begins, self.ends):
            del column[token:]


def _join(
    done: LongEncoding, ids: list[int], offsets: list[tuple[int, int]], shift: int, middle: int
) -> tuple[int, int] | None:
    """Where to go from `done` over to a piece: the number of tokens to keep of each. None where they never agree."""
    starts = {begin + shift: i for i, (begin, _) in reversed(list(enumerate(offsets)))}
    size = len(done)
    low = next((i for i in range(size - 1, -1, -1) if done.begins[i] < shift), -1) + 1
    places = sorted(range(low, size), key=lambda i: abs(done.begins[i] - middle))
    for i in places:
        k = starts.get(done.begins[i])
        if k is None or k < AGREE or i + AGREE > size or k + AGREE > len(ids):
            continue
        if done.begins[i - 1] == done.begins[i]:
            continue  # inside a letter
        if list(done.ids[i - AGREE : i + AGREE]) == ids[k - AGREE : k + AGREE]:
            return i, k
    return None


def _around(backend: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and behind a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a", add_special_tokens=True).ids
    for at in range(len(full) - len(bare) + 1):
        if full[at : at + len(bare)] == bare:
            return full[:at], full[at + len(bare) :]
    return [], []


def _whole(backend: Any, text: str, special: bool) -> LongEncoding:
    if len(text) > WHOLE_LETTERS:
        raise RowError(f"is too long ({len(text):,} letters) and cannot be encoded in pieces")
    encoding = backend.encode(text, add_special_tokens=special)
    found = LongEncoding()
    found.extend(encoding.ids, encoding.offsets, 0)
    return found


def encode_long(backend: Any, text: str, special: bool) -> LongEncoding:
    """The tokens of a text of any length. Raises RowError where its pieces cannot be joined."""
    found = LongEncoding()
    before, behind = _around(backend) if special else ([], [])
    step = PIECE_LETTERS - OVERLAP_LETTERS
    starts = list(range(0, max(1, len(text) - OVERLAP_LETTERS), step))
    for group in range(0, len(starts), AT_ONCE):
        chosen = starts[group : group + AT_ONCE]
        pieces = [text[start : start + PIECE_LETTERS] for start in chosen]
        for start, piece in zip(chosen, backend.encode_batch(pieces, add_special_tokens=False), strict=True):
            ids, offsets = piece.ids, piece.offsets
            keep = 0
            if start:
                joint = _join(found, ids, offsets, start, start + OVERLAP_LETTERS // 2)
                if joint is None:
                    return _whole(backend, text, special)
                found.cut(joint[0])
                keep = joint[1]
            found.extend(ids[keep:], offsets[keep:], start)
    if before or behind:
        whole = LongEncoding()
        whole.extend(before, [(0, 0)] * len(before), 0)
        whole.ids.extend(found.ids)
        whole.begins.extend(found.begins)
        whole.ends.extend(found.ends)
        whole.extend(behind, [(0, 0)] * len(behind), len(text))
        return whole
    return found
