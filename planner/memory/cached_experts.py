"""What to say of tensors of experts under bitsandbytes, which dequantises them by a parametrisation, and cached them.

Sources: bitsandbytes 0.49.2 and 0.50.0, nn/parametrize.py (_register_parametrization_hooks: the hook that empties the
cache runs always from 0.50 on); torch 2.13, nn/utils/parametrize.py (_cache_enabled); utils/checkpoint.py (a layer
that runs again stops, by an exception, where nothing more is needed); transformers 5, which keeps experts as tensors.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..schema import Architecture, Notice
from ..setup import Setup
from .passes import HALF
from .states import is_quantised


def cached_experts_bytes(arch: Architecture, setup: Setup) -> int:
    """Bytes of every expert in 16 bits, 2 n for n weights of quantised tensors of experts, which stay on the GPU from
    the first backward pass on with bitsandbytes before 0.50; 0 where layers are not run again, or by torch's older
    way, which runs them to their end, or where Unsloth's code runs, which dequantises by itself. Of a whole model:
    what several GPUs divide is not divided here."""
    again = setup.checkpointing != "none" and not setup.reentrant
    if not again or setup.kernels == "unsloth" or not setup.quantize.startswith("nf4"):
        return 0
    tensors = (each for each in arch.matrices if each.kind == "experts" and is_quantised(each, setup))
    return sum(HALF * each.d_in * each.d_out * each.experts * each.copies for each in tensors)


def quantised_experts(arch: Architecture, setup: Setup) -> Iterator[Notice]:
    """That bitsandbytes quantises no tensors of experts by itself, and that a version of it that does keeps them
    dequantised, which is not counted."""
    if arch.has_experts and setup.quantize != "none" and not setup.quantize_experts:
        held = (
            "32 bits, as PEFT's prepare_model_for_kbit_training then makes them (--no-upcast-small: in 16)"
            if setup.upcast_small
            else "32 bits" if setup.weight_dtype == "float32" else "16 bits"
        )  # fmt: skip
        yield Notice(
            "experts-not-quantised",
            "transformers 5 keeps experts as tensors that bitsandbytes does not quantise: QLoRA counts them in "
            f"{held}; --quantize-experts counts them quantised, for trainers that do",
        )
    size = cached_experts_bytes(arch, setup)
    if size:
        yield Notice(
            "experts-dequantised-for-good",
            f"bitsandbytes before 0.50 keeps every quantised tensor of experts in 16 bits from the first backward "
            f"pass on where layers run again without use_reentrant, up to {size / 2**30:.1f} GiB, which is not "
            "counted: 0.50 and later do not",
        )
