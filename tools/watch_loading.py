"""How many bytes of unquantised weights transformers holds at once while bitsandbytes quantises a model, on a CPU.

    python -m tools.watch_loading    # with bitsandbytes 0.50 beside the transformers that is to be watched

A small Llama of random weights is written, then loaded in four bits by transformers' own loader, whose function for
one tensor is watched: every tensor that it hands out counts until it is gone. Of 299,943,936 bytes in 16 bits, two
tables of 8,388,608 each among them, which nothing quantises, the most that were held at once:

    transformers 5.3.0    299,943,936    all of them (`together` in planner/memory/loading.py)
    transformers 5.4.0     16,777,216    the two tables, beside which one matrix at most (`in-turn`)
    transformers 5.23.0    16,777,216    so too
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from typing import Any

SIZES = {
    "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": False,
}  # fmt: skip


class Held:
    """Bytes of tensors that are alive, and the most of them."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.RLock()

    def see(self, tensor: Any) -> Any:
        """Count a tensor until it is gone."""
        size = tensor.numel() * tensor.element_size()
        with self.lock:
            self.now += size
            self.most = max(self.most, self.now)
        weakref.finalize(tensor, self._gone, size)
        return tensor

    def _gone(self, size: int) -> None:
        with self.lock:
            self.now -= size


def watched() -> tuple[int, int]:
    """The most bytes of unquantised weights at once, and those of all."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, core_model_loading

    made = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES), dtype=torch.bfloat16)
    held, hand_out = Held(), core_model_loading._materialize_copy
    core_model_loading._materialize_copy = lambda *args, **kwargs: held.see(hand_out(*args, **kwargs))
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=four_bits, device_map={"": "cpu"}, dtype=torch.bfloat16
        )
    return held.most, sum(2 * p.numel() for p in made.parameters())


def main() -> None:
    """Print both, and the version."""
    import transformers

    most, every = watched()
    print(f"transformers {transformers.__version__}: {most:,} of {every:,} bytes at once")


if __name__ == "__main__":
    main()
