"""torch's caching allocator of CUDA memory for one stream: what it reserves of a card for a sequence of requests.

Source: pytorch v2.1, c10/cuda/CUDACachingAllocator.cpp (round_size, get_allocation_size, get_free_block,
should_split, free_block, release_cached_blocks, try_allocate_expandable_block, map_block) and its constants
kMinBlockSize, kSmallSize, kSmallBuffer, kLargeBuffer, kMinLargeAlloc, kRoundLarge. Neglects garbage collection, which
is off by default.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

MIB = 2**20
LEAST = 512  # bytes that a request is rounded up to
SMALL = MIB  # requests up to here come from small segments
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB  # of requests below ...
OWN_SEGMENT = 10 * MIB  # ... this; larger ones get a segment of their own, rounded up to SMALL_SEGMENT


class OutOfMemoryError(Exception):
    """A request that the card cannot hold."""


@dataclass(eq=False)
class Block:
    """A stretch of a segment, with its neighbours in it."""

    bytes: int
    place: int
    small: bool
    before: Block | None = None
    after: Block | None = None
    free: bool = False


def up(number: int, to: int) -> int:
    """`number` rounded up to a multiple."""
    return -(-number // to) * to


class CachingAllocator:
    """Requests are served from the smallest free block that holds them; where none does, a new segment is reserved,
    or, of `expandable` segments, the one of these sizes grows by pages of a segment's size, behind its last block.
    A block is split where enough is left over; freed neighbours join. Bytes."""

    def __init__(self, room: int, expandable: bool = False) -> None:
        self.room = room
        self.expandable = expandable
        self._ends: dict[bool, Block] = {}
        self.reserved = self.most_reserved = self.allocated = self.most_allocated = 0
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._at: dict[int, Block] = {}
        self._next = 0

    def take(self, size: int) -> Block:
        """Memory for a request. Raises OutOfMemoryError."""
        size = up(max(size, 1), LEAST)
        small = size <= SMALL
        block = self._fitting(size, small) or (self._grow if self.expandable else self._segment)(size, small)
        left = block.bytes - size
        if left >= LEAST if small or self.expandable else left > SMALL:
            rest = Block(left, block.place + size, small, block, block.after)
            if block.after:
                block.after.before = rest
            block.after, block.bytes = rest, size
            self._ends_at(block, rest)
            self._hand_back(rest)
        block.free = False
        self.allocated += block.bytes
        self.most_allocated = max(self.most_allocated, self.allocated)
        return block

    def _fitting(self, size: int, small: bool) -> Block | None:
        """The smallest free block that holds a request, of which one that can grow counts as the largest."""
        pool = self._free[small]
        index = bisect_left(pool, (size, -1))
        if index == len(pool):
            return None
        if index + 1 < len(pool) and self._at[pool[index][1]] is self._ends.get(small):
            index += 1
        return self._at[pool.pop(index)[1]]

    def give(self, block: Block) -> None:
        """A block is free again, and joins free neighbours."""
        self.allocated -= block.bytes
        if block.before and block.before.free:
            block = self._join(block.before, block)
        if block.after and block.after.free:
            self._forget(block.after)
            block = self._joined(block, block.after)
        self._hand_back(block)

    def _join(self, first: Block, second: Block) -> Block:
        self._forget(first)
        return self._joined(first, second)

    def _joined(self, first: Block, second: Block) -> Block:
        self._ends_at(second, first)
        first.bytes += second.bytes
        first.after = second.after
        if second.after:
            second.after.before = first
        return first

    def _hand_back(self, block: Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.bytes, block.place))
        self._at[block.place] = block

    def _forget(self, block: Block) -> None:
        pool = self._free[block.small]
        pool.pop(bisect_left(pool, (block.bytes, block.place)))

    def _segment(self, size: int, small: bool) -> Block:
        own = up(size, SMALL_SEGMENT) if size >= OWN_SEGMENT else LARGE_SEGMENT
        whole = SMALL_SEGMENT if small else own
        if self.reserved + whole > self.room:
            self._release()
            if self.reserved + whole > self.room:
                raise OutOfMemoryError(f"{self.reserved + whole} bytes of {self.room}")
        block = Block(whole, self._next, small)
        self._next += 2**42  # no two segments are neighbours
        self.reserved += whole
        self.most_reserved = max(self.most_reserved, self.reserved)
        return block

    def _grow(self, size: int, small: bool) -> Block:
        """The segment of these sizes with as many pages more as a request needs, behind its last block."""
        end = self._ends.get(small)
        found = end.bytes if end and end.free else 0
        more = up(size - found, SMALL_SEGMENT if small else LARGE_SEGMENT)
        if self.reserved + more > self.room:
            raise OutOfMemoryError(f"{self.reserved + more} bytes of {self.room}")
        self.reserved += more
        self.most_reserved = max(self.most_reserved, self.reserved)
        if end and end.free:
            self._forget(end)
            end.bytes += more
            return end
        place = end.place + end.bytes if end else 2**62 * small
        block = self._ends[small] = Block(more, place, small, end)
        if end:
            end.after = block
        return block

    def _ends_at(self, was: Block, now: Block) -> None:
        """The last block of a segment that grows is another, where it `was` this one."""
        if self._ends.get(was.small) is was:
            self._ends[was.small] = now

    def _release(self) -> None:
        """Give segments of which nothing is used back to the card."""
        for small, pool in self._free.items():
            kept = []
            for size, place in pool:
                block = self._at[place]
                if block.before is None and block.after is None:
                    self.reserved -= size
                else:
                    kept.append((size, place))
            self._free[small] = kept
