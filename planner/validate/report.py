"""What `validate` found: verdicts with figures, as the JSON of --json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..version import __version__
from .claims import Claim, Judgement, Setting

SCHEMA = 1


def plain(value: Any) -> Any:
    """JSON without NaN and infinities, which become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


@dataclass(frozen=True)
class Found:
    """One claim judged: what was predicted, what was measured, by which runs, at what cost."""

    claim: Claim
    predicted: float
    judgement: Judgement
    runs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The contract's entry of `claims`."""
        measured = self.judgement.measured
        return {
            "id": self.claim.id, "statement": self.claim.statement, "source": self.claim.source,
            "rule": self.claim.rule, "unit": self.claim.unit, "predicted": plain(self.predicted),
            "measured": {key: plain(getattr(measured, key)) for key in ("value", "low", "high")},
            "verdict": self.judgement.verdict, "reason": self.judgement.reason,
            "details": plain(self.judgement.details), "runs": list(self.runs),
        }  # fmt: skip


@dataclass(frozen=True)
class Report:
    """The whole of a validation. `complete` says that the budget did not end first."""

    setting: Setting
    device: str
    claims: tuple[Found, ...]
    seconds: float
    out: str
    complete: bool = True
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `lora-plan validate --json`."""
        return {
            "schema": SCHEMA, "version": __version__, "models": list(self.setting.models), "device": self.device,
            "seeds": self.setting.seeds, "steps": self.setting.steps, "out": self.out,
            "seconds": round(self.seconds, 1), "complete": self.complete, "runs": dict(self.counts),
            "claims": [found.to_dict() for found in self.claims],
        }  # fmt: skip
