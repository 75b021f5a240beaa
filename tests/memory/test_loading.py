"""What comes before the first step: against hand counts, PEFT's own function on real tensors, measured runs of
torchao and of a trainer, and torch's allocator."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from planner import estimate
from planner.estimator import load
from planner.memory.loading import (
    BUCKET_BYTES,
    flat_copies,
    largest_tensor,
    loaded_bytes,
    narrow_tensors,
    torchao_bytes,
    unquantised_bytes,
    widening_bytes,
)
from planner.memory.overhead import beyond_peak
from planner.memory.stages import whole_model
from planner.memory.states import base_weights
from planner.moments import BEFORE, Item, MemoryEstimate, Moment
from planner.running import running
from planner.setup import Setup
from planner.simulate.allocator import CachingAllocator
from planner.trainers import trainers

LLAMA_2, LLAMA_3 = "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.1-8B"
TINY = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False,
}  # fmt: skip


def memory_of(model: Any, **options: Any) -> MemoryEstimate:
    return running(model, {"seq_len": 64, "rank": 8, **options}).memory()


def before(found: MemoryEstimate) -> dict[str, int]:
    return {moment.phase: moment.bytes for moment in found.moments if moment.phase in BEFORE}


def test_nothing_is_said_of_a_program_whose_loading_is_not_known() -> None:
    for options in (
        {},
        {"quantize": "nf4"},
        {"trainer": "megatron"},
        {"trainer": "unsloth", "quantize": "nf4"},
    ):
        found = memory_of(LLAMA_3, **options)
        assert found.loading_peak is None and found.before_bytes == 0 and found.loading() is None
    plan = estimate(LLAMA_3, trainer="hf-trainer-5.3")
    assert plan.memory and plan.memory["lora"]["loading"]["moment"] == "loading weights"


def test_a_base_that_is_not_quantised_is_held_as_it_is_loaded() -> None:
    found = memory_of(LLAMA_2, trainer="hf-trainer")
    assert before(found) == {"loading": 2 * 6_738_415_616}
    assert found.peak.phase not in BEFORE and not {n.code for n in found.notices} & {"loading-peak"}


def test_transformers_5_3_holds_every_weight_in_16_bits() -> None:
    """The whole model, of which 0.92 and 0.95 were measured; 5.4 holds the largest matrix beside what is loaded."""
    options = {"quantize": "nf4", "method": "qlora"}
    together = memory_of(LLAMA_2, trainer="hf-trainer-5.3", **options)
    assert before(together)["loading"] == together.peak.bytes == 2 * 6_738_415_616
    assert together.peak.name == "loading all tensors"
    assert "5.4" in next(n.message for n in together.notices if n.code == "loading-peak")
    turn = memory_of(LLAMA_2, trainer="hf-trainer", **options)
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    held = linear // 2 + 4 * linear // 64 + 2 * (2 * 32000 * 4096 + 65 * 4096) + 224 * 64
    assert before(turn)["loading"] == held + 2 * 4096 * 11008
    assert turn.peak.bytes < 0.6 * together.peak.bytes


@pytest.mark.parametrize("values", [512 * 1024, 4096 * 1024])
def test_torchao_compares_each_value_with_sixteen(values: int) -> None:
    """Bytes a value that a tracker of storages saw of torchao 0.1 and 0.8.0, quantising bfloat16 matrices."""
    seen_whole, seen = 68.078, {512 * 1024: 69.047, 4096 * 1024: 21.047}[values]
    assert torchao_bytes(values, whole=True) / values == pytest.approx(seen_whole, abs=0.08)
    assert torchao_bytes(values, whole=False) / values == pytest.approx(seen, abs=0.08)


def test_torchtune_0_1_reserves_most_while_it_quantises() -> None:
    """Its tutorial has 9.13 GB reserved before the first step and 9.29 in training; its 0.1 README 8.57."""
    options = {"method": "qlora", "seq_len": 512, "batch": 2, "targets": "q_proj,v_proj"}
    found = memory_of(LLAMA_2, trainer="torchtune-0.1", **options)
    assert found.peak.name == "loading largest matrix" and found.reserved_bytes == found.before_bytes
    assert 0.85 < found.reserved_bytes / 9.13e9 < 1.05
    again = memory_of(LLAMA_2, trainer="torchtune", **options)
    assert before(again)["loading"] < 0.7 * found.peak.bytes


def test_widening_holds_both_copies_of_one_tensor() -> None:
    assert widening_bytes([]) == 0
    assert widening_bytes([10]) == 20
    assert widening_bytes([10, 1, 10]) == 10 + 1 + 20
    assert widening_bytes([10, 1]) == 20


def _watched(model: Any, run: Any) -> int:
    """The most bytes of real storages while `run` goes, those of the model's parameters among them."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):
        now = top = 0

        def __init__(self) -> None:
            super().__init__()
            self.known: set[int] = set()

        def see(self, tensor: Any) -> None:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known:
                self.known.add(key)
                self.now += size
                self.top = max(self.top, self.now)
                weakref.finalize(storage, self._gone, key, size)

        def _gone(self, key: int, size: int) -> None:
            self.known.discard(key)
            self.now -= size

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            for each in tree_leaves(found):
                if type(each) is torch.Tensor:
                    self.see(each)
            return found

    watch = Watch()
    for parameter in model.parameters():
        watch.see(parameter.data)
    with watch:
        run()
    return watch.top


