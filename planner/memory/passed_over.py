"""What to say where a loss reads the unembedding's weight and passes over pairs beside it.

Sources: trl 1.16, trainer/sft_trainer.py, dpo_trainer.py, kto_trainer.py and grpo_trainer.py (each refuses a model
whose output embeddings are a BaseTunerLayer); 1.14, trainer/sft_trainer.py (_chunked_cross_entropy_loss on
lm_head.weight); liger-kernel 0.6, transformers/model/loss_utils.py (lm_head_weight=self.lm_head.weight).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..adapter import Adapted
from ..choices import PAST_PAIRS
from ..schema import Notice
from ..setup import Setup

UNSLOTH = (
    "Unsloth's fused loss reads the unembedding's weight past an adapter: it trains that weight in full or "
    "not at all, and no pairs beside it. --layers attention,mlp leaves them out."
)


def passed_over(setup: Setup, adapted: Iterable[Adapted] | None) -> Iterator[Notice]:
    """That pairs on the unembedding are counted and learn nothing."""
    if setup.loss not in PAST_PAIRS or all(item.matrix.role != "unembedding" for item in adapted or ()):
        return
    if setup.kernels == "unsloth":
        yield Notice("pairs-passed-over", UNSLOTH)
        return
    name = "TRL's tiled loss" if setup.loss == "tiled" else f"The loss {setup.loss}"
    refused = ", and TRL 1.16 refuses them" if setup.loss == "tiled" else ""
    yield Notice(
        "pairs-passed-over",
        f"{name} reads the unembedding's weights and passes over pairs beside them: these take memory and learn "
        f"nothing{refused}. --layers attention,mlp leaves them out.",
    )
