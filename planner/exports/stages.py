"""Which objective a trainer's stage is: what a plan can count as such, and what it can only say."""

from __future__ import annotations

from typing import Any

from ..schema import Notice
from .reading import Fields

SUPERVISED = ("sft", "pt")
# A stage, and the loss of preferences within it, by LLaMA-Factory's and Axolotl's words. IPO and the hinge are other
# functions of the same two log-probabilities as DPO's, against the same reference.
LLAMAFACTORY = {
    ("dpo", "sigmoid"): "dpo", ("dpo", "hinge"): "dpo", ("dpo", "ipo"): "dpo", ("dpo", "orpo"): "orpo",
    ("kto", None): "kto",
}  # fmt: skip
AXOLOTL = {"dpo": "dpo", "ipo": "dpo", "orpo": "orpo", "kto": "kto"}


def objective(f: Fields, stage: str | None, found: str | None, own: dict[str, Any]) -> dict[str, Any]:
    """The options of an objective, over a trainer's `own` for preferences; a stage that no plan counts is said."""
    if stage in (None, *SUPERVISED):
        return {}
    if found is None:
        text = (
            f"The run is of the kind {stage}, which is not modelled as this trainer does it: memory, FLOPs and time "
            "are those of supervised training on the same sequences, which may be far from its own."
        )
        f.notices.append(Notice("stage-not-planned", text))
        return {}
    return {"objective": found, "packing": "padded", **own}