@pytest.mark.parametrize("tied", [False, True])
def test_peft_prepares_a_quantised_model_as_it_is_counted(tied: bool) -> None:
    """prepare_model_for_kbit_training on real tensors: matrices in four bits by size, the rest bfloat16."""
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {**TINY, "tie_word_embeddings": tied}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    model.is_loaded_in_4bit = True
    for module in model.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            packed = torch.zeros(module.weight.numel() // 2, dtype=torch.uint8)
            module.weight = torch.nn.Parameter(packed, requires_grad=False)
    seen = _watched(
        model, lambda: peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    )
    arch, setup = load(config)[1], Setup(method="qlora", quantize="nf4", prepared_wide=True)
    narrow = narrow_tensors(arch, setup, whole_model(arch))
    norms = 2 * 64 * 7
    packed_bytes = sum(p.numel() for p in model.parameters() if p.dtype == torch.uint8)
    assert sum(narrow) == (1 if tied else 2) * 2 * 512 * 64
    held = packed_bytes + sum(narrow) + norms
    assert seen == pytest.approx(held + widening_bytes(narrow), rel=0.005)


def test_trl_0_24_widens_embeddings_for_a_while() -> None:
    """Qwen3-8B: 622 million values of each table. What is freed stays with the allocator."""
    options = {"method": "qlora", "quantize": "nf4-double", "seq_len": 512}
    found = memory_of("Qwen/Qwen3-8B", trainer="trl-0.24", **options)
    table = 2 * 151_936 * 4096
    moment = next(m for m in found.moments if m.phase == "preparing")
    arch = load("Qwen/Qwen3-8B")[1]
    held = loaded_bytes(arch, found.setup, whole_model(arch))
    assert moment.bytes == held + 3 * table and found.before_bytes == held + 4 * table
    assert found.reserved_bytes >= found.before_bytes
    later = memory_of("Qwen/Qwen3-8B", trainer="trl-0.25", **options)
    assert "preparing" not in before(later) and later.peak.bytes < found.peak.bytes


def test_what_is_widened_for_good_is_what_a_step_holds() -> None:
    arch = load(LLAMA_3)[1]
    setup = Setup(method="qlora", quantize="nf4", upcast_small=True)
    stage = whole_model(arch)
    loaded, wide = loaded_bytes(arch, setup, stage), base_weights(arch, setup).of(stage)
    assert wide - loaded == pytest.approx(sum(narrow_tensors(arch, setup, stage)), rel=0.001)
    assert unquantised_bytes(arch, setup, stage) == 2 * 8_030_261_248


def test_a_block_taken_ahead_stays() -> None:
    """transformers 4.50 to 4.57 take half of the unquantised weights at once, more than NF4 needs."""
    options = {"method": "qlora", "quantize": "nf4-double", "targets": "q_proj", "seq_len": 64}
    found = memory_of("meta-llama/Llama-3.1-70B", trainer="axolotl-2025", **options)
    assert found.before_bytes == 70_553_706_496
    assert before(found)["loading"] < found.before_bytes


def test_ddp_fills_buckets_in_order() -> None:
    """Millions of bytes that torch's own _broadcast_coalesced (2.13, gloo, two processes) was seen to allocate for a
    tensor of 400 and four times 90, 90 and 30: the first as it is, then copies of 300, 300 and 240."""
    tensors = [400, *(90, 90, 30) * 4]
    assert flat_copies([size * 10**6 for size in tensors]) == [0, 300_000_000, 300_000_000, 240_000_000]
    assert flat_copies([]) == flat_copies([10**6]) == []


def test_ddp_sends_flat_copies() -> None:
    """Two at a time, which torch from 2.8 on uses again; before, the allocator keeps all of them where it has room
    (published of Qwen2.5-7B on two GPUs: 29.5 GB, on one 18.5)."""
    options = {"gpus": 2, "sharding": "ddp", "batch": 16, "accumulation": 8, "seq_len": 128}
    arch = load("Qwen/Qwen2.5-7B-Instruct")[1]
    table = 2 * 152_064 * 3584
    assert largest_tensor(arch, Setup()) == table > BUCKET_BYTES
    kept = memory_of("Qwen/Qwen2.5-7B-Instruct", trainer="ms-swift-3", **options)
    again = memory_of("Qwen/Qwen2.5-7B-Instruct", trainer="ms-swift", **options)
    weights = 2 * arch.params
    assert before(kept)["placing"] == before(again)["placing"]
    assert weights + 2 * BUCKET_BYTES < before(kept)["placing"] < weights + table + 3 * BUCKET_BYTES
    assert kept.reserved_bytes == pytest.approx(29.5e9, rel=0.01)
    own = kept.peak.parts()["adapter"]
    assert kept.before_bytes == pytest.approx(2 * (weights + own) - table, rel=0.001)
    assert again.reserved_bytes < 20e9 and again.before_bytes == before(again)["placing"]


def test_without_zero_init_each_gpu_holds_the_whole_model() -> None:
    options = {"gpus": 4, "sharding": "zero3", "method": "full", "checkpointing": "layer"}
    parted = memory_of(LLAMA_2, trainer="hf-trainer", **options)
    whole = memory_of(LLAMA_2, trainer="deepspeed-loop", **options)
    shard = -(-2 * 32000 * 4096 // 4)
    assert before(whole) == {"placing": 2 * 6_738_415_616 + shard}
    assert before(parted)["placing"] == 2 * 6_738_415_616 // 4 + 2 * 2 * 32000 * 4096
    assert "loading" not in before(parted)


def test_transformers_5_loads_a_quantised_base_whole_on_every_gpu() -> None:
    """FSDP and ZeRO-3 divide it only then; of other programs it is not known."""
    alone = memory_of("meta-llama/Llama-3.1-70B", trainer="hf-trainer", quantize="nf4", method="qlora")
    for sharding in ("fsdp", "zero3"):
        options = {"gpus": 8, "sharding": sharding, "method": "qlora", "quantize": "nf4"}
        found = memory_of("meta-llama/Llama-3.1-70B", trainer="hf-trainer", **options)
        assert found.peak.phase in BEFORE and found.step_bytes < found.peak.bytes / 2
        assert before(found)["loading"] == before(alone)["loading"] > 35e9
        assert "device_map" in next(n.message for n in found.notices if n.code == "loading-peak")
        for other in ("hf-trainer-4.46", "axolotl", "trl-0.24"):
            assert memory_of(LLAMA_3, trainer=other, **options).loading_peak is None
    least = [
        estimate("meta-llama/Llama-3.1-70B", trainer=trainer, gpu="l4", quantize="nf4").memory
        for trainer in ("hf-trainer", "hf-trainer-4.46")
    ]
    assert [found and bool(found["qlora"]["fewest"]) for found in least] == [False, True]
    together = memory_of(LLAMA_3, trainer="hf-trainer-5.3", **options)
    assert before(together)["loading"] == 2 * 8_030_261_248


def test_the_allocator_keeps_what_loading_took() -> None:
    """max(a step's peak and what is kept of it, all that was taken before): torch's allocator, whose freed blocks
    serve what is no larger."""
    allocator = CachingAllocator(10**10)
    copies = [allocator.take(50 * 2**20) for _ in range(8)]
    for copy in copies:
        allocator.give(copy)
    for _ in range(6):
        allocator.take(40 * 2**20)
    early = Moment("loading", "", (Item("weights", "", 400 * 2**20),))
    step = Moment("backward", "", (Item("activations", "", 240 * 2**20),))
    assert allocator.most_reserved == 400 * 2**20
    assert beyond_peak([early, step], 0, 400 * 2**20) + 400 * 2**20 == allocator.most_reserved
    assert beyond_peak([step], 30, 0) == 30
    assert beyond_peak([early, step], 200 * 2**20, 400 * 2**20) == 40 * 2**20


def test_most_bytes_before_a_step_are_never_less_than_what_is_allocated() -> None:
    """Of every profile that says how it loads, by method and layout."""
    for trainer in trainers():
        for options in (
            {}, {"quantize": "nf4", "method": "qlora"}, {"method": "full"},
            {"gpus": 2, "sharding": "ddp"}, {"gpus": 2, "sharding": "fsdp"},
        ):  # fmt: skip
            if "loading" in trainer.groups.get("setup", {}):
                found = memory_of(TINY, trainer=trainer.name, **options)
                early = before(found)
                assert early or options.get("sharding") == "fsdp"
                assert found.before_bytes >= max(early.values(), default=0)
                assert found.reserved_bytes >= max(found.before_bytes, found.allocated_bytes)
