"""One block as it is written: its operations, and the values in it that stand for the roots of a recorded pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...schema import MEMORY, STREAM, Join, Keep, Operation, Recall
from .recorder import NotCountedError, Root, Roots


class Page:
    """The operations of one block, with the values that stand for roots."""

    def __init__(self, number: int, kept: dict[Root, str], given: dict[Root, int]) -> None:
        self.number = number
        self.kept = kept
        self.operations: list[Operation] = []
        self.known: dict[Root, int] = dict(given)
        self.joined: dict[frozenset[int], int] = {}
        self.next = MEMORY + 1

    def _new(self) -> int:
        self.next += 1
        return self.next - 1

    def add(self, root: Root, make: Any) -> None:
        """An operation whose result is `root`. What it reads is written first."""
        operation = make(-1)
        operation = replace(operation, out=self._new())
        self.operations.append(operation)
        self.define(root, operation.out)

    def define(self, root: Root, value: int) -> None:
        """A root stands for this value, which is kept where a later block reads it."""
        self.known[root] = value
        if root in self.kept:
            self.operations.append(Keep(value, self.kept[root], self._new()))

    def keep_stream(self) -> None:
        """Keep the stream itself where a later block reads it."""
        if (self.number, 0) in self.kept:
            self.operations.append(Keep(STREAM, self.kept[self.number, 0], self._new()))

    def value(self, roots: Roots) -> int:
        """The value made from these roots."""
        values = frozenset(self._one(root) for root in sorted(roots))
        if len(values) == 1:
            return next(iter(values))
        if values not in self.joined:
            out = self._new()
            self.operations.append(Join(tuple(sorted(values)), out))
            self.joined[values] = out
        return self.joined[values]

    def _one(self, root: Root) -> int:
        if root not in self.known:
            if root[0] == self.number:
                raise NotCountedError("a value is read before it is made")
            out = self._new()
            self.operations.append(Recall(self.kept[root], out))
            self.known[root] = out
        return self.known[root]
