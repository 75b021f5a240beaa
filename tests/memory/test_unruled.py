"""A walk that meets what no rule made: said of a model that was read from its library's code, raised of our own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.errors import UnsupportedArchitectureError
from planner.estimator import load
from planner.memory import peak
from planner.setup import Setup


@pytest.mark.parametrize("error", [KeyError, IndexError, StopIteration, AssertionError])
def test_faults_of_builders_are_not_taken_for_gaps(error: type[Exception], monkeypatch: Any) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error(7)

    arch = load("Qwen/Qwen2.5-0.5B")[1]
    assert arch.built_by is None
    monkeypatch.setattr(peak, "_stage", fails)
    with pytest.raises(error):
        peak.estimate_stages(arch, Setup(seq_len=64))
    with pytest.raises(UnsupportedArchitectureError, match="in a way that no rule covers"):
        peak.estimate_stages(replace(arch, built_by="transformers 5.0"), Setup(seq_len=64))
