"""How many bits the learned text takes when compressed: an upper bound on its information that needs no model.

zstd with a window of 64 MiB, so that what repeats within that distance is stored once. A language model predicts text
far better: English at about 1 bit a letter and less, zstd at 2 to 3, so that the bound is loose by two to four times.
"""

from __future__ import annotations

import zstandard

LEVEL = 6
WINDOW_LOG = 26


class Compressor:
    """Counts the bytes that zstd makes of what it is fed; keeps none of them."""

    def __init__(self, level: int = LEVEL, window_log: int = WINDOW_LOG) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, window_log=window_log, enable_ldm=True, threads=0
        )
        self._run = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self.in_bytes = self.out_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take some more text."""
        self.in_bytes += len(data)
        self.out_bytes += len(self._run.compress(data))

    def bits(self) -> int:
        """Bits of everything fed. The end: nothing can be fed behind it."""
        self.out_bytes += len(self._run.flush())
        return 8 * self.out_bytes
