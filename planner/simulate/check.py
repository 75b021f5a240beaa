"""What a simulation does not do, and failures of the libraries in one line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..architecture.meta.model import quietly
from ..errors import ConfigError, InputError, PlannerError
from ..setup import Setup
from ..trainers import PLAIN

# What a set-up may say of which a simulation knows one value only.
ONLY = {
    "kernels": "transformers", "gpus": 1, "sharding": "none", "tensor_parallel": 1, "pipeline_parallel": 1,
    "expert_parallel": 1, "sequence_parallel": 1, "offload": "none", "main_grads": False,
    "gradients_late": False,
}  # fmt: skip


def check_setup(setup: Setup) -> None:
    """Raise InputError where a set-up asks for what a simulation does not do: several GPUs, others' kernels."""
    for name, only in ONLY.items():
        found = getattr(setup, name)
        if found != only:
            if setup.trainer != PLAIN:
                raise InputError(
                    "trainer",
                    setup.trainer,
                    "one that runs transformers' code on one GPU",
                    f"It has {name.replace('_', '-')} {found}, which is not simulated. The nearest is hf-trainer.",
                )
            raise InputError(
                name.replace("_", "-"),
                found,
                f"{only}: a step is simulated on one GPU, with transformers' kernels",
            )
    if setup.loss == "wide-fused" and setup.objective != "sft":
        raise InputError("loss", setup.loss, f"another with objective {setup.objective} in a simulation")
    if setup.quantize_experts and setup.quantize != "fp8":
        raise InputError(
            "quantize-experts", True, "False: of experts transformers 5 quantises those in FP8 alone",
        )  # fmt: skip
    if setup.cache_held:
        raise InputError("cache-held", True, "none: a step is simulated without a cache")
    if setup.eval_batch and setup.objective != "sft":
        raise InputError("eval-batch", setup.eval_batch, "0 but for supervised training")
    if setup.eval_batch and setup.eval_cache != "none":
        raise InputError(
            "eval-batch", setup.eval_batch, f"none with trainer {setup.trainer}",
            "transformers 4 fills a cache of keys and values in an evaluation, which only an estimate counts.",
        )  # fmt: skip
    if setup.attention_kernel == "flash" and setup.precision == "fp32":
        raise InputError(
            "attention-kernel", "flash", "sdpa or eager with precision fp32: flash attention takes 16 bits"
        )


@contextmanager
def clear_errors(model_type: str) -> Iterator[None]:
    """Quiet libraries, whose failures become a ConfigError of one line."""
    try:
        with quietly():
            yield
    except PlannerError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(
            f"transformers and PEFT cannot run a step of model_type {model_type!r}: {reason}"
        ) from error
