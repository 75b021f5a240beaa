"""Tokens and loss tokens of rendered texts, in batches.

Equal to what transformers counts: a text is encoded once, and loss falls on the tokens of marked letters, or on those
behind the tokens that the text so far has by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .formats import RowError
from .pieces import LONG_LETTERS, encode_long
from .rendering import Rendered, Turn, common
from .tokenizer import TextTokenizer

CACHED = 4096
NEAR_LETTERS = 256
CACHED_LETTERS = 400


class Count(NamedTuple):
    """Tokens of a text, those that carry loss, and of these those within the first `seq_len`."""

    tokens: int
    loss_tokens: int
    loss_within: int


def marked(encoding: Any, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of tokens that stand for ranges of letters, as transformers finds them: to the end of the text where a
    range's last letter belongs to no token, and no further ranges where the first does not."""
    found = []
    size = len(encoding)
    for begin, end in spans:
        first = encoding.char_to_token(begin)
        if first is None:
            break
        last = encoding.char_to_token(end - 1) if end else None
        found.append((first, last + 1 if last else size))
    return found


def merged(ranges: Sequence[tuple[int, int]], limit: int) -> int:
    """Numbers in a union of ranges, below `limit`."""
    total = reached = 0
    for begin, end in sorted(ranges):
        begin, end = max(begin, reached), min(end, limit)
        if end > begin:
            total += end - begin
            reached = end
    return total


class Counter:
    """Counts with one tokenizer. One instance serves one thread at a time."""

    def __init__(self, tokenizer: TextTokenizer, seq_len: int | None = None) -> None:
        self.backend = tokenizer.backend
        self.seq_len = seq_len
        decoder = self.backend.get_added_tokens_decoder()
        self.added = frozenset(decoder)
        contents = sorted(
            {token.content for token in decoder.values() if token.content}, key=len, reverse=True
        )
        self._pattern = re.compile("|".join(map(re.escape, contents))) if contents else None
        self._known: dict[tuple[str, bool], list[int]] = {}

    def _alone(self, text: str, special: bool) -> list[int]:
        """The tokens of a text by itself; short ones are remembered, as most turns begin alike."""
        key = (text, special)
        found = self._known.get(key)
        if found is None:
            if len(text) > LONG_LETTERS:
                return list(encode_long(self.backend, text, special).ids)
            found = self.backend.encode(text, add_special_tokens=special).ids
            if len(text) <= CACHED_LETTERS:
                if len(self._known) >= CACHED:
                    self._known.clear()
                self._known[key] = found
        return found

    def _last_added(self, text: str, end: int, encoding: Any, ids: list[int]) -> tuple[int, int]:
        """The letter and the token where the last added token before `end` begins; the start where there is none."""
        if self._pattern is None:
            return 0, 0
        for start in (max(0, end - NEAR_LETTERS), 0):
            for found in reversed(list(self._pattern.finditer(text, start, end))):
                token = encoding.char_to_token(found.start())
                if token is not None and ids[token] in self.added:
                    begin, close = encoding.token_to_chars(token)
                    if close <= end:
                        return begin, token
            if start == 0:
                break
        return 0, 0

    def _shared(self, beginning: str, rendered: Rendered, encoding: Any, ids: list[int]) -> int:
        """How many tokens the text has in common with its beginning encoded alone.

        Added tokens are split off before anything else, so that from the last one inside the beginning the rest need
        be encoded only; not where special tokens are put around a text, as they may stand on both sides.
        """
        if not beginning:
            return 0
        alike = common(rendered.text, beginning)
        cut, token = 0, 0
        if not rendered.special:
            cut, token = self._last_added(rendered.text, alike, encoding, ids)
        alone = self._alone(beginning[cut:] if cut else beginning, rendered.special)
        limit = min(len(alone), len(ids) - token)
        if alone[:limit] == ids[token : token + limit]:
            return token + limit
        return token + next((k for k in range(limit) if alone[k] != ids[token + k]), limit)

    def _ranges(self, rendered: Rendered, encoding: Any) -> list[tuple[int, int]]:
        size = len(encoding)
        if rendered.everywhere:
            return [(0, size)]
        if rendered.spans is not None:
            return marked(encoding, rendered.spans)
        if not rendered.turns:
            return []
        ids = encoding.ids
        return [self._turn(turn, rendered, encoding, ids) for turn in rendered.turns]

    def _turn(self, turn: Turn, rendered: Rendered, encoding: Any, ids: list[int]) -> tuple[int, int]:
        begin = self._shared(turn.before, rendered, encoding, ids)
        if turn.after is None:
            return begin, len(ids)
        return begin, self._shared(turn.after, rendered, encoding, ids)

    def _encode_prompts(self, batch: Sequence[Rendered]) -> None:
        """Encode the prompts of plain texts together, on all cores."""
        texts = list({turn.before for rendered in batch if rendered.special for turn in rendered.turns})
        texts = [text for text in texts if len(text) <= LONG_LETTERS]
        encoded = self.backend.encode_batch(texts) if len(texts) > 1 else []
        self._known.update({(text, True): found.ids for text, found in zip(texts, encoded, strict=False)})

    def counts(self, batch: Sequence[Rendered]) -> list[Count | RowError]:
        """The counts of a batch, encoded on all cores; an error in the place of a text that cannot be encoded."""
        out: list[Count | RowError | None] = [None] * len(batch)
        self._encode_prompts(batch)
        for special in (False, True):
            chosen = [i for i, r in enumerate(batch) if r.special == special and len(r.text) <= LONG_LETTERS]
            texts = [batch[i].text for i in chosen]
            encoded = self.backend.encode_batch(texts, add_special_tokens=special) if texts else []
            for i, encoding in zip(chosen, encoded, strict=True):
                out[i] = self._count(batch[i], encoding)
        for i, rendered in enumerate(batch):
            if len(rendered.text) > LONG_LETTERS:
                out[i] = self._count_long(rendered)
        if len(self._known) > CACHED:
            self._known.clear()
        return [count for count in out if count is not None]

    def _count_long(self, rendered: Rendered) -> Count | RowError:
        try:
            return self._count(rendered, encode_long(self.backend, rendered.text, rendered.special))
        except RowError as error:
            return error

    def _count(self, rendered: Rendered, encoding: Any) -> Count:
        ranges, size = self._ranges(rendered, encoding), len(encoding)
        loss = merged(ranges, size)
        within = loss if self.seq_len is None or size <= self.seq_len else merged(ranges, self.seq_len)
        return Count(size, loss, within)
