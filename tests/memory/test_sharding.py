"""Layouts over GPUs against arithmetic by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.fewest import _on, fewest_gpus
from planner.memory import estimate_memory
from planner.memory.sharding import gathered
from planner.moments import MemoryEstimate
from planner.running import Running, running

LLAMA = "meta-llama/Llama-3.1-8B"
PARAMS, NORMS, ADAPTER = 8_030_261_248, 65 * 4096, 88_121_344
LAYER = 218_103_808 + 2 * 4096  # q, k, v, o, gate, up, down and two norms
MOE = "Qwen/Qwen3-30B-A3B"
EXPERTS = 48 * 128 * 3 * 2048 * 768


def run_of(model: str = LLAMA, **options: Any) -> Running:
    return running(model, {"seq_len": 512, **options})


def held(found: MemoryEstimate, part: str) -> int:
    """Bytes of a part while the optimizer steps."""
    last = next(moment for moment in found.moments if moment.phase == "optimizer")
    return last.parts()[part]  # type: ignore[index]


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients", "optimizer"),
    [("ddp", 1, 1, 1), ("zero1", 1, 1, 8), ("zero2", 1, 8, 8), ("zero3", 8, 8, 8), ("fsdp", 8, 8, 8)],
)
def test_states_of_full_fine_tuning(sharding: str, weights: int, gradients: int, optimizer: int) -> None:
    found = run_of(method="full", gpus=8, batch=8, sharding=sharding).memory()
    assert held(found, "weights") == 2 * PARAMS // weights
    assert held(found, "gradients") == 2 * PARAMS // gradients
    assert held(found, "optimizer") == 2 * 2 * PARAMS // optimizer


@pytest.mark.parametrize(
    ("sharding", "weights", "adapter"), [("ddp", 1, 1), ("zero2", 1, 8), ("zero3", 8, 8), ("fsdp", 8, 8)]
)
def test_states_of_lora(sharding: str, weights: int, adapter: int) -> None:
    """The frozen base is sharded like trained weights; gradients and states exist for the adapter alone."""
    found = run_of(gpus=8, batch=8, sharding=sharding).memory()
    assert held(found, "weights") == 2 * PARAMS // weights
    assert held(found, "gradients") == 4 * ADAPTER // adapter  # in float32, as PEFT has it
    assert held(found, "optimizer") == 2 * 4 * ADAPTER // adapter


@pytest.mark.parametrize(
    ("asked", "trained", "states"),
    [
        ({"trainer": "trl", "sharding": "zero2"}, ADAPTER, 12),  # a copy and two moments, in float32
        ({"trainer": "trl", "sharding": "zero3"}, ADAPTER, 12),
        ({"trainer": "deepspeed", "sharding": "zero3", "precision": "fp16"}, ADAPTER, 12),
        ({"method": "full", "sharding": "zero2", "precision": "fp16"}, PARAMS, 12),
        ({"method": "full", "sharding": "zero2"}, PARAMS, 4),  # all in bfloat16, where one says so
        ({"trainer": "trl", "sharding": "ddp"}, ADAPTER, 8 * 8),  # 32 bits, on every GPU
        ({"trainer": "deepspeed", "sharding": "ddp"}, ADAPTER, 8 * 4),  # no ZeRO
    ],
)
def test_deepspeed_keeps_float32_copies_of_16_bits(asked: dict[str, Any], trained: int, states: int) -> None:
    """Of adapters too: single_partition_of_fp32_groups of ZeRO-1 and 2, fp32_partitioned_groups_flat of ZeRO-3."""
    found = run_of(gpus=8, batch=8, **asked).memory()
    assert held(found, "optimizer") == states * trained // 8


def test_a_copy_for_each_machine() -> None:
    found = run_of(gpus=16, batch=16, sharding="fsdp-hybrid")
    assert found.setup.shard_size == found.setup.shards == 8
    assert held(found.memory(), "weights") == 2 * PARAMS // 8
    replicas = [entry for entry in found.memory().traffic if entry.group == "replica"]
    assert [(entry.group_size, entry.bytes) for entry in replicas] == [(2, 4 * ADAPTER // 8)]


def test_tensor_parallel_splits_matrices_and_copies_norms() -> None:
    found = run_of(gpus=4, tensor_parallel=4).memory()
    assert held(found, "weights") == 2 * ((PARAMS - NORMS) // 4 + NORMS)
    (entry,) = found.traffic
    # Two sums of the hidden states a layer, forward and backward.
    assert (entry.collective, entry.calls, entry.bytes) == ("all_reduce", 128, 128 * 512 * 4096 * 2)


def test_a_pair_is_divided_with_its_matrix() -> None:
    """B of what is divided by outputs, A of what is divided by inputs; Megatron-Bridge divides both."""
    d, kv, mlp = 4096, 1024, 14_336
    divided = d + 2 * kv + 2 * mlp + d + mlp  # B of q, k, v, gate, up; A of o, down
    whole = 5 * d + 2 * d  # A of those, B of these
    found = run_of(gpus=4, tensor_parallel=4, layers="all-linear", rank=16).memory()
    assert held(found, "adapter") == 32 * 16 * 4 * (divided // 4 + whole)
    found = run_of(gpus=4, tensor_parallel=4, layers="all-linear", rank=16, trainer="megatron").memory()
    assert held(found, "adapter") == 32 * 16 * 2 * (divided + whole) // 4  # in bfloat16


def test_a_router_stands_whole_on_tensor_parallel_gpus() -> None:
    found = run_of(MOE, gpus=2, tensor_parallel=2).memory()
    arch = run_of(MOE).arch
    routers = 48 * 2048 * 128
    vectors = sum(vector.params for vector in arch.vectors)
    assert held(found, "weights") == 2 * ((arch.params - routers - vectors) // 2 + routers + vectors)


def test_pipeline_parallel_splits_layers() -> None:
    found = run_of(gpus=4, pipeline_parallel=4).memory()
    ends = 128_256 * 4096
    assert held(found, "weights") in (2 * (8 * LAYER + ends), 2 * (8 * LAYER + ends + 4096))


def test_the_last_stage_holds_tied_embeddings_too() -> None:
    """Qwen3 0.6B in full over two GPUs: one has the unembedding with its gradients and states, the other the same
    tensor as embedding, and neither less than half of the layers beside it."""
    model = "Qwen/Qwen3-0.6B"
    arch, found = run_of(model).arch, run_of(model, gpus=2, pipeline_parallel=2, method="full").memory()
    assert arch.tied_embeddings
    tied = 151_936 * 1024
    half = (arch.params - tied - 1024) // 2  # without the last norm
    assert held(found, "weights") // 2 in (half + tied, half + tied + 1024)


def test_expert_parallel_splits_experts() -> None:
    alone = run_of(MOE, experts="per-expert", gpus=8, batch=8, sharding="ddp").memory()
    split = run_of(MOE, experts="per-expert", gpus=8, batch=8, sharding="ddp", expert_parallel=8).memory()
    assert held(alone, "weights") - held(split, "weights") == 2 * EXPERTS * 7 // 8


@pytest.mark.parametrize("experts_over", [1, 2, 4, 8])
def test_experts_are_divided_once(experts_over: int) -> None:
    """However many GPUs share the experts, eight that share all states hold an eighth of the model each."""
    options: dict[str, Any] = {"gpus": 8, "batch": 8, "sharding": "fsdp", "expert_parallel": experts_over}
    found = run_of(MOE, experts="per-expert", **options).memory()
    total = 2 * run_of(MOE).arch.params
    assert held(found, "weights") == pytest.approx(total / 8, rel=1e-6)
    assert held(found, "adapter") == pytest.approx(
        held(run_of(MOE, experts="per-expert").memory(), "adapter") / 8, rel=1e-6
    )
    full = run_of(MOE, method="full", **options).memory()
    assert held(full, "optimizer") == pytest.approx(2 * total / 8, rel=1e-6)
    assert held(full, "gradients") == pytest.approx(total / 8, rel=1e-6)
    # The backward pass leaves the same, one layer after the other.
    end = next(moment for moment in full.moments if moment.phase == "backward")
    assert end.parts()["gradients"] <= 1.2 * total / 8


def test_experts_of_one_gpu_each_are_not_gathered() -> None:
    layer = 2 * EXPERTS // 48
    gathered_by = {}
    for apart in (1, 4, 8):
        setup = run_of(MOE, gpus=8, batch=8, sharding="fsdp", expert_parallel=apart).setup
        gathered_by[apart] = gathered(run_of(MOE).arch, setup)[0]
    assert gathered_by[1] - gathered_by[4] == layer * 3 // 4
    assert gathered_by[1] - gathered_by[8] == layer


def test_a_factor_that_experts_share_stands_on_every_gpu() -> None:
    one, many = (
        run_of(MOE, experts="shared-outer", gpus=8, batch=8, sharding="ddp", expert_parallel=n).memory()
        for n in (1, 8)
    )
    pairs = [
        p
        for item in run_of(MOE, experts="shared-outer").pairs
        if item.matrix.kind == "experts"
        for p in item.pairs
    ]
    cut = sum(
        4 * p.rank * (p.d_in * p.n_in * (p.n_in > 1) + p.d_out * p.n_out * (p.n_out > 1)) for p in pairs
    )
    assert held(one, "adapter") - held(many, "adapter") == 48 * cut * 7 // 8


def test_a_mixture_of_a_trillion_needs_fewer_gpus_with_its_experts_divided() -> None:
    run = run_of("moonshotai/Kimi-K2-Instruct", layers="attention")
    found = fewest_gpus(run, 80 * 10**9)
    assert found is not None and found.gpus == 32 and found.expert_parallel == 32
    # 2 bytes of each of 1.026e12 parameters over 32 GPUs are 64 GB each.
    assert found.per_gpu_bytes > 2 * run.arch.params / 32


def test_sequence_parallel_splits_activations() -> None:
    whole = run_of(seq_len=4096).memory()
    split = run_of(seq_len=4096, gpus=4, sequence_parallel=4, sharding="ddp").memory()
    kept = [held_at(found, "activations") for found in (whole, split)]
    assert kept[0] / kept[1] == pytest.approx(4, rel=0.02)


def test_gpus_that_share_a_sequence_reduce_gradients_through_buckets() -> None:
    """DDP's are as large as the gradients, whether its GPUs share one sequence or have one each."""
    for sequence in (1, 2, 4):
        found = run_of(gpus=4, batch=4 // sequence, sequence_parallel=sequence, sharding="ddp").memory()
        last = next(moment for moment in found.moments if moment.phase == "optimizer")
        sizes = {item.name: item.bytes for item in last.items}
        assert sizes["gradient buckets"] == 4 * ADAPTER


def held_at(found: MemoryEstimate, part: str) -> int:
    """Bytes of a part at the end of the forward pass."""
    return next(m for m in found.moments if m.phase == "forward").parts()[part]  # type: ignore[index]


@given(gpus=st.sampled_from([2, 4, 8, 16, 64]), method=st.sampled_from(["lora", "full"]))
def test_more_shards_hold_less(gpus: int, method: str) -> None:
    few = run_of(method=method, gpus=gpus, batch=gpus, sharding="fsdp").memory()
    more = run_of(method=method, gpus=2 * gpus, batch=2 * gpus, sharding="fsdp").memory()
    assert more.per_gpu_bytes < few.per_gpu_bytes


@given(
    gib=st.sampled_from([16, 24, 48, 80, 141]), method=st.sampled_from(["lora", "qlora", "full"]),
    model=st.sampled_from([LLAMA, MOE, "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-70B"]),
)  # fmt: skip
def test_fewest_fits_and_half_of_it_does_not(gib: int, method: str, model: str) -> None:
    run = run_of(model, method=method)
    found = fewest_gpus(run, gib * 2**30)
    assert found is not None and found.per_gpu_bytes <= gib * 2**30
    again = estimate_memory(run.arch, _on(run, found.gpus, found.checkpointing), run.pairs, run.whole)
    assert again.per_gpu_bytes == found.per_gpu_bytes
    tighter = [(found.gpus, "none")] if found.checkpointing != "none" else []
    if found.gpus > 1:
        tighter += [(found.gpus // 2, "none"), (found.gpus // 2, "layer")]
    for gpus, checkpointing in tighter:
        setup = _on(run, gpus, checkpointing)  # type: ignore[arg-type]
        assert estimate_memory(run.arch, setup, run.pairs, run.whole).per_gpu_bytes > gib * 2**30


def test_full_fine_tuning_needs_several_times_as_many() -> None:
    needed = {}
    for method in ("lora", "full"):
        run = run_of("meta-llama/Llama-3.1-70B", method=method, checkpointing="layer", gpu="h100")
        found = fewest_gpus(run, 80 * 10**9)
        assert found
        needed[method] = found.gpus
    assert needed["full"] / needed["lora"] >= 4


@pytest.mark.parametrize("sharding", ["ddp", "zero2", "fsdp"])
def test_gradients_of_experts_go_to_those_who_hold_them(sharding: str) -> None:
    """Memory's traffic is that which steps are timed with: experts' gradients are reduced among their replicas."""
    from planner.memory.traffic import traffic
    from planner.speed.trained import held as trained

    run = run_of(MOE, experts="per-expert", gpus=8, batch=8, sharding=sharding, expert_parallel=4)
    mine = trained(run.arch, run.setup, run.pairs, run.whole)
    found = run.memory().traffic
    assert found == traffic(run.arch, run.setup, round(mine.shared), round(mine.experts))
    apart = next(entry for entry in found if entry.what == "gradients of experts")
    assert apart.group_size == 2 and apart.bytes > 0


def test_a_gpu_with_one_of_several_heads_of_keys_runs_fused_attention() -> None:
    """Falcon 40B's eight are spread out to all heads before; those of Falcon 7B, which has one, are not."""

    def kept(gpus: int) -> int:
        found = run_of("tiiuae/falcon-40b", gpus=gpus, tensor_parallel=gpus, seq_len=4096).memory()
        return found.peak.parts()["activations"]

    assert kept(8) < kept(4)
