"""States of a paged optimizer: in managed memory, which the driver shows and torch's allocator does not hand out."""

from __future__ import annotations

from planner.moments import MemoryEstimate
from planner.running import running

MODEL = "Qwen/Qwen2.5-3B-Instruct"
PARAMS = 3_085_938_688  # as the library counts them


def memory(optimizer: str, **others: object) -> MemoryEstimate:
    asked = {"method": "full", "batch": 4, "seq_len": 484, "checkpointing": "layer", **others}
    return running(MODEL, {"optimizer": optimizer, **asked}).memory()


def test_the_driver_shows_what_torch_does_not() -> None:
    """Two states of a byte a parameter and a float32 scale for each of 256."""
    paged, plain = memory("paged-adamw-8bit"), memory("adamw-8bit")
    states = plain.peak.parts()["optimizer"]
    assert 2 * PARAMS < states < 2 * PARAMS * (1 + 8 / 256 / 2) + 6e8  # small tensors' and tables' are wider
    assert plain.paged_bytes == 0 and paged.paged_bytes == states
    assert plain.allocated_bytes - paged.allocated_bytes == states
    assert paged.device_bytes == plain.device_bytes
    assert paged.per_gpu_bytes == plain.per_gpu_bytes - states  # the host takes them where the GPU is full


def test_they_stand_there_as_far_as_there_is_room() -> None:
    paged = memory("paged-adamw-8bit")
    least = paged.reserved_bytes + sum(item.bytes for item in paged.overhead)
    for room in (least + 10**9, least + 10**12, None):
        more = paged.paged_bytes if room is None else min(paged.paged_bytes, room - least)
        assert paged.device_within(room) == least + more
        assert paged.to_dict(room)["device_bytes"] == least + more
    assert paged.device_within(paged.per_gpu_bytes) == paged.per_gpu_bytes


def test_what_is_offloaded_is_no_more_paged() -> None:
    assert memory("paged-adamw-8bit", offload="optimizer", sharding="zero2", gpus=2).paged_bytes == 0


def test_a_loop_that_takes_the_loss_at_once_holds_no_logits() -> None:
    """Of 25,072 tokens of Qwen3 8B and 151,936 entries in 16 bits, as five published runs of such loops have it."""
    asked = {
        "trainer": "hf-loop", "method": "lora", "autocast": True, "batch": 1, "seq_len": 25072, "packing": "padded",
        "checkpointing": "layer",
    }  # fmt: skip
    held, at_once = (running("Qwen/Qwen3-8B", {**asked, "outputs_held": on}).memory() for on in (None, False))
    assert held.setup.outputs_held and not at_once.setup.outputs_held
    assert held.allocated_bytes - at_once.allocated_bytes == 2 * 25072 * 151936
