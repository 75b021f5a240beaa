"""Layouts that share experts, matrices, layers and sequences, or lie in the host's memory: which are tried, and the
screen of them against the scalar formulas."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from planner import hardware
from planner.errors import InputError
from planner.schema import Attend
from planner.search import plan
from planner.search.evaluate import Evaluated, evaluate
from planner.search.layout import Layout, layouts, shared, spread
from planner.search.screen import screen
from planner.search.select import Chooser
from planner.search.space import Limits, Space
from planner.setup import Setup

from ..strategies import examples
from .small import GPUS, job_of, search_of

LLAMA = "meta-llama/Llama-3.1-8B"
MODELS = (LLAMA, "Qwen/Qwen3-30B-A3B", "google/gemma-2-2b", "LiquidAI/LFM2-1.2B")
SHARDED = (("ddp", "fsdp"), ("zero1", "zero3"), ("zero2", "fsdp-hybrid"))
OFFLOAD = ("none", "optimizer", "parameters", "all")


def compared(model: str, space: Space, most: int, seed: int) -> list[tuple[Evaluated, float, float]]:
    """Plans of a space whose time is the scalar formulas' to the digit, with the screen's memory over theirs."""
    job, found = job_of(model), []
    cells = screen(job, space)
    possible = np.flatnonzero(np.isfinite(cells.over))
    for cell in np.random.default_rng(seed).choice(possible, min(most, len(possible)), replace=False):
        full = evaluate(job, cells.choice(int(cell)))
        assert cells.seconds[cell] == pytest.approx(full.seconds, rel=1e-9), full.choice.text
        assert cells.usd[cell] == pytest.approx(full.usd, rel=1e-9), full.choice.text
        held = (cells.over[cell] + 1) * full.memory_bytes / full.memory.per_gpu_bytes
        high = (cells.over_high[cell] + 1) * full.memory_bytes / full.memory.high
        found.append((full, held, high))
    return found


def counts_of(space: Space) -> set[tuple[int, ...]]:
    ways = ("gpus", "tensor_parallel", "pipeline_parallel", "sequence_parallel")
    return {tuple(getattr(own, way) for way in ways) for own in space.layouts}


def some_of(values: Any) -> Any:
    return st.sets(st.sampled_from(values), min_size=1).map(lambda found: tuple(sorted(found)))


@examples(6)
@given(
    model=st.sampled_from(MODELS), gpus=st.sampled_from([(2, 4), (8,), (16,)]), tensor=some_of([1, 2, 4]),
    pipeline=some_of([1, 2, 4, 8]), sequence=some_of([1, 2, 4, 8]), experts=some_of([1, 2, 4]),
    offload=some_of(OFFLOAD), shardings=st.sampled_from(SHARDED), seed=st.integers(0, 9),
)  # fmt: skip
def test_the_screen_equals_the_scalar_formulas(
    model: str, gpus: Any, tensor: Any, pipeline: Any, sequence: Any, experts: Any, offload: Any, shardings: Any,
    seed: int,
) -> None:  # fmt: skip
    counts = {"tensor_parallel": tensor, "pipeline_parallel": pipeline, "sequence_parallel": sequence}
    counts |= {"expert_parallel": experts} if "A3B" in model else {}
    job = job_of(model)
    try:
        found = spread(job.arch, job.setup, layouts(gpus, shardings), counts, offload, ())
    except InputError:  # no count that goes with these GPUs
        reject()
    some = np.random.default_rng(seed).permutation(len(found))[:8]
    tried = tuple(found[number] for number in some)
    space = Space(
        (GPUS[2], hardware.find("rtx 4090")), tried, micro_batches=(1, 4), ranks=(4, 64), quantize=("none", "nf4"),
        batches=(16, 64),
    )  # fmt: skip
    for full, held, high in compared(model, space, 15, seed):
        assert held == pytest.approx(1, rel=1e-8), full.choice.text
        assert high == pytest.approx(1, rel=1e-8), full.choice.text


def test_stages_of_a_pipeline_are_each_weighed() -> None:
    """The first stage needs most with many sequences in flight, the last where the logits are large."""
    found = tuple(Layout(8, "ddp", pipeline_parallel=stages) for stages in (2, 4))
    space = Space(
        (GPUS[2],), (*found, Layout(8, "none", pipeline_parallel=8)), micro_batches=(1, 2, 4, 8, 16),
        ranks=(4, 16, 64), quantize=("none",), batches=(16, 64, 128),
    )  # fmt: skip
    plans = compared(LLAMA, space, 200, 0)
    assert {full.choice.accumulation for full, _, _ in plans} >= {1, 2, 4, 8, 16}
    wheres = {full.memory.peak.where for full, _, _ in plans}
    assert len(wheres) > 1
    for full, held, _ in plans:
        assert held == pytest.approx(1, rel=1e-8), full.choice.text


def test_the_best_is_that_of_brute_force() -> None:
    """Every plan of a small space, counted by the scalar formulas alone."""
    options: dict[str, Any] = {
        "tokens": "20M", "gpu": "rtx 4090", "gpus": (4, 8), "tensor_parallel": (1, 2), "pipeline_parallel": (1, 2),
        "sequence_parallel": (1, 2, 4), "offload": "none,all", "ranks": 16, "layers": "mlp", "quantize": "none",
        "micro_batch": (1, 2), "batch": 16, "seq_len": 4096,
    }  # fmt: skip
    job, space = search_of(LLAMA, options)
    expected = {
        (gpus, tensor, pipeline, sequence)
        for gpus, tensor, pipeline, sequence in itertools.product((4, 8), (1, 2), (1, 2), (1, 2, 4))
        if gpus % (tensor * pipeline * sequence) == 0
    }
    assert counts_of(space) == expected
    chooser = Chooser(screen(job, space))
    everything = [chooser.full(int(cell)) for cell in np.flatnonzero(np.isfinite(chooser.cells.over))]
    fitting = [full for full in everything if full.over_bytes() <= 0]
    assert len(fitting) > 20 and len(fitting) < len(everything)
    for prefer, figure in (("cost", "usd"), ("time", "seconds")):
        found = plan(LLAMA, **{**options, "prefer": prefer}).best
        assert getattr(found, figure) == min(getattr(full, figure) for full in fitting)
    assert chooser.best(Limits()) is not None


LONG: dict[str, Any] = {"tokens": "10M", "gpu": "a100 80gb", "gpus": (4, 8), "seq_len": 65536, "ranks": 16}


def test_sequences_are_shared_where_nothing_else_fits() -> None:
    """And are not where somebody says so, nor where whole ones fit."""
    found = plan("meta-llama/Llama-3.1-70B", **LONG)
    layout = found.best.choice.layout
    assert layout.sequence_parallel > 1 and found.best.over_bytes() <= 0
    assert found.options()["sequence_parallel"] == layout.sequence_parallel
    assert "sequences-shared" in {notice.code for notice in found.warnings}
    assert f"sequences over {layout.sequence_parallel}" in found.best.choice.text
    with pytest.raises(InputError, match="Nothing fits: the nearest is") as told:
        plan("meta-llama/Llama-3.1-70B", **LONG, sequence_parallel=1)
    assert "sequences over" not in str(told.value)
    asked = plan("meta-llama/Llama-3.1-70B", **LONG, sequence_parallel=(1, 2, 4, 8))
    assert asked.best.choice == found.best.choice
    assert "sequences-shared" not in {notice.code for notice in asked.warnings}
    short = plan("meta-llama/Llama-3.1-70B", **{**LONG, "seq_len": 2048})
    assert short.best.choice.layout.sequence_parallel == 1


def test_the_nearest_is_of_all_that_was_tried() -> None:
    """Of shared sequences too, and with what would do, which does."""
    options = {**LONG, "seq_len": 131072, "gpus": (2,), "quantize": "none"}
    with pytest.raises(InputError, match=r"Nothing fits: .* sequences over 2,") as told:
        plan("meta-llama/Llama-3.1-70B", **options)
    assert "would do" in str(told.value)
    short: dict[str, Any] = {
        "tokens": "1M",
        "gpu": "t4",
        "gpus": 1,
        "quantize": "none",
        "seq_len": 512,
        "ranks": 8,
    }
    with pytest.raises(InputError, match=r"--offload all would do, in .*: rank 8 on") as told:
        plan(LLAMA, **short)
    away = plan(LLAMA, **short, offload="all").best
    assert away.choice.layout.offload == "all" and away.choice.text in str(told.value)


def test_more_gpus_are_told_with_what_else_has_to_be_typed() -> None:
    """Where other ways were asked for; nothing where the trainer has none that fits."""
    options: dict[str, Any] = {"tokens": "1M", "gpu": "rtx4090", "gpus": 1, "ranks": 8, "quantize": "nf4"}
    asked: dict[str, Any] = {"sharding": "ddp", "checkpointing": "none", "micro_batch": 2}
    with pytest.raises(InputError) as told:
        plan("meta-llama/Llama-3.1-70B", **options, **asked)
    typed = re.search(
        r"--gpus (\d+) --sharding (\S+) --checkpointing (\S+) --micro-batch 1 would", str(told.value)
    )
    assert typed
    more: dict[str, Any] = {
        "gpus": int(typed[1]),
        "sharding": typed[2],
        "checkpointing": typed[3],
        "micro_batch": 1,
    }
    assert plan("meta-llama/Llama-3.1-70B", **{**options, **more}).best.choice.layout.gpus == int(typed[1])
    with pytest.raises(InputError) as told:
        plan("meta-llama/Llama-3.1-70B", **{**options, "trainer": "unsloth", "quantize": "nf4-double"})
    assert "would do" not in str(told.value)


def test_more_gpus_that_would_share_sequences_do() -> None:
    """As they are typed."""
    options: dict[str, Any] = {**LONG, "seq_len": 524288, "gpus": 8, "batch": 8, "ranks": 8}
    with pytest.raises(InputError) as told:
        plan("meta-llama/Llama-3.1-70B", **options)
    typed = re.search(r"--gpus (\d+) --sequence-parallel (\d+) would do", str(told.value))
    assert typed
    gpus, sequence = int(typed[1]), int(typed[2])
    found = plan("meta-llama/Llama-3.1-70B", **{**options, "gpus": gpus, "sequence_parallel": sequence})
    assert found.best.choice.layout.gpus == gpus > 8
    assert found.best.choice.layout.sequence_parallel == sequence > 1


@given(
    st.sampled_from([2, 4, 6, 8, 12, 16, 32]), st.sampled_from(SHARDED), st.sampled_from([1000, 1024, 4096, 4095]),
    st.sampled_from(MODELS),
)  # fmt: skip
def test_shared_sequences_are_whole_parts(gpus: int, shardings: Any, seq_len: int, model: str) -> None:
    job = job_of(model, setup=Setup(seq_len=seq_len))
    heads = {op.n_heads for block in job.arch.blocks for op in block.operations if isinstance(op, Attend)}
    found = shared(job.arch, job.setup, layouts((gpus,), shardings))
    counts = [2**power for power in range(1, 6)]
    expected = {
        n for n in counts if gpus % n == 0 and seq_len % n == 0 and all(each % n == 0 for each in heads)
    }
    assert {own.sequence_parallel for own in found} == expected
    assert len(found) == len(expected) * len(shardings)
    assert all(own.data_parallel * own.sequence_parallel == gpus for own in found)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tensor_parallel": 3}, "gpus: found 8, expected a multiple of 3"),
        ({"tensor_parallel": 64, "gpus": 64}, "tensor-parallel: found 64, .* divisor of the 32 attention heads"),
        ({"pipeline_parallel": 5, "gpus": 5}, "pipeline-parallel: found 5, .* divisor of the 32 layers.*are 4 and 8"),
        ({"sequence_parallel": 8, "seq_len": 1001}, "sequence-parallel: found 8, expected a divisor of the 1001"),
        ({"sequence_parallel": 2, "objective": "dpo"}, "sequence-parallel: found 2, expected 1 with objective dpo"),
        ({"expert_parallel": 2}, "expert-parallel: found 2, expected"),
        ({"shard_size": 4}, "shard-size: found 4, expected --sharding fsdp-hybrid beside it"),
        ({"shard_size": 3, "sharding": "fsdp-hybrid"}, "shard-size: found 3, expected a divisor of the 8"),
        ({"offload": "some"}, "offload: found 'some', expected one of none, optimizer, parameters, all"),
        ({"tensor_parallel": 0}, "tensor-parallel: found 0"),
        ({"sequence_parallel": "2,x"}, "sequence-parallel: found 'x'"),
    ],
)  # fmt: skip
def test_counts_that_go_with_nothing_are_one_clear_error(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan(LLAMA, **{"tokens": "20M", "gpu": "h100", "gpus": 8, **options})


def test_what_does_not_go_together_is_left_out() -> None:
    """Of 24 heads, 8 of keys and values, 28 layers and 2,049 tokens, on 1 to 16 GPUs."""
    options: dict[str, Any] = {
        "tokens": "1M", "gpus": (1, 2, 6, 16), "tensor_parallel": (1, 3, 16), "pipeline_parallel": (1, 2, 8),
        "sequence_parallel": (1, 2, 3), "seq_len": 2049,
    }  # fmt: skip
    _, space = search_of("meta-llama/Llama-3.2-3B", {**options, "gpu": "h100"})
    tried = counts_of(space)
    # 3 divides the heads but neither divides nor is divided by the 8 of keys and values, which matrices and sequences
    # that are shared want alike; 16 does not divide 24.
    assert tried == {(1, 1, 1, 1), (2, 1, 1, 1), (2, 1, 2, 1), (6, 1, 1, 1), (6, 1, 2, 1), (16, 1, 1, 1),
                     (16, 1, 2, 1)}  # fmt: skip
    alone = {own.sharding for own in space.layouts if own.data_parallel * own.sequence_parallel == 1}
    assert alone == {"none"}


def test_a_layout_keeps_no_hash_beyond_its_process() -> None:
    """Words hash otherwise in another process: a layout that was asked for its hash goes there without it."""
    own, other = Layout(8, "fsdp", offload="optimizer"), Layout(8, "fsdp", offload="optimizer")
    assert hash(own) == hash(other) == hash(copy.copy(own))
    assert hash(own) != hash(replace(own, gpus=4))
    assert len(vars(pickle.loads(pickle.dumps(own)))) == len(fields(Layout))
