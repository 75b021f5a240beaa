"""What GPUs send each other, and what experts under expert parallelism cost, by hand calculation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import hardware
from planner.estimator import load
from planner.memory.traffic import traffic as traffic_of
from planner.running import running
from planner.setup import Setup
from planner.speed import step_time
from planner.speed.step import work_of
from planner.speed.trained import held
from tools.sharded_cases import Case

ARCH = load("meta-llama/Llama-3.2-1B")[1]
H100 = hardware.cluster(hardware.find("h100"))


def test_expert_parallel_gpus_keep_their_experts_to_themselves() -> None:
    """Qwen3-30B-A3B on 8 GPUs under DDP, by hand. Experts: 48 layers x 128 x 3 matrices of 2048 x 768. Everything
    else is reduced over all 8; of 4 expert-parallel GPUs each holds a quarter of the experts, which 8 / 4 = 2 share;
    of 8, nobody shares any."""
    arch = load("Qwen/Qwen3-30B-A3B")[1]
    experts = 48 * 128 * 3 * 2048 * 768
    others = arch.params - experts
    for apart, group in ((1, 8), (4, 2), (8, 1)):
        setup = Setup(method="full", gpus=8, sharding="ddp", expert_parallel=apart)
        mine = held(arch, setup, ())
        whole = apart == 1
        assert (mine.shared, mine.experts) == (
            arch.params if whole else others,
            0 if whole else experts / apart,
        )
        sent = traffic_of(arch, setup, round(mine.shared), round(mine.experts))
        found = {entry.what: (entry.bytes, entry.group_size) for entry in sent}
        assert found["gradients"] == (2 * (arch.params if whole else others), 8)
        assert found.get("gradients of experts") == ((2 * experts // apart, group) if group == 2 else None)
        assert work_of(arch, setup).optimizer_bytes == pytest.approx(7 * 2 * (mine.shared + mine.experts))
    sharded = Setup(method="full", gpus=8, sharding="fsdp", expert_parallel=4)
    assert work_of(arch, sharded).optimizer_bytes == pytest.approx(7 * 2 * arch.params / 8)


def test_expert_parallelism_saves_time_under_ddp() -> None:
    arch = load("Qwen/Qwen3-30B-A3B")[1]
    machine = replace(H100, count=8, per_node=8)
    one, eight = (
        step_time(arch, Setup(method="full", gpus=8, sharding="ddp", expert_parallel=n), machine).parts
        for n in (1, 8)
    )
    assert eight["optimizer"] < 0.25 * one["optimizer"] and eight["communication"] < one["communication"]


def test_traffic_inside_a_model_by_hand() -> None:
    """Llama-3.2-1B: 16 layers, width 2048, 32 heads of 64 and 8 of keys and values; 2 micro-steps of 2 x 1024 tokens
    in 2 bytes. Tensor parallel: two sums a layer in forward and backward. Pipeline: to the next stage and back.
    Sequence parallel: queries and results (32 heads each) and keys and values (8 each), forward and backward."""
    stream = 2 * 1024 * 2048 * 2
    base = Setup(micro_batch=2, seq_len=1024, accumulation=2)
    of = {
        "tensor_parallel": traffic_of(ARCH, replace(base, gpus=4, tensor_parallel=4), 0),
        "pipeline_parallel": traffic_of(ARCH, replace(base, gpus=4, pipeline_parallel=4), 0),
        "sequence_parallel": traffic_of(ARCH, replace(base, gpus=4, sequence_parallel=4), 0),
    }
    found = {n: [(t.collective, t.bytes, t.calls, t.group_size) for t in sent] for n, sent in of.items()}
    assert found["tensor_parallel"] == [("all_reduce", stream * 2 * 16 * 2 * 2, 2 * 16 * 2 * 2, 4)]
    assert found["pipeline_parallel"] == [("send", stream * 2 * 2, 2 * 2, 4)]
    heads = (2 * 1024 // 4) * 64 * (2 * 32 + 2 * 8) * 2
    assert found["sequence_parallel"] == [("all_to_all", heads * 16 * 2 * 2, 4 * 16 * 2 * 2, 4)]
    again = Setup(micro_batch=2, seq_len=1024, gpus=4, tensor_parallel=4, checkpointing="layer")
    assert traffic_of(ARCH, again, 0)[0].bytes == stream * 2 * 16 * 3


def test_tokens_to_experts_by_hand() -> None:
    """Qwen3-30B-A3B: 48 layers send 1024 tokens to 8 experts each, 2048 values of 2 bytes, there and back, forward
    and backward."""
    arch = load("Qwen/Qwen3-30B-A3B")[1]
    setup = Setup(method="full", seq_len=1024, gpus=8, sharding="ddp", expert_parallel=8)
    sent = next(t for t in traffic_of(arch, setup, 0) if t.collective == "all_to_all")
    assert (sent.bytes, sent.calls) == (1024 * 8 * 2048 * 2 * 2 * 2 * 48, 2 * 2 * 48)


@pytest.mark.parametrize(
    ("gpus", "sequence", "sharding", "group"),
    [
        (8, 8, "ddp", 8),
        (8, 4, "ddp", 8),
        (8, 8, "none", 8),
        (8, 8, "zero2", 8),
        (4, 1, "ddp", 4),
        (1, 1, "none", 0),
    ],
)
def test_gpus_that_share_sequences_sum_gradients(gpus: int, sequence: int, sharding: str, group: int) -> None:
    """Each has seen a part of the tokens, so that a gradient is the sum over all of them, whoever holds states."""
    setup = Setup(gpus=gpus, sequence_parallel=sequence, sharding=sharding)  # type: ignore[arg-type]
    found = {entry.what: entry.group_size for entry in traffic_of(ARCH, setup, 10**6)}
    assert found.get("gradients", 0) == group


@pytest.mark.parametrize(
    ("method", "live", "accumulation", "gathered", "reduced", "within"),
    [
        ("full", 0, 1, 1_905_152, 952_576, 0.003),
        ("full", 120_000, 1, 1_658_880, 952_576, 0.005),
        ("full", 120_000, 2, 3_317_760, 1_905_152, 0.005),
        ("lora", 0, 1, 2_101_504, 155_648, 0.02),
        ("lora", 0, 2, 4_203_008, 311_296, 0.02),
        ("lora", 10**9, 1, 1_108_224, 155_648, 0.003),
        ("lora", 10**9, 2, 2_216_448, 311_296, 0.003),
    ],
)
def test_zero_3_gathers_as_deepspeed_does(
    monkeypatch: pytest.MonkeyPatch, method: str, live: int, accumulation: int, gathered: int, reduced: int,
    within: float,
) -> None:  # fmt: skip
    """Bytes that DeepSpeed 0.19.8 asked of torch's fake group in a step (on a CPU, two processes, every parameter
    partitioned, max_reuse_distance as `live`; its dispatched collectives counted), of the small Llama of
    tools/sharded_cases.py. Norms are neglected, and that the first layer's q, k and v run back without their weights.
    """
    monkeypatch.setattr("planner.memory.traffic.DEEPSPEED_LIVE", live)
    layout = {"sharding": "zero3", "accumulation": accumulation}
    run = Case("llama", method, "fp32", "zero3", 2, layout).run()
    trained = (952_576 if method == "full" else 155_648) // 4
    found = {entry.collective: entry.bytes for entry in traffic_of(run.arch, run.setup, trained)}
    assert found["all_gather"] == pytest.approx(gathered, rel=within)
    assert found["reduce_scatter"] == pytest.approx(reduced, rel=0.003)


def test_a_stage_of_a_pipeline_gathers_its_own_units() -> None:
    """The host's time for gathering is a pipeline's whole, of which a stage has its part once: as of a busy phase."""
    machine = replace(H100, count=8, per_node=8)
    units = {
        stages: work_of(
            ARCH, Setup(gpus=8, sharding="zero3", pipeline_parallel=stages, method="full")
        ).gathers
        for stages in (1, 2, 4)
    }
    assert units[1] == units[2] == units[4] > 0
    setup = Setup(gpus=8, sharding="zero3", method="full", seq_len=16)  # so short that the host is waited for
    hosts = [step_time(ARCH, replace(setup, pipeline_parallel=n), machine).parts["host"] for n in (1, 2, 4)]
    assert hosts[0] == pytest.approx(2 * hosts[1]) == pytest.approx(4 * hosts[2])


def test_programs_on_megatron_core_reduce_and_scatter_what_deepspeed_reduces_whole() -> None:
    """megatron/core/distributed/param_and_grad_buffer.py: with the distributed optimizer, reduce_scatter."""
    for trainer, collective in (
        ("hf-trainer", "all_reduce"), ("megatron", "reduce_scatter"), ("megatron-lm", "reduce_scatter"),
        ("ms-swift-megatron", "reduce_scatter"), ("nemo-1", "reduce_scatter"), ("nemo-2", "reduce_scatter"),
    ):  # fmt: skip
        setup = running("meta-llama/Llama-3.2-1B", {"trainer": trainer, "gpus": 8, "sharding": "zero1"}).setup
        assert setup.trainer == trainer
        found = {entry.what: entry.collective for entry in traffic_of(ARCH, setup, 1000)}
        assert found["gradients"] == collective, trainer
